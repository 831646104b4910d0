"""Machine code on a machine without a GPU: what Triton compiles, and what the CUDA extension holds.

Triton keeps what it compiles by the hash of source and options (TRITON_CACHE_DIR): only what has changed is
compiled again. cuobjdump, which reads machine code, comes with Triton.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any
from unittest import mock

import torch
from otcore.kernels.triton.tiles import Tile
from torch import Tensor

import otcore
from otcore.backends import triton as backend

_SPELLED = {
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.float32: "*fp32",
    torch.float64: "*fp64",
}


@dataclass(frozen=True)
class Launch:
    """A Triton kernel, its arguments by name, and its grid."""

    kernel: Any
    grid: tuple[int, int, int]
    arguments: dict[str, Any]
    tile: Tile

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
                found.append((_SPELLED[value.dtype], 16))
            else:
                found.append(("i32", 16 if value % 16 == 0 else 1))
        return tuple(found)

    def compiled(self, capability: int) -> Compiled:
        return _compiled(self.kernel, self.kinds(), self.tile, capability)


@dataclass(frozen=True)
class Compiled:
    """What the compiler made of a launch; `usage` and `sass` are cuobjdump's."""

    shared: int
    usage: str
    sass: str


@contextmanager
def launches(capability: int) -> Iterator[list[Launch]]:
    """What the Triton verbs launch in this context, on a GPU of that capability; nothing runs."""
    found: list[Launch] = []

    def run(*launched: Any) -> None:
        found.append(Launch(*launched))

    with (
        mock.patch.object(backend, "run", run),
        mock.patch.object(backend, "capability_of", return_value=capability),
    ):
        yield found


@cache
def _compiled(kernel: Any, kinds: tuple[tuple[str, Any], ...], tile: Tile, capability: int) -> Compiled:
    import triton
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
    return Compiled(
        binary.metadata.shared, *(_disassembled(binary, what) for what in ("-res-usage", "-sass"))
    )


def _disassembled(binary: Any, what: str) -> str:
    """What cuobjdump says of a kernel; kept beside Triton's own cache."""
    import triton

    kept = Path(triton.knobs.cache.dir) / "otcore" / f"{binary.hash}{what}.txt"
    if not kept.exists():
        with NamedTemporaryFile(suffix=".cubin") as file:
            file.write(binary.asm["cubin"])
            file.flush()
            found = cuobjdump(what, file.name)
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(found)
    return kept.read_text()


def cuobjdump(*arguments: Any) -> str:
    """What it prints.

    Raises:
        ImportError: when triton is not installed.
    """
    import triton

    program = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    command = [str(part) for part in (program, *arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def extension() -> Path | None:
    """The compiled `_cuda`; None where otcore was built without CUDA."""
    return next(iter(sorted(Path(otcore._core.__file__).parent.glob("_cuda.*.so"))), None)


@dataclass(frozen=True)
class Kernel:
    """A CUDA kernel in the extension: its mangled name, and the resources of a thread and of a block."""

    name: str
    registers: int
    stack: int
    local: int


@cache
def kernels(architecture: str) -> list[Kernel]:
    """Those that the extension has for an architecture ("sm_90")."""
    usage = cuobjdump("-res-usage", "-arch", architecture, extension())
    found = re.findall(r"Function (\S+):\s+REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", usage)
    return [Kernel(name, *(int(number) for number in numbers)) for name, *numbers in found]


def sass(kernel: Kernel, architecture: str) -> str:
    """The machine code of a CUDA kernel."""
    return cuobjdump("-sass", "-arch", architecture, "-fun", kernel.name, extension())
