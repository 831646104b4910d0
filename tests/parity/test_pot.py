"""sinkhorn and sinkhorn_divergence, converged, against POT: an independent solver of the same problem.

POT's cost is |x-y|^2 without the half: its reg is 2 blur^2 and its value is halved.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from torch import Tensor

from otcore import sinkhorn, sinkhorn_divergence
from tests.parity.drawn import Drawn, fresh, problems

ot = pytest.importorskip("ot", reason="parity with POT needs POT (pip install pot)")

REFERENCE_TOL = 1e-11  # POT's stopping threshold: far below what is asked of otcore


def pot_value(x: Tensor, y: Tensor, a: np.ndarray, b: np.ndarray, p: int, blur: float) -> float:
    """<T,C> + eps KL(T | ab') at POT's optimum, C = |x-y|^2/2 or |x-y|, eps = blur^p. Points of zero
    weight, which POT cannot take, are left out."""
    x, a, y, b = x[a > 0], a[a > 0], y[b > 0], b[b > 0]
    costs = ot.dist(x.numpy(), y.numpy(), metric="sqeuclidean" if p == 2 else "euclidean") / p
    eps = blur**p
    plan = ot.sinkhorn(
        a, b, costs, eps, method="sinkhorn_log", stopThr=REFERENCE_TOL, numItermax=200_000, warn=True
    )
    product = a[:, None] * b[None, :]
    ratio = np.divide(plan, product, out=np.ones_like(plan), where=plan > 0)
    return float((plan * costs).sum() + eps * ((plan * np.log(ratio)).sum() - plan.sum() + 1))


def pot_divergence(x: Tensor, y: Tensor, a: np.ndarray, b: np.ndarray, p: int, blur: float) -> float:
    cross = pot_value(x, y, a, b, p, blur)
    return cross - (pot_value(x, x, a, a, p, blur) + pot_value(y, y, b, b, p, blur)) / 2


def numpy_weights(problem: Drawn) -> tuple[np.ndarray, np.ndarray]:
    given_weights = problem.weights()
    if given_weights is None:
        return np.full(problem.n, 1 / problem.n), np.full(problem.m, 1 / problem.m)
    return given_weights[0].numpy(), given_weights[1].numpy()


def diameter(x: Tensor, y: Tensor) -> float:
    both = torch.cat([x, y])
    return (both.max(0).values - both.min(0).values).norm().item()


@fresh
@given(problem=problems(max_points=20))
def test_value_within_tol(problem: Drawn) -> None:
    """The dual is concave, so its value is off by at most marginal error x largest error of the potentials,
    and the potentials by at most the largest cost: tol x largest cost for each of the terms."""
    x, y = problem.points()
    a, b = numpy_weights(problem)
    blur = 0.15 * diameter(x, y)  # POT, without annealing, gets to REFERENCE_TOL in time there
    largest_cost = diameter(x, y) ** problem.p / problem.p
    exact = (pot_divergence if problem.debias else pot_value)(x, y, a, b, problem.p, blur)
    terms = 2 if problem.debias else 1
    rounding = 1e-10  # and REFERENCE_TOL, relative to the costs
    for tol in (1e-2, 1e-4, 1e-8):
        solution = sinkhorn_divergence(
            x,
            y,
            torch.tensor(a),
            torch.tensor(b),
            p=problem.p,
            blur=blur,
            debias=problem.debias,
            tol=tol,
            max_iter=20_000,
            return_solution=True,
        )
        assert solution.converged
        assert solution.marginal_error < tol
        assert abs(solution.value.item() - exact) <= (terms * tol + rounding) * largest_cost


def test_pot_conventions() -> None:
    """ot.solve_sample with reg = 2 blur^2 gives twice our value; the plans are the same."""
    draw = torch.Generator().manual_seed(1)
    x, y = (torch.rand(n, 3, generator=draw, dtype=torch.float64) for n in (20, 25))
    blur = 0.4
    theirs = ot.solve_sample(
        x.numpy(), y.numpy(), reg=2 * blur**2, reg_type="KL", max_iter=100_000, tol=1e-13
    )
    ours = sinkhorn(x, y, blur=blur, tol=1e-11, max_iter=10_000)
    assert ours.value.item() == pytest.approx(theirs.value / 2, rel=1e-9)
    plan = ours.plan()
    assert np.abs(plan.numpy() - theirs.plan).max() <= 1e-9 * np.abs(theirs.plan).max()


def test_potentials_up_to_a_constant() -> None:
    """POT's log u, log v hold the weights: eps log u = f + eps log a, with the constant removed."""
    draw = torch.Generator().manual_seed(2)
    x, y = (torch.rand(n, 2, generator=draw, dtype=torch.float64) for n in (15, 22))
    a = np.full(15, 1 / 15)
    b = np.arange(1, 23) / np.arange(1, 23).sum()
    blur = 0.4
    costs = ot.dist(x.numpy(), y.numpy()) / 2
    _, log = ot.sinkhorn(
        a, b, costs, blur**2, method="sinkhorn_log", stopThr=1e-14, numItermax=100_000, log=True
    )
    f, g = blur**2 * (log["log_u"] - np.log(a)), blur**2 * (log["log_v"] - np.log(b))
    ours = sinkhorn(x, y, torch.tensor(a), torch.tensor(b), blur=blur, tol=1e-12, max_iter=10_000)
    for found, exact in ((ours.f.numpy(), f), (ours.g.numpy(), g)):
        assert np.abs((found - found.mean()) - (exact - exact.mean())).max() <= 1e-9


def test_fp32_within_tol() -> None:
    """The default tolerance in fp32, against POT in fp64."""
    draw = torch.Generator().manual_seed(3)
    x, y = (torch.randn(n, 4, generator=draw, dtype=torch.float64).float().double() for n in (40, 50))
    a, b = np.full(40, 1 / 40), np.full(50, 1 / 50)
    exact = pot_divergence(x, y, a, b, 2, 1.0)
    found = sinkhorn_divergence(x.float(), y.float(), blur=1.0)
    assert abs(found.item() - exact) <= 2 * 1e-2 * diameter(x, y) ** 2 / 2
