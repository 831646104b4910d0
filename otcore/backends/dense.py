"""The oracle: plain PyTorch on full matrices, any cost, any device; other backends are compared with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from otcore.problem import Cost, Problem

# Entries of the largest matrix: 4 GiB in float32.
_LARGEST_MATRIX = 2**30


def cost_matrix(x: Tensor, y: Tensor, cost: Cost, floor: float = 0.0) -> Tensor:
    """C (B, N, M) between x (B, N, D) and y (B, M, D), by differences of coordinates: accurate when near."""
    if not isinstance(cost, int):
        assert callable(cost)
        matrix = cost(x, y)
        shape = (x.shape[0], x.shape[1], y.shape[1])
        if not isinstance(matrix, Tensor) or matrix.shape != shape:
            got = (
                f"shape {tuple(matrix.shape)}" if isinstance(matrix, Tensor) else f"a {type(matrix).__name__}"
            )
            raise ValueError(
                f"cost gave {got} for x {tuple(x.shape)} and y {tuple(y.shape)}; it should give a "
                f"tensor of shape {shape}."
            )
        return matrix
    distance = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
    if cost == 2:
        return 0.5 * distance.square()
    return distance.clamp(min=floor**0.5) if floor else distance


def cost_gradient(x: Tensor, y: Tensor, cost: int, floor: float = 0.0) -> Tensor:
    """dC(x_i, y_j) / dx_i, (B, N, M, D); 0 where the cost has a kink."""
    difference = x.unsqueeze(2) - y.unsqueeze(1)
    if cost == 2:
        return difference
    distance = torch.linalg.vector_norm(difference, dim=-1, keepdim=True)
    return torch.where(distance > floor**0.5, difference / distance, 0.0)


def logits(
    x: Tensor, y: Tensor, f: Tensor, g: Tensor, cost: Cost, eps: float | Tensor, floor: float = 0.0
) -> Tensor:
    """(f_i + g_j - C_ij) / eps, (B, N, M); eps is a float or (B,)."""
    if isinstance(eps, Tensor):
        eps = eps.view(-1, 1, 1)
    f, g = f.to(x.dtype), g.to(x.dtype)
    return (f.unsqueeze(2) + g.unsqueeze(1) - cost_matrix(x, y, cost, floor)) / eps


class Dense:
    """See `otcore.backends.Backend` for the verbs."""

    name = "dense"

    def refuses(self, problem: Problem) -> str | None:
        if isinstance(problem.cost, str):
            return "the cost is a formula for KeOps; here it would be a function of x and y"
        n, m = (
            max(c, default=t.shape[1]) for c, t in zip(problem.counts, (problem.x, problem.y), strict=True)
        )
        size = max(n, m) if problem.debias else 1
        entries = (1 if problem.sizes else len(problem.x)) * max(n * m, size * size)
        if entries > _LARGEST_MATRIX:
            return (
                f"it stores matrices of {entries:.3g} entries, more than its limit of {_LARGEST_MATRIX:.3g}"
            )
        return None

    def softmin(
        self,
        x: Tensor,
        y: Tensor,
        g: Tensor,
        b: Tensor,
        *,
        cost: Cost,
        eps: float | Tensor,
        floor: float = 0.0,
    ) -> Tensor:
        s = logits(x, y, x.new_zeros(x.shape[:2]), g, cost, eps, floor)
        column = eps.unsqueeze(-1) if isinstance(eps, Tensor) else eps
        return -column * torch.logsumexp(s + b.log().unsqueeze(1), 2)

    def sweep(
        self,
        x: Tensor,
        y: Tensor,
        f: Tensor,
        g: Tensor,
        a: Tensor,
        b: Tensor,
        *,
        cost: Cost,
        eps: float | Tensor,
        same: bool = False,
        floor: float = 0.0,
    ) -> tuple[Tensor, Tensor]:
        s = logits(x, y, f, g, cost, eps, floor)
        log_r = torch.logsumexp(s + b.log().unsqueeze(1), 2)
        return log_r, log_r if same else torch.logsumexp(s + a.log().unsqueeze(2), 1)

    def apply(
        self,
        x: Tensor,
        y: Tensor,
        f: Tensor,
        g: Tensor,
        a: Tensor,
        b: Tensor,
        v: Tensor,
        *,
        cost: Cost,
        eps: float,
        floor: float = 0.0,
    ) -> Tensor:
        return self.plan(x, y, f, g, a, b, cost=cost, eps=eps, floor=floor) @ v

    def grad(
        self,
        x: Tensor,
        y: Tensor,
        f: Tensor,
        g: Tensor,
        a: Tensor,
        b: Tensor,
        *,
        cost: Cost,
        eps: float,
        normalise: bool = False,
        floor: float = 0.0,
    ) -> Tensor:
        if not isinstance(cost, int):
            raise TypeError("the gradient of a callable cost is left to autograd")
        s = logits(x, y, f, g, cost, eps, floor)
        weights = torch.softmax(s + b.log().unsqueeze(1), 2) if normalise else _safe_plan(s, a, b)
        if cost == 2:
            return weights.sum(2, keepdim=True) * x - weights @ y
        return torch.einsum("bij,bijd->bid", weights, cost_gradient(x, y, cost, floor))

    def plan(
        self,
        x: Tensor,
        y: Tensor,
        f: Tensor,
        g: Tensor,
        a: Tensor,
        b: Tensor,
        *,
        cost: Cost,
        eps: float,
        floor: float = 0.0,
    ) -> Tensor:
        """pi_ij = a_i b_j exp((f_i + g_j - C_ij) / eps), (B, N, M)."""
        return _plan(logits(x, y, f, g, cost, eps, floor), a, b)


def _plan(s: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return a.unsqueeze(2) * b.unsqueeze(1) * s.exp()


def _safe_plan(s: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """The same where a_i b_j may underflow; without a derivative in weights of zero."""
    return (s + a.log().unsqueeze(2) + b.log().unsqueeze(1)).exp()
