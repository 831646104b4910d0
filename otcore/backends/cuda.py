"""The CUDA kernels: named costs, at most 16 dimensions, float32 and float64, points on an NVIDIA GPU.

Work is queued on torch's current stream of the device of the points; memory comes from torch's allocator. A
solve is decided on the device: inside `torch.cuda.graph` nothing is waited for.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ..problem import readable
from .stepped import Room, compiled, device_refusal, on_device_of, settings, solved, stream_of

if TYPE_CHECKING:
    from ..problem import Cost, Problem
    from ..ragged import Sizes
    from ..solution import Potentials, Solved

MOST_DIMENSIONS = 16
_CROSS, _SELF = 0, 1  # kinds of transport problems, in the order of kernels/cuda/batch.h
# Clouds of so many points in so few dimensions are put in spatial order: tiles far apart are then skipped.
_ORDERED_POINTS, _ORDERED_DIMENSIONS = 2048, 4


class _Clouds(NamedTuple):
    """What the kernels take, and the memory that its addresses point to."""

    native: Any
    items: int
    diameters: Tensor
    kept: Sequence[Tensor | None]


class _Order(NamedTuple):
    """Of the points of both clouds, (B, N) and (B, M) indices; None: as they come."""

    x: Tensor | None
    y: Tensor | None

    def place(self, *tensors: Any) -> list[Any]:
        """What belongs to points of x, y, x, y, ... in this order; None and empty tensors stay."""
        return [_taken(t, order) for t, order in zip(tensors, self * len(tensors), strict=False)]

    def restore(self, *tensors: Tensor) -> list[Tensor]:
        """The inverse of `place`."""
        return [_returned(t, order) for t, order in zip(tensors, self * len(tensors), strict=False)]


class _Frames(NamedTuple):
    """What `prepare` makes of two clouds: points, what potentials are less by, and sizes."""

    x: Tensor
    y: Tensor
    shift: Tensor
    offset: Tensor
    diameters: Tensor
    flat: Tensor


_AS_GIVEN = _Order(None, None)


class Cuda:
    """See `otcore.backends.Backend` for the verbs.

    Args:
        native: the compiled module, which tests replace by an emulation of it on the host.
        problem: whose clouds are put in order and framed once, however often the verbs get them; they must
            not change meanwhile.
    """

    name = "cuda"

    def __init__(self, native: Any = None, problem: Problem | None = None) -> None:
        self._native = native or compiled()
        self._points = () if problem is None else (problem.x, problem.y)
        self._arranged: dict[tuple[int, int], tuple[_Order, Tensor, Tensor]] = {}
        self._framed: dict[tuple[int, int, Any], _Frames] = {}

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
        return device_refusal(self._native, device)

    def prepared(self, problem: Problem) -> Cuda:
        """The same verbs for many calls on one problem."""
        return type(self)(self._native, problem)

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
        with on_device_of(x):
            order, x, y = self._arrange(x, y)
            _, g, _, b = order.place(None, _wide(g), None, b)
            q = self._clouds(x, y, None, b, cost, floor)
            out = x.new_empty(x.shape[:2], dtype=torch.float64)
            held = g, _temperatures(eps, x), self._boxes(q)
            self._native.softmin(q.native, *(t.data_ptr() for t in held), out.data_ptr())
            return order.restore(out)[0].to(x.dtype)

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
        with on_device_of(x):
            order, x, y = self._arrange(x, y)
            f, g, a, b = order.place(_wide(f), _wide(g), a, b)
            q = self._clouds(x, y, a, b, cost, floor, kind=_SELF if same else _CROSS)
            potentials = torch.cat([f.flatten(), g.flatten()])
            sums = torch.empty_like(potentials)
            scratch = x.new_empty(self._native.sweep_scratch(q.native))
            pairs = torch.zeros(len(x), dtype=torch.int64, device=x.device)
            held = (potentials, _temperatures(eps, x), scratch, sums, pairs)
            self._native.sweep(q.native, *(t.data_ptr() for t in held))
            log_r = sums[: f.numel()].view_as(f).to(x.dtype)
            if same:
                log_r = order.restore(log_r)[0]
                return log_r, log_r
            log_r, log_c = order.restore(log_r, sums[f.numel() :].view_as(g).to(x.dtype))
            return log_r, log_c

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
        with on_device_of(x):
            order, x, y = self._arrange(x, y)
            f, g, a, b, _, v = order.place(_wide(f), _wide(g), a, b, None, _wide(v))
            q = self._clouds(x, y, a, b, cost, floor)
            width = v.shape[-1]
            out = x.new_empty(*x.shape[:2], width)
            held = f, g, _temperatures(eps, x), v
            boxes = self._boxes(q)
            where = width, boxes.data_ptr(), out.data_ptr()
            self._native.apply(q.native, *(t.data_ptr() for t in held), *where)
            return order.restore(out)[0]

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
        with on_device_of(x):
            order, x, y = self._arrange(x, y)
            f, g, weight, b = order.place(f, g, weight, b)
            clouds = self._clouds(x, y, None, b, cost, floor)
            slopes = self._slopes(clouds, x, y, (f, g), (weight, None, None, None), eps, normalise)
            return order.restore(slopes[0])[0]

    def gradients(
        self,
        problem: Problem,
        potentials: Potentials,
        weights: tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None],
        normalise: bool,
    ) -> tuple[Tensor, Tensor]:
        """`otcore.operators.point_gradients`, its sides and items together."""
        q = problem
        kinds = 3 if weights[2] is not None or weights[3] is not None else 1
        with on_device_of(q.x):
            order, x, y = (_AS_GIVEN, q.x, q.y) if q.sizes else self._arrange(q.x, q.y)
            a, b = order.place(q.a, q.b)
            own = order.place(*potentials[: 4 if kinds > 1 else 2])
            shares = order.place(*weights)
            given_a, given_b = (a, b) if q.weighted else (None, None)
            clouds = self._clouds(x, y, given_a, given_b, q.cost, q.floor, kinds=kinds, sizes=q.sizes)
            slopes = self._slopes(clouds, x, y, own, shares, q.eps, normalise)
            return tuple(order.restore(*slopes))  # type: ignore[return-value]

    def _slopes(
        self,
        clouds: _Clouds,
        x: Tensor,
        y: Tensor,
        potentials: Sequence[Tensor],
        weights: Sequence[Tensor | None],
        eps: float,
        normalise: bool,
    ) -> list[Tensor]:
        """The gradients of the sides that have a weight; empty for the other."""
        wanted = (
            (weights[0] is not None or weights[2] is not None),
            (weights[1] is not None or weights[3] is not None),
        )
        out = [
            torch.empty_like(t) if need else t.new_empty(0) for t, need in zip((x, y), wanted, strict=True)
        ]
        flat = torch.cat([_wide(t).flatten() for t in potentials])
        wide = [None if w is None else _wide(w) for w in weights]
        temperatures = torch.full((clouds.items,), eps, dtype=torch.float64, device=x.device)
        boxes = self._boxes(clouds, 4 if len(potentials) > 2 else 2)
        addresses = [0 if w is None else w.data_ptr() for w in wide]
        where = boxes.data_ptr(), *(t.data_ptr() for t in out)
        self._native.gradients(
            clouds.native, flat.data_ptr(), temperatures.data_ptr(), addresses, normalise, *where
        )
        return out

    def anneal(self, problem: Problem) -> Solved:
        """`otcore.solver.anneal`, decided on the device."""
        q = problem
        with on_device_of(q.x):
            order, x, y = (_AS_GIVEN, q.x, q.y) if q.sizes else self._arrange(q.x, q.y)
            a, b = order.place(q.a, q.b)
            kinds = 3 if q.debias else 1
            given_a, given_b = (a, b) if q.weighted else (None, None)
            clouds = self._clouds(x, y, given_a, given_b, q.cost, q.floor, kinds=kinds, sizes=q.sizes)
            room = Room(q, order.place(*(t for t in q.init or () if t is not None)))
            told = x.new_empty(q.items, self._native.TOLD, dtype=torch.float64)
            size = self._native.solve_scratch(clouds.native)
            scratch = torch.empty(size, dtype=torch.uint8, device=x.device)
            held = clouds.diameters, room.potentials, told, scratch
            self._native.solve(clouds.native, settings(self._native, q), *(t.data_ptr() for t in held))
            return solved(q, told, order.restore(*room.parts))

    def _arrange(self, x: Tensor, y: Tensor) -> tuple[_Order, Tensor, Tensor]:
        """An order, and the clouds in it."""
        key = id(x), id(y)
        if key not in self._arranged:
            order = self._order(x, y)
            arranged = order, *order.place(x, y)
            if not {id(x), id(y)} <= {id(points) for points in self._points}:
                return arranged
            self._arranged[key] = arranged
        return self._arranged[key]

    def _order(self, x: Tensor, y: Tensor) -> _Order:
        """Along a Hilbert curve, where that pays."""
        if min(x.shape[1], y.shape[1]) < _ORDERED_POINTS or x.shape[-1] > _ORDERED_DIMENSIONS:
            return _AS_GIVEN
        counts = x.shape[:2].numel(), y.shape[:2].numel()
        codes = torch.empty(sum(counts), dtype=torch.int64, device=x.device)
        clouds = self._described((x, y, *[None] * 7), (len(x), x.shape[1], y.shape[1]), 2, 0.0)
        boxes = torch.cat([torch.stack([t.amin(1), t.amax(1)], 1) for t in (x, y)]).double()
        self._native.order_codes(clouds, boxes.data_ptr(), codes.data_ptr())
        return _Order(
            *(
                part.view(t.shape[:2]).sort(dim=-1, stable=True).indices
                for part, t in zip(codes.split(counts), (x, y), strict=True)  # type: ignore[no-untyped-call]
            )
        )

    def _boxes(self, q: _Clouds, pulls: int = 1) -> Tensor:
        """Memory for the bounds of tiles; empty where they do not pay."""
        u, v = q.kept[0], q.kept[1]
        assert u is not None
        assert v is not None
        longest = v.shape[1] if pulls == 1 else max(u.shape[1], v.shape[1])
        pays = longest >= _ORDERED_POINTS and u.shape[-1] <= _ORDERED_DIMENSIONS
        return u.new_empty(self._native.box_numbers(q.native, pulls) if pays else 0)

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
        batch, n, m = *x.shape[:2], y.shape[1]
        items = batch
        starts: Sequence[Tensor | None] = (None, None)
        if sizes is not None:
            starts = [_starts(counts, batch, x) for counts in sizes]
            items, n, m = batch * len(sizes.n), max(sizes.n), max(sizes.m)
        shape, options = (items, n, m), (cost, floor, kind, kinds)
        key = id(x), id(y), cost
        frames = self._framed.get(key)
        if frames is None:
            frames = self._frames((x, y, a, b, None, None, None, *starts), shape, options)
            if any(x is placed and y is other for _, placed, other in self._arranged.values()):
                self._framed[key] = frames
        u, v, shift, offset, diameters, flat = frames
        kept = (u, v, a, b, shift, offset, flat, *starts)
        return _Clouds(self._described(kept, shape, *options), items, diameters, kept)

    def _frames(
        self,
        given: Sequence[Tensor | None],
        shape: tuple[int, int, int],
        options: tuple[Any, float, int, int],
    ) -> _Frames:
        x, y = given[:2]
        assert x is not None
        assert y is not None
        items, rows = shape[0], x.shape[:2].numel() + y.shape[:2].numel()
        counts = rows, items * x.shape[-1], items, items
        numbers = (x.new_empty(count, dtype=torch.float64) for count in counts)
        frames = _Frames(torch.empty_like(x), torch.empty_like(y), *numbers)
        self._native.prepare(self._described(given, shape, *options), *(t.data_ptr() for t in frames))
        return frames

    def _described(
        self,
        points: Sequence[Tensor | None],
        shape: tuple[int, int, int],
        cost: Cost,
        floor: float,
        kind: int = _CROSS,
        kinds: int = 1,
    ) -> Any:
        """Addresses of x, y, a, b, shift, offset, flat and starts, and what they are, for the kernels."""
        x, y = points[:2]
        assert x is not None
        assert y is not None
        items, n, m = shape
        stream = stream_of(x)
        where = (0 if t is None else t.data_ptr() for t in points)
        counts = n, m, x.shape[:2].numel(), y.shape[:2].numel(), items, x.shape[-1]
        return self._native.Clouds(
            x.dtype == torch.float64, *where, *counts, kind, kinds, cost, floor, stream
        )


def _taken(t: Tensor | None, order: Tensor | None) -> Tensor | None:
    if order is None or t is None or not t.numel():
        return t
    index = order if t.dim() == 2 else order.unsqueeze(-1).expand_as(t)
    return t.gather(1, index)


def _returned(t: Tensor, order: Tensor | None) -> Tensor:
    """The inverse of `_taken`."""
    if order is None or not t.numel():
        return t
    index = order if t.dim() == 2 else order.unsqueeze(-1).expand_as(t)
    return torch.empty_like(t).scatter_(1, index, t)


def _wide(t: Tensor) -> Tensor:
    return t.to(torch.float64).contiguous()


def _temperatures(eps: float | Tensor, x: Tensor) -> Tensor:
    """One for each item, (B,)."""
    if isinstance(eps, Tensor):
        return _wide(eps.expand(len(x)))
    return torch.full((len(x),), eps, dtype=torch.float64, device=x.device)


def _starts(counts: Sequence[int], batch: int, x: Tensor) -> Tensor:
    """The first row of each item of a ragged batch, and the end."""
    if not readable(x):
        raise RuntimeError("a ragged batch cannot be solved inside torch.cuda.graph: give clouds of one size")
    return torch.tensor(list(accumulate(list(counts) * batch, initial=0)), device=x.device)
