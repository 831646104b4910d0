"""Max-sliced, spherical and sliced distances to priors: closed forms, samples, derivatives, refusals."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import otcore
from otcore import (
    ConvergenceWarning,
    GaussianPrior,
    UniformBall,
    max_sliced_wasserstein_distance,
    sliced_wasserstein_distance,
    sliced_wasserstein_sphere,
    sliced_wasserstein_to_prior,
)
from tests.problems import cloud, weights
from tests.tolerance import REFERENCE_RTOL, assert_solved


def on_sphere(n: int, d: int, seed: int) -> Tensor:
    return torch.nn.functional.normalize(cloud(n, d, seed) - 0.45, dim=-1)


def test_max_sliced_finds_the_direction_of_a_shift() -> None:
    x, shift = cloud(80, 5, 0), torch.tensor([0.0, 3.0, 0.0, -4.0, 0.0], dtype=torch.float64)
    solution = max_sliced_wasserstein_distance(x, x + shift, seed=0, return_solution=True)
    assert solution.converged
    assert 0 < solution.n_iter <= 200
    assert float(solution.slope) <= 1e-4
    assert abs(float(solution.value) - 5.0) < 1e-6
    assert abs(abs(float(solution.direction @ shift)) - 5.0) < 1e-6


@pytest.mark.parametrize("p", [1, 2])
def test_max_sliced_is_at_least_the_best_of_many(p: float) -> None:
    """In the plane, where many directions cover the circle."""
    x, y = cloud(60, 2, 0, batch=3), cloud(50, 2, 1, batch=3) * 1.5
    a, b = weights(60, 2, batch=3), weights(50, 3, batch=3)
    angles = torch.linspace(0, math.pi, 2000, dtype=torch.float64)
    theta = torch.stack([angles.cos(), angles.sin()])
    on_grid = max_sliced_wasserstein_distance(x, y, a, b, p=p, projections=theta)
    climbed = max_sliced_wasserstein_distance(x, y, a, b, p=p, n_projections=20, seed=0)
    assert bool((climbed > on_grid * (1 - 1e-3)).all())
    polished = max_sliced_wasserstein_distance(x, y, a, b, p=p, projections=theta, max_iter=100)
    assert bool((polished >= on_grid).all())


def test_max_sliced_gradient_and_batches() -> None:
    x, y = cloud(12, 3, 0), cloud(9, 3, 1) + 1.0
    theta = torch.nn.functional.normalize(torch.randn(3, 6, dtype=torch.float64), dim=0)
    inputs = [t.clone().requires_grad_() for t in (x, y)]
    assert gradcheck(lambda x, y: max_sliced_wasserstein_distance(x, y, projections=theta), inputs)
    both = max_sliced_wasserstein_distance(torch.stack([x, x]), torch.stack([y, y + 1.0]), seed=0)
    ragged = max_sliced_wasserstein_distance([x, x], [y, y + 1.0], seed=0)
    assert_solved(both, ragged)
    assert_solved(both[0], max_sliced_wasserstein_distance(x, y, seed=0))


def test_max_sliced_warns() -> None:
    x, y = cloud(50, 8, 0), cloud(50, 8, 1) + 0.3
    with pytest.warns(ConvergenceWarning, match="raise max_iter or tol"):
        solution = max_sliced_wasserstein_distance(x, y, max_iter=1, tol=1e-9, return_solution=True)
    assert not solution.converged


def circle_cost(u: list[float], v: list[float], p: float) -> float:
    """W_p^p of as many equal masses on the circle of length 1: the best cyclic shift, with turns."""
    u, v, n = sorted(u), sorted(v), len(u)
    costs = []
    for shift in range(-n, n + 1):
        moved = [v[(i + shift) % n] + (i + shift) // n for i in range(n)]
        costs.append(sum(abs(s - t) ** p for s, t in zip(u, moved, strict=True)) / n)
    return min(costs)


@pytest.mark.parametrize("p", [1, 2, 3])
def test_sphere_against_cyclic_shifts(p: float) -> None:
    generator = torch.Generator().manual_seed(0)
    u, v = torch.rand(2, 9, generator=generator, dtype=torch.float64)
    x, y = (torch.stack([(t * 2 * math.pi).cos(), (t * 2 * math.pi).sin()], 1) for t in (u, v))
    plane = torch.eye(2, dtype=torch.float64).unsqueeze(0)
    got = sliced_wasserstein_sphere(x, y, projections=plane, p=p, root=False)
    assert_solved(got, circle_cost(u.tolist(), v.tolist(), p))
    # A rotation of the circle costs its angle, whichever way is shorter.
    turned = torch.stack([((u + 0.8) * 2 * math.pi).cos(), ((u + 0.8) * 2 * math.pi).sin()], 1)
    assert float(sliced_wasserstein_sphere(x, turned, projections=plane, p=p)) < 0.2 + 1e-9


def test_sphere_derivatives_and_batches() -> None:
    x, y, a, b = on_sphere(8, 3, 0), on_sphere(6, 3, 1), weights(8, 2), weights(6, 3)
    planes = torch.linalg.qr(torch.randn(5, 3, 2, dtype=torch.float64))[0]

    def value(x: Tensor, y: Tensor) -> Any:
        # Off the sphere the angles stay: the projection is normalised.
        return sliced_wasserstein_sphere(x, y, a, b, projections=planes)

    inputs = [t.clone().requires_grad_() for t in (x, y)]
    assert gradcheck(value, inputs)
    batch = sliced_wasserstein_sphere(torch.stack([x, x.flip(1)]), torch.stack([y, y]), projections=planes)
    assert_solved(batch[0], sliced_wasserstein_sphere(x, y, projections=planes))
    assert_solved(batch[1], sliced_wasserstein_sphere(x.flip(1), y, projections=planes))
    rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    turned = sliced_wasserstein_sphere(x @ rotation, y @ rotation, a, b, projections=rotation.T @ planes)
    assert_solved(turned, value(x, y))
    assert float(sliced_wasserstein_sphere(x, x.clone(), seed=0)) < 1e-6


@pytest.mark.parametrize(
    ("args", "options", "message"),
    [
        ((cloud(5, 3, 0), on_sphere(5, 3, 0)), {}, "x has a point of length"),
        ((on_sphere(5, 3, 0), 2 * on_sphere(5, 3, 0)), {}, "y has a point of length 2"),
        ((torch.ones(5, 1).double(), torch.ones(5, 1).double()), {}, "at least 2"),
        ((on_sphere(5, 3, 0), on_sphere(5, 3, 0)), {"projections": torch.ones(4, 3, 2)}, "orthonormal pairs"),
        ((on_sphere(5, 3, 0), on_sphere(5, 3, 0)), {"projections": torch.ones(3, 4)}, r"use \(L, 3, 2\)"),
        ((on_sphere(5, 3, 0), on_sphere(5, 3, 0)), {"p": 0.9}, "p is 0.9"),
    ],
)
def test_sphere_refuses(args: tuple[Any, ...], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sliced_wasserstein_sphere(*args, **options)


PRIORS = [GaussianPrior(0.3, 1.2), UniformBall(-0.2, 1.5)]


def quantile_points(prior: Any, d: int, count: int) -> Tensor:
    """Midpoint quantiles of the prior's projection on a coordinate."""
    levels = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    result: Tensor = prior.location + prior.scale * prior.quantile(levels, d)
    return result


