"""Transport on the line and on the circle by plain PyTorch: sort, merge the levels, sum.

The reference of the compiled kernels, and what derivatives other than the first in the points are taken of.
The quantile function of a measure is constant between its levels, the cumulative sums of its sorted weights;
between merged levels two quantile functions are both constant, and the integral over them is a sum.

Masses are to be equal. Where they are so up to rounding only, each is divided by its own and the cost is that
of their mean, so that derivatives in the weights have the gauge <a, f> = <b, g> of the rest of the library.

Source: Peyre, Cuturi, "Computational Optimal Transport", section 2.6; Rabin, Delon, Gousseau, "Transportation
    distances on the circle", JMIV 2011, for the circle.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_BISECTIONS = 54


def power(difference: Tensor, p: float) -> Tensor:
    """|difference|^p."""
    if p == 2:
        return difference.square()
    return difference.abs() if p == 1 else difference.abs().pow(p)


def rooted(mean: Tensor, p: float) -> Tensor:
    """mean^(1/p), with a derivative of 0 where the mean is 0."""
    positive = mean > 0
    return torch.where(positive, torch.where(positive, mean, 1.0) ** (1.0 / p), 0.0)


def root_slope(mean: Tensor, p: float) -> Tensor:
    """The derivative of `rooted` in the mean."""
    positive = torch.where(mean > 0, mean, 1.0)
    return torch.where(mean > 0, rooted(positive, p) / (p * positive), 0.0)


class Steps(NamedTuple):
    """A quantile function: the sorted positions (..., N), the levels up to which they hold, and the mass."""

    positions: Tensor
    levels: Tensor
    mass: Tensor


def make_steps(positions: Tensor, weights: Tensor | None) -> Steps:
    """The quantile function of weights (..., N), which are uniform of mass 1 when None."""
    n = positions.shape[-1]
    if weights is None:
        weights = positions.new_full((n,), 1.0 / n)
    positions, order = positions.sort(dim=-1, stable=True)
    sums = weights.expand(positions.shape).gather(-1, order).cumsum(-1)
    return Steps(positions, sums / sums[..., -1:], sums[..., -1])


def transport(u: Tensor, v: Tensor, a: Tensor | None, b: Tensor | None, p: float) -> Tensor:
    """W_p^p between positions (..., N) and (..., M) with weights that broadcast to them: (...)."""
    if a is None and b is None and u.shape[-1] == v.shape[-1]:
        return power(u.sort(dim=-1, stable=True).values - v.sort(dim=-1, stable=True).values, p).mean(-1)
    x, y = make_steps(u, a), make_steps(v, b)
    levels = torch.cat([x.levels, y.levels], -1).sort(-1).values
    first = torch.zeros_like(levels[..., :1])
    difference = _at(x, levels) - _at(y, levels)
    cost = (levels.diff(dim=-1, prepend=first) * power(difference, p)).sum(-1)
    return 0.5 * (x.mass + y.mass) * cost


def _at(steps: Steps, levels: Tensor) -> Tensor:
    """The position that holds below each level."""
    index = torch.searchsorted(steps.levels.detach().contiguous(), levels.detach().contiguous())
    return steps.positions.gather(-1, index.clamp(max=steps.positions.shape[-1] - 1))


def transport_on_circle(u: Tensor, v: Tensor, a: Tensor | None, b: Tensor | None, p: float) -> Tensor:
    """W_p^p on the circle of length 1: positions (..., N) and (..., M) in [0, 1), giving (...).

    The least over a shift of the levels of the cost between the quantile functions, continued around the
    circle: convex in the shift, its slope is bisected. Gradients are those at the best shift (envelope).
    """
    x, y = make_steps(u, a), make_steps(v, b)
    with torch.no_grad():
        low = torch.full_like(x.mass, -1.0)
        high = torch.ones_like(low)
        for _ in range(_BISECTIONS):
            middle = 0.5 * (low + high)
            rising = _shift_slope(x, y, middle, p) > 0
            low, high = torch.where(rising, low, middle), torch.where(rising, middle, high)
        shift = (0.5 * (low + high)).unsqueeze(-1)
        turns = (y.levels + shift).floor()
    moved = y.levels + shift - turns
    levels = torch.cat([x.levels, moved], -1).sort(-1).values
    levels = torch.cat([torch.zeros_like(levels[..., :1]), levels], -1)
    # Between two levels, not at one: there rounding would decide on which side of a jump it is.
    middle = 0.5 * (levels[..., 1:] + levels[..., :-1])
    difference = _around(x, middle) - _around(y, middle - shift)
    cost = (levels.diff(dim=-1) * power(difference, p)).sum(-1)
    return 0.5 * (x.mass + y.mass) * cost


def _around(steps: Steps, levels: Tensor) -> Tensor:
    """The quantile function continued around the circle: Q(t + 1) = Q(t) + 1."""
    turns = levels.detach().floor()
    return _at(steps, levels - turns) + turns


def _shift_slope(x: Steps, y: Steps, shift: Tensor, p: float) -> Tensor:
    """The derivative of the cost in the shift: at each jump of y, what lies before it takes over."""
    after = torch.cat([y.positions[..., 1:], y.positions[..., :1] + 1.0], -1)
    met = _around(x, y.levels + shift.unsqueeze(-1))
    return (power(met - y.positions, p) - power(met - after, p)).sum(-1)
