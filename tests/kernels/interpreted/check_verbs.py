"""The Triton verbs under Triton's interpreter, on small tiles, so that small problems have several.

test_triton.py runs this file with TRITON_INTERPRET=1, which Triton reads when it is imported.
"""

from __future__ import annotations

import dataclasses
import os

import pytest
import torch
from otcore.kernels.triton.tiles import Tile

from otcore import SamplesLoss, SinkhornDivergence, sinkhorn_divergence
from otcore.backends import triton as backend
from otcore.backends.clouds import Cloud, Pairs
from otcore.backends.triton import Triton
from tests.kernels import triton_cases as cases
from tests.problems import cloud, weights
from tests.tolerance import assert_solved

assert os.environ.get("TRITON_INTERPRET") == "1"
# NumPy says so where a row leaves the range, from which the kernels recover.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        backend, "tile_of", lambda layout, both=False: Tile(32, 16 if layout.wide else 32, 16, 1, 1)
    )
    monkeypatch.setattr(backend, "plan_tile", lambda parts, width, wide: Tile(32, 32, 16, 1, 1))
    monkeypatch.setattr(backend, "slope_tile", lambda bits: Tile(16, 32, 8, 1, 1))


@pytest.mark.parametrize("draw", cases.DRAWS, ids=str)
def test_verbs(draw: cases.Draw) -> None:
    cases.check(draw)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_sums_out_of_range(dtype: torch.dtype) -> None:
    cases.check_out_of_range(dtype)


def test_one_temperature_an_item() -> None:
    cases.check_temperatures()


@pytest.mark.parametrize("programs", [1, 4])
def test_partial_sums(programs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "_PROGRAMS", programs)
    monkeypatch.setattr(backend, "_MOST_PARTIAL_SUMS", 2 * 170)
    cases.check_partial_sums()


def test_near_points() -> None:
    cases.check_near_points()


@pytest.fixture
def _on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend.Triton, "refuses", lambda self, problem: None)


@pytest.mark.usefixtures("_on_the_cpu")
@pytest.mark.parametrize("options", [{"blur": 0.3}, {"p": 1, "blur": 0.3, "reach": 1.0}], ids=str)
def test_a_whole_solve(options: dict[str, float]) -> None:
    solved = {}
    for name in ("triton", "dense"):
        x, y = (cloud(n, 5, n, batch=2).float().requires_grad_() for n in (20, 25))
        a, b = weights(20, 1, batch=2).float(), weights(25, 2, batch=2).float()
        value = sinkhorn_divergence(x, y, a, b, tol=1e-4, backend=name, **options)
        solved[name] = [value, *torch.autograd.grad(value.sum(), (x, y))]
    for got, expected in zip(solved["triton"], solved["dense"], strict=True):
        assert_solved(got, expected, torch.float32)


@pytest.mark.usefixtures("_on_the_cpu")
def test_the_schedule_of_geomloss() -> None:
    x, y = cloud(20, 5, 1).float(), cloud(25, 5, 2).float()
    got, expected = (SamplesLoss(blur=0.3, backend=name)(x, y) for name in ("triton", "dense"))
    assert_solved(got, expected, torch.float32)


@pytest.mark.usefixtures("_on_the_cpu")
@pytest.mark.parametrize("loss", [SinkhornDivergence, SamplesLoss])
@pytest.mark.parametrize("p", [1, 2])
def test_a_large_blur(loss: type, p: int) -> None:
    """The value is eps times a small difference of logarithms."""
    x, y = cloud(20, 5, 1), cloud(25, 5, 2) + 0.3
    expected = loss(p=p, blur=1e3, backend="dense")(x, y)
    got = loss(p=p, blur=1e3, backend="triton")(x.float(), y.float())
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_points_of_few_digits_are_multiplied_as_they_are(dtype: torch.dtype) -> None:
    """Also where they have become float32, as the public functions make them."""
    draw = cases.Draw(40, 35, 17, 2, dtype, 0.5, "raw")
    clouds = cases.drawn(draw, "cpu")
    widened = dataclasses.replace(clouds, x=clouds.x.float(), y=clouds.y.float())
    pairs = Pairs(Cloud(widened.x), Cloud(widened.y), 2)
    assert pairs.choice(draw.ground["eps"]) == "raw"
    assert pairs.layout(draw.ground["eps"]).x.dtype.itemsize == 2
    for got, expected in zip(
        *(Triton().sweep(*one, **draw.ground) for one in (widened, clouds)), strict=True
    ):
        assert torch.equal(got, expected)
    moved = Cloud(widened.x + 1e-4)
    assert Pairs(moved, Cloud(widened.y), 2).choice(draw.ground["eps"]) == "split"
