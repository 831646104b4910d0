"""One call of otcore's sinkhorn_divergence: its seconds, and what its solution reports."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Solve:
    """seconds: forward, and backward to those of the clouds that require a gradient. pairs: pairs of points
    that were evaluated, None where the solution does not count them."""

    seconds: float
    sweeps: int
    marginal_error: float
    converged: bool
    pairs: float | None
    solution: Any


def solve(x: Tensor, y: Tensor, a: Tensor | None = None, b: Tensor | None = None, **options: Any) -> Solve:
    """`options` are those of sinkhorn_divergence."""
    from otcore import sinkhorn_divergence

    wanted = [cloud for cloud in (x, y) if cloud.requires_grad]
    start = time.perf_counter()
    solution = sinkhorn_divergence(x, y, a, b, **options, return_solution=True)
    if wanted:
        torch.autograd.grad(solution.value, wanted)
    seconds = time.perf_counter() - start
    pairs = getattr(solution, "pairs", None)
    return Solve(
        seconds,
        solution.n_iter,
        solution.marginal_error,
        solution.converged,
        None if pairs is None else float(pairs),
        solution,
    )
