"""The Triton verbs on a GPU: what check_verbs.py checks under the interpreter, at real sizes, and more."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from otcore import sinkhorn_divergence
from otcore.backends.triton import Triton
from tests.kernels import triton_cases as cases
from tests.problems import cloud
from tests.tolerance import assert_solved

pytest.importorskip("triton", reason="triton is not installed: pip install triton")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA GPU"),
]

LARGE = [
    cases.Draw(1000, 1300, 16, 2, torch.float32, 0.2, "split"),
    cases.Draw(1300, 1000, 64, 2, torch.float32, 0.5, "split"),
    cases.Draw(500, 700, 1000, 2, torch.float32, 2.0, "split", batch=1),
    cases.Draw(1000, 1300, 64, 2, torch.bfloat16, 0.5, "raw"),
    cases.Draw(500, 600, 64, 2, torch.float64, 0.5, "wide"),
    cases.Draw(500, 600, 64, 1, torch.float32, 0.2, "differences"),
]


@pytest.mark.parametrize("draw", cases.DRAWS + LARGE, ids=str)
def test_verbs(draw: cases.Draw) -> None:
    cases.check(draw, "cuda")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_sums_out_of_range(dtype: torch.dtype) -> None:
    cases.check_out_of_range(dtype, "cuda")


def test_one_temperature_an_item() -> None:
    cases.check_temperatures("cuda")


def test_partial_sums() -> None:
    cases.check_partial_sums("cuda")


def test_near_points() -> None:
    cases.check_near_points("cuda")


@pytest.mark.parametrize("same", [False, True])
def test_same_bits_every_time(same: bool) -> None:
    clouds = cases.drawn(cases.Draw(3000, 4000, 64, 2, torch.float32, 0.5, "split"), "cuda")
    arguments = clouds.own if same else tuple(clouds)
    first = Triton().sweep(*arguments, cost=2, eps=0.25, same=same)
    for _ in range(5):
        for one, other in zip(first, Triton().sweep(*arguments, cost=2, eps=0.25, same=same), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("options", [{"blur": 0.3}, {"p": 1, "blur": 0.3, "reach": 1.0}], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_whole_solve(options: dict[str, Any], dtype: torch.dtype) -> None:
    solved = {}
    for name in ("triton", "dense"):
        x, y = (cloud(n, 40, n, batch=2).to("cuda", dtype).requires_grad_() for n in (200, 250))
        value = sinkhorn_divergence(x, y, tol=1e-4, backend=name, **options)
        solved[name] = [value, *torch.autograd.grad(value.sum(), (x, y))]
    for got, expected in zip(solved["triton"], solved["dense"], strict=True):
        assert_solved(got, expected, torch.float32)


def test_cuda_tensors_of_more_dimensions_go_to_triton() -> None:
    x, y = torch.rand(50, 40, device="cuda"), torch.rand(60, 40, device="cuda")
    assert sinkhorn_divergence(x, y, return_solution=True).backend == "triton"
