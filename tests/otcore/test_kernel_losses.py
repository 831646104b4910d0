"""Kernel losses and discrepancies: against dense float64, closed forms and finite differences."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.library import opcheck

import otcore
from otcore import kernel_operators
from otcore.kernel_operators import Options
from tests.problems import cloud, weights
from tests.tolerance import assert_as_accurate, assert_solved, rounding

KERNELS = ["gaussian", "laplacian", "energy", "inverse_multiquadric"]
LOSSES = ["gaussian", "laplacian", "energy"]
BACKENDS = ["cpu", "dense"]
SHAPES = [(1, 1, 1), (1, 7, 2), (33, 1, 3), (31, 65, 1), (97, 130, 2), (50, 45, 5), (40, 66, 130)]
X, Y = cloud(9, 2, 0), cloud(7, 2, 1) + 0.2
A, B = weights(9, 2), weights(7, 3)


def matrix(kernel: str, x: Tensor, y: Tensor, blur: float) -> Tensor:
    """The kernel by its definition."""
    square = (x.unsqueeze(-2) - y.unsqueeze(-3)).square().sum(-1)
    if kernel == "gaussian":
        return torch.exp(-square / (2 * blur**2))
    if kernel == "inverse_multiquadric":
        return blur**2 / (blur**2 + square)
    distance = torch.where(square > 0, torch.where(square > 0, square, 1.0).sqrt(), 0.0)
    return -distance if kernel == "energy" else torch.exp(-distance / blur)


def norm(kernel: str, x: Tensor, y: Tensor, a: Tensor, b: Tensor, blur: float = 0.3) -> Tensor:
    """<a - b, k * (a - b)> by its definition."""
    k = [matrix(kernel, *pair, blur) for pair in ((x, x), (x, y), (y, y))]
    products = (
        torch.einsum("...i,...ij,...j", u, m, v) for u, m, v in zip((a, a, b), k, (a, b, b), strict=True)
    )
    xx, xy, yy = products
    return xx - 2.0 * xy + yy


def discrepancy(kernel: str, **options) -> Callable[..., Tensor]:
    def value(x: Tensor, y: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> Tensor:
        return otcore.maximum_mean_discrepancy(x, y, a, b, kernel=kernel, **{"blur": 0.3, **options})

    return value


def tracked(*tensors: Tensor) -> list[Tensor]:
    return [t.clone().requires_grad_() for t in tensors]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("n", "m", "d"), SHAPES)
def test_values_and_gradients(n: int, m: int, d: int, kernel: str, backend: str) -> None:
    """In a batch, with weights of unequal mass, some 0, and with duplicates within and across the clouds."""
    x, y = cloud(n, d, 1, batch=2), cloud(m, d, 2, batch=2)
    a, b = weights(n, 3, batch=2), weights(m, 4, batch=2, mass=1.5)
    if n > 5:
        x[:, 3], x[:, 4], a[:, 2] = x[:, 5], y[:, 0], 0
    inputs, again = tracked(x, y, a, b), tracked(x, y, a, b)
    got, want = discrepancy(kernel, backend=backend)(*inputs), norm(kernel, *again)
    assert_solved(got, want)
    pairs = zip(torch.autograd.grad(got.sum(), inputs), torch.autograd.grad(want.sum(), again), strict=True)
    for mine, theirs in pairs:
        assert_solved(mine, theirs)
    assert_solved(discrepancy(kernel, backend=backend)(x[1], y[1], a[1], b[1]), want[1])


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    ("n", "m", "d", "shift"), [(97, 130, 2, 0.0), (60, 80, 64, 0.0), (200, 90, 3, 1000.0)]
)
def test_float32_is_as_accurate_as_torch(n: int, m: int, d: int, shift: float, kernel: str) -> None:
    narrow = [
        t.float() for t in (cloud(n, d, 1) + shift, cloud(m, d, 2) + shift, weights(n, 3), weights(m, 4))
    ]
    wide = [t.double() for t in narrow]
    inputs = [tracked(*narrow), tracked(*narrow), tracked(*wide)]
    results = [discrepancy(kernel)(*inputs[0]), *(norm(kernel, *t) for t in inputs[1:])]
    # The value is a difference of sums of this size.
    size = float(matrix(kernel, wide[0], wide[0], 0.3).abs().max())
    got, plain, exact = (float(result.detach()) for result in results)
    assert abs(got - exact) <= 2 * abs(plain - exact) + rounding(torch.float32, size)
    for got, plain, exact in zip(
        *(torch.autograd.grad(r, t) for r, t in zip(results, inputs, strict=True)), strict=True
    ):
        assert_as_accurate(got, plain, exact)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_shift_and_a_scale_change_nothing(kernel: str) -> None:
    """Float32 clouds far from the origin, and ones so small or large that squares leave its range."""
    grid = (cloud(50, 2, 0) * 64).round().float(), (cloud(40, 2, 1) * 64).round().float()
    near = otcore.maximum_mean_discrepancy(*grid, kernel=kernel, blur=10.0)
    far = otcore.maximum_mean_discrepancy(*(t + 2.0**17 for t in grid), kernel=kernel, blur=10.0)
    assert torch.equal(near, far)
    for scale in (2.0**-80, 2.0**70):
        x, y = (scale * t for t in grid)
        x.requires_grad_()
        value = otcore.maximum_mean_discrepancy(x, y, kernel=kernel, blur=10.0 * scale)
        assert torch.equal(value, near * (scale if kernel == "energy" else 1.0))
        assert bool(torch.autograd.grad(value, x)[0].isfinite().all())


def test_nearly_coincident_points_keep_their_distance() -> None:
    """The gradient of the energy is a unit vector, however near the points."""
    x = torch.tensor([[1.0, 1.0], [1.0 + 2.0**-22, 1.0]], requires_grad=True)
    value = otcore.maximum_mean_discrepancy(x, torch.tensor([[1.0, 9.0]]), kernel="energy")
    (gradient,) = torch.autograd.grad(value, x)
    y = torch.tensor([[1.0, 9.0]], dtype=torch.float64)
    z = x.detach().double().requires_grad_()
    half = torch.full((2,), 0.5, dtype=torch.float64)
    exact = norm("energy", z, y, half, torch.ones(1, dtype=torch.float64))
    torch.testing.assert_close(gradient.double(), torch.autograd.grad(exact, z)[0], rtol=1e-6, atol=0)


def test_closed_forms() -> None:
    x, y = torch.zeros(1, 3, dtype=torch.float64), torch.full((1, 3), 2.0, dtype=torch.float64)
    d = math.sqrt(12.0)
    for kernel, k in (
        ("gaussian", math.exp(-6.0)),
        ("laplacian", math.exp(-d)),
        ("inverse_multiquadric", 1 / 13),
    ):
        assert_solved(otcore.maximum_mean_discrepancy(x, y, kernel=kernel, blur=1.0), 2 - 2 * k)
    assert_solved(otcore.maximum_mean_discrepancy(x, y, kernel="energy"), 2 * d)
    # On a line the energy distance is twice the integral of the squared difference of distribution functions.
    points = torch.tensor([0.0, 1.0, 3.0, 4.0], dtype=torch.float64).unsqueeze(1)
    a, b = torch.tensor([0.5, 0.5], dtype=torch.float64), torch.tensor([0.25, 0.75], dtype=torch.float64)
    got = otcore.maximum_mean_discrepancy(points[[0, 2]], points[[1, 3]], a, b, kernel="energy")
    assert_solved(got, 2 * (0.5**2 * 1 + 0.25**2 * 2 + 0.75**2 * 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("kernel", KERNELS)
def test_identical_clouds(kernel: str, dtype: torch.dtype) -> None:
    x = cloud(150, 3, 0).to(dtype).requires_grad_()
    order = torch.randperm(150)
    value = discrepancy(kernel)(x, x.detach()[order])
    assert abs(float(value.detach())) <= rounding(dtype)
    assert float(torch.autograd.grad(value, x)[0].abs().max()) <= rounding(dtype)


@pytest.mark.parametrize("kernel", KERNELS)
def test_zero_weights_are_as_absent(kernel: str) -> None:
    a = A * (torch.arange(9) % 3 > 0)
    assert_solved(discrepancy(kernel)(X, Y, a, B), discrepancy(kernel)(X[a > 0], Y, a[a > 0], B))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_unbiased(kernel: str, backend: str) -> None:
    x, y = tracked(X, Y)
    k = [matrix(kernel, *pair, 0.3) for pair in ((x, x), (x, y), (y, y))]
    want = (k[0].sum() - k[0].trace()) / 72 + (k[2].sum() - k[2].trace()) / 42 - 2 * k[1].mean()
    got = discrepancy(kernel, unbiased=True, backend=backend)(x, y)
    assert_solved(got, want)
    pairs = zip(torch.autograd.grad(got, (x, y)), torch.autograd.grad(want, (x, y)), strict=True)
    for mine, theirs in pairs:
        assert_solved(mine, theirs)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kernel", ["gaussian", "laplacian", "inverse_multiquadric"])
def test_several_blurs_are_added(kernel: str, backend: str) -> None:
    x, y = tracked(X, Y)
    together = discrepancy(kernel, blur=(0.1, 0.5, 2.0), backend=backend)(x, y)
    apart = sum(discrepancy(kernel, blur=s)(x, y) for s in (0.1, 0.5, 2.0))
    assert_solved(together, apart)
    assert_solved(torch.autograd.grad(together, x)[0], torch.autograd.grad(apart, x)[0])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_gradcheck(kernel: str, backend: str) -> None:
    inputs = tracked(X[:4], Y[:3], weights(4, 2), weights(3, 3, mass=0.7))
    value = discrepancy(kernel, backend=backend)
    assert gradcheck(value, inputs, check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(value, inputs)
    assert gradcheck(discrepancy(kernel, backend=backend, unbiased=True), inputs[:2])


@pytest.mark.parametrize("loss", LOSSES)
def test_potentials(loss: str) -> None:
    module = otcore.SamplesLoss(loss, blur=0.3, potentials=True)
    k_xx, k_xy, k_yy = (matrix(loss, *pair, 0.3) for pair in ((X, X), (X, Y), (Y, Y)))
    f, g = module(A, X, B, Y)
    assert_solved(f, k_xx @ A - k_xy @ B)
    assert_solved(g, k_yy @ B - k_xy.mT @ A)
    inputs = tracked(X[:4], Y[:3], weights(4, 2), weights(3, 3))
    assert gradcheck(lambda x, y, a, b: module(a, x, b, y), inputs)


@pytest.mark.parametrize("loss", LOSSES)
def test_samples_loss_is_half_the_discrepancy(loss: str) -> None:
    got = otcore.SamplesLoss(loss, blur=0.3, reach=0.5, scaling=0.9)(A, X, B, Y)
    assert_solved(got, 0.5 * discrepancy(loss)(X, Y, A, B))
    batch = otcore.SamplesLoss(loss, blur=0.3)(A[None, :, None], X[None], B[None, :, None], Y[None])
    assert_solved(batch, got[None])
    assert loss in repr(otcore.SamplesLoss(loss))


@pytest.mark.parametrize("loss", LOSSES)
def test_custom_kernel(loss: str) -> None:
    """A function that computes the kernel gives what its name gives."""

    def kernel(x: Tensor, y: Tensor, blur: float) -> Tensor:
        return matrix(loss, x, y, blur)

    inputs = tracked(X, Y, A, B)
    x, y, a, b = inputs
    named = otcore.SamplesLoss(loss, blur=0.3)(a, x, b, y)
    custom = otcore.SamplesLoss("energy", kernel=kernel, blur=0.3)(a, x, b, y)
    assert_solved(custom, named)
    for got, want in zip(
        torch.autograd.grad(custom, inputs), torch.autograd.grad(named, inputs), strict=True
    ):
        assert_solved(got, want)
    for got, want in zip(
        otcore.SamplesLoss("energy", kernel=kernel, blur=0.3, potentials=True)(X, Y),
        otcore.SamplesLoss(loss, blur=0.3, potentials=True)(X, Y),
        strict=True,
    ):
        assert_solved(got, want)


FUNCTIONS = {
    **{kernel: discrepancy(kernel) for kernel in KERNELS},
    "unbiased": discrepancy("inverse_multiquadric", unbiased=True, blur=(0.2, 1.0)),
    "module": otcore.SamplesLoss("energy"),
    "potentials": lambda x, y: sum(
        t.square().sum() for t in otcore.SamplesLoss("gaussian", blur=0.3, potentials=True)(x, y)
    ),
    "hausdorff": otcore.SamplesLoss("hausdorff", blur=0.3),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functorch(name: str) -> None:
    value = FUNCTIONS[name]
    x = X.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(x, Y), x)
    assert_solved(torch.func.grad(value)(X, Y), gradient)
    assert_solved(torch.func.jacrev(value)(X, Y), gradient)
    many = cloud(9, 2, 5, batch=3)
    each = torch.stack([torch.func.grad(value)(one, Y) for one in many])
    assert_solved(torch.vmap(value, (0, None))(many, Y), torch.stack([value(one, Y) for one in many]))
    assert_solved(torch.vmap(torch.func.grad(value), (0, None))(many, Y), each)
    summed = torch.func.grad(lambda x: torch.vmap(value, (0, None))(x, Y).sum())(many)
    assert_solved(summed, each)
    if name == "potentials":
        with pytest.raises(RuntimeError, match="no forward-mode derivative"):
            torch.func.jvp(lambda x: value(x, Y), (X,), (X,))
        return
    tangent = cloud(9, 2, 7)
    assert_solved(torch.func.jvp(lambda x: value(x, Y), (X,), (tangent,))[1], (gradient * tangent).sum())
    if name != "hausdorff":
        hessian = torch.autograd.functional.hessian(lambda x: value(x, Y), X)
        assert_solved(torch.func.hessian(value)(X, Y), hessian)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_compile(name: str) -> None:
    function = FUNCTIONS[name]
    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend="aot_eager")
    for n in (6, 11):
        x = cloud(n, 2, n).requires_grad_()
        got, want = compiled(x, Y), function(x, Y)
        assert_solved(got, want)
        assert_solved(torch.autograd.grad(got, x)[0], torch.autograd.grad(want, x)[0])


@pytest.mark.parametrize("kernel", ["energy", "hausdorff"])
def test_opcheck(kernel: str) -> None:
    plain = X[None].clone(), Y[None].clone(), A[None].clone(), B[None].clone()
    wanted = tuple(t.clone().requires_grad_() for t in plain)
    options = Options(kernel, [0.3] if kernel == "hausdorff" else [], False, 2, "auto")
    for need in (False, True):
        potentials = need and kernel == "energy"
        opcheck(torch.ops.otcore.kernel_loss.default, (*wanted, *options, True, potentials, need))
    known = torch.ops.otcore.kernel_loss.default(*plain, *options, True, False, True)[3:]
    opcheck(torch.ops.otcore.kernel_gradient.default, (*plain, *known, *options))
    absent = kernel_operators._absent(plain[0])
    opcheck(torch.ops.otcore.kernel_gradient.default, (*plain, *absent, *options))


def test_no_gradient_is_computed_for_nobody() -> None:
    """Only weights to differentiate in: the points' gradient costs nothing."""
    a = A.clone().requires_grad_()
    value = discrepancy("gaussian")(X, Y, a, B)
    assert_solved(
        torch.autograd.grad(value, a)[0],
        2 * otcore.SamplesLoss("gaussian", blur=0.3, potentials=True)(A, X, B, Y)[0],
    )


