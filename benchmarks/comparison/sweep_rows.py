"""The sweep kernel against a bare exp2 loop over as many values, and its gain from a second thread.

Uniform clouds at eps = 1: every pair counts, nothing can be pruned.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Iterator

import torch
from clouds import pair

from .exp2_loop import Exp2Loop
from .line import Check, Line, duration
from .machine import instruction_set
from .options import Options
from .timing import interleave

POINTS, DIMENSION, EPS = 5000, 2, 1.0
PAIRS = POINTS * POINTS
LOOP_BAR, THREADS_BAR = 1.6, 1.8
FP32_ERROR = 1e-5  # in log r and log c, against dense in fp64
IDLE_GAIN = 1.7
LOOP_ERROR = 1e-6  # relative, of the bare loop's sum


def loop_lines(options: Options) -> Iterator[Line]:
    """The sweep's time over the bare loop's, on all threads."""
    sweep, check = _sweep()
    loop = Exp2Loop(instruction_set())
    threads = torch.get_num_threads()
    _refuse_unless_idle(loop)
    ours, bare = [], []
    for _ in range(options.rounds):
        ours.append(interleave({"sweep": sweep}, 1).median("sweep"))
        bare.append(loop.seconds(PAIRS, threads))
    time, least = statistics.median(ours), statistics.median(bare)
    yield Line(
        row=f"sweep {POINTS}x{DIMENSION}",
        against=f"exp2 loop, {threads} threads",
        ours=f"{duration(time)} ({time / PAIRS * 1e9:.3f} ns/pair)",
        theirs=f"{duration(least)} ({least / PAIRS * 1e9:.3f} ns/value)",
        figure=statistics.median(o / b for o, b in zip(ours, bare, strict=True)),
        bar=LOOP_BAR,
        at_least=False,
        check=Check(check.ok and loop.error() < LOOP_ERROR, f"{check.text}; loop {loop.error():.0e}"),
        detail=f"{time / least:.3g} x of medians",
    )


def one_thread_lines(options: Options) -> Iterator[Line]:
    """The same on one thread, where a second busy program disturbs less."""
    sweep, check = _sweep()
    loop = Exp2Loop(instruction_set())
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        pairs = [
            (interleave({"sweep": sweep}, 1).median("sweep"), loop.seconds(PAIRS, 1))
            for _ in range(options.rounds)
        ]
    finally:
        torch.set_num_threads(before)
    time, least = (statistics.median(column) for column in zip(*pairs, strict=True))
    yield Line(
        row=f"sweep {POINTS}x{DIMENSION} one thread",
        against="exp2 loop, one thread",
        ours=f"{duration(time)} ({time / PAIRS * 1e9:.3f} ns/pair)",
        theirs=f"{duration(least)} ({least / PAIRS * 1e9:.3f} ns/value)",
        figure=statistics.median(ours / bare for ours, bare in pairs),
        bar=LOOP_BAR,
        at_least=False,
        check=check,
        detail=f"{time / least:.3g} x of medians",
    )


def threads_lines(options: Options) -> Iterator[Line]:
    """Two threads against one; beside it the bare loop's own gain, which shows what the machine gives."""
    sweep, check = _sweep()
    loop = Exp2Loop(instruction_set())
    _refuse_unless_idle(loop)
    before = torch.get_num_threads()

    def on(threads: int) -> Callable[[], object]:
        def work() -> None:
            torch.set_num_threads(threads)
            sweep()

        return work

    try:
        timings = interleave({"one": on(1), "two": on(2)}, options.rounds)
    finally:
        torch.set_num_threads(before)
    yield Line(
        row=f"sweep {POINTS}x{DIMENSION} threads",
        against="one thread",
        ours=duration(timings.median("two")),
        theirs=duration(timings.median("one")),
        figure=timings.ratio("one", "two"),
        bar=THREADS_BAR,
        at_least=True,
        check=check,
        detail=f"exp2 loop gains {loop.gain(PAIRS):.3g} x",
    )


def _refuse_unless_idle(loop: Exp2Loop) -> None:
    """RuntimeError when other programs hold the cores: threads that wait for each other then measure
    those."""
    gain = max(loop.gain(PAIRS) for _ in range(3))
    if gain < IDLE_GAIN:
        raise RuntimeError(
            f"the machine is busy: a second thread makes the bare exp2 loop {gain:.2g} x as fast"
        )


@functools.cache
def _sweep() -> tuple[Callable[[], object], Check]:
    """One sweep of the cpu backend in fp32, near the optimum (eight averaged updates), and whether it is
    right.

    RuntimeError when the backend is not usable here.
    """
    from otcore import backends

    cpu, dense = backends.load("cpu"), backends.load("dense")
    if isinstance(cpu, str) or isinstance(dense, str):
        raise RuntimeError(f"backend cpu: {cpu}; backend dense: {dense}")
    x, y = (points.float().unsqueeze(0) for points in pair("uniform", POINTS, DIMENSION))
    a = torch.full((1, POINTS), 1 / POINTS)
    f, g = torch.zeros_like(a), torch.zeros_like(a)
    for _ in range(8):
        log_r, log_c = cpu.sweep(x, y, f, g, a, a, cost=2, eps=EPS)
        f, g = f - EPS * log_r / 2, g - EPS * log_c / 2
    arguments = (x, y, f, g, a, a)
    found = cpu.sweep(*arguments, cost=2, eps=EPS)
    exact = dense.sweep(*(t.double() for t in arguments), cost=2, eps=EPS)
    error = max(float((u.double() - v).abs().max()) for u, v in zip(found, exact, strict=True))
    return lambda: cpu.sweep(*arguments, cost=2, eps=EPS), Check(
        error <= FP32_ERROR, f"log r, log c off by {error:.1e}"
    )


ROWS = {
    f"sweep {POINTS}x{DIMENSION}": loop_lines,
    f"sweep {POINTS}x{DIMENSION} one thread": one_thread_lines,
    f"sweep {POINTS}x{DIMENSION} threads": threads_lines,
}
