"""Options and clouds far from the usual, where digits cancel: against the limit they tend to, or float64."""

from __future__ import annotations

from typing import Any

import numpy
import pytest
import torch
from torch import Tensor

import otcore
from tests.problems import cloud, weights

X, Y = cloud(50, 2, 0), cloud(40, 2, 1) + 0.3


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("reach", [1e5, 1e8, 1e12])
def test_a_large_reach_is_balanced(p: int, reach: float, backend: str) -> None:
    options = {"p": p, "blur": 0.1, "tol": 1e-8, "backend": backend}
    balanced = otcore.sinkhorn_divergence(X, Y, **options)
    value = otcore.sinkhorn_divergence(X, Y, reach=reach, **options)
    torch.testing.assert_close(value, balanced, rtol=1e-4 if p == 1 and reach == 1e5 else 1e-7, atol=0)


@pytest.mark.parametrize("loss", [otcore.SinkhornDivergence, otcore.SamplesLoss])
@pytest.mark.parametrize("blur", [30.0, 1e3, 1e5])
def test_a_large_blur_in_float32(loss: type, blur: float) -> None:
    """Then half the squared distance of the means is left."""
    value = loss(blur=blur)(X.float(), Y.float())
    torch.testing.assert_close(value.double(), loss(blur=blur)(X, Y), rtol=1e-5, atol=0)


