"""What is special to many points: progress, counted pairs, kept orders."""

from __future__ import annotations

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
