"""The benchmark of `make gpu` with times made up: what it measures, compares, leaves out and writes."""

from __future__ import annotations

import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="triton, in which exponentials are timed, is not installed")


from benchmarks.gpu import ceilings, problems, rows, run, timing
from benchmarks.gpu.rows import Check, Line
from otcore import backends, sinkhorn
from otcore.backends.dense import Dense

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
CARD = ceilings.Ceilings(bandwidth=4e12, bf16=4e14, tf32=2e14, exponentials=4e12)


def timer(work: Callable[[], object], calls: int) -> float:
    """Runs it once, and says a millisecond."""
    work()
    return 1e-3


def line(**changed: Any) -> Line:
    values: dict[str, Any] = {
        "row": "sweep",
        "against": "exp ceiling",
        "ours": "2 ms",
        "theirs": "1 ms",
        "figure": 0.5,
        "bar": 0.4,
        "at_least": True,
        "check": Check(True, "error 1e-7"),
        "unit": "",
    }
    return Line(**(values | changed))


def test_contenders_take_turns_and_medians_count() -> None:
    order: list[str] = []
    seconds = iter([9.0, 9.0, 9.0, 9.0, 1.0, 4.0, 5.0, 2.0, 3.0, 6.0])

    def clock(work: Callable[[], object], calls: int) -> float:
        assert calls == 1
        work()
        return next(seconds)

    contenders = {name: lambda name=name: order.append(name) for name in "ab"}
    found = timing.race(contenders, clock, rounds=3)
    assert "".join(order) == "aabb" + "ab" + "ba" + "ab"
    assert found.rounds == {"a": [1.0, 2.0, 3.0], "b": [4.0, 5.0, 6.0]}
    assert found.ratio("b", "a") == 2.5


def test_short_work_is_timed_many_times_over() -> None:
    asked: list[int] = []

    def clock(work: Callable[[], object], calls: int) -> float:
        asked.append(calls)
        return 1e-3

    assert timing.median_seconds(lambda: None, clock) == 1e-3
    assert asked == [1, 1, 20, 20, 20, 20, 20]


def test_rates_follow_from_times() -> None:
    assert ceilings.copy_bandwidth(timer, CPU, octets=4000) == pytest.approx(2 * 4000 / 1e-3)
    for dtype in (torch.bfloat16, torch.float32):
        assert ceilings.matrix_rate(timer, CPU, dtype, side=16) == pytest.approx(16**3 / 1e-3)
    told = "\n".join(CARD.lines())
    for figure in ("4.00 TB/s", "800 TFLOP/s in bf16", "400 in tf32", "4.00 T/s"):
        assert figure in told


def test_a_floor_is_exponentials_or_products() -> None:
    assert rows.floor_of(1e10, 3, CARD) == (1e10 / 4e12, "exp")
    assert rows.floor_of(1e10, 64, CARD) == (1e10 * 192 / 4e14, "matrix")


@pytest.fixture
def dense(monkeypatch: pytest.MonkeyPatch) -> None:
    load = backends.load
    monkeypatch.setattr(backends, "load", lambda name: Dense() if name in ("cuda", "triton") else load(name))


@pytest.mark.usefixtures("dense")
def test_a_sweep_is_compared_with_its_ceiling_and_with_float64() -> None:
    (found,) = rows.sweep_lines(300, 3, 0.5, timer, CARD, CPU)
    assert found.check.ok
    assert found.figure == pytest.approx(300 * 300 / 4e12 / 1e-3)
    assert found.verdict == "NOT MET"


@pytest.mark.usefixtures("dense")
def test_wrong_sums_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = Dense.sweep

    def wrong(self: Dense, x: Tensor, *arguments: Any, **options: Any) -> tuple[Tensor, Tensor]:
        log_r, log_c = sweep(self, x, *arguments, **options)
        return (log_r + 1e-3 if x.shape[1] == 300 else log_r), log_c

    monkeypatch.setattr(Dense, "sweep", wrong)
    (found,) = rows.sweep_lines(300, 3, 0.5, timer, CARD, CPU)
    assert found.verdict == "WRONG RESULT"
    assert "withheld" in found.cells()


