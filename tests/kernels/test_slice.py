"""The compiled transport along directions: its sort on distributions made to defeat it, and its products."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import torch
from torch import Tensor

from otcore import _core
from otcore.sliced_operators import Options, dense
from tests.problems import cloud, weights
from tests.tolerance import rounding

# Networks, buckets, buckets of buckets; one beside a power of two each.
SIZES = [1, 2, 7, 8, 9, 31, 65, 127, 128, 129, 257, 1000, 5003, 20_000]
DTYPES = [torch.float32, torch.float64]


def _two_clusters(n: int, noise: Tensor) -> Tensor:
    """Two clusters, each narrower than what float32 tells apart, and their members in no order."""
    return torch.where(noise > 0, 1.0, -1.0) + 1e-12 * noise


def _geometric(n: int, noise: Tensor) -> Tensor:
    """Magnitudes all over the range: even buckets hold nearly all points at every level."""
    return noise.sign() * torch.exp2(-200.0 * torch.rand(n, dtype=torch.float64))


DISTRIBUTIONS: dict[str, Callable[[int, Tensor], Tensor]] = {
    "normal": lambda n, noise: noise,
    "uniform": lambda n, noise: torch.rand(n, dtype=torch.float64),
    "constant": lambda n, noise: torch.full((n,), 0.3, dtype=torch.float64),
    "two values": lambda n, noise: (noise > 0).double(),
    "two clusters": _two_clusters,
    "outlier": lambda n, noise: torch.cat([noise[1:], noise.new_tensor([1e18])]),
    "outliers both ways": lambda n, noise: torch.cat([noise[2:], noise.new_tensor([1e18, -1e17])])[:n],
    "cauchy": lambda n, noise: noise / noise.roll(1),
    "sorted": lambda n, noise: noise.sort().values,
    "reversed": lambda n, noise: noise.sort(descending=True).values,
    "denormal": lambda n, noise: 1e-40 * noise,
    "signed zeros": lambda n, noise: torch.where(noise > 0, 0.0, -0.0).double(),
    "geometric": _geometric,
    "heavy": lambda n, noise: torch.where(noise > 1.0, noise, 0.0),
    "integers": lambda n, noise: (3.0 * noise).round(),
    "largest": lambda n, noise: noise / noise.abs().max() * 1.7e38,
}


def compiled(
    x: Tensor,
    y: Tensor,
    directions: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    p: float = 2.0,
    threads: int = 2,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The mean of the costs, the costs, and the slopes of the mean."""
    (n, d), m, count = x.shape, len(y), directions.shape[1]
    value, costs, g_x, g_y = x.new_empty(()), x.new_empty(count), torch.empty_like(x), torch.empty_like(y)
    assert _core.sliced(
        x.dtype == torch.float64,
        x.data_ptr(),
        y.data_ptr(),
        0 if a is None else a.data_ptr(),
        0 if b is None else b.data_ptr(),
        directions.data_ptr(),
        [n],
        [m],
        d,
        count,
        False,
        p,
        False,
        threads,
        value.data_ptr(),
        costs.data_ptr(),
        g_x.data_ptr(),
        g_y.data_ptr(),
    )
    return value, costs, g_x, g_y


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_sorts_whatever_the_distribution(name: str, dtype: torch.dtype) -> None:
    """Against whole numbers in order, the slope tells the place of each point; equal ones stay in order."""
    one = torch.ones(1, 1, dtype=dtype)
    for n in SIZES:
        noise = torch.randn(n, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
        x = DISTRIBUTIONS[name](n, noise)[:n].to(dtype)
        places = torch.arange(n, dtype=dtype)
        shuffled = places[torch.randperm(n)].unsqueeze(1)
        order = torch.from_numpy(numpy.argsort(x.numpy(), kind="stable"))
        slope = torch.empty_like(x)
        slope[order] = (x[order] - places) * (2.0 / n)
        value, _, got, _ = compiled(x.unsqueeze(1), shuffled, one)
        size = rounding(dtype, float(slope.double().abs().max()))
        torch.testing.assert_close(got.squeeze(1), slope, rtol=rounding(dtype), atol=min(size, 0.5 / n))
        if float(x.double().abs().max()) < 1e10:
            cost = (x[order].double() - places.double()).square().mean()
            torch.testing.assert_close(
                value.double(), cost, rtol=rounding(dtype, 4.0), atol=torch.finfo(dtype).tiny
            )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3.0])
