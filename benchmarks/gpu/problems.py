"""Whole problems: pairs of points counted on the CPU, by what a pair takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from clouds import pair
from comparison.large_rows import Training
from comparison.line import duration
from comparison.solve import solve

from benchmarks.gpu.chips import CHIPS
from benchmarks.gpu.kernels import Work
from benchmarks.gpu.predict import Counts, predict
from benchmarks.gpu.tiles import GRAD_ROWS, SWEEP_ROWS, visited
from otcore import sinkhorn_divergence

ITEMS, POINTS, DIMENSION, BLUR = 256, 128, 16, 0.5
_SAMPLE = 16  # items solved on the CPU
_SELF_SWEEPS = 2  # of a warm start, as the reference takes on 3000 points


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


@dataclass(frozen=True)
class WarmStep:
    """A step of a training on the flower prior: sweeps of x to y, pairs of all sweeps and of gradients."""

    sweeps: int
    sweep_pairs: float
    grad_pairs: float


def warm_step() -> WarmStep:
    """Solved on the CPU for sweeps and potentials; from these, what the tiles of the CUDA kernels visit."""
    training = Training(steps=1)
    x, y = (t.float() for t in pair("flower", training.n, 2))
    before = solve(x, y, blur=training.blur)
    x = x + next(training.moves())
    found = solve(x, y, blur=training.blur, init=before.solution)
    s = found.solution
    terms = ((x, y, s.f, s.g), (y, x, s.g, s.f), (x, x, s.f_xx, s.f_xx), (y, y, s.g_yy, s.g_yy))
    wide = [[t.double() for t in term] for term in terms]
    cross, _, own_x, own_y = (visited(*term, eps=s.eps, rows=SWEEP_ROWS) for term in wide)
    # Self-terms are symmetric: half of their tiles.
    return WarmStep(
        found.sweeps,
        found.sweeps * cross + _SELF_SWEEPS * (own_x + own_y) / 2,
        sum(visited(*term, eps=s.eps, rows=GRAD_ROWS) for term in wide),
    )


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
    warm = warm_step()
    times = _times(counts, {"cuda sweep d=2": warm.sweep_pairs, "cuda grad d=2": warm.grad_pairs})
    yield (
        f"**60,000 flower points, a warm step** (blur {Training.blur}):\n"
        f"{times}. {warm.sweeps} sweeps of x to y on the CPU, {_SELF_SWEEPS} of each self-term assumed;\n"
        f"{warm.sweep_pairs:.2e} pairs in tiles that these visit along a Hilbert curve, and\n"
        f"{warm.grad_pairs:.2e} in those of the gradients. Launches and the choice of tiles are not in\n"
        "it: a lower bound."
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
