"""The max-sliced Wasserstein distance: along the direction in which two clouds are furthest apart."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .directions import check_projections, make_projections
from .functional import _from_numpy, full_precision
from .problem import _count, _positive
from .sliced import as_given, checked_clouds, power_of
from .sliced_operators import Measures, Options, dense_costs, sliced
from .solution import ConvergenceWarning

_STARTS = 4
_LONGEST, _SHORTEST = 1e3, 1e-7
# Of the gain that the gradient promises, what a step has to keep.
_SHARE = 0.3


@dataclass(frozen=True)
class MaxSlicedSolution:
    """A max-sliced distance and how its direction was found.

    Attributes:
        value: as `max_sliced_wasserstein_distance` returns it, differentiable.
        direction: the direction, (D,) or (B, D).
        converged: whether the ascent of each item came to rest; a local maximum, as the cost is not concave.
        n_iter: steps of the ascent.
        slope: the size of the cost's gradient along the sphere, relative to the whole gradient.
    """

    value: Any
    direction: Any
    converged: Any
    n_iter: int
    slope: Any


@full_precision
def max_sliced_wasserstein_distance(
    x: Any,
    y: Any,
    a: Any = None,
    b: Any = None,
    n_projections: int = 50,
    p: float = 2,
    projections: Any = None,
    seed: int | None = None,
    *,
    generator: torch.Generator | None = None,
    sampling: str = "normal",
    root: bool = True,
    max_iter: int | None = None,
    tol: float = 1e-4,
    return_solution: bool = False,
) -> Any:
    """The largest W_p between projections of two clouds on a line, W_p^p with `root=False`.

    The best few of the drawn directions climb by projected gradient steps on the sphere, with a step length
    for each that doubles after a success and is halved after a failure. Shapes, dtypes and the arguments not
    listed are those of `sliced_wasserstein_distance`. Gradients are those along the direction found
    (envelope).

    Args:
        n_projections: how many directions are drawn to start from.
        projections: directions (D, L) instead of drawn ones. The result is then the largest over them, as in
            POT, unless `max_iter` is given.
        max_iter: the most steps of the ascent; None for 200, or 0 where `projections` are given.
        tol: a direction is at rest where the gradient along the sphere is at most `tol` times the whole
            gradient, or where no step longer than 1e-7 gains anything.
        return_solution: whether to return a `MaxSlicedSolution`.

    Warns:
        ConvergenceWarning: when `max_iter` was reached; not where it is 0.

    Source: Deshpande et al., "Max-sliced Wasserstein distance and its use for GANs", arXiv:1904.05877.
    """
    measures, form = checked_clouds(x, y, a, b, single=False)
    p = power_of(p)
    tol = _positive("tol", tol)
    if max_iter is None:
        max_iter = 200 if projections is None else 0
    elif max_iter != 0:
        max_iter = _count("max_iter", max_iter)
    if form.numpy and projections is not None:
        projections = _from_numpy("projections", projections)
    directions = make_projections(
        measures.x, measures.items, n_projections, projections, seed, generator, sampling
    ).detach()
    with torch.no_grad():
        if projections is not None:
            check_projections(directions)
        best, converged, n_iter, slope = _climb(measures, directions, p, max_iter, tol)
    if max_iter and not bool(converged.all()):
        warnings.warn(
            f"not converged: {int((~converged).sum())} of {len(converged)} directions after {n_iter} steps, "
            f"the gradient along the sphere {float(slope.max()):.2e} of the whole and tol {tol:.2e}; raise "
            "max_iter or tol.",
            ConvergenceWarning,
            stacklevel=3,
        )
    value, _ = sliced(measures, best, p, bool(root), False)
    if not return_solution:
        return as_given(form, value)
    shown = as_given(form, value), as_given(form, best.squeeze(-1)), as_given(form, converged)
    return MaxSlicedSolution(*shown, n_iter=n_iter, slope=as_given(form, slope))


def _climb(
    measures: Measures, directions: Tensor, p: float, max_iter: int, tol: float
) -> tuple[Tensor, Tensor, int, Tensor]:
    """The best direction of each item, (items, D, 1), whether it is at rest, steps, and its slope."""
    _, costs = sliced(measures, directions, p, False, False)
    starts = min(_STARTS, directions.shape[-1]) if max_iter else 1
    cost, place = costs.topk(starts, dim=-1)
    place = place.unsqueeze(1).expand(-1, directions.shape[-2], -1)
    theta = directions.expand(len(costs), -1, -1).gather(-1, place)
    step = torch.ones_like(cost)
    rest = torch.zeros_like(cost, dtype=torch.bool)
    slope = torch.full_like(cost, float("nan"))
    n_iter = 0
    moved = torch.ones_like(rest)
    along, size = torch.zeros_like(theta), torch.zeros_like(cost)
    while n_iter < max_iter and not bool(rest.all()):
        if bool(moved.any()):
            theta = theta / torch.linalg.vector_norm(theta, dim=1, keepdim=True)
            along, slope, size = _tangent(measures, theta, p)
            rest = rest | (slope <= tol)
        trial = theta + step.unsqueeze(1) * along
        trial = trial / torch.linalg.vector_norm(trial, dim=1, keepdim=True)
        _, reached = sliced(measures, trial, p, False, False)
        expected = step * slope.square() * size
        moved = (reached - cost > _SHARE * expected) & ~rest
        theta = torch.where(moved.unsqueeze(1), trial, theta)
        cost = torch.where(moved, reached, cost)
        step = torch.where(moved, (2.0 * step).clamp(max=_LONGEST), 0.5 * step)
        rest = rest | (step < _SHORTEST)
        n_iter += 1
    first = cost.argmax(-1, keepdim=True)
    best = theta.gather(-1, first.unsqueeze(1).expand(-1, theta.shape[1], -1)).contiguous()
    return best, rest.gather(-1, first).squeeze(-1), n_iter, slope.gather(-1, first).squeeze(-1)


def _tangent(measures: Measures, theta: Tensor, p: float) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient along the sphere over the size of the whole, (items, D, L), its size, and that size."""
    options = Options(p, False, measures.weighted, False, measures.n, measures.m, False, False)
    clouds = measures[:4]
    with torch.enable_grad():
        theta = theta.detach().requires_grad_()
        costs = dense_costs([*(t.detach() for t in clouds), theta], options)
        (gradient,) = torch.autograd.grad(costs.sum(), theta)
    theta = theta.detach()
    along = gradient - (gradient * theta).sum(1, keepdim=True) * theta
    size = torch.linalg.vector_norm(gradient, dim=1, keepdim=True)
    along = torch.where(size > 0, along / torch.where(size > 0, size, 1.0), 0.0)
    return along, torch.linalg.vector_norm(along, dim=1), size.squeeze(1)
