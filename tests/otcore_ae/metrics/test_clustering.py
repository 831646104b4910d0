"""Clustering metrics against counts done by hand and by brute force."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from torch import Tensor

from otcore_ae.metrics import cluster_matching, local_clustering
from otcore_ae.priors import Flower


def clumps(sizes: list[int]) -> Tensor:
    """Tight groups of points, far apart."""
    spots = [
        torch.tensor([100.0 * k, 0.0]) + 0.01 * torch.arange(2 * n).reshape(n, 2) for k, n in enumerate(sizes)
    ]
    return torch.cat(spots)


def petal_centres(petals: Tensor, count: int = 10) -> Tensor:
    angle = 2 * torch.pi * petals / count
    return 3 * torch.stack([angle.cos(), angle.sin()], dim=1)


def test_pure_groups_are_perfect() -> None:
    assert local_clustering(clumps([10, 12]), torch.tensor([0] * 10 + [1] * 12)) == 1.0


def test_one_stranger_spoils_its_whole_group() -> None:
    labels = torch.tensor([0] * 10 + [1] * 9 + [0] + [2] * 10)
    assert local_clustering(clumps([10, 10, 10]), labels) == pytest.approx(2 / 3)


def test_the_point_counts_among_its_neighbours() -> None:
    labels = torch.tensor([0] * 4 + [1] * 4)
    assert local_clustering(clumps([4, 4]), labels, neighbours=4) == 1.0
    assert local_clustering(clumps([4, 4]), labels, neighbours=5) == 0.0
    assert local_clustering(clumps([4, 4]), torch.arange(8), neighbours=1) == 1.0


def test_against_sorted_distances() -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(200, 2, generator=generator)
    labels = (points[:, 0] > 0).long()
    nearest = torch.cdist(points.double(), points.double()).argsort(dim=1)[:, :10]
    expected = (labels[nearest] == labels[:, None]).all(1).double().mean().item()
    assert 0.5 < expected < 1
    assert local_clustering(points, labels) == pytest.approx(expected)


def test_too_few_points() -> None:
    with pytest.raises(ValueError, match=r"at least neighbours=10 points, got 4"):
        local_clustering(torch.zeros(4, 2), torch.zeros(4))


def test_any_relabelling_of_the_petals_is_perfect() -> None:
    petals = torch.arange(50) % 10
    relabelled = torch.randperm(10, generator=torch.Generator().manual_seed(0))[petals]
    assert cluster_matching(petal_centres(petals), relabelled, Flower().sectors) == 1.0


def test_everything_in_one_petal() -> None:
    labels = torch.tensor([0, 0, 0, 1, 2])
    assert cluster_matching(petal_centres(torch.zeros(5)), labels, Flower().sectors) == pytest.approx(3 / 5)


def test_against_all_assignments() -> None:
    flower = Flower(petals=4, stratified=False)
    points = flower(300, torch.Generator().manual_seed(0))
    labels = (points[:, 0] > 1).long() + 2 * (points[:, 1] + points[:, 0] > 0).long()
    sector = flower.sectors.assign(points)
    best = max(
        (torch.tensor(image)[sector] == labels).double().mean().item() for image in permutations(range(4))
    )
    assert cluster_matching(points, labels, flower.sectors) == pytest.approx(best)


def test_published_ends() -> None:
    n = 10_000
    generator = torch.Generator().manual_seed(0)
    flower = Flower()
    points = flower(n, generator)
    petals, random = flower.petal_of(n), torch.randint(10, (n,), generator=generator)
    assert local_clustering(points, petals) == pytest.approx(0.987, abs=0.004)
    assert cluster_matching(points, petals, flower.sectors) == pytest.approx(0.996, abs=0.003)
    assert local_clustering(points, random) == pytest.approx(0.0, abs=0.001)
    assert cluster_matching(points, random, flower.sectors) == pytest.approx(0.116, abs=0.006)
