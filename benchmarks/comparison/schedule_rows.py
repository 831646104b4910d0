"""SamplesLoss forward and backward against GeomLoss and OTT-JAX, and sinkhorn_divergence against GeomLoss."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from clouds import pair
from torch import Tensor

from . import peers
from .line import Check, Line, duration
from .machine import has_avx512
from .options import Options
from .timing import interleave

# Without AVX-512 the bars are two thirds of those agreed for it.
NARROW = 2 / 3


@dataclass(frozen=True, eq=False)
class Case:
    """One problem, and how many times faster than each peer we have to be on it, forward and backward to x
    or to both clouds."""

    name: str
    cloud: str
    n: int
    d: int
    blur: float
    scaling: float
    bars: dict[str, float | None]
    both: bool = False

    def points(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        x, y = pair(self.cloud, self.n, self.d)
        return x.to(dtype), y.to(dtype)

    def bar(self, peer: str) -> float | None:
        bar = self.bars[peer]
        return bar if bar is None or has_avx512() else bar * NARROW


TENSORIZED, ONLINE, OTT = "geomloss tensorized", "geomloss online", "ott-jax"

SAMPLES_LOSS = (
    Case("samples_loss 5000x2", "flower", 5000, 2, 0.05, 0.7, {ONLINE: 70, TENSORIZED: None, OTT: 15}),
    Case("samples_loss 5000x64", "normal", 5000, 64, 0.05, 0.7, {TENSORIZED: 20, ONLINE: None, OTT: 3}),
    Case("samples_loss 500x16", "normal", 500, 16, 0.05, 0.7, {TENSORIZED: 20, ONLINE: None, OTT: 3.5}),
    Case("samples_loss 128x8", "normal", 128, 8, 0.05, 0.7, {TENSORIZED: 10, ONLINE: None, OTT: 2}),
)

# At GeomLoss's default scaling (.5) its answer is cheaper and further from converged: the stricter reading.
DIVERGENCE = (
    Case("divergence flower 2000x2", "flower", 2000, 2, 0.05, 0.7, {TENSORIZED: 5}),
    Case("divergence flower 2000x2, GeomLoss .5", "flower", 2000, 2, 0.05, 0.5, {TENSORIZED: 5}),
    Case("divergence 500x16", "normal", 500, 16, 0.5, 0.7, {TENSORIZED: 5}),
    Case("divergence 500x16, GeomLoss .5", "normal", 500, 16, 0.5, 0.5, {TENSORIZED: 5}),
)

FP32_FLOOR = 2e-6  # relative; or twice GeomLoss's own error in fp32, whichever is larger


def samples_loss_lines(case: Case, options: Options) -> Iterator[Line]:
    """GeomLoss's schedule, forward and backward."""
    if not _contenders(case, options):
        return
    ours = peers.samples_loss(*case.points(torch.float32), blur=case.blur, scaling=case.scaling)
    yield from _race(case, ours, _same_as_geomloss(case, ours), options)


def divergence_lines(case: Case, options: Options) -> Iterator[Line]:
    """Ours converged at the default tol, GeomLoss's at the end of its schedule; forward and backward."""
    if not _contenders(case, options):
        return
    ours = peers.sinkhorn_divergence(*case.points(torch.float32), blur=case.blur)
    yield from _race(case, ours, _converged(case), options)


def peer_lines(case: Case, options: Options) -> Iterator[Line]:
    """The peers alone, without otcore: their milliseconds, for information."""
    contenders = _contenders(case, options)
    timings = interleave(contenders, options.rounds)
    for name in contenders:
        time = timings.median(name)
        yield Line(case.name, name, "-", duration(time), time * 1e3, None, True, _peer_check(name), "ms")


def _contenders(case: Case, options: Options) -> dict[str, peers.Step]:
    """The peers chosen by --peers, by default those that have a bar here."""
    x, y = case.points(torch.float32)
    return {
        name: peers.schedule_peer(name, x, y, blur=case.blur, scaling=case.scaling, both=case.both)
        for name, bar in case.bars.items()
        if options.wants_peer(name, has_bar=bar is not None)
    }


