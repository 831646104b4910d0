"""Thousands of points, where pairs of boxes may be skipped, expanded, or first solved on centroids.

What a solve returns is summed again here at its own potentials, over all pairs, in float64 by blocks of rows.
Clouds are drawn afresh in every run; the header of a failure shows `seed`, its message the problem.
"""

from __future__ import annotations

import random
import warnings
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import ot
import pytest
import torch
from torch import Tensor

from otcore import ConvergenceWarning, SamplesLoss, sinkhorn, sinkhorn_divergence
from otcore.backends.cpu import Cpu
from otcore.backends.dense import Dense, logits
from tests.conformance.solved import DTYPES
from tests.parity import plain
from tests.problems import ARRANGEMENTS, INF, cloud, uneven_weights, weights
from tests.tolerance import assert_as_accurate, assert_solved, rounding

# What a sum of exponentials may leave out in float64, and its rounding: `otcore.bounds` rests on it.
SUM_ERROR = 2.0**-38
# The last place of a logit is much to allow where tiles have frames of their own: DESIGN.md has errors of
# 1e-3; where a tile stretches over a halo they are 2e-3 at worst. Twice that, in clouds so many blurs across.
FLOAT32_LOGITS, FLOAT32_ACROSS = 8e-3, 500
# What expansions may change a sum by in a solve, in units of its tol: certified, and counted in the marginal
# error, where those of all pairs of boxes add up.
EXPANSIONS = 1 / 32
# SamplesLoss on clusters of points: GeomLoss's own two-scale solver is off by up to 4 % in values, 16 % in
# gradients.
CLUSTERED_VALUES, CLUSTERED_GRADIENTS = 4e-2, 6e-2
# Rows of a block: few enough for its matrices to stay in the cache.
BLOCK = 64
EVERY_ARRANGEMENT = pytest.mark.parametrize("arrangement", ARRANGEMENTS)
# Below this blur points no longer overlap, and how many sweeps a solve takes is no matter of this file.
SMALLEST_BLUR = 0.03
# Where everything is within reach, and costs are not so large that float64 holds potentials to 1e-9 eps only.
NEAR = [name for name in ARRANGEMENTS if name not in ("outlier", "far apart")]


@pytest.fixture
def seed() -> int:
    return random.randrange(2**30)


