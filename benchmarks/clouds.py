"""Seeded point clouds for the benchmarks, as fp64 tensors of shape (N, D); the caller casts."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tests.problems import cloud as uniform


def flower(n: int, seed: int, *, petals: int = 10) -> Tensor:
    """The flower prior: elongated Gaussian petals (standard deviations 1 and 0.1) on a circle of radius 3."""
    draw = torch.Generator().manual_seed(seed)
    angle = torch.randint(0, petals, (n,), generator=draw).double() * (2 * math.pi / petals)
    along = 3 + torch.randn(n, generator=draw, dtype=torch.float64)
    across = 0.1 * torch.randn(n, generator=draw, dtype=torch.float64)
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([cos * along - sin * across, sin * along + cos * across], 1)


def normal(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def manifold(n: int, seed: int) -> Tensor:
    """A curved 3-dimensional manifold in 8 dimensions; the embedding is the same for every seed."""
    embedding = torch.Generator().manual_seed(99)
    straight = torch.randn(3, 8, generator=embedding, dtype=torch.float64) / math.sqrt(3)
    waves = 2 * torch.randn(3, 8, generator=embedding, dtype=torch.float64)
    at = uniform(n, 3, seed)
    return torch.sin(at @ waves) + 0.5 * at @ straight


def pair(name: str, n: int, d: int) -> tuple[Tensor, Tensor]:
    """Two different clouds of one family ("flower": d = 2; "manifold": d = 8; "normal", "uniform": any d)."""
    if name == "flower":
        return 0.8 * flower(n, 0), flower(n, 1)
    if name == "manifold":
        return manifold(n, 0), manifold(n, 1) + 0.1
    if name == "normal":
        return normal(n, d, 0), 0.7 * normal(n, d, 1) + 0.2
    if name == "uniform":
        return uniform(n, d, 0), uniform(n, d, 1) ** 2
    raise ValueError(f"cloud must be flower, manifold, normal or uniform; was {name!r}")
