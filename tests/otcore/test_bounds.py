"""Certified bounds: they hold for any potentials, and close on the optimum as these converge."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any

import numpy
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from otcore.backends import load
from otcore.backends.dense import cost_matrix
from otcore.bounds import Bounds, bounds
from otcore.coupling import Leftover, couple, product
from otcore.problem import Problem, make_problem
from otcore.solver import anneal
from tests.problems import INF, cloud, examples, two_diracs, weights
from tests.tolerance import rounding

# Where many solves are made; the other backends have the tests that ask for the fixture.
COMPILED_AND_DENSE = pytest.mark.parametrize("backend", ["cpu", "dense"])
REACHES = [None, 0.5, 20.0, (0.5, None), (None, 0.7), (0.4, 0.9)]


def certified(problem: Problem, backend: str) -> Bounds:
    """The bounds of what a solve to the problem's tolerance gives."""
    verbs = load(backend)
    assert not isinstance(verbs, str)
    return bounds(verbs, problem, anneal(verbs, problem).potentials)


def converged(problem: Problem) -> Tensor:
    """The value of the same points in float64, solved far beyond the intervals' widths."""
    x, y, a, b = (t.double() for t in (problem.x, problem.y, problem.a, problem.b))
    if problem.balanced:
        # Float32 masses differ in the last places: both count as their mean.
        masses = a.sum(-1, keepdim=True), b.sum(-1, keepdim=True)
        a, b = (w * (0.5 * sum(masses) / mass) for w, mass in ((a, masses[0]), (b, masses[1])))
    wide = dataclasses.replace(problem, x=x, y=y, a=a, b=b, tol=1e-11, max_iter=20_000, init=None)
    verbs = load("dense" if callable(problem.cost) else "cpu")
    assert not isinstance(verbs, str)
    return anneal(verbs, wide).value


def assert_between(lower: Tensor, value: Tensor | float, upper: Tensor, slack: float = 0.0) -> None:
    assert bool((lower <= value + slack).all()), f"lower bound {lower} of {value}"
    assert bool((upper >= value - slack).all()), f"upper bound {upper} of {value}"


