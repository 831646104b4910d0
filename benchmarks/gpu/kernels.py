"""The kernels and shapes that are judged: what their code asks for a pair, and how many pairs there are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.gpu.sass import Nest, parse, per_pair
from otcore.backends.triton import Triton
from tests.kernels import compiled
from tests.kernels.compiled import Launch

CAPABILITIES = (80, 90)
CUDA_POINTS, CUDA_DIMENSIONS = 100_000, (1, 2, 3, 8, 16)
# Coordinates and points of the Triton kernels; their row sums and gradients are predicted for the first.
TRITON_SHAPES = ((64, 10_000), (64, 50_000), (128, 10_000), (1024, 10_000))
_SLOTS = 32  # of partial sums, at most; kernels/cuda/sweep.cu


@dataclass(frozen=True)
class Counted:
    """A kernel in the code of one architecture: what a pair asks of the pipes, and a block takes."""

    kernel: str
    capability: int
    pipes: dict[str, float]
    registers: int
    warps: int
    shared: int


@dataclass(frozen=True)
class Work:
    """A launch: so many pairs, and bytes that pass through device memory at least."""

    kernel: str
    shape: str
    pairs: float
    octets: float


def cuda_counts() -> Iterator[Counted]:
    """Of the float32 kernels for p = 2 in the extension."""
    for capability in CAPABILITIES:
        architecture = f"sm_{capability}"
        found = {kernel.name: kernel for kernel in compiled.kernels(architecture)}
        for kernel, (pattern, nest, warps, shared) in _cuda_kernels().items():
            name = next(name for name in found if re.search(pattern, name))
            pipes = per_pair(parse(compiled.sass(found[name], architecture)), nest)
            yield Counted(kernel, capability, pipes, found[name].registers, warps, shared)


def _cuda_kernels() -> dict[str, tuple[str, Nest, int, int]]:
    """Of each kernel: its name in the extension, its loops, warps and bytes of shared memory of a block.

    Columns come 32 at a time, one a step; compilers unroll four steps. A lane of a sweep has `rows` rows, a
    block as many columns in each lane. The row kernels take eight columns together.
    """
    found = {}
    for d in CUDA_DIMENSIONS:
        rows = 4 if d <= 4 else 2
        columns = 128 * rows
        shared = 4 * columns * (d + 3 + 4) + 4 * columns // 32 * (2 * d + 1)
        sweep = Nest(pairs=4 * rows, trips=(8, columns // 32), others=rows)
        found[f"cuda sweep d={d}"] = f"sweep_spansIfLi{d}ELi2E", sweep, 4, shared
        for verb, name, parts in (("softmin", "softmin_rows", 0), ("grad", "gradient_rows", d)):
            tiles = 8 * 4 * 32 * (d + 3) + 8 * 4 * 32 * (2 + parts) + 8 * 4 * 32
            found[f"cuda {verb} d={d}"] = f"{name}IfLi{d}ELi2E", Nest(8, (4,)), 8, tiles
    # Its steps between sweeps are not counted.
    found["cuda solve d=16"] = "solve_termsIfLi16ELi2E", Nest(4, (8, 4)), 4, 4 * 128 * (16 + 3 + 4)
    return found


def cuda_work() -> Iterator[Work]:
    n = CUDA_POINTS
    pairs, shape = float(n * n), f"{n} x {n}"
    for d in CUDA_DIMENSIONS:
        points, potentials = 2 * n * d * 4, 2 * n * 8
        partial_sums = 2 * 2 * n * _SLOTS * 4  # written, and read
        yield Work(f"cuda sweep d={d}", shape, pairs, points + 2 * potentials + partial_sums)
        yield Work(f"cuda softmin d={d}", shape, pairs, points + potentials)
        yield Work(f"cuda grad d={d}", shape, pairs, 1.5 * points + potentials)


def triton_launches(capability: int) -> Iterator[tuple[str, str, Launch]]:
    """The launches that take exponentials of all pairs, with the kernel's name here and the shape."""
    for d, n in TRITON_SHAPES:
        x, y = (torch.rand(1, n, d, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
        f, a = torch.zeros(1, n), torch.full((1, n), 1.0 / n)
        verbs = {"sweep": lambda: Triton().sweep(x, y, f, f, a, a, cost=2, eps=d / 16)}  # noqa: B023
        if (d, n) == TRITON_SHAPES[0]:
            verbs["softmin"] = lambda: Triton().softmin(x, y, f, a, cost=2, eps=d / 16)  # noqa: B023
            verbs["grad"] = lambda: Triton().grad(x, y, f, f, a, a, cost=2, eps=d / 16)  # noqa: B023
        for verb, call in verbs.items():
            with compiled.launches(capability) as launched:
                call()
            main = next(one for one in launched if one.name != "lifted_potentials")
            yield f"triton {verb} d={d}", f"{n} x {n}", main


def triton_counts() -> Iterator[Counted]:
    """Of float32 points as pairs of float16 numbers."""
    for capability in CAPABILITIES:
        launches = {kernel: launch for kernel, _, launch in triton_launches(capability)}
        for kernel, launch in launches.items():
            yield triton_count(kernel, launch, capability)


def triton_count(kernel: str, launch: Launch, capability: int) -> Counted:
    """What its loop asks for; the products that it makes are compared with those of d coordinates.

    Raises:
        ValueError: when the loop is not the one that was meant.
    """
    found, tile, d = launch.compiled(capability), launch.tile, int(launch.arguments["d"])
    nest = Nest(pairs=tile.rows * tile.columns // (32 * tile.warps), others=d // tile.depth)
    pipes = per_pair(parse(found.sass), nest)
    # Three products of the parts of points; those with the plan, in tf32, count twice.
    products, multiplied = 9 * d if "grad" in kernel else 3 * d, pipes.get("matrix", 0.0)
    if abs(multiplied - products) > 0.01 * products:
        raise ValueError(f"{kernel}, sm_{capability}: {multiplied:g} products, not {products}")
    registers = re.search(r"REG:(\d+)", found.usage)
    assert registers
    return Counted(kernel, capability, pipes, int(registers[1]), tile.warps, found.shared)


def triton_work() -> Iterator[Work]:
    for kernel, shape, launch in triton_launches(max(CAPABILITIES)):
        tensors = {name: t for name, t in launch.arguments.items() if isinstance(t, Tensor)}
        distinct = {t.data_ptr(): t.nbytes for t in tensors.values()}
        # Partial sums are read again.
        again = sum(t.nbytes for name, t in tensors.items() if name in ("row_sums", "column_sums"))
        n, m = (int(launch.arguments[name]) for name in "nm")
        yield Work(kernel, shape, float(n * m), sum(distinct.values()) + again)
