"""Triton kernels for CUDA tensors: costs 1 and 2 in any dimension, on matrix units where exact enough.

Points are float32, float64, float16 or bfloat16; sums are float32, or float64 for float64 points and where
float32 would not do (`otcore.backends.clouds`). The same call gives the same bits.
"""

from __future__ import annotations

from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..kernels.triton.tiles import (  # type: ignore[import-untyped]
    POINT_TILE,
    Tile,
    difference_tile,
    plan_tile,
    product_tile,
    slope_tile,
    values_width,
)
from .clouds import LOG2_E, Cloud, Layout, Pairs
from .stepped import on_device_of

if TYPE_CHECKING:
    from ..problem import Cost, Problem

# Sums outside of 2 to the power of -limit and limit are computed again.
_LIMITS = {torch.float32: 80, torch.float64: 900}
# Programs of a sweep, enough for several on each multiprocessor; the same everywhere, so that results are.
_PROGRAMS = 1024
# Column sums of groups of rows held at a time.
_MOST_PARTIAL_SUMS = 2**24
_MOST_GROUPS = 2**15


class Triton:
    """See `otcore.backends.Backend` for the verbs.

    Args:
        problem: whose clouds and weights are looked at once, however often the verbs get them; they must not
            change meanwhile, and temperatures given as tensors not be below its own.

    Raises:
        ImportError: when made without triton.
    """

    name = "triton"
    stepped = True

    def __init__(self, problem: Problem | None = None) -> None:
        if find_spec("triton") is None:
            raise ImportError("triton is not installed: pip install triton")
        self._problem = problem
        self._clouds = () if problem is None else (Cloud(problem.x), Cloud(problem.y))
        self._known: dict[tuple[int, ...], Pairs] = {}

    def refuses(self, problem: Problem) -> str | None:
        if not isinstance(problem.cost, int):
            kind = "a formula" if isinstance(problem.cost, str) else "a function"
            return f"the cost is {kind}; it has kernels for p=1, p=2 and the costs with a name"
        if problem.x.device.type != "cuda":
            return f"the points are on the {problem.x.device}; move x, y and any weights with .cuda()"
        return None

    def machine(self) -> tuple[bool, str]:
        """Whether it is usable here, and on what or why not."""
        if not torch.cuda.is_available():
            return False, "this torch finds no CUDA GPU"
        return True, f"triton {version('triton')}, {torch.cuda.get_device_name()}"

    def prepared(self, problem: Problem) -> Triton:
        """The same verbs for many calls on one problem."""
        return Triton(problem)

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
        from ..kernels.triton.softmin import log_row_sums  # type: ignore[import-untyped]

        layout, scale = self._layout(x, y, cost, eps), _scale(eps, x)
        out = _empty(x, x.shape[:2])
        tile = tile_of(layout)
        none = torch.empty((), device=x.device)
        bits = lifted(layout, scale, layout.lift_x, g)
        arguments = {**bits, "f": none, "b": b, "sums": none, "out": out, "parts": 0}
        constants = {"FINISH": False, "LIMIT": 0, "COST": cost, "FLOOR": floor}
        grid = (len(x) * _parts(x.shape[1], tile.rows),)
        launch(log_row_sums, grid, layout, tile, scale, arguments | constants)
        return out

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
        from ..kernels.triton.softmin import log_row_sums
        from ..kernels.triton.sweep import row_and_column_sums  # type: ignore[import-untyped]

        layout, scale = self._layout(x, x if same else y, cost, eps), _scale(eps, x)
        f, g, a, b = (t.contiguous() for t in (f, g, a, b))
        tile, ground = tile_of(layout, both=True), {"COST": cost, "FLOOR": floor}
        n_tiles, m_tiles = _parts(x.shape[1], tile.rows), _parts(y.shape[1], tile.columns)
        row_tiles, column_tiles = partition(len(x), n_tiles, m_tiles, y.shape[1])
        groups, segments = _parts(n_tiles, row_tiles), _parts(m_tiles, column_tiles)
        dtype = torch.float64 if layout.wide else torch.float32
        sizes = (segments * a.numel(), groups * b.numel())
        # Tiles that are left out leave zeros.
        sums = (torch.zeros if same else torch.empty)(sum(sizes), dtype=dtype, device=x.device)
        row_sums, column_sums = sums[: sizes[0]], sums[sizes[0] :]
        bits = lifted(layout, scale, f, g)
        arguments = {
            **{**bits, "a": a, "b": b, "row_sums": row_sums, "column_sums": column_sums},
            **{"row_tiles": row_tiles, "column_tiles": column_tiles, "SAME": same},
        }
        launch(row_and_column_sums, (len(x), segments, groups), layout, tile, scale, arguments | ground)

        def logarithms(
            layout: Layout, bits: dict[str, Tensor], f: Tensor, b: Tensor, sums: Tensor, parts: int
        ) -> Tensor:
            out, own = _empty(x, f.shape), tile_of(layout)
            arguments = {**bits, "f": f, "b": b, "sums": sums, "out": out, "parts": parts}
            options = {"FINISH": True, "LIMIT": _LIMITS[dtype], **ground}
            grid = (len(f) * _parts(f.shape[1], own.rows),)
            launch(log_row_sums, grid, layout, own, scale, arguments | options)
            return out

        if same:
            log_r = logarithms(layout, bits, f, b, sums, segments + groups)
            return log_r, log_r
        log_r = logarithms(layout, bits, f, b, row_sums, segments)
        # Of columns, what they have in common is in the rows.
        turned = {"column": bits["row"], "common": -bits["common"]}
        return log_r, logarithms(layout.turned, turned, g, a, column_sums, groups)

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
        layout, scale = self._layout(x, y, cost, eps), _scale(eps, x)
        out = _empty(x, (*x.shape[:2], v.shape[-1]))
        bits = lifted(layout, scale, f, g, a, b)
        _times(layout, scale, bits, v.to(out.dtype), None, out, {"COST": cost, "FLOOR": floor})
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
        from ..kernels.triton.grad import distance_slopes  # type: ignore[import-untyped]

        pairs = self._pairs(x, y, cost)
        layout, scale = pairs.layout(eps), _scale(eps, x)
        if normalise:
            # Each row by its own sum: f is its softmin.
            f, a = self.softmin(x, y, g, b, cost=cost, eps=eps, floor=floor), torch.ones_like(a)
        bits = lifted(layout, scale, f, g, a, b)
        if cost == 2:
            out = _empty(x, x.shape)
            # x - y is u - v + t.
            own = (pairs.x.centred + pairs.offset).to(out.dtype)
            _times(layout, scale, bits, pairs.y.centred, own, out, {"COST": cost, "FLOOR": floor})
            return out
        out = _empty(x, x.shape, layout.wide)
        tile = slope_tile(64 if layout.wide else 32)
        arguments = {**bits, "out": out, "FLOOR": floor}
        grid = (len(x) * _parts(x.shape[1], tile.rows),)
        launch(distance_slopes, grid, layout, tile, scale, arguments)
        return out.to(_dtype(x))

    def _layout(self, x: Tensor, y: Tensor, cost: Cost, eps: float | Tensor) -> Layout:
        if not isinstance(eps, Tensor):
            least = eps
        elif self._problem is not None:
            least = self._problem.eps
        else:
            least = float(eps.abs().min())
        return self._pairs(x, y, cost).layout(least)

    def _pairs(self, x: Tensor, y: Tensor, cost: Cost) -> Pairs:
        assert isinstance(cost, int)
        known = {id(cloud.points): cloud for cloud in self._clouds}
        key = id(x), id(y), cost
        if key in self._known:
            return self._known[key]
        first = known.get(id(x)) or Cloud(x)
        second = first if y is x else known.get(id(y)) or Cloud(y)
        pairs = Pairs(first, second, cost)
        if id(x) in known and id(y) in known:
            self._known[key] = pairs
        return pairs


