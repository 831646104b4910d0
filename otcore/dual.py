"""The dual of entropic optimal transport: value, derivative in the weights, distance from the maximum.

With the plan pi_ij = a_i b_j exp((f_i + g_j - C_ij) / eps), the dual is

    OT = psi(a, f) + psi(b, g) - eps (sum_ij pi_ij - m_a m_b),    psi(a, f) = <a, f>  or  rho (m_a - <a, e^{-f
    / rho}>)

with m_a, m_b the masses; it is a lower bound on the optimal cost for all f and g. Here f is (B, N), g is (B,
M), temperatures are floats or (B, 1), and rho is math.inf where the marginal is exact.

Source: Sejourne, Feydy, Vialard, Trouve, Peyre, "Sinkhorn divergences for unbalanced optimal transport",
    arXiv:1910.12958.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .problem import Problem
    from .solution import Potentials

# Beyond this exponent a marginal is so wrong that its size no longer matters; fp64 still holds it.
_LARGEST_EXPONENT = 300.0


def damping(eps: Tensor | float, rho: float) -> Tensor | float:
    """The factor lam = 1 / (1 + eps / rho) of an unbalanced half-step; 1 when rho is infinite."""
    return 1.0 / (1.0 + eps / rho)


def averaged(f: Tensor, log_r: Tensor, eps: Tensor | float, rho: float) -> Tensor:
    """The mean of f and of its half-step lam (f - eps log r), which is lam softmin(g)."""
    lam = damping(eps, rho)
    return 0.5 * ((1.0 + lam) * f - lam * eps * log_r)


def translated(f: Tensor, g: Tensor, a: Tensor, b: Tensor, rho: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """(f + t, g - t) with the t that maximises the dual; unchanged when both marginals are exact."""
    rho_x, rho_y = rho
    if rho_x == rho_y == math.inf:
        return f, g
    mass_x = torch.logsumexp(a.log() - f / rho_x, -1, keepdim=True)
    mass_y = torch.logsumexp(b.log() - g / rho_y, -1, keepdim=True)
    t = (mass_x - mass_y) / (1.0 / rho_x + 1.0 / rho_y)
    return f + t, g - t


def gauged(f: Tensor, g: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """(f + t, g - t) with <a, f> = <b, g>: fixes the constant that a balanced solution leaves free."""
    a64, b64 = a.double(), b.double()
    excess = (b64 * g).sum(-1, keepdim=True) - (a64 * f).sum(-1, keepdim=True)
    t = (excess / (a64.sum(-1, keepdim=True) + b64.sum(-1, keepdim=True))).to(f.dtype)
    return f + t, g - t


def marginal_error(
    f: Tensor, g: Tensor, log_r: Tensor, log_c: Tensor, a: Tensor, b: Tensor, rho: tuple[float, float]
) -> Tensor:
    """sum_i a_i |r_i - e^{-f_i / rho_x}| + sum_j b_j |c_j - e^{-g_j / rho_y}|, by the mean mass; (B,) fp64.

    The targets are 1 when the marginals are exact. Dividing by (m_a + m_b) / 2 makes `tol` independent of the
    unit of mass.
    """
    a, b = a.double(), b.double()
    gap = (a * _distance(log_r, f, rho[0])).sum(-1) + (b * _distance(log_c, g, rho[1])).sum(-1)
    return gap * 2.0 / (a.sum(-1) + b.sum(-1))


def _distance(log_r: Tensor, f: Tensor, rho: float) -> Tensor:
    """|e^{log r} - e^{-f / rho}| without overflow or inf - inf."""
    log_r, target = log_r.double(), f.double() / -rho
    largest = torch.maximum(log_r, target).clamp(max=_LARGEST_EXPONENT)
    return largest.exp() * -torch.expm1(-(log_r - target).abs())


def transport_value(
    f: Tensor, g: Tensor, log_r: Tensor, a: Tensor, b: Tensor, eps: float, rho: tuple[float, float]
) -> Tensor:
    """The dual OT at (f, g), whose row sums are e^{log_r}; (B,) float64."""
    a, b = a.double(), b.double()
    excess = (a * log_r.double().exp()).sum(-1) - a.sum(-1) * b.sum(-1)
    return _psi(a, f, rho[0]) + _psi(b, g, rho[1]) - eps * excess


def _psi(a: Tensor, f: Tensor, rho: float) -> Tensor:
    if rho == math.inf:
        return (a * f).sum(-1)
    return -rho * (a * torch.expm1(f.double() / -rho)).sum(-1)


def weight_gradient(f: Tensor, eps: float, rho: float) -> Tensor:
    """The derivative of OT in the weight a_i at convergence, without its constant eps (m_b - 1)."""
    if rho == math.inf:
        return f
    return -(rho + eps) * torch.expm1(-f / rho)


def geomloss_value(problem: Problem, after: Potentials) -> Tensor:
    """GeomLoss's value of the potentials after the last half-step, (B,).

    Balanced, it is <a, f - f_xx> + <b, g - g_yy>.

    Unbalanced, (rho + eps / 2) (<a, e^{-f_xx / rho} - e^{-f / rho}> + ...): proposition 12 of the source
    above, where the gradient in the potentials has the factor rho + eps (`geomloss_slope`), which GeomLoss
    leaves out.
    """
    sides = (problem.a, after.f, after.f_xx, problem.rho[0]), (problem.b, after.g, after.g_yy, problem.rho[1])
    first, second = (_geomloss_side(*side, problem.eps) for side in sides)
    return first + second


def _geomloss_side(a: Tensor, f: Tensor, f_xx: Tensor | None, rho: float, eps: float) -> Tensor:
    if rho == math.inf:
        inner: Tensor = torch.linalg.vecdot(a, f if f_xx is None else f - f_xx)
        return inner
    gain = -torch.expm1(-f / rho)
    if f_xx is not None:
        gain = gain + torch.expm1(-f_xx / rho)
    value: Tensor = (rho + eps / 2) * torch.linalg.vecdot(a, gain)
    return value


def geomloss_slope(a: Tensor, f: Tensor, eps: float, rho: float) -> Tensor:
    """The derivative in f of <a, f>, or of (rho + eps) <a, 1 - e^{-f / rho}> when unbalanced."""
    return a if rho == math.inf else (1.0 + eps / rho) * a * torch.exp(-f / rho)
