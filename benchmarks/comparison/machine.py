"""What the figures were measured on: CPU, instruction set, threads, versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

import torch

LIBRARIES = ("otcore", "torch", "numpy", "geomloss", "pykeops", "ott-jax", "jax", "POT")

# The x86-64 levels the native kernels are compiled for, widest first, with flags of /proc/cpuinfo that
# decide.
LEVELS = {
    "x86-64-v4": {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"},
    "x86-64-v3": {"avx2", "fma", "bmi2", "f16c"},
    "x86-64-v2": {"sse4_2", "popcnt"},
}


def _cpuinfo(key: str) -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.split(":")[0].strip() == key:
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return ""


def instruction_set() -> str:
    """The widest x86-64 level this CPU has, e.g. "x86-64-v4" (AVX-512), or the architecture's name
    elsewhere."""
    flags = set(_cpuinfo("flags").split())
    return next((level for level, needed in LEVELS.items() if needed <= flags), platform.machine())


def has_avx512() -> bool:
    return instruction_set() == "x86-64-v4"


def version(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def describe() -> dict[str, str]:
    load = os.getloadavg()[0]
    return {
        "CPU": _cpuinfo("model name") or platform.processor() or platform.machine(),
        "instruction set": instruction_set(),
        "cores": str(os.cpu_count()),
        "torch threads": str(torch.get_num_threads()),
        "load before": f"{load:.2f}",
        "python": platform.python_version(),
        **{library: version(library) for library in LIBRARIES},
    }
