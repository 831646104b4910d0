"""CUDA tensors in, CUDA tensors out: values, gradients and solutions against the CPU in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from otcore import (
    SamplesLoss,
    SinkhornDivergence,
    sinkhorn,
    sinkhorn_divergence,
    sliced_wasserstein_distance,
)
from tests.problems import cloud, weights
from tests.tolerance import assert_solved

DEVICE = torch.device("cuda")
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
DIMENSIONS = [2, 3, 16, 64, 300]


def wide(dtype: torch.dtype) -> torch.dtype:
    """That of the results."""
    return torch.promote_types(dtype, torch.float32)


def options(d: int, dtype: torch.dtype) -> dict[str, Any]:
    """A blur in proportion to the distances, and a marginal error below what the tolerances show."""
    return {"blur": 0.15 * d**0.5, "tol": 1e-12 if dtype == torch.float64 else 1e-4}


def clouds(
    n: int, m: int, d: int, dtype: torch.dtype = torch.float32, batch: int | None = None
) -> tuple[Tensor, Tensor]:
    x, y = cloud(n, d, 1, batch=batch), 0.8 * cloud(m, d, 2, batch=batch) + 0.1
    return x.to(DEVICE, dtype), y.to(DEVICE, dtype)


def on_cpu(given: Any) -> Any:
    """The same numbers in float64."""
    if isinstance(given, list):
        return [on_cpu(item) for item in given]
    return None if given is None else given.detach().cpu().double()


def value_and_gradients(loss: Callable[..., Tensor], *points: Any) -> list[Tensor]:
    """The value of clouds (tensors, or lists of them), and its gradients in all of their points."""
    moved = [
        [t.detach().requires_grad_() for t in p] if isinstance(p, list) else p.detach().requires_grad_()
        for p in points
    ]
    leaves = [t for p in moved for t in (p if isinstance(p, list) else [p])]
    value = loss(*moved)
    return [value, *torch.autograd.grad(value.sum(), leaves)]


def assert_as_on_cpu(loss: Callable[..., Tensor], exact: Callable[..., Tensor], *points: Any) -> None:
    """`loss` on the GPU against `exact` on the CPU."""
    dtype = wide((points[0][0] if isinstance(points[0], list) else points[0]).dtype)
    expected = value_and_gradients(exact, *(on_cpu(p) for p in points))
    for got, reference in zip(value_and_gradients(loss, *points), expected, strict=True):
        assert got.device.type == DEVICE.type
        # Gradients in half precision are rounded to it.
        scale = max(1.0, float(reference.detach().abs().max()))
        rounding = torch.finfo(got.dtype).eps if got.dtype != dtype else 0.0
        if rounding:
            torch.testing.assert_close(got.cpu().double(), reference, rtol=0.0, atol=4 * rounding * scale)
        else:
            assert_solved(got.cpu(), reference, dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("d", DIMENSIONS)
def test_divergence_and_gradients(d: int, dtype: torch.dtype) -> None:
    x, y = clouds(200, 150, d, dtype, batch=2)

    def loss(x: Tensor, y: Tensor, **more: Any) -> Tensor:
        return sinkhorn_divergence(x, y, **(options(d, dtype) | more))

    assert_as_on_cpu(loss, lambda x, y: loss(x, y, tol=1e-12, backend="dense"), x, y)


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("reach", [None, 0.7, (0.7, None)], ids=str)
@pytest.mark.parametrize("d", [3, 40])
def test_weights_and_reach(d: int, reach: Any, p: int) -> None:
    x, y = clouds(120, 150, d, torch.float64)
    a, b = weights(120, 3).to(DEVICE), weights(150, 4).to(DEVICE)
    a[::5] = 0.0
    b *= a.sum() / b.sum()
    shared = {"p": p, "reach": reach, "blur": 0.2 * d**0.5, "tol": 1e-12}

    def loss(x: Tensor, y: Tensor, backend: str = "auto") -> Tensor:
        on = x.device
        return sinkhorn_divergence(x, y, a.to(on), b.to(on), backend=backend, **shared)

    assert_as_on_cpu(loss, lambda x, y: loss(x, y, "dense"), x, y)


@pytest.mark.parametrize("d", [3, 40])
def test_ragged_batches(d: int) -> None:
    xs, ys = (
        [cloud(n, d, n + seed).to(DEVICE) for n in counts]
        for seed, counts in ((0, (5, 40, 1, 33)), (100, (9, 3, 17, 64)))
    )
    solve = options(d, torch.float64)
    assert_as_on_cpu(
        lambda x, y: sinkhorn_divergence(x, y, **solve),
        lambda x, y: sinkhorn_divergence(x, y, backend="dense", **solve),
        xs,
        ys,
    )


@pytest.mark.parametrize("d", DIMENSIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_samples_loss(d: int, dtype: torch.dtype) -> None:
    """The fixed schedule: on both sides the same steps."""
    x, y = clouds(150, 120, d, dtype, batch=2)
    blur = 0.1 * d**0.5
    assert_as_on_cpu(SamplesLoss(blur=blur), SamplesLoss(blur=blur, backend="dense"), x, y)


READERS: dict[str, Callable[[Any, Tensor, Tensor], Tensor]] = {
    "value": lambda s, v, z: s.value,
    "plan": lambda s, v, z: s.plan(),
    "apply": lambda s, v, z: s.apply(v),
    "apply_transpose": lambda s, v, z: s.apply_transpose(v),
    "marginals": lambda s, v, z: torch.cat(s.marginals()),
    "transport": lambda s, v, z: s.transport(),
    "transport of new points": lambda s, v, z: s.transport(z),
    "potential of new points": lambda s, v, z: s.potential(z),
    "bounds": lambda s, v, z: torch.stack(s.bounds()),
}


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("d", [3, 40])
def test_what_a_solution_gives(d: int, read: str) -> None:
    x, y = clouds(90, 90, d, torch.float64)
    v, z = cloud(90, 4, 5).to(DEVICE), cloud(30, d, 6).to(DEVICE)
    shared = {"blur": 0.15 * d**0.5, "tol": 1e-12}
    got = READERS[read](sinkhorn(x, y, **shared), v, z)
    expected = READERS[read](sinkhorn(*(on_cpu(t) for t in (x, y)), **shared), on_cpu(v), on_cpu(z))
    assert got.device.type == DEVICE.type
    assert_solved(got.cpu(), expected)


def test_which_kernels_run() -> None:
    for d, name in ((3, "cuda"), (16, "cuda"), (17, "triton"), (300, "triton")):
        solution = sinkhorn(*clouds(40, 50, d), blur=0.3 * d**0.5)
        assert solution.backend == name, d
        assert bool(solution.converged)


@pytest.mark.parametrize("name", ["unweighted", "weighted", "ragged"])
@pytest.mark.parametrize("n", [500, 6000])
def test_sliced_distances(n: int, name: str) -> None:
    """By Triton where clouds are regular and small, by torch elsewhere."""
    # torch has no deterministic cumulative sum on GPUs.
    torch.use_deterministic_algorithms(False)
    x, y = clouds(n, n, 8)
    directions = torch.nn.functional.normalize(cloud(8, 20, 7) - 0.5, dim=0).to(DEVICE)
    a = weights(n, 3).to(DEVICE, torch.float32) if name == "weighted" else None

    def loss(x: Tensor, y: Tensor) -> Tensor:
        more = {} if a is None else {"a": a.to(x), "b": a.to(x).flip(0)}
        given = ([x], [y]) if name == "ragged" else (x, y)
        return sliced_wasserstein_distance(*given, projections=directions.to(x), **more)

    assert_as_on_cpu(loss, loss, x, y)


def test_refusals() -> None:
    x, y = clouds(10, 12, 3)
    with pytest.raises(ValueError, match=r"x\.cuda\(\)|\.to\("):
        sinkhorn_divergence(x.cpu(), y.cpu(), backend="cuda")
    with pytest.raises(ValueError, match=r"x is on cuda.*and y on cpu"):
        sinkhorn_divergence(x, y.cpu())
    broken = x.clone()
    broken[3, 1] = torch.nan
    with pytest.raises(ValueError, match="x has nan"):
        sinkhorn_divergence(broken, y)


@pytest.mark.parametrize("d", [3, 40])
def test_modules_move_with_their_model(d: int) -> None:
    x, y = clouds(50, 60, d)
    model = torch.nn.Sequential(torch.nn.Linear(d, d), torch.nn.Tanh()).to(DEVICE)
    loss = SinkhornDivergence(blur=0.1 * d**0.5).to(DEVICE)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        value = loss(model(x), y)
    value.backward()
    assert value.dtype == torch.float32
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
