"""Answers on paper: Diracs, two points against two, sorted points on a line, shifted costs."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from otcore import sinkhorn
from tests.conformance.solved import BACKENDS, DTYPES, TOL, Drawn, allowed, drawn, solve
from tests.problems import INF, cloud, two_diracs, weights

masses = st.sampled_from([1e-3, 0.5, 1.0, 3.0])
strengths = st.sampled_from([0.05, 1.0, 40.0, INF])


@given(
    p=st.sampled_from([1, 2]),
    eps=st.sampled_from([1e-3, 0.3, 20.0]),
    rho_x=strengths,
    rho_y=strengths,
    m_a=masses,
    m_b=masses,
    dtype=st.sampled_from(DTYPES),
    backend=st.sampled_from(BACKENDS),
)
def test_two_diracs(
    p: int,
    eps: float,
    rho_x: float,
    rho_y: float,
    m_a: float,
    m_b: float,
    dtype: torch.dtype,
    backend: str,
) -> None:
    """The mass that moves solves a scalar problem, balanced, unbalanced and semi-unbalanced."""
    if rho_x == rho_y == INF:
        m_b = m_a
    if dtype == torch.float32:
        # A logit of 700 has marginals that are right to 1e-4 at best.
        eps = max(eps, 0.1)
    example = two_diracs(p=p, eps=eps, rho=(rho_x, rho_y), masses=(m_a, m_b)).to(dtype)
    limit = allowed(example.x, example.y, p, eps, max(m_a, m_b))
    # A strength much above the cost multiplies the last place of the masses, which should agree.
    limit += 16 * torch.finfo(dtype).eps * sum(r for r in (rho_x, rho_y) if r < INF) * max(m_a, m_b)
    clouds = example.x, example.y, example.a, example.b
    for answer, debias in ((example.divergence, True), (example.transport, False)):
        value = solve(*clouds, **example.options, debias=debias, backend=backend)
        assert float(value) == pytest.approx(answer, abs=limit)


@given(
    p=st.sampled_from([1, 2]),
    reach=st.sampled_from([0.3, 2.0]),
    blur=st.sampled_from([0.1, 1.0]),
    seed=st.integers(0, 100),
    backend=st.sampled_from(BACKENDS),
)
def test_far_apart_nothing_moves(p: int, reach: float, blur: float, seed: int, backend: str) -> None:
    """Beyond every reach: rho (m_a + m_b) + eps m_a m_b; the divergence is its self-terms' remainder."""
    x, y, a, b = cloud(7, 2, seed), cloud(5, 2, seed + 1) + 1e4, weights(7, 1), weights(5, 2, mass=1.6)
    options: dict[str, Any] = {"p": p, "reach": reach, "blur": blur, "backend": backend}
    rho, eps = reach**p, blur**p
    value = solve(x, y, a, b, **options, debias=False)
    limit = (rho + eps) * 10 * TOL[torch.float64]
    assert float(value) == pytest.approx(rho * 2.6 + eps * 1.6, abs=limit)
    own = sum(float(solve(z, z, w, w, **options, debias=False)) for z, w in ((x, a), (y, b)))
    expected = rho * 2.6 + eps * 1.6 - 0.5 * own + 0.5 * eps * 0.6**2
    assert float(solve(x, y, a, b, **options)) == pytest.approx(expected, abs=limit)


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("blur", [0.05, 0.3, 5.0])
def test_two_against_two(blur: float, p: int, backend: str) -> None:
    """Equal weights: pi_11 / pi_12 = e^{(C_12 + C_21 - C_11 - C_22) / 2 eps}."""
    x = torch.tensor([[0.0, 0.0], [1.0, 0.2]], dtype=torch.float64)
    y = torch.tensor([[0.3, 0.1], [0.8, 0.9]], dtype=torch.float64)
    c, eps = torch.cdist(x, y) ** p / p, blur**p
    odds = math.exp(float(c[0, 1] + c[1, 0] - c[0, 0] - c[1, 1]) / (2 * eps))
    stay = 0.5 * odds / (1 + odds)
    plan = torch.tensor([[stay, 0.5 - stay], [0.5 - stay, stay]], dtype=torch.float64)
    exact = (plan * c + eps * torch.special.xlogy(plan, 4 * plan)).sum()
    got = solve(x, y, p=p, blur=blur, debias=False, backend=backend)
    assert float(got) == pytest.approx(float(exact), abs=allowed(x, y, p, eps))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("p", [1, 2])
