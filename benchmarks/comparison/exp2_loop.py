"""Builds and times the bare exp2 loop (exp2_loop.cpp) with the compiler flags of the native kernels."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
KERNELS = HERE.parents[1] / "kernels" / "cpu"

# As in CMakeLists.txt; -mprefer-vector-width only matters where AVX-512 is there.
FLAGS = ["-O3", "-std=c++17", "-fno-math-errno", "-fno-trapping-math", "-fopenmp-simd", "-pthread"]
VALUES = 2048  # 8 KiB: stays in the first-level cache


class Exp2Loop:
    """The loop, compiled for one instruction set ("x86-64-v4", ..., as g++ -march takes it).

    RuntimeError with the compiler's message when it cannot be built.
    """

    def __init__(self, instruction_set: str) -> None:
        compiler = shutil.which("g++") or shutil.which("c++")
        if compiler is None:
            raise RuntimeError("the bare exp2 loop needs g++ (or c++) on the PATH: none found")
        march = [f"-march={instruction_set}"] if instruction_set.startswith("x86-64") else []
        wide = ["-mprefer-vector-width=512"] if instruction_set == "x86-64-v4" else []
        self._folder = tempfile.TemporaryDirectory(prefix="exp2-loop-")
        library = Path(self._folder.name) / "exp2_loop.so"
        command = [compiler, *FLAGS, *march, *wide, "-DOTCORE_ISA=bare", f"-I{KERNELS}", "-shared", "-fPIC"]
        built = subprocess.run(
            [*command, str(HERE / "exp2_loop.cpp"), "-o", str(library)], capture_output=True, text=True
        )
        if built.returncode:
            raise RuntimeError(f"{compiler} could not build exp2_loop.cpp:\n{built.stderr[-2000:]}")
        native = ctypes.CDLL(str(library))
        native.exp2_step.restype = ctypes.c_long
        self._loop = native.exp2_loop
        self._loop.restype = ctypes.c_double
        self._loop.argtypes = [
            ctypes.c_void_p,
            ctypes.c_long,
            ctypes.c_long,
            ctypes.c_int,
            ctypes.c_int,
            ctypes.POINTER(ctypes.c_float),
        ]
        step = native.exp2_step()
        count = VALUES // step * step
        self._values = (np.random.default_rng(0).standard_normal(count) * 5 - 10).astype(np.float32)

    def seconds(self, total: int, threads: int, repeats: int = 9) -> float:
        """Median seconds for `total` exponentials on `threads` threads."""
        mean = ctypes.c_float()
        at = self._values.ctypes.data
        return self._loop(at, len(self._values), total, threads, repeats, ctypes.byref(mean))

    def gain(self, total: int) -> float:
        """One thread's time over two threads': about 2 on two idle cores."""
        return self.seconds(total, 1) / self.seconds(total, 2)

    def error(self) -> float:
        """Relative error of the loop's sum against NumPy in double precision."""
        mean = ctypes.c_float()
        self._loop(self._values.ctypes.data, len(self._values), 1, 1, 1, ctypes.byref(mean))
        exact = np.exp2(self._values.astype(np.float64)).mean()
        return abs(mean.value / float(exact) - 1)
