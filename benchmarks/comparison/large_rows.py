"""Large clouds, forward and backward to both of them, against GeomLoss and OTT-JAX; peak memory; warm steps.

GeomLoss needs half a minute for 60,000 points: there, and at 10,000, it runs once, after a small problem has
compiled and loaded its KeOps formulas, which serve every size. The three rows of 60,000 points share a run.
"""

from __future__ import annotations

import functools
import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from clouds import pair
from torch import Tensor

from . import peers
from .footprint_rows import _python
from .line import Check, Line, duration
from .options import Options
from .schedule_rows import FP32_FLOOR, ONLINE, OTT, Case, _errors, _peer_check, _race
from .solve import solve
from .timing import interleave

MULTISCALE = "geomloss multiscale"
SMALL = 500  # points of the problem that loads KeOps formulas

MEMORY_BAR = 300.0  # MB (1e6 bytes) beyond the inputs

WARM_ROW = "large warm step"
WARM_BAR = 0.15  # seconds


@dataclass(frozen=True, eq=False)
class LargeCase(Case):
    """tol: where sinkhorn_divergence stops; None for SamplesLoss(backend="multiscale"). scaling: of
    SamplesLoss, ours and GeomLoss's."""

    both: bool = True
    tol: float | None = None

    @property
    def problem(self) -> tuple[str, int, int, float, float]:
        return self.cloud, self.n, self.d, self.blur, self.scaling


# GeomLoss runs once on these.
SLOW = (
    LargeCase("large samples_loss 60000x2", "flower", 60000, 2, 0.05, 0.5, {MULTISCALE: 40}),
    LargeCase("large divergence 60000x2", "flower", 60000, 2, 0.05, 0.5, {MULTISCALE: 25}, tol=1e-2),
    LargeCase("large divergence 60000x2, tol 1e-3", "flower", 60000, 2, 0.05, 0.5, {MULTISCALE: 8}, tol=1e-3),
    LargeCase("large divergence uniform 10000x3", "uniform", 10000, 3, 0.02, 0.5, {ONLINE: 10}, tol=1e-2),
    LargeCase("large divergence manifold 10000x8", "manifold", 10000, 8, 0.05, 0.5, {ONLINE: 10}, tol=1e-2),
)
INTERLEAVED = LargeCase("large samples_loss 5000x2", "flower", 5000, 2, 0.05, 0.7, {ONLINE: 150, OTT: 35})
MEASURED = {case.name.replace("large", "large memory"): case for case in SLOW if case.n == 60000}

# Run in a fresh interpreter.
MEASURE = """
import dataclasses, json, pathlib, sys, torch
sys.path.append(str(pathlib.Path.cwd().parent))  # the clouds of tests/problems.py
from comparison.large_rows import MEASURED, our_step
from comparison.memory import peak_beyond

case = dataclasses.replace(MEASURED[sys.argv[1]], n=int(sys.argv[2]))
our_step(dataclasses.replace(case, n=300))()
step = our_step(case)
results = []
peak = peak_beyond(lambda: results.extend(step()))
print(json.dumps({"peak": peak, "finite": all(bool(torch.isfinite(t).all()) for t in results)}))
"""


def our_step(case: LargeCase) -> peers.Step:
    x, y = case.points(torch.float32)
    if case.tol is not None:
        return peers.sinkhorn_divergence(x, y, blur=case.blur, tol=case.tol, both=case.both)
    return peers.samples_loss(
        x, y, blur=case.blur, scaling=case.scaling, backend="multiscale", both=case.both
    )


def slow_lines(case: LargeCase, options: Options) -> Iterator[Line]:
    """Against one run of a peer."""
    for name in case.bars:
        if not options.wants_peer(name, has_bar=True):
            continue
        theirs = _geomloss_once(name, *case.problem)[0]
        step = our_step(case)
        timings = interleave({"otcore": step}, options.rounds)
        check = _as_near_as_geomloss(case, step) if case.tol is None else _certified(case)
        wired = _peer_check(name)
        ours = timings.median("otcore")
        yield Line(
            row=case.name,
            against=name,
            ours=duration(ours),
            theirs=duration(theirs),
            figure=theirs / ours,
            bar=case.bar(name),
            at_least=True,
            check=check if wired.ok else Check(False, f"{check.text}; {wired.text}"),
            detail=f"{name} once, otcore {duration(min(timings.rounds['otcore']))} at best",
        )


def interleaved_lines(case: LargeCase, options: Options) -> Iterator[Line]:
    """Against peers that are fast enough to be timed in every round."""
    if any(options.wants_peer(name, has_bar=True) for name in case.bars):
        step = our_step(case)
        yield from _race(case, step, _as_near_as_geomloss(case, step), options)


@functools.cache
def _geomloss_once(
    name: str, cloud: str, n: int, d: int, blur: float, scaling: float
) -> tuple[float, Tensor, Tensor]:
    """Seconds of one call of the peer in float32, its value, and its gradient in both clouds."""

    def step(points: int) -> peers.Step:
        x, y = (t.float() for t in pair(cloud, points, d))
        return peers.schedule_peer(name, x, y, blur=blur, scaling=scaling, both=True)

    step(min(n, SMALL))()
    large = step(n)
    start = time.perf_counter()
    value, gradient = large()
    return time.perf_counter() - start, value, gradient


