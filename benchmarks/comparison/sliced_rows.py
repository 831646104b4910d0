"""Sliced distances, forward and backward, against POT (torch) and three lines of torch.sort; peak memory."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from clouds import pair
from torch import Tensor

from . import peers
from .footprint_rows import _python
from .line import Check, Line, duration, size
from .machine import has_avx512
from .options import Options
from .timing import interleave

# Relative to the value, and to the norm of the gradient, where near-ties may change places.
VALUE_FLOOR, GRADIENT_FLOOR = 5e-6, 2e-3
POT, SORT = "pot", "torch.sort"
NARROW = 2 / 3  # of the bars, without AVX-512


@dataclass(frozen=True)
class Case:
    """Points, dimension and directions, and the least ratios of the peers' times to ours."""

    n: int
    d: int
    directions: int
    bars: dict[str, float]

    @property
    def name(self) -> str:
        return f"sliced {self.n}x{self.d} L{self.directions}"

    def clouds(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """x, y and the directions, (D, L)."""
        x, y = (t.to(dtype) for t in pair("normal", self.n, self.d))
        theta = torch.randn(self.d, self.directions, generator=torch.Generator().manual_seed(2))
        return x, y, torch.nn.functional.normalize(theta, dim=0).to(dtype)


CASES = (
    Case(500, 2, 50, {POT: 20.0, SORT: 10.0}),
    Case(10_000, 64, 200, {POT: 40.0, SORT: 9.0}),
    Case(100_000, 64, 100, {POT: 60.0, SORT: 12.0}),
)

MEMORY_ROW = "sliced memory 100000x64 L1000"
MEMORY_BAR = 300.0  # MB
# Run in a fresh interpreter.
MEMORY = """
import json, torch
from otcore import sliced_wasserstein_distance
from comparison.memory import peak_beyond

def step(x, y):
    return torch.autograd.grad(sliced_wasserstein_distance(x, y, n_projections=1000, seed=0), x)[0]

def points(n):
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(n, 64, generator=generator) for _ in range(2))
    return x.requires_grad_(), y

step(*points(100))
x, y = points(100_000)
peak = peak_beyond(lambda: step(x, y))
print(json.dumps({"peak": peak, "finite": bool(torch.isfinite(step(x, y)).all())}))
"""


def three_lines(x: Tensor, y: Tensor, theta: Tensor) -> Tensor:
    u, v = (x @ theta).sort(0).values, (y @ theta).sort(0).values
    return (u - v).square().mean().sqrt()


def sliced_lines(case: Case, options: Options) -> Iterator[Line]:
    x, y, theta = case.clouds(torch.float32)
    chosen = [name for name in case.bars if options.wants_peer(name, has_bar=True)]
    if not chosen:
        return
    ours = _otcore(*case.clouds(torch.float32))
    check = _check(case, ours)
    contenders = {name: {POT: _pot, SORT: _sorted}[name](x, y, theta) for name in chosen}
    timings = interleave({"otcore": ours, **contenders}, options.rounds)
    for name in chosen:
        yield Line(
            row=case.name,
            against=name,
            ours=duration(timings.median("otcore")),
            theirs=duration(timings.median(name)),
            figure=timings.ratio(name, "otcore"),
            bar=case.bars[name] * (1.0 if has_avx512() else NARROW),
            at_least=True,
            check=check,
            detail=f"{timings.ratio_of_medians(name, 'otcore'):.3g} x of medians",
        )


def _otcore(x: Tensor, y: Tensor, theta: Tensor) -> peers.Step:
    from otcore import sliced_wasserstein_distance

    return peers.value_and_gradient(lambda x, y: sliced_wasserstein_distance(x, y, projections=theta), x, y)


def _pot(x: Tensor, y: Tensor, theta: Tensor) -> peers.Step:
    import ot

    return peers.value_and_gradient(
        lambda x, y: ot.sliced_wasserstein_distance(x, y, projections=theta), x, y
    )


def _sorted(x: Tensor, y: Tensor, theta: Tensor) -> peers.Step:
    return peers.value_and_gradient(lambda x, y: three_lines(x, y, theta), x, y)


def _check(case: Case, ours: peers.Step) -> Check:
    """Our fp32 value and gradient against the three lines in fp64."""
    exact, slope = _sorted(*case.clouds(torch.float64))()
    value, gradient = ours()
    errors = float(abs(value - exact) / exact), float((gradient - slope).norm() / slope.norm())
    ok = errors[0] <= VALUE_FLOOR and errors[1] <= GRADIENT_FLOOR
    return Check(ok, f"error value {errors[0]:.1e}, gradient {errors[1]:.1e}")


def memory_lines(options: Options) -> Iterator[Line]:
    """Value and gradient, beyond the inputs."""
    told = json.loads(_python(MEMORY))
    yield Line(
        row=MEMORY_ROW,
        against="inputs",
        ours=size(told["peak"]),
        theirs="-",
        figure=told["peak"] / 1e6,
        bar=MEMORY_BAR,
        at_least=False,
        check=Check(told["finite"], "gradient finite"),
        unit="MB",
    )


ROWS = {case.name: functools.partial(sliced_lines, case) for case in CASES} | {MEMORY_ROW: memory_lines}
