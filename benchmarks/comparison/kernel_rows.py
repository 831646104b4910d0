"""Kernel losses, forward and backward, against GeomLoss's."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from clouds import pair
from torch import Tensor

from . import peers
from .line import Check, Line, duration
from .options import Options
from .timing import interleave

FP32_FLOOR = 2e-6  # relative to the sums whose difference the value is
ONLINE, TENSORIZED = "geomloss online", "geomloss tensorized"


@dataclass(frozen=True)
class Case:
    """One problem; no bar was agreed, so its lines are for information."""

    loss: str
    cloud: str
    n: int
    d: int
    blur: float

    @property
    def name(self) -> str:
        return f"{self.loss} {self.n}x{self.d}"

    def points(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        x, y = pair(self.cloud, self.n, self.d)
        return x.to(dtype), y.to(dtype)


CASES = (
    Case("energy", "flower", 5000, 2, 0.5),
    Case("gaussian", "flower", 5000, 2, 0.5),
    Case("energy", "normal", 5000, 64, 8.0),
    Case("gaussian", "normal", 5000, 64, 8.0),
)


def kernel_lines(case: Case, options: Options) -> Iterator[Line]:
    """Against each way of GeomLoss that can run here: "online" streams, "tensorized" stores matrices."""
    x, y = case.points(torch.float32)
    contenders = {
        name: _geomloss(case, x, y, name.split()[1])
        for name in (ONLINE, TENSORIZED)
        if options.wants_peer(name, has_bar=True)
    }
    if not contenders:
        return
    ours = _otcore(case, x, y, "auto")
    check = _check(case, ours)
    timings = interleave({"otcore": ours, **contenders}, options.rounds)
    for name in contenders:
        yield Line(
            row=case.name,
            against=name,
            ours=duration(timings.median("otcore")),
            theirs=duration(timings.median(name)),
            figure=timings.ratio(name, "otcore"),
            bar=None,
            at_least=True,
            check=check,
            detail=f"{timings.ratio_of_medians(name, 'otcore'):.3g} x of medians",
        )


def _geomloss(case: Case, x: Tensor, y: Tensor, backend: str) -> peers.Step:
    from geomloss import SamplesLoss

    return peers.value_and_gradient(SamplesLoss(case.loss, blur=case.blur, backend=backend), x, y)


def _otcore(case: Case, x: Tensor, y: Tensor, backend: str) -> peers.Step:
    from otcore import SamplesLoss

    return peers.value_and_gradient(SamplesLoss(case.loss, blur=case.blur, backend=backend), x, y)


def _check(case: Case, ours: peers.Step) -> Check:
    """Our fp32 value and gradient against the plain PyTorch of our dense backend in fp64."""
    exact, slope = _otcore(case, *case.points(torch.float64), "dense")()
    value, gradient = ours()
    size = max(1.0, float(exact))
    errors = float(abs(value - exact)) / size, float((gradient - slope).norm() / slope.norm())
    ok = max(errors) <= FP32_FLOOR
    return Check(ok, f"error value {errors[0]:.1e}, gradient {errors[1]:.1e} of {FP32_FLOOR:.0e}")


ROWS = {case.name: functools.partial(kernel_lines, case) for case in CASES}
