"""First and second derivatives, in every way PyTorch takes them; the operators' registration; compilation."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.library import opcheck

import otcore
from otcore import operators
from tests.problems import cloud, weights
from tests.tolerance import assert_solved

OPTIONS = [
    {},
    {"p": 1},
    {"reach": 0.6},
    {"reach": (0.6, None)},
    {"debias": False},
    {"debias": False, "reach": (0.4, 0.9)},
]
X, Y = cloud(6, 2, 0), cloud(5, 2, 1)


def divergence(**options) -> Callable[..., Tensor]:
    """The value as a function of points and of unconstrained weights."""

    def value(x: Tensor, y: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> Tensor:
        if a is not None and b is not None:
            a, b = a.softmax(-1), b.softmax(-1)
        return otcore.sinkhorn_divergence(x, y, a, b, **{"blur": 0.3, "tol": 1e-13, **options})

    return value


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_gradcheck(options: dict, backend: str) -> None:
    inputs = [t.clone().requires_grad_() for t in (X, Y, weights(6, 2), weights(5, 3))]
    value = divergence(backend=backend, **options)
    assert gradcheck(value, inputs, check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(value, inputs)


@pytest.mark.parametrize("reach", [0.6, (0.5, 0.9)], ids=str)
@pytest.mark.parametrize("debias", [True, False])
def test_weights_without_constraint(reach, debias: bool) -> None:
    """Unbalanced, the masses are free and the gradient in the weights is exact, constants included."""
    inputs = [weights(6, 2).requires_grad_(), weights(5, 3, mass=1.4).requires_grad_()]

    def value(a: Tensor, b: Tensor) -> Tensor:
        return otcore.sinkhorn_divergence(X, Y, a, b, blur=0.3, reach=reach, debias=debias, tol=1e-13)

    assert gradcheck(value, inputs)
    assert gradgradcheck(value, inputs)


def test_batched_gradients() -> None:
    inputs = [cloud(5, 2, 0, batch=2).requires_grad_(), cloud(4, 2, 1, batch=2).requires_grad_()]
    assert gradcheck(divergence(), inputs)
    assert gradgradcheck(divergence(), inputs)


@pytest.mark.parametrize("options", [{}, {"p": 1, "reach": 0.5}], ids=str)
def test_functorch(options: dict, backend: str) -> None:
    value = divergence(backend=backend, **options)
    x = X.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(x, Y), x)
    assert_solved(torch.func.grad(value)(X, Y), gradient)
    assert_solved(torch.func.jacrev(value)(X, Y), gradient)
    tangent = cloud(6, 2, 7)
    assert_solved(torch.func.jvp(lambda x: value(x, Y), (X,), (tangent,))[1], (gradient * tangent).sum())
    hessian = torch.autograd.functional.hessian(lambda x: value(x, Y), X)
    assert_solved(torch.func.hessian(value)(X, Y), hessian)
    assert_solved(torch.func.jacrev(torch.func.jacrev(value))(X, Y), hessian)


def test_vmap(backend: str) -> None:
    value = divergence(backend=backend)
    many = cloud(6, 2, 5, batch=3)
    assert_solved(torch.vmap(value, (0, None))(many, Y), torch.stack([value(x, Y) for x in many]))
    gradients = torch.stack([torch.func.grad(value)(x, Y) for x in many])
    assert_solved(torch.vmap(torch.func.grad(value), (0, None))(many, Y), gradients)
    nested = torch.vmap(torch.vmap(value, (0, None)), (None, 0))(many, torch.stack([Y, Y + 1]))
    assert nested.shape == (2, 3)
    assert_solved(nested[1, 2], value(many[2], Y + 1))


def test_vmap_of_samples_loss_keeps_each_diameter() -> None:
    loss = otcore.SamplesLoss(blur=0.1)
    many = cloud(6, 2, 5, batch=3) * torch.tensor([1.0, 10.0, 0.1]).double().view(3, 1, 1)
    each = torch.stack([loss(x, Y) for x in many])
    assert_solved(torch.vmap(loss, (0, None))(many, Y), each)


def test_only_wanted_gradients() -> None:
    y = Y.clone().requires_grad_()
    both = torch.autograd.grad(divergence()(X.clone().requires_grad_(), y), y)[0]
    assert_solved(torch.autograd.grad(divergence()(X, y), y)[0], both)


def test_third_derivatives_raise() -> None:
    x = X.clone().requires_grad_()
    (first,) = torch.autograd.grad(divergence()(x, Y), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="third derivatives"):
        torch.autograd.grad(second.sum(), x)


def test_samples_loss_forward_mode() -> None:
    loss = otcore.SamplesLoss(blur=0.2, reach=0.7)
    tangent = cloud(6, 2, 7)
    (gradient,) = torch.func.vjp(lambda x: loss(x, Y), X)[1](torch.ones((), dtype=torch.float64))
    assert_solved(torch.func.jvp(lambda x: loss(x, Y), (X,), (tangent,))[1], (gradient * tangent).sum())


def test_samples_loss_has_no_second_derivative() -> None:
    loss = otcore.SamplesLoss(blur=0.2)
    with pytest.raises(RuntimeError, match="sinkhorn_divergence has second derivatives"):
        torch.autograd.functional.hessian(lambda x: loss(x, Y), X)
    with pytest.raises(RuntimeError, match="sinkhorn_divergence has second derivatives"):
        torch.func.hessian(lambda x: loss(x, Y))(X)


def test_callable_cost() -> None:
    """The square written out gives what p = 2 gives, values and gradients; a second derivative raises."""
    inputs = [t.clone().requires_grad_() for t in (X, Y, weights(6, 2), weights(5, 3))]

    def square(x: Tensor, y: Tensor) -> Tensor:
        return (x.unsqueeze(2) - y.unsqueeze(1)).square().sum(-1) / 2

    for options in OPTIONS:
        if options.get("p", 2) == 2:
            named, written = divergence(**options)(*inputs), divergence(cost=square, **options)(*inputs)
            assert_solved(written, named)
            for got, want in zip(
                torch.autograd.grad(written, inputs), torch.autograd.grad(named, inputs), strict=True
            ):
                assert_solved(got, want)
    x = inputs[0]
    (gradient,) = torch.autograd.grad(divergence(cost=square)(x, Y), x, create_graph=True)
    with pytest.raises(RuntimeError, match="a callable cost has first derivatives only"):
        torch.autograd.grad(gradient.sum(), x)


BALANCED = (2, 0.1, math.inf, math.inf, True, "dense", 0.0, True, "", [], [], False)
BIASED = (1, 0.1, 0.5, math.inf, False, "dense", 0.0, True, "", [], [], False)


@pytest.mark.parametrize("options", [BALANCED, BIASED], ids=["balanced", "semi-unbalanced"])
def test_opcheck(options: tuple) -> None:
    a, b = weights(6, 2)[None], weights(5, 3)[None]
    plain = X[None].clone(), Y[None].clone(), a, b
    wanted = tuple(t.clone().requires_grad_() for t in plain)
    init = (None,) * 4
    opcheck(operators.solve_op, (*wanted, *init, *options, 0.5, None, 1e-9, 100))
    duals = operators.solve_op(*plain, *init, *options, 0.5, None, 1e-9, 100)[1:5]
    opcheck(operators.solve_op, (*wanted, *duals, *options, 0.5, 2.0, 1e-9, 100))
    opcheck(operators.grad_op, (*wanted, *duals, *options, True, False))
    opcheck(operators.hvp_op, (*plain, *duals, *(torch.rand_like(t) for t in plain), *options))
    opcheck(operators.follow_op, (*wanted, *options, 0.3, 0.5, None, 1))
    cotangents = torch.ones(1, dtype=torch.float64), *(torch.rand_like(t) for t in duals)
    opcheck(operators.follow_grad_op, (*plain, *duals, *duals, *cotangents, *options, True, True))


COMPILED = {
    "divergence": lambda x, y: otcore.sinkhorn_divergence(x, y, blur=0.2, tol=1e-10),
    "unbalanced": lambda x, y: otcore.sinkhorn_divergence(x, y, p=1, blur=0.2, reach=0.5, tol=1e-10),
    "module": otcore.SinkhornDivergence(blur=0.2, tol=1e-10),
    "samples loss": otcore.SamplesLoss(blur=0.2),
    "potentials": lambda x, y: sum(
        t.square().sum() for t in otcore.SamplesLoss(blur=0.2, potentials=True)(x, y)
    ),
}


@pytest.mark.parametrize("name", COMPILED)
def test_compile(name: str, backend: str) -> None:
    """The whole graph, with dynamic shapes, forward and backward, without code generation."""
    function = COMPILED[name]
    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend="aot_eager")
    for n in (6, 11):
        x = cloud(n, 2, n).requires_grad_()
        got, want = compiled(x, Y), function(x, Y)
        assert_solved(got, want)
        assert_solved(torch.autograd.grad(got, x)[0], torch.autograd.grad(want, x)[0])


def test_compile_inductor() -> None:
    x = X.clone().requires_grad_()
    function = COMPILED["divergence"]
    compiled = torch.compile(function, fullgraph=True, dynamic=True)
    assert_solved(torch.autograd.grad(compiled(x, Y), x)[0], torch.autograd.grad(function(x, Y), x)[0])


def test_double_backward_through_compile_raises() -> None:
    """A limit of PyTorch, pinned so that a change is noticed."""
    x = X.clone().requires_grad_()
    compiled = torch.compile(COMPILED["divergence"], fullgraph=True, backend="aot_eager")
    (gradient,) = torch.autograd.grad(compiled(x, Y), x, create_graph=True)
    with pytest.raises(RuntimeError, match=r"double backward|not have been used in the graph"):
        torch.autograd.grad(gradient.sum(), x)
