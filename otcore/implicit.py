"""Derivatives through the optimality conditions: second ones of the value, first ones of the potentials.

The gradient of OT at fixed potentials is exact (envelope theorem); its derivative along a direction u also
needs how the optimal potentials move. They solve the linearised marginal equations, with D_f = a (r + eps /
rho e^{-f / rho}) and likewise D_g,

    D_f df + pi dg = -eps a s,    pi^T df + D_g dg = -eps b t

where s and t are the derivatives of the marginals r and c along u at fixed potentials. They are solved by
conjugate gradients on the Schur complement in df, which touches the plan only through `Backend.apply`. The
remaining sums over pairs run in blocks of rows. Weights of zero keep their potential: the second derivative
in such a weight is not covered.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .backends import Backend
from .backends.dense import cost_gradient, cost_matrix
from .problem import Problem
from .solution import ConvergenceWarning, Potentials

_BLOCK_ENTRIES = 2**18
_MOST_COLUMNS = 256  # of one `Backend.apply`
_CG_TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-13}
_CG_MAX_ITER = 2000
_CG_PATIENCE = 50  # steps after which a residual 100 times the least says that rounding has won
_CG_ALARM = 1e5  # times the tolerance: the residual that is worth a warning


class Direction(NamedTuple):
    """One number for each coordinate and weight: (B, N, D), (B, M, D), (B, N), (B, M)."""

    x: Tensor
    y: Tensor
    a: Tensor
    b: Tensor


def hessian_vector_product(
    backend: Backend, problem: Problem, potentials: Potentials, u: Direction
) -> Direction:
    """The Hessian of the value in (x, y, a, b) at converged potentials, times u."""
    x, y, a, b = problem.x, problem.y, problem.a, problem.b
    rho_x, rho_y = problem.rho
    h_x, h_y, h_a, h_b = _transport_product(
        backend, problem, (x, y, a, b), (rho_x, rho_y), (potentials.f, potentials.g), u
    )
    if potentials.f_xx is None or potentials.g_yy is None:
        h_a = h_a + problem.eps * u.b.sum(-1, keepdim=True)
        h_b = h_b + problem.eps * u.a.sum(-1, keepdim=True)
        return Direction(h_x, h_y, h_a, h_b)
    along = Direction(u.x, u.x, u.a, u.a)
    # Both potentials of a self-term are one: their mean is free of the constant that differs between the two.
    h_xx, _, *h_aa = _transport_product(
        backend, problem, (x, x, a, a), (rho_x, rho_x), (potentials.f_xx, potentials.f_xx), along
    )
    along = Direction(u.y, u.y, u.b, u.b)
    h_yy, _, *h_bb = _transport_product(
        backend, problem, (y, y, b, b), (rho_y, rho_y), (potentials.g_yy, potentials.g_yy), along
    )
    return Direction(h_x - h_xx, h_y - h_yy, h_a - 0.5 * sum(h_aa), h_b - 0.5 * sum(h_bb))


def _transport_product(
    backend: Backend,
    problem: Problem,
    measures: tuple[Tensor, Tensor, Tensor, Tensor],
    rho: tuple[float, float],
    duals: tuple[Tensor, Tensor],
    u: Direction,
) -> Direction:
    """The derivative along u of (dOT/dx, dOT/dy, dOT/da, dOT/db), the constants of the last two left out."""
    zero = torch.zeros_like(duals[0]), torch.zeros_like(duals[1])
    fixed = _pair_sums(backend, problem, measures, duals, u, zero)
    a, b = measures[2:]
    right = -problem.eps * a * fixed.s, -problem.eps * b * fixed.t
    df, dg = _solve_linearised(backend, problem, measures, rho, duals, right)
    total = _pair_sums(backend, problem, measures, duals, u, (df, dg))
    return Direction(
        total.h_x,
        total.h_y,
        _curve(duals[0], problem.eps, rho[0]) * df,
        _curve(duals[1], problem.eps, rho[1]) * dg,
    )


def _curve(f: Tensor, eps: float, rho: float) -> Tensor | float:
    """The derivative of `otcore.dual.weight_gradient` in f."""
    return 1.0 if rho == math.inf else (1.0 + eps / rho) * torch.exp(-f / rho)


class _PairSums(NamedTuple):
    """Derivatives along a direction of the marginals r (B, N), c (B, M) and of the gradients in x and y."""

    s: Tensor
    t: Tensor
    h_x: Tensor
    h_y: Tensor


def _pair_sums(
    backend: Backend,
    problem: Problem,
    measures: tuple[Tensor, Tensor, Tensor, Tensor],
    duals: tuple[Tensor, Tensor],
    u: Direction,
    moved: tuple[Tensor, Tensor],
) -> _PairSums:
    """Sums over pairs, in memory linear in the number of points."""
    x, y, a, b = measures
    d = x.shape[-1]
    if problem.cost == 2 and 3 + 4 * d + 2 * d * d <= _MOST_COLUMNS:
        back = Direction(u.y, u.x, u.b, u.a)
        s, h_x = _square_sums(backend, problem, measures, duals, u, moved)
        t, h_y = _square_sums(backend, problem, (y, x, b, a), duals[::-1], back, moved[::-1])
        return _PairSums(s, t, h_x, h_y)
    # A block of rows at a time. Results have their place beforehand: small ones kept between large
    # temporaries would leave the heap in pieces.
    size = max(1, _BLOCK_ENTRIES // (y.numel() or 1))
    s, h_x = torch.empty_like(a), torch.empty_like(x)
    t, h_y = torch.zeros_like(b), torch.zeros_like(y)
    for start in range(0, x.shape[1], size):
        block = slice(start, start + size)
        s[:, block], t_block, h_x[:, block], h_y_block = _block_sums(
            problem,
            (x[:, block], y, a[:, block], b),
            (duals[0][:, block], duals[1]),
            Direction(u.x[:, block], u.y, u.a[:, block], u.b),
            (moved[0][:, block], moved[1]),
        )
        t += t_block
        h_y += h_y_block
    return _PairSums(s, t, h_x, h_y)


def _square_sums(
    backend: Backend,
    problem: Problem,
    measures: tuple[Tensor, Tensor, Tensor, Tensor],
    duals: tuple[Tensor, Tensor],
    u: Direction,
    moved: tuple[Tensor, Tensor],
) -> tuple[Tensor, Tensor]:
    """s and h_x for C = |x - y|^2 / 2, whose derivatives are polynomials: by products with moments of y.

    In float64, as the polynomials cancel where points are many blurs from the centre.
    """
    dtype, eps = measures[0].dtype, problem.eps
    x, y, a, b, f, g, u_x, u_y, u_a, u_b, df, dg = (t.double() for t in (*measures, *duals, *u, *moved))
    centre = x.mean(1, keepdim=True)
    x, y = x - centre, y - centre
    d = x.shape[-1]
    weights = torch.stack([b, u_b + b * dg / eps, b * (y * u_y).sum(-1)], -1)
    moments = [
        weights,
        _outer(weights, y),
        b.unsqueeze(-1) * u_y,
        _outer(b.unsqueeze(-1) * y, y),
        _outer(b.unsqueeze(-1) * y, u_y),
    ]
    ones = torch.ones_like(a), torch.ones_like(b)
    sums = backend.apply(x, y, f, g, *ones, torch.cat(moments, -1), eps=eps, **problem.ground)
    w, first, v, yy, yv = torch.split(sums, [m.shape[-1] for m in moments], -1)
    (b0, w0, q0), (b1, w1, q1) = w.unbind(-1), first.view(*x.shape[:2], 3, d).unbind(-2)
    along = (x * u_x).sum(-1)
    # Sums of slope_ij = <x_i - y_j, u_x - u_y>, and of slope_ij y_j
    slope = along * b0 - (x * v).sum(-1) - (u_x * b1).sum(-1) + q0
    slope_y = along.unsqueeze(-1) * b1 - _times(yv, x) - _times(yy, u_x) + q1
    s = w0 + (df * b0 - slope) / eps
    s_y = w1 + (df.unsqueeze(-1) * b1 - slope_y) / eps
    column = b0.unsqueeze(-1)
    mass = (a * s + u_a * b0).unsqueeze(-1)
    h_x = x * mass - a.unsqueeze(-1) * (s_y - u_x * column + v) - u_a.unsqueeze(-1) * b1
    return s.to(dtype), h_x.to(dtype)


def _outer(u: Tensor, v: Tensor) -> Tensor:
    """All products of the coordinates of each point, (B, N, K) and (B, N, D) to (B, N, K D)."""
    return (u.unsqueeze(-1) * v.unsqueeze(-2)).flatten(-2)


def _times(matrices: Tensor, v: Tensor) -> Tensor:
    """A matrix for each point, (B, N, D D), times its vector (B, N, D)."""
    return (matrices.view(*v.shape, v.shape[-1]) @ v.unsqueeze(-1)).squeeze(-1)


def _block_sums(
    problem: Problem,
    measures: tuple[Tensor, Tensor, Tensor, Tensor],
    duals: tuple[Tensor, Tensor],
    u: Direction,
    moved: tuple[Tensor, Tensor],
) -> _PairSums:
    x, y, a, b = measures
    eps = problem.eps
    assert isinstance(problem.cost, int)
    c = cost_matrix(x, y, problem.cost, problem.floor)
    e = torch.exp((duals[0].unsqueeze(2) + duals[1].unsqueeze(1) - c) / eps)
    normal = cost_gradient(x, y, problem.cost, problem.floor)
    velocity = u.x.unsqueeze(2) - u.y.unsqueeze(1)
    slope = (normal * velocity).sum(-1)
    relative = (moved[0].unsqueeze(2) + moved[1].unsqueeze(1) - slope) / eps
    row_terms = e * (u.b.unsqueeze(1) + b.unsqueeze(1) * relative)
    column_terms = e * (u.a.unsqueeze(2) + a.unsqueeze(2) * relative)
    if problem.cost == 1:
        # The Hessian of |x - y| is the projection off the normal, divided by the distance.
        flat = (velocity - normal * slope.unsqueeze(-1)) / c.unsqueeze(-1)
        velocity = torch.where(normal.square().sum(-1, keepdim=True) > 0, flat, 0.0)
    plan = a.unsqueeze(2) * b.unsqueeze(1) * e
    plan_moved = a.unsqueeze(2) * row_terms + e * u.a.unsqueeze(2) * b.unsqueeze(1)
    force = plan_moved.unsqueeze(-1) * normal + plan.unsqueeze(-1) * velocity
    return _PairSums(row_terms.sum(2), column_terms.sum(1), force.sum(2), -force.sum(1))


def _solve_linearised(
    backend: Backend,
    problem: Problem,
    measures: tuple[Tensor, Tensor, Tensor, Tensor],
    rho: tuple[float, float],
    duals: tuple[Tensor, Tensor],
    right: tuple[Tensor, Tensor],
) -> tuple[Tensor, Tensor]:
    """(df, dg) with D_f df + pi dg and pi^T df + D_g dg as given on the right."""
    x, y, a, b = measures
    f, g = duals
    eps = problem.eps

    def times(v: Tensor) -> Tensor:
        return backend.apply(x, y, f, g, a, b, v.unsqueeze(-1), eps=eps, **problem.ground).squeeze(-1)

    def transposed_times(v: Tensor) -> Tensor:
        return backend.apply(y, x, g, f, b, a, v.unsqueeze(-1), eps=eps, **problem.ground).squeeze(-1)

    d_f = times(torch.ones_like(b)) + eps / rho[0] * a * torch.exp(-f / rho[0])
    d_g = transposed_times(torch.ones_like(a)) + eps / rho[1] * b * torch.exp(-g / rho[1])
    inverse_f, inverse_g = _inverse(d_f), _inverse(d_g)
    right_f, right_g = right
    if rho[0] == rho[1] == math.inf:
        # Balanced: constants (1, -1) are in the kernel, so only the part of equal masses has a solution.
        excess = right_f.sum(-1, keepdim=True) - right_g.sum(-1, keepdim=True)
        right_f = right_f - excess * d_f / d_f.sum(-1, keepdim=True)
    df = _conjugate_gradients(
        lambda v: d_f * v - times(inverse_g * transposed_times(v)),
        right_f - times(inverse_g * right_g),
        inverse_f,
        _energy(right_f, inverse_f) + _energy(right_g, inverse_g),
    )
    return df, inverse_g * (right_g - transposed_times(df))


def _kernel_times(
    backend: Backend, problem: Problem, pair: tuple[Tensor, Tensor, Tensor, Tensor], v: Tensor
) -> Tensor:
    """sum_j e_ij v_j for the pair (x, y, f, g), (B, N)."""
    ones = torch.ones_like(pair[2]), torch.ones_like(pair[3])
    return backend.apply(*pair, *ones, v.unsqueeze(-1), eps=problem.eps, **problem.ground).squeeze(-1)


def adjoint_potentials(
    backend: Backend,
    problem: Problem,
    measures: tuple[Tensor, Tensor, Tensor, Tensor],
    rho: tuple[float, float],
    duals: tuple[Tensor, Tensor],
    u: tuple[Tensor, Tensor],
) -> tuple[Tensor, Tensor]:
    """(p, q) such that u_f df + u_g dg = <p, dr> + <q, dc> when the optimal potentials move.

    dr and dc are the changes of the marginals r and c at fixed potentials. Points of zero weight have
    potentials too, each determined by the other cloud's.
    """
    x, y, a, b = measures
    f, g = duals
    eps = problem.eps

    right_f, right_g = -eps * u[0], -eps * u[1]
    alone_f, alone_g = torch.zeros_like(f), torch.zeros_like(g)
    if bool((a == 0).any()) or bool((b == 0).any()):
        d_f = _kernel_times(backend, problem, (x, y, f, g), b) + eps / rho[0] * torch.exp(-f / rho[0])
        d_g = _kernel_times(backend, problem, (y, x, g, f), a) + eps / rho[1] * torch.exp(-g / rho[1])
        alone_f = torch.where(a == 0, right_f * _inverse(d_f), 0.0)
        alone_g = torch.where(b == 0, right_g * _inverse(d_g), 0.0)
        right_f = torch.where(
            a == 0, 0.0, right_f - a * _kernel_times(backend, problem, (x, y, f, g), alone_g)
        )
        right_g = torch.where(
            b == 0, 0.0, right_g - b * _kernel_times(backend, problem, (y, x, g, f), alone_f)
        )
    p, q = _solve_linearised(backend, problem, measures, rho, duals, (right_f, right_g))
    return a * p + alone_f, b * q + alone_g


def adjoint_self_potential(
    backend: Backend, problem: Problem, x: Tensor, a: Tensor, rho: float, f: Tensor, u: Tensor
) -> Tensor:
    """p such that u df = <p, dr> for the potential of a self-term, as in `adjoint_potentials`."""
    eps = problem.eps

    def kernel(v: Tensor) -> Tensor:
        return _kernel_times(backend, problem, (x, x, f, f), v)

    d = kernel(a) + eps / rho * torch.exp(-f / rho)
    right = -eps * u
    alone = torch.where(a == 0, right * _inverse(d), 0.0)
    if bool((a == 0).any()):
        right = torch.where(a == 0, 0.0, right - a * kernel(alone))
    inverse = _inverse(a * d)
    p = _conjugate_gradients(lambda v: a * (d * v + kernel(a * v)), right, inverse, _energy(right, inverse))
    return a * p + alone


def _inverse(d: Tensor) -> Tensor:
    return torch.where(d > 0, 1.0 / d, 0.0)


def _energy(v: Tensor, scale: Tensor) -> Tensor:
    return (v * scale * v).sum(-1, keepdim=True)


def _conjugate_gradients(
    matrix: Callable[[Tensor], Tensor], right: Tensor, inverse_diagonal: Tensor, size: Tensor
) -> Tensor:
    """Solve matrix(z) = right for each item of the batch, preconditioned by the diagonal, from zero.

    `size` (B, 1) is the energy of what `right` was computed from: where that cancels, all that is left of it
    is rounding, which is not to be solved for. The best z is returned, as rounding may also end the progress.
    """
    z = best = torch.zeros_like(right)
    residual = right
    scaled = inverse_diagonal * residual
    step = scaled
    energy = least = (residual * scaled).sum(-1, keepdim=True)
    goal = _CG_TOLERANCE[right.dtype] ** 2 * torch.maximum(energy, size)
    for count in range(_CG_MAX_ITER):
        if bool((least <= goal).all()) or (count > _CG_PATIENCE and bool((energy > 1e4 * least).all())):
            break
        image = matrix(step)
        curvature = (step * image).sum(-1, keepdim=True)
        length = torch.where((curvature > 0) & (energy > goal), energy / curvature, 0.0)
        z = z + length * step
        residual = residual - length * image
        scaled = inverse_diagonal * residual
        old_energy, energy = energy, (residual * scaled).sum(-1, keepdim=True)
        step = scaled + torch.where(old_energy > 0, energy / old_energy, 0.0) * step
        best, least = torch.where(energy < least, z, best), torch.minimum(energy, least)
    left = (least / goal.clamp(min=torch.finfo(goal.dtype).tiny)).max().sqrt().item()
    if left > _CG_ALARM:
        warnings.warn(
            f"implicit derivatives: conjugate gradients stopped at a relative residual of "
            f"{left * _CG_TOLERANCE[right.dtype]:.1e}; lower tol, so that the potentials are closer to the "
            "optimum, or raise blur.",
            ConvergenceWarning,
            stacklevel=2,
        )
    return best
