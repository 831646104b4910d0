"""Kernel losses against GeomLoss's, in fp64, on problems drawn afresh in every run.

GeomLoss expands squared distances, which costs "laplacian" and "energy" half the digits for near pairs, and
raises their distances to 1e-4, even of a point to itself: it gets the kernels from differences here, through
its `kernel` argument, and once as it is, on clouds where the raised diagonal is all that differs.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from otcore import SamplesLoss
from tests.parity import geomloss_reference as reference
from tests.parity.drawn import Drawn, fresh, problems

pytest.importorskip("geomloss", reason="parity with GeomLoss needs geomloss (pip install geomloss)")

AGREED = 1e-9  # relative to the largest entry, values and gradients in fp64
LOSSES = st.sampled_from(["gaussian", "laplacian", "energy"])


def direct(loss: str, x: Tensor, y: Tensor, blur: float, **_: Any) -> Tensor:
    """The kernel by its definition, (B, N, D), (B, M, D) -> (B, N, M), flat where points coincide."""
    square = ((x[:, :, None, :] - y[:, None, :, :]) ** 2).sum(-1)
    if loss == "gaussian":
        return torch.exp(-square / (2 * blur**2))
    distance = torch.where(square > 0, square.clamp_min(1e-300), 0.0)
    distance = torch.where(square > 0, distance.clamp_min(1e-300).sqrt(), 0.0)
    return -distance if loss == "energy" else torch.exp(-distance / blur)


def theirs(loss: str, **options: Any) -> Any:
    from geomloss import SamplesLoss as GeomLoss

    return GeomLoss(
        loss,
        backend="tensorized",
        kernel=lambda x, y, **more: direct(loss, x, y, **more),
        **options,
    )


def assert_same(found: reference.Results, exact: reference.Results) -> None:
    for name, want in exact.items():
        error = float((found[name] - want).abs().max())
        scale = max(1.0, float(want.abs().max()))
        assert error <= AGREED * scale, f"{name} off by {error:.1e} of {scale:.1e}"


@fresh
@given(problem=problems(), loss=LOSSES)
def test_value_and_gradients(problem: Drawn, loss: str) -> None:
    measures = *problem.points(), problem.weights()
    ours = SamplesLoss(loss, blur=problem.blur)
    assert_same(
        reference.measure(ours, *measures), reference.measure(theirs(loss, blur=problem.blur), *measures)
    )


@fresh
@given(problem=problems(batched=True, max_points=25), loss=LOSSES)
def test_batches(problem: Drawn, loss: str) -> None:
    measures = *problem.points(), problem.weights()
    ours = SamplesLoss(loss, blur=problem.blur)
    assert_same(
        reference.measure(ours, *measures), reference.measure(theirs(loss, blur=problem.blur), *measures)
    )


@fresh
@given(problem=problems(), loss=LOSSES)
def test_potentials(problem: Drawn, loss: str) -> None:
    """Their values; GeomLoss's gradients of them count one side twice and leave the other out."""
    (x, y), w = problem.points(), problem.weights()
    arguments = (x, y) if w is None else (w[0], x, w[1], y)
    with reference.restored():
        want = theirs(loss, blur=problem.blur, potentials=True)(*arguments)
    got = SamplesLoss(loss, blur=problem.blur, potentials=True)(*arguments)
    assert_same(
        dict(zip("fg", got, strict=True)),
        {name: t.detach().reshape(-1) for name, t in zip("fg", want, strict=True)},
    )


@pytest.mark.parametrize("loss", ["gaussian", "laplacian", "energy"])
def test_as_it_comes(loss: str) -> None:
    """GeomLoss's own kernels on a grid, where no two points are near, with their diagonal put right."""
    from geomloss import SamplesLoss as GeomLoss

    grid = torch.cartesian_prod(*(torch.arange(5.0, dtype=torch.float64),) * 2)
    x, y, blur = grid, grid + 0.4, 1.5
    a = torch.rand(25, dtype=torch.float64) + 0.1
    a, b = a / a.sum(), torch.full((25,), 0.04, dtype=torch.float64)
    with reference.restored():
        value = GeomLoss(loss, blur=blur, backend="tensorized")(a, x, b, y)
    raised = {"gaussian": 0.0, "laplacian": 1.0 - torch.exp(torch.tensor(-1e-4)).item(), "energy": 1e-4}[loss]
    diagonal = 0.5 * raised * float(a.square().sum() + b.square().sum())
    torch.testing.assert_close(SamplesLoss(loss, blur=blur)(a, x, b, y), value + diagonal, rtol=0, atol=1e-9)


def test_custom_kernel() -> None:
    """A kernel written for GeomLoss works as it is."""
    from geomloss import SamplesLoss as GeomLoss

    def cauchy(
        x: Tensor, y: Tensor, blur: float = 0.05, use_keops: bool = False, ranges: Any = None
    ) -> Tensor:
        return 1.0 / (1.0 + ((x[:, :, None, :] - y[:, None, :, :]) ** 2).sum(-1) / blur**2)

    x, y = torch.randn(30, 3, dtype=torch.float64), torch.randn(20, 3, dtype=torch.float64)
    pair = (loss("energy", kernel=cauchy, blur=0.7) for loss in (SamplesLoss, GeomLoss))
    assert_same(*(reference.measure(loss, x, y) for loss in pair))
