"""fp32 errors of otcore beside those of plain dense torch, on problems that are hard for fp32.

Where blur is small, the error of one problem hangs on its nearest tie and varies tenfold: what is compared
is the geometric mean over several problems, and besides it the worst of them, coarsely.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass

import torch
from torch import Tensor

from otcore import SamplesLoss
from tests.parity import geomloss_reference as reference
from tests.parity import plain

SCALING = 0.5
ROUNDING = 2.0**-24  # relative, of the result itself in fp32: added to every error


@dataclass(frozen=True)
class Hard:
    """Clouds of n and n + 17 points in d dimensions, their means `apart` diameters from each other,
    compared at blur = diameter / ratio."""

    d: int
    apart: float
    ratio: float
    p: int = 2
    n: int = 80

    def clouds(self, seed: int) -> tuple[Tensor, Tensor, float]:
        """x, y in fp64 with the values of fp32, and blur."""
        draw = torch.Generator().manual_seed(seed)
        x = torch.randn(self.n, self.d, generator=draw, dtype=torch.float64)
        y = 0.8 * torch.randn(self.n + 17, self.d, generator=draw, dtype=torch.float64)
        across = plain.diameter(x, y)
        y = y + self.apart * across / self.d**0.5
        return x.float().double(), y.float().double(), across / self.ratio


@dataclass(frozen=True)
class Errors:
    """Errors of one result (value, d/dx, d/dy, f or g) in fp32 against fp64, relative, one per problem."""

    otcore: list[float]
    torch: list[float]

    @property
    def typical(self) -> tuple[float, float]:
        return statistics.geometric_mean(self.otcore), statistics.geometric_mean(self.torch)

    @property
    def worst(self) -> tuple[float, float]:
        return max(self.otcore), max(self.torch)


def errors(hard: Hard, seeds: range) -> dict[str, Errors]:
    """By result."""
    ours, torchs = [], []
    for seed in seeds:
        x, y, blur = hard.clouds(seed)
        exact = _plain(x, y, hard.p, blur)
        ours.append(reference.errors(_otcore(x.float(), y.float(), hard.p, blur), exact))
        torchs.append(reference.errors(_plain(x.float(), y.float(), hard.p, blur), exact))
    return {
        name: Errors([row[name] + ROUNDING for row in ours], [row[name] + ROUNDING for row in torchs])
        for name in ours[0]
    }


def _otcore(x: Tensor, y: Tensor, p: int, blur: float) -> reference.Results:
    loss = SamplesLoss(p=p, blur=blur, scaling=SCALING)
    f, g = SamplesLoss(p=p, blur=blur, scaling=SCALING, potentials=True)(x, y)
    return reference.measure(loss, x, y) | {"f": f, "g": g}


def _plain(x: Tensor, y: Tensor, p: int, blur: float) -> reference.Results:
    answer = plain.samples_loss(x, y, p=p, blur=blur, scaling=SCALING)
    return {
        "value": answer.value,
        "d/dx": answer.grad_x,
        "d/dy": answer.grad_y,
        "f": answer.f,
        "g": answer.g,
    }
