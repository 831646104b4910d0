"""The optimal plan as an operator in linear memory, and the derivatives of it and of the potentials.

Everything here is batched: points (B, N, D) and (B, M, D), weights and potentials (B, N) and (B, M). With
e_ij = exp((f_i + g_j - C_ij) / eps), all of the plan's uses are products of the kernel e with vectors, and
softmins. Potentials are differentiated implicitly (`otcore.implicit`), by conjugate gradients that touch the
plan through `Backend.apply` only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .autograd import Differentiable
from .backends.dense import Dense, logits
from .dual import damping, gauged
from .implicit import adjoint_potentials, adjoint_self_potential
from .solution import Potentials

if TYPE_CHECKING:
    from .backends import Backend
    from .problem import Problem

_BLOCK_ENTRIES = 2**19
_MOST_COLUMNS = 256  # of one `Backend.apply`


@dataclass(frozen=True)
class Kernel:
    """e_ij at one temperature and cost."""

    verbs: Backend
    problem: Problem

    @property
    def digits(self) -> torch.dtype:
        """What derivatives are computed in: float64, as conjugate gradients need the digits.

        A function gets what it got in the solve: it may hold tensors of its own.
        """
        return self.problem.x.dtype if callable(self.problem.cost) else torch.float64

    def times(self, x: Tensor, y: Tensor, f: Tensor, g: Tensor, w: Tensor) -> Tensor:
        """sum_j e_ij w_j for w (B, M, K), (B, N, K)."""
        ones = torch.ones_like(x[..., 0]), torch.ones_like(y[..., 0])
        q = self.problem
        return self.verbs.apply(x, y, f, g, *ones, w.contiguous(), eps=q.eps, **q.ground)

    def gradients(
        self, x: Tensor, y: Tensor, f: Tensor, g: Tensor, w: Tensor, u: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Of sum_ij e_ij <u_i, w_j> in x, y, f, g and w, for u (B, N, K)."""
        if self.problem.cost == 2 and w.shape[-1] * (x.shape[-1] + 1) <= _MOST_COLUMNS:
            return self._square_gradients(x, y, f, g, w, u)
        if isinstance(self.problem.cost, str):
            raise RuntimeError(
                "otcore: plans of a KeOps formula have no gradients; give the cost as a function"
            )
        return self._block_gradients(x, y, f, g, w, u)

    def _square_gradients(
        self, x: Tensor, y: Tensor, f: Tensor, g: Tensor, w: Tensor, u: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """dC/dx is x - y: products with w and with w times y."""
        centre = x.mean(1, keepdim=True)
        forth, g_x = self._side(x - centre, y - centre, (x, y, f, g), w, u)
        back, g_y = self._side(y - centre, x - centre, (y, x, g, f), u, w)
        eps = self.problem.eps
        g_f, g_g = (u * forth).sum(-1) / eps, (w * back).sum(-1) / eps
        return g_x / -eps, g_y / -eps, g_f.to(f.dtype), g_g.to(g.dtype), back

    def _side(
        self, x: Tensor, y: Tensor, pair: tuple[Tensor, Tensor, Tensor, Tensor], w: Tensor, u: Tensor
    ) -> tuple[Tensor, Tensor]:
        """sum_j e_ij w_j, and sum_j e_ij <u_i, w_j> (x_i - y_j)."""
        moments = (w.unsqueeze(-1) * y.unsqueeze(-2)).flatten(2)
        sums = self.times(*pair, torch.cat([w, moments], -1))
        width = w.shape[-1]
        product, moved = sums[..., :width], sums[..., width:].reshape(*u.shape, x.shape[-1])
        return product, x * (u * product).sum(-1, keepdim=True) - (u.unsqueeze(-1) * moved).sum(-2)

    def _block_gradients(
        self, x: Tensor, y: Tensor, f: Tensor, g: Tensor, w: Tensor, u: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """By autograd, a block of rows at a time: any cost, in linear memory."""
        q, dtype = self.problem, self.digits
        fixed = [t.detach().to(dtype).requires_grad_() for t in (y, g, w)]
        totals = [torch.zeros_like(t) for t in fixed]
        g_x, g_f = torch.empty_like(x), torch.empty_like(f)
        size = max(1, _BLOCK_ENTRIES // (len(y) * y.shape[1]))
        for start in range(0, x.shape[1], size):
            block = slice(start, start + size)
            own = [t[:, block].detach().to(dtype).requires_grad_() for t in (x, f)]
            with torch.enable_grad():
                s = logits(own[0], fixed[0], own[1], fixed[1], q.cost, q.eps, q.floor)
                total = (s.exp() * (u[:, block].to(dtype) @ fixed[2].mT)).sum()
                g_x[:, block], g_f[:, block], *others = torch.autograd.grad(total, [*own, *fixed])
            for t, other in zip(totals, others, strict=True):
                t += other
        g_y, g_g, g_w = totals
        return g_x, g_y.to(y.dtype), g_f, g_g.to(g.dtype), g_w.to(w.dtype)


class _Times(Differentiable):
    """`Kernel.times`."""

    @staticmethod
    def forward(kernel: Kernel, *tensors: Tensor) -> Tensor:
        return kernel.times(*tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.kernel, *tensors = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, u: Tensor) -> Any:
        return None, *ctx.kernel.gradients(*ctx.saved_tensors, u)


class _Softmin(Differentiable):
    """-eps log sum_j b_j exp((g_j - C_ij) / eps) at (x, y, g, b)."""

    @staticmethod
    def forward(kernel: Kernel, x: Tensor, y: Tensor, g: Tensor, b: Tensor) -> Tensor:
        q = kernel.problem
        return kernel.verbs.softmin(x, y, g, b, eps=q.eps, **q.ground)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.kernel, *tensors = inputs
        ctx.save_for_backward(*tensors, output)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, u: Tensor) -> Any:
        x, y, g, b, f = ctx.saved_tensors
        # At its own softmin every row of b e sums to 1.
        gradients = ctx.kernel.gradients(x, y, f, g, b.unsqueeze(-1), u.unsqueeze(-1))
        g_x, g_y, _, g_g, g_b = (-ctx.kernel.problem.eps * t for t in gradients)
        return None, g_x, g_y, g_g, g_b.squeeze(-1)


class _Optimal(Differentiable):
    """The optimal potentials, which move with (x, y, a, b); balanced ones up to a constant."""

    @staticmethod
    def forward(
        kernel: Kernel, x: Tensor, y: Tensor, a: Tensor, b: Tensor, f: Tensor, g: Tensor
    ) -> tuple[Tensor, Tensor]:
        return f.clone(), g.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.kernel, *tensors = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, u_f: Tensor, u_g: Tensor) -> Any:
        dtype = ctx.saved_tensors[0].dtype
        kernel, rho = ctx.kernel, ctx.kernel.problem.rho
        x, y, a, b, f, g, u_f, u_g = (t.to(kernel.digits) for t in (*ctx.saved_tensors, u_f, u_g))
        p, q = adjoint_potentials(kernel.verbs, kernel.problem, (x, y, a, b), rho, (f, g), (u_f, u_g))
        # <p, dr> + <q, dc> with r = e b and c = e^T a
        left, right = torch.stack([p, a], -1), torch.stack([b, q], -1)
        g_x, g_y, _, _, g_right = kernel.gradients(x, y, f, g, right, left)
        g_a = kernel.times(x, y, f, g, q.unsqueeze(-1)).squeeze(-1)
        return None, *(t.to(dtype) for t in (g_x, g_y, g_a, g_right[..., 0])), None, None


class _OptimalSelf(Differentiable):
    """The optimal potential of a self-term, which moves with (x, a)."""

    @staticmethod
    def forward(kernel: Kernel, rho: float, x: Tensor, a: Tensor, f: Tensor) -> Tensor:
        return f.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.kernel, ctx.rho, *tensors = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, u: Tensor) -> Any:
        dtype, kernel = ctx.saved_tensors[0].dtype, ctx.kernel
        x, a, f, u = (t.to(kernel.digits) for t in (*ctx.saved_tensors, u))
        p = adjoint_self_potential(kernel.verbs, kernel.problem, x, a, ctx.rho, f, u)
        g_x, g_y, _, _, g_a = kernel.gradients(x, x, f, f, a.unsqueeze(-1), p.unsqueeze(-1))
        return None, None, (g_x + g_y).to(dtype), g_a.squeeze(-1).to(dtype), None