@pytest.mark.parametrize("prior", PRIORS, ids=lambda prior: type(prior).__name__)
@pytest.mark.parametrize("d", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("p", [1, 2, 3])
def test_prior_is_the_limit_of_its_quantiles(prior: Any, d: int, p: float) -> None:
    x, a = cloud(23, d, 0), weights(23, 1)
    theta = torch.zeros(d, 1, dtype=torch.float64)
    theta[0] = 1.0
    count = 20_000
    target = quantile_points(prior, d, count).unsqueeze(1)
    one = torch.ones(1, 1, dtype=torch.float64)
    masses = torch.full((count,), 1.0 / count, dtype=torch.float64)
    for given_weights, theirs in (((), ()), ((a,), (a, masses))):
        got = sliced_wasserstein_to_prior(x, prior, *given_weights, p=p, projections=theta, root=False)
        want = sliced_wasserstein_distance(x[:, :1], target, *theirs, p=p, projections=one, root=False)
        # The target lacks what lies beyond its last points.
        assert abs(float(got - want)) < 1e-3 * float(want)


@pytest.mark.parametrize("d", [1, 2, 3, 4, 7, 10])
def test_ball_projections(d: int) -> None:
    """F, Q, H and the second moment agree with one another and with points of the ball."""
    ball = UniformBall()
    z = torch.linspace(-1, 1, 4001, dtype=torch.float64)
    distribution = ball.distribution(z, d)
    assert_solved(distribution[[0, 2000, -1]], torch.tensor([0.0, 0.5, 1.0]))
    levels = distribution[1:-1]
    assert_solved(ball.distribution(ball.quantile(levels, d), d), levels)
    middle = 0.5 * (z[1:] + z[:-1])
    moment = (middle * distribution.diff()).sum()
    assert abs(float(moment)) < REFERENCE_RTOL
    second = float((middle.square() * distribution.diff()).sum())
    assert abs(second - ball.second_moment(d)) < 1e-6
    partial = (middle * distribution.diff()).cumsum(0)
    assert float((partial - (ball.first_moment(z[1:], d) - ball.first_moment(z[:1], d))).abs().max()) < 1e-6


@pytest.mark.parametrize("prior", PRIORS, ids=lambda prior: type(prior).__name__)
@pytest.mark.parametrize("p", [1, 2])
def test_prior_derivatives(prior: Any, p: float) -> None:
    x = cloud(7, 3, 0).requires_grad_()
    theta = torch.nn.functional.normalize(torch.randn(3, 5, dtype=torch.float64), dim=0).requires_grad_()

    def value(x: Tensor, theta: Tensor) -> Any:
        return sliced_wasserstein_to_prior(x, prior, projections=theta, p=p)

    assert gradcheck(value, (x, theta))
    if p == 2:
        assert gradgradcheck(value, (x, theta))


def test_prior_has_no_noise_of_its_own() -> None:
    """A large sample of the prior is near it; to a second sample it is farther."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(4000, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    to_law = sliced_wasserstein_to_prior(x, GaussianPrior(), seed=0, return_solution=True)
    to_sample = sliced_wasserstein_distance(x, y, seed=0)
    assert float(to_law.value) < 0.9 * float(to_sample)
    assert to_law.per_projection.shape == (50,)
    moved = sliced_wasserstein_to_prior(x + 1.0, GaussianPrior(torch.ones(4).double()), seed=0)
    assert_solved(moved, to_law.value)
    batch = sliced_wasserstein_to_prior(torch.stack([x, 2 * x]), GaussianPrior(0.0, 1.0), seed=0)
    assert_solved(batch[0], to_law.value)


@pytest.mark.parametrize(
    ("args", "options", "message"),
    [
        ((cloud(5, 3, 0), "normal"), {}, "prior is 'normal'; use GaussianPrior"),
        ((cloud(5, 3, 0), GaussianPrior(std=0.0)), {}, "std is 0.0"),
        ((cloud(5, 3, 0), UniformBall(radius=-1.0)), {}, "radius is -1.0"),
        ((cloud(5, 3, 0), GaussianPrior(torch.zeros(2))), {}, "centre of shape"),
        ((cloud(5, 3, 0), GaussianPrior(), 2 * weights(5, 0)), {}, "a has mass 2"),
        (([cloud(5, 3, 0)], GaussianPrior()), {}, "ragged"),
        ((cloud(5, 3, 0) * math.nan, GaussianPrior()), {}, "x has nan"),
    ],
)
def test_prior_refuses(args: tuple[Any, ...], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        otcore.sliced_wasserstein_to_prior(*args, **options)
