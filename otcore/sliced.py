"""Sliced Wasserstein distances: transport on lines, on average over directions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .directions import make_projections
from .functional import _form, _from_numpy, full_precision
from .problem import _is_real, make_problem
from .quantiles import root_slope
from .sliced_operators import Measures, sliced
from .solution import Form


@dataclass(frozen=True)
class SlicedSolution:
    """A sliced distance and the directions it is the mean of.

    Attributes:
        value: as `sliced_wasserstein_distance` returns it, differentiable.
        per_projection: W_p^p along each direction, (L,) or (B, L), differentiable.
        standard_error: of `value`, from the spread of `per_projection`: how far it may be from the mean over
            all directions, NaN for a single one. For independent directions; orthogonal and quasi-random ones
            do better as a rule.
        projections: the directions, (D, L) or (B, D, L).
    """

    value: Any
    per_projection: Any
    standard_error: Any
    projections: Any


_SINGLE = Form(batched=False, ragged=False, nested=False, numpy=False)
_ABSENT = torch.empty(0)


def power_of(p: Any) -> float:
    """p as a float; ValueError unless it is at least 1."""
    if not _is_real(p) or not 1 <= p < float("inf"):
        raise ValueError(f"p is {p!r}; use a finite number, at least 1.")
    return float(p)


def checked_clouds(x: Any, y: Any, a: Any, b: Any, *, single: bool = True) -> tuple[Measures, Form]:
    """The clouds, checked, and how they were given; batched, but where `single` ones may stay as they are."""
    if type(x) is Tensor and type(y) is Tensor and a is None and b is None and single:
        # What needs no more than a look: small problems take less time than the general checks.
        known = x.dim() == y.dim() == 2 and x.dtype in (torch.float32, torch.float64)
        same = x.dtype == y.dtype and x.device == y.device and x.shape[-1] == y.shape[-1]
        if known and same and x.shape[0] and y.shape[0] and not x.is_nested and not y.is_nested:
            absent = _ABSENT if x.device.type == "cpu" else x.new_empty(0)
            return Measures(x, y, absent, absent, False, (), ()), _SINGLE
    form = _form(x)
    if form.numpy:
        x, y, a, b = (_from_numpy(name, given) for name, given in (("x", x), ("y", y), ("a", a), ("b", b)))
    weighted = a is not None or b is not None
    problem = make_problem(x, y, a, b)
    return Measures(problem.x, problem.y, problem.a, problem.b, weighted, *problem.counts), form


def as_given(form: Form, tensor: Tensor) -> Any:
    """A result (items, ...) without its first dimension for single clouds, and as NumPy where these are."""
    if not form.batched and not form.ragged and form is not _SINGLE:
        tensor = tensor.squeeze(0)
    return tensor.detach().numpy()[()] if form.numpy else tensor


def make_solution(
    form: Form, value: Tensor, costs: Tensor, projections: Any, p: float, root: bool
) -> SlicedSolution:
    """With the standard error of the mean, taken through the root to first order."""
    known = costs.detach().double()
    mean, count = known.mean(-1), known.shape[-1]
    error = known.std(-1) / count**0.5 if count > 1 else torch.full_like(mean, float("nan"))
    if root:
        error = torch.where(mean > 0, error * root_slope(mean, p), error)
    return SlicedSolution(
        as_given(form, value), as_given(form, costs), as_given(form, error.to(value.dtype)), projections
    )


@full_precision
def sliced_wasserstein_distance(
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
    return_solution: bool = False,
) -> Any:
    """The sliced Wasserstein distance (mean over directions of W_p^p)^(1/p), exact for each direction.

    Clouds are (N, D) and (M, D), giving a scalar, or (B, N, D) and (B, M, D), giving (B,), or ragged batches,
    lists of clouds or jagged nested tensors. They are float32 or float64 (computed as such), float16 or
    bfloat16 (computed and returned in float32), on one device; or all NumPy arrays, and then the result is
    too. All items of a batch share their directions. Gradients in points, weights and projections, and second
    ones; where the value is 0 its gradient is 0.

    Args:
        x, y: the points.
        a, b: their weights, (N,) and (M,), with the batch dimension if there is one, of equal masses; uniform
            of mass 1 when None. Numbers of points may differ: quantile functions are merged exactly.
        n_projections: how many directions are drawn.
        p: the exponent, at least 1. The ground cost is |x - y|^p, without a half.
        projections: the directions, (D, L), one a column, or (B, D, L) for one set an item, instead of drawn
            ones. As in POT they are taken as they are: of length 1 for a sliced distance.
        seed: of the drawn directions; those of "normal" are then POT's for the same seed, on tensors.
        generator: a torch.Generator to draw from, instead of a seed.
        sampling: "normal" draws independent directions, "orthogonal" blocks of D at right angles, "sobol" a
            scrambled quasi-random sequence: the last two need fewer for the same error.
        root: False for the mean of W_p^p itself.
        return_solution: whether to return a `SlicedSolution`, with the value of each direction and the
            standard error.

    Returns:
        The value, or a `SlicedSolution`.

    Raises:
        ValueError: on unusable arguments, naming the argument, what it was and what would work.

    Source: Bonneel, Rabin, Peyre, Pfister, "Sliced and Radon Wasserstein barycenters of measures", JMIV 2015.
    """
    measures, form = checked_clouds(x, y, a, b)
    p = power_of(p)
    if form.numpy and projections is not None:
        projections = _from_numpy("projections", projections)
    directions = make_projections(
        measures.x, measures.items, n_projections, projections, seed, generator, sampling
    )
    value, costs = sliced(measures, directions, p, bool(root), projections is not None)
    if not return_solution:
        return as_given(form, value)
    return make_solution(form, value, costs, directions.numpy() if form.numpy else directions, p, root)
