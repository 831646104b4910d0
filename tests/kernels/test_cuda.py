"""The CUDA kernels without a GPU: emulated on the host against dense fp64, and what the compiler made."""

from __future__ import annotations

import dataclasses
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import otcore
from otcore import SamplesLoss, Status, backends, sinkhorn, sinkhorn_divergence
from otcore.backends.dense import Dense
from otcore.backends.stepped import SteppedSolve
from otcore.operators import point_gradients
from otcore.problem import Problem, make_problem
from otcore.solution import Potentials, Solved
from otcore.solver import anneal
from tests.kernels.emulated import ROOT, Emulated, emulated, native
from tests.kernels.test_verbs import case
from tests.problems import cloud, weights
from tests.tolerance import assert_as_accurate

ARCHITECTURES = ("sm_80", "sm_90")


@pytest.fixture(scope="module")
def kernels() -> Emulated:
    return emulated()


@pytest.fixture(params=["forward", "reverse"])
def order(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """In which the threads of a block take turns: where a barrier is missing one of them shows it."""
    monkeypatch.setenv("OTCORE_EMULATED_ORDER", str(int(request.param == "reverse")))
    return str(request.param)


def problem(
    n: int, m: int, d: int, *, batch: int = 1, dtype: torch.dtype = torch.float64, **options: Any
) -> Problem:
    x, y = cloud(n, d, 1, batch=batch).to(dtype), (0.7 * cloud(m, d, 2, batch=batch) + 0.1).to(dtype)
    return make_problem(x, y, **{"tol": 1e-8 if dtype == torch.float64 else 1e-4, **options})


def assert_same(got: Solved, expected: Solved, q: Problem) -> None:
    """As many sweeps, the same report, and values and potentials to rounding."""
    rtol = 1e-9 if q.x.dtype == torch.float64 else 1e-4
    assert got.status.tolist() == expected.status.tolist()
    if q.x.dtype == torch.float64:
        assert got.n_iter.tolist() == expected.n_iter.tolist()
    torch.testing.assert_close(got.value, expected.value, rtol=rtol, atol=rtol * q.eps)
    for mine, theirs in zip(got.potentials, expected.potentials, strict=True):
        if mine is None or theirs is None:
            assert mine is theirs
            continue
        torch.testing.assert_close(mine.double(), theirs.double(), rtol=rtol, atol=100 * rtol * q.eps)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((50, 70, 3), {"blur": 0.05, "batch": 2, "tol": 1e-4}),
        ((60, 40, 2), {"blur": 0.1, "p": 1}),
        ((40, 1, 2), {"blur": 0.1, "batch": 2}),
        ((1, 1, 1), {"blur": 0.1}),
        ((150, 140, 2), {"blur": 0.2, "debias": False}),
        ((33, 65, 16), {"blur": 0.5, "batch": 3}),
        ((45, 60, 5), {"blur": 0.3, "reach": 0.5}),
        ((80, 60, 2), {"blur": 0.2, "reach": (0.5, None)}),
        ((520, 130, 2), {"blur": 0.3}),
        ((130, 600, 3), {"blur": 0.4, "reach": 0.7, "p": 1}),
    ],
    ids=str,
)
def test_a_solve_on_the_device_makes_the_decisions_of_the_reference(
    kernels: Emulated, shape: tuple[int, int, int], options: dict[str, Any], dtype: torch.dtype
) -> None:
    """In one launch where clouds are small, in many where they are large."""
    q = problem(*shape, dtype=dtype, **options)
    assert_same(kernels.anneal(q), anneal(Dense(), q), q)


def test_both_orders_of_threads(kernels: Emulated, order: str) -> None:
    for q in (problem(70, 90, 2, blur=0.2, reach=0.5), problem(600, 520, 2, blur=0.5)):
        assert_same(kernels.anneal(q), anneal(Dense(), q), q)


