"""Problems with their closed-form answers.

Costs are |x - y|^2 / 2 (p = 2) or |x - y| (p = 1); eps is a temperature in units of the cost.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy
import torch
from torch import Tensor

INF = math.inf


@dataclass(frozen=True)
class Example:
    """Two weighted clouds, the options of the call, and the answers that are known.

    Attributes:
        options: keyword arguments of `sinkhorn_divergence` besides tol, max_iter and backend.
        divergence: the debiased value, or None.
        transport: the value without self-terms, or None.
        gradient: the derivative of the divergence in x, or None.
    """

    name: str
    x: Tensor
    y: Tensor
    a: Tensor
    b: Tensor
    options: dict[str, Any] = field(default_factory=dict)
    divergence: float | None = None
    transport: float | None = None
    gradient: Tensor | None = None

    def to(self, dtype: torch.dtype) -> Example:
        """The same clouds in another dtype; the answers stay in float64."""
        tensors = (t.to(dtype) for t in (self.x, self.y, self.a, self.b))
        return Example(self.name, *tensors, self.options, self.divergence, self.transport, self.gradient)


def cloud(n: int, dimension: int, seed: int, *, batch: int | None = None) -> Tensor:
    """Points uniform in the unit cube, float64."""
    generator = torch.Generator().manual_seed(seed)
    shape = (n, dimension) if batch is None else (batch, n, dimension)
    return torch.rand(shape, generator=generator, dtype=torch.float64)


def weights(n: int, seed: int, *, mass: float = 1.0, batch: int | None = None) -> Tensor:
    """Positive weights of the given mass, float64."""
    raw = cloud(n, 1, seed, batch=batch).squeeze(-1) + 0.2
    return mass * raw / raw.sum(-1, keepdim=True)


def uniform(points: Tensor) -> Tensor:
    """Equal weights of mass 1."""
    return torch.full(points.shape[:-1], 1.0 / points.shape[-2], dtype=points.dtype)


def translation(n: int = 20, dimension: int = 3, eps: float = 0.05) -> Example:
    """y = x + t: the divergence is |t|^2 / 2 for every eps, as the marginals alone see the rest."""
    x, a = cloud(n, dimension, 1), weights(n, 2)
    t = torch.linspace(0.3, -0.2, dimension, dtype=torch.float64)
    value = 0.5 * float(t.square().sum())
    return Example(
        "translation", x, x + t, a, a.clone(), {"eps": eps}, divergence=value, gradient=-a.unsqueeze(1) * t
    )


def permutation(
    n: int = 20, dimension: int = 2, p: int = 2, eps: float = 0.05, reach: float | None = None
) -> Example:
    """The same cloud in another order: the divergence and its gradient are 0."""
    x, a = cloud(n, dimension, 3), weights(n, 4)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(5))
    options = {"p": p, "eps": eps, "reach": reach}
    return Example(
        f"permutation p={p}", x, x[order], a, a[order], options, divergence=0.0, gradient=torch.zeros_like(x)
    )


def two_diracs(
    p: int = 2,
    eps: float = 0.1,
    rho: tuple[float, float] = (INF, INF),
    masses: tuple[float, float] = (1.0, 1.0),
) -> Example:
    """One point against one point: a scalar problem in the mass that is moved."""
    x = torch.tensor([[0.3, -0.2]], dtype=torch.float64)
    y = torch.tensor([[0.7, 0.4]], dtype=torch.float64)
    distance = float((x - y).norm())
    cost = distance**2 / 2 if p == 2 else distance
    m_a, m_b = masses
    transport = _dirac_transport(cost, eps, rho, m_a, m_b)
    divergence = (
        transport
        - 0.5 * _dirac_transport(0.0, eps, (rho[0], rho[0]), m_a, m_a)
        - 0.5 * _dirac_transport(0.0, eps, (rho[1], rho[1]), m_b, m_b)
        + 0.5 * eps * (m_a - m_b) ** 2
    )
    reach = tuple(None if r == INF else r ** (1.0 / p) for r in rho)
    a, b = (torch.tensor([m], dtype=torch.float64) for m in masses)
    name = f"two Diracs p={p} rho={rho}"
    return Example(
        name, x, y, a, b, {"p": p, "eps": eps, "reach": reach}, divergence=divergence, transport=transport
    )


def _dirac_transport(cost: float, eps: float, rho: tuple[float, float], m_a: float, m_b: float) -> float:
    """min over the moved mass q of q cost + eps KL(q | m_a m_b) + rho_x KL(q | m_a) + rho_y KL(q | m_b)."""
    terms = [(eps, m_a * m_b), (rho[0], m_a), (rho[1], m_b)]
    exact = [mass for strength, mass in terms if strength == INF]
    soft = [(strength, mass) for strength, mass in terms if strength < INF]
    if exact:
        q = exact[0]
    else:
        q = math.exp((sum(s * math.log(m) for s, m in soft) - cost) / sum(s for s, _ in soft))
    return q * cost + sum(s * (q * math.log(q / m) - q + m) for s, m in soft)


def gaussians_1d(
    eps: float = 0.2,
    rho: tuple[float, float] = (INF, INF),
    masses: tuple[float, float] = (1.0, 1.0),
    nodes: int = 48,
) -> Example:
    """Gaussians on the line at Gauss-Hermite nodes, for which sums over points nearly equal integrals."""
    first, second = (masses[0], 0.1, 0.5), (masses[1], 0.6, 0.8)
    points = [_gauss_hermite(*gaussian, nodes) for gaussian in (first, second)]
    transport = _gaussian_transport(first, second, eps, rho)
    divergence = (
        transport
        - 0.5 * _gaussian_transport(first, first, eps, (rho[0], rho[0]))
        - 0.5 * _gaussian_transport(second, second, eps, (rho[1], rho[1]))
        + 0.5 * eps * (masses[0] - masses[1]) ** 2
    )
    (x, a), (y, b) = points
    reach = tuple(None if r == INF else math.sqrt(r) for r in rho)
    name = f"Gaussians rho={rho}"
    return Example(name, x, y, a, b, {"eps": eps, "reach": reach}, divergence=divergence, transport=transport)


def _gauss_hermite(mass: float, mean: float, deviation: float, nodes: int) -> tuple[Tensor, Tensor]:
    points, quadrature = numpy.polynomial.hermite_e.hermegauss(nodes)
    a = torch.from_numpy(quadrature / quadrature.sum()) * mass
    return (torch.from_numpy(points) * deviation + mean).unsqueeze(1), a


def _gaussian_transport(
    first: tuple[float, float, float],
    second: tuple[float, float, float],
    eps: float,
    rho: tuple[float, float],
) -> float:
    """Entropic transport between Gaussians (mass, mean, deviation) on the line.

    Potentials stay quadratic under half-steps, so the Sinkhorn iteration acts on three coefficients, by
    Gaussian integrals.
    """
    lam_x, lam_y = 1.0 / (1.0 + eps / rho[0]), 1.0 / (1.0 + eps / rho[1])
    f = g = (0.0, 0.0, 0.0)
    for _ in range(5000):
        f = tuple(lam_x * t for t in _quadratic_softmin(g, second, eps))
        g = tuple(lam_y * t for t in _quadratic_softmin(f, first, eps))
    value = _gaussian_psi(first, f, rho[0]) + _gaussian_psi(second, g, rho[1])
    # The second half-step makes the column sums exact: the moved mass follows from g.
    moved = second[0] if rho[1] == INF else _gaussian_integral(second, tuple(-t / rho[1] for t in g))
    return value - eps * (moved - first[0] * second[0])


def _quadratic_softmin(
    g: tuple[float, ...], measure: tuple[float, float, float], eps: float
) -> tuple[float, ...]:
    """-eps log of the integral of exp((g(y) - (x - y)^2 / 2) / eps), as coefficients (1, x, x^2)."""
    mass, mean, deviation = measure
    # Exponent in y: -k y^2 / 2 + (l + x / eps) y + constant - x^2 / (2 eps).
    k = 1.0 / eps + 1.0 / deviation**2 - 2.0 * g[2] / eps
    shift = g[1] / eps + mean / deviation**2
    constant = g[0] / eps - 0.5 * (mean / deviation) ** 2 - 0.5 * math.log(k * deviation**2) + math.log(mass)
    return (
        -eps * (constant + 0.5 * shift**2 / k),
        -eps * (shift / (k * eps)),
        -eps * (0.5 / (k * eps**2) - 0.5 / eps),
    )


def _gaussian_integral(measure: tuple[float, float, float], h: tuple[float, ...]) -> float:
    """The integral of exp(h) against the measure, h quadratic."""
    mass, mean, deviation = measure
    k = 1.0 / deviation**2 - 2.0 * h[2]
    shift = mean / deviation**2 + h[1]
    return (
        mass
        * math.exp(h[0] - 0.5 * (mean / deviation) ** 2 + 0.5 * shift**2 / k)
        / math.sqrt(k * deviation**2)
    )


def _gaussian_psi(measure: tuple[float, float, float], f: tuple[float, ...], rho: float) -> float:
    mass, mean, deviation = measure
    if rho == INF:
        return mass * (f[0] + f[1] * mean + f[2] * (mean**2 + deviation**2))
    return rho * (mass - _gaussian_integral(measure, tuple(-t / rho for t in f)))


def gaussians_nd(eps: float = 0.5, nodes: int = 16) -> Example:
    """Balanced Gaussians in the plane, on a tensor grid of Gauss-Hermite nodes.

    Source: Janati, Muzellec, Peyre, Cuturi, "Entropic optimal transport between unbalanced Gaussian measures
        has a closed form",
    arXiv:2006.02572, theorem 1, with their cost halved.
    """
    first = numpy.array([[0.5, 0.1], [0.1, 0.3]])
    second = numpy.array([[0.2, -0.1], [-0.1, 0.6]])
    means = numpy.array([0.0, 0.2]), numpy.array([0.5, -0.3])
    x, a = _gauss_hermite_plane(means[0], first, nodes)
    y, b = _gauss_hermite_plane(means[1], second, nodes)
    transport = _janati(means, first, second, eps)
    same = (means[0], means[0]), (means[1], means[1])
    divergence = (
        transport - 0.5 * _janati(same[0], first, first, eps) - 0.5 * _janati(same[1], second, second, eps)
    )
    return Example("Gaussians 2-D", x, y, a, b, {"eps": eps}, divergence=divergence, transport=transport)


def _gauss_hermite_plane(mean: Any, covariance: Any, nodes: int) -> tuple[Tensor, Tensor]:
    line, w = numpy.polynomial.hermite_e.hermegauss(nodes)
    grid = numpy.stack(numpy.meshgrid(line, line), -1).reshape(-1, 2)
    product = numpy.outer(w, w).reshape(-1)
    points = grid @ numpy.linalg.cholesky(covariance).T + mean
    return torch.from_numpy(points), torch.from_numpy(product / product.sum())


def _janati(means: Any, first: Any, second: Any, eps: float) -> float:
    root = _matrix_root(first)
    identity = numpy.eye(len(first))
    d = _matrix_root(4.0 * root @ second @ root + eps**2 * identity)
    value = numpy.sum((means[0] - means[1]) ** 2) + numpy.trace(first + second - d)
    value += (
        len(first) * eps * (1.0 - math.log(2.0 * eps)) + eps * numpy.linalg.slogdet(d + eps * identity)[1]
    )
    return 0.5 * float(value)


def _matrix_root(matrix: Any) -> Any:
    values, vectors = numpy.linalg.eigh(matrix)
    return (vectors * numpy.sqrt(values)) @ vectors.T


def examples() -> list[Example]:
    """Every problem with a known answer, small."""
    return [
        translation(),
        permutation(),
        permutation(p=1),
        permutation(reach=0.5),
        two_diracs(),
        two_diracs(p=1),
        two_diracs(rho=(0.3, 0.3), masses=(1.0, 2.0)),
        two_diracs(rho=(0.3, 0.7), masses=(0.5, 2.0)),
        two_diracs(rho=(INF, 0.7), masses=(1.5, 2.0)),
        two_diracs(p=1, rho=(0.4, 0.4), masses=(0.6, 0.8)),
        gaussians_1d(),
        gaussians_1d(rho=(1.0, 1.0), masses=(1.0, 1.5)),
        gaussians_1d(rho=(0.5, 2.0), masses=(0.7, 1.5)),
        gaussians_1d(rho=(INF, 1.0), masses=(1.2, 0.8)),
        gaussians_nd(),
    ]


def _box(n: int, dimension: int, draw: torch.Generator) -> Tensor:
    return torch.rand(n, dimension, generator=draw, dtype=torch.float64)


def _direction(dimension: int, draw: torch.Generator) -> Tensor:
    """Drawn with its sign, of length 1."""
    raw = torch.randn(dimension, generator=draw, dtype=torch.float64)
    return raw / raw.norm()


def _cube(n: int, m: int, d: int, blur: float, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    return _box(n, d, draw), 0.7 * _box(m, d, draw) + 0.2


def _outlier(n: int, m: int, d: int, blur: float, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    x, y = _cube(n, m, d, blur, draw)
    x[n // 3] += 30.0 * _direction(d, draw)
    return x, y


def _line(n: int, m: int, d: int, blur: float, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Both clouds on one line across all coordinates."""
    along = _direction(d, draw)
    return _box(n, 1, draw) * along, (0.8 * _box(m, 1, draw) + 0.3) * along


