"""SamplesLoss against GeomLoss's, in fp64: the same numbers to 1e-9, on problems drawn afresh in every
run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from otcore import SamplesLoss
from tests.parity import geomloss_reference as reference
from tests.parity.drawn import Drawn, fresh, problems

pytest.importorskip("geomloss", reason="parity with GeomLoss needs geomloss (pip install geomloss)")

AGREED = 1e-9  # relative, values and gradients in fp64
BACKENDS = ("auto", "dense")


def assert_same(found: reference.Results, exact: reference.Results) -> None:
    errors = reference.errors(found, exact)
    assert max(errors.values()) <= AGREED, f"relative errors {errors}"


def compare(problem: Drawn, backend: str, **more: Any) -> None:
    """Value and every gradient of ours and GeomLoss's."""
    x, y = problem.points()
    options = problem.options | more
    ours = SamplesLoss("sinkhorn", backend=backend, **options)
    theirs = reference.loss(direct=True, **options)
    assert_same(
        reference.measure(ours, x, y, problem.weights()), reference.measure(theirs, x, y, problem.weights())
    )


@pytest.mark.parametrize("backend", BACKENDS)
@fresh
@given(problem=problems())
def test_value_and_gradients(problem: Drawn, backend: str) -> None:
    compare(problem, backend)


@fresh
@given(problem=problems(batched=True, max_points=25))
def test_batches(problem: Drawn) -> None:
    compare(problem, "auto")


@fresh
@given(problem=problems(max_points=40), ratio=st.sampled_from([0.05, 0.2, 0.9, 1.0, 4.0, 100.0]))
def test_explicit_diameter(problem: Drawn, ratio: float) -> None:
    """Also smaller than blur, where the schedule is two steps, rising: published code relies on it.

    Without zero weights: at the first, small temperature GeomLoss's log 0 = -1e5 does not hide them."""
    problem = replace(problem, dead=False)
    compare(problem, "auto", diameter=ratio * problem.blur)


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("steps", [1, 2, 3, 5])
@pytest.mark.parametrize("scaling", [0.5, 0.7, 0.9])
def test_diameter_a_whole_number_of_steps_above_blur(p: int, steps: int, scaling: float) -> None:
    """Whether the schedule's last step before blur is there hangs on the rounding of logarithms."""
    problem = Drawn(
        seed=steps, n=12, m=9, d=2, batch=0, p=p, blur=0.05, scaling=scaling, debias=True,
        weighted=False, dead=False, shift=0.3,
    )  # fmt: skip
    compare(problem, "auto", diameter=0.05 / scaling**steps)


def test_published_autoencoder_call() -> None:
    """blur .05, scaling .95, diameter .01: the end-to-end SAE notebook's call."""
    problem = Drawn(
        seed=5, n=100, m=100, d=2, batch=0, p=2, blur=0.05, scaling=0.95, debias=True,
        weighted=False, dead=False, shift=0.0,
    )  # fmt: skip
    compare(problem, "auto", diameter=0.01)


@pytest.mark.parametrize("backend", BACKENDS)
@fresh
@given(problem=problems(max_points=40))
def test_potentials(problem: Drawn, backend: str) -> None:
    """potentials=True: F and G with their additive constant, and their gradients in the points."""
    x, y = problem.points()
    options = problem.options | {"potentials": True}
    ours = SamplesLoss("sinkhorn", backend=backend, **options)
    theirs = reference.loss(direct=True, **options)
    assert_same(
        reference.measure_potentials(ours, x, y, problem.weights()),
        reference.measure_potentials(theirs, x, y, problem.weights()),
    )


@fresh
@given(problem=problems(batched=True, max_points=20))
def test_potentials_of_batches(problem: Drawn) -> None:
    x, y = problem.points()
    options = problem.options | {"potentials": True}
    assert_same(
        reference.measure_potentials(SamplesLoss("sinkhorn", **options), x, y, problem.weights()),
        reference.measure_potentials(reference.loss(direct=True, **options), x, y, problem.weights()),
    )


