"""Predicted times of the GPU kernels, from their machine code; no GPU is needed, and none is used.

    python -m benchmarks.gpu.predict            writes benchmarks/results/gpu-predicted.md
    python -m benchmarks.gpu.predict --check    compares its counts with what is built now

The time of a launch is the largest of what it asks of each pipe by that pipe's rate, and of its bytes by the
bandwidth. The counts are those of the CUDA extension that is installed, and of what Triton compiles.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from comparison.line import duration

from benchmarks.gpu import kernels
from benchmarks.gpu.chips import CHIPS, Chip
from benchmarks.gpu.kernels import Counted, Work
from tests.kernels import compiled

RESULT = Path(__file__).parents[1] / "results/gpu-predicted.md"
PIPES = ("issue", "fma", "imad", "alu", "mufu", "fp64", "lsu", "l2", "matrix")
DIFFERENCE = 0.1  # of a count, from the table's
_LEAST = 0.5  # counts below are not compared: they bind nothing

Counts = dict[tuple[str, int], Counted]


@dataclass(frozen=True)
class Prediction:
    """seconds, the pipe (or "memory") that takes them, and the share of the ceiling that this leaves.

    The ceiling is that of one exponential a pair, or of the products of pairs, whichever takes longer.
    """

    seconds: float
    binding: str
    share: float
    ceiling: str


def predict(pipes: Mapping[str, float], work: Work, chip: Chip) -> Prediction:
    times = {pipe: chip.seconds(pipe, asked * work.pairs) for pipe, asked in pipes.items()}
    times["memory"] = work.octets / chip.bandwidth
    binding = max(times, key=lambda name: times[name])
    ceilings = {"exp": chip.seconds("mufu", work.pairs), "matrix": times.get("matrix", 0.0)}
    ceiling = max(ceilings, key=lambda name: ceilings[name])
    return Prediction(times[binding], binding, ceilings[ceiling] / times[binding], ceiling)


def count_table(counted: Iterable[Counted]) -> list[str]:
    headings = ("kernel", "code", "registers", "blocks", *PIPES)
    lines = [_row(headings), _row("---" for _ in headings)]
    for one in counted:
        blocks = min(
            chip.resident(one.registers, one.shared, one.warps)
            for chip in CHIPS
            if chip.capability == one.capability
        )
        asked = (f"{one.pipes.get(pipe, 0):.2f}" for pipe in PIPES)
        lines.append(_row((one.kernel, f"sm_{one.capability}", str(one.registers), str(blocks), *asked)))
    return lines


def read_counts(text: str) -> dict[tuple[str, int], dict[str, float]]:
    """What `count_table` wrote."""
    found = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 4 + len(PIPES) and cells[1].startswith("sm_"):
            asked = (float(cell) for cell in cells[4:])
            found[cells[0], int(cells[1].removeprefix("sm_"))] = dict(zip(PIPES, asked, strict=True))
    return found


def differences(text: str, counted: Iterable[Counted]) -> list[str]:
    """Where the table in the text is not about what was counted, in words."""
    known, found = read_counts(text), []
    for one in counted:
        table = known.get((one.kernel, one.capability))
        where = f"{one.kernel}, sm_{one.capability}"
        if table is None:
            found.append(f"{where}: not in the table")
            continue
        for pipe, written in table.items():
            now = one.pipes.get(pipe, 0.0)
            if max(now, written) >= _LEAST and abs(now - written) > DIFFERENCE * written:
                found.append(f"{where}: {now:.2f} {pipe} a pair, {written:.2f} in the table")
    return found


def time_table(counts: Counts, works: Iterable[Work]) -> list[str]:
    headings = (
        "kernel",
        "pairs",
        *(chip.name for chip in CHIPS),
        *(f"share, {chip.name}" for chip in CHIPS[:2]),
    )
    lines = [_row(headings), _row("---" for _ in headings)]
    for work in works:
        told = [predict(counts[work.kernel, chip.capability].pipes, work, chip) for chip in CHIPS]
        times = (f"{duration(one.seconds)} ({one.binding})" for one in told)
        shares = (f"{one.share:.0%} of {one.ceiling}" for one in told[:2])
        lines.append(_row((work.kernel, work.shape, *times, *shares)))
    return lines


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def counted() -> tuple[list[Counted], list[str]]:
    """All that is built here, and what is not, with the reason."""
    if compiled.extension() is None:
        return list(kernels.triton_counts()), ["cuda kernels: this otcore was built without CUDA (no nvcc)"]
    return [*kernels.cuda_counts(), *kernels.triton_counts()], []


TEXT = """# Predicted times on GPUs

**Counted, never run.** No GPU was at hand: what follows is machine code, counted, by rates from documents.
A kernel that waits for memory, for its own results or for the last of its blocks is slower than this. Written
by `python -m benchmarks.gpu.predict`, otcore {otcore}, triton {triton}; CI counts again (`--check`).

## What a pair asks for

Of each thread, for each pair of points that it has, with the loops around the pairs; what the columns are,
`benchmarks/gpu/sass.py` says. `blocks`: how many blocks (for Triton, programs) a multiprocessor holds by
registers and shared memory. In a sweep one pair, with one exponential, serves the sums of its row and of its
column. Float32 points; p = 2; no tile is skipped.

{counts}

## Times

Of one launch, and what binds it; `benchmarks/gpu/chips.py` has the rates and where they are from. The share
is that of the ceiling: one exponential a pair, or its products on the matrix units, whichever takes longer.
No CUDA kernel multiplies on these; for Triton's the products are three of float16 numbers for each of float32
(gradients: and the plan's, in tf32).

{times}

## Whole problems

{problems}
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="only compare the counts with the table's")
    given = parser.parse_args()
    found, absent = counted()
    for reason in absent:
        print(f"left out: {reason}")
    if given.check:
        wrong = differences(RESULT.read_text(), found)
        print("\n".join(wrong) if wrong else f"{len(found)} kernels are as {RESULT.name} has them")
        if wrong:
            print("if that is meant: python -m benchmarks.gpu.predict, and commit the table")
        return int(bool(wrong))
    if absent:
        return 2
    from benchmarks.gpu.problems import problem_lines

    counts = {(one.kernel, one.capability): one for one in found}
    times = time_table(counts, [*kernels.cuda_work(), *kernels.triton_work()])
    text = TEXT.format(
        otcore=importlib.metadata.version("otcore"),
        triton=importlib.metadata.version("triton"),
        counts="\n".join(count_table(found)),
        times="\n".join(times),
        problems="\n".join(problem_lines(counts)),
    )
    RESULT.write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