def _parallel(n: int, m: int, d: int, blur: float, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Both clouds on two parallel lines a fifth of the blur apart; in one dimension, on one."""
    clouds = []
    for size in (n, m):
        z = _box(size, d, draw)
        z[:, 1:] = 0.2 * blur * (z[:, 1:] > 0.5)
        clouds.append(z)
    return clouds[0], clouds[1]


def _clusters(n: int, m: int, d: int, blur: float, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Two distant clusters, of which one has 80 % of x and the other 70 % of y: mass must cross."""
    apart = _direction(d, draw)
    clouds = []
    for size, share in ((n, 0.8), (m, 0.3)):
        here = torch.rand(size, 1, generator=draw, dtype=torch.float64) < share
        clouds.append(
            torch.where(here, 0.15, 0.1) * _box(size, d, draw) + torch.where(here, 0.0, 0.85) * apart
        )
    return clouds[0], clouds[1]


def _duplicates(n: int, m: int, d: int, blur: float, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Twenty points or so at each place; half of the places of y are places of x."""
    places = _box(n // 20, d, draw)
    others = torch.cat([places[::2], _box(m // 40, d, draw)])
    x, y = (z[torch.randint(len(z), (size,), generator=draw)] for z, size in ((places, n), (others, m)))
    return x, y


def _speck(n: int, m: int, d: int, blur: float, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """All of x within a thousandth of the blur."""
    return 0.4 + 1e-3 * blur * _box(n, d, draw), _box(m, d, draw)


def _specks(n: int, m: int, d: int, blur: float, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Both clouds within a thousandth of the blur, a few blurs from each other."""
    x, y = _box(n, d, draw), _box(m, d, draw)
    return 0.4 + 1e-3 * blur * x, 0.4 + 1e-3 * blur * y + 3.0 * blur * _direction(d, draw)


def _apart(n: int, m: int, d: int, blur: float, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Ten to a thousand diameters from each other."""
    x, y = _cube(n, m, d, blur, draw)
    exponent = 1.0 + 2.0 * torch.rand((), generator=draw, dtype=torch.float64)
    return x, y + 10.0**exponent * _direction(d, draw)


def _lattice(n: int, m: int, d: int, blur: float, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Regular grids of one pitch: coordinates tie, and many points of y are points of x."""
    side = math.ceil(max(n, m) ** (1.0 / d))
    axes = torch.meshgrid(*[torch.arange(side, dtype=torch.float64)] * d, indexing="ij")
    grid = torch.stack(axes, -1).reshape(-1, d) / side
    x, y = (grid[torch.randperm(len(grid), generator=draw)[:size]] for size in (n, m))
    return x, y + 2.0 / side


def _halo(n: int, m: int, d: int, blur: float, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Nineteen points of twenty within 1e-3 of the centre, the others all over the cube."""
    clouds = []
    for size in (n, m):
        inside = torch.rand(size, 1, generator=draw, dtype=torch.float64) < 0.95
        z = _box(size, d, draw)
        clouds.append(torch.where(inside, 0.5 + 1e-3 * (z - 0.5), z))
    return clouds[0], clouds[1] + 0.05


Arrangement = Callable[[int, int, int, float, torch.Generator], tuple[Tensor, Tensor]]
# Clouds of n and m points in d dimensions, about 1 across but for what is far away on purpose, on which short
# cuts between groups of points may go wrong.
ARRANGEMENTS: dict[str, Arrangement] = {
    "cube": _cube,
    "outlier": _outlier,
    "line": _line,
    "parallel lines": _parallel,
    "two clusters": _clusters,
    "duplicates": _duplicates,
    "speck and cube": _speck,
    "two specks": _specks,
    "far apart": _apart,
    "lattice": _lattice,
    "core and halo": _halo,
}


def uneven_weights(n: int, seed: int, *, mass: float = 1.0, orders: float = 12.0) -> Tensor:
    """Weights that range over so many orders of magnitude, float64."""
    raw = 10.0 ** (-orders * cloud(n, 1, seed).squeeze(-1))
    return mass * raw / raw.sum()
