"""Solves whose decisions are made on the device: what the backends for GPUs share.

After a sweep, kernels of kernels/cuda turn its sums into the next potentials, of all transport problems at
once: error, stop, temperature and acceleration, as `otcore.solver` decides them, without the host.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from itertools import accumulate
from threading import Lock
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..dual import damping
from ..problem import readable
from ..schedule import bounding_box_diagonal
from ..solution import Potentials, Solved

if TYPE_CHECKING:
    from ..problem import Problem
    from . import Backend

# Older GPUs have no code in the wheels, and nothing to compile it from.
_LEAST_CAPABILITY = (8, 0)
# Steps queued between two looks at which problems are finished.
_STEPS = 2
_MOST_SWEEPS = 2**31 - 2  # an int of the kernels, and one more
# Graphs are captured one at a time, on a stream of each device for that.
_CAPTURING = Lock()


def compiled() -> Any:
    """The extension with the CUDA kernels.

    Raises:
        ImportError: where this otcore was built without it.
    """
    try:
        from .. import _cuda  # type: ignore[attr-defined]
    except ImportError as error:
        if "cannot import name" not in str(error):
            raise
        raise ImportError(
            "this otcore was built without CUDA: install a wheel that has it, or build one with "
            "OTCORE_CUDA=ON"
        ) from error
    return _cuda


def device_refusal(native: Any, device: torch.device) -> str | None:
    """Why a GPU cannot run the kernels, in words; None if it can."""
    driver: str = _driver_refusal(native)
    if driver:
        return driver
    capability = torch.cuda.get_device_capability(device)
    if capability < _LEAST_CAPABILITY:
        return (
            f"{torch.cuda.get_device_name(device)} has compute capability {capability[0]}."
            f"{capability[1]}, and the kernels are built for 8.0 and later"
        )
    return None


@cache
def _driver_refusal(native: Any) -> str:
    refusal: str = native.driver_refusal()
    return refusal


@cache
def _capture_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def kernels_for(backend: Backend, problem: Problem) -> Any:
    """The extension where a solve on this backend is to be decided on the device, else None.

    Raises:
        RuntimeError: while a CUDA graph is being captured, which cannot hold such a solve.
    """
    if not getattr(backend, "stepped", False) or not problem.x.is_cuda:
        return None
    if not readable(problem.x):
        raise RuntimeError(
            f"the backend {backend.name} cannot solve inside torch.cuda.graph, as it looks at what remains; "
            "the backend cuda can, in at most 16 dimensions"
        )
    try:
        native = compiled()
    except ImportError:
        return None
    return native if device_refusal(native, problem.x.device) is None else None


def settings(native: Any, problem: Problem) -> Any:
    """What a solve is to reach, as the kernels take it."""
    q = problem
    diameter = -1.0 if q.diameter is None else q.diameter
    return native.Settings(
        q.eps, *q.rho, q.scaling, diameter, q.tol, min(q.max_iter, _MOST_SWEEPS), q.init is not None
    )


class Room:
    """Memory for the potentials of a problem, in one piece; `parts` of it are f, g, f_xx and g_yy."""

    def __init__(self, problem: Problem, start: Sequence[Tensor]) -> None:
        q = problem
        shapes = [t.shape for t in ((q.a, q.b, q.a, q.b) if q.debias else (q.a, q.b))]
        ends = list(accumulate(shape.numel() for shape in shapes))
        self.potentials = q.x.new_empty(ends[-1], dtype=torch.float64)
        self.parts = self.shaped(self.potentials, shapes)
        for part, first in zip(self.parts, start, strict=False):
            part.copy_(first)

    @staticmethod
    def shaped(flat: Tensor, shapes: Sequence[torch.Size]) -> list[Tensor]:
        """The pieces of a flat tensor, one after another, in these shapes."""
        ends = list(accumulate(shape.numel() for shape in shapes))
        return [flat[end - shape.numel() : end].view(shape) for end, shape in zip(ends, shapes, strict=True)]


def solved(problem: Problem, told: Tensor, parts: Sequence[Tensor]) -> Solved:
    """The report of the kernels and the potentials as what a loop returns."""
    value, status, n_iter, error, pairs = told.unbind(-1)
    f, g, f_xx, g_yy = (*parts, None, None)[:4]
    potentials = Potentials(f, g, f_xx, g_yy)  # type: ignore[arg-type]
    return Solved(value.to(problem.x.dtype), potentials, status.long(), n_iter.long(), error, pairs)


class SteppedSolve:
    """A solve that takes its sweeps from a backend's verbs.

    Args:
        verbs: `softmin` and `sweep` that take one temperature an item, (B,), and look at none.
        native: the extension with the kernels that decide.
        problem: a regular batch.
    """

    def __init__(self, verbs: Backend, native: Any, problem: Problem) -> None:
        q = self._problem = problem
        self._verbs = verbs
        x, y, a, b = q.x, q.y, q.a.contiguous(), q.b.contiguous()
        batch, n, d = x.shape
        self._pairs = [(x, y, a, b), (x, x, a, a), (y, y, b, b)][: 3 if q.debias else 1]
        terms = batch * len(self._pairs)
        self._room = Room(q, [t for t in q.init or () if t is not None])
        wide = x.dtype == torch.float64
        counts = n, y.shape[1], a.numel(), b.numel(), batch, d, 0, len(self._pairs)
        where = 0, 0, a.data_ptr(), b.data_ptr(), 0, 0, 0, 0, 0
        clouds = native.Clouds(wide, *where, *counts, q.p, q.floor, 0)
        options = clouds, settings(native, q), self._room.potentials.data_ptr()
        size = native.Steps(*options, 0).bytes()
        self._scratch = torch.empty(size, dtype=torch.uint8, device=x.device)
        self._steps = native.Steps(*options, self._scratch.data_ptr())
        self._told = x.new_empty(batch, native.TOLD, dtype=torch.float64)
        self._weights = a, b  # the kernels have their addresses
        eps, log_sums, finished = self._steps.places()
        self._eps = self._view(eps, torch.float64, terms).view(-1, batch)
        flat = self._view(log_sums, torch.float64, len(self._room.potentials))
        self._log_sums = Room.shaped(flat, [part.shape for part in self._room.parts])
        self.finished = self._view(finished, torch.int32, terms).view(-1, batch)

    def _view(self, start: int, dtype: torch.dtype, count: int) -> Tensor:
        return self._scratch[start : start + count * dtype.itemsize].view(dtype)

    def begin(self) -> None:
        """The temperatures, and the potentials to start from."""
        q = self._problem
        diameters = bounding_box_diagonal(q.x, q.y).double()
        self._steps.begin(diameters.data_ptr(), stream_of(q.x))
        if q.init is not None:
            return
        f, g, *own = self._room.parts
        x, y, a, b = self._pairs[0]
        cross = self._eps[0]
        starts = [(f, x, y, b, cross, q.rho[0]), (g, y, x, a, cross, q.rho[1])]
        for part, (u, _, weight, _), eps, rho in zip(
            own, self._pairs[1:], self._eps[1:], q.rho, strict=False
        ):
            starts.append((part, u, u, weight, eps, rho))
        for part, u, v, weight, eps, rho in starts:
            zero = torch.zeros_like(weight, dtype=torch.float64)
            softmin = self._verbs.softmin(u, v, zero, weight, eps=eps, **q.ground)
            part.copy_(damping(eps.unsqueeze(-1), rho) * softmin)

    def step(self, kinds: Sequence[int]) -> None:
        """A sweep of the transports of these kinds (0: x-y, 1: x-x, 2: y-y), and what follows from it."""
        q = self._problem
        for kind in kinds:
            x, y, a, b = self._pairs[kind]
            first = 0 if kind == 0 else kind + 1
            f = self._room.parts[first]
            g = self._room.parts[1] if kind == 0 else f
            sums = self._verbs.sweep(x, y, f, g, a, b, eps=self._eps[kind], same=kind > 0, **q.ground)
            for part, found in zip(self._log_sums[first:], sums[: 1 if kind else 2], strict=False):
                part.copy_(found)
        self._steps.decide(stream_of(q.x))

    def result(self) -> Solved:
        """Of a solve that is finished."""
        self._steps.tell(self._told.data_ptr(), stream_of(self._problem.x))
        sizes = [x.shape[1] * y.shape[1] for x, y, *_ in self._pairs]
        found = solved(self._problem, self._told, self._room.parts)
        # Every pair is visited; self-terms make few sweeps, which are not told apart.
        return found._replace(pairs=found.n_iter.double() * sum(sizes))

    def run(self) -> Solved:
        """Step until every transport is finished, looking a few steps behind."""
        with on_device_of(self._problem.x):
            return self._run()

    def _run(self) -> Solved:
        kinds = list(range(len(self._pairs)))
        graphs: list[torch.cuda.CUDAGraph] = []
        looks: list[tuple[Tensor, Any]] = []
        self.begin()
        while True:
            for _ in range(_STEPS):
                if graphs:
                    graphs[-1].replay()
                else:
                    self.step(kinds)
            looks.append(_look(self.finished))
            if len(looks) < 2:
                continue
            seen, arrived = looks.pop(0)
            if arrived is not None:
                arrived.synchronize()
            left = [kind for kind in kinds if not bool(seen[kind].all())]
            if not left:
                break
            if self._problem.x.is_cuda and (left != kinds or not graphs):
                # What the first steps have compiled, as one launch each from now on.
                graphs.append(self._recorded(left))
            kinds = left
        solution = self.result()
        if graphs:  # their memory must outlive what is queued
            torch.cuda.current_stream().synchronize()
        return solution

    def _recorded(self, kinds: Sequence[int]) -> torch.cuda.CUDAGraph:
        """A step as a CUDA graph."""
        graph, stream = torch.cuda.CUDAGraph(), _capture_stream(self._problem.x.device)
        with _CAPTURING:
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                graph.capture_begin(capture_error_mode="thread_local")
                try:
                    self.step(kinds)
                finally:
                    graph.capture_end()
            torch.cuda.current_stream().wait_stream(stream)
        return graph


def _look(flags: Tensor) -> tuple[Tensor, Any]:
    """A copy on the host, and the event after which it is complete."""
    if not flags.is_cuda:
        return flags.clone(), None
    seen = torch.empty(flags.shape, dtype=flags.dtype, pin_memory=True)
    seen.copy_(flags, non_blocking=True)
    arrived: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]
    arrived.record()
    return seen, arrived


def on_device_of(x: Tensor) -> AbstractContextManager[Any]:
    """A context in which the device of x is the current one; for a tensor on the host, none."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


def stream_of(x: Tensor) -> int:
    """Address of torch's current stream on the device of x; 0 on the host."""
    return torch.cuda.current_stream(x.device).cuda_stream if x.is_cuda else 0
