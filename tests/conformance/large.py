"""Problems of thousands of points, and what their solutions say, summed again over all pairs in float64."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from otcore import sinkhorn_divergence
from tests.kernels.case import BLOCK
from tests.problems import ARRANGEMENTS, INF, uneven_weights, weights

# What a sum of exponentials may leave out in float64, and its rounding: `otcore.bounds` rests on it.
SUM_ERROR = 2.0**-38
# The last place of a logit is much to allow where tiles have frames of their own: DESIGN.md has errors of
# 1e-3; where a tile stretches over a halo they are 2e-3 at worst. Twice that, in clouds so many blurs across.
FLOAT32_LOGITS, FLOAT32_ACROSS = 8e-3, 500
# What expansions may change a sum by in a solve, in units of its tol: certified, and counted in the marginal
# error, where those of all pairs of boxes add up.
EXPANSIONS = 1 / 32


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
            "n": draw.choice([draw.randrange(600, 2500), draw.randrange(2500, 4000)]),
            "m": draw.choice([draw.randrange(600, 2500), draw.randrange(2500, 4000)]),
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
        ("x", solved.grad_x, terms.xy.a, terms.xy.slope_x, slope_error(terms.xy, dtype)[0], terms.xx),
        ("y", solved.grad_y, terms.xy.b, terms.xy.slope_y, slope_error(terms.xy, dtype)[1], terms.yy),
    )
    for name, gradient, a, slope, error_xy, own in sides:
        # Per unit of weight, so that light points count as heavy ones do.
        wrong = (gradient.double() / a.unsqueeze(1) - slope + own.slope_x).norm(dim=1)
        ratio = float((wrong / (error_xy + slope_error(own, dtype)[0])).max())
        assert ratio <= 1.0, f"{q}: a gradient in {name} is off by {ratio} times what is allowed"
    return terms


def slope_error(term: Term, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """What slopes may be off by; where p = 1, rounding of the coordinates also turns directions."""
    last_place = torch.finfo(dtype).eps
    longest = term.distance if term.p == 2 else 1.0
    share = longest * (term.sum_error(dtype) + 2.0 * last_place)
    turn = 2.0 * last_place * term.distance
    return share * term.r + turn * term.near_x, share * term.c + turn * term.near_y


def places(f: Tensor, g: Tensor, eps: float) -> float:
    """Twice so many last places are granted where torch is lucky: the largest logit; sqrt(n) / 2 in sums."""
    largest = float(f.abs().max() + g.abs().max()) / eps
    return max(largest, 0.5 * max(f.numel(), g.numel()) ** 0.5)
