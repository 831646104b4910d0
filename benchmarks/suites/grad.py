"""The gradient in the points, given potentials."""

from comparison.memory import peak_beyond

from .common import Verb


class Grad(Verb):
    dense_width = 2

    def call(self) -> object:
        return self.backend.grad(*self.problem, cost=2, eps=self.eps)

    def time_grad(self, *_: object) -> None:
        self.call()

    def track_peak_memory(self, *_: object) -> int:
        return peak_beyond(self.call)

    track_peak_memory.unit = "bytes"  # type: ignore[attr-defined]