@pytest.mark.parametrize("debias", [True, False])
def test_default_p1_cost_of_geomloss(debias: bool) -> None:
    """GeomLoss as it comes, its distances from expanded squares, on points far enough apart for those."""
    problem = Drawn(
        seed=11, n=80, m=70, d=8, batch=0, p=1, blur=0.05, scaling=0.7, debias=debias,
        weighted=True, dead=False, shift=0.3,
    )  # fmt: skip
    x, y = problem.points()
    ours, theirs = SamplesLoss("sinkhorn", **problem.options), reference.loss(**problem.options)
    assert_same(
        reference.measure(ours, x, y, problem.weights()), reference.measure(theirs, x, y, problem.weights())
    )


@pytest.mark.parametrize("p", [1, 2])
def test_points_that_coincide(p: int) -> None:
    """Points shared by both clouds and repeated within one: p = 1 has distances under GeomLoss's floor
    there."""
    problem = Drawn(
        seed=3, n=30, m=25, d=3, batch=0, p=p, blur=0.1, scaling=0.5, debias=True,
        weighted=False, dead=False, shift=0.0,
    )  # fmt: skip
    x, y = problem.points()
    y[:10], x[20:] = x[:10], x[:10]
    ours, theirs = SamplesLoss("sinkhorn", **problem.options), reference.loss(direct=True, **problem.options)
    assert_same(reference.measure(ours, x, y), reference.measure(theirs, x, y))


@pytest.mark.parametrize("mass", [0.25, 3.0])
def test_equal_masses_other_than_one(mass: float) -> None:
    """Weights are taken as they are, as in GeomLoss."""
    problem = Drawn(
        seed=4, n=30, m=40, d=2, batch=0, p=2, blur=0.2, scaling=0.7, debias=True,
        weighted=True, dead=True, shift=0.3,
    )  # fmt: skip
    x, y = problem.points()
    a, b = problem.weights() or ()
    ours, theirs = SamplesLoss("sinkhorn", **problem.options), reference.loss(**problem.options)
    assert_same(
        reference.measure(ours, x, y, (mass * a, mass * b)),
        reference.measure(theirs, x, y, (mass * a, mass * b)),
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_potential_of_a_lone_point_without_weight(backend: str) -> None:
    """At a blur far under the spacing its row of the self-term holds nothing but underflows."""
    problem = Drawn(
        seed=16019, n=9, m=12, d=40, batch=0, p=2, blur=0.2, scaling=0.5, debias=True,
        weighted=True, dead=True, shift=0.3,
    )  # fmt: skip
    x, y = problem.points()
    options = problem.options | {"potentials": True}
    ours = SamplesLoss("sinkhorn", backend=backend, **options)
    assert_same(
        reference.measure_potentials(ours, x, y, problem.weights()),
        reference.measure_potentials(reference.loss(**options), x, y, problem.weights()),
    )


def test_gradients_stay_disabled_under_no_grad() -> None:
    """GeomLoss leaves them enabled; otcore must not."""
    x, y = torch.rand(6, 2), torch.rand(5, 2)
    with torch.no_grad():
        value = SamplesLoss()(x, y)
        assert not torch.is_grad_enabled()
    assert not value.requires_grad


def test_one_point_repeated() -> None:
    """Zero diameter: GeomLoss takes the logarithm of it; the answer is zero."""
    x = torch.ones(4, 3, dtype=torch.float64, requires_grad=True)
    value = SamplesLoss(blur=0.1)(x, torch.ones(5, 3, dtype=torch.float64))
    assert value.item() == pytest.approx(0, abs=1e-15)
    (gradient,) = torch.autograd.grad(value, x)
    assert gradient.abs().max() <= 1e-15


@fresh
@given(problem=problems(max_points=30, p=2), reach=st.sampled_from([0.3, 1.0, 10.0]))
def test_unbalanced(problem: Drawn, reach: float) -> None:
    """GeomLoss's value; its gradient in the points times (rho + eps)/(rho + eps/2), which makes it the true
    one."""
    # Clouds so far apart that no mass moves have gradients under the rounding of GeomLoss's expanded squares.
    problem = replace(problem, weighted=False, d=min(problem.d, 3), shift=min(problem.shift, 0.3))
    x, y = problem.points()
    options = problem.options | {"reach": reach}
    exact = reference.measure(reference.loss(**options), x, y)
    rho, eps = reach**2, problem.blur**2
    for name in ("d/dx", "d/dy"):
        exact[name] *= (rho + eps) / (rho + eps / 2)
    assert_same(reference.measure(SamplesLoss("sinkhorn", **options), x, y), exact)
