"""The judged rows on a GPU, interleaved with peers where these are installed, each beside a check.

A row is a function of the timer and the ceilings that gives lines of `comparison.line`. Everything is in
float32, p = 2, and warmed up; peers get tensors that are there already.
"""

from __future__ import annotations

import importlib.util
import statistics
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from clouds import pair
from comparison.large_rows import Training
from comparison.line import Check, Line, duration, not_measured
from torch import Tensor

from benchmarks.gpu.ceilings import Ceilings
from benchmarks.gpu.problems import BLUR, ITEMS, POINTS, batch
from benchmarks.gpu.timing import Timer, median_seconds, race
from otcore import SamplesLoss, backends, sinkhorn, sinkhorn_divergence
from otcore.backends.dense import Dense
from otcore.schedule import geomloss_temperatures
from otcore.solution import Potentials

FLASH, ONLINE, TENSORIZED = "flash-sinkhorn", "geomloss online", "geomloss tensorized"
NEEDS = {
    FLASH: ("flash_sinkhorn",),
    ONLINE: ("geomloss", "pykeops"),
    TENSORIZED: ("geomloss",),
}
ITERATIONS = 100
_CHECKED = 256  # rows of a sweep that are compared with float64
_SAME_VALUE = 1e-3  # between libraries, relative

Lines = Callable[[Timer, Ceilings, torch.device], Iterator[Line]]


@dataclass(frozen=True)
class Row:
    """seconds: what it takes at most, compiling and warming up included."""

    name: str
    seconds: float
    lines: Lines


def absent(peer: str) -> str | None:
    """Why a peer cannot be used here, or None."""
    missing = [module for module in NEEDS[peer] if importlib.util.find_spec(module) is None]
    return f"{', '.join(missing)} not installed" if missing else None


def floor_of(pairs: float, d: int, ceilings: Ceilings) -> tuple[float, str]:
    """The least time for so many pairs, and what binds it: an exponential each, or their products.

    Of these there are three in half precision for each of float32; in low dimension they need no matrix unit.
    """
    exponentials = pairs / ceilings.exponentials
    products = 3 * d * pairs / ceilings.bf16 if d > 16 else 0.0
    return (exponentials, "exp") if exponentials >= products else (products, "matrix")


def sweep_lines(
    n: int, d: int, bar: float, timer: Timer, ceilings: Ceilings, device: torch.device
) -> Iterator[Line]:
    """Row and column sums, which are both half-steps of an iteration, against the ceiling of this card."""
    x, y, eps = _clouds(n, d, device)
    f, a = x.new_zeros(1, n), x.new_full((1, n), 1.0 / n)
    verbs: Any = backends.load("cuda" if d <= 16 else "triton")
    g = verbs.softmin(y, x, f, a, cost=2, eps=eps)
    f = verbs.softmin(x, y, g, a, cost=2, eps=eps)
    if d > 16:
        from otcore.problem import make_problem

        verbs = verbs.prepared(make_problem(x, y, eps=eps))

    def work() -> tuple[Tensor, Tensor]:
        return verbs.sweep(x, y, f, g, a, a, cost=2, eps=eps)

    seconds = median_seconds(work, timer)
    least, ceiling = floor_of(float(n * n), d, ceilings)
    yield Line(
        row=f"sweep {n} x {n} x {d}",
        against=f"{ceiling} ceiling",
        ours=duration(seconds),
        theirs=duration(least),
        figure=least / seconds,
        bar=bar,
        at_least=True,
        check=_sums(work()[0][0, :_CHECKED], x[:, :_CHECKED], y, f[:, :_CHECKED], g, a, eps),
        unit="",
    )


def _sums(got: Tensor, x: Tensor, y: Tensor, f: Tensor, g: Tensor, b: Tensor, eps: float) -> Check:
    """At most twice the error of torch's dense float32."""
    plain, exact = (
        Dense().sweep(*(t.to(dtype) for t in (x, y, f, g, b[:, : x.shape[1]], b)), cost=2, eps=eps)[0][0]
        for dtype in (torch.float32, torch.float64)
    )
    error, torchs = (float((t.double().exp() - exact.exp()).abs().max()) for t in (got, plain))
    return Check(error <= 2 * torchs, f"error {error:.1e}, torch's dense {torchs:.1e}")


def iteration_lines(n: int, d: int, timer: Timer, _: Ceilings, device: torch.device) -> Iterator[Line]:
    """ITERATIONS symmetric iterations at one temperature, without self-terms."""
    x, y, eps = _clouds(n, d, device)
    zero = x.new_zeros(1, n, dtype=torch.float64)

    def ours() -> Tensor:
        # The tolerance is out of reach: all iterations are made.
        value: Tensor = sinkhorn(
            x, y, eps=eps, tol=1e-30, max_iter=ITERATIONS, init=Potentials(zero, zero, None, None)
        ).value
        return value

    def theirs() -> Callable[[], Tensor]:
        from flash_sinkhorn import SamplesLoss as Flash

        loss = Flash("sinkhorn", use_epsilon_scaling=False, eps=eps, n_iters=ITERATIONS, half_cost=True)
        return lambda: loss(x[0], y[0])

    yield from _against(f"{ITERATIONS} iterations {n} x {n} x {d}", FLASH, ours, theirs, 3.0, timer)


