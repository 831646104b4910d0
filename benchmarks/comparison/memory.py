"""Peak resident memory of a piece of work, beyond what was resident before it (Linux)."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path

STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # see proc(5): writing 5 resets VmHWM to the present VmRSS


def _resident(key: str) -> int:
    for line in STATUS.read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{STATUS} has no {key}")


def peak_beyond(work: Callable[[], object]) -> int:
    """Bytes by which `work()` raised the peak resident set over the set resident before it.

    Memory the allocator kept from earlier work would hide new demand, so it is returned to the system first.
    OSError where /proc does not offer the counters (not Linux).
    """
    gc.collect()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
    CLEAR_REFS.write_text(RESET_PEAK)
    before = _resident("VmRSS")
    work()
    return max(0, _resident("VmHWM") - before)