@dataclass(frozen=True)
class Large:
    """A problem, with everything it depends on; lengths are about 1 but for what an arrangement puts far."""

    arrangement: str
    seed: int
    dtype: torch.dtype
    n: int
    m: int
    d: int
    p: int
    blur: float
    reach: Any
    weighting: str
    tol: float

    @classmethod
    def drawn(cls, arrangement: str, seed: int, dtype: torch.dtype, **fixed: Any) -> Large:
        draw = random.Random(seed)
        free = {
            "n": draw.randrange(2500, 4000),
            "m": draw.randrange(2500, 4000),
            "d": draw.choice([1, 2, 2, 2, 3]),
            "p": draw.choice([1, 2, 2]),
            "blur": draw.choice([0.003, 0.01, 0.03, 0.1, 0.3, 1.0]),
            "reach": draw.choice([None, None, 0.3, 2.0, (0.5, None), (0.2, 0.7)]),
            "weighting": draw.choice(["none", "smooth", "uneven"]),
            "tol": draw.choice([1e-2, 1e-3 if dtype == torch.float32 else 1e-5]),
        }
        return cls(arrangement, seed, dtype, **{**free, **fixed})

    @property
    def eps(self) -> float:
        return self.blur**self.p

    @property
    def rho(self) -> tuple[float, float]:
        pair = self.reach if isinstance(self.reach, tuple) else (self.reach, self.reach)
        rho_x, rho_y = (INF if r is None else r**self.p for r in pair)
        return rho_x, rho_y

    def points(self) -> tuple[Tensor, Tensor]:
        """x and y, of values that float32 holds."""
        draw = torch.Generator().manual_seed(self.seed)
        x, y = ARRANGEMENTS[self.arrangement](self.n, self.m, self.d, self.blur, draw)
        return x.float().to(self.dtype), y.float().to(self.dtype)

    def weights(self) -> tuple[Tensor | None, Tensor | None]:
        if self.weighting == "none":
            return None, None
        mass = 1.0 if self.reach is None else 1.5
        if self.weighting == "uneven":
            a, b = uneven_weights(self.n, self.seed + 1), uneven_weights(self.m, self.seed + 2, mass=mass)
        else:
            a, b = _exact(weights(self.n, self.seed + 1)), _exact(weights(self.m, self.seed + 2, mass=mass))
        return a.float().to(self.dtype), b.float().to(self.dtype)

    def measures(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x, y, a, b in float64."""
        x, y = (t.double() for t in self.points())
        a, b = (
            z.new_full((len(z),), 1 / len(z)) if w is None else w.double()
            for w, z in zip(self.weights(), (x, y), strict=True)
        )
        return x, y, a, b

    def solve(self, **options: Any) -> Solved:
        """The debiased problem, by the backend that is chosen for it unless the options name one."""
        x, y = (t.requires_grad_() for t in self.points())
        own = {"p": self.p, "blur": self.blur, "reach": self.reach, "tol": self.tol, "return_solution": True}
        solution = sinkhorn_divergence(x, y, *self.weights(), **{**own, **options})
        return Solved(self, solution, *torch.autograd.grad(solution.value, (x, y)))


def _exact(masses: Tensor) -> Tensor:
    """Multiples of 2^-34, which float32 holds, of the same sum: balanced masses then agree to every bit."""
    steps = (masses * 2**34).round()
    steps[0] += round(float(masses.sum()) * 2**34) - steps.sum()
    return steps / 2**34


@dataclass(frozen=True)
class Solved:
    """A solution, and the gradients of its value in the points."""

    problem: Large
    solution: Any
    grad_x: Tensor
    grad_y: Tensor


class Term(NamedTuple):
    """One transport between x (N, D) and y (M, D) at given potentials, its plan a_i b_j e_ij summed.

    Attributes:
        r, c: sum_j b_j e_ij and sum_i a_i e_ij.
        slope_x, slope_y: sum_j b_j e_ij dC(x_i, y_j)/dx_i, (N, D), and the same of y, (M, D).
        near_x, near_y: sum_j b_j e_ij / |x_i - y_j| and the same of y, for p = 1; 0 for p = 2.
    """

    x: Tensor
    y: Tensor
    a: Tensor
    b: Tensor
    f: Tensor
    g: Tensor
    p: int
    eps: float
    rho: tuple[float, float]
    r: Tensor
    c: Tensor
    slope_x: Tensor
    slope_y: Tensor
    near_x: Tensor
    near_y: Tensor

    @property
    def excess(self) -> tuple[Tensor, Tensor]:
        """Less the derivative of the dual in f and g: a (r - e^{-f / rho_x}) and b (c - e^{-g / rho_y})."""
        rho_x, rho_y = self.rho
        return self.a * (self.r - (-self.f / rho_x).exp()), self.b * (self.c - (-self.g / rho_y).exp())

    @property
    def mass(self) -> float:
        return 0.5 * float(self.a.sum() + self.b.sum())

    @property
    def moved(self) -> float:
        return float(self.a @ self.r)

    @property
    def error(self) -> float:
        """The marginal error."""
        rows, columns = self.excess
        return float(rows.abs().sum() + columns.abs().sum()) / self.mass

    @property
    def dual(self) -> float:
        rho_x, rho_y = self.rho
        potentials = _psi(self.a, self.f, rho_x) + _psi(self.b, self.g, rho_y)
        return potentials - self.eps * (self.moved - float(self.a.sum() * self.b.sum()))

    def shortfall(self, best: Term) -> float:
        """How far the dual is below its maximum, at most: it is concave, and `best` has the maximisers."""
        rows, columns = self.excess
        return float(rows @ (self.f - best.f) + columns @ (self.g - best.g))

    @property
    def distance(self) -> float:
        """At least the largest one between the clouds."""
        centre = self.x.mean(0)
        return sum(float((z - centre).norm(dim=1).max()) for z in (self.x, self.y))

    @property
    def across(self) -> float:
        """The same once the clouds have one centre, as they do in the solver for p = 2."""
        if self.p == 1:
            return self.distance
        clouds = (self.x, self.a), (self.y, self.b)
        return sum(float((z - w @ z / w.sum()).norm(dim=1).max()) for z, w in clouds)

    def sum_error(self, dtype: torch.dtype) -> float:
        """What r and c may be off by, relatively, when they are summed in this dtype at these potentials.

        D + 16 operations a pair round, and the additions of n pairs like sqrt(n) of them; a logit of size s
        is right to the last place of s. In float32 logits are those of the centred clouds, whose potentials
        have no large constants that would cancel.
        """
        operations = self.x.shape[-1] + 16 + max(len(self.a), len(self.b)) ** 0.5
        size = self.distance**self.p / self.p + float(self.f.abs().max() + self.g.abs().max()) + self.eps
        wide = SUM_ERROR + operations * torch.finfo(torch.float64).eps * size / self.eps
        if dtype == torch.float64:
            return wide
        last_place, blurs = torch.finfo(dtype).eps, self.across / self.eps ** (1 / self.p)
        error = 2.0 * last_place * blurs**self.p / self.p
        if self.p == 2 and blurs <= FLOAT32_ACROSS:
            error = min(error, FLOAT32_LOGITS)
        return wide + operations * last_place + error

    def value_error(self, dtype: torch.dtype) -> float:
        """What the dual may be off by: by its sums, and where masses differ a little, the free constant."""
        size = self.distance**self.p / self.p + float(self.f.abs().max() + self.g.abs().max())
        loose = abs(float(self.a.sum() - self.b.sum())) if self.rho == (INF, INF) else 0.0
        places = (len(self.a) + len(self.b)) * torch.finfo(torch.float64).eps * self.mass
        return self.eps * self.sum_error(dtype) * self.moved + (loose + places) * size


def _psi(a: Tensor, f: Tensor, rho: float) -> float:
    return float(a @ f if rho == INF else -rho * a @ torch.expm1(-f / rho))


def summed(
    x: Tensor,
    y: Tensor,
    a: Tensor,
    b: Tensor,
    f: Tensor,
    g: Tensor,
    p: int,
    eps: float,
    rho: tuple[float, float] = (INF, INF),
) -> Term:
    """In memory linear in the number of points. A self-term, where y is x, has equal sides."""
    r, c, slope_x, slope_y = (torch.zeros_like(t) for t in (a, b, x, y))
    near_x, near_y = torch.zeros_like(a), torch.zeros_like(b)
    for start in range(0, len(x), BLOCK):
        rows = slice(start, start + BLOCK)
        gaps = [u[rows, None] - v for u, v in zip(x.unbind(1), y.unbind(1), strict=True)]
        e = gaps[0].square()
        for gap in gaps[1:]:
            e.addcmul_(gap, gap)
        if p == 1:
            distance = e.sqrt_()
            e = distance.mul(-1.0 / eps)
        else:
            e.mul_(-0.5 / eps)
        e.add_(f[rows, None] / eps).add_(g / eps).exp_()
        r[rows] = e @ b
        if y is not x:
            c += a[rows] @ e
        if p == 1:
            e.div_(distance).masked_fill_(distance == 0, 0.0)
            near_x[rows] = e @ b
            if y is not x:
                near_y += a[rows] @ e
        for k, gap in enumerate(gaps):
            gap.mul_(e)
            slope_x[rows, k] = gap @ b
            if y is not x:
                slope_y[:, k] -= a[rows] @ gap
    if y is x:
        c, slope_y, near_y = r, slope_x, near_x
    return Term(x, y, a, b, f, g, p, eps, rho, r, c, slope_x, slope_y, near_x, near_y)


class Terms(NamedTuple):
    """The three transports of a divergence."""

    xy: Term
    xx: Term
    yy: Term

    @classmethod
    def of(cls, solved: Solved) -> Terms:
        q, s = solved.problem, solved.solution
        (x, y, a, b), (rho_x, rho_y), ground = q.measures(), q.rho, (q.p, q.eps)
        f, g, f_xx, g_yy = (t.detach() for t in (s.f, s.g, s.f_xx, s.g_yy))
        return cls(
            summed(x, y, a, b, f, g, *ground, (rho_x, rho_y)),
            summed(x, x, a, a, f_xx, f_xx, *ground, (rho_x, rho_x)),
            summed(y, y, b, b, g_yy, g_yy, *ground, (rho_y, rho_y)),
        )

    @property
    def value(self) -> float:
        gap = float(self.xy.a.sum() - self.xy.b.sum())
        return self.xy.dual - 0.5 * (self.xx.dual + self.yy.dual) + 0.5 * self.xy.eps * gap**2

    def value_error(self, dtype: torch.dtype) -> float:
        terms = sum(share * t.value_error(dtype) for share, t in zip((1.0, 0.5, 0.5), self, strict=True))
        return terms + torch.finfo(dtype).eps * abs(self.value)


def assert_true(solved: Solved) -> Terms:
    """What a solution reports is what its potentials give: marginal error, value, gradients."""
    q, s, dtype = solved.problem, solved.solution, solved.problem.dtype
    terms = Terms.of(solved)
    error = max(t.error for t in terms)
    slack = max(2.0 * t.sum_error(dtype) * t.moved / t.mass for t in terms)
    counted = EXPANSIONS * q.tol if q.p == 2 and q.d == 2 else 0.0
    assert error - slack <= s.marginal_error <= error + slack + 16.0 * counted, (
        f"{q}: error {s.marginal_error}, in truth {error} ± {slack}"
    )
    value, slack = float(s.value.detach()), terms.value_error(dtype) + q.eps * counted
    assert abs(value - terms.value) <= slack, f"{q}: value {value}, in truth {terms.value} ± {slack}"
    sides = (
        ("x", solved.grad_x, terms.xy.a, terms.xy.slope_x, _slope_error(terms.xy, dtype)[0], terms.xx),
        ("y", solved.grad_y, terms.xy.b, terms.xy.slope_y, _slope_error(terms.xy, dtype)[1], terms.yy),
    )
    for name, gradient, a, slope, error_xy, own in sides:
        # Per unit of weight, so that light points count as heavy ones do.
        wrong = (gradient.double() / a.unsqueeze(1) - slope + own.slope_x).norm(dim=1)
        ratio = float((wrong / (error_xy + _slope_error(own, dtype)[0])).max())
        assert ratio <= 1.0, f"{q}: a gradient in {name} is off by {ratio} times what is allowed"
    return terms


def _slope_error(term: Term, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """What slopes may be off by; where p = 1, rounding of the coordinates also turns directions."""
    last_place = torch.finfo(dtype).eps
    longest = term.distance if term.p == 2 else 1.0
    share = longest * (term.sum_error(dtype) + 2.0 * last_place)
    turn = 2.0 * last_place * term.distance
    return share * term.r + turn * term.near_x, share * term.c + turn * term.near_y


@EVERY_ARRANGEMENT
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_a_solution_says_is_true(arrangement: str, dtype: torch.dtype, seed: int) -> None:
    """Converged or not; and it converges where points overlap."""
    q = Large.drawn(arrangement, seed, dtype)
    if q.blur >= SMALLEST_BLUR:
        assert_true(q.solve())
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        solved = q.solve(max_iter=100)
    assert_true(solved)


@EVERY_ARRANGEMENT
def test_values_are_as_near_the_optimum_as_their_errors_say(arrangement: str, seed: int) -> None:
    """In both precisions; and the certified bounds hold the optimum."""
    # Far apart, float64 does not hold the potentials to less than 1e-8 of a small temperature.
    blur = random.Random(seed).choice([0.03 if arrangement in NEAR else 0.1, 0.1, 0.3, 1.0])
    q = Large.drawn(arrangement, seed, torch.float64, d=2, blur=blur, tol=1e-7)
    exact = q.solve(max_iter=20_000)
    best = assert_true(exact)
    # The potentials of an error of 1e-7 are not better than to the largest cost, in the worst case.
    own = 3.0 * q.tol * best.xy.mass * (best.xy.across**q.p / q.p + q.eps)
    for dtype in DTYPES:
        loose = replace(q, dtype=dtype, tol=1e-2).solve()
        terms = Terms.of(loose)
        value, slack = (
            float(loose.solution.value.detach()),
            own + terms.value_error(dtype) + best.value_error(dtype),
        )
        below = terms.xy.shortfall(best.xy)
        above = 0.5 * (terms.xx.shortfall(best.xx) + terms.yy.shortfall(best.yy))
        low, high = best.value - below - slack, best.value + above + slack
        assert low <= value <= high, f"{loose.problem}: {value} is outside of {low}, {high}"
        for solution in (exact.solution, loose.solution):
            bounds = solution.bounds()
            low, high = float(bounds.lower) - slack, float(bounds.upper) + slack
            assert low <= best.value <= high, f"{loose.problem}: {best.value} is outside of {low}, {high}"


@pytest.mark.parametrize(("p", "reach"), [(2, None), (2, (0.3, 0.7)), (1, None), (1, 0.5)])
def test_the_oracle_takes_it_over(p: int, reach: Any, seed: int) -> None:
    """Started from the solution, the dense backend finds it converged, with the same value and gradients."""
    arrangement = random.Random(seed).choice(NEAR)
    fixed = {"n": 2200, "m": 1900, "d": 2, "p": p, "blur": 0.1, "reach": reach, "weighting": "smooth"}
    q = Large.drawn(arrangement, seed, torch.float64, **fixed, tol=1e-9)
    found = q.solve(max_iter=20_000)
    dense = q.solve(backend="dense", init=found.solution, tol=2.0 * q.tol)
    assert (found.solution.backend, dense.solution.backend) == ("cpu", "dense")
    assert dense.solution.n_iter == 1, q
    scale = float(dense.solution.value.detach().abs())
    assert_solved(found.solution.value / max(1.0, scale), dense.solution.value / max(1.0, scale))
    for got, want, a in zip(
        (found.grad_x, found.grad_y), (dense.grad_x, dense.grad_y), q.measures()[2:], strict=True
    ):
        assert_solved(got / a.unsqueeze(1), want / a.unsqueeze(1))


@dataclass(frozen=True)
class Fixed:
    """Clouds with potentials that float32 holds, as the verbs take them: in a batch of one."""

    x: Tensor
    y: Tensor
    f: Tensor
    g: Tensor
    a: Tensor
    b: Tensor
    cost: int
    eps: float

    def to(self, dtype: torch.dtype) -> Fixed:
        return Fixed(*(t.to(dtype) for t in self.clouds), self.cost, self.eps)

    @property
    def clouds(self) -> tuple[Tensor, ...]:
        return self.x, self.y, self.f, self.g, self.a, self.b

    @property
    def ground(self) -> dict[str, float]:
        return {"cost": self.cost, "eps": self.eps}

    @property
    def turned(self) -> Fixed:
        return Fixed(self.y, self.x, self.g, self.f, self.b, self.a, self.cost, self.eps)

    def rows(self, chosen: slice | Tensor) -> Fixed:
        """Some of x against all of y."""
        x, f, a = (t[:, chosen] for t in (self.x, self.f, self.a))
        return Fixed(x, self.y, f, self.g, a, self.b, self.cost, self.eps)

    def log_sums(self) -> Tensor:
        """log r (1, N), as torch sums it in this dtype, by blocks of rows."""
        parts = []
        for start in range(0, self.x.shape[1], BLOCK):
            q = self.rows(slice(start, start + BLOCK))
            s = logits(q.x, q.y, q.f, q.g, self.cost, self.eps)
            parts.append(torch.logsumexp(s.add_(self.b.log().unsqueeze(1)), 2))
        return torch.cat(parts, 1)


def _converged(q: Large, x: Tensor, y: Tensor, a: Tensor, b: Tensor, draw: torch.Generator) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        solution = sinkhorn(x, y, a, b, p=q.p, blur=q.blur, tol=1e-4, max_iter=100)
    return solution.f, solution.g


def _noisy(q: Large, x: Tensor, y: Tensor, a: Tensor, b: Tensor, draw: torch.Generator) -> Any:
    """With three temperatures of noise at every point."""
    f, g = _converged(q, x, y, a, b, draw)
    return tuple(t + 3.0 * q.eps * torch.randn(t.shape, generator=draw, dtype=t.dtype) for t in (f, g))


def _smooth(q: Large, x: Tensor, y: Tensor, a: Tensor, b: Tensor, draw: torch.Generator) -> Any:
    """A few random waves."""
    waves, phases = 6.0 * torch.randn(4, q.d, generator=draw, dtype=x.dtype), 6.0 * cloud(4, 1, q.seed)[:, 0]
    return _closed(q, x, y, b, 0.03 * (y @ waves.T + phases).cos().sum(1))


def _kinked(q: Large, x: Tensor, y: Tensor, a: Tensor, b: Tensor, draw: torch.Generator) -> Any:
    """The larger of two linear functions: x goes to either side of an edge, nothing to the edge."""
    slopes = torch.randn(2, q.d, generator=draw, dtype=x.dtype)
    slopes = (0.5 if q.p == 2 else 0.8) * slopes / slopes.norm(dim=1, keepdim=True)
    return _closed(q, x, y, b, ((y - y.mean(0)) @ slopes.T).amax(1))


def _closed(q: Large, x: Tensor, y: Tensor, b: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """(f, g) with f the softmin of g: all rows sum to 1, columns to anything."""
    zero = torch.zeros_like(x[None, :, 0])
    log_r = Fixed(x[None], y[None], zero, g[None], zero, b[None], q.p, q.eps).log_sums()
    return -q.eps * log_r[0], g


POTENTIALS = {"converged": _converged, "noisy": _noisy, "smooth": _smooth, "kinked": _kinked}


@pytest.mark.parametrize("plane", [True, False], ids=["p=2 in the plane", "otherwise"])
@pytest.mark.parametrize("kind", POTENTIALS)
def test_verbs_at_any_potentials(kind: str, plane: bool, seed: int) -> None:
    """As in tests/kernels/test_verbs.py; every sum, and some rows of what is summed with vectors."""
    draw, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    d, p = (2, 2) if plane else draw.choice([(1, 2), (3, 2), (2, 1)])
    n, m, blur = draw.randrange(3000, 5000), draw.randrange(3000, 5000), draw.choice([0.01, 0.03, 0.1, 0.3])
    fixed = {"n": n, "m": m, "d": d, "p": p, "blur": blur, "reach": None, "weighting": "smooth"}
    q = Large.drawn(draw.choice(["cube", "core and halo", "two clusters"]), seed, torch.float64, **fixed)
    x, y, a, b = q.measures()
    potentials = POTENTIALS[kind](q, x, y, a, b, generator)
    wide = Fixed(*(t.unsqueeze(0).float().double() for t in (x, y, *potentials, a, b)), p, q.eps)
    exact = wide.log_sums(), wide.turned.log_sums(), replace(wide, y=wide.x, g=wide.f, b=wide.a).log_sums()
    chosen = torch.randperm(min(n, m), generator=generator)[:300]
    v = torch.randn(1, m, 3, generator=generator, dtype=torch.float64)
    for dtype in DTYPES:
        case, cpu = wide.to(dtype), Cpu()
        own = replace(case, y=case.x, g=case.f, b=case.a)
        found = *cpu.sweep(*case.clouds, **case.ground), cpu.sweep(*own.clouds, **case.ground, same=True)[0]
        for side, got, want in zip((case, case.turned, own), found, exact, strict=True):
            _assert_sums(q, side, got, want)
        _assert_products(case, wide, chosen, v.to(dtype), exact[0][:, chosen])


def _places(f: Tensor, g: Tensor, eps: float) -> float:
    """Twice so many last places are granted where torch is lucky: the largest logit; sqrt(n) / 2 in sums."""
    largest = float(f.abs().max() + g.abs().max()) / eps
    return max(largest, 0.5 * max(f.numel(), g.numel()) ** 0.5)


def _assert_sums(q: Large, case: Fixed, got: Tensor, want: Tensor) -> None:
    """Every sum by itself to the rule of tests.tolerance: the error of its logarithm is a relative one."""
    error, last_place = (got.double() - want).abs(), torch.finfo(got.dtype).eps
    places = _places(case.f, case.g, case.eps)
    if got.dtype == torch.float64:
        allowed = SUM_ERROR + (q.d + 16) * last_place * places
    else:
        torchs = float((case.log_sums().double() - want).abs().max())
        # The worst of thousands of sums: what torch loses and what rounding may lose add up.
        allowed = 2.0 * (torchs + last_place * places) + rounding(got.dtype)
    worst = int(error.argmax())
    assert float(error.max()) <= allowed, (
        f"{q}: log sum {worst} is {float(got[0, worst])}, in truth {float(want[0, worst])} ± {allowed:.1e}"
    )


def _assert_products(case: Fixed, wide: Fixed, chosen: Tensor, v: Tensor, log_r: Tensor) -> None:
    """Products and gradients in the chosen rows, relative to what the row sums to."""
    cpu, dense, part, exact = Cpu(), Dense(), case.rows(chosen), wide.rows(chosen)
    share = (log_r.exp() * exact.a).unsqueeze(2)
    triples = [
        (cpu.apply(*case.clouds, v, **case.ground), dense.apply(*part.clouds, v, **case.ground),
         dense.apply(*exact.clouds, v.double(), **case.ground), share),
    ]  # fmt: skip
    for normalise, scale in ((False, share), (True, torch.ones_like(share))):
        options = {**case.ground, "normalise": normalise}
        triples.append(
            (cpu.grad(*case.clouds, **options), dense.grad(*part.clouds, **options),
             dense.grad(*exact.clouds, **options), scale)
        )  # fmt: skip
    for got, torchs, reference, scale in triples:
        if case.x.dtype == torch.float64:
            assert_solved(got[:, chosen] / scale, reference / scale)
        else:
            narrow, places = scale.float(), _places(case.f, case.g, case.eps)
            assert_as_accurate(got[:, chosen] / narrow, torchs / narrow, reference / scale, places)


@pytest.mark.parametrize("reach", [None, 0.3], ids=["balanced", "unbalanced"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_ten_thousand_points(dtype: torch.dtype, reach: float | None, seed: int) -> None:
    """Of drawn points: marginals, which make up the error, gradients, and where the plan sends them."""
    draw = random.Random(seed)
    n, m, blur = draw.randrange(8000, 14000), draw.randrange(6000, 10000), draw.choice([0.02, 0.05, 0.2])
    arrangement = draw.choice(NEAR)
    fixed = {"n": n, "m": m, "d": 2, "p": 2, "blur": blur, "reach": reach, "weighting": "smooth", "tol": 1e-3}
    q = Large.drawn(arrangement, seed, dtype, **fixed)
    solved = q.solve()
    s, (x, y, a, b) = solved.solution, q.measures()
    f, g, f_xx, g_yy = (t.detach() for t in (s.f, s.g, s.f_xx, s.g_yy))
    totals = tuple(t.detach().double() for t in s.marginals())
    forth = x, y, a, b, f, g, f_xx, solved.grad_x, totals[0]
    back = y, x, b, a, g, f, g_yy, solved.grad_y, totals[1]
    excess = 0.0
    for name, side, rho in zip("xy", (forth, back), q.rho, strict=True):
        x, y, a, b, f, g, own, gradient, total = side
        rows = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:200]
        cross = summed(x[rows], y, a[rows], b, f[rows], g, q.p, q.eps)
        same = summed(x[rows], x, a[rows], a, own[rows], own, q.p, q.eps)
        error = 2.0 * cross.sum_error(dtype)
        ratio = float((total[rows] / (a[rows] * cross.r) - 1.0).abs().max() / error)
        assert ratio <= 1.0, f"{q}: a marginal in {name} is off by {ratio} times what is allowed"
        wrong = (gradient[rows].double() / a[rows, None] - cross.slope_x + same.slope_x).norm(dim=1)
        ratio = float((wrong / (_slope_error(cross, dtype)[0] + _slope_error(same, dtype)[0])).max())
        assert ratio <= 1.0, f"{q}: a gradient in {name} is off by {ratio} times what is allowed"
        if name == "x":
            wrong = (
                x[rows] - cross.slope_x / cross.r.unsqueeze(1) - s.transport()[rows].detach().double()
            ).norm(dim=1)
            ratio = float(wrong.max()) / (error * cross.distance)
            assert ratio <= 1.0, f"{q}: a mean is off by {ratio} times what is allowed"
        excess += float((total - a * (-f / rho).exp()).abs().sum())
    # Of the three transports the largest error is reported.
    mass = 0.5 * float(a.sum() + b.sum())
    allowed = s.marginal_error + 2.0 * error * float(total.sum()) / mass
    assert excess / mass <= allowed, f"{q}: the error is {excess / mass}, not {s.marginal_error}"


def followed(
    x: Tensor, y: Tensor, a: Tensor, b: Tensor, temperatures: list[float], rho: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """GeomLoss's schedule for p = 2: f, g, and the gradients of them, x - mean of y and y - mean of x."""

    def damped(f: Tensor, log_r: Tensor, eps: float) -> Tensor:
        return (f - eps * log_r) / (1.0 + eps / rho)

    f, g = torch.zeros_like(a), torch.zeros_like(b)
    for k, eps in enumerate([temperatures[0], *temperatures, temperatures[-1]]):
        t = summed(x, y, a, b, f, g, 2, eps)
        ahead = damped(f, t.r.log(), eps), damped(g, t.c.log(), eps)
        whole = k in (0, len(temperatures) + 1)
        f, g = ahead if whole else (0.5 * (f + ahead[0]), 0.5 * (g + ahead[1]))
    return f, g, t.slope_x / t.r.unsqueeze(1), t.slope_y / t.c.unsqueeze(1)


def scheduled(q: Large, dtype: torch.dtype) -> list[Tensor]:
    """SamplesLoss as torch computes it: value, both potentials, and both gradients per unit of weight."""
    x, y, a, b = (t.to(dtype) for t in q.measures())
    rho, _ = q.rho
    temperatures = plain.temperatures(plain.diameter(x, y), q.blur, 0.5, 2)
    f, g, slope_x, slope_y = followed(x, y, a, b, temperatures, rho)
    f_xx, _, slope_xx, _ = followed(x, x, a, a, temperatures, rho)
    g_yy, _, slope_yy, _ = followed(y, y, b, b, temperatures, rho)
    if rho == INF:
        value = a @ (f - f_xx) + b @ (g - g_yy)
        return [value, f - f_xx, g - g_yy, slope_x - slope_xx, slope_y - slope_yy]
    sent = [(-u / rho).exp().unsqueeze(1) for u in (f, g, f_xx, g_yy)]
    value = (rho + 0.5 * q.eps) * (a @ (sent[2] - sent[0]) + b @ (sent[3] - sent[1])).squeeze()
    slopes = sent[0] * slope_x - sent[2] * slope_xx, sent[1] * slope_y - sent[3] * slope_yy
    return [value, f - f_xx, g - g_yy, *slopes]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("reach", [None, 0.4], ids=["balanced", "unbalanced"])
@pytest.mark.parametrize("backend", ["auto", "multiscale"])
def test_schedules_over_all_pairs(backend: str, reach: float | None, dtype: torch.dtype, seed: int) -> None:
    """SamplesLoss; by the name of GeomLoss's two-scale solver it also clusters points."""
    draw = random.Random(seed)
    arrangement = draw.choice(NEAR)
    fixed = {"d": 2, "p": 2, "blur": draw.choice([0.02, 0.05, 0.1]), "reach": reach, "weighting": "smooth"}
    q = Large.drawn(arrangement, seed, dtype, n=3000, m=2600, **fixed)
    (x, y), (a, b) = q.points(), q.weights()
    assert a is not None
    assert b is not None
    options: dict[str, Any] = {"p": 2, "blur": q.blur, "reach": reach, "backend": backend}
    value = SamplesLoss(**options)(a, x.requires_grad_(), b, y.requires_grad_())
    g_x, g_y = torch.autograd.grad(value, (x, y))
    potentials = SamplesLoss(**options, potentials=True)(a, x, b, y)
    got = _in_two(value, *potentials, g_x / a.unsqueeze(1), g_y / b.unsqueeze(1))
    exact = _in_two(*scheduled(q, torch.float64))
    if backend == "multiscale":
        for one, want, share in zip(got, exact, (CLUSTERED_VALUES, CLUSTERED_GRADIENTS), strict=True):
            least = 0.05 * q.eps * want.numel() ** 0.5  # where potentials are a small part of the temperature
            assert float((one.double() - want).norm()) <= share * float(want.norm()) + least
        return
    if dtype == torch.float64:
        for one, want in zip(got, exact, strict=True):
            assert_solved(one, want)
        return
    # Twice, as what expansions leave out is the same at every temperature and does not average out.
    places = 2.0 * _places(*(t.detach() for t in potentials), q.eps)
    for one, torchs, want in zip(got, _in_two(*scheduled(q, dtype)), exact, strict=True):
        assert_as_accurate(one, torchs, want, places)


def _in_two(value: Tensor, f: Tensor, g: Tensor, slope_x: Tensor, slope_y: Tensor) -> tuple[Tensor, Tensor]:
    """The value beside the potentials that it averages, as a single number may be lucky; and gradients."""
    return torch.cat([value.reshape(1), f, g]).detach(), torch.cat([slope_x, slope_y])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("reach", [None, 0.3], ids=["balanced", "unbalanced"])
def test_a_warm_start_ends_where_a_cold_one_does(reach: float | None, dtype: torch.dtype, seed: int) -> None:
    """Points move by a tenth of the blur."""
    arrangement = random.Random(seed).choice([name for name in ARRANGEMENTS if name != "outlier"])
    q = Large.drawn(arrangement, seed, dtype, d=2, reach=reach, blur=0.1, weighting="smooth", tol=1e-4)
    (x, y), (a, b) = q.points(), q.weights()
    options: dict[str, Any] = {"p": q.p, "blur": q.blur, "reach": reach, "return_solution": True}
    start = sinkhorn_divergence(x, y, a, b, **options, tol=1e-2)
    moved = x + 0.1 * q.blur * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed)).to(x)
    cold = sinkhorn_divergence(moved, y, a, b, **options, tol=q.tol)
    warm = sinkhorn_divergence(moved, y, a, b, **options, tol=q.tol, init=start)
    # Each is below the optimum by its error times that of its potentials, at most the largest cost; thrice.
    across = sum(float((t.double() - t.double().mean(0)).norm(dim=1).max()) for t in (moved, y))
    if q.p == 1:
        across += float((moved.double().mean(0) - y.double().mean(0)).norm())
    limit = 3.0 * q.tol * 1.5 * (across**q.p / q.p + q.eps) + 2.0 * rounding(dtype, float(cold.value.abs()))
    assert abs(float(warm.value) - float(cold.value)) <= limit, f"{q}: {warm.value} warm, {cold.value} cold"


@pytest.mark.parametrize("p", [1, 2])
def test_cost_bounds_on_a_line(p: int, seed: int) -> None:
    """Without regularisation transport on a line is that of the sorted points; the line lies in the plane."""
    draw = random.Random(seed)
    fixed = {"d": 2, "p": p, "reach": None, "weighting": "smooth", "blur": draw.choice([0.01, 0.03, 0.1])}
    q = Large.drawn("line", seed, torch.float64, **fixed, tol=1e-2)
    x, y, a, b = q.measures()
    along = (y[y.norm(dim=1).argmax()] / y.norm(dim=1).max()).unsqueeze(1)
    line = [(t @ along)[:, 0].numpy() for t in (x, y)]
    masses = [(t / t.sum()).numpy() for t in (a, b)]
    exact = float(ot.emd2_1d(*line, *masses, metric="minkowski" if p == 1 else "sqeuclidean", p=1)) / p
    bounds = sinkhorn(x, y, a, b, p=p, blur=q.blur, tol=q.tol).bounds()
    # Points off the line by rounding in float32, masses that agree to 1e-7.
    assert float(bounds.cost_lower) - 1e-6 <= exact <= float(bounds.cost_upper) + 1e-6, (
        f"{q}: {bounds}, {exact}"
    )
