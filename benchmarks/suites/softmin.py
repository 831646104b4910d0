"""The safe half-step."""

from comparison.memory import peak_beyond

from .common import Verb


class Softmin(Verb):
    def call(self) -> object:
        x, y, _, g, _, b = self.problem
        return self.backend.softmin(x, y, g, b, cost=2, eps=self.eps)

    def time_softmin(self, *_: object) -> None:
        self.call()

    def track_peak_memory(self, *_: object) -> int:
        return peak_beyond(self.call)

    track_peak_memory.unit = "bytes"  # type: ignore[attr-defined]
