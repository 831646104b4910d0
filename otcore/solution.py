"""What a solve returns: potentials, an honest report, and the plan as an operator in linear memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .backends import Backend
    from .problem import Problem

# Entries of the largest plan that `Solution.plan` writes out: 512 MiB in float64.
LARGEST_PLAN = 2**26


class ConvergenceWarning(UserWarning):
    """A solve stopped before its marginal error fell below the tolerance."""


class Status(IntEnum):
    """How a solve ended; `text` says what to do about it."""

    CONVERGED = 0
    MAX_ITER = 1

    @property
    def text(self) -> str:
        return _TEXTS[self]


_TEXTS = {
    Status.CONVERGED: "the marginal error is below tol",
    Status.MAX_ITER: (
        "the marginal error was still above tol after max_iter sweeps at the final temperature: "
        "raise max_iter, tol or blur; in float32, a tol below about 1e-5 may be out of reach: use float64"
    ),
}


class Potentials(NamedTuple):
    """Potentials of x-y, (B, N) and (B, M), and of the self-terms, likewise, None when not debiased."""

    f: Tensor
    g: Tensor
    f_xx: Tensor | None
    g_yy: Tensor | None

    def to(self, dtype: torch.dtype) -> Potentials:
        """The same in another dtype."""
        return Potentials(*(None if t is None else t.to(dtype) for t in self))  # type: ignore[arg-type]


class Solved(NamedTuple):
    """What a loop returns: potentials, and (B,) each: status and n_iter int64, marginal_error float64."""

    value: Tensor
    potentials: Potentials
    status: Tensor
    n_iter: Tensor
    marginal_error: Tensor


@dataclass(frozen=True, eq=False)
class Solution:
    """A solved problem. Only `value` is differentiable; everything else, the methods included, is detached.

    Arrays have the batch dimension of the clouds, or none; they are NumPy arrays when the clouds were.

    Attributes:
        value: the divergence or transport cost; a scalar or (B,).
        f, g: potentials of the transport between x and y, (N,) and (M,), or with a batch dimension.
        f_xx, g_yy: potentials of the self-terms; None when not debiased.
        status: a `Status`, or their (B,) integers. Its `text` says what to do.
        converged: whether the status is CONVERGED; a bool, or (B,).
        n_iter: sweeps spent on x-y; an int, or (B,).
        marginal_error: sum_i a_i |r_i - 1| + sum_j b_j |c_j - 1|, where r and c are the marginals relative to
            a and b (the targets e^{-f/rho}, e^{-g/rho} replace 1 when unbalanced), relative to the mean mass;
            the largest of the transports solved.
        eps: the temperature, in units of the cost.
        backend: the name of the backend that ran.
    """

    value: Any
    f: Any
    g: Any
    f_xx: Any
    g_yy: Any
    status: Any
    converged: Any
    n_iter: Any
    marginal_error: Any
    eps: float
    backend: str
    _problem: Problem
    _potentials: Potentials
    _verbs: Backend
    _batched: bool
    _numpy: bool

    def apply(self, v: Any) -> Any:
        """The plan times v: (M,) -> (N,) or (M, K) -> (N, K), after the batch dimension if there is one."""
        q, (f, g, _, _) = self._problem, self._potentials
        return self._times(q.x, q.y, f, g, q.a, q.b, v)

    def apply_transpose(self, v: Any) -> Any:
        """The transposed plan times v: (N,) -> (M,) or (N, K) -> (M, K)."""
        q, (f, g, _, _) = self._problem, self._potentials
        return self._times(q.y, q.x, g, f, q.b, q.a, v)

    def marginals(self) -> tuple[Any, Any]:
        """Row and column sums of the plan, (N,) and (M,): a and b up to `marginal_error` when balanced."""
        q, (f, g, _, _) = self._problem, self._potentials
        log_r, log_c = self._verbs.sweep(q.x, q.y, f, g, q.a, q.b, eps=q.eps, **q.ground)
        return self._out(q.a * log_r.exp()), self._out(q.b * log_c.exp())

    def potential(self, points: Any) -> Any:
        """f extended to new points (K, D): lam softmin(g), with lam = 1 / (1 + eps / rho); (K,)."""
        return self._out(self._potential(self._points(points)))

    def transport(self, points: Any = None) -> Any:
        """Where the plan sends x, or new points (K, D): the mean of y under each row of the plan, (N, D)."""
        q = self._problem
        if points is None:
            z, f = q.x, self._potentials.f
        else:
            z = self._points(points)
            f = self._potential(z)
        ones = torch.ones_like(f)
        columns = torch.cat([q.y, torch.ones_like(q.y[..., :1])], -1)
        sums = self._verbs.apply(z, q.y, f, self._potentials.g, ones, q.b, columns, eps=q.eps, **q.ground)
        return self._out(sums[..., :-1] / sums[..., -1:])

    def plan(self) -> Any:
        """The plan itself, (N, M).

        Raises:
            ValueError: when it has more than `otcore.solution.LARGEST_PLAN` entries; `apply` needs linear
                memory only.
        """
        from .backends.dense import Dense

        q, (f, g, _, _) = self._problem, self._potentials
        entries = q.a.numel() * q.b.shape[-1]
        if entries > LARGEST_PLAN:
            raise ValueError(
                f"plan() would have {entries} entries, more than {LARGEST_PLAN}; use apply(v), "
                "apply_transpose(v) or transport()."
            )
        return self._out(Dense().plan(q.x, q.y, f, g, q.a, q.b, eps=q.eps, **q.ground))

    def _times(self, x: Tensor, y: Tensor, f: Tensor, g: Tensor, a: Tensor, b: Tensor, v: Any) -> Any:
        q = self._problem
        columns = torch.as_tensor(v).detach().to(x)
        if not self._batched:
            columns = columns.unsqueeze(0)
        vector = columns.dim() == 2
        if vector:
            columns = columns.unsqueeze(-1)
        if columns.shape[:-1] != y.shape[:-1]:
            size = y.shape[-2]
            raise ValueError(
                f"v has shape {tuple(v.shape)}; use ({size},) or ({size}, K), after any batch dimension."
            )
        result = self._verbs.apply(x, y, f, g, a, b, columns.contiguous(), eps=q.eps, **q.ground)
        return self._out(result.squeeze(-1) if vector else result)

    def _potential(self, points: Tensor) -> Tensor:
        q = self._problem
        f = self._verbs.softmin(points, q.y, self._potentials.g, q.b, eps=q.eps, **q.ground)
        rho = q.rho[0]
        return f if rho == math.inf else f / (1.0 + q.eps / rho)

    def _points(self, points: Any) -> Tensor:
        x = self._problem.x
        z = torch.as_tensor(points).detach().to(x)
        if not self._batched:
            z = z.unsqueeze(0)
        if z.dim() != 3 or z.shape[0] != x.shape[0] or z.shape[-1] != x.shape[-1]:
            lead = f"({x.shape[0]}, K, {x.shape[-1]})" if self._batched else f"(K, {x.shape[-1]})"
            raise ValueError(f"points has shape {tuple(points.shape)}; use {lead}.")
        return z.contiguous()

    def _out(self, batched: Tensor) -> Any:
        tensor = batched if self._batched else batched.squeeze(0)
        return tensor.numpy() if self._numpy else tensor


def make_solution(
    problem: Problem,
    backend: Backend,
    value: Tensor,
    potentials: Potentials,
    info: Tensor,
    *,
    batched: bool,
    as_numpy: bool,
) -> Solution:
    """Wrap what the operators return; `info` is (B, 3) float64: status, n_iter, marginal_error."""
    f, g, f_xx, g_yy = (None if t is None else t.detach() for t in potentials)
    assert f is not None
    assert g is not None
    potentials = Potentials(f, g, f_xx, g_yy)

    def shaped(tensor: Tensor | None) -> Any:
        if tensor is None:
            return None
        tensor = tensor if batched else tensor.squeeze(0)
        return tensor.detach().numpy() if as_numpy else tensor

    status, n_iter, error = info[:, 0].long(), info[:, 1].long(), info[:, 2]
    return Solution(
        value=shaped(value),
        f=shaped(f),
        g=shaped(g),
        f_xx=shaped(f_xx),
        g_yy=shaped(g_yy),
        status=shaped(status) if batched else Status(int(status)),
        converged=shaped(status == Status.CONVERGED) if batched else int(status) == Status.CONVERGED,
        n_iter=shaped(n_iter) if batched else int(n_iter),
        marginal_error=shaped(error) if batched else float(error),
        eps=problem.eps,
        backend=backend.name,
        _problem=problem,
        _potentials=potentials,
        _verbs=backend,
        _batched=batched,
        _numpy=as_numpy,
    )
