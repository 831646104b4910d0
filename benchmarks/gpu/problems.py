"""Whole problems: pairs of points counted on the CPU, by what a pair takes."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping

import torch
from clouds import pair
from comparison.large_rows import Training
from comparison.line import duration
from comparison.solve import solve

from benchmarks.gpu.chips import CHIPS
from benchmarks.gpu.kernels import Work
from benchmarks.gpu.predict import Counts, predict
from otcore import sinkhorn_divergence

ITEMS, POINTS, DIMENSION, BLUR = 256, 128, 16, 0.5
_SAMPLE = 16  # items solved on the CPU
_STEPS = 5


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """ITEMS pairs of normal clouds, float32."""
    x, y = pair("normal", ITEMS * POINTS, DIMENSION)
    return x.float().view(ITEMS, POINTS, DIMENSION), y.float().view(ITEMS, POINTS, DIMENSION)


def batch_pairs() -> tuple[float, float]:
    """Sweeps of x to y of the median item, and pairs of all items and terms.

    By the reference of what the device decides, for some of the items.
    """
    x, y = (t[:_SAMPLE] for t in batch())
    solution = sinkhorn_divergence(x, y, blur=BLUR, backend="dense", return_solution=True)
    sweeps, pairs = (torch.as_tensor(told).double() for told in (solution.n_iter, solution.pairs))
    return float(sweeps.median()), float(pairs.mean()) * ITEMS


def warm_pairs() -> tuple[float, float]:
    """Sweeps and pairs of the median warm step of a training on the flower prior, on the CPU."""
    training = Training(steps=_STEPS)
    x, y = (t.float() for t in pair("flower", training.n, 2))
    last = solve(x, y, blur=training.blur)
    steps = []
    for move in training.moves():
        x = x + move
        last = solve(x, y, blur=training.blur, init=last.solution)
        steps.append(last)
    sweeps = statistics.median(step.sweeps for step in steps)
    return sweeps, statistics.median(step.pairs or 0.0 for step in steps)


def problem_lines(counts: Counts) -> Iterator[str]:
    """What is counted, what is assumed, and the times that follow."""
    sweeps, pairs = batch_pairs()
    slopes = 4.0 * ITEMS * POINTS**2
    times = _times(counts, {"cuda solve d=16": pairs, "cuda grad d=16": slopes})
    yield (
        f"**{ITEMS} x ({POINTS} x {POINTS} x {DIMENSION}), forward and backward** (normal, blur {BLUR}):\n"
        f"{times}. {sweeps:g} sweeps of x to y for the median item and {pairs:.2e} pairs in all,\n"
        f"by the solver's reference on {_SAMPLE} of the items; four gradients. The steps between sweeps,\n"
        "float64 and a few block-wide sums, are not in it: a lower bound.\n"
    )
    sweeps, pairs = warm_pairs()
    times = _times(counts, {"cuda sweep d=2": pairs, "cuda grad d=2": 4 * pairs / sweeps})
    yield (
        f"**60,000 flower points, a warm step** (blur {Training.blur}):\n"
        f"{times}. {sweeps:g} sweeps and {pairs:.2e} pairs, the median of\n"
        f"{_STEPS} steps on the CPU. Assumed: tiles of points along a curve skip as many pairs as the CPU's\n"
        "clusters do, and the gradients visit those of four sweeps. Launches and the choice of tiles are\n"
        "not in it: a lower bound."
    )


def _times(counts: Counts, parts: Mapping[str, float]) -> str:
    """The sum of what kernels take for so many pairs each, on every chip."""
    told = []
    for chip in CHIPS:
        seconds = (
            predict(counts[kernel, chip.capability].pipes, Work(kernel, "", pairs, 0.0), chip).seconds
            for kernel, pairs in parts.items()
        )
        told.append(f"{chip.name} {duration(sum(seconds))}")
    return ", ".join(told)