@pytest.mark.parametrize(
    ("n", "m", "d", "count"),
    [(1, 1, 1, 1), (1, 5, 2, 3), (33, 33, 3, 7), (150, 150, 17, 33), (97, 130, 5, 40), (700, 300, 64, 70)],
)
@pytest.mark.parametrize("weighted", [False, True])
def test_equals_the_reference(
    n: int, m: int, d: int, count: int, p: float, weighted: bool, dtype: torch.dtype
) -> None:
    """On coordinates of few digits, of which float32 holds projections exactly and so orders them as float64
    does: with ties, which are taken in the order of the points."""
    x, y = (((64 * cloud(k, d, s)).round() / 64).to(dtype) for k, s in ((n, 1), (m, 2)))
    a, b = (weights(k, s).to(dtype) for k, s in ((n, 3), (m, 4)))
    if weighted and n > 5:
        a[2] = a[4] = 0
        a = a / a.sum()
    directions = ((16 * cloud(d, count, 5) - 7).round() / 16).to(dtype)
    points = [t.double().requires_grad_() for t in (x, y)]
    options = Options(p, False, weighted, False, (), (), False, False)
    wide = [t.double() for t in (a, b, directions)]
    value, costs = dense([*points, *wide], options)
    slopes = torch.autograd.grad(value, points)
    got = compiled(x, y, directions, *((a, b) if weighted else ()), p=p)
    for mine, exact in zip(got, (value.detach(), costs.detach(), *slopes), strict=True):
        scale = max(float(exact.abs().max()), 1.0 / max(n, m))
        # The reference's levels are sums of so many terms.
        atol = rounding(dtype, 16.0 * scale) + rounding(torch.float64, (n + m) * scale)
        torch.testing.assert_close(mine.double(), exact, rtol=0.0, atol=atol)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_same_bits_for_every_number_of_threads(dtype: torch.dtype) -> None:
    x, y = cloud(900, 9, 1).to(dtype), cloud(700, 9, 2).to(dtype)
    directions = (cloud(9, 90, 3) - 0.5).to(dtype)
    results = [compiled(x, y, directions, threads=threads) for threads in (1, 2, 3, 5)]
    for other in results[1:]:
        assert all(torch.equal(t, u) for t, u in zip(results[0], other, strict=True))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_reports_what_is_not_finite(dtype: torch.dtype) -> None:
    for bad in (float("nan"), float("inf"), -float("inf")):
        for n in (3, 200):
            x, y = torch.zeros(n, 2, dtype=dtype), torch.zeros(n, 2, dtype=dtype)
            x[n // 2, 0] = bad
            one, value = torch.ones(2, 1, dtype=dtype), torch.empty(1, dtype=dtype)
            ok = _core.sliced(
                dtype == torch.float64,
                *(t.data_ptr() for t in (x, y)),
                0,
                0,
                one.data_ptr(),
                [n],
                [n],
                2,
                1,
                False,
                2.0,
                True,
                1,
                value.data_ptr(),
                value.data_ptr(),
                0,
                0,
            )
            assert not ok


@pytest.mark.parametrize("isa", ["x86_64_v2", "x86_64_v3"])
def test_narrower_instruction_sets(isa: str) -> None:
    """This file once more, in a process that is told to use fewer instructions."""
    if not _core.isa().startswith("x86_64") or _core.isa() <= isa:
        pytest.skip(f"this process runs {_core.isa()} itself, or cannot run {isa}")
    environment = {**os.environ, "OTCORE_ISA": isa}
    command = [sys.executable, "-m", "pytest", "-q", "-x", __file__, "-k", "sorts or equals"]
    subprocess.run(command, check=True, env=environment, cwd=Path(__file__).parents[2])
