"""KeOps against the oracle in float64.

Each formula, dimension and dtype is compiled when it is first met, for seconds: so D is 3 everywhere, cost 1
is tried in float64, cost 2 in float32, and one formula in both.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import otcore
from otcore import sinkhorn_divergence
from otcore.backends import choose, keops, load
from otcore.backends.dense import Dense, cost_matrix
from otcore.problem import make_problem
from tests.problems import cloud, weights
from tests.tolerance import assert_as_accurate, assert_solved, rounding

_LOADED = load("keops")
pytestmark = pytest.mark.skipif(isinstance(_LOADED, str), reason=f"backend 'keops': {_LOADED}")

X, Y = cloud(9, 3, 0, batch=2), cloud(7, 3, 1, batch=2)
A, B = weights(9, 2, batch=2), weights(7, 3, batch=2)
F, G = cloud(9, 1, 4, batch=2).squeeze(-1) / 5, cloud(7, 1, 5, batch=2).squeeze(-1) / 5
V = cloud(7, 4, 6, batch=2)
EPS = 0.2
FORMULA = "IntCst(1) - (X|Y)"
CASES = [(1, torch.float64), (2, torch.float32), (FORMULA, torch.float64), (FORMULA, torch.float32)]
TIGHT: dict[str, Any] = {"blur": 0.4, "tol": 1e-12, "max_iter": 5000}


def inner(x: Tensor, y: Tensor) -> Tensor:
    """The formula as a function, (B, N, M)."""
    return 1 - x @ y.mT


@pytest.fixture
def backend() -> keops.Keops:
    assert isinstance(_LOADED, keops.Keops)
    return _LOADED


def slope(x: Tensor, y: Tensor, f: Tensor, g: Tensor, a: Tensor, b: Tensor, cost: Any) -> Tensor:
    """sum_j pi_ij dC(x_i, y_j)/dx_i, by autograd."""
    x = x.clone().requires_grad_()
    plan = Dense().plan(x, y, f, g, a, b, cost=cost, eps=EPS).detach()
    return torch.autograd.grad((plan * cost_matrix(x, y, cost)).sum(), x)[0]


def dense_verbs(cost: Any, dtype: torch.dtype) -> dict[str, Tensor]:
    cost, dense = inner if cost == FORMULA else cost, Dense()
    x, y, f, g, a, b, v = (t.to(dtype) for t in (X, Y, F, G, A, B, V))
    log_r, log_c = dense.sweep(x, y, f, g, a, b, cost=cost, eps=EPS)
    gradient = slope(x, y, f, g, a, b, cost)
    return {
        "softmin": dense.softmin(x, y, g, b, cost=cost, eps=EPS),
        "log_r": log_r,
        "log_c": log_c,
        "apply": dense.apply(x, y, f, g, a, b, v, cost=cost, eps=EPS),
        "grad": gradient,
        "mean": gradient / (a * log_r.exp()).unsqueeze(-1),
    }


@pytest.mark.parametrize(("cost", "dtype"), CASES, ids=str)
def test_verbs(
    cost: int | str, dtype: torch.dtype, backend: keops.Keops, capfd: pytest.CaptureFixture[str]
) -> None:
    x, y, f, g, a, b, v = (t.to(dtype) for t in (X, Y, F, G, A, B, V))
    log_r, log_c = backend.sweep(x, y, f, g, a, b, cost=cost, eps=EPS)
    got = {
        "softmin": backend.softmin(x, y, g, b, cost=cost, eps=EPS),
        "log_r": log_r,
        "log_c": log_c,
        "apply": backend.apply(x, y, f, g, a, b, v, cost=cost, eps=EPS),
        "grad": backend.grad(x, y, f, g, a, b, cost=cost, eps=EPS),
        "mean": backend.grad(x, y, f, g, a, b, cost=cost, eps=EPS, normalise=True),
    }
    in_torch = dense_verbs(cost, dtype)
    for name, reference in dense_verbs(cost, torch.float64).items():
        assert got[name].dtype == dtype
        assert_as_accurate(got[name], in_torch[name], reference)
    assert capfd.readouterr() == ("", "")


def test_one_temperature_an_item(backend: keops.Keops) -> None:
    eps = torch.tensor([0.2, 0.7], dtype=torch.float64)
    got, want = (
        (
            verbs.softmin(X, Y, G, B, cost=cost, eps=eps),
            *verbs.sweep(X, Y, F, G, A, B, cost=cost, eps=eps),
            verbs.sweep(X, X, F, F, A, A, cost=cost, eps=eps, same=True)[1],
        )
        for verbs, cost in ((backend, FORMULA), (Dense(), inner))
    )
    for result, reference in zip(got, want, strict=True):
        torch.testing.assert_close(result, reference, rtol=0, atol=rounding(torch.float64))


def test_zero_weights_and_potentials_out_of_range(backend: keops.Keops) -> None:
    a, b = A.clone(), B.clone()
    a[:, 3] = b[:, 2] = 0.0
    mean = backend.grad(X, Y, F, G, a, b, cost=FORMULA, eps=EPS, normalise=True)
    want = slope(X, Y, F, G, A, b, inner)
    r = Dense().sweep(X, Y, F, G, A, b, cost=inner, eps=EPS)[0].exp()
    torch.testing.assert_close(mean, want / (A * r).unsqueeze(-1), rtol=0, atol=rounding(torch.float64))
    for dtype in (torch.float32, torch.float64):
        inputs = [t.to(dtype) for t in (X, Y, 100 * F, -100 * G, a, b)]
        exact = Dense().sweep(*(t.double() for t in inputs), cost=inner, eps=1e-2)
        in_torch = Dense().sweep(*inputs, cost=inner, eps=1e-2)
        got = backend.sweep(*inputs, cost=FORMULA, eps=1e-2)
        for result, dense, reference in zip(got, in_torch, exact, strict=True):
            assert bool(result.isfinite().all())
            assert_as_accurate(result, dense, reference)


@pytest.mark.parametrize("width", [3, 4])
def test_any_number_of_columns(width: int, backend: keops.Keops, monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns go in groups of a power of two, the last one filled up."""
    monkeypatch.setattr(keops, "_MOST_COLUMNS", 4)
    v = cloud(7, 4 + width, 8, batch=2)
    got = backend.apply(X, Y, F, G, A, B, v, cost=FORMULA, eps=EPS)
    want = Dense().apply(X, Y, F, G, A, B, v, cost=inner, eps=EPS)
    torch.testing.assert_close(got, want, rtol=rounding(torch.float64), atol=0)


