"""The Triton kernel of sliced transport under Triton's interpreter, against torch.sort in float64.

test_triton.py runs this file with TRITON_INTERPRET=1, which Triton reads when it is imported.
"""

from __future__ import annotations

import os

import pytest
import torch
from torch import Tensor

from otcore import sliced_triton
from otcore.sliced_operators import Options, by_triton
from otcore.sliced_triton import triton_slices
from tests.problems import cloud

assert os.environ.get("TRITON_INTERPRET") == "1"


def sorted_in_float64(x: Tensor, y: Tensor, projections: Tensor, p: float) -> tuple[Tensor, Tensor, Tensor]:
    points = [t.double().requires_grad_() for t in (x, y)]
    lines = [(t @ projections.double()).mT.sort(-1).values for t in points]
    costs = (lines[0] - lines[1]).abs().pow(p).mean(-1)
    return costs.detach(), *torch.autograd.grad(costs.mean(-1).sum(), points)


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3.0])
@pytest.mark.parametrize(
    ("items", "n", "d", "count"), [(1, 1, 1, 1), (2, 5, 2, 3), (1, 33, 3, 7), (3, 64, 5, 2), (1, 300, 17, 4)]
)
def test_costs_and_gradients(items: int, n: int, d: int, count: int, p: float) -> None:
    x, y = cloud(n, d, 1, batch=items).float(), cloud(n, d, 2, batch=items).float() + 0.2
    projections = torch.nn.functional.normalize(cloud(d, count, 3).float() - 0.5, dim=0)
    costs, *gradients = triton_slices(x, y, projections, p, need_x=True, need_y=True)
    exact, *slopes = sorted_in_float64(x, y, projections, p)
    # Rounding of a projection is d last places of it; costs take p of them, slopes p - 1.
    rounding = (d + 4) * torch.finfo(torch.float32).eps * 8
    torch.testing.assert_close(costs.double(), exact, rtol=rounding * p, atol=rounding)
    for gradient, slope in zip(gradients, slopes, strict=True):
        assert gradient is not None
        torch.testing.assert_close(gradient.double() * n, slope * n, rtol=rounding * p, atol=rounding * p)


def test_only_what_is_needed() -> None:
    x, y, projections = cloud(9, 2, 1, batch=1).float(), cloud(9, 2, 2, batch=1).float(), torch.eye(2)
    both = triton_slices(x, y, projections, 2.0, need_x=True, need_y=True)
    costs, g_x, g_y = triton_slices(x, y, projections, 2.0, need_x=False, need_y=True)
    assert g_x is None
    assert torch.equal(costs, both[0])
    assert torch.equal(g_y, both[2])


def test_blocks_of_directions_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = cloud(20, 3, 1, batch=2).float(), cloud(20, 3, 2, batch=2).float()
    projections = cloud(3, 10, 3).float()
    whole = triton_slices(x, y, projections, 2.0, need_x=True, need_y=True)
    monkeypatch.setattr(sliced_triton, "_BLOCK_ENTRIES", 2 * 20 * 3)
    parts = triton_slices(x, y, projections, 2.0, need_x=True, need_y=True)
    assert torch.equal(parts[0], whole[0])
    for one, other in zip(parts[1:], whole[1:], strict=True):
        torch.testing.assert_close(one, other)


def test_ties_signs_and_zeros() -> None:
    """Equal positions, both zeros, negative numbers and denormal ones are sorted as torch sorts them."""
    values = torch.tensor([0.0, -0.0, 1e-40, -1e-40, 3.0, -3.0, 3.0, 1e30, -1e30, 0.5, 0.5, -0.5])
    x, y = values[None, :, None], values.flip(0)[None, :, None].clone()
    costs, g_x, g_y = triton_slices(x, y, torch.ones(1, 1), 2.0, need_x=True, need_y=True)
    assert costs.item() == 0
    assert not g_x.any()
    assert not g_y.any()


@pytest.mark.parametrize("root", [True, False])
@pytest.mark.parametrize("batch", [None, 2])
def test_the_operator_returns_what_the_compiled_one_does(batch: int | None, root: bool) -> None:
    x, y = cloud(40, 3, 1, batch=batch).float(), cloud(40, 3, 2, batch=batch).float()
    projections = torch.nn.functional.normalize(cloud(3, 6, 3).float() - 0.5, dim=0)
    x, y = (t.clone() for t in (x, y))
    if batch:
        y[1] = x[1]  # of value 0, whose gradient is 0
    options = Options(2.0, root, False, False, (), (), True, True)
    weights = [t.new_full(t.shape[:-1], 1 / 40) for t in (x, y)]
    compiled = torch.ops.otcore.sliced(x, y, *weights, projections, *options)
    for got, want in zip(by_triton(x, y, projections, options), compiled, strict=True):
        torch.testing.assert_close(got, want)
