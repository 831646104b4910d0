"""Clouds with potentials, as the verbs of a backend take them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from otcore.backends.dense import logits

# Rows of a block: few enough for its matrices to stay in the cache.
BLOCK = 64


@dataclass(frozen=True)
class Case:
    """Two clouds in a batch, with potentials and weights."""

    x: Tensor
    y: Tensor
    f: Tensor
    g: Tensor
    a: Tensor
    b: Tensor
    cost: int
    eps: float

    def to(self, dtype: torch.dtype) -> Case:
        return Case(*(t.to(dtype) for t in self.clouds), self.cost, self.eps)

    @property
    def clouds(self) -> tuple[Tensor, ...]:
        return self.x, self.y, self.f, self.g, self.a, self.b

    @property
    def ground(self) -> dict[str, float]:
        return {"cost": self.cost, "eps": self.eps}

    @property
    def turned(self) -> Case:
        return Case(self.y, self.x, self.g, self.f, self.b, self.a, self.cost, self.eps)

    def rows(self, chosen: slice | Tensor) -> Case:
        """Some of x against all of y."""
        x, f, a = (t[:, chosen] for t in (self.x, self.f, self.a))
        return Case(x, self.y, f, self.g, a, self.b, self.cost, self.eps)

    def log_sums(self) -> Tensor:
        """log r (B, N), as torch sums it in this dtype, by blocks of rows."""
        parts = []
        for start in range(0, self.x.shape[1], BLOCK):
            q = self.rows(slice(start, start + BLOCK))
            s = logits(q.x, q.y, q.f, q.g, self.cost, self.eps)
            parts.append(torch.logsumexp(s.add_(self.b.log().unsqueeze(1)), 2))
        return torch.cat(parts, 1)
