"""The CUDA kernels: named costs, at most 16 dimensions, float32 and float64, points on an NVIDIA GPU.

Work is queued on torch's current stream of the device of the points; memory comes from torch's allocator. A
solve is decided on the device: inside `torch.cuda.graph` nothing is waited for.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ..solution import Potentials, Solved

if TYPE_CHECKING:
    from ..problem import Cost, Problem
    from ..ragged import Sizes

MOST_DIMENSIONS = 16
# Older GPUs have no code in the wheels, and nothing to compile it from.
_LEAST_CAPABILITY = (8, 0)
_CROSS, _SELF = 0, 1  # kinds of transport problems, in the order of kernels/cuda/batch.h


def _native() -> Any:
    try:
        from .. import _cuda  # type: ignore[attr-defined]
    except ImportError as error:
        raise ImportError(
            "this otcore was built without CUDA: install a wheel that has it, or build one with "
            "OTCORE_CUDA=ON"
        ) from error
    return _cuda


class _Clouds(NamedTuple):
    """What the kernels take, and the memory that its addresses point to."""

    native: Any
    diameters: Tensor
    kept: Sequence[Tensor | None]


class Cuda:
    """See `otcore.backends.Backend` for the verbs.

    Args:
        native: the compiled module, which tests replace by an emulation of it on the host.
    """

    name = "cuda"

    def __init__(self, native: Any = None) -> None:
        self._native = native or _native()

    def machine(self) -> tuple[bool, str]:
        if torch.version.cuda is None:
            return False, f"this torch has no CUDA ({self._native.device_report()})"
        return torch.cuda.is_available(), self._native.device_report()

    def refuses(self, problem: Problem) -> str | None:
        device = problem.x.device
        if device.type != "cuda":
            return f"the points are on the {device}; move both clouds to a GPU, as in x.cuda()"
        if not isinstance(problem.cost, int):
            kind = "a formula" if isinstance(problem.cost, str) else "a function"
            return f"the cost is {kind}; the compiled ones are p=1, p=2 and those with a name"
        if problem.x.shape[-1] > MOST_DIMENSIONS:
            return (
                f"the points have {problem.x.shape[-1]} coordinates, and its kernels take "
                f"{MOST_DIMENSIONS} at most; the backend triton takes any number"
            )
        capability = torch.cuda.get_device_capability(device)
        if capability < _LEAST_CAPABILITY:
            return (
                f"{torch.cuda.get_device_name(device)} has compute capability {capability[0]}."
                f"{capability[1]}, and the kernels are built for 8.0 and later"
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
        with _on(x):
            q = self._clouds(x, y, None, b, cost, floor)
            out = x.new_empty(x.shape[:2], dtype=torch.float64)
            g64, temperatures = _wide(g), _temperatures(eps, x)
            where = g64.data_ptr(), temperatures.data_ptr(), out.data_ptr()
            self._native.softmin(q.native, False, *where)
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
        with _on(x):
            q = self._clouds(x, y, a, b, cost, floor, kind=_SELF if same else _CROSS)
            potentials = torch.cat([t.double().flatten() for t in (f, g)])
            sums = torch.empty_like(potentials)
            scratch = x.new_empty(self._native.sweep_scratch(q.native))
            pairs = torch.zeros(len(x), dtype=torch.int64, device=x.device)
            temperatures = _temperatures(eps, x)
            held = (potentials, temperatures, scratch, sums, pairs)
            self._native.sweep(q.native, *(t.data_ptr() for t in held))
            log_r = sums[: f.numel()].view_as(f).to(x.dtype)
            return log_r, log_r if same else sums[f.numel() :].view_as(g).to(x.dtype)

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
        with _on(x):
            q = self._clouds(x, y, a, b, cost, floor)
            width = v.shape[-1]
            out = x.new_empty(*x.shape[:2], width)
            held = _wide(f), _wide(g), _temperatures(eps, x), _wide(v)
            self._native.apply(q.native, *(t.data_ptr() for t in held), width, out.data_ptr())
            return out

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
        with _on(x):
            q = self._clouds(x, y, a, b, cost, floor)
            out = torch.empty_like(x)
            held = _wide(f), _wide(g), _temperatures(eps, x)
            self._native.grad(q.native, *(t.data_ptr() for t in held), normalise, out.data_ptr())
            return out

    def anneal(self, problem: Problem) -> Solved:
        """`otcore.solver.anneal`, decided on the device."""
        q = problem
        with _on(q.x):
            weights = (q.a, q.b) if q.weighted else (None, None)
            kinds = 3 if q.debias else 1
            a, b = weights
            clouds = self._clouds(q.x, q.y, a, b, q.cost, q.floor, kinds=kinds, sizes=q.sizes)
            shapes = [t.shape for t in ((q.a, q.b, q.a, q.b) if q.debias else (q.a, q.b))]
            potentials = q.x.new_empty(sum(shape.numel() for shape in shapes), dtype=torch.float64)
            starts = accumulate((shape.numel() for shape in shapes), initial=0)
            parts = [
                potentials[start : start + shape.numel()].view(shape)
                for start, shape in zip(starts, shapes, strict=False)
            ]
            for part, first in zip(parts, q.init or (), strict=False):
                if first is not None:
                    part.copy_(first)
            told = q.x.new_empty(q.items, self._native.TOLD, dtype=torch.float64)
            size = self._native.solve_scratch(clouds.native)
            scratch = torch.empty(size, dtype=torch.uint8, device=q.x.device)
            self._native.solve(
                clouds.native,
                clouds.diameters.data_ptr(),
                q.eps,
                *q.rho,
                q.scaling,
                -1.0 if q.diameter is None else q.diameter,
                q.tol,
                q.max_iter,
                q.init is not None,
                potentials.data_ptr(),
                told.data_ptr(),
                scratch.data_ptr(),
            )
            value, status, n_iter, error, pairs = told.unbind(-1)
            f, g, f_xx, g_yy = (*parts, None, None)[:4]
            solution = Potentials(f, g, f_xx, g_yy)  # type: ignore[arg-type]
            return Solved(value.to(q.x.dtype), solution, status.long(), n_iter.long(), error, pairs)

    def _clouds(
        self,
        x: Tensor,
        y: Tensor,
        a: Tensor | None,
        b: Tensor | None,
        cost: Cost,
        floor: float,
        *,
        kind: int = _CROSS,
        kinds: int = 1,
        sizes: Sizes | None = None,
    ) -> _Clouds:
        """The clouds in frames in which potentials are small."""
        batch, n, d = x.shape
        m = y.shape[1]
        items = batch
        starts: Sequence[Tensor | None] = (None, None)
        if sizes is not None:
            starts = [_starts(counts, batch, x) for counts in sizes]
            items, n, m = batch * len(sizes.n), max(sizes.n), max(sizes.m)
        u, v = torch.empty_like(x), torch.empty_like(y)
        rows_x, rows_y = x.shape[:2].numel(), y.shape[:2].numel()
        shift = x.new_empty(rows_x + rows_y, dtype=torch.float64)
        offset, diameters = (x.new_empty(count, dtype=torch.float64) for count in (items * d, items))
        stream = torch.cuda.current_stream(x.device).cuda_stream if x.is_cuda else 0

        def native(points: Sequence[Tensor | None]) -> Any:
            wide = x.dtype == torch.float64
            where = (0 if t is None else t.data_ptr() for t in points)
            shape = n, m, rows_x, rows_y, items, d, kind, kinds
            return self._native.Clouds(wide, *where, *shape, cost, floor, stream)

        out = (u, v, shift, offset, diameters)
        self._native.prepare(native((x, y, a, b, None, None, *starts)), *(t.data_ptr() for t in out))
        kept = (u, v, a, b, shift, offset, *starts)
        return _Clouds(native(kept), diameters, kept)


def _on(x: Tensor) -> Any:
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()


def _wide(t: Tensor) -> Tensor:
    return t.to(torch.float64).contiguous()


def _temperatures(eps: float | Tensor, x: Tensor) -> Tensor:
    """One for each item, (B,)."""
    if isinstance(eps, Tensor):
        return _wide(eps.expand(len(x)))
    return torch.full((len(x),), eps, dtype=torch.float64, device=x.device)


def _starts(counts: Sequence[int], batch: int, x: Tensor) -> Tensor:
    """The first row of each item of a ragged batch, and the end."""
    return torch.tensor(list(accumulate(list(counts) * batch, initial=0)), device=x.device)
