"""The yardstick for accuracy: GeomLoss's schedule in plain dense torch, in whatever dtype the points have.

Written as a careful torch user would: costs from direct differences, torch.logsumexp, autograd through the
last update. Its fp32 error against its own fp64 run is "torch's own error", twice of which otcore may make.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

P1_FLOOR = 1e-8  # GeomLoss's smallest squared distance for p = 1


@dataclass(frozen=True)
class Answer:
    """value: scalar. grad_x (N, D), grad_y (M, D): its gradients. f (N,), g (M,): debiased potentials."""

    value: Tensor
    grad_x: Tensor
    grad_y: Tensor
    f: Tensor
    g: Tensor


def cost(x: Tensor, y: Tensor, p: int) -> Tensor:
    """(N, M) costs: |x-y|^2/2 for p = 2, |x-y| for p = 1."""
    squared = ((x[:, None, :] - y[None, :, :]) ** 2).sum(-1)
    return squared / 2 if p == 2 else squared.clamp_min(P1_FLOOR).sqrt()


def softmin(costs: Tensor, g: Tensor, b: Tensor, eps: float) -> Tensor:
    """-eps log sum_j b_j exp((g_j - C_ij)/eps), shape (N,)."""
    return -eps * torch.logsumexp((b.log() + g / eps)[None, :] - costs / eps, 1)


def diameter(x: Tensor, y: Tensor) -> float:
    """Diagonal of the bounding box of both clouds."""
    both = torch.cat([x.detach(), y.detach()])
    return float((both.max(0).values - both.min(0).values).norm())


def temperatures(largest: float, blur: float, scaling: float, p: int) -> list[float]:
    """GeomLoss's schedule: diameter^p (twice), cooled by scaling^p while above blur^p, then blur^p."""
    between = np.arange(p * math.log(largest), p * math.log(blur), p * math.log(scaling))
    return [largest**p, *np.exp(between).tolist(), blur**p]


def samples_loss(
    x: Tensor, y: Tensor, *, p: int = 2, blur: float, scaling: float, largest: float | None = None
) -> Answer:
    """GeomLoss's debiased SamplesLoss for uniform weights; `largest` is its `diameter` argument."""
    x, y = x.detach().requires_grad_(), y.detach().requires_grad_()
    a = torch.full((len(x),), 1 / len(x), dtype=x.dtype)
    b = torch.full((len(y),), 1 / len(y), dtype=y.dtype)
    eps_list = temperatures(diameter(x, y) if largest is None else largest, blur, scaling, p)
    f, g = _solve(x, y, a, b, p, eps_list)
    f_xx, _ = _solve(x, x, a, a, p, eps_list)
    g_yy, _ = _solve(y, y, b, b, p, eps_list)
    f, g = f - f_xx, g - g_yy
    value = a @ f + b @ g
    grad_x, grad_y = torch.autograd.grad(value, (x, y))
    return Answer(value.detach(), grad_x, grad_y, f.detach(), g.detach())


def _solve(
    x: Tensor, y: Tensor, a: Tensor, b: Tensor, p: int, eps_list: list[float]
) -> tuple[Tensor, Tensor]:
    """The symmetric loop; only the last, full update is differentiable, each side in its own points."""
    rows, columns = cost(x, y.detach(), p), cost(y, x.detach(), p)
    with torch.no_grad():
        f = softmin(rows, torch.zeros_like(b), b, eps_list[0])
        g = softmin(columns, torch.zeros_like(a), a, eps_list[0])
        for eps in eps_list:
            f, g = (f + softmin(rows, g, b, eps)) / 2, (g + softmin(columns, f, a, eps)) / 2
    return softmin(rows, g, b, eps_list[-1]), softmin(columns, f, a, eps_list[-1])
