"""The Hausdorff divergence of two measures: the symmetric Bregman divergence of the Sinkhorn negentropy.

    H(alpha, beta) = <alpha - beta, b - a> / 2,   a(z) = -eps log int exp((a - C(z, .)) / eps) d alpha

and b likewise of beta, with C = |x - y|^2 / 2 (p = 2) or |x - y| (p = 1) and eps = blur^p. The potential a is
the solution of that equation on alpha's own points, extended to all others by the same formula: transport
from alpha to itself. H is positive, 0 only between equal measures, and goes from the averaged distances to
the nearest points of the other cloud (blur -> 0) to a kernel norm, that of -C, (blur -> infinity).

Source: Feydy, Trouve, "Global divergences between measures: from Hausdorff distance to optimal transport",
    ShapeMI 2018, hal-01827184; Feydy et al., arXiv:1810.08278, for positivity.
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .backends import Backend, choose
from .problem import Problem
from .solution import ConvergenceWarning

_TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}
_MASS_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
# An error halves with every sweep.
_MAX_ITER = 200


class _Measure(NamedTuple):
    """A measure and its symmetric potential: points (B, N, D), weights and potential (B, N)."""

    x: Tensor
    a: Tensor
    f: Tensor


def divergence(problem: Problem, need: bool) -> tuple[Tensor, ...]:
    """The value (B,), b - a on x, a - b on y, and the gradients in x, y, a, b (or empty tensors)."""
    _check_masses(problem)
    verbs, ground = choose(problem), {"cost": problem.cost, "eps": problem.eps}
    x, y, a, b = problem.x, problem.y, problem.a, problem.b
    first = _Measure(x, a, _potential(verbs, x, a, ground))
    second = _Measure(y, b, _potential(verbs, y, b, ground))
    b_x, a_y = _extended(verbs, second, x, ground), _extended(verbs, first, y, ground)
    phi_x, phi_y = b_x - first.f, a_y - second.f
    value = 0.5 * ((a * phi_x).sum(-1) + (b * phi_y).sum(-1))
    dtype = x.dtype
    out = value.to(dtype), phi_x.to(dtype), phi_y.to(dtype)
    if not need:
        points, weights = x.new_empty(len(x), 0, x.shape[-1]), x.new_empty(len(x), 0)
        return *out, points, points.clone(), weights, weights.clone()
    g_x, g_a = _gradient(verbs, first, second, b_x, a_y, ground)
    g_y, g_b = _gradient(verbs, second, first, a_y, b_x, ground)
    return *out, g_x.to(dtype), g_y.to(dtype), g_a.to(dtype), g_b.to(dtype)


def _check_masses(problem: Problem) -> None:
    mass_a, mass_b = problem.a.sum(-1), problem.b.sum(-1)
    bad = ~((mass_a - mass_b).abs() <= _MASS_TOLERANCE[problem.x.dtype] * mass_a)
    if bool(bad.any()):
        item = int(bad.nonzero()[0])
        raise ValueError(
            f"a has mass {float(mass_a[item]):.6g} and b has mass {float(mass_b[item]):.6g} in item {item}; "
            "the Hausdorff divergence is of equal masses: divide each by its sum."
        )


def _potential(verbs: Backend, x: Tensor, a: Tensor, ground: dict[str, Any]) -> Tensor:
    """The fixed point f = -eps log sum_j a_j exp((f_j - C_ij) / eps), float64, by averaged sweeps."""
    eps, mass = ground["eps"], a.sum(-1, keepdim=True).double()
    # A constant first: it converges slowest where all points see each other.
    f: Tensor = (0.5 * verbs.softmin(x, x, torch.zeros_like(a), a, **ground)).double()
    for _ in range(_MAX_ITER):
        log_r = verbs.sweep(x, x, f, f, a, a, same=True, **ground)[0].double()
        error = (a * (log_r.exp() - 1.0).abs()).sum(-1, keepdim=True) / mass
        f = f - 0.5 * eps * log_r
        if bool((error <= _TOLERANCE[x.dtype]).all()):
            return f
    warnings.warn(
        f"hausdorff: a potential has a marginal error of {float(error.max()):.1e} after {_MAX_ITER} "
        "sweeps; raise blur or use float64.",
        ConvergenceWarning,
        stacklevel=2,
    )
    return f


def _extended(verbs: Backend, measure: _Measure, points: Tensor, ground: dict[str, Any]) -> Tensor:
    """The potential of the measure at other points, float64."""
    return verbs.softmin(points, measure.x, measure.f.to(points.dtype), measure.a, **ground).double()


def _gradient(
    verbs: Backend, own: _Measure, other: _Measure, b_x: Tensor, a_y: Tensor, ground: dict[str, Any]
) -> tuple[Tensor, Tensor]:
    """The derivative of H in the points and weights of `own`; b_x, a_y: potentials at the other's points.

    With pi the plan from alpha to itself, P = pi with rows of sum 1, and s_k = sum_j b_j exp((a_k + a(y_j) -
    C_kj) / eps), the fixed point's derivative takes mu = (1 + P)^-1 s: d<beta, a> = sum_jk b_j Q_jk dC_jk -
    sum_ik mu_i pi_ik dC_ik - eps <mu, d alpha>, where Q_jk is the share of x_k in the sum that makes a(y_j).
    For <alpha, a>, mu is 1/2.
    """
    x, a, f = own
    y, b, g = other
    dtype, eps = x.dtype, ground["eps"]
    narrow = [t.to(dtype) for t in (f, g, b_x, a_y)]
    f_n, g_n, b_n, a_n = narrow
    s = verbs.sweep(x, y, f, a_y, a, b, **ground)[0].exp()
    mu = _resolvent(verbs, own, s, ground)
    ones = torch.ones_like(a)
    # Positive weights for the verbs: mu + shift, and the part of the shift taken off.
    shift = (-mu).clamp(min=0.0).amax(-1, keepdim=True)
    within = verbs.grad(x, x, f_n, f_n, ones, a, **ground)
    moved = verbs.grad(x, x, f_n, f_n, ones, a * (mu + shift), **ground)
    forward = verbs.grad(x, y, b_n, g_n, ones, b, **ground)
    backward = verbs.grad(x, y, f_n, a_n, ones, b, **ground)
    slope = forward + backward - moved + ((shift - mu - 1.0).unsqueeze(-1)) * within
    return 0.5 * a.unsqueeze(-1) * slope, 0.5 * (b_x - f + eps * (0.5 - mu))


def _resolvent(verbs: Backend, own: _Measure, s: Tensor, ground: dict[str, Any]) -> Tensor:
    """mu + P mu = s: the eigenvalues of P are between 0 and 1, so every step of 2/3 takes two thirds off."""
    x, a, f = own
    f = f.to(x.dtype)
    mu = 0.5 * s
    scale = s.abs().amax(-1, keepdim=True)
    for _ in range(_MAX_ITER):
        image = verbs.apply(x, x, f, f, torch.ones_like(a), a, mu.unsqueeze(-1), **ground).squeeze(-1)
        residual = s - mu - image
        mu = mu + 2.0 / 3.0 * residual
        if bool((residual.abs().amax(-1, keepdim=True) <= 2 * _TOLERANCE[x.dtype] * scale).all()):
            break
    return mu
