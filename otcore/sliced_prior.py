"""Sliced distances to a prior whose projections are known in closed form, without a sample and its noise.

Along a direction the prior is a location-scale law on the line, with distribution function F, quantiles Q and
the partial first moment H(z), the integral of s dF(s) up to z. The quantile function of a cloud is constant
between its levels t_0 < t_1 < ... < t_n, at x_i on (t_{i-1}, t_i), with z_i = Q(t_i), and the cost is a sum
over these cells:

    p = 2:  sum_i (t_i - t_{i-1}) x_i^2 - 2 sum_i x_i (H(z_i) - H(z_{i-1})) + the second moment
    p = 1:  sum_i x_i (2 F(c) - F(z_{i-1}) - F(z_i)) + H(z_{i-1}) + H(z_i) - 2 H(c),
            c = x_i clamped to [z_{i-1}, z_i]
    else:   Gauss-Legendre quadrature of |x_i - Q(t)|^p over s, t = t_{i-1} + (t_i - t_{i-1}) (3 s^2 - 2 s^3),
            16 nodes a cell: levels crowd towards the ends of a cell, where Q may be singular

both of the first exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy
import torch
from torch import Tensor

from .directions import check_projections, make_projections
from .functional import full_precision
from .problem import _positive
from .quantiles import make_steps, rooted
from .sliced import as_given, checked_clouds, make_solution, power_of
from .sliced_operators import check_measures

_NODES = 16
_BISECTIONS = 60


class Prior(Protocol):
    """A law in D dimensions, the same in all directions about its centre, up to scale."""

    @property
    def location(self) -> Any: ...
    @property
    def scale(self) -> float: ...
    def distribution(self, z: Tensor, d: int) -> Tensor:
        """F on a line, for location 0 and scale 1."""

    def quantile(self, levels: Tensor, d: int) -> Tensor:
        """Q, for levels in [0, 1]."""

    def first_moment(self, z: Tensor, d: int) -> Tensor:
        """H; 0 at the largest z."""

    def second_moment(self, d: int) -> float:
        """The integral of s^2 dF."""


@dataclass(frozen=True)
class GaussianPrior:
    """N(mean, std^2 I); the mean is a number or (D,)."""

    mean: Any = 0.0
    std: float = 1.0

    @property
    def location(self) -> Any:
        return self.mean

    @property
    def scale(self) -> float:
        return _positive("std", self.std)

    def distribution(self, z: Tensor, d: int) -> Tensor:
        return cast(Tensor, torch.special.ndtr(z))

    def quantile(self, levels: Tensor, d: int) -> Tensor:
        return cast(Tensor, torch.special.ndtri(levels))

    def first_moment(self, z: Tensor, d: int) -> Tensor:
        return -torch.exp(-0.5 * z.square()) / math.sqrt(2.0 * math.pi)

    def second_moment(self, d: int) -> float:
        return 1.0


@dataclass(frozen=True)
class UniformBall:
    """The uniform law on the ball about `center`, a number or (D,), of the given radius: a disk for D = 2."""

    center: Any = 0.0
    radius: float = 1.0

    @property
    def location(self) -> Any:
        return self.center

    @property
    def scale(self) -> float:
        return _positive("radius", self.radius)

    def distribution(self, z: Tensor, d: int) -> Tensor:
        """The density is c (1 - s^2)^((d - 1)/2); integration by parts takes the power down by 1."""
        z = z.clamp(-1.0, 1.0)
        rest = (1.0 - z) * (1.0 + z)
        if d % 2:
            total, done = 0.5 * (1.0 + z), 1
        else:
            # torch's derivative of asin at +-1 is infinite, and cancels that of the root.
            total = 0.5 + (z * _root(rest) + torch.atan2(z, _root(rest))) / math.pi
            done = 2
        # F_{k+2}(z) = F_k(z) + z (1 - z^2)^((k + 1)/2) c_{k+2} / (k + 2)
        for k in range(done, d, 2):
            power = rest ** ((k + 1) // 2) if k % 2 else _root(rest) * rest ** (k // 2)
            total = total + z * power * (_ball_constant(k + 2) / (k + 2))
        return total

    def quantile(self, levels: Tensor, d: int) -> Tensor:
        low, high = torch.full_like(levels, -1.0), torch.ones_like(levels)
        for _ in range(_BISECTIONS):
            middle = 0.5 * (low + high)
            below = self.distribution(middle, d) < levels
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return torch.where(levels >= 1.0, 1.0, torch.where(levels <= 0.0, -1.0, 0.5 * (low + high)))

    def first_moment(self, z: Tensor, d: int) -> Tensor:
        rest = ((1.0 - z) * (1.0 + z)).clamp(min=0.0)
        return -_ball_constant(d) / (d + 1) * rest ** (0.5 * (d + 1))

    def second_moment(self, d: int) -> float:
        return 1.0 / (d + 2)


def _root(square: Tensor) -> Tensor:
    positive = square > 0
    return torch.where(positive, torch.where(positive, square, 1.0).sqrt(), 0.0)


def _ball_constant(d: int) -> float:
    """c with c times the integral of (1 - s^2)^((d - 1)/2) over [-1, 1] equal to 1."""
    return math.exp(math.lgamma(0.5 * d + 1.0) - math.lgamma(0.5 * (d + 1))) / math.sqrt(math.pi)


@full_precision
def sliced_wasserstein_to_prior(
    x: Any,
    prior: Prior,
    a: Any = None,
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
    """The sliced Wasserstein distance between a cloud and a prior, by the prior's exact quantiles.

    Exact for each direction for p = 1 and p = 2; other p by Gauss-Legendre quadrature of 16 nodes a cell of
    weight, good to some digits in the tails. In plain PyTorch, in float64. Arguments not listed, shapes and
    results are those of `sliced_wasserstein_distance`; ragged batches are not taken.

    Args:
        x: the points, (N, D) or (B, N, D).
        prior: a `GaussianPrior` or a `UniformBall`, in D dimensions.
        a: the weights of x, of mass 1; uniform when None.

    Source: Kolouri et al., "Sliced-Wasserstein auto-encoders", arXiv:1804.01947, which samples the prior.
    """
    if not all(hasattr(prior, name) for name in ("location", "scale", "quantile")):
        raise ValueError(f"prior is {prior!r}; use GaussianPrior(mean, std) or UniformBall(center, radius).")
    measures, form = checked_clouds(x, x, a, a, single=False)
    p = power_of(p)
    if measures.n:
        raise ValueError("x is a ragged batch; use (N, D) or (B, N, D), or one call an item.")
    if form.numpy and projections is not None:
        projections = torch.as_tensor(projections)
    directions = make_projections(
        measures.x, measures.items, n_projections, projections, seed, generator, sampling
    )
    with torch.no_grad():
        check_measures(measures)
        mass = measures.a.sum(-1)
        if bool(((mass - 1.0).abs() > 1e-3).any()):
            raise ValueError(f"a has mass {float(mass[0]):.6g} and the prior 1; divide a by its sum.")
        if projections is not None:
            check_projections(directions)
    costs = _costs(measures.x, measures.a if measures.weighted else None, prior, directions, p)
    mean = costs.mean(-1)
    value = (rooted(mean, p) if root else mean).to(measures.x.dtype)
    if not return_solution:
        return as_given(form, value)
    given = directions.detach().numpy() if form.numpy else directions
    return make_solution(form, value, costs.to(value.dtype), given, p, root)


def _costs(x: Tensor, a: Tensor | None, prior: Prior, directions: Tensor, p: float) -> Tensor:
    d, theta = x.shape[-1], directions.double()
    location = torch.as_tensor(prior.location, dtype=torch.float64, device=x.device)
    if location.shape not in ((), (d,)):
        raise ValueError(f"prior has a centre of shape {tuple(location.shape)}; use a number or ({d},).")
    scale = prior.scale * torch.linalg.vector_norm(theta, dim=-2).unsqueeze(-1)
    u = ((x.double() - location) @ theta).mT / scale
    steps = make_steps(u, None if a is None else a.double().unsqueeze(1))
    if a is None:
        # The same along every direction, and so are the prior's quantiles there.
        n = x.shape[1]
        levels = torch.arange(n + 1, dtype=torch.float64, device=x.device).view(1, 1, -1) / n
    else:
        levels = torch.cat([torch.zeros_like(steps.levels[..., :1]), steps.levels], -1)
    cost: Tensor = scale.squeeze(-1) ** p * _law_cost(steps.positions, levels, prior, d, p)
    return cost


def _law_cost(x: Tensor, levels: Tensor, prior: Prior, d: int, p: float) -> Tensor:
    width = levels.diff(dim=-1)
    if p in (1, 2):
        z = prior.quantile(levels, d)
        moment = prior.first_moment(z, d)
    if p == 2:
        whole = (width * x.square() - 2.0 * x * moment.diff(dim=-1)).sum(-1) + prior.second_moment(d)
        return whole.clamp(min=0.0)
    if p == 1:
        c = torch.minimum(torch.maximum(x, z[..., :-1]), z[..., 1:])
        slope = 2.0 * prior.distribution(c, d) - levels[..., 1:] - levels[..., :-1]
        return (x * slope + moment[..., 1:] + moment[..., :-1] - 2.0 * prior.first_moment(c, d)).sum(-1)
    nodes, shares = (torch.as_tensor(t, device=x.device) for t in numpy.polynomial.legendre.leggauss(_NODES))
    total: Tensor = torch.zeros_like(x)
    for node, share in zip(nodes, shares, strict=True):
        s = 0.5 * (node + 1.0)
        at = levels[..., :-1] + s * s * (3.0 - 2.0 * s) * width
        total = total + 3.0 * share * s * (1.0 - s) * (x - prior.quantile(at, d)).abs().pow(p)
    return (width * total).sum(-1)