def schedule_lines(n: int, d: int, timer: Timer, _: Ceilings, device: torch.device) -> Iterator[Line]:
    """The whole schedule of GeomLoss, of both libraries alike."""
    x, y, _eps = _clouds(n, d, device)
    options: dict[str, Any] = {"p": 2, "blur": 0.05, "scaling": 0.7, "diameter": 1.5, "debias": False}
    steps = len(geomloss_temperatures(1.5, 0.05, 0.7, 2)) + 1
    loss = SamplesLoss("sinkhorn", **options)

    def theirs() -> Callable[[], Tensor]:
        from geomloss import SamplesLoss as Online

        online = Online("sinkhorn", backend="online", **options)
        return lambda: online(x[0], y[0])

    row = f"samples_loss {n} x {n} x {d}, {steps} steps"
    yield from _against(row, ONLINE, lambda: loss(x[0], y[0]), theirs, 5.0, timer)


def batch_lines(timer: Timer, _: Ceilings, device: torch.device) -> Iterator[Line]:
    """Forward and backward of many small problems in one call."""
    x, y = (t.to(device) for t in batch())
    x.requires_grad_()

    def work() -> tuple[Tensor, ...]:
        value = sinkhorn_divergence(x, y, blur=BLUR)
        return value.detach(), *torch.autograd.grad(value.sum(), x)

    exact = sinkhorn_divergence(x.detach().double(), y.double(), blur=BLUR, tol=1e-9)
    error = float((work()[0] - exact).abs().max() / exact.abs().max())
    yield _time_line(
        f"{ITEMS} x ({POINTS} x {POINTS} x {x.shape[-1]}), forward and backward",
        median_seconds(work, timer),
        1e-3,
        # As far as the default tolerance takes it.
        Check(error <= 1e-2, f"value off by {error:.1e}"),
    )


def warm_lines(timer: Timer, _: Ceilings, device: torch.device) -> Iterator[Line]:
    """A step of a training on the flower prior: forward and backward, from the solution of the last."""
    training = Training(steps=6)
    x, y = (t.to(device, torch.float32) for t in pair("flower", training.n, 2))
    last = sinkhorn_divergence(x, y, blur=training.blur, return_solution=True)
    seconds, worst = [], 0.0
    for move in training.moves():
        x = (x.detach() + move.to(x)).requires_grad_()

        def step(x: Tensor = x, init: Any = last) -> Any:
            solution = sinkhorn_divergence(x, y, blur=training.blur, init=init, return_solution=True)
            return solution, torch.autograd.grad(solution.value, x)

        seconds.append(median_seconds(step, timer))
        last = step()[0]
        worst = max(worst, last.marginal_error)
    check = Check(worst <= 1e-2, f"marginal error at most {worst:.1e}")
    yield _time_line(f"warm step, {training.n} flower points", statistics.median(seconds), 5e-3, check)


def _time_line(row: str, seconds: float, bar: float, check: Check) -> Line:
    return Line(row, "-", duration(seconds), "-", 1e3 * seconds, 1e3 * bar, False, check, unit="ms")


def _against(
    row: str,
    peer: str,
    ours: Callable[[], Tensor],
    theirs: Callable[[], Callable[[], Tensor]],
    bar: float,
    timer: Timer,
) -> Iterator[Line]:
    """Both in turn, and their values compared."""
    reason = absent(peer)
    if reason:
        seconds = median_seconds(ours, timer)
        yield not_measured(row, reason)
        yield Line(
            row, "-", duration(seconds), "-", 1e3 * seconds, None, False, Check(True, "alone"), unit="ms"
        )
        return
    other = theirs()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        timings = race({"ours": ours, peer: other}, timer, rounds=3)
        mine, its = float(ours()), float(other())
    error = abs(mine - its) / abs(its)
    yield Line(
        row=row,
        against=peer,
        ours=duration(timings.median("ours")),
        theirs=duration(timings.median(peer)),
        figure=timings.ratio(peer, "ours"),
        bar=bar,
        at_least=True,
        check=Check(error <= _SAME_VALUE, f"values differ by {error:.1e}"),
    )


def _clouds(n: int, d: int, device: torch.device) -> tuple[Tensor, Tensor, float]:
    """Points in the unit cube, (1, N, D), and a temperature in proportion to their distances."""
    x, y = (t.to(device, torch.float32).unsqueeze(0) for t in pair("uniform", n, d))
    return x, y, 0.0025 * d / 3 if d <= 16 else 0.1 * d / 64


ROWS = (
    Row("sweep d=3", 20, partial(sweep_lines, 100_000, 3, 0.5)),
    Row("sweep d=64", 20, partial(sweep_lines, 10_000, 64, 0.4)),
    Row("sweep d=64, large", 20, partial(sweep_lines, 50_000, 64, 0.4)),
    Row("batch", 10, batch_lines),
    Row("warm step", 20, warm_lines),
    Row("iterations", 60, partial(iteration_lines, 10_000, 64)),
    Row("iterations, large", 60, partial(iteration_lines, 50_000, 64)),
    Row("schedule", 90, partial(schedule_lines, 100_000, 3)),
)
