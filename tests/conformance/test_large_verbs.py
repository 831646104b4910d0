"""Verbs on thousands of points, at the potentials of solves and at any others.

Sums are compared with those over all pairs, in float64 by blocks of rows. Clouds are drawn
afresh in every run; the header of a failure shows `seed`, its message the problem.
"""

from __future__ import annotations

import random
import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from otcore import ConvergenceWarning, sinkhorn
from otcore.backends.cpu import Cpu
from otcore.backends.dense import Dense
from tests.conformance.large import SUM_ERROR, Large, places
from tests.conformance.solved import DTYPES
from tests.kernels.case import Case
from tests.problems import cloud
from tests.tolerance import assert_as_accurate, assert_solved, rounding


def _converged(q: Large, x: Tensor, y: Tensor, a: Tensor, b: Tensor, draw: torch.Generator) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        solution = sinkhorn(x, y, a, b, p=q.p, blur=q.blur, tol=1e-4, max_iter=100)
    return solution.f, solution.g


def _noisy(q: Large, x: Tensor, y: Tensor, a: Tensor, b: Tensor, draw: torch.Generator) -> Any:
    """With three temperatures of noise at every point."""
    f, g = _converged(q, x, y, a, b, draw)
    return tuple(t + 3.0 * q.eps * torch.randn(t.shape, generator=draw, dtype=t.dtype) for t in (f, g))


def _smooth(q: Large, x: Tensor, y: Tensor, a: Tensor, b: Tensor, draw: torch.Generator) -> Any:
    """A few random waves."""
    waves, phases = 6.0 * torch.randn(4, q.d, generator=draw, dtype=x.dtype), 6.0 * cloud(4, 1, q.seed)[:, 0]
    return _closed(q, x, y, b, 0.03 * (y @ waves.T + phases).cos().sum(1))


def _kinked(q: Large, x: Tensor, y: Tensor, a: Tensor, b: Tensor, draw: torch.Generator) -> Any:
    """The larger of two linear functions: x goes to either side of an edge, nothing to the edge."""
    slopes = torch.randn(2, q.d, generator=draw, dtype=x.dtype)
    slopes = (0.5 if q.p == 2 else 0.8) * slopes / slopes.norm(dim=1, keepdim=True)
    return _closed(q, x, y, b, ((y - y.mean(0)) @ slopes.T).amax(1))


def _closed(q: Large, x: Tensor, y: Tensor, b: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """(f, g) with f the softmin of g: all rows sum to 1, columns to anything."""
    zero = torch.zeros_like(x[None, :, 0])
    log_r = Case(x[None], y[None], zero, g[None], zero, b[None], q.p, q.eps).log_sums()
    return -q.eps * log_r[0], g


POTENTIALS = {"converged": _converged, "noisy": _noisy, "smooth": _smooth, "kinked": _kinked}


@pytest.mark.parametrize("plane", [True, False], ids=["p=2 in the plane", "otherwise"])
@pytest.mark.parametrize("kind", POTENTIALS)
def test_verbs_at_any_potentials(kind: str, plane: bool, seed: int) -> None:
    """As in tests/kernels/test_verbs.py; every sum, and some rows of what is summed with vectors."""
    draw, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    d, p = (2, 2) if plane else draw.choice([(1, 2), (3, 2), (2, 1)])
    n, m, blur = draw.randrange(3000, 5000), draw.randrange(3000, 5000), draw.choice([0.01, 0.03, 0.1, 0.3])
    fixed = {"n": n, "m": m, "d": d, "p": p, "blur": blur, "reach": None, "weighting": "smooth"}
    q = Large.drawn(draw.choice(["cube", "core and halo", "two clusters"]), seed, torch.float64, **fixed)
    x, y, a, b = q.measures()
    potentials = POTENTIALS[kind](q, x, y, a, b, generator)
    wide = Case(*(t.unsqueeze(0).float().double() for t in (x, y, *potentials, a, b)), p, q.eps)
    exact = wide.log_sums(), wide.turned.log_sums(), replace(wide, y=wide.x, g=wide.f, b=wide.a).log_sums()
    chosen = torch.randperm(min(n, m), generator=generator)[:300]
    v = torch.randn(1, m, 3, generator=generator, dtype=torch.float64)
    for dtype in DTYPES:
        case, cpu = wide.to(dtype), Cpu()
        own = replace(case, y=case.x, g=case.f, b=case.a)
        found = *cpu.sweep(*case.clouds, **case.ground), cpu.sweep(*own.clouds, **case.ground, same=True)[0]
        for side, got, want in zip((case, case.turned, own), found, exact, strict=True):
            _assert_sums(q, side, got, want)
        for side, want in zip((case, case.turned), exact, strict=False):
            got = cpu.softmin(side.x, side.y, side.g, side.b, **case.ground)
            _assert_sums(q, side, (side.f - got) / q.eps, want)
        _assert_products(case, wide, chosen, v.to(dtype), exact[0][:, chosen])


def _assert_sums(q: Large, case: Case, got: Tensor, want: Tensor) -> None:
    """Every sum by itself to the rule of tests.tolerance: the error of its logarithm is a relative one."""
    error, last_place = (got.double() - want).abs(), torch.finfo(got.dtype).eps
    granted = places(case.f, case.g, case.eps)
    if got.dtype == torch.float64:
        allowed = SUM_ERROR + (q.d + 16) * last_place * granted
    else:
        torchs = float((case.log_sums().double() - want).abs().max())
        # The worst of thousands of sums: what torch loses and what rounding may lose add up.
        allowed = 2.0 * (torchs + last_place * granted) + rounding(got.dtype)
    worst = int(error.argmax())
    assert float(error.max()) <= allowed, (
        f"{q}: log sum {worst} is {float(got[0, worst])}, in truth {float(want[0, worst])} ± {allowed:.1e}"
    )


def _assert_products(case: Case, wide: Case, chosen: Tensor, v: Tensor, log_r: Tensor) -> None:
    """Products and gradients in the chosen rows, relative to what the row sums to."""
    cpu, dense, part, exact = Cpu(), Dense(), case.rows(chosen), wide.rows(chosen)
    share = (log_r.exp() * exact.a).unsqueeze(2)
    triples = [
        (cpu.apply(*case.clouds, v, **case.ground), dense.apply(*part.clouds, v, **case.ground),
         dense.apply(*exact.clouds, v.double(), **case.ground), share),
    ]  # fmt: skip
    for normalise, scale in ((False, share), (True, torch.ones_like(share))):
        options = {**case.ground, "normalise": normalise}
        triples.append(
            (cpu.grad(*case.clouds, **options), dense.grad(*part.clouds, **options),
             dense.grad(*exact.clouds, **options), scale)
        )  # fmt: skip
    for got, torchs, reference, scale in triples:
        if case.x.dtype == torch.float64:
            assert_solved(got[:, chosen] / scale, reference / scale)
        else:
            narrow, granted = scale.float(), places(case.f, case.g, case.eps)
            assert_as_accurate(got[:, chosen] / narrow, torchs / narrow, reference / scale, granted)
