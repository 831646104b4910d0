"""docs/conventions.md: every row of its table that can be tried here, and its examples.

SamplesLoss's schedule is in test_geomloss.py, balanced POT against the value in test_pot.py.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from otcore import sinkhorn, sinkhorn_divergence

ot = pytest.importorskip("ot", reason="parity with POT needs POT (pip install pot)")
geomloss = pytest.importorskip(
    "geomloss", reason="parity with GeomLoss needs geomloss (pip install geomloss)"
)

PAGE = Path(__file__).parents[2] / "docs" / "conventions.md"
EPS, RHO = 0.16, 0.36
BLUR, REACH = EPS**0.5, RHO**0.5
TIGHT: dict[str, Any] = {"tol": 1e-12, "max_iter": 20_000}
POT_TIGHT: dict[str, Any] = {"max_iter": 100_000, "tol": 1e-15}
AGREED = 1e-9
# GeomLoss's solvers stop after a number of steps.
NEARLY = 1e-4


def clouds(mass_a: float = 1.0, mass_b: float = 1.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x (20, 3), y (25, 3) and weights of these masses."""
    draw = torch.Generator().manual_seed(0)
    x, y = (torch.rand(n, 3, generator=draw, dtype=torch.float64) for n in (20, 25))
    a, b = (torch.rand(n, generator=draw, dtype=torch.float64) + 0.2 for n in (20, 25))
    return x, y, mass_a * a / a.sum(), mass_b * b / b.sum()


def ours(*measures: Tensor, reach: Any = None, debias: bool = False, **options: Any) -> Any:
    return sinkhorn_divergence(
        *measures, blur=BLUR, reach=reach, debias=debias, return_solution=True, **options, **TIGHT
    )


def agree(found: Any, expected: Any, tolerance: float = AGREED) -> None:
    found, expected = torch.as_tensor(found), torch.as_tensor(expected)
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) <= tolerance * max(1.0, float(expected.abs().max()))


def agree_up_to_a_constant(found: Any, expected: Any, tolerance: float = AGREED) -> None:
    found, expected = torch.as_tensor(found).flatten(), torch.as_tensor(expected)
    agree(found - found.mean(), expected - expected.mean(), tolerance)


def linear(solution: Any, x: Tensor, y: Tensor) -> Tensor:
    """<C, pi> with C = |x - y|^2 / 2."""
    return (solution.plan() * torch.cdist(x, y).square()).sum() / 2


def entropy(*weights: Tensor) -> float:
    return sum(float((w * w.log()).sum()) for w in weights)


@pytest.mark.parametrize("reach", [None, REACH])
@pytest.mark.parametrize("debias", [False, True])
def test_otcore_sqeuclidean(reach: float | None, debias: bool) -> None:
    measures = clouds() if reach is None else clouds(1.3, 0.7)
    half = ours(*measures, reach=reach, debias=debias)
    full = sinkhorn_divergence(
        *measures,
        cost="sqeuclidean",
        eps=2 * EPS,
        reach=None if reach is None else math.sqrt(2 * RHO),
        debias=debias,
        return_solution=True,
        **TIGHT,
    )
    agree(full.value, 2 * half.value)
    agree(full.plan(), half.plan())
    compare = agree_up_to_a_constant if reach is None else agree
    compare(full.f, 2 * half.f)


@pytest.mark.parametrize(("masses", "reach"), [((1.0, 1.0), None), ((2.0, 2.0), None), ((1.3, 0.7), REACH)])
@pytest.mark.parametrize("debias", [False, True])
def test_geomloss_samples_loss(masses: tuple[float, float], reach: float | None, debias: bool) -> None:
    """Cooled so slowly that its schedule nearly converges."""
    x, y, a, b = clouds(*masses)
    options = {"p": 2, "blur": BLUR, "reach": reach, "scaling": 0.999, "debias": debias}
    solution = ours(x, y, a, b, reach=reach, debias=debias)
    excess = 0.0 if debias else EPS * (sum(masses) / 2 - math.prod(masses))
    with torch.no_grad():
        agree(geomloss.SamplesLoss("sinkhorn", **options)(a, x, b, y), solution.value + excess, NEARLY)
        f, g = geomloss.SamplesLoss("sinkhorn", potentials=True, **options)(a, x, b, y)
    compare = agree_up_to_a_constant if reach is None else agree
    compare(f.flatten(), solution.f - solution.f_xx if debias else solution.f, NEARLY)
    compare(g.flatten(), solution.g - solution.g_yy if debias else solution.g, NEARLY)


