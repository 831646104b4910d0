"""Pairs of points that the CUDA kernels visit in two dimensions, where tiles that add nothing are skipped.

As in kernels/cuda (box.h, order.cu): points along a Hilbert curve, each tile in its bounding box with its
largest potential, and two tiles skipped where no logit reaches the cutoff.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

SWEEP_ROWS, GRAD_ROWS, COLUMNS = 128, 32, 32  # points of a tile; the rows are those of a warp
_CUTOFF = -40.0  # bits
_BITS = 16  # of a coordinate on the curve


def visited(x: Tensor, y: Tensor, f: Tensor, g: Tensor, eps: float, rows: int) -> float:
    """Pairs in visited tiles, of so many rows of x; x (N, 2), y (M, 2), f (N,), g (M,)."""
    bits = 1.0 / (math.log(2.0) * eps)
    low_x, high_x, top_x = _boxes(x, bits * f, rows)
    low_y, high_y, top_y = _boxes(y, bits * g, COLUMNS)
    gap = torch.maximum(low_x[:, None] - high_y, low_y - high_x[:, None]).clamp(min=0.0)
    highest = top_x[:, None] + top_y - 0.5 * bits * gap.square().sum(-1)
    return float((highest >= _CUTOFF).sum()) * rows * COLUMNS


def _boxes(points: Tensor, levels: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Lowest and highest coordinates of each tile, (tiles, 2), and its largest level, (tiles,)."""
    order = along_hilbert(points)
    order = torch.cat([order, order[-1:].expand(-len(order) % size)]).view(-1, size)
    return points[order].amin(1), points[order].amax(1), levels[order].amax(1)


def along_hilbert(points: Tensor) -> Tensor:
    """The order of points (N, 2) along a Hilbert curve through their bounding square."""
    corner = points.amin(0)
    side = (points - corner).amax()
    last = 2**_BITS - 1
    x, y = ((points - corner) / side * last).long().unbind(-1)
    place = torch.zeros_like(x)
    for bit in reversed(range(_BITS)):
        right, up = (x >> bit) & 1, (y >> bit) & 1
        place = (place << 2) | ((3 * right) ^ up)
        # The curve of a quarter is that of the whole, turned.
        mirrored = (up == 0) & (right == 1)
        x, y = torch.where(mirrored, last - x, x), torch.where(mirrored, last - y, y)
        x, y = torch.where(up == 0, y, x), torch.where(up == 0, x, y)
    return place.argsort()
