"""The converged solver against closed forms, duality and its own contract."""

from __future__ import annotations

import dataclasses
import math
import warnings

import pytest
import torch

import otcore
from otcore.backends import load
from otcore.problem import make_problem
from otcore.solver import anneal, follow
from tests.problems import Example, cloud, examples, uniform, weights
from tests.tolerance import SOLVE_TOL, assert_solved, rounding, without_constant

EXAMPLES = examples()
UNBALANCED = [None, 0.6, (0.6, None), (None, 0.8), (0.5, 0.9)]


def solve(example: Example, backend: str, dtype: torch.dtype, debias: bool) -> otcore.Solution:
    example = example.to(dtype)
    return otcore.sinkhorn_divergence(
        example.x,
        example.y,
        example.a,
        example.b,
        **example.options,
        debias=debias,
        tol=SOLVE_TOL[dtype],
        backend=backend,
        return_solution=True,
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda e: e.name)
def test_closed_forms(example: Example, backend: str, dtype: torch.dtype) -> None:
    solution = solve(example, backend, dtype, debias=True)
    assert solution.converged
    assert solution.status is otcore.Status.CONVERGED
    assert_solved(solution.value, example.divergence, dtype)
    if example.transport is not None:
        assert_solved(solve(example, backend, dtype, debias=False).value, example.transport, dtype)


@pytest.mark.parametrize("example", [e for e in EXAMPLES if e.gradient is not None], ids=lambda e: e.name)
def test_closed_form_gradients(example: Example, backend: str) -> None:
    x = example.x.clone().requires_grad_()
    value = otcore.sinkhorn_divergence(
        x, example.y, example.a, example.b, **example.options, tol=1e-12, backend=backend
    )
    value.backward()
    assert_solved(x.grad, example.gradient)


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("reach", UNBALANCED, ids=str)
def test_primal_dual_gap(reach, p: int, backend: str) -> None:
    """The dual value equals the primal cost of its own plan."""
    x, y = cloud(20, 2, 0), cloud(15, 2, 1)
    a = weights(20, 2)
    b = weights(15, 3, mass=1.0 if reach is None else 1.4)
    solution = otcore.sinkhorn(x, y, a, b, p=p, blur=0.3, reach=reach, tol=1e-12, backend=backend)
    plan = solution.plan()
    distance = torch.cdist(x, y)
    cost = distance if p == 1 else distance.square() / 2
    primal = (plan * cost).sum() + solution.eps * _divergence(plan, a.outer(b))
    reaches = reach if isinstance(reach, tuple) else (reach, reach)
    for marginal, target, length in ((plan.sum(1), a, reaches[0]), (plan.sum(0), b, reaches[1])):
        if length is None:
            torch.testing.assert_close(marginal, target, rtol=1e-10, atol=1e-12)
        else:
            primal = primal + length**p * _divergence(marginal, target)
    assert_solved(solution.value, primal)


