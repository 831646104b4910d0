"""Entropic transport between Gaussians, balanced and unbalanced, against its closed form.

Source: Janati, Muzellec, Peyre, Cuturi, "Entropic optimal transport between unbalanced Gaussian measures has
    a closed form", arXiv:2006.02572, theorems 1 and 3. Their cost is |x - y|^2, so their sigma^2 is our eps,
    their gamma our 2 rho, and their value is halved.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy
import pytest
import torch
from torch import Tensor

from otcore import sinkhorn
from tests.conformance.solved import DTYPES, TOL, allowed, solve


class Gaussian(NamedTuple):
    """mass N(mean, covariance)."""

    mass: float
    mean: Any
    covariance: Any


LINE = (
    Gaussian(1.0, numpy.array([0.1]), numpy.array([[0.25]])),
    Gaussian(1.5, numpy.array([0.6]), numpy.array([[0.64]])),
)
PLANE = (
    Gaussian(0.8, numpy.array([0.0, 0.2]), numpy.array([[0.5, 0.1], [0.1, 0.3]])),
    Gaussian(1.3, numpy.array([0.5, -0.3]), numpy.array([[0.2, -0.1], [-0.1, 0.6]])),
)


def transport(first: Gaussian, second: Gaussian, eps: float, rho: float) -> float:
    """The value without self-terms, of equal masses when rho is infinite."""
    return _balanced(first, second, eps) if rho == math.inf else _unbalanced(first, second, eps, rho)


def divergence(first: Gaussian, second: Gaussian, eps: float, rho: float) -> float:
    value = transport(first, second, eps, rho)
    value -= 0.5 * (transport(first, first, eps, rho) + transport(second, second, eps, rho))
    return value + 0.5 * eps * (first.mass - second.mass) ** 2


def _balanced(first: Gaussian, second: Gaussian, eps: float) -> float:
    """Theorem 1 for probabilities; masses t give t times that, and eps (t^2 - t - t log t)."""
    (mass, mean_x, a), (_, mean_y, b) = first, second
    root, identity = _root(a), numpy.eye(len(a))
    d = _root(4.0 * root @ b @ root + eps**2 * identity)
    value = (
        numpy.sum((mean_x - mean_y) ** 2) + numpy.trace(a + b - d) + len(a) * eps * (1 - math.log(2 * eps))
    )
    value += eps * numpy.linalg.slogdet(d + eps * identity)[1]
    return mass * 0.5 * float(value) + eps * (mass**2 - mass - mass * math.log(mass))


def _unbalanced(first: Gaussian, second: Gaussian, eps: float, rho: float) -> float:
    """Theorem 3: the mass of the plan, from which the value follows."""
    (m_x, mean_x, a), (m_y, mean_y, b) = first, second
    gamma, identity, det = 2.0 * rho, numpy.eye(len(a)), numpy.linalg.det
    lam, tau = eps + rho, rho / (eps + rho)
    shrunk_a, shrunk_b = (rho * (identity - lam * numpy.linalg.inv(s + lam * identity)) for s in (a, b))
    values, vectors = numpy.linalg.eig(shrunk_a @ shrunk_b / tau + 0.25 * eps**2 * identity)
    c = (vectors * numpy.sqrt(values)) @ numpy.linalg.inv(vectors) - 0.5 * eps * identity
    gap = (mean_x - mean_y) @ numpy.linalg.solve(a + b + lam * identity, mean_x - mean_y)
    mass = m_x * m_y * det(c) * math.sqrt(det(shrunk_a @ shrunk_b) ** tau / det(a @ b))
    mass = mass ** (1 / (tau + 1)) * math.exp(-0.5 * gap / (tau + 1))
    mass *= eps ** (0.5 * len(a) * eps / (gamma + eps)) / math.sqrt(det(c - shrunk_a @ shrunk_b / rho))
    return rho * (m_x + m_y) + eps * m_x * m_y - (eps + gamma) * mass


def _root(matrix: Any) -> Any:
    values, vectors = numpy.linalg.eigh(matrix)
    return (vectors * numpy.sqrt(values)) @ vectors.T


def grid(gaussian: Gaussian, count: int, width: float = 7.0) -> tuple[Tensor, Tensor]:
    """A regular grid out to `width` deviations along each axis, weighted by the density.

    Sums of a Gaussian over it are its integrals to exp(-2 (pi deviation / step)^2) and to the mass beyond
    `width`: both below 1e-11 for 7 deviations and 25 points an axis.
    """
    mass, mean, covariance = gaussian
    line = numpy.linspace(-width, width, count)
    axes = numpy.stack(numpy.meshgrid(*[line] * len(mean), indexing="ij"), -1).reshape(-1, len(mean))
    density = numpy.exp(-0.5 * (axes**2).sum(-1))
    points = axes @ numpy.linalg.cholesky(covariance).T + mean
    return torch.from_numpy(points), torch.from_numpy(mass * density / density.sum())


def with_masses(pair: tuple[Gaussian, Gaussian], rho: float) -> tuple[Gaussian, Gaussian]:
    """The pair, of equal masses where they must be."""
    first, second = pair
    return (first, second._replace(mass=first.mass)) if rho == math.inf else pair


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("eps", [0.2, 2.0])
@pytest.mark.parametrize("rho", [math.inf, 5.0, 0.7, 0.1])
@pytest.mark.parametrize("pair", [LINE, PLANE], ids=["line", "plane"])
def test_closed_form(pair: Any, rho: float, eps: float, dtype: torch.dtype, backend: str) -> None:
    first, second = with_masses(pair, rho)
    count = 200 if pair is LINE else 25
    (x, a), (y, b) = grid(first, count), grid(second, count)
    clouds = tuple(t.to(dtype) for t in (x, y, a, b))
    options = {"eps": eps, "reach": None if rho == math.inf else math.sqrt(rho), "backend": backend}
    # The transport moves mass over a few deviations: costs far out in the tails are not paid.
    limit = allowed(x[a > 1e-4 * a.max()].to(dtype), y[b > 1e-4 * b.max()].to(dtype), 2, eps, 2.0)
    for answer, debias in ((divergence, True), (transport, False)):
        value = solve(*clouds, debias=debias, **options)
        assert float(value) == pytest.approx(answer(first, second, eps, rho), abs=limit)


@pytest.mark.parametrize("eps", [0.1, 1.0])
def test_map_is_affine(eps: float, backend: str) -> None:
    """The barycentric map of the entropic plan between Gaussians is mean + K (x - mean)."""
    first, second = with_masses(PLANE, math.inf)
    (x, a), (y, b) = grid(first, 25, 6.0), grid(second, 25, 6.0)
    solution = sinkhorn(x, y, a, b, eps=eps, tol=TOL[torch.float64], max_iter=20_000, backend=backend)
    # Cov(x, y) = A^1/2 D A^-1/2 / 2 - eps / 2, D the root in theorem 1; K is Cov(x, y)^T A^-1.
    root, identity = _root(first.covariance), numpy.eye(2)
    d = _root(4.0 * root @ second.covariance @ root + eps**2 * identity)
    cross = 0.5 * (root @ d @ numpy.linalg.inv(root) - eps * identity)
    slope = cross.T @ numpy.linalg.inv(first.covariance)
    expected = second.mean + (x.numpy() - first.mean) @ slope.T
    centre = ((x.numpy() - first.mean) ** 2).sum(-1) < 2.0
    # Rows in the centre hold most of the mass: their error is of the order of the marginal error.
    assert numpy.abs(solution.transport().numpy() - expected)[centre].max() < 1e-6
