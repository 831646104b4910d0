"""The compiled CPU kernels: named costs, float32 and float64, points and weights on the CPU.

The kernels work on the clouds in linear memory, at most one exponential a pair; potentials and results pass
in float64. They use `torch.get_num_threads()` threads of a pool of their own, and give the same bits whatever
that number is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .. import _core
from ..solution import Potentials, Solved

if TYPE_CHECKING:
    from ..problem import Cost, Problem
    from ..ragged import Sizes


def _batch(
    x: Tensor, y: Tensor, a: Tensor, b: Tensor, cost: Cost, floor: float, sizes: Sizes | None = None
) -> _core.Batch:
    """What the bindings take: addresses of contiguous tensors, and where each item starts."""
    n_splits, m_splits = (
        _splits(points, counts) for points, counts in zip((x, y), sizes or (None, None), strict=True)
    )
    wide = x.dtype == torch.float64
    threads = torch.get_num_threads()
    where = x.data_ptr(), y.data_ptr(), a.data_ptr(), b.data_ptr()
    return _core.Batch(wide, *where, n_splits, m_splits, x.shape[-1], cost, floor, threads)


def _splits(points: Tensor, counts: Sequence[int] | None) -> list[int]:
    batch, n, _ = points.shape
    if counts is None:
        return [n * i for i in range(batch + 1)]
    return list(accumulate(list(counts) * batch, initial=0))


def _problem_batch(q: Problem) -> _core.Batch:
    """As `_batch`; weights that the user did not give are 1/N and 1/M in full precision."""
    if q.weighted:
        return _batch(q.x, q.y, q.a, q.b, q.cost, q.floor, q.sizes)
    absent = torch.empty(0)
    return _batch(q.x, q.y, absent, absent, q.cost, q.floor, q.sizes)


def _wide(t: Tensor) -> Tensor:
    return t.to(torch.float64).contiguous()


def _empty(like: Tensor) -> Tensor:
    return torch.empty(like.shape, dtype=torch.float64)


class Cpu:
    """See `otcore.backends.Backend` for the verbs."""

    name = "cpu"

    def machine(self) -> tuple[bool, str]:
        return True, f"instruction set {_core.isa()}, {torch.get_num_threads()} threads"

    def refuses(self, problem: Problem) -> str | None:
        if problem.x.device.type != "cpu":
            return f"the points are on {problem.x.device}"
        if not isinstance(problem.cost, int):
            kind = "a formula" if isinstance(problem.cost, str) else "a function"
            return f"the cost is {kind}; the compiled ones are p=1, p=2 and those with a name"
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
        g64, ones = _wide(g), torch.ones_like(x[..., 0])
        out = _empty(ones)
        _core.softmin(_batch(x, y, ones, b, cost, floor), g64.data_ptr(), float(eps), out.data_ptr())
        return out.to(x.dtype)

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
        wide = torch.float64 in (f.dtype, g.dtype, x.dtype)
        if wide:
            f, g = _wide(f), _wide(g)
        log_r, log_c = torch.empty_like(a), torch.empty_like(b)
        batch, where = _batch(x, y, a, b, cost, floor), (f.data_ptr(), g.data_ptr())
        _core.sweep(batch, wide, *where, float(eps), same, log_r.data_ptr(), log_c.data_ptr())
        return log_r, log_r if same else log_c

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
        f64, g64, v64 = _wide(f), _wide(g), _wide(v)
        out = torch.empty(*x.shape[:2], v.shape[-1], dtype=torch.float64)
        batch, width = _batch(x, y, a, b, cost, floor), v.shape[-1]
        where = f64.data_ptr(), g64.data_ptr()
        _core.apply(batch, *where, float(eps), False, v64.data_ptr(), width, out.data_ptr())
        return out.to(x.dtype)

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
        weight = torch.ones_like(a) if normalise else a
        batch, potentials = _batch(x, y, a, b, cost, floor), Potentials(f, g, None, None)
        return self._gradients(batch, eps, potentials, (weight, None, None, None), normalise, x, None)[0]

    def gradients(
        self,
        problem: Problem,
        potentials: Potentials,
        weights: tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None],
        normalise: bool,
    ) -> tuple[Tensor, Tensor]:
        """`otcore.operators.point_gradients` in one call."""
        q = problem
        return self._gradients(_problem_batch(q), q.eps, potentials, weights, normalise, q.x, q.y)

    def _gradients(
        self,
        batch: _core.Batch,
        eps: float,
        potentials: Potentials,
        weights: tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None],
        normalise: bool,
        x: Tensor,
        y: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """The gradients of the sides that have a weight; empty for the other."""
        f64, w64 = (
            [None if t is None else _wide(t) for t in potentials],
            [None if t is None else _wide(t) for t in weights],
        )
        need_x, need_y = w64[0] is not None or w64[2] is not None, w64[1] is not None or w64[3] is not None
        # Not zeros: filling them would wake torch's own threads, which then spin beside those of the kernels.
        g_x = torch.empty_like(x) if need_x else x.new_empty(0)
        g_y = torch.empty_like(y) if need_y and y is not None else x.new_empty(0)
        out_x, out_y = (g.data_ptr() if g.numel() else 0 for g in (g_x, g_y))
        _core.gradients(batch, eps, _addresses(f64), _addresses(w64), normalise, out_x, out_y)
        return g_x, g_y

    def anneal(self, problem: Problem) -> Solved:
        """`otcore.solver.anneal` in one call, items spread over threads where they are small."""
        q = problem
        potentials = _start(q)
        info = torch.empty(q.items, _core.INFO, dtype=torch.float64)
        _core.anneal(
            _problem_batch(q),
            q.eps,
            *q.rho,
            q.scaling,
            -1.0 if q.diameter is None else q.diameter,
            q.debias,
            q.tol,
            q.max_iter,
            q.init is not None,
            q.verbose,
            _addresses(potentials),
            info.data_ptr(),
        )
        value, status, n_iter, error, pairs = info.unbind(-1)
        return Solved(value.to(q.x.dtype), potentials, status.long(), n_iter.long(), error, pairs)

    def diameter(self, problem: Problem) -> float:
        """`otcore.schedule.joint_diameter`; NaN where a coordinate is not finite."""
        return _core.diameter(_problem_batch(problem))

    def follow(self, problem: Problem, eps_list: list[float]) -> tuple[Tensor, Potentials, Potentials]:
        """`otcore.solver.follow` in one call."""
        q = problem
        before, after = _start(q), _start(q)
        info = torch.empty(q.items, _core.INFO, dtype=torch.float64)
        batch, first, last = _problem_batch(q), _addresses(before), _addresses(after)
        _core.follow(batch, eps_list, *q.rho, q.debias, q.multiscale, q.verbose, first, last, info.data_ptr())
        return info[:, 0].to(q.x.dtype, copy=True), before, after


def _start(problem: Problem) -> Potentials:
    """Room for the potentials, holding those of `init` if there is one."""
    a, b, init = problem.a, problem.b, problem.init
    if init is not None:
        # A copy: the kernels write the solution over the start.
        copies = (None if t is None else t.to(torch.float64, copy=True).contiguous() for t in init)
        return Potentials(*copies)  # type: ignore[arg-type]
    if not problem.debias:
        return Potentials(_empty(a), _empty(b), None, None)
    return Potentials(_empty(a), _empty(b), _empty(a), _empty(b))


def _addresses(tensors: Iterable[Tensor | None]) -> list[int]:
    return [0 if t is None else t.data_ptr() for t in tensors]
