"""sinkhorn and sinkhorn_divergence against GeomLoss's newer `geomloss.ot.solve_sample`, at convergence.

Its cost is |x - y|^2 without the half: reg = 2 blur^2 = 2 eps, unbalanced = 2 reach^2 = 2 rho, and values and
potentials are halved. It makes max_iter steps of a geometric annealing to reg, so its value tends to the
optimum as max_iter grows.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from otcore import sinkhorn, sinkhorn_divergence
from tests.parity.drawn import fresh
from tests.problems import cloud, weights

geomloss_ot = pytest.importorskip("geomloss.ot", reason="parity with GeomLoss needs geomloss")

# Numbers of steps. The error falls about as fast as 1 / steps, so the last result is nearer to the optimum
# than to the farther of the others; of two, as the error may change its sign on the way.
FEW, MANY, MOST = 10, 30, 100


@settings(fresh, max_examples=5)
@given(
    seed=st.integers(0, 2**31 - 1),
    n=st.integers(2, 30),
    m=st.integers(2, 30),
    d=st.sampled_from([1, 2, 5]),
    blur=st.sampled_from([0.3, 1.0]),
    reach=st.sampled_from([None, 0.5, 2.0]),
)
def test_values(seed: int, n: int, m: int, d: int, blur: float, reach: float | None) -> None:
    x, y, a, b = cloud(n, d, seed), cloud(m, d, seed + 1) + 0.3, weights(n, seed + 2), weights(m, seed + 3)
    options: dict[str, Any] = {"blur": blur, "reach": reach}
    for debias in (True, False):
        *before, after = (
            0.5
            * float(geomloss_ot.solve_sample(x, y, a=a, b=b, debias=debias, max_iter=steps, **options).value)
            for steps in (FEW, MANY, MOST)
        )
        value = float(sinkhorn_divergence(x, y, a, b, debias=debias, tol=1e-10, max_iter=5000, **options))
        # They agree to rounding where GeomLoss has converged in few steps.
        assert abs(value - after) <= max(abs(after - t) for t in before) + 1e-7, (debias, options)
        assert value == pytest.approx(after, rel=1e-2, abs=1e-3 * blur**2)


@pytest.mark.parametrize("reach", [None, 0.7])
def test_plan_and_potentials(reach: float | None) -> None:
    x, y, a, b = cloud(25, 2, 0), cloud(20, 2, 1) + 0.2, weights(25, 2), weights(20, 3)

    def reference(steps: int) -> list[Tensor]:
        solution = geomloss_ot.solve_sample(x, y, a=a, b=b, blur=0.4, reach=reach, max_iter=steps)
        potentials = (0.5 * torch.as_tensor(t) for t in (solution.potential_a, solution.potential_b))
        return _without_constant(*potentials, torch.as_tensor(solution.plan), reach)

    def _without_constant(f: Tensor, g: Tensor, plan: Tensor, reach: float | None) -> list[Tensor]:
        return [f - f.mean(), g - g.mean(), plan] if reach is None else [f, g, plan]

    solution = sinkhorn(x, y, a, b, blur=0.4, reach=reach, tol=1e-10)
    mine = _without_constant(solution.f, solution.g, solution.plan(), reach)
    for got, before, after in zip(mine, reference(FEW), reference(MOST), strict=True):
        gap = float((after - before).abs().max())
        assert gap <= 0.02 * float(after.abs().max())
        assert float((got - after).abs().max()) <= gap
