"""Ragged batches: every item as its own single solve, forward, backward and in every result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor

import otcore
from otcore import ragged
from tests.problems import cloud, weights

SIZES = [(9, 7), (1, 5), (40, 33), (70, 3)]
TIGHT = {"blur": 0.3, "tol": 1e-12, "max_iter": 5000}


def clouds(dtype: torch.dtype = torch.float64) -> tuple[list[Tensor], list[Tensor]]:
    x = [cloud(n, 3, 10 + i).to(dtype) for i, (n, _) in enumerate(SIZES)]
    y = [cloud(m, 3, 20 + i).to(dtype) for i, (_, m) in enumerate(SIZES)]
    return x, y


def measures(mass: float = 1.0) -> tuple[list[Tensor], list[Tensor]]:
    a = [weights(n, 30 + i) for i, (n, _) in enumerate(SIZES)]
    b = [weights(m, 40 + i, mass=mass) for i, (_, m) in enumerate(SIZES)]
    return a, b


def leaves(items: Sequence[Tensor]) -> list[Tensor]:
    return [t.detach().clone().requires_grad_() for t in items]


OPTIONS: dict[str, dict[str, Any]] = {
    "p=2": {},
    "p=1": {"p": 1},
    "unbalanced": {"reach": 0.5},
    "semi": {"reach": (0.5, None)},
    "cosine": {"cost": "cosine"},
    "not debiased": {"debias": False},
    "function": {"cost": lambda x, y: torch.cdist(x, y).square()},
}


@pytest.mark.parametrize("weighted", [False, True], ids=["uniform", "weighted"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_items_are_single_solves(options: dict[str, Any], weighted: bool, backend: str) -> None:
    x, y = (leaves(t) for t in clouds())
    a, b = (leaves(t) for t in measures(1.3 if "reach" in options else 1.0)) if weighted else (None, None)
    call = {**TIGHT, **options, "backend": "dense" if callable(options.get("cost")) else backend}
    values = otcore.sinkhorn_divergence(x, y, a, b, **call)
    assert values.shape == (len(SIZES),)
    u = torch.linspace(0.5, 2.0, len(SIZES), dtype=torch.float64)
    inputs = [*x, *y, *(a or []), *(b or [])]
    gradients = torch.autograd.grad((u * values).sum(), inputs)
    for i in range(len(SIZES)):
        own = [t[i].detach().requires_grad_() for t in (x, y, a, b) if t is not None]
        value = otcore.sinkhorn_divergence(*own, **call)
        torch.testing.assert_close(values[i], value, rtol=1e-10, atol=1e-12)
        wanted = torch.autograd.grad(u[i] * value, own)
        for got, want in zip(gradients[i :: len(SIZES)], wanted, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-10)


def test_each_item_stops_by_its_own_error() -> None:
    x, y = clouds()
    whole = otcore.sinkhorn_divergence(x, y, blur=0.02, return_solution=True)
    assert not whole.status.any()
    for i in range(len(SIZES)):
        one = otcore.sinkhorn_divergence(x[i], y[i], blur=0.02, return_solution=True)
        assert int(whole.n_iter[i]) == one.n_iter
        assert float(whole.marginal_error[i]) == one.marginal_error


def test_one_item_that_fails_is_reported_alone() -> None:
    x, y = (
        [cloud(1, 2, 0), cloud(60, 2, 1), cloud(1, 2, 2)],
        [cloud(1, 2, 3), cloud(50, 2, 4), cloud(1, 2, 5)],
    )
    with pytest.warns(otcore.ConvergenceWarning, match=r"1 of 3 problems"):
        s = otcore.sinkhorn_divergence(x, y, blur=0.01, max_iter=2, return_solution=True)
    assert s.converged.tolist() == [True, False, True]


def test_solutions_are_lists() -> None:
    x, y = clouds()
    a, b = measures()
    s = otcore.sinkhorn_divergence(x, y, a, b, return_solution=True, **TIGHT)
    v = [cloud(m, 2, 50 + i) for i, (_, m) in enumerate(SIZES)]
    points = [cloud(4 + i, 3, 60 + i) for i in range(len(SIZES))]
    found = {
        "f": s.f,
        "g": s.g,
        "f_xx": s.f_xx,
        "apply": s.apply(v),
        "back": s.apply_transpose([t[:, 0] for t in x]),
        "plan": s.plan(),
        "transport": s.transport(),
        "map": s.transport(points),
        "potential": s.potential(points),
        "rows": s.marginals()[0],
    }
    for i in range(len(SIZES)):
        one = otcore.sinkhorn_divergence(x[i], y[i], a[i], b[i], return_solution=True, **TIGHT)
        wanted = {
            "f": one.f,
            "g": one.g,
            "f_xx": one.f_xx,
            "apply": one.apply(v[i]),
            "back": one.apply_transpose(x[i][:, 0]),
            "plan": one.plan(),
            "transport": one.transport(),
            "map": one.transport(points[i]),
            "potential": one.potential(points[i]),
            "rows": one.marginals()[0],
        }
        for name, want in wanted.items():
            torch.testing.assert_close(found[name][i], want, rtol=1e-8, atol=1e-10, msg=name)


def test_warm_start() -> None:
    x, y = clouds()
    cold = otcore.sinkhorn_divergence(x, y, return_solution=True)
    warm = otcore.sinkhorn_divergence([t + 1e-4 for t in x], y, init=cold, return_solution=True)
    assert (warm.n_iter <= 3).all()


def test_nested_tensors() -> None:
    x, y = clouds()
    nested = [torch.nested.as_nested_tensor(t, layout=torch.jagged) for t in (x, y)]
    nested[0].requires_grad_()
    s = otcore.sinkhorn_divergence(*nested, return_solution=True, **TIGHT)
    wanted = otcore.sinkhorn_divergence(x, y, **TIGHT)
    torch.testing.assert_close(s.value, wanted)
    assert s.f.is_nested
    s.value.sum().backward()
    own = leaves(x)
    otcore.sinkhorn_divergence(own, y, **TIGHT).sum().backward()
    for got, want in zip(nested[0].grad.unbind(), own, strict=True):
        torch.testing.assert_close(got, want.grad)


def test_numpy_lists() -> None:
    x, y = ([t.numpy() for t in part] for part in clouds())
    values = otcore.sinkhorn_divergence(x, y)
    assert isinstance(values, numpy.ndarray)
    assert values.shape == (len(SIZES),)
    assert isinstance(otcore.sinkhorn(x, y).f[1], numpy.ndarray)


SAMPLES_LOSSES: dict[str, dict[str, Any]] = {
    "sinkhorn": {},
    "p=1": {"p": 1},
    "unbalanced": {"reach": 0.5},
    "function": {"cost": lambda x, y: torch.cdist(x, y).square()},
    "cosine": {"cost": "cosine"},
    "energy": {"loss": "energy"},
    "hausdorff": {"loss": "hausdorff"},
}


@pytest.mark.parametrize("options", SAMPLES_LOSSES.values(), ids=SAMPLES_LOSSES)
def test_samples_loss(options: dict[str, Any]) -> None:
    """The items share their first temperature, as GeomLoss's batches do."""
    x, y = (leaves(t) for t in clouds())
    a, b = measures()
    diameter = None if options.get("cost") == "cosine" else 2.0
    values = otcore.SamplesLoss(blur=0.2, diameter=diameter, **options)(a, x, b, y)
    gradients = torch.autograd.grad(values.sum(), x)
    f, g = otcore.SamplesLoss(blur=0.2, diameter=diameter, potentials=True, **options)(a, x, b, y)
    if diameter is None:
        assert values.shape == (len(SIZES),)
        return
    for i in range(len(SIZES)):
        own = x[i].detach().requires_grad_()
        value = otcore.SamplesLoss(blur=0.2, diameter=diameter, **options)(a[i], own, b[i], y[i])
        torch.testing.assert_close(values[i], value, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(gradients[i], torch.autograd.grad(value, own)[0], rtol=1e-7, atol=1e-10)
        pair = otcore.SamplesLoss(blur=0.2, diameter=diameter, potentials=True, **options)(
            a[i], own, b[i], y[i]
        )
        torch.testing.assert_close((f[i], g[i]), pair, rtol=1e-9, atol=1e-11)


def test_samples_loss_takes_the_diameter_over_the_batch() -> None:
    x, y = clouds()
    both = [torch.cat([*x, *y])]
    diameter = float((both[0].amax(0) - both[0].amin(0)).norm())
    whole = otcore.SamplesLoss(blur=0.1)(x, y)
    torch.testing.assert_close(
        whole, otcore.SamplesLoss(blur=0.1, diameter=diameter)(x, y), rtol=1e-9, atol=0
    )


def test_second_derivatives() -> None:
    x, y = (leaves(t) for t in clouds())
    call = {"blur": 0.4, "tol": 1e-13, "max_iter": 5000}
    gradients = torch.autograd.grad(
        otcore.sinkhorn_divergence(x[:2], y[:2], **call).sum(), x[:2], create_graph=True
    )
    second = torch.autograd.grad(sum(g.square().sum() for g in gradients), x[:2])
    for i in range(2):
        own = x[i].detach().requires_grad_()
        (g,) = torch.autograd.grad(otcore.sinkhorn_divergence(own, y[i], **call), own, create_graph=True)
        (want,) = torch.autograd.grad(g.square().sum(), own)
        torch.testing.assert_close(second[i], want, rtol=1e-6, atol=1e-9)


def test_forward_mode_and_vmap() -> None:
    x, y = clouds()
    tangent = [cloud(len(t), 3, 70) for t in x]
    _, along = torch.func.jvp(
        lambda *x: otcore.sinkhorn_divergence(list(x), y, **TIGHT), tuple(x), tuple(tangent)
    )
    own = leaves(x)
    gradients = torch.autograd.grad(otcore.sinkhorn_divergence(own, y, **TIGHT).sum(), own)
    for i, (t, g) in enumerate(zip(tangent, gradients, strict=True)):
        torch.testing.assert_close(along[i], (t * g).sum(), rtol=1e-7, atol=1e-10)
    stacked = [torch.stack([t, t + 0.1]) for t in x]
    both = torch.vmap(lambda *x: otcore.sinkhorn_divergence(list(x), y, **TIGHT))(*stacked)
    for k, shift in enumerate((0.0, 0.1)):
        want = otcore.sinkhorn_divergence([t + shift for t in x], y, **TIGHT)
        torch.testing.assert_close(both[k], want, rtol=1e-9, atol=1e-12)


def test_compiled() -> None:
    x, y = clouds(torch.float32)
    own = leaves(x)
    compiled = torch.compile(otcore.sinkhorn_divergence, fullgraph=True)
    compiled(own, y).sum().backward()
    other = leaves(x)
    otcore.sinkhorn_divergence(other, y).sum().backward()
    for got, want in zip(own, other, strict=True):
        torch.testing.assert_close(got.grad, want.grad)


def test_split_is_undone_by_join() -> None:
    t = torch.arange(24.0).view(2, 6, 2)
    parts = ragged.split(t, (1, 3, 2))
    assert [tuple(p.shape) for p in parts] == [(1, 1, 2), (1, 3, 2), (1, 2, 2)] * 2
    assert torch.equal(ragged.join(parts, (1, 3, 2)), t)


X, Y = clouds()
BAD: dict[str, tuple[tuple[Any, ...], str]] = {
    "another count": ((X, Y[:2]), r"y has 2 items and x has 4"),
    "one cloud": ((X, Y[0]), r"y is a Tensor and the batch is ragged"),
    "empty": (([], []), r"x is an empty list"),
    "an empty item": (([X[0], X[1][:0]], Y[:2]), r"item 1 .*x has shape \(0, 3\)"),
    "dimension": (([X[0], X[1][:, :2]], Y[:2]), r"item 1 .*x has 2 coordinates"),
    "dtype": (([X[0], X[1].float()], [Y[0], Y[1].float()]), r"x\[1\] is .*float32.*x\[0\] is .*float64"),
    "batched item": (([X[0][None]], [Y[0][None]]), r"item 0 .*use \(N, D\)"),
    "weights": ((X, Y, [torch.ones(3)] * 4), r"item 0 .*a has shape \(3,\)"),
    "weights missing": ((X, Y, [torch.ones(9)]), r"a has 1 items and x has 4"),
}


@pytest.mark.parametrize(("args", "message"), BAD.values(), ids=BAD)
def test_bad_input(args: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        otcore.sinkhorn_divergence(*args)


def test_values_are_named_by_item() -> None:
    x, y = clouds()
    x[2][5, 1] = float("nan")
    with pytest.raises(ValueError, match=r"x has nan at \[5, 1\] of item 2"):
        otcore.sinkhorn_divergence(x, y)
    x, y = clouds()
    a, b = measures()
    a[3][4] = -1.0
    with pytest.raises(ValueError, match=r"a has -1.0 at \[4\] of item 3"):
        otcore.sinkhorn_divergence(x, y, a, b)
    a, b = measures()
    b[1] = 2 * b[1]
    with pytest.raises(ValueError, match=r"mass 1 and b has mass 2 in item 1"):
        otcore.sinkhorn_divergence(x, y, a, b)