@pytest.mark.parametrize("reach", [None, REACH])
@pytest.mark.parametrize("debias", [False, True])
def test_geomloss_solve_sample(reach: float | None, debias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from geomloss import _backends
    from geomloss.ot import solve_sample

    monkeypatch.setattr(_backends, "keops_available", False)  # it would compile formulas
    x, y, a, b = clouds() if reach is None else clouds(1.3, 0.7)
    solution = ours(x, y, a, b, reach=reach, debias=debias)
    lengths = {"blur": BLUR, "reach": reach}
    strengths = {"reg": 2 * EPS, "unbalanced": None if reach is None else 2 * RHO}
    for options in (lengths, strengths):
        found = solve_sample(x, y, a, b, debias=debias, max_iter=2000, **options)
        agree(found.value, 2 * solution.value, NEARLY)
        compare = agree_up_to_a_constant if reach is None else agree
        compare(found.potential_a, 2 * solution.f, NEARLY)
        agree(found.plan, solution.plan(), NEARLY)
        if debias:
            agree(found.potential_aa, 2 * solution.f_xx, NEARLY)


def test_pot_solve_sample() -> None:
    x, y, a, b = clouds()
    solution = ours(x, y, a, b)
    arrays = [t.numpy() for t in (x, y, a, b)]
    found = ot.solve_sample(*arrays, reg=2 * EPS, **POT_TIGHT)
    agree(found.value, 2 * solution.value)
    agree(found.value_linear, 2 * linear(solution, x, y))
    agree(found.plan, solution.plan())
    agree_up_to_a_constant(found.potentials[0], solution.f / EPS + a.log())
    agree_up_to_a_constant(found.potentials[1], solution.g / EPS + b.log())
    divergence = ot.solve_sample(*arrays, reg=2 * EPS, debias=True, **POT_TIGHT).value
    agree(divergence, 2 * ours(x, y, a, b, debias=True).value)
    found = ot.solve_sample(*arrays, reg=2 * EPS, reg_type="entropy", **POT_TIGHT)
    agree(found.value, 2 * solution.value + 2 * EPS * entropy(a, b))
    agree(found.plan, solution.plan())


def test_pot_sinkhorn() -> None:
    x, y, a, b = clouds()
    solution = ours(x, y, a, b)
    options = {"numItermax": 100_000, "stopThr": 1e-15}
    costs = ot.dist(x.numpy(), y.numpy())
    arguments = a.numpy(), b.numpy(), costs, 2 * EPS
    plan, log = ot.sinkhorn(*arguments, method="sinkhorn_log", log=True, **options)
    agree(plan, solution.plan())
    agree_up_to_a_constant(log["log_u"], solution.f / EPS + a.log())
    agree(ot.sinkhorn2(*arguments, method="sinkhorn_log", **options), 2 * linear(solution, x, y))
    divergence = ot.bregman.empirical_sinkhorn_divergence(
        x.numpy(), y.numpy(), 2 * EPS, a.numpy(), b.numpy(), numIterMax=100_000, stopThr=1e-14
    )
    parts = [linear(ours(*pair), *pair[:2]) for pair in ((x, y, a, b), (x, x, a, a), (y, y, b, b))]
    agree(divergence, 2 * parts[0] - parts[1] - parts[2])
    assert abs(divergence - 2 * float(ours(x, y, a, b, debias=True).value)) > 1e-2


@pytest.mark.parametrize("reach", [REACH, (REACH, None), (None, REACH)])
def test_pot_unbalanced(reach: Any) -> None:
    x, y, a, b = clouds(1.3, 0.7)
    solution = ours(x, y, a, b, reach=reach)
    pair = reach if isinstance(reach, tuple) else (reach, reach)
    strengths = tuple(math.inf if r is None else 2 * RHO for r in pair)
    options = {"numItermax": 100_000, "stopThr": 1e-15}
    arguments = a.numpy(), b.numpy(), ot.dist(x.numpy(), y.numpy()), 2 * EPS, strengths
    plan, log = ot.unbalanced.sinkhorn_unbalanced(*arguments, log=True, **options)
    agree(plan, solution.plan())
    agree(log["logu"], solution.f / EPS)
    agree(log["logv"], solution.g / EPS)
    agree(ot.unbalanced.sinkhorn_unbalanced2(*arguments, **options), 2 * linear(solution, x, y))
    mass = float(plan.sum())
    lost = sum(2 * RHO * (m - mass) for m, r in zip((1.3, 0.7), pair, strict=True) if r is not None)
    found = ot.solve_sample(
        *(t.numpy() for t in (x, y, a, b)), reg=2 * EPS, unbalanced=strengths, **POT_TIGHT
    )
    agree(found.plan, solution.plan())
    agree(found.value, 2 * solution.value - 2 * EPS * (1.3 * 0.7 - mass) - lost)


@pytest.mark.filterwarnings("ignore:If reg_type = entropy")
def test_pot_unbalanced_entropy_is_another_problem() -> None:
    x, y, a, b = clouds(1.3, 0.7)
    plan = ot.unbalanced.sinkhorn_unbalanced(
        a.numpy(), b.numpy(), ot.dist(x.numpy(), y.numpy()), 2 * EPS, 2 * RHO, reg_type="entropy"
    )
    assert np.abs(plan - ours(x, y, a, b, reach=REACH).plan().numpy()).max() > 1e-2


def examples(library: str) -> dict[str, Any]:
    """The names that the examples below "Coming from <library>" define, once run."""
    section = PAGE.read_text(encoding="utf-8").split(f"## Coming from {library}\n")[1].split("\n## ")[0]
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", section, re.DOTALL):
        exec(block, names)
    return names


def test_examples_for_geomloss(monkeypatch: pytest.MonkeyPatch) -> None:
    from geomloss import _backends
    from geomloss.ot import solve_sample

    monkeypatch.setattr(_backends, "keops_available", False)
    there = examples("GeomLoss")
    with torch.no_grad():
        loss = geomloss.SamplesLoss("sinkhorn", p=2, blur=0.1, scaling=0.8)(there["x"], there["y"])
    agree(there["loss"], loss, 1e-6)
    divergence = solve_sample(there["x"].double(), there["y"].double(), reg=0.02, debias=True, max_iter=500)
    assert float(there["value"]) == pytest.approx(float(divergence.value), rel=1e-2)


def test_examples_for_pot() -> None:
    there = examples("POT")
    x, y, a, b = (there[name].numpy() for name in "xyab")
    found = ot.solve_sample(x, y, a, b, reg=0.02, max_iter=10_000, tol=1e-10)
    agree(sinkhorn(x, y, a, b, cost="sqeuclidean", eps=0.02, tol=1e-6).value, found.value, 1e-6)
    agree(
        there["linear"], ot.sinkhorn2(a, b, ot.dist(x, y), 0.02, method="sinkhorn_log", stopThr=1e-10), 1e-5
    )
    agree_up_to_a_constant(there["log_u"], found.potentials[0], 1e-4)
    agree_up_to_a_constant(there["log_v"], found.potentials[1], 1e-4)
    plan = ot.unbalanced.sinkhorn_unbalanced(
        a, b, ot.dist(x, y), reg=0.02, reg_m=0.5, stopThr=1e-12, numItermax=10_000
    )
    agree(there["plan"], plan, 1e-6)


@pytest.mark.parametrize("library", ["OTT-JAX", "flash-sinkhorn"])
def test_examples_run(library: str) -> None:
    assert bool(torch.isfinite(examples(library)["value"]))