def _race(case: Case, ours: peers.Step, check: Check, options: Options) -> Iterator[Line]:
    contenders = _contenders(case, options)
    timings = interleave({"otcore": ours, **contenders}, options.rounds)
    for name in contenders:
        wired = _peer_check(name)
        yield Line(
            row=case.name,
            against=name,
            ours=duration(timings.median("otcore")),
            theirs=duration(timings.median(name)),
            figure=timings.ratio(name, "otcore"),
            bar=case.bar(name),
            at_least=True,
            check=check if wired.ok else Check(False, f"{check.text}; {wired.text}"),
            detail=f"{timings.ratio_of_medians(name, 'otcore'):.3g} x of medians",
        )


def _errors(step: peers.Step, reference: tuple[Tensor, Tensor]) -> tuple[float, float]:
    """Relative errors of value and gradient."""
    value, gradient = (peers.as_tensor(result) for result in step())
    exact, slope = reference
    return float(abs(value - exact) / abs(exact)), float((gradient - slope).norm() / slope.norm())


@functools.lru_cache(maxsize=1)
def _geomloss_fp64(case: Case) -> tuple[Tensor, Tensor]:
    step = peers.geomloss(
        *case.points(torch.float64), backend="tensorized", blur=case.blur, scaling=case.scaling
    )
    value, gradient = step()
    return value, gradient


def _same_as_geomloss(case: Case, ours: peers.Step) -> Check:
    """Our fp32 value and gradient against GeomLoss's in fp64."""
    if peers.absent(TENSORIZED):
        return Check(False, f"cannot check: {peers.absent(TENSORIZED)}")
    reference = _geomloss_fp64(case)
    theirs = peers.geomloss(
        *case.points(torch.float32), backend="tensorized", blur=case.blur, scaling=case.scaling
    )
    allowed = [max(2 * error, FP32_FLOOR) for error in _errors(theirs, reference)]
    found = _errors(ours, reference)
    ok = all(error <= limit for error, limit in zip(found, allowed, strict=True))
    text = ", ".join(
        f"{what} {error:.1e} of {limit:.1e}"
        for what, error, limit in zip(("value", "gradient"), found, allowed, strict=True)
    )
    return Check(ok, f"error {text}")


def _converged(case: Case) -> Check:
    """Our fp32 answer at the default tolerance: it says it converged, and its value is that of a fp64 solve
    converged a hundred times further, within what the tolerance allows (marginal error x largest cost)."""
    from otcore import sinkhorn_divergence

    x, y = case.points(torch.float32)
    solution = sinkhorn_divergence(x, y, blur=case.blur, return_solution=True)
    tight = sinkhorn_divergence(
        x.double(), y.double(), blur=case.blur, tol=1e-4, max_iter=20000, return_solution=True
    )
    both = torch.cat([x, y])
    diameter = float((both.max(0).values - both.min(0).values).norm())
    marginal = float(torch.as_tensor(solution.marginal_error).max())
    error = abs(float(solution.value) - float(tight.value))
    ok = bool(torch.as_tensor(solution.converged).all()) and bool(torch.as_tensor(tight.converged).all())
    ok = ok and error <= (marginal + 1e-4) * diameter**2
    relative = error / abs(float(tight.value))
    return Check(ok, f"marginal error {marginal:.1e}, value off by {relative:.1e} from tol 1e-4 in fp64")


@functools.cache
def _peer_check(name: str) -> Check:
    """The peer is set up for our problem: at a large blur and cooled slowly, where every schedule
    converges, it agrees with GeomLoss in fp64 to 1e-3."""
    x, y = pair("normal", 100, 3)
    reference = peers.geomloss(x, y, backend="tensorized", blur=3.0, scaling=0.98)()
    step = peers.schedule_peer(name, x.float(), y.float(), blur=3.0, scaling=0.98)
    value, gradient = _errors(step, (reference[0], reference[1]))
    return Check(max(value, gradient) < 1e-3, f"{name} off by {value:.0e}, gradient {gradient:.0e}")


ROWS = {case.name: functools.partial(samples_loss_lines, case) for case in SAMPLES_LOSS} | {
    case.name: functools.partial(divergence_lines, case) for case in DIVERGENCE
}
PEER_ROWS = {case.name: functools.partial(peer_lines, case) for case in (*SAMPLES_LOSS, *DIVERGENCE)}