def test_warm_starts_stops_and_weights_of_zero(kernels: Emulated) -> None:
    a, b = weights(60, 3, batch=2), weights(50, 4, batch=2)
    a[:, ::4] = 0
    b[1, :30] = 0
    a, b = a / a.sum(-1, keepdim=True), b / b.sum(-1, keepdim=True)
    x, y = cloud(60, 2, 5, batch=2), cloud(50, 2, 6, batch=2)
    q = make_problem(x, y, a, b, blur=0.1, tol=1e-8)
    cold = kernels.anneal(q)
    assert_same(cold, anneal(Dense(), q), q)
    again = kernels.anneal(make_problem(x, y, a, b, blur=0.1, tol=1e-6, init=cold.potentials))
    assert again.n_iter.tolist() == [1, 1]
    torch.testing.assert_close(again.value, cold.value, rtol=1e-6, atol=0.0)
    short = kernels.anneal(make_problem(x, y, a, b, blur=0.02, tol=1e-12, max_iter=3))
    assert short.status.tolist() == [int(Status.MAX_ITER)] * 2
    assert short.n_iter.min() >= 3


def test_a_ragged_batch_is_its_items(kernels: Emulated) -> None:
    clouds = [(cloud(n, 3, n), cloud(m, 3, m + 1)) for n, m in ((5, 9), (40, 3), (1, 17), (33, 64))]
    xs, ys = (list(side) for side in zip(*clouds, strict=True))
    q = make_problem(xs, ys, blur=0.2, tol=1e-8)
    got = kernels.anneal(q)
    alone = [kernels.anneal(make_problem(x, y, blur=0.2, tol=1e-8)) for x, y in clouds]
    assert torch.equal(got.value, torch.cat([one.value for one in alone]))
    assert torch.equal(got.potentials.g, torch.cat([one.potentials.g for one in alone], 1))


def test_the_same_call_gives_the_same_bits(kernels: Emulated) -> None:
    q = problem(600, 530, 2, dtype=torch.float32, blur=0.3)
    one, other = kernels.anneal(q), kernels.anneal(q)
    assert torch.equal(one.value, other.value)
    assert torch.equal(one.potentials.f, other.potentials.f)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_tiles_out_of_reach_are_skipped(kernels: Emulated, dtype: torch.dtype) -> None:
    """Points along a line, in order: all but the tiles near the diagonal are skipped, and the sums hold."""
    n, m, eps = 1500, 1100, 1e-4
    x = torch.linspace(0, 1, n, dtype=torch.float64).to(dtype).view(1, n, 1)
    y = torch.linspace(0, 1, m, dtype=torch.float64).to(dtype).view(1, m, 1)
    a, b = x.new_full((1, n), 1 / n), y.new_full((1, m), 1 / m)
    g = kernels.softmin(y, x, torch.zeros_like(a), a, cost=2, eps=eps)
    f = kernels.softmin(x, y, g, b, cost=2, eps=eps)
    got = kernels.sweep(x, y, f, g, a, b, cost=2, eps=eps)
    wide = [t.double() for t in (x, y, f, g, a, b)]
    reference = Dense().sweep(*wide, cost=2, eps=eps)
    plain = Dense().sweep(x, y, f, g, a, b, cost=2, eps=eps)
    for mine, torchs, exact in zip(got, plain, reference, strict=True):
        assert_as_accurate(mine.exp(), torchs.exp(), exact.exp(), float(f.abs().max()) / eps)
    start = Potentials(f.double(), g.double(), None, None)
    q = make_problem(x[0], y[0], blur=eps**0.5, debias=False, init=start, tol=1.0)
    solved = kernels.anneal(q)
    assert solved.n_iter.tolist() == [1]
    assert 0.02 * n * m < float(solved.pairs) < 0.3 * n * m


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((90, 110, 40), {"blur": 1.0, "batch": 2}),
        ((70, 50, 20), {"blur": 0.6, "reach": 0.8}),
        ((60, 80, 17), {"blur": 0.8, "debias": False}),
        ((50, 60, 33), {"blur": 0.7, "p": 1, "reach": (1.0, None)}),
    ],
    ids=str,
)
def test_a_solve_with_the_sweeps_of_other_kernels(
    shape: tuple[int, int, int], options: dict[str, Any]
) -> None:
    """As the Triton backend solves in any dimension; here the sweeps are dense."""
    q = problem(*shape, **options)
    solve = SteppedSolve(Dense(), native(), q)
    assert_same(solve.run(), anneal(Dense(), q), q)
    assert bool(solve.finished.all())


