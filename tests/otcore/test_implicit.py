"""Second derivatives: their blocks of rows, and what happens when conjugate gradients do not converge.

That they are right is checked by `gradgradcheck` in test_autograd.py.
"""

from __future__ import annotations

import pytest
import torch

import otcore
from otcore import implicit
from tests.problems import cloud
from tests.tolerance import assert_solved


def hessian_product(p: int = 2, reach: float | None = None) -> torch.Tensor:
    x, y = cloud(12, 2, 0).requires_grad_(), cloud(9, 2, 1)
    value = otcore.sinkhorn_divergence(x, y, p=p, blur=0.3, reach=reach, tol=1e-12)
    (gradient,) = torch.autograd.grad(value, x, create_graph=True)
    (product,) = torch.autograd.grad((gradient * cloud(12, 2, 5)).sum(), x)
    return product


@pytest.mark.parametrize(("p", "reach"), [(1, None), (2, None), (2, 0.5)])
def test_blocks_of_rows_change_nothing(p: int, reach: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = hessian_product(p, reach)
    monkeypatch.setattr(implicit, "_MOST_COLUMNS", 0)
    monkeypatch.setattr(implicit, "_BLOCK_ENTRIES", 5 * 9 * 2)
    assert_solved(hessian_product(p, reach), whole)


@pytest.mark.parametrize("reach", [None, 0.5])
def test_products_with_moments_are_the_sums_over_pairs(
    reach: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = hessian_product(2, reach)
    monkeypatch.setattr(implicit, "_MOST_COLUMNS", 0)
    assert_solved(hessian_product(2, reach), fast)


def test_memory_is_linear() -> None:
    """A Hessian-vector product at 8,000 points, where a matrix takes 512 MB, needs less than 100 MB."""
    import resource

    x, y = cloud(8000, 2, 0).requires_grad_(), cloud(8000, 2, 1)
    value = otcore.sinkhorn_divergence(x, y, blur=0.3)
    (gradient,) = torch.autograd.grad(value, x, create_graph=True)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    torch.autograd.grad(gradient.square().sum(), x)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


def test_unconverged_conjugate_gradients_warn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(implicit, "_CG_MAX_ITER", 1)
    with pytest.warns(otcore.ConvergenceWarning, match="conjugate gradients stopped at a relative residual"):
        hessian_product()
