"""Sliced distances against POT with the same projections: values and gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import otcore
from tests.parity.drawn import fresh

ot = pytest.importorskip("ot", reason="parity with POT needs POT (pip install pot)")

TOL = 1e-10
# POT bisects the best shift on the circle to 1e-6 of a turn; its error is of second order in that, or first.
CIRCLE_TOL = 1e-6

draws = given(
    seed=st.integers(0, 2**31),
    n=st.integers(1, 60),
    m=st.integers(1, 60),
    same=st.booleans(),
    weighted=st.booleans(),
    p=st.sampled_from([1, 1.5, 2, 3]),
)


def problem(seed: int, n: int, m: int, d: int, weighted: bool) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    y = 0.7 * torch.randn(m, d, generator=generator, dtype=torch.float64) + 0.3
    theta = torch.randn(d, 12, generator=generator, dtype=torch.float64)
    theta = theta / theta.norm(dim=0)
    if not weighted:
        return x, y, theta
    a, b = (torch.rand(k, generator=generator, dtype=torch.float64) + 0.01 for k in (n, m))
    return x, y, theta, a / a.sum(), b / b.sum()


def assert_parity(ours: Any, theirs: Any, inputs: list[Tensor]) -> None:
    torch.testing.assert_close(ours, theirs, rtol=TOL, atol=TOL)
    pairs = zip(torch.autograd.grad(ours, inputs), torch.autograd.grad(theirs, inputs), strict=True)
    for mine, other in pairs:
        torch.testing.assert_close(mine, other, rtol=TOL, atol=TOL)


@fresh
@draws
def test_sliced(seed: int, n: int, m: int, same: bool, weighted: bool, p: float) -> None:
    x, y, theta, *ab = problem(seed, n, n if same else m, 3, weighted)
    points = [x.requires_grad_(), y.requires_grad_()]
    ours = otcore.sliced_wasserstein_distance(x, y, *ab, projections=theta, p=p)
    assert_parity(ours, ot.sliced_wasserstein_distance(x, y, *ab, projections=theta, p=p), points)
    theta.requires_grad_()
    ours = otcore.sliced_wasserstein_distance(x, y, *ab, projections=theta, p=p)
    theirs = ot.sliced_wasserstein_distance(x, y, *ab, projections=theta, p=p)
    assert_parity(ours, theirs, [*points, theta])


@fresh
@draws
def test_weights(seed: int, n: int, m: int, same: bool, weighted: bool, p: float) -> None:
    """Gradients in weights, along changes that keep the masses: a constant is free."""
    x, y, theta, a, b = problem(seed, n, n if same else m, 2, True)

    def value(function: Any, a: Tensor, b: Tensor) -> Tensor:
        result: Tensor = function(x, y, a / a.sum(), b / b.sum(), projections=theta, p=p)
        return result

    inputs = [a.requires_grad_(), b.requires_grad_()]
    assert_parity(
        value(otcore.sliced_wasserstein_distance, a, b), value(ot.sliced_wasserstein_distance, a, b), inputs
    )


@fresh
@draws
def test_max_sliced_over_given_projections(
    seed: int, n: int, m: int, same: bool, weighted: bool, p: float
) -> None:
    x, y, theta, *ab = problem(seed, n, n if same else m, 3, weighted)
    points = [x.requires_grad_(), y.requires_grad_()]
    ours = otcore.max_sliced_wasserstein_distance(x, y, *ab, projections=theta, p=p)
    assert_parity(ours, ot.max_sliced_wasserstein_distance(x, y, *ab, projections=theta, p=p), points)


@fresh
@draws
def test_line(seed: int, n: int, m: int, same: bool, weighted: bool, p: float) -> None:
    x, y, _, *ab = problem(seed, n, n if same else m, 3, weighted)
    u, v = x[:, 0].requires_grad_(), y[:, 0].requires_grad_()
    assert_parity(otcore.wasserstein_1d(u, v, *ab, p=p), ot.wasserstein_1d(u, v, *ab, p=p), [u, v])
    columns = otcore.wasserstein_1d(x, y, *ab, p=p)
    theirs = ot.wasserstein_1d(x, y, *ab, p=p)
    torch.testing.assert_close(columns, theirs, rtol=TOL, atol=TOL)


def test_line_defaults_and_numpy() -> None:
    x, y, *_ = (t.numpy() for t in problem(0, 20, 30, 2, False))
    ours = otcore.wasserstein_1d(x, y)
    assert isinstance(ours, np.ndarray)
    np.testing.assert_allclose(ours, ot.wasserstein_1d(x, y), rtol=TOL)
    np.testing.assert_allclose(otcore.wasserstein_1d(x[:, 0], y[:, 0]), ot.wasserstein_1d(x[:, 0], y[:, 0]))


def test_a_seed_draws_the_directions_of_pot() -> None:
    x, y, *_ = problem(1, 25, 30, 4, False)
    ours = otcore.sliced_wasserstein_distance(x, y, n_projections=70, seed=11)
    theirs = ot.sliced_wasserstein_distance(x, y, n_projections=70, seed=11)
    torch.testing.assert_close(ours, theirs, rtol=TOL, atol=TOL)


@fresh
@draws
def test_sphere(seed: int, n: int, m: int, same: bool, weighted: bool, p: float) -> None:
    """POT stops short of the best shift: its values are above ours, if little."""
    x, y, _, *ab = problem(seed, n, n if same else m, 3, weighted)
    x, y = (torch.nn.functional.normalize(t, dim=1) for t in (x, y))
    generator = torch.Generator().manual_seed(seed)
    planes = torch.linalg.qr(torch.randn(6, 3, 2, generator=generator, dtype=torch.float64))[0]
    options = {"projections": planes, "p": p, "n_projections": 6}
    ours = otcore.sliced_wasserstein_sphere(x, y, *ab, **options) ** p
    theirs = ot.sliced_wasserstein_sphere(x, y, *ab, **options) ** p
    assert -CIRCLE_TOL <= float(theirs - ours) <= CIRCLE_TOL