@pytest.fixture
def ordered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small clouds are put in spatial order as well, and their tiles skipped."""
    monkeypatch.setattr("otcore.backends.cuda._ORDERED_POINTS", 64)


@pytest.mark.usefixtures("ordered")
@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("d", [1, 2, 3, 4])
def test_clouds_in_spatial_order_give_the_same(kernels: Emulated, d: int, p: int) -> None:
    """Every verb and a solve, with results in the order of the points as they were given."""
    x, y = cloud(300, d, 1, batch=2), cloud(400, d, 2, batch=2)
    placed = kernels._order(x, y).place(x)[0]
    assert steps(placed) < 0.7 * steps(x)
    a, b = weights(300, 3, batch=2), weights(400, 4, batch=2)
    b[:, :7] = 0
    dense, ground = Dense(), {"cost": p, "eps": 0.02**p}
    g = dense.softmin(y, x, torch.zeros_like(a), a, **ground)
    f = dense.softmin(x, y, g, b, **ground)
    v = torch.randn(2, 400, 5, dtype=torch.float64)
    for verb, tensors in {
        "softmin": (x, y, g, b),
        "apply": (x, y, f, g, a, b, v),
        "grad": (x, y, f, g, a, b),
    }.items():
        got, expected = (getattr(one, verb)(*tensors, **ground) for one in (kernels, dense))
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)
    for got, expected in zip(
        *(one.sweep(x, y, f, g, a, b, **ground) for one in (kernels, dense)), strict=True
    ):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-10)
    q = make_problem(x, y, p=p, blur=0.2, tol=1e-7)
    assert_same(kernels.anneal(q), anneal(dense, q), q)


def assert_gradients(kernels: Emulated, q: Problem, *, far: bool = False) -> None:
    """All four terms at once, each alone, and a side alone, in the shape and the order of the points."""
    exact = dataclasses.replace(q, **{k: getattr(q, k).double() for k in ("x", "y", "a", "b")})
    solved = anneal(Dense(), exact).potentials
    every = [0.5 + torch.rand_like(t) for t in (exact.a, exact.b, exact.a, exact.b)]
    every[0][..., 0] = 0
    choices = [(1, 1, 1, 1), (1, 1, 0, 0), (0, 1, 0, 1), (1, 0, 1, 0), (0, 0, 1, 1)]
    for chosen in choices if q.debias else choices[1:2]:
        shares = tuple(w if wanted else None for w, wanted in zip(every, chosen, strict=True))
        for normalise in (False, True):
            got = kernels.gradients(q, solved, shares, normalise)
            expected = point_gradients(Dense(), exact, solved, shares, normalise)
            for mine, reference in zip(got, expected, strict=True):
                assert mine.dtype == q.x.dtype
                tolerance = 1e-10 if q.x.dtype == torch.float64 else 1e-3 if far else 2e-5
                torch.testing.assert_close(mine.double(), reference, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((50, 70, 3), {"blur": 0.3, "batch": 2}),
        ((70, 33, 2), {"blur": 0.3, "p": 1, "reach": 0.5}),
        ((1, 40, 16), {"blur": 0.5}),
        ((65, 40, 6), {"blur": 0.5, "debias": False}),
    ],
    ids=str,
)
def test_gradients_of_all_terms(
    kernels: Emulated, order: str, shape: tuple[int, int, int], options: dict[str, Any], dtype: torch.dtype
) -> None:
    assert_gradients(kernels, problem(*shape, dtype=dtype, **options))


@pytest.mark.usefixtures("ordered")
@pytest.mark.parametrize("sizes", [(300, 400), (400, 70), (70, 300)], ids=str)
def test_gradients_in_spatial_order(kernels: Emulated, sizes: tuple[int, int]) -> None:
    assert_gradients(kernels, problem(*sizes, 2, blur=0.05, batch=2, tol=1e-4))


def test_gradients_of_clouds_far_apart(kernels: Emulated) -> None:
    x = cloud(100, 2, 7).float()
    assert_gradients(kernels, make_problem(x, x[:, :90] + 64.0, blur=0.3, tol=1e-4), far=True)


def test_gradients_of_a_ragged_batch(kernels: Emulated) -> None:
    clouds = [(cloud(n, 3, n), cloud(m, 3, m + 1)) for n, m in ((5, 9), (40, 3), (1, 17), (33, 64))]
    xs, ys = (list(side) for side in zip(*clouds, strict=True))
    assert_gradients(kernels, make_problem(xs, ys, blur=0.3, tol=1e-6))


@pytest.mark.usefixtures("ordered")
def test_prepared_verbs_arrange_clouds_once(kernels: Emulated, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clouds of the problem, and no others, whatever is asked of them."""
    q = problem(100, 130, 2, batch=2, blur=0.2)
    prepared, pairs = kernels.prepared(q), [(q.x, q.y), (q.y, q.x), (q.x, q.x), (q.x.clone(), q.y.clone())]
    ordered: list[Tensor] = []
    order = type(kernels)._order
    monkeypatch.setattr(type(kernels), "_order", lambda self, x, y: (ordered.append(x), order(self, x, y))[1])
    for x, y in pairs * 2:
        for verbs in (prepared, kernels):
            f, b = torch.zeros_like(x[..., 0]), torch.full_like(y[..., 0], 1.0 / y.shape[1])
            got = verbs.softmin(x, y, torch.zeros_like(b), b, cost=2, eps=0.04)
            expected = Dense().softmin(x, y, torch.zeros_like(b), b, cost=2, eps=0.04)
            torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)
            rows, _ = verbs.sweep(x, y, f, torch.zeros_like(b), f + 1.0, b, cost=1, eps=0.2)
            expected, _ = Dense().sweep(x, y, f, torch.zeros_like(b), f + 1.0, b, cost=1, eps=0.2)
            torch.testing.assert_close(rows, expected, rtol=1e-9, atol=1e-12)
    assert len(ordered) == 3 + 4 + 4 * len(pairs)


