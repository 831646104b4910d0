"""SamplesLoss in fp32: its error against GeomLoss in fp64 is at most twice GeomLoss's own fp32 error, or
2e-6.

An error in fp32 is a draw: one number may come out right by luck. Errors are therefore the root mean square
over several problems drawn afresh, relative to the result; the seed is in the message of a failure.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
import torch

from otcore import SamplesLoss
from tests.parity import geomloss_reference as reference
from tests.parity.drawn import Drawn

pytest.importorskip("geomloss", reason="parity with GeomLoss needs geomloss (pip install geomloss)")

FLOOR = 2e-6
PROBLEMS = 8

BASE = Drawn(
    seed=0, n=90, m=70, d=2, batch=0, p=2, blur=0.05, scaling=0.7, debias=True,
    weighted=False, dead=False, shift=0.3,
)  # fmt: skip

CASES: dict[str, tuple[Drawn, dict[str, Any]]] = {
    "D=1": (replace(BASE, d=1), {}),
    "D=2": (BASE, {}),
    "D=16": (replace(BASE, d=16), {}),
    "D=64": (replace(BASE, d=64), {}),
    "p=1": (replace(BASE, p=1, d=3), {}),
    "p=1, D=64": (replace(BASE, p=1, d=64), {}),
    "weighted": (replace(BASE, weighted=True, dead=True, d=3), {}),
    "not debiased": (replace(BASE, debias=False, d=3), {}),
    "not debiased, p=1": (replace(BASE, debias=False, p=1, weighted=True), {}),
    "far apart": (replace(BASE, shift=20.0, d=3), {}),
    "large blur": (replace(BASE, blur=1.0, d=8), {}),
    "scaling .95": (replace(BASE, scaling=0.95), {}),
    "batch": (replace(BASE, batch=3, n=40, m=30, d=5), {}),
    # 1/N in fp32 is off by up to 6e-8, and the first temperature, diameter^2, carries that into the constant
    # of the potentials; at these sizes GeomLoss's rounding of log(1/N) happens to make up for it.
    "1/N rounded": (replace(BASE, n=50, m=60, d=5), {}),
    "diameter under blur": (BASE, {"diameter": 0.01}),
}


def root_mean_squares(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: (sum(row[name] ** 2 for row in rows) / len(rows)) ** 0.5 for name in rows[0]}


@pytest.mark.parametrize("potentials", [False, True], ids=["value", "potentials"])
@pytest.mark.parametrize("case", CASES)
def test_error_of_fp32(case: str, potentials: bool) -> None:
    problem, more = CASES[case]
    options = problem.options | more | {"potentials": potentials}
    measure = reference.measure_potentials if potentials else reference.measure
    first = random.randrange(2**30)
    ours, theirs = [], []
    for seed in range(first, first + PROBLEMS):
        drawn = replace(problem, seed=seed)
        exact = measure(reference.loss(**options), *drawn.points(), drawn.weights())
        single, weights = drawn.points(torch.float32), drawn.weights(torch.float32)
        ours.append(reference.errors(measure(SamplesLoss("sinkhorn", **options), *single, weights), exact))
        theirs.append(reference.errors(measure(reference.loss(**options), *single, weights), exact))
    found, own = root_mean_squares(ours), root_mean_squares(theirs)
    for name, error in found.items():
        assert error <= max(2 * own[name], FLOOR), (
            f"{name}: {error:.2e}, GeomLoss {own[name]:.2e}; first seed {first}"
        )
