"""Sliced transport on CUDA devices, one Triton program for every direction."""

from __future__ import annotations

from contextlib import nullcontext
from importlib.util import find_spec

import torch
from torch import Tensor

MOST_POINTS = 4096
# Slopes held at a time, over all items and some of the directions.
_BLOCK_ENTRIES = 2**26


def triton_takes(x: Tensor, y: Tensor, projections: Tensor) -> bool:
    """Whether there is a kernel for such clouds, of uniform weights and regular sizes."""
    fits = x.shape == y.shape and x.shape[-2] <= MOST_POINTS and projections.dim() == 2
    known = x.device.type == "cuda" and x.dtype == torch.float32
    return fits and known and find_spec("triton") is not None


def triton_slices(
    x: Tensor, y: Tensor, projections: Tensor, p: float, *, need_x: bool, need_y: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """W_p^p along each direction, (B, L), and the gradients of their mean in x and y where needed, (B, N, D).

    x and y are (B, N, D), projections (D, L); float32.
    """
    from .kernels.triton.slice import slice_lines, warps_of  # type: ignore[import-untyped]

    items, n, d = x.shape
    count = projections.shape[1]
    x, y = x.contiguous(), y.contiguous()
    costs = x.new_empty(items, count)
    g_x = torch.zeros_like(x) if need_x else None
    g_y = torch.zeros_like(y) if need_y else None
    pad = max(16, 1 << (n - 1).bit_length())
    step = max(1, _BLOCK_ENTRIES // (items * n))
    with torch.cuda.device(x.device) if x.is_cuda else nullcontext():
        for first in range(0, count, step):
            directions = projections[:, first : first + step].contiguous()
            here = directions.shape[1]
            part = x.new_empty(items, here)
            slopes = [x.new_empty(items, here, n) if need else part for need in (need_x, need_y)]
            slice_lines[(here, items)](
                x,
                y,
                directions,
                part,
                *slopes,
                n,
                here,
                p,
                D=d,
                PAD=pad,
                POWER=int(p) if p in (1.0, 2.0) else 0,
                NEED_X=need_x,
                NEED_Y=need_y,
                num_warps=warps_of(pad),
            )
            costs[:, first : first + step] = part
            for gradient, slope in zip((g_x, g_y), slopes, strict=True):
                if gradient is not None:
                    gradient += slope.mT @ (directions.mT / count)
    return costs, g_x, g_y