def test_kink_and_floor(backend: keops.Keops) -> None:
    x = torch.tensor([[[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]], dtype=torch.float64)
    zeros = torch.zeros(1, 2, dtype=torch.float64)
    ones = torch.ones_like(zeros)
    pair = x, x[:, :1], zeros, zeros[:, :1], ones, ones[:, :1]
    for floor in (0.0, 1e-8):
        got = backend.grad(*pair, cost=1, eps=1.0, normalise=True, floor=floor)
        torch.testing.assert_close(got, x, rtol=0, atol=rounding(torch.float64))
        log_r, _ = backend.sweep(*pair, cost=1, eps=1.0, floor=floor)
        assert log_r[0, 0].item() == pytest.approx(-(floor**0.5), abs=rounding(torch.float64))


def test_many_points_far_from_the_origin_in_float32(backend: keops.Keops) -> None:
    """Sums are compensated, and costs made of differences."""
    x, y = (1000 + cloud(n, 3, n, batch=1).float() for n in (50, 20_000))
    g, b = torch.zeros(1, 20_000), torch.full((1, 20_000), 1 / 20_000)
    exact = Dense().softmin(x.double(), y.double(), g.double(), b.double(), cost=2, eps=0.05)
    in_torch = Dense().softmin(x, y, g, b, cost=2, eps=0.05)
    assert_as_accurate(backend.softmin(x, y, g, b, cost=2, eps=0.05), in_torch, exact)


@pytest.mark.parametrize("options", [{}, {"reach": 0.6}, {"reach": (0.6, None)}, {"debias": False}], ids=str)
def test_solve(options: dict[str, Any]) -> None:
    results = []
    for cost in (FORMULA, inner):
        inputs = [t.clone().requires_grad_() for t in (X, Y, A, B)]
        solution = sinkhorn_divergence(*inputs, cost=cost, return_solution=True, **options, **TIGHT)
        assert solution.backend == ("keops" if cost == FORMULA else "dense")
        gradients = torch.autograd.grad(solution.value.sum(), inputs)
        potentials = [t for t in (solution.f, solution.g, solution.f_xx, solution.g_yy) if t is not None]
        results.append([solution.value, *potentials, solution.transport(), *gradients])
    for got, want in zip(*results, strict=True):
        assert_solved(got, want)


def test_batch_equals_loop_and_vmap() -> None:
    together = sinkhorn_divergence(X, Y, A, B, cost=FORMULA, **TIGHT)
    alone = [sinkhorn_divergence(*item, cost=FORMULA, **TIGHT) for item in zip(X, Y, A, B, strict=True)]
    assert_solved(together, torch.stack(alone))
    mapped = torch.vmap(lambda *item: sinkhorn_divergence(*item, cost=FORMULA, **TIGHT))(X, Y, A, B)
    assert_solved(mapped, together)


def test_float32_solve_at_the_default_tol() -> None:
    got = sinkhorn_divergence(X.float(), Y.float(), cost=FORMULA, blur=0.3)
    want = sinkhorn_divergence(X, Y, cost=inner, blur=0.3, tol=1e-10)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), want, rtol=1e-2, atol=1e-3)


