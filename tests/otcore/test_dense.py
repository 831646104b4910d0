"""The oracle's verbs against their definitions, written as sums; other backends against the oracle."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from otcore.backends import Backend, load
from otcore.backends.dense import Dense, cost_matrix
from tests.problems import cloud, weights
from tests.tolerance import assert_as_accurate, rounding

X, Y = cloud(9, 3, 0, batch=2), cloud(7, 3, 1, batch=2)
A, B = weights(9, 2, batch=2), weights(7, 3, batch=2)
F, G = cloud(9, 1, 4, batch=2).squeeze(-1) / 5, cloud(7, 1, 5, batch=2).squeeze(-1) / 5
V = cloud(7, 4, 6, batch=2)
EPS = 0.2


def exponentials(cost: int) -> Tensor:
    distance = (X.unsqueeze(2) - Y.unsqueeze(1)).square().sum(-1)
    c = distance / 2 if cost == 2 else distance.sqrt()
    return torch.exp((F.unsqueeze(2) + G.unsqueeze(1) - c) / EPS)


def definitions(cost: int) -> dict[str, Tensor]:
    e = exponentials(cost)
    plan = A.unsqueeze(2) * B.unsqueeze(1) * e
    difference = X.unsqueeze(2) - Y.unsqueeze(1)
    slope = difference if cost == 2 else difference / difference.norm(dim=-1, keepdim=True)
    gradient = (plan.unsqueeze(-1) * slope).sum(2)
    r = (B.unsqueeze(1) * e).sum(2)
    return {
        "softmin": F - EPS * r.log(),
        "log_r": r.log(),
        "log_c": (A.unsqueeze(2) * e).sum(1).log(),
        "apply": plan @ V,
        "grad": gradient,
        "mean": gradient / (A * r).unsqueeze(-1),
    }


def verbs(backend: Backend, cost: int, dtype: torch.dtype) -> dict[str, Tensor]:
    x, y, f, g, a, b, v = (t.to(dtype) for t in (X, Y, F, G, A, B, V))
    log_r, log_c = backend.sweep(x, y, f, g, a, b, cost=cost, eps=EPS)
    return {
        "softmin": backend.softmin(x, y, g, b, cost=cost, eps=EPS),
        "log_r": log_r,
        "log_c": log_c,
        "apply": backend.apply(x, y, f, g, a, b, v, cost=cost, eps=EPS),
        "grad": backend.grad(x, y, f, g, a, b, cost=cost, eps=EPS),
        "mean": backend.grad(x, y, f, g, a, b, cost=cost, eps=EPS, normalise=True),
    }


@pytest.mark.parametrize("cost", [1, 2])
def test_verbs(cost: int, backend: str) -> None:
    loaded = load(backend)
    assert not isinstance(loaded, str)
    for dtype in (torch.float64, torch.float32):
        got, torch_result = verbs(loaded, cost, dtype), verbs(Dense(), cost, dtype)
        for name, reference in definitions(cost).items():
            assert got[name].dtype == dtype
            assert_as_accurate(got[name], torch_result[name], reference)


def test_one_temperature_an_item() -> None:
    dense = Dense()
    eps = torch.tensor([0.2, 0.7], dtype=torch.float64)
    together = dense.softmin(X, Y, G, B, cost=2, eps=eps), *dense.sweep(X, Y, F, G, A, B, cost=2, eps=eps)
    for i in range(2):
        one = slice(i, i + 1)
        x, y, f, g, a, b = (t[one] for t in (X, Y, F, G, A, B))
        alone = (
            dense.softmin(x, y, g, b, cost=2, eps=float(eps[i])),
            *dense.sweep(x, y, f, g, a, b, cost=2, eps=float(eps[i])),
        )
        for got, want in zip(together, alone, strict=True):
            torch.testing.assert_close(got[one], want, rtol=0, atol=rounding(torch.float64))


def test_same_cloud(backend: str) -> None:
    loaded = load(backend)
    assert not isinstance(loaded, str)
    for cost in (1, 2):
        log_r, log_c = loaded.sweep(X, X, F, F, A, A, cost=cost, eps=EPS, same=True)
        want = Dense().sweep(X, X, F, F, A, A, cost=cost, eps=EPS)[0]
        torch.testing.assert_close(log_r, want, rtol=0, atol=rounding(torch.float64))
        torch.testing.assert_close(log_c, want, rtol=0, atol=rounding(torch.float64))


def test_sweep_is_finite_far_out_of_range(backend: str) -> None:
    loaded = load(backend)
    assert not isinstance(loaded, str)
    for dtype in (torch.float32, torch.float64):
        inputs = [t.to(dtype) for t in (100 * X, 100 * Y, F, G, A, B)]
        exact = Dense().sweep(*(t.double() for t in inputs), cost=2, eps=1e-2)
        for got, dense, reference in zip(
            *(v.sweep(*inputs, cost=2, eps=1e-2) for v in (loaded, Dense())), exact, strict=True
        ):
            assert bool(got.isfinite().all())
            assert_as_accurate(got, dense, reference)


def test_kink_has_no_gradient(backend: str) -> None:
    """At x = y the cost |x - y| has a kink; its gradient counts as 0, and below GeomLoss's floor too."""
    loaded = load(backend)
    assert not isinstance(loaded, str)
    x = torch.tensor([[[0.0, 0.0], [1.0, 0.0]]], dtype=torch.float64)
    y = torch.tensor([[[0.0, 0.0]]], dtype=torch.float64)
    zeros = torch.zeros(1, 2, dtype=torch.float64)
    ones = torch.ones_like(zeros)
    want = torch.tensor([[[0.0, 0.0], [1.0, 0.0]]], dtype=torch.float64)
    for floor in ({}, {"floor": 1e-8}):
        got = loaded.grad(
            x, y, zeros, zeros[:, :1], ones, ones[:, :1], cost=1, eps=1.0, normalise=True, **floor
        )
        torch.testing.assert_close(got, want, rtol=0, atol=rounding(torch.float64))
    near = cost_matrix(x[:, :1], y, 1, 1e-8)
    assert near.item() == pytest.approx(1e-4)


def test_zero_weights(backend: str) -> None:
    """Rows of weight zero keep a mean gradient and finite sums."""
    loaded = load(backend)
    assert not isinstance(loaded, str)
    a, b = A.clone(), B.clone()
    a[:, 3] = 0.0
    b[:, 2] = 0.0
    log_r, log_c = loaded.sweep(X, Y, F, G, a, b, cost=2, eps=EPS)
    assert bool(log_r.isfinite().all())
    assert bool(log_c.isfinite().all())
    mean = loaded.grad(X, Y, F, G, a, b, cost=2, eps=EPS, normalise=True)
    want = Dense().grad(X, Y, F, G, A, b, cost=2, eps=EPS, normalise=True)
    torch.testing.assert_close(mean, want, rtol=0, atol=rounding(torch.float64))
