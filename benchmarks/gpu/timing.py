"""Times on a GPU, by events, interleaved; and the time that is left for all of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from comparison.timing import Timings, Work

# Seconds a call, of so many calls one after another.
Timer = Callable[[Work, int], float]

_SHARE = 0.02  # seconds of calls that are timed together: work of microseconds is queued ahead
_MOST_CALLS = 100


def event_seconds(work: Work, calls: int) -> float:
    """By CUDA events on the current stream."""
    import torch

    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(calls):
        work()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000 / calls


def race(contenders: dict[str, Work], timer: Timer, rounds: int = 5) -> Timings:
    """Each contender in turn, `rounds` times over, in rotating order; two calls before do not count."""
    calls = {}
    for name, work in contenders.items():
        timer(work, 1)
        calls[name] = max(1, min(_MOST_CALLS, math.ceil(_SHARE / max(timer(work, 1), 1e-9))))
    names = list(contenders)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            seconds[name].append(timer(contenders[name], calls[name]))
    return Timings(seconds)


def median_seconds(work: Work, timer: Timer) -> float:
    return race({"": work}, timer).median("")


@dataclass
class Budget:
    """Seconds for everything, from when it is made."""

    seconds: float
    clock: Callable[[], float] = time.monotonic
    start: float = field(init=False)

    def __post_init__(self) -> None:
        self.start = self.clock()

    @property
    def left(self) -> float:
        return self.seconds - (self.clock() - self.start)
