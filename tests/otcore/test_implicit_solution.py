"""Potentials, plans and maps: their derivatives against finite differences of whole solves."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import otcore
from tests.problems import cloud, weights

N, M = 7, 6
OPTIONS = {"blur": 0.4, "tol": 1e-13, "max_iter": 20000}
GROUNDS = {
    "p=2": {},
    "p=1": {"p": 1},
    "sqeuclidean": {"cost": "sqeuclidean"},
    "cosine": {"cost": "cosine"},
    "function": {"cost": lambda x, y: 0.5 * torch.cdist(x, y).square()},
}
REACHES = {"balanced": None, "unbalanced": 0.7, "semi": (0.7, None)}

OUTPUTS: dict[str, Callable[[otcore.Solution], Tensor]] = {
    "f": lambda s: s.f,
    "g": lambda s: s.g,
    "f_xx": lambda s: s.f_xx,
    "g_yy": lambda s: s.g_yy,
    "plan": lambda s: s.plan(),
    "apply": lambda s: s.apply(cloud(M, 2, 5)),
    "apply_transpose": lambda s: s.apply_transpose(cloud(N, 1, 6).squeeze(1)),
    "row sums": lambda s: s.marginals()[0],
    "transport": lambda s: s.transport(),
    "potential": lambda s: s.potential(cloud(4, 2, 7) + 0.1),
    "map": lambda s: s.transport(cloud(4, 2, 7) + 0.1),
}


def inputs(zero: bool = False) -> tuple[Tensor, ...]:
    a, b = weights(N, 2), weights(M, 3)
    if zero:
        a[2], b[4] = 0.0, 0.0
        a, b = a / a.sum(), b / b.sum()
    return tuple(t.requires_grad_() for t in (cloud(N, 2, 0) + 0.1, cloud(M, 2, 1) + 0.3, a, b))


def directional(function: Callable[..., Tensor], at: tuple[Tensor, ...], along: tuple[Tensor, ...]) -> Tensor:
    """Fourth-order central difference."""
    h = 1e-3

    def value(step: float) -> Tensor:
        return function(*(t.detach() + step * d for t, d in zip(at, along, strict=True)))

    return (8 * (value(h) - value(-h)) - (value(2 * h) - value(-2 * h))) / (12 * h)


def check(function: Callable[..., Tensor], at: tuple[Tensor, ...], along: tuple[Tensor, ...]) -> None:
    out = function(*at)
    u = torch.rand(out.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    gradients = torch.autograd.grad((u * out).sum(), at, allow_unused=True)
    got = sum(float((d * g).sum()) for d, g in zip(along, gradients, strict=True) if g is not None)
    with torch.no_grad():
        want = float((u * directional(function, at, along)).sum())
    assert math.isclose(got, want, rel_tol=2e-6, abs_tol=1e-7), (got, want)


def directions(at: tuple[Tensor, ...], balanced: bool) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(8)
    d = [torch.rand(t.shape, generator=generator, dtype=torch.float64) - 0.5 for t in at]
    for k in (2, 3):
        # Zero weights stay zero, and balanced masses equal.
        d[k] = torch.where(at[k] > 0, 0.1 * d[k], 0.0)
        if balanced:
            d[k] = d[k] - at[k].detach() * d[k].sum()
    return tuple(d)


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("reach", REACHES)
def test_every_output(output: str, reach: str, backend: str) -> None:
    def function(*tensors: Tensor) -> Tensor:
        options = {**OPTIONS, "reach": REACHES[reach], "backend": backend}
        return OUTPUTS[output](otcore.sinkhorn_divergence(*tensors, return_solution=True, **options))

    at = inputs()
    check(function, at, directions(at, REACHES[reach] is None))


@pytest.mark.parametrize("ground", GROUNDS)
@pytest.mark.parametrize("output", ["f", "f_xx", "apply", "transport", "map"])
def test_every_cost(output: str, ground: str) -> None:
    def function(*tensors: Tensor) -> Tensor:
        return OUTPUTS[output](
            otcore.sinkhorn_divergence(*tensors, return_solution=True, **OPTIONS, **GROUNDS[ground])
        )

    at = inputs()
    check(function, at, directions(at, True))


@pytest.mark.parametrize("reach", REACHES)
@pytest.mark.parametrize("output", ["f", "g", "f_xx", "transport"])
def test_points_of_zero_weight(output: str, reach: str) -> None:
    """Their potentials move too, though they move nothing else."""

    def function(*tensors: Tensor) -> Tensor:
        solution = otcore.sinkhorn_divergence(*tensors, return_solution=True, reach=REACHES[reach], **OPTIONS)
        return OUTPUTS[output](solution)

    at = inputs(zero=True)
    check(function, at, directions(at, REACHES[reach] is None))


def test_batch_is_its_items() -> None:
    x, y = cloud(N, 2, 0, batch=3).requires_grad_(), cloud(M, 2, 1, batch=3)
    (whole,) = torch.autograd.grad(otcore.sinkhorn(x, y, **OPTIONS).transport().square().sum(), x)
    for i in range(3):
        own = x[i].detach().requires_grad_()
        (one,) = torch.autograd.grad(otcore.sinkhorn(own, y[i], **OPTIONS).transport().square().sum(), own)
        torch.testing.assert_close(whole[i], one, rtol=1e-8, atol=1e-10)


def test_float32_is_close() -> None:
    at = inputs()
    results = []
    for dtype in (torch.float32, torch.float64):
        x, y, a, b = (t.detach().to(dtype).requires_grad_() for t in at)
        options = {**OPTIONS, "tol": 1e-5}
        s = otcore.sinkhorn(x, y, a, b, **options)
        results.append(torch.autograd.grad(s.transport().square().sum() + s.f.square().sum(), (x, y, a, b)))
    for narrow, wide in zip(*results, strict=True):
        torch.testing.assert_close(narrow.double(), wide, rtol=1e-3, atol=1e-4)


def test_memory_is_linear() -> None:
    """No matrix is written at 20,000 points, where one would take 3.2 GB."""
    import resource

    x = cloud(20000, 2, 0).float().requires_grad_()
    y = cloud(20000, 2, 1).float()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    s = otcore.sinkhorn(x, y, blur=0.2)
    (s.f.square().sum() + s.transport().square().sum()).backward()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000  # KiB


def test_second_derivatives_of_plans_raise() -> None:
    at = inputs()
    s = otcore.sinkhorn(*at, **OPTIONS)
    (g,) = torch.autograd.grad(s.f.square().sum(), at[0], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        g.sum().backward()