def steps(points: Tensor) -> float:
    return float((points[:, 1:] - points[:, :-1]).norm(dim=-1).mean())


@pytest.mark.parametrize("p", [1, 2])
def test_sums_out_of_range_are_computed_again(kernels: Emulated, p: int) -> None:
    x, y, f, g, a, b = case(40, 70, 2, p, 0.2).to(torch.float32).clouds
    f = f.clone()
    f[:, 3] += 40.0
    f[:, 4] -= 40.0
    got = kernels.sweep(x, y, f, g, a, b, cost=p, eps=0.04)
    exact = Dense().sweep(*(t.double() for t in (x, y, f, g, a, b)), cost=p, eps=0.04)
    for mine, reference in zip(got, exact, strict=True):
        assert mine.isfinite().all()
        torch.testing.assert_close(mine.double(), reference, rtol=1e-6, atol=1e-4)


def test_clouds_far_apart_have_small_potentials(kernels: Emulated) -> None:
    """A translation by many blurs costs float32 nothing: S(x, x + t) = |t|^2 / 2."""
    x = cloud(300, 2, 7).float()
    far = x + 64.0  # exact in float32 for most; the reference has the rounded points
    q = make_problem(x, far, blur=0.1, tol=1e-4)
    value = float(kernels.anneal(q).value)
    exact = float(anneal(Dense(), make_problem(x.double(), far.double(), blur=0.1, tol=1e-10)).value)
    assert value == pytest.approx(exact, rel=1e-6)
    assert value == pytest.approx(64.0**2, rel=1e-5)


def _public(monkeypatch: pytest.MonkeyPatch, kernels: Emulated) -> None:
    load = backends.load
    monkeypatch.setattr(backends, "load", lambda name: kernels if name == "cuda" else load(name))


def test_the_public_functions_run_on_it(kernels: Emulated, monkeypatch: pytest.MonkeyPatch) -> None:
    _public(monkeypatch, kernels)
    x, y = cloud(40, 3, 8).requires_grad_(), cloud(55, 3, 9).requires_grad_()
    solved = {name: sinkhorn(x, y, blur=0.2, tol=1e-10, backend=name) for name in ("cuda", "cpu")}
    assert solved["cuda"].backend == "cuda"
    for read in (
        lambda s: s.value,
        lambda s: s.transport(),
        lambda s: s.plan(),
        lambda s: s.potential(y.detach()),
        lambda s: s.apply(y.detach()),
        lambda s: torch.stack(s.bounds()),
    ):
        torch.testing.assert_close(read(solved["cuda"]), read(solved["cpu"]), rtol=1e-7, atol=1e-9)
    gradients = {}
    for name in ("cuda", "cpu"):
        loss = sinkhorn_divergence(x, y, blur=0.2, tol=1e-11, backend=name)
        loss = loss + SamplesLoss(blur=0.1, backend=name)(x, y)
        gradients[name] = torch.autograd.grad(loss, (x, y))
    for mine, theirs in zip(gradients["cuda"], gradients["cpu"], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-7, atol=1e-10)