def test_few_points_in_general_position_converge(backend: str) -> None:
    """Acceleration over as many sweeps as there are unknowns went in circles on some of these."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(300, n, 2, generator=generator, dtype=torch.float64) for n in (3, 4))
    s = otcore.sinkhorn(x, y, backend=backend)
    assert bool(s.converged.all())
    stubborn = torch.tensor(
        [
            [-0.28966769576072693, 0.05250748619437218],
            [0.5228604674339294, 2.3022053241729736],
            [-1.4688938856124878, -1.586688756942749],
        ],
        dtype=torch.float64,
    )
    other = torch.tensor(
        [
            [0.9487659931182861, 0.058982010930776596],
            [0.3240348994731903, -0.4129871428012848],
            [1.2662721872329712, -1.9789716005325317],
            [0.5254582166671753, 0.3506956398487091],
        ],
        dtype=torch.float64,
    )
    assert otcore.sinkhorn(stubborn, other, backend=backend).n_iter < 400


@pytest.mark.parametrize("reach", [(0.8, None), (None, 0.8), (0.8, 0.5)])
def test_second_derivatives_in_weights(reach: Any) -> None:
    x, y, a, b = cloud(5, 2, 0), cloud(4, 2, 1), weights(5, 2), weights(4, 3, mass=1.2)

    def value(a: Tensor, b: Tensor) -> Tensor:
        return otcore.sinkhorn_divergence(x, y, a, b, eps=0.3, reach=reach, tol=1e-13, max_iter=20000)

    assert torch.autograd.gradgradcheck(value, (a.requires_grad_(), b.requires_grad_()), atol=1e-6)


@pytest.mark.parametrize("size", [1e-30, 1e19, 1e30])
def test_the_cosine_cost_sees_directions_only(size: float) -> None:
    x, y = cloud(20, 3, 0).float(), cloud(15, 3, 1).float()
    wanted = otcore.sinkhorn_divergence(x, y, cost="cosine")
    torch.testing.assert_close(
        otcore.sinkhorn_divergence(size * x, y, cost="cosine"), wanted, rtol=1e-4, atol=0
    )


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("distance", [1e2, 1e5])
def test_new_points_far_away(p: int, distance: float) -> None:
    far = distance * (cloud(6, 2, 5) - 0.5)
    narrow = otcore.sinkhorn(X.float(), Y.float(), p=p, blur=0.2, tol=1e-4)
    wide = otcore.sinkhorn(X, Y, p=p, blur=0.2, tol=1e-4)
    torch.testing.assert_close(
        narrow.transport(far.float()).double(), wide.transport(far), rtol=1e-2, atol=1e-2
    )
    with pytest.raises(ValueError, match="points has values that are complex, infinite or NaN"):
        narrow.transport(torch.full((1, 2), float("nan")))


def test_derivatives_of_maps_in_float32() -> None:
    results = []
    for dtype in (torch.float32, torch.float64):
        x = X.clone().to(dtype).requires_grad_()
        s = otcore.sinkhorn(x, Y.to(dtype), blur=0.3, tol=1e-6)
        results.append(
            torch.autograd.grad(s.transport().square().mean() + s.marginals()[1].square().sum(), x)[0]
        )
    torch.testing.assert_close(results[0].double(), results[1], rtol=1e-3, atol=1e-5)


class TestFunctions:
    """Costs given as functions."""

    @staticmethod
    def half(x: Tensor, y: Tensor) -> Tensor:
        return 0.5 * (x.unsqueeze(2) - y.unsqueeze(1)).square().sum(-1)

    def test_weights_of_zero(self) -> None:
        gradients = []
        for options in ({"cost": self.half}, {}):
            a = torch.tensor([0.0, 0.5, 0.5], dtype=torch.float64, requires_grad=True)
            value = otcore.sinkhorn_divergence(
                X[:3], Y[:4], a, torch.full((4,), 0.25).double(), reach=1.0, tol=1e-10, **options
            )
            gradients.append(torch.autograd.grad(value, a)[0])
        torch.testing.assert_close(*gradients, rtol=1e-7, atol=1e-10)

    @pytest.mark.parametrize(
        "wrong", [lambda x, y: x.sum(), lambda x, y: torch.cdist(x, y)[0], lambda x, y: None]
    )
    def test_wrong_results(self, wrong: Any) -> None:
        with pytest.raises(ValueError, match=r"cost gave .*it should give a tensor of shape \(1, 50, 40\)"):
            otcore.sinkhorn(X, Y, cost=wrong)

    def test_captured_float32(self) -> None:
        linear = torch.eye(2)
        x = X.float().requires_grad_()
        s = otcore.sinkhorn(x, Y.float(), cost=lambda x, y: self.half(x @ linear, y @ linear))
        s.transport().sum().backward()
        assert x.grad is not None
        found = s.bounds()
        assert found.lower - 1e-6 <= s.value <= found.upper + 1e-6


def test_discrepancy_under_autocast() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = otcore.maximum_mean_discrepancy(X.float() @ torch.eye(2), Y.float())
    assert value.dtype == torch.float32


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "p": ({"p": True}, "p is True"),
    "debias": ({"debias": "no"}, "debias is 'no'"),
    "max_iter": ({"max_iter": 2**70}, "max_iter is"),
    "blur list": ({"blur": [0.1]}, r"blur is \[0.1\]"),
    "blur array": ({"blur": numpy.ones(2)}, "blur is array"),
    "blur huge": ({"blur": 1e200}, "blur is 1e\\+200, and blur\\^2 leaves the range"),
    "reach tiny": ({"reach": 1e-200}, "reach is 1e-200, and reach\\^2 leaves the range"),
    "reach tensor": ({"reach": torch.ones(2)}, "reach is tensor"),
    "scaling": ({"scaling": None}, "scaling is None"),
    "tol": ({"tol": None}, "tol is None"),
}


@pytest.mark.parametrize(("options", "message"), BAD.values(), ids=BAD)
def test_options_of_the_wrong_kind(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        otcore.sinkhorn_divergence(X, Y, **options)


def test_options_of_numpy_kinds() -> None:
    value = otcore.sinkhorn_divergence(X, Y, p=2.0, max_iter=numpy.int64(500), blur=numpy.float32(0.5))
    assert torch.isfinite(value)


def test_arrays_with_negative_strides_as_arguments() -> None:
    s = otcore.sinkhorn(X.numpy(), Y.numpy())
    v = numpy.arange(40.0)
    numpy.testing.assert_allclose(s.apply(v[::-1]), s.apply(v[::-1].copy()))
