"""The CUDA kernels compiled for the host, where fibers stand for their threads (kernels/cuda/emulated.h)."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from otcore.backends.cuda import Cuda

ROOT = Path(__file__).parents[2]
KERNELS, BINDINGS = ROOT / "kernels/cuda", ROOT / "csrc/cuda.cpp"
_NAME = "_cuda_emulated"
_FLAGS = [
    "-std=c++17",
    "-O1",
    "-fPIC",
    "-fvisibility=hidden",
    "-DOTCORE_EMULATED",
    f"-I{KERNELS}",
    "-x",
    "c++",
]


class Emulated(Cuda):
    """The backend `cuda` on CPU tensors."""

    def refuses(self, problem: Any) -> str | None:
        return None if isinstance(problem.cost, int) and problem.x.shape[-1] <= 16 else "not emulated"


def _compile(source: Path, to: Path, includes: list[str]) -> None:
    subprocess.run(["g++", *_FLAGS, *includes, "-c", str(source), "-o", str(to)], check=True)


@cache
def native() -> Any:
    """The compiled emulation, built once for each state of its sources; skips where it cannot be built."""
    pybind11 = pytest.importorskip("pybind11", reason="pybind11 is not installed: pip install pybind11")
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed")
    sources = [*sorted(KERNELS.glob("*.cu")), BINDINGS]
    everything = [*sources, *sorted(KERNELS.glob("*.h"))]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in everything) + sys.version.encode())
    folder = ROOT / "build/emulated" / digest.hexdigest()[:16]
    library = folder / f"{_NAME}{sysconfig.get_config_var('EXT_SUFFIX')}"
    if not library.exists():
        folder.mkdir(parents=True, exist_ok=True)
        includes = [f"-I{path}" for path in (pybind11.get_include(), sysconfig.get_path("include"))]
        objects = [folder / f"{path.name}.o" for path in sources]
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda pair: _compile(*pair, includes), zip(sources, objects, strict=True)))
        part = library.with_suffix(".part")
        subprocess.run(["g++", "-shared", *map(str, objects), "-o", str(part)], check=True)
        part.rename(library)
    spec = importlib.util.spec_from_file_location(_NAME, library)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def emulated() -> Emulated:
    return Emulated(native())


def as_double(*tensors: Tensor) -> list[Tensor]:
    return [t.double() for t in tensors]
