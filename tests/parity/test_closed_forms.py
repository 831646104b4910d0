"""sinkhorn and sinkhorn_divergence, converged, against answers known on paper."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from otcore import sinkhorn, sinkhorn_divergence
from tests.parity.drawn import fresh

pytestmark = pytest.mark.filterwarnings("error::otcore.ConvergenceWarning")

# The value is off by the square of the marginal error, potentials and plans by its first power.
TIGHT: dict[str, Any] = {"tol": 1e-9, "max_iter": 20_000}
seeds = st.integers(0, 2**31 - 1)


def cloud(seed: int, n: int, d: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def diameter(*clouds: Tensor) -> float:
    both = torch.cat(clouds)
    return float((both.max(0).values - both.min(0).values).norm())


@fresh
@given(
    seed=seeds,
    d=st.sampled_from([1, 2, 16]),
    length=st.sampled_from([1e-3, 0.5, 30.0]),
    blur=st.sampled_from([0.1, 1.0]),
)
def test_translation(seed: int, d: int, length: float, blur: float) -> None:
    """S(x, x + t) = |t|^2/2 exactly, with gradient -t a_i, for p = 2."""
    x = cloud(seed, 25, d)
    t = length * torch.nn.functional.normalize(cloud(seed + 1, 1, d))[0]
    leaf = x.clone().requires_grad_()
    value = sinkhorn_divergence(leaf, x + t, blur=blur, **TIGHT)
    (gradient,) = torch.autograd.grad(value, leaf)
    scale = diameter(x, x + t) ** 2
    assert value.item() == pytest.approx(length**2 / 2, abs=1e-9 * scale)
    assert (gradient + t / len(x)).norm() <= 1e-8 * (scale + 1) ** 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@fresh
@given(seed=seeds, d=st.sampled_from([1, 2, 16]), length=st.sampled_from([1e-3, 0.5, 30.0]))
def test_translation_at_the_default_tol(seed: int, d: int, length: float, dtype: torch.dtype) -> None:
    """Within tol x the cloud's largest cost: the translation itself is split off exactly, so it adds
    nothing."""
    x = cloud(seed, 25, d).to(dtype)
    t = (length * torch.nn.functional.normalize(cloud(seed + 1, 1, d))[0]).to(dtype)
    y = x + t
    moved = (y - x).double().mean(0)  # what the rounding of x + t left of t
    value = sinkhorn_divergence(x, y, blur=0.3)
    rounding = 8 * torch.finfo(dtype).eps * diameter(x, y) * (length + diameter(x, y))
    assert abs(value.item() - float(moved @ moved) / 2) <= 1e-2 * diameter(x) ** 2 + rounding


@fresh
@given(seed=seeds, p=st.sampled_from([1, 2]), blur=st.sampled_from([0.1, 1.0]))
def test_identical_clouds(seed: int, p: int, blur: float) -> None:
    """S(x, x) = 0, gradient 0; points repeated, in another order."""
    x = cloud(seed, 20, 3)
    x[5:8] = x[0]
    leaf = x.clone().requires_grad_()
    value = sinkhorn_divergence(leaf, x.flip(0), p=p, blur=blur, **TIGHT)
    (gradient,) = torch.autograd.grad(value, leaf)
    assert value.item() == pytest.approx(0, abs=1e-9 * diameter(x) ** p)
    assert gradient.norm() <= 1e-8 * diameter(x)


@fresh
@given(seed=seeds, p=st.sampled_from([1, 2]), blur=st.sampled_from([0.01, 1.0]), debias=st.booleans())
def test_one_point_each(seed: int, p: int, blur: float, debias: bool) -> None:
    """N = M = 1: the cost itself, debiased or not, at every blur."""
    x, y = cloud(seed, 1, 4), cloud(seed + 1, 1, 4)
    value = sinkhorn_divergence(x, y, p=p, blur=blur, debias=debias)
    assert value.item() == pytest.approx(float((x - y).norm()) ** p / p, rel=1e-12)


@fresh
@given(seed=seeds, p=st.sampled_from([1, 2]), blur=st.sampled_from([0.05, 1.0]))
def test_one_point_against_many(seed: int, p: int, blur: float) -> None:
    """The only plan is the product: the mean cost, whatever blur is; the potentials are the costs."""
    x, y = cloud(seed, 1, 3), cloud(seed + 1, 12, 3)
    b = torch.softmax(cloud(seed + 2, 12, 1)[:, 0], 0)
    costs = (x - y).norm(dim=1) ** p / p
    solution = sinkhorn(x, y, None, b, p=p, blur=blur, **TIGHT)
    assert solution.value.item() == pytest.approx(float(b @ costs), rel=1e-9)
    centred = solution.g.reshape(-1) - costs
    assert (centred - centred.mean()).abs().max() <= 1e-9 * float(costs.max())


@fresh
@given(p=st.sampled_from([1, 2]), blur=st.sampled_from([0.1, 0.5, 2.0]), far=st.sampled_from([0.2, 1.0, 3.0]))
def test_two_points_on_themselves(p: int, blur: float, far: float) -> None:
    """Two equal weights at distance `far`: OT_eps = -eps log((1 + e^(-C/eps))/2), C the cost between them."""
    x = torch.tensor([[0.0], [far]], dtype=torch.float64)
    eps, costs = blur**p, far**p / p
    exact = -eps * math.log((1 + math.exp(-costs / eps)) / 2)
    solution = sinkhorn(x, x.clone(), p=p, blur=blur, **TIGHT)
    assert solution.value.item() == pytest.approx(exact, rel=1e-9)
    stays = 0.5 / (1 + math.exp(-costs / eps))
    plan = torch.tensor([[stays, 0.5 - stays], [0.5 - stays, stays]], dtype=torch.float64)
    assert (solution.plan().reshape(2, 2) - plan).abs().max() <= 1e-8


@fresh
@given(seed=seeds)
def test_translated_cloud_splits_off_the_means(seed: int) -> None:
    """p = 2: S(x, y) = |mean x - mean y|^2/2 + S of the centred clouds, any two clouds of equal mass."""
    x, y = cloud(seed, 30, 3), 0.5 * cloud(seed + 1, 20, 3) + 2
    apart = x.mean(0) - y.mean(0)
    centred = sinkhorn_divergence(x - x.mean(0), y - y.mean(0), blur=0.5, **TIGHT)
    whole = sinkhorn_divergence(x, y, blur=0.5, **TIGHT)
    assert whole.item() == pytest.approx(float(apart @ apart) / 2 + centred.item(), rel=1e-9)


@fresh
@given(seed=seeds, p=st.sampled_from([1, 2]))
def test_repeated_points_are_weights(seed: int, p: int) -> None:
    """A point with weight w is the same as two copies of it with w/2, and a zero weight as no point."""
    x, y = cloud(seed, 10, 2), cloud(seed + 1, 8, 2)
    plain = sinkhorn_divergence(x, y, p=p, blur=0.5, **TIGHT)
    doubled = torch.cat([x, x[:3], cloud(seed + 2, 2, 2)])
    a = torch.full((15,), 0.1, dtype=torch.float64)
    a[:3] = a[10:13] = 0.05
    a[13:] = 0
    weighted = sinkhorn_divergence(
        doubled, y, a, torch.full((8,), 1 / 8, dtype=torch.float64), p=p, blur=0.5, **TIGHT
    )
    assert weighted.item() == pytest.approx(plain.item(), rel=1e-9, abs=1e-12)