def test_iterations_against_a_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    """flash-sinkhorn's SamplesLoss, played by the dense backend."""

    class Flash:
        def __init__(self, loss: str, *, eps: float, n_iters: int, **options: Any) -> None:
            assert options == {"use_epsilon_scaling": False, "half_cost": True}
            self.options = {"eps": eps, "max_iter": n_iters, "tol": 1e-6, "backend": "dense"}

        def __call__(self, x: Tensor, y: Tensor) -> Tensor:
            value: Tensor = sinkhorn(x, y, **self.options).value
            return value

    module = types.ModuleType("flash_sinkhorn")
    vars(module)["SamplesLoss"] = Flash
    monkeypatch.setitem(sys.modules, "flash_sinkhorn", module)
    monkeypatch.setattr(rows, "absent", lambda peer: None)
    (found,) = rows.iteration_lines(200, 64, timer, CARD, CPU)
    assert found.check.ok, found.check
    assert (found.against, found.figure, found.verdict) == ("flash-sinkhorn", 1.0, "NOT MET")


def test_an_absent_peer_leaves_our_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "absent", lambda peer: f"{peer} not installed")
    missing, alone = rows.schedule_lines(200, 3, timer, CARD, CPU)
    assert missing.verdict == "NOT MEASURED"
    assert (alone.ours, alone.verdict) == ("1 ms", "-")


def test_small_problems_and_warm_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = problems.batch()
    assert x.shape == y.shape == (256, 128, 16)
    monkeypatch.setattr(rows, "batch", lambda: (x[:3, :20], y[:3, :20]))
    monkeypatch.setattr(rows, "Training", lambda steps: problems.Training(n=300, batch=10, steps=steps))
    for lines in (rows.batch_lines, rows.warm_lines):
        (found,) = lines(timer, CARD, CPU)
        assert found.check.ok, found.check
        assert found.verdict == "met"


def test_what_there_is_no_time_for_is_said() -> None:
    now = 0.0
    budget = timing.Budget(100.0, clock=lambda: now)

    def slow(*_: Any) -> Any:
        nonlocal now
        now += 60.0
        yield line()

    def broken(*_: Any) -> Any:
        raise RuntimeError("out of luck")

    table = [rows.Row("one", 50, slow), rows.Row("two", 50, slow), rows.Row("three", 10, broken)]
    first, second, third = run.measured(table, CARD, timer, budget, CPU)
    assert first.verdict == "met"
    assert second.check.text == "left out: 40 s left, 50 s needed"
    assert third.check.text == "RuntimeError: out of luck"
    assert [found.verdict for found in (second, third)] == ["NOT MEASURED"] * 2


def test_the_page_has_date_versions_ceilings_and_rows() -> None:
    facts = {"date": "2026-11-22", "GPU": "NVIDIA H200, 132 multiprocessors", "torch": "2.11.0"}
    wrong = line(row="wrong", check=Check(False, "error 1"))
    page = run.report(facts, CARD.lines(), {"tests": "90 passed, after 100 s"}, [line(), wrong])
    assert page.startswith("# Measured on NVIDIA H200\n")
    for part in ("2026-11-22", "torch: 2.11.0", "4.00 TB/s", "90 passed", "| sweep | exp ceiling | 2 ms |"):
        assert part in page
    (row,) = (text for text in page.splitlines() if text.startswith("| wrong"))
    assert "withheld" in row
    assert "WRONG RESULT" in row


def test_names_of_files() -> None:
    assert run.slug("NVIDIA H100 80GB HBM3") == "nvidia-h100-80gb-hbm3"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_and_stops() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu.run"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stdout.strip().count("\n") == 0
    assert "CUDA" in done.stdout