def test_sorted_points_on_a_line(p: int, dtype: torch.dtype, backend: str) -> None:
    """As eps falls, transport tends to that of the sorted points; the entropy of one side bounds the way."""
    n = 12
    x, y = cloud(n, 1, 0), torch.sort(cloud(n, 1, 1), 0, descending=True).values + 0.1
    sorted_x, sorted_y = (t.sort(0).values for t in (x, y))
    exact = float(((sorted_x - sorted_y).abs() ** p / p).mean())
    for eps in (1e-1, 1e-2, 1e-3):
        # At a small eps the last digits of the marginals are slow to come, and of no use.
        options: dict[str, Any] = {"p": p, "eps": eps, "backend": backend, "tol": 1e-4}
        value = float(solve(x.to(dtype), y.to(dtype), **options, debias=False))
        limit = 2e-4 * float((x - y.T).abs().max()) ** p
        assert exact - limit <= value <= exact + eps * math.log(n) + limit
    solution = sinkhorn(x.to(dtype), y.to(dtype), p=2, eps=1e-4, backend=backend, tol=1e-3, max_iter=20_000)
    match = solution.plan().argmax(1)
    assert torch.equal(match, y[:, 0].argsort()[x[:, 0].argsort().argsort()])


def test_one_repeated_point(backend: str) -> None:
    """Transport between one point and itself repeated: no cost, no entropy."""
    x, y = torch.ones(5, 3, dtype=torch.float64), torch.ones(9, 3, dtype=torch.float64)
    for reach in (None, 0.4):
        options: dict[str, Any] = {"blur": 0.1, "reach": reach, "backend": backend}
        assert float(solve(x, y, **options)) == pytest.approx(0.0, abs=1e-12)
        assert float(solve(x, y, **options, debias=False)) == pytest.approx(0.0, abs=1e-12)


@given(problem=drawn(reaches=(None,)), constant=st.sampled_from([-3.0, 0.5, 100.0]))
def test_a_constant_added_to_the_cost(problem: Drawn, constant: float) -> None:
    """It adds to the value, times the mass, and cancels in a divergence."""
    x, y, a, b = problem.clouds()
    x, y, a, b = (t.double() for t in (x, y, a, b))
    a, b = a / a.sum(), b / b.sum()

    def cost(x: Tensor, y: Tensor) -> Tensor:
        return torch.cdist(x, y) ** problem.p / problem.p + constant

    eps: dict[str, Any] = {"eps": problem.eps}
    limit = 2 * (allowed(x, y, problem.p, problem.eps) + abs(constant) * 3 * TOL[torch.float64])
    for debias, shift in ((False, constant), (True, 0.0)):
        plain = solve(x, y, a, b, p=problem.p, **eps, debias=debias, backend="dense")
        shifted = solve(x, y, a, b, cost=cost, **eps, debias=debias)
        assert float(shifted) == pytest.approx(float(plain) + shift, abs=limit)


@pytest.mark.parametrize("d", [1, 2, 16])
def test_translation_of_large_clouds(d: int) -> None:
    """|t|^2 / 2 exactly, in float32 also where t is a thousand times the cloud's size; `dense` would not."""
    x = cloud(300, d, 0).float()
    for length in (1e-2, 1.0, 1e3):
        y = (x.double() + length / math.sqrt(d)).float()
        # What the rounding of y leaves of the translation: its mean is what a translated cloud would have.
        moved = (y.double() - x.double()).mean(0)
        value = solve(x, y, blur=0.3, backend="cpu")
        assert float(value) == pytest.approx(float(moved @ moved) / 2, abs=allowed(x, y, 2, 0.09))
