"""The compiled verbs against the dense oracle in float64, on random problems of odd shapes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest
import torch
from torch import Tensor

from otcore.backends.cpu import Cpu
from otcore.backends.dense import Dense
from tests.kernels.case import Case
from tests.problems import cloud, weights
from tests.tolerance import assert_as_accurate, assert_solved

SHAPES = [
    (1, 1, 1),
    (1, 7, 2),
    (33, 1, 3),
    (31, 65, 2),
    (64, 32, 1),
    (97, 130, 3),
    (50, 45, 5),
    (70, 129, 17),
    (40, 66, 64),
]
FLOOR = 1e-8


def case(n: int, m: int, d: int, p: int, blur: float = 0.2, distance: float = 0.5, batch: int = 2) -> Case:
    """Potentials a few half-steps into a solve, with some noise; points that float32 holds exactly."""
    x = cloud(n, d, seed=n + d, batch=batch).float().double()
    y = cloud(m, d, seed=m + 7 * d, batch=batch).float().double() + distance
    a, b = weights(n, seed=3, batch=batch).float().double(), weights(m, seed=4, batch=batch).float().double()
    dense, eps = Dense(), blur**p
    g = torch.zeros_like(b)
    for _ in range(3):
        f = dense.softmin(x, y, g, b, cost=p, eps=eps)
        g = dense.softmin(y, x, f, a, cost=p, eps=eps)
    g = g + eps * torch.randn_like(g)
    return Case(x, y, f, g, a, b, p, eps)


@pytest.mark.parametrize("blur", [1.0, 0.2, 0.01])
@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize(("n", "m", "d"), SHAPES)
def test_float64(n: int, m: int, d: int, p: int, blur: float) -> None:
    q, cpu, dense = case(n, m, d, p, blur), Cpu(), Dense()
    for got, expected in zip(
        cpu.sweep(*q.clouds, **q.ground), dense.sweep(*q.clouds, **q.ground), strict=True
    ):
        assert_solved(got, expected)
    assert_solved(cpu.softmin(q.x, q.y, q.g, q.b, **q.ground), dense.softmin(q.x, q.y, q.g, q.b, **q.ground))
    v = torch.randn(2, m, 5, dtype=torch.float64)
    assert_solved(cpu.apply(*q.clouds, v, **q.ground), dense.apply(*q.clouds, v, **q.ground))
    for normalise in (False, True):
        options = {**q.ground, "normalise": normalise}
        assert_solved(cpu.grad(*q.clouds, **options), dense.grad(*q.clouds, **options))


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize(("n", "m", "d"), SHAPES)
def test_symmetric_sweep(n: int, m: int, d: int, p: int) -> None:
    q = case(n, m, d, p)
    clouds = q.x, q.x, q.f, q.f, q.a, q.a
    assert_solved(Cpu().sweep(*clouds, **q.ground, same=True)[0], Dense().sweep(*clouds, **q.ground)[0])


@pytest.mark.parametrize("blur", [0.5, 0.02])
@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize(("n", "m", "d"), SHAPES)
def test_float32_is_as_accurate_as_torch(n: int, m: int, d: int, p: int, blur: float) -> None:
    wide = case(n, m, d, p, blur)
    # Both get the potentials that float32 holds.
    narrow = wide.to(torch.float32)
    wide, cpu, dense = narrow.to(torch.float64), Cpu(), Dense()
    # What a logit is the sum of.
    largest = float(max(t.abs().max() for t in (narrow.f, narrow.g))) / wide.eps
    for got, plain, reference in zip(
        cpu.sweep(*narrow.clouds, **wide.ground),
        dense.sweep(*narrow.clouds, **wide.ground),
        dense.sweep(*wide.clouds, **wide.ground),
        strict=True,
    ):
        # Exponentiated, as everything else is: a logarithm near 0 has no relative accuracy to speak of.
        assert_as_accurate(got.exp(), plain.exp(), reference.exp(), largest)
    v = torch.randn(2, m, 3)
    for got, plain, reference in (
        (
            cpu.apply(*narrow.clouds, v, **wide.ground),
            dense.apply(*narrow.clouds, v, **wide.ground),
            dense.apply(*wide.clouds, v.double(), **wide.ground),
        ),
        (
            cpu.grad(*narrow.clouds, **wide.ground),
            dense.grad(*narrow.clouds, **wide.ground),
            dense.grad(*wide.clouds, **wide.ground),
        ),
    ):
        assert_as_accurate(got, plain, reference, largest)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_sums_out_of_range_fall_back_to_softmin(dtype: torch.dtype) -> None:
    """Potentials off by thousands of temperatures: every sum over- or underflows."""
    q = case(40, 50, 2, p=2, blur=0.05)
    q = Case(q.x, q.y, q.f + 12.0 * torch.randn_like(q.f), q.g, q.a, q.b, q.cost, q.eps)
    expected = Dense().sweep(*q.clouds, **q.ground)
    q = q.to(dtype).to(torch.float64)
    expected = Dense().sweep(*q.clouds, **q.ground)
    for got, log_sums in zip(Cpu().sweep(*q.to(dtype).clouds, **q.ground), expected, strict=True):
        assert torch.isfinite(got).all()
        torch.testing.assert_close(got.double(), log_sums, rtol=1e-5, atol=1e-5)


def test_identical_points_and_the_kink_of_p_1() -> None:
    x = torch.zeros(1, 5, 2, dtype=torch.float64)
    a, f = torch.full((1, 5), 0.2, dtype=torch.float64), torch.zeros(1, 5, dtype=torch.float64)
    for floor in (0.0, FLOOR):
        assert torch.equal(Cpu().grad(x, x, f, f, a, a, cost=1, eps=0.1, floor=floor), torch.zeros_like(x))
    log_r, _ = Cpu().sweep(x, x.clone(), f, f.clone(), a, a, cost=1, eps=0.1, floor=FLOOR)
    assert_solved(log_r, torch.full_like(f, -(FLOOR**0.5) / 0.1))


def test_zero_weights_are_as_absent() -> None:
    q = case(40, 70, 2, p=2)
    b = q.b.clone()
    b[:, ::3] = 0
    keep = b[0] > 0
    full = Cpu().sweep(q.x, q.y, q.f, q.g, q.a, b, **q.ground)[0]
    without = Cpu().sweep(
        q.x, q.y[:, keep].contiguous(), q.f, q.g[:, keep], q.a, b[:, keep].contiguous(), **q.ground
    )[0]
    assert_solved(full, without)


def _everything(q: Case) -> list[Tensor]:
    cpu = Cpu()
    v = torch.ones(*q.b.shape, 2, dtype=q.x.dtype)
    return [
        *cpu.sweep(*q.clouds, **q.ground),
        cpu.sweep(q.x, q.x, q.f, q.f, q.a, q.a, **q.ground, same=True)[0],
        cpu.softmin(q.x, q.y, q.g, q.b, **q.ground),
        cpu.apply(*q.clouds, v, **q.ground),
        cpu.grad(*q.clouds, **q.ground),
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_same_bits_for_every_number_of_threads(dtype: torch.dtype) -> None:
    q = case(900, 700, 3, p=2, batch=1).to(dtype)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 5):
            torch.set_num_threads(threads)
            results.append(_everything(q))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(t, u) for t, u in zip(results[0], other, strict=True))


def test_two_python_threads_at_once() -> None:
    """The GIL is released and the pool is shared without harm."""
    q = case(900, 700, 3, p=2, batch=1)
    expected, results = _everything(q), {}

    def work(name: int) -> None:
        for _ in range(5):
            results[name] = _everything(q)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in range(3):
        assert all(torch.equal(t, u) for t, u in zip(expected, results[name], strict=True))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_works_after_a_fork() -> None:
    """A forked child has none of the pool's threads and must not wait for them."""
    script = """
import os, torch
from otcore import sinkhorn_divergence
x, y = torch.rand(1500, 2), torch.rand(1500, 2)
value = float(sinkhorn_divergence(x, y))
child = os.fork()
if child == 0:
    torch.set_num_threads(2)
    os._exit(0 if float(sinkhorn_divergence(x, y)) == value else 1)
assert os.waitpid(child, 0)[1] == 0
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True)


@pytest.mark.parametrize("isa", ["x86_64_v2", "x86_64_v3"])
def test_narrower_instruction_sets(isa: str) -> None:
    """This file once more, in a process that is told to use fewer instructions."""
    from otcore import _core

    if not _core.isa().startswith("x86_64") or _core.isa() <= isa:
        pytest.skip(f"this process runs {_core.isa()} itself, or cannot run {isa}")
    script = f"from otcore import _core; assert _core.isa() == {isa!r}, _core.isa()"
    environment = {**os.environ, "OTCORE_ISA": isa}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)
    tests = "test_float64 or test_symmetric_sweep or test_float32 or out_of_range"
    command = [sys.executable, "-m", "pytest", "-q", "-x", __file__, "-k", tests]
    subprocess.run(
        command, check=True, env=environment, cwd=os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    )