@settings(max_examples=40)
@given(
    seed=st.integers(0, 1000),
    n=st.integers(1, 24),
    m=st.integers(1, 24),
    d=st.integers(1, 4),
    p=st.sampled_from([1, 2]),
    blur=st.sampled_from([0.1, 0.3, 3.0]),
    reach=st.sampled_from(REACHES),
    max_iter=st.sampled_from([1, 2, 5, 500]),
    tol=st.sampled_from([1e-1, 1e-3, 1e-7]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    debias=st.booleans(),
    dead=st.booleans(),
    name=st.sampled_from(["cpu", "dense"]),
)
def test_the_optimum_is_inside(
    seed: int,
    n: int,
    m: int,
    d: int,
    p: int,
    blur: float,
    reach: Any,
    max_iter: int,
    tol: float,
    dtype: torch.dtype,
    debias: bool,
    dead: bool,
    name: str,
) -> None:
    a, b = weights(n, seed + 2), weights(m, seed + 3, mass=1.0 if reach is None else 1.7)
    if dead and n > 1:
        a[0] = 0.0
        a = a / a.sum()
    x, y = cloud(n, d, seed), cloud(m, d, seed + 1) + 0.3
    options: dict[str, Any] = {"p": p, "blur": blur, "reach": reach, "debias": debias}
    problem = make_problem(*(t.to(dtype) for t in (x, y, a, b)), **options, tol=tol, max_iter=max_iter)
    got = certified(problem, name)
    # The reference has a marginal error of 1e-11.
    assert_between(got.lower, converged(problem), got.upper, 1e-11)
    assert bool((got.upper >= 0.0).all())
    assert all(bool(t.isfinite().all()) and t.dtype == torch.float64 for t in got)
    if reach is None:
        exact = float(_linear_programme(problem))
        # The programme is solved to 1e-9, the float32 masses agree to 1e-7.
        assert_between(got.cost_lower, exact, got.cost_upper, 1e-8 if dtype == torch.float64 else 1e-6)
    else:
        assert bool((got.cost_lower <= got.cost_upper).all())


def _linear_programme(problem: Problem) -> Any:
    x, y, a, b = (t[0].double().numpy() for t in (problem.x, problem.y, problem.a, problem.b))
    distance = numpy.linalg.norm(x[:, None] - y[None], axis=-1)
    return ot.emd2(a / a.sum(), b / b.sum(), distance if problem.p == 1 else distance**2 / 2) * a.sum()


@COMPILED_AND_DENSE
@pytest.mark.parametrize("reach", REACHES, ids=str)
@pytest.mark.parametrize("p", [1, 2])
def test_the_interval_closes(p: int, reach: Any, backend: str) -> None:
    """Its width falls with the tolerance, to rounding: 2^-38 of the size of potentials and costs."""
    x, y, a, b = cloud(40, 2, 0), cloud(30, 2, 1) + 0.2, weights(40, 2), weights(30, 3)
    widths = []
    for tol in (1e-2, 1e-5, 1e-8, 1e-12):
        problem = make_problem(x, y, a, b, p=p, blur=0.2, reach=reach, tol=tol, max_iter=10_000)
        got = certified(problem, backend)
        widths.append(float(got.upper - got.lower))
        # The rounded plan moves at most the marginal error, over the diameter at most, in three terms.
        assert widths[-1] <= 30.0 * tol + 1e-9
    assert widths[-1] < 1e-9
    assert widths[0] > widths[1] > widths[3]


@COMPILED_AND_DENSE
@pytest.mark.parametrize("example", examples(), ids=lambda e: e.name)
def test_closed_forms_are_inside(example: Any, backend: str) -> None:
    for answer, debias in ((example.divergence, True), (example.transport, False)):
        if answer is None:
            continue
        clouds = example.x, example.y, example.a, example.b
        for tol in (1e-1, 1e-3):
            problem = make_problem(*clouds, **example.options, debias=debias, tol=tol)
            got = certified(problem, backend)
            # Closed forms of Gaussians are integrals: quadrature is right to about 1e-9.
            assert_between(got.lower, answer, got.upper, 1e-8)


@COMPILED_AND_DENSE
@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("rho", [(0.3, 0.3), (0.3, 0.7), (INF, 0.7), (0.4, INF)], ids=str)
def test_unbalanced_cost_of_two_diracs(rho: tuple[float, float], p: int, backend: str) -> None:
    """Without entropy the moved mass q minimises q C + rho_x KL(q | m_a) + rho_y KL(q | m_b)."""
    masses = 1.5, 2.0
    example = two_diracs(p=p, eps=1e-9, rho=rho, masses=masses)
    exact = example.transport
    problem = make_problem(
        example.x, example.y, example.a, example.b, **{**example.options, "eps": 1e-3}, tol=1e-9
    )
    got = certified(problem, backend)
    assert_between(got.cost_lower, exact, got.cost_upper, 1e-7)
    assert float(got.cost_upper - got.cost_lower) < 1e-2


@COMPILED_AND_DENSE
@pytest.mark.parametrize("p", [1, 2])
def test_unbalanced_cost_against_pot(p: int, backend: str) -> None:
    """POT minimises the same cost by L-BFGS: from above, to its tolerance."""
    x, y, a, b = cloud(12, 2, 0), cloud(9, 2, 1) + 0.3, weights(12, 2), weights(9, 3, mass=1.4)
    problem = make_problem(x, y, a, b, p=p, blur=0.03 ** (2 / p), reach=0.6, tol=1e-6, max_iter=10_000)
    got = certified(problem, backend)
    cost, rho = cost_matrix(x[None], y[None], p)[0].numpy(), problem.rho[0]
    plan = ot.unbalanced.lbfgsb_unbalanced(
        a.numpy(), b.numpy(), cost, reg=0.0, reg_m=rho, numItermax=5000, stopThr=1e-14
    )
    exact = (plan * cost).sum()
    for sums, target in ((plan.sum(1), a.numpy()), (plan.sum(0), b.numpy())):
        exact += rho * (sums * numpy.log(sums / target) - sums + target).sum()
    assert_between(got.cost_lower, exact, got.cost_upper + 1e-4)
    assert float(got.cost_upper - got.cost_lower) < 0.05


@COMPILED_AND_DENSE
@pytest.mark.parametrize("reach", [None, 0.5, (0.6, None)], ids=str)
@pytest.mark.parametrize("debias", [True, False])
def test_batch_is_its_items(debias: bool, reach: Any, backend: str) -> None:
    x, y = cloud(17, 3, 0, batch=3), cloud(12, 3, 1, batch=3) + 0.1
    x[1] *= 20.0
    a, b = weights(17, 2, batch=3), weights(12, 3, batch=3)
    options: dict[str, Any] = {"blur": 0.3, "reach": reach, "debias": debias, "tol": 1e-3}
    verbs = load(backend)
    assert not isinstance(verbs, str)
    problem = make_problem(x, y, a, b, **options)
    potentials = anneal(verbs, problem).potentials
    together = bounds(verbs, problem, potentials)
    for i in range(3):
        one = make_problem(x[i], y[i], a[i], b[i], **options)
        own = type(potentials)(*(None if t is None else t[i : i + 1] for t in potentials))
        for got, want in zip(together, bounds(verbs, one, own), strict=True):
            assert_between(got[i], float(want), got[i], 1e-9 * (1.0 + float(x[i].abs().max()) ** 2))


def test_callable_cost() -> None:
    """A cost known only through the verbs: what moments give for p = 2, its own sums must contain too."""
    x, y = cloud(30, 2, 0), cloud(20, 2, 1) + 0.2

    def half_square(x: Tensor, y: Tensor) -> Tensor:
        return cost_matrix(x, y, 2)

    named, given = (
        certified(make_problem(x, y, blur=0.1, tol=1e-3, cost=cost), "dense") for cost in (None, half_square)
    )
    assert_between(given.lower, converged(make_problem(x, y, blur=0.1)), given.upper)
    exact = float(_linear_programme(make_problem(x, y)))
    assert_between(given.cost_lower, exact, given.cost_upper, 1e-9)
    # The coupling is coarser: all of what is left over, 1e-3 of the mass, over the whole cloud.
    assert float(given.cost_upper - named.cost_upper) < 1e-2


def test_any_potentials_certify(backend: str) -> None:
    """Noise, zeros and numbers out of all range give wide intervals, not wrong ones."""
    verbs = load(backend)
    assert not isinstance(verbs, str)
    x, y, a, b = cloud(20, 2, 0), cloud(15, 2, 1), weights(20, 2), weights(15, 3)
    for reach in (None, 0.5, (None, 0.5)):
        problem = make_problem(x, y, a, b, blur=0.3, reach=reach)
        value, good = converged(problem), anneal(verbs, problem).potentials
        for scale in (0.0, 1.0, 1e3, 1e9):
            noise = (scale * torch.randn_like(t) for t in good if t is not None)
            got = bounds(verbs, problem, type(good)(*noise))
            assert not any(bool(t.isnan().any()) for t in got)
            assert_between(got.lower, value, got.upper, 1e-11)


def test_a_tree_couples_nearby() -> None:
    """Left over: a tenth of each point's mass, where the clouds are the same; product against tree."""
    x = cloud(500, 2, 0).unsqueeze(0)
    a = torch.full((1, 500), 1 / 500, dtype=x.dtype)
    left, total = Leftover(0.1 * a, 0.1 * a, a, a), torch.ones(1, dtype=x.dtype)
    mean = (left.rows.unsqueeze(2) * left.columns.unsqueeze(1) * cost_matrix(x, x, 2)).sum((1, 2)) / 0.1
    coupling, whole = couple(x, x, x, left, total, 2), product(left, mean, total)
    torch.testing.assert_close(coupling.cost[:1], whole.cost, rtol=rounding(torch.float64), atol=0)
    torch.testing.assert_close(coupling.entropy[:1], whole.entropy, rtol=rounding(torch.float64), atol=0)
    assert float(coupling.cost[-1]) < 0.05 * float(whole.cost)
    jensen = couple(x, x, x, left, total, 1).cost[0]
    mean = (left.rows.unsqueeze(2) * left.columns.unsqueeze(1) * cost_matrix(x, x, 1)).sum((1, 2)) / 0.1
    assert float(mean) <= float(jensen) < 1.2 * float(mean)


_MEMORY = """
import resource, torch
from otcore.backends import load
from otcore.bounds import bounds
from otcore.problem import make_problem
from otcore.solver import anneal
draw = torch.Generator().manual_seed(0)
x, y = torch.rand(20_000, 2, generator=draw), torch.rand(20_000, 2, generator=draw)
verbs, problem = load("cpu"), make_problem(x, y, blur=0.2, debias=False, max_iter=3)
potentials = anneal(verbs, problem).potentials
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
bounds(verbs, problem, potentials)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_is_linear() -> None:
    """20,000 points: a matrix would take 3.2 GB, the peak may rise by a hundredth of that."""
    command = [sys.executable, "-W", "ignore", "-c", _MEMORY]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    # ru_maxrss counts kilobytes, on macOS bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(done.stdout) * unit < 100e6