def test_ragged_batches_numpy_and_half_precision() -> None:
    xs, ys = [X, X[:4]], [Y[:3], Y]
    each = torch.stack([discrepancy("energy")(x, y) for x, y in zip(xs, ys, strict=True)])
    assert_solved(otcore.maximum_mean_discrepancy(xs, ys, kernel="energy"), each)
    got = otcore.maximum_mean_discrepancy(X.numpy(), Y.numpy(), A.numpy(), B.numpy(), blur=0.3)
    assert not isinstance(got, Tensor)
    assert_solved(torch.tensor(got), norm("gaussian", X, Y, A, B))
    half = otcore.maximum_mean_discrepancy(X.half(), Y.half(), kernel="energy")
    assert half.dtype == torch.float32


BAD = [
    ({"kernel": "cauchy"}, "kernel is 'cauchy'; use one of 'gaussian'"),
    ({"blur": -1.0}, "blur is -1.0; use a positive"),
    ({"blur": []}, r"blur is \[\]; use a positive length"),
    ({"blur": None}, "blur is None; use a positive length"),
    ({"blur": [0.1, 0.0]}, r"blur is 0.0; use a positive"),
    ({"backend": "keops"}, "backend is 'keops'; use one of 'auto', 'cpu', 'dense'"),
    ({"unbiased": True, "a": A, "b": B}, "unbiased is True and weights are given; leave a and b at None"),
    ({"unbiased": True, "y": Y[:1]}, "y has one point; the unbiased estimate needs at least two"),
    ({"a": -A, "b": B}, r"a has -.* at \[0\]; weights must be finite and not negative"),
    ({"a": A[:3], "b": B}, r"a has shape \(3,\) and x has shape \(9, 2\)"),
    ({"y": Y[:, :1]}, "x has 2 coordinates a point and y has 1"),
    ({"y": Y * math.nan}, r"y has nan at \[0, 0\]; all coordinates must be finite"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        otcore.maximum_mean_discrepancy(**{"x": X, "y": Y, **arguments})


def test_bad_samples_loss() -> None:
    with pytest.raises(
        ValueError, match=r"kernel is .*; use None, kernels have no part in the hausdorff loss"
    ):
        otcore.SamplesLoss("hausdorff", kernel=matrix)
    with pytest.raises(ValueError, match="kernel is 'rbf'; use a function"):
        otcore.SamplesLoss("energy", kernel="rbf")
    with pytest.raises(ValueError, match=r"p is 3; use 1 \(cost \|x - y\|\)"):
        otcore.SamplesLoss("hausdorff", p=3)
    with pytest.raises(ValueError, match=r"kernel gave \(1, 9, 9\).*shape \(1, 9, 7\)"):
        otcore.SamplesLoss("energy", kernel=lambda x, y, blur: torch.ones(1, 9, 9))(X, Y)
    with pytest.raises(ValueError, match="a has mass 1 and b has mass 2 in item 0; the Hausdorff divergence"):
        otcore.SamplesLoss("hausdorff")(A, X, 2 * B, Y)
    with pytest.raises(ValueError, match=r"blur is \[0.1, 0.2\]; use a positive length"):
        otcore.SamplesLoss("hausdorff", blur=[0.1, 0.2])(X, Y)  # type: ignore[arg-type]


def test_second_derivatives_of_hausdorff_raise() -> None:
    loss = otcore.SamplesLoss("hausdorff", blur=0.3)
    with pytest.raises(RuntimeError, match="the Hausdorff divergence has first derivatives only"):
        torch.autograd.functional.hessian(lambda x: loss(x, Y), X)
    x = X.clone().requires_grad_()
    f, _ = otcore.SamplesLoss("hausdorff", blur=0.3, potentials=True)(x, Y)
    with pytest.raises(RuntimeError, match="potentials of the Hausdorff divergence have no derivative"):
        f.sum().backward()


def hausdorff(x: Tensor, y: Tensor, a: Tensor, b: Tensor, p: int, blur: float) -> Tensor:
    """The definition, the fixed points by unrolled iteration."""
    eps = blur**p

    def cost(x: Tensor, y: Tensor) -> Tensor:
        return matrix("energy", x, y, 1.0).neg() if p == 1 else (x[:, None] - y[None]).square().sum(-1) / 2

    def smooth(z: Tensor, x: Tensor, a: Tensor, f: Tensor) -> Tensor:
        return -eps * torch.logsumexp(a.log() + (f - cost(z, x)) / eps, 1)

    def fixed(x: Tensor, a: Tensor) -> Tensor:
        f = torch.zeros_like(a)
        for _ in range(60):
            f = (f + smooth(x, x, a, f)) / 2
        return f

    f, g = fixed(x, a), fixed(y, b)
    return 0.5 * (a @ (smooth(x, y, b, g) - f) - b @ (g - smooth(y, x, a, f)))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("blur", [0.05, 0.3, 3.0])
@pytest.mark.parametrize("p", [1, 2])
def test_hausdorff(p: int, blur: float, backend: str) -> None:
    loss = otcore.SamplesLoss("hausdorff", p=p, blur=blur, backend=backend)
    inputs = tracked(X, Y, A, B)
    x, y, a, b = inputs
    got, want = loss(a, x, b, y), hausdorff(x, y, a, b, p, blur)
    assert_solved(got, want)
    for mine, theirs in zip(torch.autograd.grad(got, inputs), torch.autograd.grad(want, inputs), strict=True):
        assert_solved(mine, theirs)
    f, g = otcore.SamplesLoss("hausdorff", p=p, blur=blur, backend=backend, potentials=True)(A, X, B, Y)
    assert_solved(0.5 * (A @ f + B @ g), got)


def test_hausdorff_is_positive_and_joins_its_limits() -> None:
    for seed in range(30):
        x, y, a, b = cloud(6, 2, seed), cloud(5, 2, seed + 50), weights(6, seed), weights(5, seed + 1)
        for p in (1, 2):
            loss = otcore.SamplesLoss("hausdorff", p=p, blur=0.02 * 2 ** (seed % 8))
            assert float(loss(a, x, b, y)) > 0
            assert abs(float(loss(a, x, a, x))) < 1e-10
    distance = matrix("energy", X, Y, 1.0).neg()
    nearest = 0.5 * (A @ distance.amin(1) + B @ distance.amin(0))
    tight, wide = (otcore.SamplesLoss("hausdorff", p=1, blur=s)(A, X, B, Y) for s in (1e-5, 1e6))
    torch.testing.assert_close(tight, nearest, rtol=0, atol=1e-3)
    torch.testing.assert_close(wide, otcore.SamplesLoss("energy")(A, X, B, Y), rtol=1e-4, atol=0)


def test_hausdorff_float32() -> None:
    clouds = [cloud(300, 3, 0).float(), cloud(200, 3, 1).float() + 0.3]
    exact = otcore.SamplesLoss("hausdorff", blur=0.1)(*(t.double() for t in clouds))
    assert_solved(otcore.SamplesLoss("hausdorff", blur=0.1)(*clouds), exact, torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("d", [2, 20])
def test_same_bits_for_every_number_of_threads(d: int, dtype: torch.dtype) -> None:
    x, y = cloud(900, d, 0).to(dtype).requires_grad_(), cloud(700, d, 1).to(dtype)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 5):
            torch.set_num_threads(threads)
            value = discrepancy("energy")(x, y)
            results.append((value.detach(), *torch.autograd.grad(value, x)))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(t, u) for t, u in zip(results[0], other, strict=True))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_is_linear() -> None:
    """A matrix of 20,000 x 20,000 floats is 1600 MB."""
    from benchmarks.comparison.memory import peak_beyond

    x, y = torch.rand(20_000, 2, requires_grad=True), torch.rand(20_000, 2)

    def work() -> None:
        discrepancy("gaussian")(x, y).backward()

    assert peak_beyond(work) < 50e6
