"""Priors against their moments, their sectors against geometry."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import kstest

from otcore_ae.priors import (
    Bowl,
    Circle,
    Dirichlet,
    Disk,
    Flower,
    GaussianMixture,
    Normal,
    Prior,
    Ring,
    Sphere,
    Uniform,
    prior_name,
    sectors_of,
)

PLANE = [Flower(), Flower(stratified=False), Normal(dim=3), Uniform(dim=3), Ring(), Circle(), Disk(), Bowl()]
PRIORS = [*PLANE, Sphere(3), Dirichlet(4, 0.1), GaussianMixture(((0.0, 1.0), (2.0, 0.0)))]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("prior", PRIORS, ids=repr)
def test_a_prior_is_a_function_of_the_generator(prior: Prior) -> None:
    assert torch.equal(prior(50, generator()), prior(50, generator()))
    assert not torch.equal(prior(50, generator()), prior(50, generator(1)))
    assert prior(7, generator()).dtype == torch.float32
    assert isinstance(prior, Prior)


@pytest.mark.parametrize("petal", range(10))
def test_each_petal_has_the_published_mean_and_covariance(petal: int) -> None:
    points = Flower()(200_000, generator())[petal::10].double()
    cos, sin = math.cos(2 * math.pi * petal / 10), math.sin(2 * math.pi * petal / 10)
    expected = torch.tensor(
        [
            [cos**2 + sin**2 / 100, cos * sin * (1 - 1 / 100)],
            [cos * sin * (1 - 1 / 100), sin**2 + cos**2 / 100],
        ],
        dtype=torch.double,
    )
    deviation = 1 / math.sqrt(len(points))
    assert (points.mean(0) - torch.tensor([3 * cos, 3 * sin])).abs().max() < 4 * deviation
    assert (points.T.cov() - expected).abs().max() < 6 * deviation


@pytest.mark.parametrize("n", [100, 103])
def test_stratified_petals_differ_by_at_most_one_point(n: int) -> None:
    counts = torch.bincount(Flower().petal_of(n), minlength=10)
    assert counts.sum() == n
    assert counts.max() - counts.min() <= 1


def test_independent_petals_have_binomial_counts() -> None:
    prior = Flower(spread=(0.1, 0.01), stratified=False)
    counts = torch.bincount(prior.sectors.assign(prior(10_000, generator())), minlength=10)
    assert counts.max() > counts.min() + 1
    assert (counts - 1000).abs().max() < 5 * math.sqrt(10_000 * 0.1 * 0.9)


def test_normal_and_uniform_moments() -> None:
    normal, uniform = Normal(2)(100_000, generator()), Uniform(2)(100_000, generator())
    assert normal.mean(0).abs().max() < 0.02
    assert (normal.T.cov() - torch.eye(2)).abs().max() < 0.03
    assert uniform.abs().max() <= 1
    assert (uniform.T.cov() - torch.eye(2) / 3).abs().max() < 0.01


@pytest.mark.parametrize("petals", [2, 5, 10])
def test_sectors_are_the_nearest_petal_axes(petals: int) -> None:
    flower = Flower(petals=petals)
    points = Normal(2)(5000, generator())
    axes = torch.tensor([2 * math.pi * j / petals for j in range(petals)])
    nearest = (points @ torch.stack([axes.cos(), axes.sin()])).argmax(1)
    assert torch.equal(flower.sectors.assign(points), nearest)


@pytest.mark.parametrize("petal", [0, 3, 9])
def test_a_petal_is_uniform_on_its_square(petal: int) -> None:
    flower = Flower()
    square = flower.sectors.to_square(flower(20_000, generator())[petal::10], petal)
    for coordinate in square.T:
        assert kstest(coordinate.numpy(), "uniform").pvalue > 1e-3
    assert square.T.corrcoef()[0, 1].abs() < 0.1


def test_metadata() -> None:
    def spiral(n: int, generator: torch.Generator | None = None) -> torch.Tensor:
        return torch.zeros(n, 2)

    assert [prior_name(prior) for prior in (Flower(), Normal(), Uniform(), spiral)] == [
        "flower",
        "normal",
        "uniform",
        "spiral",
    ]
    assert sectors_of(Flower()).count == 10
    assert sectors_of(Normal()) is None
    assert sectors_of(spiral) is None


@pytest.mark.parametrize(("prior", "power"), [(Circle(), 1), (Disk(), 2), (Bowl(), 4)], ids=repr)
def test_radii_and_angles_over_the_disk(prior: Prior, power: int) -> None:
    """P(radius < r) = r^power."""
    points = prior(20_000, generator())
    assert kstest(points.norm(dim=1).numpy() ** power, "uniform").pvalue > 1e-3
    angles = torch.atan2(points[:, 1], points[:, 0]) / (2 * math.pi) + 0.5
    assert kstest(angles.numpy(), "uniform").pvalue > 1e-3


def test_a_ring_has_the_published_width() -> None:
    points = Ring()(20_000, generator())
    assert kstest((points.norm(dim=1).numpy() - 1) / 0.01, "norm").pvalue > 1e-4


def test_uniform_between_bounds() -> None:
    points = Uniform(dim=2, low=0.0, high=1.0)(20_000, generator())
    assert kstest(points[:, 1].numpy(), "uniform").pvalue > 1e-3


@pytest.mark.parametrize("dim", [2, 5])
def test_sphere(dim: int) -> None:
    """Unit lengths, mean zero, covariance I / dim."""
    points = Sphere(dim)(50_000, generator()).double()
    assert (points.norm(dim=1) - 1).abs().max() < 1e-6
    assert points.mean(0).abs().max() < 5 / 50_000**0.5
    assert (points.T @ points / len(points) - torch.eye(dim) / dim).abs().max() < 5 / 50_000**0.5


@pytest.mark.parametrize(("dim", "concentration"), [(3, 0.5), (4, 2.0), (3, 1e-3)])
def test_dirichlet(dim: int, concentration: float) -> None:
    """On the simplex, with the known variance (k - 1) / (k^2 (k c + 1)) of each coordinate."""
    points = Dirichlet(dim, concentration)(50_000, generator()).double()
    assert torch.isfinite(points).all()
    assert (points.sum(1) - 1).abs().max() < 1e-6
    assert points.min() >= 0
    assert (points.mean(0) - 1 / dim).abs().max() < 0.01
    variance = (dim - 1) / (dim**2 * (dim * concentration + 1))
    assert points.var(0).tolist() == pytest.approx([variance] * dim, rel=0.05)


def test_mixture() -> None:
    """Each Gaussian's share, mean and spread."""
    prior = GaussianMixture(((0.0, 0.0), (10.0, 0.0)), spread=0.2, weights=(0.25, 0.75))
    points = prior(40_000, generator())
    right = points[:, 0] > 5
    assert right.double().mean().item() == pytest.approx(0.75, abs=0.01)
    assert points[right].mean(0).tolist() == pytest.approx([10, 0], abs=0.01)
    assert points[right].std(0).tolist() == pytest.approx([0.2, 0.2], rel=0.03)
    assert prior.dim == 2
    with pytest.raises(ValueError, match="2 shares that sum to 1"):
        GaussianMixture(((0.0,), (1.0,)), weights=(0.5, 0.6))
    with pytest.raises(ValueError, match="points of one dimension"):
        GaussianMixture(((0.0,), (1.0, 2.0)))
