"""Both half-steps in one pass, one exponential a pair; and the self-term, half of that."""

import torch
from comparison.memory import peak_beyond

from .common import Verb


class Sweep(Verb):
    def call(self) -> object:
        return self.backend.sweep(*self.problem, cost=2, eps=self.eps)

    def time_sweep(self, *_: object) -> None:
        self.call()

    def track_peak_memory(self, *_: object) -> int:
        return peak_beyond(self.call)

    track_peak_memory.unit = "bytes"  # type: ignore[attr-defined]


class SelfSweep(Verb):
    def setup(self, backend: str, n: int, d: int, blur: float) -> None:
        """The potential from which a solve starts its self-terms."""
        super().setup(backend, n, d, blur)
        x, _, f, _, a, _ = self.problem
        f = self.backend.softmin(x, x, torch.zeros_like(f), a, cost=2, eps=self.eps)
        self.problem = (x, x, f, f, a, a)

    def call(self) -> object:
        return self.backend.sweep(*self.problem, cost=2, eps=self.eps, same=True)

    def time_self_sweep(self, *_: object) -> None:
        self.call()
