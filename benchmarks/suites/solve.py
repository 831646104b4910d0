"""Whole solves, forward and backward: GeomLoss's schedule, and converged to the default tolerance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from clouds import pair
from comparison.memory import peak_beyond
from torch import Tensor

from .common import BACKENDS, load, solver_step

SIZES = {  # cloud, N, D, blur
    "normal 128x8 .05": ("normal", 128, 8, 0.05),
    "normal 500x16 .5": ("normal", 500, 16, 0.5),
    "manifold 2000x8 .2": ("manifold", 2000, 8, 0.2),
    "flower 2000x2 .05": ("flower", 2000, 2, 0.05),
    "flower 5000x2 .05": ("flower", 5000, 2, 0.05),
    "normal 5000x64 1": ("normal", 5000, 64, 1.0),
}


class Solve:
    params: tuple[list[Any], ...] = (BACKENDS, list(SIZES))
    param_names = ("backend", "problem")
    timeout = 300

    def setup(self, backend: str, problem: str) -> None:
        cloud, n, d, blur = SIZES[problem]
        if backend == "dense" and n > 500:
            raise NotImplementedError("the dense backend takes minutes here")
        load(backend)
        x, y = (points.float() for points in pair(cloud, n, d))
        self.step = solver_step(self.loss(backend, blur), x, y)

    def loss(self, backend: str, blur: float) -> Callable[[Tensor, Tensor], Tensor]:
        raise NotImplementedError


class SamplesLossSchedule(Solve):
    def loss(self, backend: str, blur: float) -> Callable[[Tensor, Tensor], Tensor]:
        from otcore import SamplesLoss

        return SamplesLoss(blur=blur, scaling=0.7, backend=backend)

    def time_samples_loss(self, *_: object) -> None:
        self.step()

    def track_peak_memory(self, *_: object) -> int:
        return peak_beyond(self.step)

    track_peak_memory.unit = "bytes"  # type: ignore[attr-defined]


class Converged(Solve):
    def loss(self, backend: str, blur: float) -> Callable[[Tensor, Tensor], Tensor]:
        from otcore import sinkhorn_divergence

        return lambda x, y: sinkhorn_divergence(x, y, blur=blur, backend=backend)

    def time_divergence(self, *_: object) -> None:
        self.step()

    def track_peak_memory(self, *_: object) -> int:
        return peak_beyond(self.step)

    track_peak_memory.unit = "bytes"  # type: ignore[attr-defined]
