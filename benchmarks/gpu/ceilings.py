"""What this card can do: bytes copied, matrices multiplied and exponentials taken in a second."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from benchmarks.gpu.timing import Timer, median_seconds

COPIED = 2**30  # bytes
SIDE = 8192  # of the matrices
UNROLLED, ROUNDS, BLOCK = 8, 512, 1024
_PROGRAMS = 16  # a multiprocessor


@dataclass(frozen=True)
class Ceilings:
    """Bytes read and written, multiplications with an addition (two operations), exponentials; a second."""

    bandwidth: float
    bf16: float
    tf32: float
    exponentials: float

    def lines(self) -> list[str]:
        return [
            f"copy bandwidth: {self.bandwidth / 1e12:.2f} TB/s, {COPIED / 2**30:g} GiB read and written",
            f"matrix rate: {2 * self.bf16 / 1e12:.0f} TFLOP/s in bf16 and {2 * self.tf32 / 1e12:.0f} in "
            f"tf32, products of {SIDE} x {SIDE}",
            f"exponentials: {self.exponentials / 1e12:.2f} T/s in float32, in registers",
        ]


@triton.jit
def chained_exponentials(x, rounds, UNROLLED: tl.constexpr, BLOCK: tl.constexpr):
    """Each number through 2^-x, rounds x UNROLLED times."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    e = tl.load(x + at)
    for _ in range(rounds):
        for _ in tl.static_range(UNROLLED):
            e = tl.exp2(-e)
    tl.store(x + at, e)


def measure(timer: Timer, device: torch.device) -> Ceilings:
    """Random numbers throughout: zeros would run faster."""
    return Ceilings(
        copy_bandwidth(timer, device),
        matrix_rate(timer, device, torch.bfloat16),
        matrix_rate(timer, device, torch.float32),
        exp_rate(timer, device),
    )


def copy_bandwidth(timer: Timer, device: torch.device, octets: int = COPIED) -> float:
    x = torch.rand(octets // 4, device=device)
    y = torch.empty_like(x)
    return 2 * x.nbytes / median_seconds(lambda: y.copy_(x), timer)


def matrix_rate(timer: Timer, device: torch.device, dtype: torch.dtype, side: int = SIDE) -> float:
    """Of float32 in tf32."""
    x, y = (torch.rand(side, side, device=device).sub(0.5).to(dtype) for _ in range(2))
    out = torch.empty_like(x)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        return side**3 / median_seconds(lambda: torch.mm(x, y, out=out), timer)
    finally:
        torch.set_float32_matmul_precision(before)


def exp_rate(timer: Timer, device: torch.device, rounds: int = ROUNDS) -> float:
    programs = _PROGRAMS * torch.cuda.get_device_properties(device).multi_processor_count
    x = torch.rand(programs * BLOCK, device=device)

    def work() -> None:
        chained_exponentials[(programs,)](x, rounds, UNROLLED=UNROLLED, BLOCK=BLOCK)

    return x.numel() * rounds * UNROLLED / median_seconds(work, timer)
