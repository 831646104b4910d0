"""Thousands of points, where pairs of boxes may be skipped, expanded, or first solved on centroids.

What a solve returns is summed again at its own potentials, over all pairs, in float64 by blocks of rows.
Clouds are drawn afresh in every run; the header of a failure shows `seed`, its message the problem.
"""

from __future__ import annotations

import random
import warnings
from dataclasses import replace
from typing import Any

import ot
import pytest
import torch
from torch import Tensor

from otcore import ConvergenceWarning, SamplesLoss, sinkhorn, sinkhorn_divergence
from tests.conformance.large import Large, Terms, assert_true, places, slope_error, summed
from tests.conformance.solved import DTYPES
from tests.parity import plain
from tests.problems import ARRANGEMENTS, INF
from tests.tolerance import assert_as_accurate, assert_solved, rounding

# SamplesLoss on clusters of points: GeomLoss's own two-scale solver is off by up to 4 % in values, 16 % in
# gradients.
CLUSTERED_VALUES, CLUSTERED_GRADIENTS = 4e-2, 6e-2
EVERY_ARRANGEMENT = pytest.mark.parametrize("arrangement", ARRANGEMENTS)
# Below this blur points no longer overlap, and how many sweeps a solve takes is no matter of this file.
SMALLEST_BLUR = 0.03
# Where everything is within reach, and costs are not so large that float64 holds potentials to 1e-9 eps only.
NEAR = [name for name in ARRANGEMENTS if name not in ("outlier", "far apart")]


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
        ratio = float((wrong / (slope_error(cross, dtype)[0] + slope_error(same, dtype)[0])).max())
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
    granted = 2.0 * places(*(t.detach() for t in potentials), q.eps)
    for one, torchs, want in zip(got, _in_two(*scheduled(q, dtype)), exact, strict=True):
        assert_as_accurate(one, torchs, want, granted)


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