def test_named_costs_by_name() -> None:
    got = sinkhorn_divergence(X, Y, A, B, p=1, backend="keops", **TIGHT)
    assert_solved(got, sinkhorn_divergence(X, Y, A, B, p=1, **TIGHT))


def test_nothing_is_compiled_anew_for_other_numbers(backend: keops.Keops) -> None:
    backend.softmin(X, Y, G, B, cost=FORMULA, eps=0.3)
    folder = Path(keops._pykeops().get_build_folder())
    before = sorted(folder.iterdir())
    backend.softmin(X[:1, :4].contiguous(), Y[:1], G[:1], B[:1], cost=FORMULA, eps=0.7)
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize(
    ("cost", "reason"),
    [
        ("X-Y", "it has 3 values"),
        ("Norm(X-Y)", "KeOps has no Norm"),
        ("Norm2(X-Y", "never closed"),
        ("Norm2(X-Z) + (X|Y)", "KeOps has no Z"),
        ("Elem(X, 7) * Elem(Y, 7)", "Index out of bound"),
        ("0.5 * SqDist(X, Y)", "0.5 is not a whole number"),
        ("open('X-Y')", "KeOps has no open"),
        ("X.dim * Y.dim", "KeOps has no X.dim"),
        ("Var(7,3,0) | (X - Y)", "no operation on X and Y"),
        ("(X|Y) * Norm2(X)", "swapped"),
    ],
)
def test_unusable_formulas(cost: str, reason: str) -> None:
    with pytest.raises(ValueError, match="cost is") as raised:
        sinkhorn_divergence(X, Y, cost=cost)
    assert repr(cost) in str(raised.value)
    assert reason in str(raised.value)
    assert '"Norm2(X-Y)"' in str(raised.value)


def test_choice() -> None:
    x, y = X[0], Y[0]
    assert choose(make_problem(x, y, cost=FORMULA)).name == "keops"
    assert choose(make_problem(x, y)).name != "keops"
    assert choose(make_problem(x, y, backend="keops")).name == "keops"
    with pytest.raises(ValueError, match="'keops' refuses: the cost is a function"):
        choose(make_problem(x, y, cost=inner, backend="keops"))


def test_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keops.shutil, "which", lambda name: None)
    with pytest.raises(ImportError, match=r"install g\+\+ or set CXX"):
        keops.Keops()
    monkeypatch.setattr(keops.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'otcore\[keops\]'"):
        keops.Keops()


def test_pykeops_is_imported_for_formulas_only() -> None:
    script = """
import sys, torch
from otcore import sinkhorn_divergence
x, y = torch.rand(5, 2), torch.rand(6, 2)
sinkhorn_divergence(x, y)
sinkhorn_divergence(x, y, cost=lambda u, v: torch.cdist(u, v))
assert "pykeops" not in sys.modules
"""
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], check=True, cwd=Path(otcore.__file__).parents[1]
    )