def differentiable_potentials(verbs: Backend, problem: Problem, potentials: Potentials) -> Potentials:
    """The potentials, tied to the points and weights wherever those need gradients."""
    x, y, a, b = problem.x, problem.y, problem.a, problem.b
    if not torch.is_grad_enabled() or not any(t.requires_grad for t in (x, y, a, b)):
        return potentials
    kernel = Kernel(verbs, problem)
    f, g = _Optimal.apply(kernel, x, y, a, b, potentials.f, potentials.g)
    if problem.balanced:
        f, g = gauged(f, g, a, b)
    if potentials.f_xx is None or potentials.g_yy is None:
        return Potentials(f, g, None, None)
    rho_x, rho_y = problem.rho
    f_xx = _OptimalSelf.apply(kernel, rho_x, x, a, potentials.f_xx)
    g_yy = _OptimalSelf.apply(kernel, rho_y, y, b, potentials.g_yy)
    return Potentials(f, g, f_xx, g_yy)


@dataclass(frozen=True)
class Plan:
    """The plan between x and y, differentiable in points, weights, potentials and arguments.

    Attributes:
        targets: what `transport` averages, (B, M, D): the points y as the user gave them.
        embed: from the user's points to those of the problem; None when they are the same.
    """

    verbs: Backend
    problem: Problem
    potentials: Potentials
    targets: Tensor
    embed: Callable[[Tensor], Tensor] | None = None

    def apply(self, v: Tensor) -> Tensor:
        """pi v for v (B, M, K), (B, N, K)."""
        q, (f, g, _, _) = self.problem, self.potentials
        return q.a.unsqueeze(-1) * self._times(q.x, q.y, f, g, q.b.unsqueeze(-1) * v)

    def apply_transpose(self, v: Tensor) -> Tensor:
        """pi^T v for v (B, N, K), (B, M, K)."""
        q, (f, g, _, _) = self.problem, self.potentials
        return q.b.unsqueeze(-1) * self._times(q.y, q.x, g, f, q.a.unsqueeze(-1) * v)

    def marginals(self) -> tuple[Tensor, Tensor]:
        """Row and column sums, (B, N) and (B, M)."""
        q = self.problem
        rows, columns = (
            self.apply(torch.ones_like(q.b.unsqueeze(-1))),
            self.apply_transpose(q.a.new_ones(*q.a.shape, 1)),
        )
        return rows.squeeze(-1), columns.squeeze(-1)

    def potential(self, points: Tensor) -> Tensor:
        """lam softmin(g) at points (B, K, D), (B, K); float64."""
        return self._potential(self._new(points))

    def transport(self, points: Tensor | None = None) -> Tensor:
        """The mean of y under the row of the plan of each x, or of new points; (B, K, D)."""
        q, targets = self.problem, self.targets
        if points is None:
            z, f = q.x, self.potentials.f
        else:
            z = self._new(points)
            f, targets = self._potential(z), targets.to(z.dtype)
        b = q.b.unsqueeze(-1).to(targets.dtype)
        sums = self._times(z, q.y.to(z.dtype), f, self.potentials.g, torch.cat([b * targets, b], -1))
        return (sums[..., :-1] / sums[..., -1:]).to(q.x.dtype)

    def matrix(self) -> Tensor:
        """The plan itself, (B, N, M), through autograd."""
        q, (f, g, _, _) = self.problem, self.potentials
        if isinstance(q.cost, str):
            return self.apply(
                torch.eye(q.y.shape[1], dtype=q.y.dtype, device=q.y.device).expand(len(q.y), -1, -1)
            )
        return Dense().plan(q.x, q.y, f, g, q.a, q.b, eps=q.eps, **q.ground)

    @property
    def _kernel(self) -> Kernel:
        return Kernel(self.verbs, self.problem)

    def _new(self, points: Tensor) -> Tensor:
        """New points as those of the problem; far from the clouds float32 does not tell them apart."""
        return (points if self.embed is None else self.embed(points)).to(self._kernel.digits)

    def _potential(self, points: Tensor) -> Tensor:
        q = self.problem
        y, b = q.y.to(points.dtype), q.b.to(points.dtype)
        f: Tensor = _Softmin.apply(self._kernel, points, y, self.potentials.g, b)
        rho = q.rho[0]
        return f if rho == math.inf else damping(q.eps, rho) * f

    def _times(self, *tensors: Tensor) -> Tensor:
        result: Tensor = _Times.apply(self._kernel, *tensors)
        return result
