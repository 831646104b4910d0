"""The compiled sums of radial kernels against plain PyTorch in float64, on problems of odd shapes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from otcore import _core
from otcore.kernel_operators import profile
from tests.problems import cloud, weights
from tests.tolerance import assert_as_accurate, assert_solved

KERNELS = ["gaussian", "laplacian", "energy", "inverse_multiquadric"]
# Less than a tile, whole tiles, many, the dimensions with code of their own and the others.
SHAPES = [
    (1, 1, 1),
    (1, 7, 2),
    (33, 1, 3),
    (64, 32, 1),
    (31, 65, 2),
    (97, 130, 3),
    (50, 45, 4),
    (70, 129, 17),
    (40, 66, 64),
    (700, 500, 2),
    (400, 350, 6),
]
Clouds = tuple[Tensor, Tensor, Tensor, Tensor]


def clouds(n: int, m: int, d: int) -> Clouds:
    """Points and weights that float32 holds exactly, with duplicates and weights of 0."""
    x, y = (cloud(count, d, seed, batch=2).float().double() for count, seed in ((n, n + d), (m, m + 7 * d)))
    a, b = (weights(count, seed, batch=2).float().double() for count, seed in ((n, 3), (m, 4)))
    if n > 5:
        x[:, 3], x[:, 4], a[:, 2] = x[:, 5], y[:, 0], 0
    return x, y, a, b


def compiled(
    inputs: Clouds, kernel: str, blurs: list[float], *, unbiased: bool = False, force: bool = True
) -> tuple[Tensor, Tensor]:
    """Sums (B, N + M) and forces (B, N + M, D) of the signed weights (a, -b)."""
    x, y, a, b = inputs
    (count, n, d), m = x.shape, y.shape[1]
    sums = torch.empty(count, n + m, dtype=torch.float64)
    forces = torch.empty(count, n + m, d, dtype=torch.float64)
    _core.kernel_norms(
        x.dtype == torch.float64,
        *(t.data_ptr() for t in (x, a, y, b)),
        count,
        n,
        m,
        d,
        getattr(_core.Kernel, kernel),
        blurs,
        unbiased,
        torch.get_num_threads(),
        sums.data_ptr(),
        forces.data_ptr() if force else 0,
    )
    return sums, forces


def plain(
    inputs: Clouds, kernel: str, blurs: list[float], *, unbiased: bool = False
) -> tuple[Tensor, Tensor]:
    """The same on matrices, in the dtype of the clouds."""
    x, y, a, b = inputs
    z, w, n, m = torch.cat([x, y], 1), torch.cat([a, -b], 1), x.shape[1], y.shape[1]
    difference = z.unsqueeze(2) - z.unsqueeze(1)
    k, h = profile(difference.square().sum(-1), kernel, blurs)
    shares = torch.ones_like(k)
    if unbiased:
        shares[:, :n, :n] *= n / max(n - 1, 1)
        shares[:, n:, n:] *= m / max(m - 1, 1)
        shares.diagonal(dim1=1, dim2=2).zero_()
    k, h = shares * k * w.unsqueeze(1), shares * h * w.unsqueeze(1)
    return k.sum(2), torch.einsum("bij,bijd->bid", h, difference)


def lengths(kernel: str, *blurs: float) -> list[float]:
    return [] if kernel == "energy" else list(blurs)


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("n", "m", "d"), SHAPES)
def test_float64(n: int, m: int, d: int, kernel: str, unbiased: bool) -> None:
    inputs, blurs = clouds(n, m, d), lengths(kernel, 0.1, 0.7)
    got = compiled(inputs, kernel, blurs, unbiased=unbiased)
    for mine, theirs in zip(got, plain(inputs, kernel, blurs, unbiased=unbiased), strict=True):
        assert_solved(mine, theirs)
    assert torch.equal(compiled(inputs, kernel, blurs, unbiased=unbiased, force=False)[0], got[0])


@pytest.mark.parametrize("blur", [1.0, 0.02])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("n", "m", "d"), SHAPES)
def test_float32_is_as_accurate_as_torch(n: int, m: int, d: int, kernel: str, blur: float) -> None:
    """Weights of one sign: what is left where sums cancel is rounding, for torch as well."""
    x, y, a, b = clouds(n, m, d)
    wide, blurs = (x, y, a, -b), lengths(kernel, blur)
    narrow = x.float(), y.float(), a.float(), -b.float()
    # The largest exponent: its last place is a relative error of the kernel.
    largest = 1.0 if kernel in ("energy", "inverse_multiquadric") else min(87.0, d / blur**2)
    for got, torch_result, exact in zip(
        compiled(narrow, kernel, blurs),
        plain(narrow, kernel, blurs),
        plain(wide, kernel, blurs),
        strict=True,
    ):
        assert_as_accurate(got.float(), torch_result, exact, largest)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("kernel", KERNELS)
def test_far_points_do_not_see_each_other(kernel: str, dtype: torch.dtype) -> None:
    """Blurs so short, or clouds so far apart, that kernels vanish: zeros, not what is left of rounding."""
    x, y = torch.zeros(1, 1, 2, dtype=dtype), torch.full((1, 1, 2), 1e4, dtype=dtype)
    one = torch.ones(1, 1, dtype=dtype)
    for blur in (1e-3, 1e-30):
        sums, force = compiled((x, y, one, one), kernel, lengths(kernel, blur))
        exact = plain((x.double(), y.double(), one.double(), one.double()), kernel, lengths(kernel, blur))
        torch.testing.assert_close(sums, exact[0], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(force, exact[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("kernel", KERNELS)
def test_an_outlier_leaves_near_points_their_distances(kernel: str, dtype: torch.dtype) -> None:
    x, y = torch.zeros(1, 3, 2, dtype=dtype), torch.tensor([[[0.0, 1.0], [0.5, 0.0]]], dtype=dtype)
    x[0, 1], x[0, 2, 0] = 0.25, 2.0**60
    inputs = x, y, torch.rand(1, 3, dtype=dtype), torch.rand(1, 2, dtype=dtype)
    exact = plain(tuple(t.double() for t in inputs), kernel, lengths(kernel, 0.5))  # type: ignore[arg-type]
    for got, want in zip(compiled(inputs, kernel, lengths(kernel, 0.5)), exact, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("d", [2, 9])
def test_same_bits_for_every_number_of_threads(d: int, dtype: torch.dtype) -> None:
    x, y, a, b = (t.to(dtype) for t in clouds(900, 700, d))
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 5):
            torch.set_num_threads(threads)
            results.append(
                [t for kernel in KERNELS for t in compiled((x, y, a, b), kernel, lengths(kernel, 0.2))]
            )
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(t, u) for t, u in zip(results[0], other, strict=True))


@pytest.mark.parametrize("isa", ["x86_64_v2", "x86_64_v3"])
def test_narrower_instruction_sets(isa: str) -> None:
    """This file once more, in a process that is told to use fewer instructions."""
    if not _core.isa().startswith("x86_64") or _core.isa() <= isa:
        pytest.skip(f"this process runs {_core.isa()} itself, or cannot run {isa}")
    environment = {**os.environ, "OTCORE_ISA": isa}
    command = [sys.executable, "-m", "pytest", "-q", "-x", __file__, "-k", "float or far_points"]
    subprocess.run(command, check=True, env=environment, cwd=Path(__file__).parents[2])
