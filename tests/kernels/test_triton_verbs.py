"""The Triton verbs compiled for GPUs exactly as they are launched, on a machine without one."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest
import torch
from otcore.kernels.triton import tiles

from otcore.backends import triton as backend
from otcore.backends.clouds import Cloud, Pairs
from tests.kernels.compiled import launches

pytest.importorskip("triton", reason="triton is not installed: pip install triton")

# What a program may use: that of the smallest GPU of the architecture, 99 KiB on sm_86 and sm_89.
SHARED = {80: 99 * 1024, 90: 227 * 1024}


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
def test_compiles_without_spilling(shape: Shape, capability: int) -> None:
    with launches(capability) as launched:
        launch(shape)
    for one in launched:
        found = one.compiled(capability)
        assert found.shared <= SHARED[capability]
        assert "STACK:0 " in found.usage, (one.name, found.usage)
        assert "LOCAL:0 " in found.usage, (one.name, found.usage)
        product = one.name == "plan_times" or (
            one.name != "lifted_potentials" and shape.layout in ("split", "raw")
        )
        if product:
            unit = "DMMA" if shape.layout == "wide" else {80: "HMMA", 90: "HGMMA"}[capability]
            assert re.search(rf"\b{unit}\b", found.sass), one.name
