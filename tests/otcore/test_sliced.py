"""Sliced distances: an oracle on the line, closed forms, batches, derivatives, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.library import opcheck

import otcore
from otcore import SlicedWasserstein, sliced_wasserstein_distance, wasserstein_1d
from otcore.sliced_operators import Options
from tests.problems import cloud, weights
from tests.tolerance import assert_solved, rounding

X, Y = cloud(7, 2, 0), cloud(5, 2, 1) + 0.2
A, B = weights(7, 2), weights(5, 3)
THETA = torch.nn.functional.normalize(cloud(2, 4, 4) - 0.4, dim=0)


def oracle(u: list[float], v: list[float], a: list[float], b: list[float], p: float) -> float:
    """W_p^p on the line by the north-west corner rule on sorted points: the monotone plan, mass by mass."""
    first, second = (sorted(zip(positions, masses, strict=True)) for positions, masses in ((u, a), (v, b)))
    total, i, j = 0.0, 0, 0
    left, right = first[0][1], second[0][1]
    while True:
        moved = min(left, right)
        total += moved * abs(first[i][0] - second[j][0]) ** p
        left, right = left - moved, right - moved
        if left <= right:
            i += 1
            if i == len(first):
                return total
            left = first[i][1]
        else:
            j += 1
            if j == len(second):
                return total
            right = second[j][1]


@given(
    u=st.lists(st.integers(-8, 8), min_size=1, max_size=12),
    v=st.lists(st.integers(-8, 8), min_size=1, max_size=12),
    p=st.sampled_from([1.0, 1.5, 2.0, 4.0]),
    seed=st.integers(0, 99),
    uniform=st.booleans(),
)
def test_line_against_the_corner_rule(u: list[int], v: list[int], p: float, seed: int, uniform: bool) -> None:
    """With ties within and across, and weights whose sums tie."""
    a, b = (torch.full((len(t),), 1.0 / len(t), dtype=torch.float64) for t in (u, v))
    given_weights: tuple[Tensor, ...] = ()
    if not uniform:
        generator = torch.Generator().manual_seed(seed)
        a, b = (torch.randint(0, 3, (len(t),), generator=generator).double() + 0.0 for t in (u, v))
        a[0] += 1.0
        b[0] += 1.0
        a, b = a / a.sum(), b / b.sum()
        given_weights = a, b
    x, y = torch.tensor(u, dtype=torch.float64), torch.tensor(v, dtype=torch.float64)
    assert_solved(wasserstein_1d(x, y, *given_weights, p=p), oracle(u, v, a.tolist(), b.tolist(), p))


@pytest.mark.parametrize("p", [1, 2, 2.5])
def test_translation(p: float) -> None:
    """Along each direction the cost of a shift is its projection; the mean in 3-D is known, too."""
    x, shift = cloud(60, 3, 1), torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64)
    solution = sliced_wasserstein_distance(
        x, x + shift, p=p, n_projections=4000, seed=0, return_solution=True
    )
    assert_solved(solution.per_projection, (shift @ solution.projections).abs() ** p)
    # |<theta, s>| is uniform on [0, |s|] for theta uniform on the sphere in 3-D (Archimedes).
    expected = float(shift.norm()) * (1.0 / (p + 1.0)) ** (1.0 / p)
    assert abs(float(solution.value) - expected) < 4.0 * float(solution.standard_error)
    assert float(solution.standard_error) < 0.02 * expected


@pytest.mark.parametrize("sampling", ["normal", "orthogonal", "sobol"])
def test_gaussians(sampling: str) -> None:
    """N(0, I) and N(m, s^2 I): W_2^2 is <m, theta>^2 + (1 - s)^2, on average |m|^2 / D + (1 - s)^2."""
    d, n = 6, 20_000
    generator = torch.Generator().manual_seed(3)
    x, y = (torch.randn(n, d, generator=generator) for _ in range(2))
    mean = torch.linspace(-1, 1, d)
    solution = sliced_wasserstein_distance(
        x, 1.5 * y + mean, n_projections=600, seed=1, sampling=sampling, root=False, return_solution=True
    )
    exact = float(mean.square().sum()) / d + 0.25
    sample = 8.0 * (exact / n) ** 0.5  # of the points themselves
    assert abs(float(solution.value) - exact) < 4.0 * float(solution.standard_error) + sample
    assert torch.allclose(solution.projections.norm(dim=0), torch.ones(600), atol=1e-5)


def test_orthogonal_directions() -> None:
    solution = sliced_wasserstein_distance(
        cloud(5, 4, 0), cloud(6, 4, 1), n_projections=10, sampling="orthogonal", return_solution=True
    )
    block = solution.projections[:, 4:8]
    assert_solved(block.T @ block, torch.eye(4, dtype=torch.float64))


@pytest.mark.parametrize("p", [1, 2, 3])
def test_metamorphic(p: float) -> None:
    x, y, a, b = cloud(300, 3, 0), cloud(200, 3, 1), weights(300, 2), weights(200, 3)
    theta = torch.randn(3, 20, dtype=torch.float64)

    def value(x: Tensor, y: Tensor, a: Tensor, b: Tensor, theta: Tensor = theta) -> Tensor:
        result: Tensor = sliced_wasserstein_distance(x, y, a, b, projections=theta, p=p)
        return result

    expected = value(x, y, a, b)
    order = torch.randperm(300)
    assert_solved(value(x[order], y, a[order], b), expected)
    assert_solved(value(y, x, b, a), expected)
    assert_solved(value(x + 5.0, y + 5.0, a, b), expected)
    assert_solved(value(3.0 * x, 3.0 * y, a, b), 3.0 * expected)
    assert_solved(value(x, y, a, b, 2.0 * theta), 2.0 * expected)
    rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    assert_solved(value(x @ rotation, y @ rotation, a, b, rotation.T @ theta), expected)
    # A point split in two of half its weight.
    twice, half = torch.cat([x, x[:1]]), torch.cat([a, a[:1] / 2])
    half[0] = a[0] / 2
    assert_solved(value(twice, y, half, b), expected)
    assert float(value(x, x, a, a)) == 0.0


def test_batches_equal_loops() -> None:
    x, y = cloud(40, 3, 0, batch=4), cloud(30, 3, 1, batch=4)
    a, b = weights(40, 2, batch=4), weights(30, 3, batch=4)
    theta = torch.randn(3, 9, dtype=torch.float64)
    for given_weights in ((), (a, b)):
        rows = [
            sliced_wasserstein_distance(x[i], y[i], *(w[i] for w in given_weights), projections=theta)
            for i in range(4)
        ]
        batch = sliced_wasserstein_distance(x, y, *given_weights, projections=theta)
        assert torch.equal(batch, torch.stack(rows))
        lists = [list(t) for t in (x, y, *given_weights)]
        assert torch.equal(sliced_wasserstein_distance(*lists, projections=theta), batch)
    own = torch.randn(4, 3, 9, dtype=torch.float64)
    rows = [sliced_wasserstein_distance(x[i], y[i], projections=own[i]) for i in range(4)]
    assert torch.equal(sliced_wasserstein_distance(x, y, projections=own), torch.stack(rows))


def test_ragged_batches_and_their_gradients() -> None:
    sizes = [(3, 9), (50, 20), (7, 7)]
    xs = [cloud(n, 2, i).requires_grad_() for i, (n, _) in enumerate(sizes)]
    ys = [cloud(m, 2, i + 9) for i, (_, m) in enumerate(sizes)]
    theta = torch.randn(2, 11, dtype=torch.float64)
    values = sliced_wasserstein_distance(xs, ys, projections=theta)
    rows = torch.stack(
        [sliced_wasserstein_distance(*pair, projections=theta) for pair in zip(xs, ys, strict=True)]
    )
    assert torch.equal(values, rows)
    u = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    pairs = zip(torch.autograd.grad(values @ u, xs), torch.autograd.grad(rows @ u, xs), strict=True)
    for mine, other in pairs:
        assert_solved(mine, other)
    nested = torch.nested.nested_tensor(xs, layout=torch.jagged)
    others = torch.nested.nested_tensor(ys, layout=torch.jagged)
    assert torch.equal(sliced_wasserstein_distance(nested, others, projections=theta), rows)


@pytest.mark.parametrize("root", [True, False])
@pytest.mark.parametrize("p", [2.0, 3.0])
def test_derivatives(p: float, root: bool) -> None:
    def value(x: Tensor, y: Tensor, a: Tensor, b: Tensor, theta: Tensor) -> Any:
        return sliced_wasserstein_distance(x, y, a / a.sum(), b / b.sum(), projections=theta, p=p, root=root)

    inputs = [t.clone().requires_grad_() for t in (X, Y, A, B, THETA)]
    assert gradcheck(value, inputs)
    assert gradgradcheck(value, inputs)

    def uniform(x: Tensor, y: Tensor) -> Any:
        return sliced_wasserstein_distance(x, y, projections=THETA, p=p, root=root)

    assert gradcheck(uniform, inputs[:2])
    assert gradgradcheck(uniform, inputs[:2])
    assert gradcheck(uniform, inputs[:2], check_forward_ad=True)
    assert gradcheck(lambda x, y: sliced_wasserstein_distance(
        x, y, projections=THETA, p=p, return_solution=True).per_projection, inputs[:2])  # fmt: skip


def test_gradients_do_not_depend_on_the_way() -> None:
    """Directly, along with others, and where it will be differentiated again: kernel and reference."""
    x = cloud(200, 3, 0).requires_grad_()
    y, theta = cloud(150, 3, 1), torch.randn(3, 30, dtype=torch.float64).requires_grad_()
    for given_weights in ((), (weights(200, 2), weights(150, 3))):
        fixed = sliced_wasserstein_distance(x, y, *given_weights, projections=theta.detach())
        (direct,) = torch.autograd.grad(fixed, x)
        moving = sliced_wasserstein_distance(x, y, *given_weights, projections=theta)
        assert_solved(torch.autograd.grad(moving, (x, theta), retain_graph=True)[0], direct)
        assert_solved(torch.autograd.grad(moving, x, create_graph=True)[0], direct)


def test_value_of_equal_clouds_has_gradient_zero() -> None:
    x = cloud(20, 3, 0).requires_grad_()
    for create_graph in (False, True):
        value = sliced_wasserstein_distance(x, x.detach().clone(), seed=0)
        (gradient,) = torch.autograd.grad(value, x, create_graph=create_graph)
        assert float(value) == 0.0
        assert not bool(gradient.any())


def test_func_transforms() -> None:
    x, y = cloud(9, 2, 0, batch=3), cloud(6, 2, 1, batch=3)

    def value(x: Tensor, y: Tensor) -> Any:
        return sliced_wasserstein_distance(x, y, projections=THETA)

    assert_solved(torch.vmap(value)(x, y), value(x, y))
    gradients = torch.vmap(torch.func.grad(value))(x, y)
    assert_solved(gradients, torch.stack([torch.func.grad(value)(*pair) for pair in zip(x, y, strict=True)]))
    assert torch.func.hessian(value)(x[0], y[0]).shape == (9, 2, 9, 2)
    tangent = torch.randn_like(x)
    _, change = torch.func.jvp(lambda x: value(x, y), (x,), (tangent,))
    slopes = torch.func.grad(lambda x: value(x, y).sum())(x)
    assert_solved(change, (slopes * tangent).sum((1, 2)))
    many = torch.randn(2, 3, 9, 2, dtype=torch.float64)
    assert_solved(torch.vmap(lambda x: value(x, y))(many), torch.stack([value(x, y) for x in many]))
    own = torch.randn(3, 2, 5, dtype=torch.float64)
    by_map = torch.vmap(lambda x, y, theta: sliced_wasserstein_distance(x, y, projections=theta))(x, y, own)
    assert_solved(by_map, sliced_wasserstein_distance(x, y, projections=own))


def test_compiles() -> None:
    def value(x: Tensor, y: Tensor) -> Any:
        return sliced_wasserstein_distance(x, y, projections=THETA)

    compiled = torch.compile(value, fullgraph=True, dynamic=True, backend="aot_eager")
    x = X.clone().requires_grad_()
    again = X.clone().requires_grad_()
    compiled(x, Y).backward()
    value(again, Y).backward()
    assert x.grad is not None
    assert again.grad is not None
    assert_solved(x.grad, again.grad)


def test_operator() -> None:
    options = Options(2.0, True, True, True, (), (), True, True)
    for lead in ((), (3,)):
        x, y = torch.rand(*lead, 7, 2, requires_grad=True), torch.rand(*lead, 5, 2, requires_grad=True)
        a, b = torch.full((*lead, 7), 1 / 7), torch.full((*lead, 5), 1 / 5)
        opcheck(torch.ops.otcore.sliced.default, (x, y, a, b, torch.randn(2, 6), *options))


def test_half_precision_and_numpy() -> None:
    x, y = X.half(), Y.half()
    value = sliced_wasserstein_distance(x, y, projections=THETA.float())
    assert value.dtype == torch.float32
    assert_solved(value, sliced_wasserstein_distance(x.float(), y.float(), projections=THETA.float()))
    arrays = sliced_wasserstein_distance(X.numpy(), Y.numpy(), projections=THETA.numpy())
    assert isinstance(arrays, numpy.floating)
    assert_solved(torch.as_tensor(arrays), sliced_wasserstein_distance(X, Y, projections=THETA))


def test_float32_is_close_to_float64() -> None:
    x, y = cloud(3000, 8, 0), cloud(2500, 8, 1) + 0.1
    theta = torch.nn.functional.normalize(torch.randn(8, 40, dtype=torch.float64), dim=0)
    wide = sliced_wasserstein_distance(x, y, projections=theta)
    narrow = sliced_wasserstein_distance(*(t.float() for t in (x, y)), projections=theta.float())
    assert abs(float(narrow) - float(wide)) < rounding(torch.float32, float(wide))


def test_seeds_and_generators() -> None:
    def value(**options: Any) -> float:
        return float(sliced_wasserstein_distance(X, Y, **options))

    assert value(seed=3) == value(seed=3) != value(seed=4)
    draws = [value(generator=torch.Generator().manual_seed(5), sampling=s) for s in ("normal", "sobol") * 2]
    assert draws[:2] == draws[2:]
    assert value() != value()
    torch.manual_seed(7)
    first = value()
    torch.manual_seed(7)
    assert value() == first


def test_standard_error_is_that_of_repeated_draws() -> None:
    x, y = cloud(50, 5, 0), cloud(50, 5, 1) * torch.tensor([1, 2, 1, 0.5, 3], dtype=torch.float64)
    solutions = [
        sliced_wasserstein_distance(x, y, n_projections=40, seed=seed, return_solution=True)
        for seed in range(200)
    ]
    spread = torch.stack([s.value for s in solutions]).std()
    told = torch.stack([s.standard_error for s in solutions]).mean()
    assert 0.8 < float(told / spread) < 1.25
    single = sliced_wasserstein_distance(x, y, n_projections=1, return_solution=True)
    assert math.isnan(float(single.standard_error))


def test_module() -> None:
    module = SlicedWasserstein(n_projections=30, p=1, seed=2)
    assert_solved(module(X, Y), sliced_wasserstein_distance(X, Y, n_projections=30, p=1, seed=2))
    assert_solved(module(X, Y, A, B), sliced_wasserstein_distance(X, Y, A, B, 30, 1, seed=2))
    fixed = SlicedWasserstein(projections=THETA)
    assert_solved(fixed(X, Y), sliced_wasserstein_distance(X, Y, projections=THETA))
    assert "n_projections=30" in repr(module)


NAN = torch.full_like(X, float("nan"))
BAD: dict[str, tuple[tuple[Any, ...], dict[str, Any], str]] = {
    "p below 1": ((X, Y), {"p": 0.5}, "p is 0.5; use a finite number, at least 1"),
    "p nan": ((X, Y), {"p": float("nan")}, "p is nan"),
    "p text": ((X, Y), {"p": "2"}, "p is '2'"),
    "zero projection": (
        (X, Y),
        {"projections": torch.tensor([[1.0, 0.0], [1.0, 0.0]]).double()},
        "zero vector in column 1",
    ),
    "nan projection": ((X, Y), {"projections": THETA * float("nan")}, "not finite in column 0"),
    "projections of other points": ((X, Y), {"projections": THETA.T}, r"projections has shape \(4, 2\)"),
    "no projections": ((X, Y), {"projections": THETA[:, :0]}, r"use \(2, L\)"),
    "projections as a list": ((X, Y), {"projections": [[1.0], [0.0]]}, "projections is a list"),
    "projections of another dtype": ((X, Y), {"projections": THETA.float()}, "projections.to"),
    "negative weights": ((X, Y, -A, B), {}, "a has -0.*not negative"),
    "nan weights": ((X, Y, A, B * float("nan")), {}, "b has nan"),
    "other mass": ((X, Y, A, 2 * B), {}, "mass"),
    "shape of weights": ((X, Y, B, B), {}, r"a has shape \(5,\)"),
    "empty cloud": ((X[:0], Y), {}, "without a point"),
    "empty other cloud": ((X, Y[:0]), {}, "without a point"),
    "other dimension": ((X, Y[:, :1]), {}, "x has 2 coordinates a point and y has 1"),
    "other dtype": ((X, Y.float()), {}, "convert one"),
    "whole numbers": ((X.long(), Y.long()), {}, "use float32 or float64"),
    "nan points": ((NAN, Y), {}, r"x has nan at \[0, 0\]"),
    "infinite points": ((X, Y / 0.0), {}, "y has inf at"),
    "no direction": ((X, Y), {"n_projections": 0}, "n_projections is 0"),
    "half a direction": ((X, Y), {"n_projections": 2.5}, "n_projections is 2.5"),
    "sampling": ((X, Y), {"sampling": "quasi"}, "sampling is 'quasi'; use one of"),
    "seed": ((X, Y), {"seed": "a"}, "seed is 'a'"),
    "seed and generator": ((X, Y), {"seed": 1, "generator": torch.Generator()}, "give one of them"),
    "range": ((X.float() * 1e38, Y.float() * -3e38), {"projections": 9 * THETA.float()}, "beyond the range"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str) -> None:
    args, options, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        sliced_wasserstein_distance(*args, **options)


@pytest.mark.parametrize(
    ("args", "options", "message"),
    [
        ((X, Y[:, :1]), {}, "only their first dimensions may differ"),
        ((X[:0, 0], Y[:, 0]), {}, "at least one point"),
        ((X[:, 0], Y[:, 0], B), {}, "u_weights has shape"),
        ((X[:, 0], Y[:, 0]), {"p": 0}, "p is 0"),
        ((X[:, 0], Y[:, 0].float()), {}, "dtype"),
        (([0.0], Y[:, 0]), {}, "u_values is a list"),
        ((X[:, 0], Y[:, 0], -A, B), {}, "u_weights has -"),
    ],
)
def test_bad_input_on_the_line(args: tuple[Any, ...], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        otcore.wasserstein_1d(*args, **options)