def partition(items: int, n_tiles: int, m_tiles: int, m: int) -> tuple[int, int]:
    """How many tiles a program of a sweep takes, of rows and of columns.

    There are about `_PROGRAMS` of them, and column sums of at most `_MOST_PARTIAL_SUMS` groups times points.
    """
    row_tiles = max(_parts(items * n_tiles * m, _MOST_PARTIAL_SUMS), _parts(n_tiles, _MOST_GROUPS))
    row_tiles = min(row_tiles, n_tiles)
    segments = max(1, min(_PROGRAMS // (items * _parts(n_tiles, row_tiles)), m_tiles))
    return row_tiles, _parts(m_tiles, segments)


def tile_of(layout: Layout, both: bool = False) -> Tile:
    """The tile of the kernels that sum over pairs: over columns, or over both sides."""
    if layout.parts == 0:
        return difference_tile(64 if layout.wide else 32, both)
    return product_tile(capability_of(layout.x.device), layout.d)


def capability_of(device: torch.device) -> int:
    if device.type != "cuda":
        return 90
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


def lifted(
    layout: Layout, scale: Tensor, f: Tensor, g: Tensor, a: Tensor | None = None, b: Tensor | None = None
) -> dict[str, Tensor]:
    """What `kernels.triton.pairs.lifted_potentials` makes of potentials, and of weights if there are any."""
    from ..kernels.triton.pairs import lifted_potentials  # type: ignore[import-untyped]

    dtype = torch.float64 if layout.wide else torch.float32
    out = {
        "row": torch.empty(f.shape, dtype=dtype, device=f.device),
        "column": torch.empty(g.shape, dtype=dtype, device=f.device),
        "common": torch.empty_like(scale),
    }
    arguments = {"f": f, "g": g, "a": f if a is None else a, "b": g if b is None else b, **out}
    options = {"WEIGHTED": a is not None, "SIZE": POINT_TILE.rows}
    grid = (len(f) * _parts(max(f.shape[1], g.shape[1]), POINT_TILE.rows),)
    launch(lifted_potentials, grid, layout, POINT_TILE, scale, arguments | options)
    return out


def _times(
    layout: Layout,
    scale: Tensor,
    bits: dict[str, Tensor],
    v: Tensor,
    own: Tensor | None,
    out: Tensor,
    ground: dict[str, Any],
) -> None:
    """out (B, N, K) of the plan times v (B, M, K); with own (B, N, K), own times row sums less that."""
    from ..kernels.triton.apply import plan_times  # type: ignore[import-untyped]

    width = v.shape[-1]
    tile, across = plan_tile(layout.parts, layout.d, layout.wide), values_width(width, layout.wide)
    arguments = {
        **{**bits, "v": v, "own": out if own is None else own, "SLOPES": own is not None, "out": out},
        **{"width": width, "WIDTH": across},
    }
    grid = (len(out) * _parts(out.shape[1], tile.rows), _parts(width, across))
    launch(plan_times, grid, layout, tile, scale, arguments | ground)


def launch(
    kernel: Any, grid: tuple[int, ...], layout: Layout, tile: Tile, scale: Tensor, arguments: dict[str, Any]
) -> None:
    """Run a kernel on a grid, with the arguments that it has by name."""
    import triton.language as tl  # type: ignore[import-untyped]

    arguments = {
        **layout._asdict(),
        **{"scale": scale, "n": layout.lift_x.shape[1], "m": layout.lift_y.shape[1]},
        **{"PARTS": layout.parts, "WHOLE": layout.d == tile.depth},
        **{"ROWS": tile.rows, "COLUMNS": tile.columns, "DEPTH": tile.depth},
        "DTYPE": tl.float64 if layout.wide else tl.float32,
        **{name: t.contiguous() if isinstance(t, Tensor) else t for name, t in arguments.items()},
    }
    run(kernel, grid, {name: arguments[name] for name in kernel.arg_names}, tile)


def run(kernel: Any, grid: tuple[int, ...], arguments: dict[str, Any], tile: Tile) -> None:
    """Start it on the device of its tensors."""
    with on_device_of(arguments["scale"]):
        kernel[grid](**arguments, num_warps=tile.warps, num_stages=tile.stages)


def _scale(eps: float | Tensor, x: Tensor) -> Tensor:
    """log2(e) / eps of each item, (B,) float64."""
    if isinstance(eps, Tensor):
        return LOG2_E / eps.double()
    return torch.full((len(x),), LOG2_E / eps, dtype=torch.float64, device=x.device)


def _dtype(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _empty(x: Tensor, shape: Any, wide: bool = False) -> Tensor:
    return torch.empty(shape, dtype=torch.float64 if wide else _dtype(x), device=x.device)


def _parts(count: int, size: int) -> int:
    """How many parts of that size it takes."""
    return -(-count // size)
