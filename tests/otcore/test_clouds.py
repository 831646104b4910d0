"""The layouts of points that the Triton kernels read: exact by halves, errors within their bounds."""

from __future__ import annotations

import math

import pytest
import torch
from otcore.kernels.triton.tiles import padded_width
from torch import Tensor

from otcore.backends.clouds import LARGEST_ERROR, LOG2_E, Cloud, Pairs, logit_error
from tests.problems import cloud


def truncated(sums: Tensor) -> Tensor:
    """Float64 numbers cut to the 24 bits of float32, as matrix units cut their sums."""
    mantissa, exponent = torch.frexp(sums)
    return torch.ldexp(torch.trunc(torch.ldexp(mantissa, torch.tensor(24))), exponent - 24)


def on_matrix_units(u: Tensor, v: Tensor, sums: Tensor) -> Tensor:
    """sums + u v^T for halves: exact in groups of 16 coordinates, whose sums are truncated."""
    for k in range(0, u.shape[-1], 16):
        sums = truncated(sums + u[..., k : k + 16].double() @ v[..., k : k + 16].double().mT)
    return sums


@pytest.mark.parametrize("d", [1, 3, 16, 64, 130])
@pytest.mark.parametrize("spread", [0.0, 8.0])
def test_split_points_are_the_points(d: int, spread: float) -> None:
    """To 22 bits of the largest coordinate, also where others are many orders smaller."""
    x = cloud(50, d, 1, batch=2) * 10.0 ** (-spread * cloud(50, d, 2, batch=2)) + 3.0
    x[1] *= 1e5
    own = Cloud(x.float())
    parts, unit = own.split
    assert parts.shape == (2, 2, 50, padded_width(d))
    assert torch.isfinite(parts).all()
    back = parts.double().sum(1)[..., :d] * unit.view(-1, 1, 1)
    exact = own.about(own.centre)
    error = (back - exact).abs()
    assert (error <= 2.0**-22 * exact.abs() + 2.0**-37 * exact.abs().amax((1, 2), keepdim=True)).all()
    assert not parts[..., d:].any()


@pytest.mark.parametrize("d", [1, 16, 64, 130, 1000])
@pytest.mark.parametrize("parts", [1, 2])
def test_logits_are_within_their_bound(parts: int, d: int) -> None:
    """Emulated bit for bit, on uneven points, and near the bound within two orders: it says something."""
    x, y = (cloud(200, d, seed).pow(3) - 0.3 for seed in (1, 2))
    x, y = (t.unsqueeze(0).to(torch.float16 if parts == 1 else torch.float32) for t in (x, y))
    eps = 0.01
    first, second = Cloud(x), Cloud(y)
    if parts == 1:
        u, v, unit = x, y, 1.0
        zero = torch.zeros(1, 200, 200, dtype=torch.float64)
        products = on_matrix_units(u, v, zero)
        size = float(first.raw_radius * second.raw_radius)
        exact = x.double() @ y.double().mT
        halves = first.raw_halves, second.raw_halves
    else:
        (u, unit_x), (v, unit_y) = first.split, second.split
        zero = torch.zeros(1, 200, 200, dtype=torch.float64)
        low = on_matrix_units(u[:, 1], v[:, 0], zero)
        products = on_matrix_units(u[:, 0], v[:, 0], on_matrix_units(u[:, 0], v[:, 1], low))
        unit = float(unit_x * unit_y)
        size = float(first.radius * second.radius)
        exact = first.about(first.centre) @ second.about(second.centre).mT
        halves = first.halves, second.halves
    bits = LOG2_E / eps
    row, column = (-(bits * h).float() for h in halves)
    logits = torch.addcmul(
        (row.unsqueeze(2) + column.unsqueeze(1)).double(),
        products,
        torch.tensor(unit * bits).float().double(),
    ).float()
    wanted = bits * (exact - halves[0].unsqueeze(2) - halves[1].unsqueeze(1))
    error = float((logits.double() - wanted).abs().max())
    bound = logit_error(parts, d, bits * size)
    assert bound / 100 < error <= bound


def pairs(x: Tensor, y: Tensor, p: int = 2) -> Pairs:
    return Pairs(Cloud(x.unsqueeze(0)), Cloud(y.unsqueeze(0)), p)


def test_colder_is_never_read_with_fewer_digits() -> None:
    order = ["raw", "split", "differences", "wide"]
    x, y = (cloud(50, 17, seed).sub(0.5).half() for seed in (1, 2))
    found = [order.index(pairs(x, y).choice(10.0**-k)) for k in range(12)]
    assert found == sorted(found)
    assert (found[0], found[-1]) == (0, 3)


def test_products_only_where_their_bound_is_small() -> None:
    x, y = (cloud(50, 64, seed).float() for seed in (1, 2))
    coldest = min(e for e in (2.0**-k for k in range(30)) if pairs(x, y).choice(e) == "split")
    size = float(Cloud(x[None]).radius * Cloud(y[None]).radius) * LOG2_E
    assert logit_error(2, 64, size / coldest) <= LARGEST_ERROR < logit_error(2, 64, size / coldest * 2)


@pytest.mark.parametrize("p", [1, 2])
def test_sizes_out_of_the_range_of_float32_are_wide(p: int) -> None:
    x, y = (cloud(5, 3, seed).float() for seed in (1, 2))
    assert pairs(x * 1e25, y * 1e25, p).choice(1e25**p) == "wide"
    assert pairs(x * 1e-25, y * 1e-25, p).choice(1e-25**p) == "wide"
    assert pairs(x, y, p).choice(1e-9) == "wide"
    assert pairs(x.double(), y.double(), p).choice(1.0) == "wide"


def test_clouds_far_apart_are_read_about_their_centres() -> None:
    x, y = (cloud(5, 3, seed).float() for seed in (1, 2))
    found = pairs(x, y + 4.0)
    assert found.choice(1e-4) == "centred"
    layout = found.layout(1e-4)
    costs = 0.5 * torch.cdist(layout.x.double(), layout.y.double()).square()
    costs = costs + layout.lift_x.unsqueeze(2) + layout.lift_y.unsqueeze(1)
    exact = 0.5 * torch.cdist(x.double(), y.double() + 4.0).square()
    assert math.isclose(float((costs - exact).abs().max()), 0.0, abs_tol=1e-5)
