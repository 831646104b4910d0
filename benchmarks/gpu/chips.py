"""What GPUs can do in a second, from their documents.

Rates a clock and multiprocessor are those of the CUDA C++ Programming Guide, "Arithmetic Instructions", for
compute capability 8.0 and 9.0 (results a clock; of integer products the same 64); four warps issue an
instruction each a clock; shared memory and the first-level cache give 128 bytes a clock. Multiprocessors,
bandwidth and peaks are those of NVIDIA's datasheets (A100 80GB SXM, H100 SXM, H200 SXM); the clock is the
one at which the matrix units reach the dense float16 peak of the datasheet (312 and 989 TFLOP/s). The
second-level cache of the A100 is read at 5120 bytes a clock (its white paper); for Hopper NVIDIA says
nothing, and the same is assumed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_REGISTERS, _WARPS, _BLOCKS = 65536, 64, 32
_RESERVED = 1024  # bytes of shared memory that each block takes for the system


@dataclass(frozen=True)
class Chip:
    """rates: of the pipes of `sass`, a clock and multiprocessor. clock in Hz, bandwidth in bytes a second.
    shared: bytes of shared memory of a multiprocessor."""

    name: str
    capability: int
    multiprocessors: int
    clock: float
    bandwidth: float
    shared: int
    rates: Mapping[str, float]

    def seconds(self, pipe: str, asked: float) -> float:
        """For that much work, spread evenly."""
        return asked / (self.rates[pipe] * self.multiprocessors * self.clock)

    def resident(self, registers: int, shared: int, warps: int) -> int:
        """How many blocks of so many registers a thread, shared bytes and warps a multiprocessor holds."""
        registers = -(-registers // 8) * 8
        return min(
            _REGISTERS // (registers * 32 * warps),
            self.shared // (shared + _RESERVED),
            _WARPS // warps,
            _BLOCKS,
        )


def _rates(fma: int, fp64: int, matrix: int, l2: float) -> dict[str, float]:
    fixed = {"issue": 128, "imad": 64, "alu": 64, "mufu": 16, "lsu": 32}
    return {**fixed, "fma": fma, "fp64": fp64, "matrix": matrix, "l2": l2}


A100 = Chip("A100", 80, 108, 1.41e9, 2.039e12, 164 * 1024, _rates(64, 32, 1024, 5120 / 108))
_HOPPER = _rates(128, 64, 2048, 5120 / 132)
H100 = Chip("H100", 90, 132, 1.83e9, 3.35e12, 228 * 1024, _HOPPER)
H200 = Chip("H200", 90, 132, 1.83e9, 4.8e12, 228 * 1024, _HOPPER)
CHIPS = (A100, H100, H200)
