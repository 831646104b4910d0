"""Interleaved timing: every contender once per round, so that a slow minute of the machine hits all of
them."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

Work = Callable[[], object]

SETTLE = 0.01  # seconds between contenders: another library's threads spin for a while after their last task
SLOW = 2.0  # seconds; what takes longer is warmed up by one call, anything else by two


@dataclass(frozen=True)
class Timings:
    """Seconds per call of each contender, one figure per round (the median of that round's calls)."""

    rounds: dict[str, list[float]]

    def median(self, name: str) -> float:
        return statistics.median(self.rounds[name])

    def ratio(self, slow: str, fast: str) -> float:
        """Median over rounds of (seconds of `slow`) / (seconds of `fast`)."""
        pairs = zip(self.rounds[slow], self.rounds[fast], strict=True)
        return statistics.median(s / f for s, f in pairs)

    def ratio_of_medians(self, slow: str, fast: str) -> float:
        return self.median(slow) / self.median(fast)


def seconds(work: Work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def interleave(contenders: dict[str, Work], rounds: int, share: float = 0.1) -> Timings:
    """Times each contender in turn, `rounds` times over.

    Warm-ups are not counted. Within a round a contender is called often enough to fill about `share`
    seconds (at least once, at most 200 times) and the round's figure is the median call. The order of the
    contenders is rotated from round to round.
    """
    calls = {}
    for name, work in contenders.items():
        once = seconds(work)
        if once < SLOW:
            once = min(once, seconds(work))
        calls[name] = max(1, min(200, math.ceil(share / max(once, 1e-6))))
    names = list(contenders)
    result: dict[str, list[float]] = {name: [] for name in names}
    gc.collect()
    collecting = gc.isenabled()
    gc.disable()
    try:
        for r in range(rounds):
            turn = r % len(names)
            for name in names[turn:] + names[:turn]:
                time.sleep(SETTLE)
                result[name].append(statistics.median(seconds(contenders[name]) for _ in range(calls[name])))
    finally:
        if collecting:
            gc.enable()
    return Timings(result)
