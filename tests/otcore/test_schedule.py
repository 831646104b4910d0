"""Temperature schedules."""

from __future__ import annotations

import numpy
import torch

from otcore.schedule import annealing_temperatures, bounding_box_diagonal, extrapolated, geomloss_temperatures


def test_annealing() -> None:
    assert annealing_temperatures(1.0, 0.04, 0.5, 2) == [1.0, 0.25, 0.0625, 0.04]
    assert annealing_temperatures(1.0, 0.25, 0.5, 1) == [1.0, 0.5, 0.25]
    assert annealing_temperatures(0.1, 0.04, 0.5, 2) == [0.04]
    assert annealing_temperatures(0.0, 0.04, 0.5, 2) == [0.04]


def test_geomloss() -> None:
    for diameter, blur, scaling, p in (
        (1.7, 0.05, 0.5, 2),
        (3.0, 0.1, 0.9, 1),
        (1.6, 0.05, 0.5, 2),
        (0.01, 0.05, 0.95, 2),
    ):
        middle = numpy.arange(p * numpy.log(diameter), p * numpy.log(blur), p * numpy.log(scaling))
        want = [diameter**p, *numpy.exp(middle), blur**p]
        numpy.testing.assert_allclose(geomloss_temperatures(diameter, blur, scaling, p), want, rtol=1e-14)
    assert geomloss_temperatures(0.0, 0.05, 0.5, 2) == [0.05**2]


def test_bounding_box() -> None:
    x = torch.tensor([[[0.0, 0.0], [3.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    y = torch.tensor([[[0.0, 4.0]], [[0.0, 1.0]]])
    assert bounding_box_diagonal(x, y).tolist() == [5.0, 1.0]


def test_extrapolation_is_linear() -> None:
    eps = [torch.tensor([[e]]) for e in (4.0, 2.0, 1.0)]
    line = [3.0 * e + 1.0 for e in eps]
    torch.testing.assert_close(extrapolated(line[1], line[0], eps[1], eps[0], eps[2]), line[2])
