"""Costs with a name: against the same cost as a function, densely, and against their definitions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import otcore
from tests.problems import cloud, weights

N, M, D = 20, 17, 3
TIGHT = {"blur": 0.4, "tol": 1e-13, "max_iter": 5000}


def sqeuclidean(x: Tensor, y: Tensor) -> Tensor:
    return torch.cdist(x, y).square()


def cosine(x: Tensor, y: Tensor) -> Tensor:
    return 1 - torch.nn.functional.cosine_similarity(x.unsqueeze(2), y.unsqueeze(1), dim=-1)


COSTS = {"sqeuclidean": sqeuclidean, "cosine": cosine}


def clouds() -> tuple[Tensor, ...]:
    x, y, a, b = cloud(N, D, 0) + 0.1, cloud(M, D, 1) - 0.5, weights(N, 2), weights(M, 3)
    return tuple(t.requires_grad_() for t in (x, y, a, b))


@pytest.mark.parametrize("reach", [None, 0.6])
@pytest.mark.parametrize("cost", COSTS)
def test_is_the_function(cost: str, reach: float | None, backend: str) -> None:
    results = []
    for given, where in ((cost, backend), (COSTS[cost], "dense")):
        inputs = clouds()
        s = otcore.sinkhorn_divergence(
            *inputs, cost=given, reach=reach, backend=where, return_solution=True, **TIGHT
        )
        gradients = torch.autograd.grad(s.value, inputs)
        parts = (s.f, s.g, s.f_xx, s.plan(), s.transport(), s.transport(cloud(5, D, 4) + 0.1))
        results.append((s.value, *parts, *gradients))
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-9)


def test_sqeuclidean_is_twice_the_default_at_twice_the_temperature() -> None:
    x, y, a, b = clouds()
    full = otcore.sinkhorn_divergence(x, y, a, b, cost="sqeuclidean", eps=0.3, tol=1e-12)
    half = otcore.sinkhorn_divergence(x, y, a, b, eps=0.15, tol=1e-12)
    torch.testing.assert_close(full, 2 * half, rtol=1e-9, atol=1e-12)


def test_second_derivatives_and_transforms() -> None:
    x, y, a, b = (t.detach() for t in clouds())

    def value(x: Tensor) -> Tensor:
        return otcore.sinkhorn_divergence(x, y, a, b, cost="cosine", **TIGHT)

    assert torch.autograd.gradgradcheck(value, x.clone().requires_grad_(), atol=1e-6)
    # The cosine cost sees directions only, so moving along x changes nothing.
    torch.testing.assert_close(
        torch.func.jvp(value, (x,), (x,))[1], torch.zeros((), dtype=x.dtype), atol=1e-12, rtol=0
    )


def test_half_precision() -> None:
    x, y = cloud(N, D, 0).half(), cloud(M, D, 1).half()
    value = otcore.sinkhorn_divergence(x, y, cost="cosine")
    assert value.dtype == torch.float32


def test_zero_vector_has_no_direction() -> None:
    x, y = cloud(N, D, 0), cloud(M, D, 1)
    x[3] = 0
    with pytest.raises(ValueError, match=r"x has the zero vector at \[3\]"):
        otcore.sinkhorn_divergence(x, y, cost="cosine")


@pytest.mark.parametrize("cost", ["euclid", "cos", 3, ""])
def test_unknown_names(cost: object) -> None:
    with pytest.raises(ValueError, match=r"cost is .*'sqeuclidean', 'cosine', a KeOps formula"):
        otcore.sinkhorn_divergence(cloud(4, 2, 0), cloud(3, 2, 1), cost=cost)


def test_exponent_of_a_named_cost() -> None:
    with pytest.raises(ValueError, match=r"p is 1 and cost is 'cosine'"):
        otcore.sinkhorn_divergence(cloud(4, 2, 0), cloud(3, 2, 1), cost="cosine", p=1)
