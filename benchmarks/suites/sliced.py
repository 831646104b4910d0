"""Sliced distances: value and gradient."""

from __future__ import annotations

import torch
from clouds import pair
from comparison.memory import peak_beyond


class Sliced:
    params = ([500, 10_000], [2, 64], [50, 200])
    param_names = ("N", "D", "L")
    warmup_time = 0.05

    def setup(self, n: int, d: int, directions: int) -> None:
        x, y = (t.float() for t in pair("normal", n, d))
        self.x, self.y = x.requires_grad_(), y
        theta = torch.randn(d, directions, generator=torch.Generator().manual_seed(0))
        self.theta = torch.nn.functional.normalize(theta, dim=0)

    def call(self) -> object:
        from otcore import sliced_wasserstein_distance

        value = sliced_wasserstein_distance(self.x, self.y, projections=self.theta)
        return torch.autograd.grad(value, self.x)

    def time_sliced(self, *_: object) -> None:
        self.call()

    def track_peak_memory(self, *_: object) -> int:
        return peak_beyond(self.call)

    track_peak_memory.unit = "bytes"  # type: ignore[attr-defined]