def test_refusals_say_what_to_do() -> None:
    if isinstance(backends.load("cuda"), str):
        pytest.skip(f"backend 'cuda': {backends.load('cuda')}")
    with pytest.raises(ValueError, match=r"'cuda' refuses: the points are on the cpu; .*x\.cuda\(\)"):
        sinkhorn_divergence(torch.rand(3, 2), torch.rand(3, 2), backend="cuda")


def test_the_contract_holds_in_emulation() -> None:
    """The tests of the CPU's verbs, and hostile problems, on these kernels instead."""
    paths = ["tests/kernels/test_verbs.py", "tests/conformance/test_few_points.py"]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *paths]
    # The threads and instruction sets of the CPU's kernels are theirs alone.
    command += ["-k", "not threads and not instruction"]
    run = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"OTCORE_TEST_KERNELS": "emulated"},
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]


# What the compiler made of them.


@pytest.fixture(scope="module")
def binary() -> Path:
    found = sorted(Path(otcore._core.__file__).parent.glob("_cuda.*.so"))
    if not found:
        pytest.skip("this otcore was built without CUDA: no nvcc where it was built")
    return found[0]


@pytest.fixture(scope="module")
def cuobjdump() -> Path:
    triton = pytest.importorskip("triton", reason="triton, which brings cuobjdump, is not installed")
    return Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"


def _output(*command: Any) -> str:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True).stdout


def test_the_binary_has_code_for_each_architecture_and_needs_no_driver(binary: Path, cuobjdump: Path) -> None:
    listed = _output(cuobjdump, "-lelf", "-lptx", binary)
    for architecture in ARCHITECTURES:
        assert f".{architecture}.cubin" in listed
    assert ".ptx" in listed
    needed = re.findall(r"NEEDED.*\[(.+)\]", _output("readelf", "-d", binary))
    assert not [name for name in needed if "cuda" in name or "torch" in name or "nvidia" in name], needed
    told = _output(sys.executable, "-m", "otcore", "info")
    line = next(line for line in told.splitlines() if line.startswith("backend cuda"))
    assert re.search("usable: .+|not usable here: .+", line), line


def test_no_kernel_spills_or_uses_local_memory(binary: Path, cuobjdump: Path) -> None:
    usage = _output(cuobjdump, "-res-usage", binary)
    kernels = re.findall(r"Function (\S+):\s+REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", usage)
    names = {name for name, *_ in kernels}
    for verb in ("sweep_spans", "softmin_rows", "apply_rows", "gradient_rows", "solve_terms", "prepare_item"):
        assert any(verb in name for name in names), verb
    bad = [kernel for kernel in kernels if int(kernel[2]) or int(kernel[3])]
    assert not bad, bad
    assert max(int(registers) for _, registers, *_ in kernels) <= 255


def test_a_pair_costs_one_exponential_of_the_hardware(binary: Path, cuobjdump: Path) -> None:
    """The sweep in float32: 4 rows a lane, 4 columns unrolled, one MUFU.EX2 each, and only shared memory."""
    name = re.findall(r"Function (\S*sweep_spansIfLi3ELi2E\S*):", _output(cuobjdump, "-res-usage", binary))[0]
    sass = _output(cuobjdump, "-sass", "-arch", "sm_90", "-fun", name, binary)
    assert len(re.findall(r"MUFU\.EX2", sass)) == 16
    assert not re.search(r"\b(LDL|STL)\b", sass)
    lines = sass.splitlines()
    at = [i for i, line in enumerate(lines) if "MUFU.EX2" in line]
    loop = "\n".join(lines[at[0] : at[-1]])
    assert not re.search(r"\b(LDG|STG|LD\.E|ST\.E)\b", loop)
    assert math.isclose(len(re.findall(r"\bSHFL\b", loop)), 4, abs_tol=1)
