"""SamplesLoss by GeomLoss's conventions, from their definition; SinkhornDivergence by its function."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import otcore
from otcore.schedule import geomloss_temperatures
from tests.problems import cloud, weights
from tests.tolerance import assert_as_accurate, assert_solved

X, Y = cloud(14, 3, 0), cloud(11, 3, 1)
A, B = weights(14, 2), weights(11, 3)
CASES = [(p, reach, debias) for p in (1, 2) for reach in (None, 0.6) for debias in (True, False)]


def reference(
    x: Tensor,
    y: Tensor,
    a: Tensor,
    b: Tensor,
    *,
    p: int,
    blur: float,
    reach: float | None,
    scaling: float,
    debias: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The published algorithm by log-sum-exp: value and the two debiased potentials."""
    both = torch.cat([x, y])
    diameter = float((both.amax(0) - both.amin(0)).norm())
    rho = math.inf if reach is None else reach**p

    def costs(x: Tensor, y: Tensor) -> Tensor:
        d2 = (x.unsqueeze(1) - y.detach().unsqueeze(0)).square().sum(-1)
        return d2 / 2 if p == 2 else d2.clamp_min(1e-8).sqrt()

    def half_step(c: Tensor, g: Tensor, w: Tensor, eps: float) -> Tensor:
        return -eps / (1 + eps / rho) * torch.logsumexp(w.log() + g / eps - c / eps, 1)

    def run(x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        c_xy, c_yx = costs(x, y), costs(y, x)
        eps_list = geomloss_temperatures(diameter, blur, scaling, p)
        with torch.no_grad():
            g = half_step(c_yx, torch.zeros_like(a), a, eps_list[0])
            f = half_step(c_xy, torch.zeros_like(b), b, eps_list[0])
            for eps in eps_list:
                f, g = (f + half_step(c_xy, g, b, eps)) / 2, (g + half_step(c_yx, f, a, eps)) / 2
        return half_step(c_xy, g, b, eps_list[-1]), half_step(c_yx, f, a, eps_list[-1])

    f, g = run(x, y, a, b)
    f_xx, g_yy = (
        (run(x, x, a, a)[0], run(y, y, b, b)[0]) if debias else (torch.zeros_like(f), torch.zeros_like(g))
    )
    if reach is None:
        return a @ (f - f_xx) + b @ (g - g_yy), f - f_xx, g - g_yy
    gain = a @ (torch.exp(-f_xx / rho) - torch.exp(-f / rho)) + b @ (
        torch.exp(-g_yy / rho) - torch.exp(-g / rho)
    )
    return (rho + blur**p / 2) * gain, f - f_xx, g - g_yy


@pytest.mark.parametrize(("p", "reach", "debias"), CASES)
def test_samples_loss(p: int, reach: float | None, debias: bool, backend: str) -> None:
    options = {"p": p, "blur": 0.1, "reach": reach, "scaling": 0.6, "debias": debias}
    loss = otcore.SamplesLoss(backend=backend, **options)
    clouds = [X.clone().requires_grad_(), Y.clone().requires_grad_()]
    value, f, g = reference(*clouds, A, B, **options)
    got = loss(A, clouds[0], B, clouds[1])
    assert_solved(got, value)
    # The reference differentiates its value, whose factor is rho + eps / 2; the true gradient has rho + eps.
    eps, rho = 0.1**p, math.inf if reach is None else reach**p
    factor = 1.0 if reach is None else (rho + eps) / (rho + eps / 2)
    pairs = zip(torch.autograd.grad(got, clouds), torch.autograd.grad(value, clouds), strict=True)
    for mine, theirs in pairs:
        assert_solved(mine, factor * theirs)
    pair = otcore.SamplesLoss(backend=backend, potentials=True, **options)(A, X, B, Y)
    for mine, theirs in zip(pair, (f, g), strict=True):
        assert_solved(mine, theirs)


@pytest.mark.parametrize("p", [1, 2])
def test_samples_loss_float32(p: int, backend: str) -> None:
    options = {"p": p, "blur": 0.1, "reach": None, "scaling": 0.5, "debias": True}
    exact = reference(X, Y, A, B, **options)[0]
    clouds = X.float(), Y.float(), A.float(), B.float()
    got = otcore.SamplesLoss(p=p, blur=0.1, backend=backend)(clouds[2], clouds[0], clouds[3], clouds[1])
    rounded = reference(*(t.double() for t in clouds), **options)[0]
    assert_as_accurate(got, reference(*clouds, **options)[0], rounded)
    assert_solved(got, exact, torch.float32)


def test_unbalanced_gradient_is_the_true_one(backend: str) -> None:
    """At convergence, the gradient is that of the divergence, where GeomLoss's is a few percent off."""
    options = {"blur": 0.3, "reach": 0.5, "backend": backend}
    inputs = [X.clone().requires_grad_(), A.clone().requires_grad_()]
    slow = otcore.SamplesLoss(scaling=0.999, diameter=1.0, **options)(inputs[1], inputs[0], B, Y)
    converged = otcore.sinkhorn_divergence(inputs[0], Y, inputs[1], B, tol=1e-12, **options)
    assert_solved(slow, converged, torch.float32)
    pairs = zip(torch.autograd.grad(slow, inputs), torch.autograd.grad(converged, inputs), strict=True)
    for got, want in pairs:
        assert_solved(got, want, torch.float32)


def test_batch_shares_its_diameter(backend: str) -> None:
    loss = otcore.SamplesLoss(blur=0.05, backend=backend)
    x, y = torch.stack([X, 3 * X]), torch.stack([Y, 3 * Y])
    diameter = float(
        torch.cat([x, y], 1)
        .flatten(0, 1)
        .aminmax(dim=0)
        .max.sub(torch.cat([x, y], 1).flatten(0, 1).amin(0))
        .norm()
    )
    alone = otcore.SamplesLoss(blur=0.05, diameter=diameter, backend=backend)
    assert_solved(loss(x, y), torch.stack([alone(X, Y), alone(3 * X, 3 * Y)]))


def test_diameter_below_blur(backend: str) -> None:
    """The published e2e-SAE call: the schedule collapses to [diameter^p, blur^p]."""
    assert geomloss_temperatures(0.01, 0.05, 0.95, 2) == [0.01**2, 0.05**2]
    loss = otcore.SamplesLoss(blur=0.05, scaling=0.95, diameter=0.01, backend=backend)
    assert bool(loss(X, Y).isfinite())


def test_call_conventions() -> None:
    loss = otcore.SamplesLoss(potentials=True)
    value = otcore.SamplesLoss()
    labels = torch.zeros(14, dtype=torch.long)
    assert torch.equal(value(labels, A, X, labels[:11], B, Y), value(A, X, B, Y))
    assert torch.equal(value(A[:, None], X, B[:, None], Y), value(A, X, B, Y))
    assert torch.equal(value(A[None, :, None], X[None], B[None, :, None], Y[None]), value(A, X, B, Y)[None])
    assert [t.shape for t in loss(X, Y)] == [(14,), (11,)]
    assert [t.shape for t in loss(A[:, None], X, B[:, None], Y)] == [(14, 1), (11, 1)]
    assert [t.shape for t in loss(X[None], Y[None])] == [(1, 14), (1, 11)]
    with pytest.raises(ValueError, match=r"3 arguments; use \(x, y\), \(a, x, b, y\)"):
        value(A, X, Y)


@pytest.mark.parametrize("name", ["tensorized", "online", "multiscale"])
def test_geomloss_backend_names(name: str) -> None:
    assert torch.equal(otcore.SamplesLoss(backend=name)(X, Y), otcore.SamplesLoss()(X, Y))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"loss": "mmd"}, "loss is 'mmd'; use \"sinkhorn\""),
        ({"kernel": abs}, "kernel is .*; use None"),
        ({"cost": "euclid"}, "cost is 'euclid'; use None, one of 'sqeuclidean', 'cosine'"),
    ],
)
def test_bad_constructor(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        otcore.SamplesLoss(**arguments)


def test_forward_leaves_gradient_mode_alone() -> None:
    with torch.no_grad():
        otcore.SamplesLoss()(X, Y)
        assert not torch.is_grad_enabled()


@pytest.mark.parametrize("reach", [None, 0.5])
def test_callable_cost_follows_the_same_schedule(reach: float | None) -> None:
    def square(x: Tensor, y: Tensor) -> Tensor:
        return (x.unsqueeze(2) - y.unsqueeze(1)).square().sum(-1) / 2

    clouds = [X.clone().requires_grad_(), Y.clone().requires_grad_()]
    named, written = (otcore.SamplesLoss(reach=reach, cost=cost)(*clouds) for cost in (None, square))
    assert_solved(written, named)
    pairs = zip(torch.autograd.grad(written, clouds), torch.autograd.grad(named, clouds), strict=True)
    for got, want in pairs:
        assert_solved(got, want)


def test_sinkhorn_divergence_module() -> None:
    module = otcore.SinkhornDivergence(p=1, blur=0.2, reach=0.7, tol=1e-3)
    options = {"p": 1, "blur": 0.2, "reach": 0.7, "tol": 1e-3}
    assert torch.equal(module(X, Y, A, B), otcore.sinkhorn_divergence(X, Y, A, B, **options))
    assert "blur=0.2" in repr(module)
    assert "blur=0.05" in repr(otcore.SamplesLoss())