@functools.cache
def _full_schedule(cloud: str, n: int, d: int, blur: float, scaling: float) -> tuple[Tensor, Tensor]:
    """GeomLoss's schedule on all points in float64: value, and gradient in both clouds."""
    x, y = pair(cloud, n, d)
    value, gradient = peers.samples_loss(x, y, blur=blur, scaling=scaling, both=True)()
    return value, gradient


def _as_near_as_geomloss(case: LargeCase, ours: peers.Step) -> Check:
    """Our value and gradient are no further from those of the full schedule than GeomLoss's on two scales."""
    if peers.absent(MULTISCALE):
        return Check(False, f"cannot check: {peers.absent(MULTISCALE)}")
    reference = _full_schedule(*case.problem)
    theirs = _geomloss_once(MULTISCALE, *case.problem)[1:]
    allowed = [max(error, FP32_FLOOR) for error in _errors(lambda: theirs, reference)]
    found = _errors(ours, reference)
    ok = all(error <= limit for error, limit in zip(found, allowed, strict=True))
    texts = [
        f"{what} {error:.1e} of {limit:.1e}"
        for what, error, limit in zip(("value", "gradient"), found, allowed, strict=True)
    ]
    return Check(ok, "error " + ", ".join(texts))


def _certified(case: LargeCase) -> Check:
    """The solve says that it converged, and its value is within its certified bounds."""
    found = solve(*case.points(torch.float32), blur=case.blur, tol=case.tol)
    value, bounds = float(found.solution.value), found.solution.bounds()
    lower, upper = float(bounds.lower), float(bounds.upper)
    within = "in" if lower <= value <= upper else "OUT OF"
    return Check(
        found.converged and found.marginal_error <= (case.tol or 0.0) and within == "in",
        f"marginal error {found.marginal_error:.1e} after {found.sweeps} sweeps, value {value:.4g} {within} "
        f"[{lower:.4g}, {upper:.4g}]",
    )


def memory_lines(row: str, options: Options, n: int | None = None) -> Iterator[Line]:
    """Peak memory of one forward and backward."""
    n = n or MEASURED[row].n
    found = json.loads(_python(MEASURE, row, str(n)))
    megabytes = found["peak"] / 1e6
    yield Line(
        row=row,
        against="beyond the inputs",
        ours=f"{megabytes:.3g} MB",
        theirs="-",
        figure=megabytes,
        bar=MEMORY_BAR,
        at_least=False,
        check=Check(found["finite"], "value and gradient finite"),
        unit="MB",
        detail=f"{found['peak'] / (2 * n):.0f} bytes a point",
    )


@dataclass(frozen=True)
class Training:
    """Latent codes as the training of a global autoencoder moves them: the rows of a batch far, all others a
    little. Lengths are standard deviations of normal noise."""

    n: int = 60000
    batch: int = 500
    far: float = 0.05
    little: float = 0.002
    steps: int = 20
    blur: float = 0.05

    def moves(self) -> Iterator[Tensor]:
        """What each step adds to the codes, (N, 2)."""
        draw = torch.Generator().manual_seed(2)
        for _ in range(self.steps):
            lengths = torch.full((self.n, 1), self.little)
            lengths[torch.randperm(self.n, generator=draw)[: self.batch]] = self.far
            yield lengths * torch.randn(self.n, 2, generator=draw)


def warm_lines(training: Training, _: Options) -> Iterator[Line]:
    """One step: forward, and backward to the codes, from the last step's solution."""
    x, y = (t.float() for t in pair("flower", training.n, 2))
    cold = last = solve(x.requires_grad_(), y, blur=training.blur)
    solves = []
    for move in training.moves():
        x = (x.detach() + move).requires_grad_()
        last = solve(x, y, blur=training.blur, init=last.solution)
        solves.append(last)
    middle = statistics.median(found.seconds for found in solves)
    worst = max(found.marginal_error for found in solves)
    sweeps = statistics.median(found.sweeps for found in solves)
    yield Line(
        row=WARM_ROW,
        against=f"{training.n} codes",
        ours=duration(middle),
        theirs="-",
        figure=middle,
        bar=WARM_BAR,
        at_least=False,
        check=Check(all(found.converged for found in solves), f"marginal error at most {worst:.1e}"),
        unit="s",
        detail=f"{sweeps:g} sweeps; at most {duration(max(found.seconds for found in solves))}; "
        f"cold {duration(cold.seconds)}, {cold.sweeps} sweeps",
    )


ROWS = (
    {case.name: functools.partial(slow_lines, case) for case in SLOW}
    | {INTERLEAVED.name: functools.partial(interleaved_lines, INTERLEAVED)}
    | {row: functools.partial(memory_lines, row) for row in MEASURED}
    | {WARM_ROW: functools.partial(warm_lines, Training())}
)
