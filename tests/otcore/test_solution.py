"""Solution: the plan as an operator, its potentials at new points, and its shapes."""

from __future__ import annotations

import numpy
import pytest
import torch

import otcore
from otcore import solution as solution_module
from tests.problems import cloud, weights
from tests.tolerance import assert_solved

N, M = 9, 7
X, Y = cloud(N, 2, 0), cloud(M, 2, 1)
A, B = weights(N, 2), weights(M, 3)


def solved(backend: str = "auto", **options) -> otcore.Solution:
    return otcore.sinkhorn(X, Y, A, B, **{"blur": 0.2, "tol": 1e-11, "backend": backend, **options})


@pytest.mark.parametrize("reach", [None, (0.5, 0.8)], ids=str)
@pytest.mark.parametrize("p", [1, 2])
def test_plan_and_its_products(p: int, reach, backend: str) -> None:
    s = solved(backend, p=p, reach=reach)
    distance = torch.cdist(X, Y)
    cost = distance if p == 1 else distance.square() / 2
    plan = A[:, None] * B * torch.exp((s.f[:, None] + s.g - cost) / s.eps)
    assert_solved(s.plan(), plan)
    v, w = cloud(M, 3, 4), cloud(N, 3, 5)
    assert_solved(s.apply(v), plan @ v)
    assert_solved(s.apply(v[:, 0]), plan @ v[:, 0])
    assert_solved(s.apply_transpose(w), plan.T @ w)
    assert_solved(s.apply_transpose(w[:, 0]), plan.T @ w[:, 0])
    for got, want in zip(s.marginals(), (plan.sum(1), plan.sum(0)), strict=True):
        assert_solved(got, want)
    assert_solved(s.transport(), plan @ Y / plan.sum(1, keepdim=True))
    # At convergence the extended potential and map agree with those at the points themselves.
    assert_solved(s.potential(X), s.f)
    assert_solved(s.transport(X), s.transport())


def test_batch_shapes() -> None:
    x, y = cloud(N, 2, 0, batch=3), cloud(M, 2, 1, batch=3)
    s = otcore.sinkhorn_divergence(x, y, return_solution=True)
    assert (
        s.value.shape
        == s.status.shape
        == s.converged.shape
        == s.n_iter.shape
        == s.marginal_error.shape
        == (3,)
    )
    assert s.f.shape == s.f_xx.shape == (3, N)
    assert s.g.shape == s.g_yy.shape == (3, M)
    assert s.plan().shape == (3, N, M)
    assert s.apply(torch.ones(3, M)).shape == (3, N)
    assert s.apply(torch.ones(3, M, 4)).shape == (3, N, 4)
    assert s.transport().shape == (3, N, 2)
    assert s.potential(cloud(5, 2, 2, batch=3)).shape == (3, 5)


def test_shapes_without_a_batch() -> None:
    s = solved()
    assert s.value.shape == ()
    assert s.f.shape == (N,)
    assert s.f_xx is None
    assert s.g_yy is None
    assert isinstance(s.n_iter, int)
    assert isinstance(s.marginal_error, float)
    assert s.converged is True
    assert s.backend in ("cpu", "dense")
    assert s.eps == pytest.approx(0.04)


def test_no_grad_gives_a_detached_solution() -> None:
    x = X.clone().requires_grad_()
    with torch.no_grad():
        s = otcore.sinkhorn_divergence(x, Y, return_solution=True)
    parts = (s.value, s.f, s.g, s.f_xx, s.g_yy, s.plan(), s.transport(), s.apply(B))
    assert not any(t.requires_grad for t in parts[:5])


@pytest.mark.parametrize("reach", [None, 0.5])
def test_bounds_in_the_form_of_the_clouds(reach) -> None:
    """That they hold is checked in test_bounds.py."""
    options = {"blur": 0.2, "tol": 1e-3, "reach": reach, "return_solution": True}
    one = otcore.sinkhorn_divergence(X, Y, A, B, **options)
    single = one.bounds()
    assert single.lower.shape == ()
    assert single.lower <= single.upper
    assert single.cost_lower <= single.cost_upper
    for form in (lambda t: t.expand(2, *t.shape), lambda t: [t, t]):
        both = otcore.sinkhorn_divergence(*(form(t) for t in (X, Y, A, B)), **options).bounds()
        for got, want in zip(both, single, strict=True):
            torch.testing.assert_close(got, want.expand(2))
    found = otcore.sinkhorn_divergence(*(t.numpy() for t in (X, Y, A, B)), **options).bounds()
    assert float(found.upper) == pytest.approx(float(single.upper))


def test_numpy() -> None:
    s = otcore.sinkhorn(X.numpy(), Y.numpy())
    for array in (s.value, s.f, s.plan(), s.apply(numpy.ones(M)), s.transport(X.numpy()), *s.marginals()):
        assert isinstance(array, (numpy.ndarray, numpy.floating))


def test_plan_refuses_to_be_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solution_module, "LARGEST_PLAN", N * M - 1)
    with pytest.raises(ValueError, match=r"63 entries, more than 62; use apply\(v\)"):
        solved().plan()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.apply(torch.ones(N)), r"v has shape \(9,\); use \(7,\) or \(7, K\)"),
        (lambda s: s.apply_transpose(torch.ones(M, 2)), r"v has shape \(7, 2\); use \(9,\) or \(9, K\)"),
        (lambda s: s.potential(torch.ones(4, 3)), r"points has shape \(4, 3\); use \(K, 2\)"),
        (lambda s: s.transport(torch.ones(4)), r"points has shape \(4,\); use \(K, 2\)"),
    ],
)
def test_bad_shapes(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(solved())


def test_every_status_says_what_to_do() -> None:
    assert all(status.text for status in otcore.Status)


def test_sinkhorn_is_not_debiased() -> None:
    with pytest.raises(ValueError, match="debias is not an argument of sinkhorn; use sinkhorn_divergence"):
        otcore.sinkhorn(X, Y, debias=True)
