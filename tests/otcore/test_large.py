"""What is special to many points: progress, counted pairs, kept orders, digits that end."""

from __future__ import annotations

import math

import pytest
import torch

from otcore import SamplesLoss, SinkhornDivergence, sinkhorn, sinkhorn_divergence
from tests.problems import cloud


def test_a_long_solve_says_where_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    """On sys.stderr, once a second: points of 64 coordinates are no matter for trees or expansions."""
    x, y = cloud(1500, 64, 0), cloud(1500, 64, 1)
    with pytest.warns(match="not converged"):
        sinkhorn(x, y, blur=0.05, tol=1e-14, max_iter=1500, verbose=True)
    lines = capsys.readouterr().err.splitlines()
    assert lines
    assert all(line.startswith("otcore: x to y  eps ") and "marginal error" in line for line in lines)


def test_short_solves_say_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    x, y = cloud(50, 2, 0), cloud(60, 2, 1)
    SinkhornDivergence(verbose=True)(x, y)
    SamplesLoss(verbose=True)(x, y)
    assert not capsys.readouterr().err


def test_pairs_of_few_points_are_all_visited() -> None:
    x, y = cloud(50, 2, 0), cloud(60, 2, 1)
    solution = sinkhorn(x, y)
    assert solution.pairs >= solution.n_iter * 50 * 60
    dense = sinkhorn(x, y, backend="dense")
    assert dense.pairs == dense.n_iter * 50 * 60
    both = sinkhorn_divergence(torch.stack([x, x]), torch.stack([y, y]), return_solution=True)
    assert both.pairs.tolist() == [both.pairs[0]] * 2


@pytest.mark.parametrize("d", [2, 3])
def test_most_pairs_of_many_points_are_not(d: int) -> None:
    n = 12000
    x, y = cloud(n, d, 0).float(), cloud(n, d, 1).float()
    solution = sinkhorn(x, y, blur=0.03)
    assert solution.converged
    assert solution.pairs < 0.5 * solution.n_iter * n * n


@pytest.mark.parametrize("d", [2, 3, 5])
def test_results_do_not_depend_on_what_was_solved_before(d: int) -> None:
    """Orders of large clouds are kept: those of other points, or of the same ones moved, are not taken."""
    n = 9000
    x, y = cloud(n, d, 0), cloud(n, d, 1)
    first = sinkhorn(x, y, blur=0.2)
    sinkhorn(y, x + 1e-3, blur=0.2)
    for k in range(5):
        sinkhorn(cloud(n, d, 10 + k), y, blur=0.5)
    again = sinkhorn(x, y, blur=0.2)
    assert torch.equal(first.f, again.f)
    assert torch.equal(first.value, again.value)


def test_float32_goes_on_in_float64_where_its_digits_end() -> None:
    """Thin petals a hundred blurs apart: sums to 1e-3 need more digits than float32 has."""
    draw = torch.Generator().manual_seed(1)
    clouds = []
    for scale in (0.8, 1.0):
        angle = torch.randint(0, 10, (700,), generator=draw) * (2 * math.pi / 10)
        along, across = 3 + torch.randn(700, generator=draw), 0.1 * torch.randn(700, generator=draw)
        petals = [angle.cos() * along - angle.sin() * across, angle.sin() * along + angle.cos() * across]
        clouds.append(scale * torch.stack(petals, 1))
    x, y = clouds
    solution = sinkhorn(x, y, blur=0.05, tol=1e-3)
    assert solution.converged
    f, g = solution.f.double(), solution.g.double()
    cost = 0.5 * (x.double()[:, None] - y.double()).square().sum(2)
    plan = ((f[:, None] + g - cost) / 0.05**2).exp() / 700**2
    error = sum(float((plan.sum(k) - 1 / 700).abs().sum()) for k in (0, 1))
    # Rounding the potentials to float32 changes each sum by up to two of their last places.
    rounded = 2 * 2 * torch.finfo(torch.float32).eps * float(f.abs().max() + g.abs().max()) / 0.05**2
    assert error <= 1e-3 + rounded


@pytest.mark.parametrize("n", [300, 3000])
@pytest.mark.parametrize("distance", [0.01, 1.0, 30.0])
def test_a_warm_start_that_is_of_no_use_costs_little(n: int, distance: float) -> None:
    """Points move by a fifth of a blur, or so far that what they started from means nothing."""
    x, y = cloud(n, 2, 0), cloud(n, 2, 1)
    before = sinkhorn_divergence(x, y, blur=0.05, return_solution=True)
    moved = x + distance * cloud(n, 2, 2)
    cold = sinkhorn_divergence(moved, y, blur=0.05, return_solution=True)
    warm = sinkhorn_divergence(moved, y, blur=0.05, init=before, return_solution=True)
    assert warm.converged
    assert warm.pairs < 1.25 * cold.pairs
    assert abs(warm.value - cold.value) < 2e-2 * 0.05**2 + 1e-9 * abs(cold.value)
