"""Certified bounds: how far the value can be from the optimum, whatever the potentials are.

With the plan pi_ij = a_i b_j exp((f_i + g_j - C_ij) / eps), any potentials give a lower bound, the dual (see
`otcore.dual`), and any plan with the right marginals an upper bound, the primal

    <C, pi> + eps KL(pi | a b) + rho_x KL(pi 1 | a) + rho_y KL(pi' 1 | b)

where an infinite rho stands for an exact marginal. Two half-steps f', g' raise the dual. For the primal:

 1. The half-step makes the row sums of pi(f', g) exact: a tau, with tau = e^{-f' / rho_x} (1 where rho_x is
    infinite). With c' its column sums, that plan serves as it is where rho_y is finite; the gap to the dual
    is then rho_y KL(b c' | b e^{-g / rho_y}), of second order in the error.
 2. It is also rounded, to the columns b sigma with sigma proportional to e^{-g / rho_y}: columns that are too
    heavy are scaled down by w = min(1, sigma / c'). That leaves P with row sums a r'' <= a tau; what is
    missing, a (tau - r'') and b (sigma - w c'), is coupled (`otcore.coupling`).

Neither needs the cost: <C, P> + eps sum P log(P / a b) = <a r'', f'> + <b w c', g + eps log w>.

Source: Altschuler, Weed, Rigollet, "Near-linear time approximation algorithms for optimal transport via
    Sinkhorn iteration", arXiv:1705.09634, algorithm 2, for the rounding.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .backends import Backend
from .coupling import Coupling, Leftover, couple, product
from .dual import damping, translated
from .problem import Problem
from .schedule import bounding_box_diagonal
from .solution import Potentials

# Relative error of a sum of exponentials in float64: what a backend may leave out, 2^-40, and its rounding.
_SUM_ERROR = 2.0**-38
# Softmin at this fraction of eps stands for the minimum.
_COLD = 1e-3


class Bounds(NamedTuple):
    """Certified intervals, (B,) float64 each.

    Attributes:
        lower, upper: of the regularised value: the divergence, or the transport cost when not debiased.
        cost_lower, cost_upper: of the transport cost between x and y without regularisation, min <C, pi>;
            unbalanced, min <C, pi> + rho_x KL(pi 1 | a) + rho_y KL(pi' 1 | b).
    """

    lower: Tensor
    upper: Tensor
    cost_lower: Tensor
    cost_upper: Tensor


class _Pair(NamedTuple):
    """One transport problem in float64: x-y, or a self-term, for which y is x, b is a and g is f."""

    x: Tensor
    y: Tensor
    a: Tensor
    b: Tensor
    f: Tensor
    g: Tensor
    rho: tuple[float, float]
    same: bool


class _Rounded(NamedTuple):
    """A plan with exact marginals: P = pi(f, g), of sums `rows` (B, N) and `columns` (B, M), and a coupling.

    `total` (B,) is their mass together; `penalty` (B,) is rho_x KL + rho_y KL of the exact marginals.
    """

    f: Tensor
    g: Tensor
    rows: Tensor
    columns: Tensor
    left: Leftover
    total: Tensor
    penalty: Tensor


class _Certificate(NamedTuple):
    """The interval of one transport, and what it rests on; `g` is the second half-step, `slack` rounding."""

    lower: Tensor
    upper: Tensor
    g: Tensor
    rounded: _Rounded
    coupling: Coupling
    cost: Tensor
    slack: Tensor


def _widened(
    cost: Callable[[Tensor, Tensor], Tensor], dtype: torch.dtype
) -> Callable[[Tensor, Tensor], Tensor]:
    """The cost as a function of float64 points, itself in the dtype of the solve."""
    return lambda x, y: cost(x.to(dtype), y.to(dtype)).double()


def bounds(backend: Backend, problem: Problem, potentials: Potentials) -> Bounds:
    """The bounds that these potentials certify, of a problem whose values were checked.

    All is computed in float64, whatever the dtype of the points, so the float32 rounding of a solve does not
    enter. Each bound is moved outwards by what rounding may do in float64: logits wrong by D + 16 units in
    the last place of the sizes that enter them, sums of exponentials wrong by 2^-38. The bounds are those of
    the points and weights as stored, except that absent weights count as 1/N unrounded, and the two masses of
    a balanced problem, where they differ by less than is refused, as their mean.

    It takes three sweeps for each transport, and for x-y two or three passes more; memory is linear in the
    number of points. The debiased value of costs 1 and 2 is never negative, so its lower bound is not either.

    Args:
        backend: whose verbs to use; on the problem's points in float64.
        potentials: of any quality; without self potentials the value is that of x-y alone.
    """
    if problem.sizes is not None:
        parts = zip(problem.split(), potentials.split(problem.sizes), strict=True)
        each = [bounds(backend, part, own) for part, own in parts]
        return Bounds(*(torch.cat(column) for column in zip(*each, strict=True)))
    if callable(problem.cost):
        problem = dataclasses.replace(problem, cost=_widened(problem.cost, problem.x.dtype))
    cross, *own = _pairs(problem, potentials)
    certificate = _certify(backend, problem, cross)
    lower, upper = certificate.lower, certificate.upper
    if own:
        low, high, *_ = zip(*(_certify(backend, problem, pair) for pair in own), strict=True)
        gap = 0.5 * problem.eps * (cross.a.sum(-1) - cross.b.sum(-1)).square()
        lower, upper = lower - 0.5 * sum(high) + gap, upper - 0.5 * sum(low) + gap
    # A divergence is positive where e^{-C / eps} is a positive definite kernel (arXiv:1910.12958, theorem 4),
    # a transport cost where C is.
    if problem.cost in (1, 2) and not (own and problem.floor):
        lower = lower.clamp(min=0.0)
    cost_lower, cost_upper = _unregularised(backend, problem, cross, certificate)
    return Bounds(
        lower.nan_to_num(-math.inf, math.inf, -math.inf),
        upper.nan_to_num(math.inf, math.inf, -math.inf),
        cost_lower.nan_to_num(-math.inf, math.inf, -math.inf),
        cost_upper.nan_to_num(math.inf, math.inf, -math.inf),
    )


def _pairs(problem: Problem, potentials: Potentials) -> list[_Pair]:
    """x-y, and the self-terms where they have potentials."""
    x, y, a, b = (t.double() for t in (problem.x, problem.y, problem.a, problem.b))
    if not problem.weighted:
        a, b = torch.full_like(a, 1.0 / a.shape[-1]), torch.full_like(b, 1.0 / b.shape[-1])
    if problem.balanced:
        mass_a, mass_b = a.sum(-1, keepdim=True), b.sum(-1, keepdim=True)
        mean = 0.5 * (mass_a + mass_b)
        a, b = a * (mean / mass_a), b * (mean / mass_b)
    f, g, f_xx, g_yy = potentials.to(torch.float64)
    rho_x, rho_y = problem.rho
    cross = _Pair(x, y, a, b, f, g, (rho_x, rho_y), same=False)
    if f_xx is None or g_yy is None:
        return [cross]
    return [
        cross,
        _Pair(x, x, a, a, f_xx, f_xx, (rho_x, rho_x), same=True),
        _Pair(y, y, b, b, g_yy, g_yy, (rho_y, rho_y), same=True),
    ]


def _certify(backend: Backend, problem: Problem, pair: _Pair) -> _Certificate:
    x, y, a, b, f, g, (rho_x, rho_y), same = pair
    eps, options = problem.eps, {"eps": problem.eps, **problem.ground}
    # The side whose sums stay inexact, y, must not be the one that has to be exact.
    turned = rho_x != math.inf and rho_y == math.inf

    def log_sums(f: Tensor, g: Tensor, same: bool = False) -> tuple[Tensor, Tensor]:
        if turned:
            log_c, log_r = backend.sweep(x, y, g, f, a, b, same=same, **options)
            return log_r, log_c
        return backend.sweep(x, y, f, g, a, b, same=same, **options)

    sides = (b, a, g, f, rho_y, rho_x) if turned else (a, b, f, g, rho_x, rho_y)
    w_x, w_y, f, g, rho_x, rho_y = sides
    log_r, _ = log_sums(f, g, same)
    f = damping(eps, rho_x) * (f - eps * log_r)
    _, log_c = log_sums(f, g)
    g_next = damping(eps, rho_y) * (g - eps * log_c)
    lower = _dual(w_x, w_y, f, g_next, eps, (rho_x, rho_y))

    log_tau, log_sigma = -f / rho_x, -g / rho_y
    tau, mass = log_tau.exp(), (w_x * log_tau.exp()).sum(-1)
    log_sigma = log_sigma + (mass / (w_y * log_sigma.exp()).sum(-1)).log().unsqueeze(-1)
    sigma = log_sigma.exp()
    log_w = (log_sigma - log_c).clamp(max=0.0)
    g_rounded = g + eps * log_w
    rows = torch.minimum(log_sums(f, g_rounded)[0].exp(), tau)
    columns = torch.minimum((log_w + log_c).exp(), sigma)
    left = Leftover(w_x * (tau - rows), w_y * (sigma - columns), w_x, w_y)
    penalty = _penalty(w_x, log_tau, rho_x) + _penalty(w_y, log_sigma, rho_y)
    rounded = _Rounded(f, g_rounded, w_x * rows, w_y * columns, left, mass, penalty)
    logit_error, size = _rounding(problem, pair, w_x, w_y, f, g_rounded)
    if turned:
        rounded = rounded._replace(
            f=g_rounded,
            g=f,
            rows=rounded.columns,
            columns=rounded.rows,
            left=Leftover(left.columns, left.rows, w_y, w_x),
        )
    slack = 4.0 * torch.maximum(mass, torch.maximum(a.sum(-1), b.sum(-1))) * logit_error * size
    coupling, cost = _couple(backend, problem, pair, rounded, logit_error, size)
    entropic = eps * (coupling.entropy - mass + a.sum(-1) * b.sum(-1))
    free = (rounded.rows * rounded.f).sum(-1) + (rounded.columns * rounded.g).sum(-1) + rounded.penalty
    upper = (free + coupling.cost + entropic).amin(0)
    if rho_y != math.inf:
        direct = _unrounded(f, g, log_tau, log_c, w_x, w_y, eps, (rho_x, rho_y))
        direct = direct + logit_error * rho_y * (w_y * log_c.exp() * log_c.abs()).sum(-1)
        upper = torch.fmin(upper, direct)
    g_out = f if turned else g_next
    return _Certificate(lower - slack, upper + slack, g_out, rounded, coupling, cost, slack)


def _dual(a: Tensor, b: Tensor, f: Tensor, g: Tensor, eps: float, rho: tuple[float, float]) -> Tensor:
    """The dual at (f, g) whose column sums are exact, so that the plan's mass needs no pass."""
    mass = (b * (-g / rho[1]).exp()).sum(-1)
    return _psi(a, f, rho[0]) + _psi(b, g, rho[1]) - eps * (mass - a.sum(-1) * b.sum(-1))


def _psi(a: Tensor, f: Tensor, rho: float) -> Tensor:
    return (a * f).sum(-1) if rho == math.inf else -rho * (a * torch.expm1(-f / rho)).sum(-1)


def _penalty(weights: Tensor, log_sums: Tensor, rho: float) -> Tensor:
    """rho KL(a e^u | a) = rho <a, u e^u - e^u + 1>; 0 where rho is infinite: the marginal is exact."""
    if rho == math.inf:
        return torch.zeros_like(weights[:, 0])
    return rho * (weights * (log_sums * log_sums.exp() - torch.expm1(log_sums))).sum(-1)


def _unrounded(
    f: Tensor,
    g: Tensor,
    log_r: Tensor,
    log_c: Tensor,
    a: Tensor,
    b: Tensor,
    eps: float,
    rho: tuple[float, float],
) -> Tensor:
    """The primal of pi(f, g) itself, of sums a r and b c; a valid upper bound where c need not be exact."""
    rows, columns = a * log_r.exp(), b * log_c.exp()
    value = (rows * f).sum(-1) + (columns * g).sum(-1) - eps * (rows.sum(-1) - a.sum(-1) * b.sum(-1))
    return value + _penalty(a, log_r, rho[0]) + _penalty(b, log_c, rho[1])


def _rounding(
    problem: Problem, pair: _Pair, w_x: Tensor, w_y: Tensor, f: Tensor, g: Tensor
) -> tuple[Tensor, Tensor]:
    """The relative error of a sum of exponentials, and the size of costs and potentials, (B,) each."""
    size = problem.eps + (f.abs() * (w_x > 0)).amax(-1) + (g.abs() * (w_y > 0)).amax(-1)
    if problem.cost in (1, 2):
        diameter = bounding_box_diagonal(pair.x, pair.y)
        size = size + (diameter if problem.cost == 1 else 0.5 * diameter.square())
    last_places = (pair.x.shape[-1] + 16) * torch.finfo(torch.float64).eps
    return _SUM_ERROR + last_places * size / problem.eps, size


def _couple(
    backend: Backend, problem: Problem, pair: _Pair, rounded: _Rounded, logit_error: Tensor, size: Tensor
) -> tuple[Coupling, Tensor]:
    """Couplings of what the rounded plan P leaves over, and <C, P> (0 for a self-term: not used)."""
    left, options = rounded.left, problem.ground
    # Any slope gives an upper bound; this one makes the errors of rounding and of curvature equal.
    slope = logit_error.sqrt() / size
    if problem.cost not in (1, 2):
        coupling = product(left, _product_cost(backend, pair, left, slope, options), rounded.total)
        return coupling, _plan_cost(backend, problem, pair, rounded, slope, logit_error)
    if pair.same:
        return couple(pair.x, pair.y, pair.x, left, rounded.total, problem.p), torch.zeros_like(size)
    centre = pair.y.mean(1, keepdim=True)
    f, g, y = rounded.f, rounded.g, pair.y - centre
    ones = torch.ones_like(pair.a)
    sums = backend.apply(pair.x, pair.y, f, g, ones, pair.b, y, eps=problem.eps, **options)
    relative = rounded.rows / pair.a
    sent = torch.where(relative.unsqueeze(-1) > 0, sums / relative.unsqueeze(-1) + centre, pair.x)
    coupling = couple(pair.x, pair.y, sent.nan_to_num(), left, rounded.total, problem.p)
    flat = problem.floor**0.5 * left.rows.sum(-1)
    coupling = coupling._replace(cost=coupling.cost + flat)
    if problem.cost == 1:
        return coupling, _plan_cost(backend, problem, pair, rounded, slope, logit_error)
    x = pair.x - centre
    halves = (rounded.rows * x.square().sum(-1)).sum(-1) + (rounded.columns * y.square().sum(-1)).sum(-1)
    return coupling, 0.5 * halves - (pair.a.unsqueeze(-1) * x * sums).sum((1, 2))


def _plan_cost(
    backend: Backend, problem: Problem, pair: _Pair, rounded: _Rounded, slope: Tensor, logit_error: Tensor
) -> Tensor:
    """An upper bound of <C, P> from a sweep: beta <C, P> <= sum P e^{beta C} - sum P.

    P e^{beta C} is a plan as well, at the temperature 1 / (1 / eps - beta).
    """
    beta = float(slope.min())
    eps = 1.0 / (1.0 / problem.eps - beta)
    f, g = rounded.f * (eps / problem.eps), rounded.g * (eps / problem.eps)
    log_r, _ = backend.sweep(pair.x, pair.y, f, g, pair.a, pair.b, eps=eps, **problem.ground)
    excess = (pair.a * log_r.exp() - rounded.rows).sum(-1)
    return (excess + 2.0 * logit_error * rounded.total) / beta


def _product_cost(
    backend: Backend, pair: _Pair, left: Leftover, slope: Tensor, options: dict[str, Any]
) -> Tensor:
    """An upper bound of <C, R> for the product R of the leftovers, as in `_plan_cost`, at eps = -1 / beta."""
    beta = float(slope.min())
    mass = left.columns.sum(-1, keepdim=True)
    share = left.columns / mass.clamp(min=torch.finfo(mass.dtype).tiny)
    mean = backend.softmin(pair.x, pair.y, torch.zeros_like(pair.b), share, eps=-1.0 / beta, **options)
    return (left.rows * (torch.expm1(beta * mean) + _SUM_ERROR)).sum(-1) / beta


def _unregularised(
    backend: Backend, problem: Problem, pair: _Pair, certificate: _Certificate
) -> tuple[Tensor, Tensor]:
    """The interval of the cost without entropy: potentials with f + g <= C below, the rounded plan above."""
    a, b, g = pair.a, pair.b, certificate.g
    # With unit weights, the softmin of any temperature is below the minimum; where b is 0 nothing is asked.
    support = (b > 0).to(b)
    f = backend.softmin(pair.x, pair.y, g, support, eps=_COLD * problem.eps, **problem.ground)
    f, g = translated(f, g, a, b, pair.rho)
    lower = _psi(a, f, pair.rho[0]) + _psi(b, g, pair.rho[1]) - certificate.slack
    if problem.balanced:
        # KL(pi | a b) is at most the entropy of either side.
        entropy = torch.minimum(*(-torch.special.xlogy(w, w).sum(-1) for w in (a, b)))
        mass = a.sum(-1)
        lower = torch.fmax(lower, certificate.lower - problem.eps * (entropy - mass + mass.square()))
    if problem.cost in (1, 2):
        lower = lower.clamp(min=0.0)
    upper = certificate.cost + certificate.coupling.cost.amin(0) + certificate.rounded.penalty
    return lower, upper + certificate.slack