def _divergence(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """Kullback-Leibler, of positive measures."""
    return (torch.special.xlogy(p, p / q) - p + q).sum()


@pytest.mark.parametrize("reach", UNBALANCED, ids=str)
def test_batch_equals_loop(reach, backend: str) -> None:
    x, y = cloud(12, 2, 0, batch=3), cloud(9, 2, 1, batch=3)
    x[1] *= 20.0
    a, b = weights(12, 2, batch=3), weights(9, 3, batch=3)
    options = {"blur": 0.3, "reach": reach, "tol": 1e-9, "backend": backend, "return_solution": True}
    together = otcore.sinkhorn_divergence(x, y, a, b, **options)
    for i in range(3):
        alone = otcore.sinkhorn_divergence(x[i], y[i], a[i], b[i], **options)
        assert_solved(together.value[i], alone.value.item())
        assert together.n_iter[i] == alone.n_iter
        assert_solved(without_constant(together.f[i], a[i]), without_constant(alone.f, a[i]))


def test_backends_agree(backend: str) -> None:
    x, y = cloud(40, 3, 0), cloud(30, 3, 1)
    a, b = weights(40, 2), weights(30, 3)
    for p in (1, 2):
        got, want = (
            otcore.sinkhorn_divergence(
                x, y, a, b, p=p, blur=0.1, tol=1e-10, backend=name, return_solution=True
            )
            for name in (backend, "dense")
        )
        assert_solved(got.value, want.value.item())
        for name in ("f", "g", "f_xx", "g_yy"):
            assert_solved(getattr(got, name), getattr(want, name))


def test_gauge(backend: str) -> None:
    x, y = cloud(12, 2, 0), cloud(9, 2, 1)
    a, b = weights(12, 2), weights(9, 3)
    solution = otcore.sinkhorn(x, y, a, b, backend=backend, tol=1e-6)
    assert abs(float(a @ solution.f - b @ solution.g)) < rounding(torch.float64)


def test_repeatable(backend: str) -> None:
    x, y = cloud(60, 3, 0).float(), cloud(50, 3, 1).float()
    first, second = (
        otcore.sinkhorn_divergence(x, y, backend=backend, return_solution=True) for _ in range(2)
    )
    for name in ("value", "f", "g", "f_xx", "g_yy"):
        assert torch.equal(getattr(first, name), getattr(second, name))


def test_mass_has_no_unit(backend: str) -> None:
    """Scaling both masses scales nothing that tells convergence."""
    x, y = cloud(20, 2, 0), cloud(15, 2, 1)
    one, thousandth = (
        otcore.sinkhorn(x, y, m * uniform(x), m * uniform(y), blur=0.1, tol=1e-6, backend=backend)
        for m in (1.0, 1e-3)
    )
    assert one.n_iter == thousandth.n_iter
    assert one.converged
    assert thousandth.converged


@pytest.mark.parametrize("debias", [True, False])
def test_warm_start(debias: bool, backend: str) -> None:
    x, y = cloud(40, 2, 0), cloud(40, 2, 1)
    options = {"debias": debias, "tol": 1e-4, "backend": backend, "return_solution": True}
    cold = otcore.sinkhorn_divergence(x, y, **options)
    again = otcore.sinkhorn_divergence(x, y, init=cold, **options)
    assert again.n_iter == 1
    stored = otcore.Potentials(cold.f, cold.g, cold.f_xx, cold.g_yy)
    assert torch.equal(otcore.sinkhorn_divergence(x, y, init=stored, **options).value, again.value)
    moved = otcore.sinkhorn_divergence(x + 1e-3, y, init=cold, **options)
    assert moved.converged
    assert moved.n_iter < cold.n_iter


def test_max_iter_warns(backend: str) -> None:
    x, y = cloud(40, 2, 0), cloud(40, 2, 1)
    with pytest.warns(otcore.ConvergenceWarning, match="raise max_iter, tol or blur"):
        solution = otcore.sinkhorn_divergence(
            x, y, blur=0.01, tol=1e-9, max_iter=3, backend=backend, return_solution=True
        )
    assert solution.status is otcore.Status.MAX_ITER
    assert not solution.converged
    assert solution.marginal_error > 1e-9


def test_reported_error_is_that_of_the_plan(backend: str) -> None:
    x, y = cloud(30, 2, 0), cloud(20, 2, 1)
    solution = otcore.sinkhorn(x, y, blur=0.1, tol=0.05, backend=backend)
    plan = solution.plan()
    error = (plan.sum(1) - 1 / 30).abs().sum() + (plan.sum(0) - 1 / 20).abs().sum()
    assert_solved(error, solution.marginal_error)
    assert 0 < solution.marginal_error <= 0.05


EDGES = {
    "identical": (cloud(9, 2, 0), cloud(9, 2, 0), 0.0),
    "one point each": (torch.zeros(1, 3).double(), torch.ones(1, 3).double(), 1.5),
    "one point, same": (torch.ones(1, 3).double(), torch.ones(1, 3).double(), 0.0),
    "zero diameter": (torch.ones(4, 2).double(), torch.ones(6, 2).double(), 0.0),
    "repeated points": (torch.zeros(4, 2).double(), torch.ones(6, 2).double(), 1.0),
    "no coordinates": (torch.zeros(4, 0).double(), torch.zeros(3, 0).double(), 0.0),
    "one against many": (torch.zeros(1, 1).double(), torch.tensor([[-1.0], [1.0]]).double(), None),
    "far": (cloud(5, 2, 0), cloud(5, 2, 0) + 1e3, 1e6),
}


@pytest.mark.parametrize("name", EDGES)
def test_edges(name: str, backend: str) -> None:
    x, y, value = EDGES[name]
    x = x.clone().requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = otcore.sinkhorn_divergence(x, y, blur=0.3, tol=1e-9, backend=backend)
    got.backward()
    assert bool(got.isfinite())
    assert bool(x.grad.isfinite().all())
    if value is not None:
        assert_solved(got, value)


def test_zero_weights_are_absent_points(backend: str) -> None:
    x, y = cloud(10, 2, 0), cloud(8, 2, 1)
    a, b = weights(8, 2), weights(8, 3)
    padded = torch.cat([a, torch.zeros(2, dtype=a.dtype)])
    for reach in (None, 0.5):
        options = {"blur": 0.2, "reach": reach, "tol": 1e-11, "backend": backend}
        want = otcore.sinkhorn_divergence(x[:8], y, a, b, **options)
        q = x.clone().requires_grad_()
        got = otcore.sinkhorn_divergence(q, y, padded, b, **options)
        got.backward()
        assert_solved(got, want.item())
        assert torch.equal(q.grad[8:], torch.zeros_like(q.grad[8:]))


@pytest.mark.parametrize("debias", [True, False])
@pytest.mark.parametrize("reach", [None, (0.5, 0.8)], ids=str)
@pytest.mark.parametrize("p", [1, 2])
def test_loops_agree_with_the_python_ones(p: int, reach, debias: bool, backend: str) -> None:
    x, y = cloud(30, 2, 0, batch=2), cloud(20, 2, 1, batch=2)
    problem = make_problem(x, y, p=p, blur=0.1, reach=reach, tol=1e-10, debias=debias)
    got, want = (anneal(load(name), problem) for name in (backend, "dense"))
    assert_solved(got.value, want.value)
    for mine, reference in zip(got.potentials, want.potentials, strict=True):
        assert (mine is None) == (reference is None) == (not debias and reference is None)
        if mine is not None:
            assert_solved(mine, reference)
    eps_list = [1.0**p, 0.5**p, 0.2**p, 0.1**p]
    pairs = (follow(load(name), problem, eps_list) for name in (backend, "dense"))
    for mine, reference in zip(*pairs, strict=True):
        for got_potential, potential in zip(mine, reference, strict=True):
            if potential is not None:
                assert_solved(got_potential, potential)


def test_eps_and_blur_say_the_same() -> None:
    x, y = cloud(9, 2, 0), cloud(8, 2, 1)
    for p in (1, 2):
        values = [otcore.sinkhorn_divergence(x, y, p=p, **kw) for kw in ({"blur": 0.25}, {"eps": 0.25**p})]
        assert_solved(values[0], values[1].item())


def test_semi_unbalanced_is_positive_but_not_zero() -> None:
    x = cloud(12, 2, 0)
    value = otcore.sinkhorn_divergence(x, x.clone(), reach=(0.3, None), blur=0.2, tol=1e-10)
    assert float(value) > 0


def test_problem_is_frozen() -> None:
    problem = make_problem(cloud(3, 2, 0), cloud(3, 2, 1))
    with pytest.raises(dataclasses.FrozenInstanceError):
        problem.eps = 1.0  # type: ignore[misc]
    assert problem.rho == (math.inf, math.inf)
