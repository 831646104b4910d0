"""Covered area against hand-made cases, a slow second implementation, and the published ceiling."""

from __future__ import annotations

import math
from statistics import NormalDist

import pytest
import torch

from otcore_ae.metrics import covered_area
from otcore_ae.priors import Flower, Normal

FLOWER = Flower()


def slow_covered_area(points: torch.Tensor) -> float:
    """The definition, point by point and cell by cell."""
    phi = NormalDist().cdf
    by_petal: dict[int, list[tuple[float, float]]] = {j: [] for j in range(10)}
    for x, y in points.tolist():
        j = math.floor((math.floor(10 * (math.atan2(y, x) % (2 * math.pi)) / math.pi) + 1) / 2) % 10
        turn = complex(x, y) * complex(math.cos(2 * math.pi * j / 10), -math.sin(2 * math.pi * j / 10))
        by_petal[j].append((phi(turn.real - 3), phi(10 * turn.imag)))
    shares = []
    for members in by_petal.values():
        resolution = math.floor(math.sqrt(4 * len(members)) * 1.1)
        marked = set()
        for u, v in members:
            row, column = math.floor(resolution * u), math.floor(resolution * v)
            if row and column:
                marked |= {(row + i, column + j) for i in range(-2, 2) for j in range(-2, 2)}
        inside = [cell for cell in marked if min(cell) >= 0 and max(cell) < resolution]
        shares.append(len(inside) / resolution**2 if members else 0.0)
    return sum(shares) / 10


@pytest.mark.parametrize("seed", range(3))
def test_against_the_definition(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for points in (FLOWER(500, generator), 2 * Normal()(300, generator)):
        assert covered_area(points, FLOWER.sectors) == pytest.approx(slow_covered_area(points.double()))


def test_one_point_at_a_petals_median_covers_that_petal() -> None:
    assert covered_area(torch.tensor([[3.0001, 0.0001]]), FLOWER.sectors) == pytest.approx(0.1)


def test_a_point_in_the_first_cells_marks_nothing() -> None:
    assert covered_area(torch.tensor([[2.0, 0.0001]]), FLOWER.sectors) == 0.0


def test_a_collapsed_cloud_covers_next_to_nothing() -> None:
    points = torch.tensor([[3.0, 0.0]]).repeat(1000, 1)
    resolution = int(math.sqrt(4000) * 1.1)
    assert covered_area(points, FLOWER.sectors) == pytest.approx(16 / resolution**2 / 10)


@pytest.mark.parametrize(("stratified", "ceiling"), [(True, 0.954), (False, 0.951)])
def test_published_ceiling(stratified: bool, ceiling: float) -> None:
    flower = Flower(stratified=stratified)
    points = flower(10_000, torch.Generator().manual_seed(0))
    assert covered_area(points, flower.sectors) == pytest.approx(ceiling, abs=0.004)
