"""Ragged batches: clouds of unequal sizes, one after another in one tensor, without padding.

The tensors of a ragged problem have a leading dimension L, 1 unless `torch.vmap` made more: points (L, sum N,
D), weights and potentials (L, sum N). Each row holds the same sizes, so there are L times as many items as
sizes. `counts` below are the sizes of one side; empty or None for a regular batch (B, N), of B items.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Sizes(NamedTuple):
    """How many points each item has in x and in y."""

    n: tuple[int, ...]
    m: tuple[int, ...]


def per_point(values: Tensor, shape: Sequence[int], counts: Sequence[int] | None) -> Tensor:
    """The values of the items, (items,), beside their points, of shape (B, N, ...): (B, 1) or (L, sum N)."""
    if not counts:
        return values.unsqueeze(-1)
    rows, points = shape[:2]
    repeats = torch.tensor(counts, device=values.device).repeat(rows)
    return values.repeat_interleave(repeats, output_size=rows * points).view(rows, points)


def per_item(values: Tensor, counts: Sequence[int] | None) -> Tensor:
    """The sum of (B, N) or (L, sum N) over the points of each item, (items,)."""
    if not counts:
        return values.sum(-1)
    if values.is_cuda:  # there index_add adds in any order
        return torch.cat([item.sum(-1) for item in split(values, counts)])
    items = len(values) * len(counts)
    index = per_point(torch.arange(items, device=values.device), values.shape, counts)
    return values.new_zeros(items).index_add(0, index.flatten(), values.flatten())


def split(tensor: Tensor, counts: Sequence[int]) -> list[Tensor]:
    """The items of (L, sum N, ...), each (1, N, ...)."""
    return [item.unsqueeze(0) for row in tensor for item in row.split(list(counts))]


def join(items: Sequence[Tensor], counts: Sequence[int]) -> Tensor:
    """The inverse of `split`."""
    rows = len(items) // len(counts)
    flat = torch.cat([item.squeeze(0) for item in items])
    return flat.view(rows, -1, *flat.shape[1:])


def place(index: int, counts: Sequence[int]) -> tuple[int, int]:
    """The item and the number within it of a point counted along a row."""
    for item, count in enumerate(counts):
        if index < count:
            return item, index
        index -= count
    raise IndexError(index)
