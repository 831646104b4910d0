"""The Triton verbs compiled for GPUs exactly as they are launched, on a machine without one.

Triton keeps what it compiles by the hash of source and options (TRITON_CACHE_DIR): only what has changed is
compiled again.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import pytest
import torch
from otcore.kernels.triton import tiles
from torch import Tensor

from otcore.backends import triton as backend
from otcore.backends.clouds import Cloud, Pairs

triton = pytest.importorskip("triton", reason="triton is not installed: pip install triton")
tl = triton.language

# What a program may use: that of the smallest GPU of the architecture, 99 KiB on sm_86 and sm_89.
SHARED = {80: 99 * 1024, 90: 227 * 1024}
SPELLED = {
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.float32: "*fp32",
    torch.float64: "*fp64",
}


@dataclass(frozen=True)
class Launch:
    """A kernel and its arguments by name."""

    kernel: Any
    arguments: dict[str, Any]
    tile: tiles.Tile

    @property
    def name(self) -> str:
        return str(self.kernel.fn.__name__)

    def kinds(self) -> tuple[tuple[str, Any], ...]:
        """What each argument is to the compiler; it knows of multiples of 16 that they are."""
        found = []
        for parameter in self.kernel.params:
            value = self.arguments[parameter.name]
            if parameter.is_constexpr or (isinstance(value, int) and value == 1):
                found.append(("constexpr", value))
            elif isinstance(value, Tensor):
                found.append((SPELLED[value.dtype], 16))
            else:
                found.append(("i32", 16 if value % 16 == 0 else 1))
        return tuple(found)


@dataclass(frozen=True)
class Compiled:
    """What the compiler made of a launch."""

    shared: int
    usage: str
    sass: str


@cache
def compiled(kernel: Any, kinds: tuple[tuple[str, Any], ...], tile: tiles.Tile, capability: int) -> Compiled:
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    named = dict(zip(kernel.arg_names, kinds, strict=True))
    source = ASTSource(
        kernel,
        {name: kind for name, (kind, _) in named.items()},
        constexprs={name: value for name, (kind, value) in named.items() if kind == "constexpr"},
        attrs={
            (i,): [["tt.divisibility", 16]]
            for i, (kind, n) in enumerate(kinds)
            if kind != "constexpr" and n == 16
        },
    )
    options = {"num_warps": tile.warps, "num_stages": tile.stages}
    binary = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    return Compiled(binary.metadata.shared, *(disassembled(binary, what) for what in ("-res-usage", "-sass")))


def disassembled(binary: Any, what: str) -> str:
    """What cuobjdump, which comes with Triton, says of it; kept beside Triton's own cache."""
    kept = Path(triton.knobs.cache.dir) / "otcore" / f"{binary.hash}{what}.txt"
    if not kept.exists():
        cuobjdump = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
        with NamedTemporaryFile(suffix=".cubin") as file:
            file.write(binary.asm["cubin"])
            file.flush()
            found = subprocess.run([cuobjdump, what, file.name], capture_output=True, text=True, check=True)
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(found.stdout)
    return kept.read_text()


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[Launch]:
    """What the verbs launch from here on; nothing runs."""
    found: list[Launch] = []
    monkeypatch.setattr(
        backend, "run", lambda kernel, grid, arguments, tile: found.append(Launch(kernel, arguments, tile))
    )
    return found


@dataclass(frozen=True)
class Shape:
    """Points that make the verbs choose a layout, and the verbs to compile for it."""

    layout: str
    d: int
    dtype: torch.dtype = torch.float32
    p: int = 2
    eps: float = 1.0
    verbs: str = "sweep"


SHAPES = [
    Shape("split", 16),
    Shape("split", 32),
    Shape("split", 64, verbs="sweep same softmin apply grad"),
    Shape("split", 1000, verbs="sweep same softmin apply grad"),
    Shape("raw", 16, torch.float16),
    Shape("raw", 32, torch.bfloat16),
    Shape("raw", 64, torch.bfloat16),
    Shape("raw", 1000, torch.float16),
    Shape("differences", 17, p=1, verbs="sweep same softmin apply grad"),
    Shape("differences", 17, eps=1e-4, verbs="sweep softmin apply grad"),
    Shape("differences", 17, torch.bfloat16, p=1, verbs="sweep grad"),
    Shape("wide", 17, torch.float64, verbs="sweep softmin apply grad"),
    Shape("wide", 17, torch.float64, p=1, verbs="sweep same grad"),
]


def launch(shape: Shape) -> None:
    """Call the verbs on clouds of 1000 and 1500 points."""
    x, y = ((torch.rand(2, n, shape.d) - 0.5).to(shape.dtype) for n in (1000, 1500))
    dtype = torch.promote_types(shape.dtype, torch.float32)
    f, g, a, b = (torch.rand(2, n).to(dtype) for n in (1000, 1500, 1000, 1500))
    ground = {"cost": shape.p, "eps": shape.eps * shape.d / 16}
    assert Pairs(Cloud(x), Cloud(y), shape.p).choice(ground["eps"]) == shape.layout
    verbs = backend.Triton()
    calls = {
        "sweep": lambda: verbs.sweep(x, y, f, g, a, b, **ground),
        "same": lambda: verbs.sweep(x, x, f, f, a, a, same=True, **ground),
        "softmin": lambda: verbs.softmin(x, y, g, b, **ground),
        "apply": lambda: [verbs.apply(x, y, f, g, a, b, g.new_ones(2, 1500, k), **ground) for k in (1, 64)],
        "grad": lambda: verbs.grad(x, y, f, g, a, b, **ground),
    }
    for verb in shape.verbs.split():
        calls[verb]()


def test_every_tile_is_compiled() -> None:
    """The shapes above reach every row of the table of tiles."""
    for capability in SHARED:
        reached = {
            tiles.product_tile(capability, tiles.padded_width(s.d))
            for s in SHAPES
            if s.layout in ("split", "raw")
        }
        assert reached == set(tiles.product_tiles(capability))


@pytest.mark.parametrize("capability", sorted(SHARED))
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_compiles_without_spilling(
    shape: Shape, capability: int, launches: list[Launch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "capability_of", lambda device: capability)
    launch(shape)
    for one in launches:
        found = compiled(one.kernel, one.kinds(), one.tile, capability)
        assert found.shared <= SHARED[capability]
        assert "STACK:0 " in found.usage, (one.name, found.usage)
        assert "LOCAL:0 " in found.usage, (one.name, found.usage)
        product = one.name == "plan_times" or (
            one.name != "lifted_potentials" and shape.layout in ("split", "raw")
        )
        if product:
            unit = "DMMA" if shape.layout == "wide" else {80: "HMMA", 90: "HGMMA"}[capability]
            assert re.search(rf"\b{unit}\b", found.sass), one.name
