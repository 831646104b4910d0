"""What must hold between the values of related problems, whatever they are."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.conformance.solved import BACKENDS, TOL, Drawn, allowed, drawn, solve
from tests.problems import cloud, weights

few = settings(max_examples=40)
debiased = st.booleans()


def rotation(d: int, seed: int) -> Tensor:
    q, _ = torch.linalg.qr(
        torch.randn(d, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    )
    return q


def equal_masses(problem: Drawn) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x, y, a, b = problem.clouds()
    return x, y, a, (b.double() / b.double().sum()).to(b.dtype)


@few
@given(problem=drawn(), debias=debiased)
def test_symmetry(problem: Drawn, debias: bool) -> None:
    x, y, a, b = problem.clouds()
    reach = problem.reach[::-1] if isinstance(problem.reach, tuple) else problem.reach
    there = solve(x, y, a, b, **problem.options, debias=debias)
    back = solve(y, x, b, a, **{**problem.options, "reach": reach}, debias=debias)
    problem.close(there, back)


@few
@given(problem=drawn(reaches=(None, 0.5)))
def test_nothing_between_a_cloud_and_itself(problem: Drawn) -> None:
    x, _, a, _ = problem.clouds()
    problem.close(solve(x, x.clone(), a, a.clone(), **problem.options), 0.0)


@few
@given(problem=drawn())
def test_positive(problem: Drawn) -> None:
    value = solve(*problem.clouds(), **problem.options)
    assert float(value) >= -allowed(*problem.clouds()[:2], problem.p, problem.eps, 1.5)


@few
@given(problem=drawn(), debias=debiased)
def test_rigid_motion(problem: Drawn, debias: bool) -> None:
    x, y, a, b = problem.clouds()
    turn, shift = rotation(problem.d, problem.seed), 2.0 * cloud(1, problem.d, problem.seed + 9)
    moved = tuple((t.double() @ turn + shift).to(t.dtype) for t in (x, y))
    value = solve(x, y, a, b, **problem.options, debias=debias)
    problem.close(solve(*moved, a, b, **problem.options, debias=debias), value, scale=4.0)


@few
@given(problem=drawn(), debias=debiased)
def test_order_of_points(problem: Drawn, debias: bool) -> None:
    x, y, a, b = problem.clouds()
    draw = torch.Generator().manual_seed(problem.seed)
    i, j = torch.randperm(problem.n, generator=draw), torch.randperm(problem.m, generator=draw)
    value = solve(x, y, a, b, **problem.options, debias=debias)
    problem.close(solve(x[i], y[j], a[i], b[j], **problem.options, debias=debias), value)


@few
@given(problem=drawn(), debias=debiased, scale=st.sampled_from([1e-3, 0.25, 40.0]))
def test_unit_of_length(problem: Drawn, debias: bool, scale: float) -> None:
    """x, y, blur and reach times s: the value times s^p."""
    x, y, a, b = problem.clouds()
    reach: Any = problem.reach
    if isinstance(reach, tuple):
        reach = tuple(None if r is None else scale * r for r in reach)
    elif reach is not None:
        reach = scale * reach
    options = {**problem.options, "blur": scale * problem.blur, "reach": reach}
    value = solve(x, y, a, b, **problem.options, debias=debias)
    problem.close(solve(scale * x, scale * y, a, b, **options, debias=debias) / scale**problem.p, value)


@few
@given(problem=drawn(reaches=(None,)), t=st.sampled_from([1e-3, 0.5, 7.0]))
def test_unit_of_mass(problem: Drawn, t: float) -> None:
    """S(t a, t b) = t S(a, b); without self-terms KL(pi | a b) adds eps (t^2 - t - t log t)."""
    x, y, a, b = equal_masses(problem)
    for debias in (True, False):
        value = t * solve(x, y, a, b, **problem.options, debias=debias)
        extra = 0.0 if debias else problem.eps * (t**2 - t - t * math.log(t))
        scaled = solve(x, y, t * a, t * b, **problem.options, debias=debias)
        # Masses are rounded, and the value depends on them by t eps.
        limit = 2 * allowed(x, y, problem.p, problem.eps, max(t, 1.0))
        assert float(scaled) == pytest.approx(float(value) + extra, abs=limit)


@few
@given(problem=drawn(reaches=(None,)))
def test_grows_with_reach_and_blur(problem: Drawn) -> None:
    """Both only weigh divergences from the marginals and the product, which are not negative."""
    x, y, a, b = equal_masses(problem)
    slack = 2 * allowed(x, y, problem.p, problem.eps)
    by_reach = [
        float(solve(x, y, a, b, **{**problem.options, "reach": reach}, debias=False))
        for reach in (0.1, 0.5, (0.5, 2.0), (0.5, None), None)
    ]
    assert all(low <= high + slack for low, high in pairwise(by_reach))
    by_blur = [
        float(solve(x, y, a, b, **{**problem.options, "blur": factor * problem.blur}, debias=False))
        for factor in (1.0, 1.5, 4.0)
    ]
    assert all(
        low <= high + 2 * allowed(x, y, problem.p, (4 * problem.blur) ** problem.p)
        for low, high in pairwise(by_blur)
    )


@few
@given(problem=drawn(), debias=debiased, share=st.sampled_from([0.5, 0.1]))
def test_splitting_a_point(problem: Drawn, debias: bool, share: float) -> None:
    x, y, a, b = problem.clouds()
    split_a, split_b = torch.cat([a, share * a[:1]]), torch.cat([b, share * b[-1:]])
    split_a[0] = a[0] - split_a[-1]
    split_b[problem.m - 1] = b[-1] - split_b[-1]
    value = solve(x, y, a, b, **problem.options, debias=debias)
    got = solve(
        torch.cat([x, x[:1]]), torch.cat([y, y[-1:]]), split_a, split_b, **problem.options, debias=debias
    )
    problem.close(got, value)


@few
@given(problem=drawn(), debias=debiased, far=st.sampled_from([0.0, 1.0, 30.0]))
def test_points_of_no_weight(problem: Drawn, debias: bool, far: float) -> None:
    x, y, a, b = problem.clouds()
    extra = (cloud(3, problem.d, problem.seed + 5) + far).to(x.dtype)
    none = torch.zeros(3, dtype=x.dtype)
    value = solve(x, y, a, b, **problem.options, debias=debias)
    got = solve(
        torch.cat([extra, x]), torch.cat([y, extra]), torch.cat([none, a]), torch.cat([b, none]),
        **problem.options, debias=debias,
    )  # fmt: skip
    # In float32 the points' centre, and with it their rounding, has moved by `far` at most.
    problem.close(got, value, scale=1.0 + far)


@few
@given(problem=drawn(), debias=debiased)
def test_a_batch_is_its_items(problem: Drawn, debias: bool) -> None:
    x, y, a, b = (torch.stack([t, t, t]) for t in problem.clouds())
    x[1], y[1] = 3.0 * x[1], x.new_tensor(0.5) * y[1] - 1.0
    x[2] = x[2, :1]
    together = solve(x, y, a, b, **problem.options, debias=debias)
    alone = [solve(x[i], y[i], a[i], b[i], **problem.options, debias=debias) for i in range(3)]
    problem.close(together, torch.stack(alone), scale=3.0)


@settings(max_examples=15)
@given(seed=st.integers(0, 1000), reach=st.sampled_from([None, 0.5]), backend=st.sampled_from(BACKENDS))
def test_convex_in_the_weights(seed: int, reach: Any, backend: str) -> None:
    """Feydy et al., arXiv:1810.08278, theorem 1: the divergence is convex in each of its measures."""
    x, y, b = cloud(10, 2, seed), cloud(8, 2, seed + 1), weights(8, seed + 2)
    first, second = weights(10, seed + 3), weights(10, seed + 4).flip(0) ** 3
    second = second / second.sum()
    ends, middle = (
        [
            float(solve(x, y, a, b, blur=0.3, reach=reach, backend=backend))
            for a in (t * first + (1 - t) * second for t in ts)
        ]
        for ts in ((0.0, 1.0), (0.3, 0.7))
    )
    for t, value in zip((0.3, 0.7), middle, strict=True):
        assert value <= t * ends[1] + (1 - t) * ends[0] + 30 * TOL[torch.float64]
