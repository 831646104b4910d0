"""Temperature schedules: from the diameter of the data down to the wanted blur."""

from __future__ import annotations

import math

import numpy
import torch
from torch import Tensor

# The largest temperature that an annealing starts from.
_LARGEST = 1e300


def bounding_box_diagonal(x: Tensor, y: Tensor) -> Tensor:
    """The diagonal of the joint bounding box of each item of x (B, N, D) and y (B, M, D); (B,)."""
    low = torch.minimum(x.amin(1), y.amin(1))
    high = torch.maximum(x.amax(1), y.amax(1))
    diagonal: Tensor = torch.linalg.vector_norm(high - low, dim=-1)
    return diagonal


def joint_diameter(x: Tensor, y: Tensor) -> float:
    """The diagonal of the bounding box of all points of x (B, N, D) and y (B, M, D) together."""
    extremes = torch.cat([x.flatten(0, 1), y.flatten(0, 1)]).aminmax(dim=0)
    return float(torch.linalg.vector_norm(extremes.max - extremes.min))


def annealing_temperatures(diameter: float, eps: float, scaling: float, p: int) -> list[float]:
    """eps_k = max(diameter scaling^k, blur)^p for k = 0, 1, ...; just [eps] when diameter <= blur.

    A diameter that overflows makes no schedule; of a given one, lengths whose temperature does are left out.
    """
    blur = eps ** (1.0 / p)
    temperatures = []
    length = 0.0 if math.isinf(diameter) else min(diameter, _LARGEST ** (1.0 / p))
    while length > blur:
        temperatures.append(length**p)
        length *= scaling
    return [*temperatures, eps]


def geomloss_temperatures(diameter: float, blur: float, scaling: float, p: int) -> list[float]:
    """GeomLoss's `epsilon_schedule`, number for number: diameter^p stands twice, and blur^p ends it.

    A diameter below the blur gives [diameter^p, blur^p], as there.
    """
    if diameter <= 0.0:
        return [blur**p]
    logarithms = numpy.arange(p * math.log(diameter), p * math.log(blur), p * math.log(scaling))
    return [diameter**p, *(math.exp(t) for t in logarithms), blur**p]


def extrapolated(f: Tensor, previous: Tensor, eps: Tensor, eps_previous: Tensor, eps_next: Tensor) -> Tensor:
    """The line through (eps_previous, previous) and (eps, f), at eps_next."""
    return f + (eps_next - eps) / (eps - eps_previous) * (f - previous)
