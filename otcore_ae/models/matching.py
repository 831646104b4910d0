"""Fitting a part of a trained model to clouds that are larger than its batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Generator, Tensor, nn

from otcore_ae.progress import OverallProgress


def descend(
    parameters: Iterable[nn.Parameter],
    distance: Callable[[Tensor], Tensor],
    count: int,
    *,
    generator: Generator,
    steps: int,
    cloud_size: int,
    learning_rate: float,
    what: str,
) -> list[float]:
    """Minimise a distance of random subsets, by Adam whose learning rate falls to 0 along a half cosine.

    Args:
        parameters: what is trained.
        distance: of the points with these indices, (n,); a scalar.
        count: how many points there are.
        generator: draws the subsets.
        steps, cloud_size, learning_rate: how many, points in each, and at the start.
        what: shown beside the progress bar, on terminals.

    Returns:
        The distance in each step.
    """
    optimiser = torch.optim.Adam(parameters, lr=learning_rate, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    found = []
    with OverallProgress(steps) as progress:
        progress.describe(what)
        for _ in range(steps):
            loss = distance(torch.randperm(count, generator=generator)[:cloud_size])
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            schedule.step()
            found.append(loss.item())
            progress.advance(1)
    return found
