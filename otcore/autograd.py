"""Derivatives of the operators, for eager PyTorch, torch.func and torch.compile.

Each operator has an `autograd.Function` with `vmap` and `jvp`, used in eager mode, and the same formula under
`register_autograd`, used when compiling; neither alone serves both. Both share their formulas.

The value of `solve` has exact gradients (envelope theorem) and, by `hvp`, exact second derivatives. The value
and potentials of `follow` have the gradient of their last half-step, the potentials before it and the other
cloud held constant: GeomLoss's convention.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd import Function

from .dual import weight_gradient
from .operators import Options, follow_grad_op, follow_op, grad_op, hvp_op, solve_op
from .ragged import per_item, per_point

_N_OPTIONS = len(Options._fields)
_NO_THIRD = "otcore: third derivatives are not implemented"
_NO_SECOND = (
    "otcore: SamplesLoss has first derivatives only, as its fixed schedule does not converge; "
    "sinkhorn_divergence has second derivatives"
)


def _flattened(info: Any, in_dims: Sequence[Any], args: Sequence[Any]) -> list[Any]:
    """The arguments with the vmapped dimension merged into the batch: (V, B, ...) -> (V B, ...)."""
    flat = []
    for arg, dim in zip(args, in_dims, strict=True):
        if isinstance(arg, Tensor):
            arg = arg.movedim(dim, 0) if dim is not None else arg.expand(info.batch_size, *arg.shape)
            arg = arg.flatten(0, 1).contiguous()
        flat.append(arg)
    return flat


def _unflattened(info: Any, outputs: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    size = info.batch_size
    unflat = tuple(t.reshape(size, t.shape[0] // size, *t.shape[1:]) for t in outputs)
    return unflat, (0,) * len(outputs)


def _scaled(cotangent: Tensor, gradient: Tensor, counts: Sequence[int]) -> Tensor:
    """The gradient in points (B, N, D) or weights (B, N), times the cotangent (items,) of their item."""
    each = per_point(cotangent, gradient.shape, counts)
    return (each.unsqueeze(-1) if gradient.dim() == 3 else each) * gradient


def _zero_if_none(tensor: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if tensor is None else tensor


def _below_autograd(operator: Any, args: Sequence[Any]) -> Any:
    """Call an operator where autograd is already taken care of, sparing the dispatcher half of its work."""
    with torch._C._AutoDispatchBelowAutograd():
        return operator(*args)


def _outside_graphs(function: type[Differentiable], operator: Any) -> Callable[..., Any]:
    """The operator itself where nothing records or transforms it, as in a plain backward, or the Function."""

    def call(*args: Any) -> Any:
        if torch.is_grad_enabled() or torch._C._are_functorch_transforms_active():
            return function.apply(*args)
        return _below_autograd(operator, args)

    return call


class Differentiable(Function):
    """An autograd.Function whose `apply` has a type."""

    if TYPE_CHECKING:

        @classmethod
        def apply(cls, *args: Any) -> Any: ...


class _Hvp(Differentiable):
    @staticmethod
    def forward(*args: Any) -> Any:
        return _below_autograd(hvp_op, args)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise RuntimeError(_NO_THIRD)

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> Any:
        raise RuntimeError(_NO_THIRD)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        return _unflattened(info, _Hvp.apply(*_flattened(info, in_dims, args)))


class _Grad(Differentiable):
    @staticmethod
    def forward(*args: Any) -> Any:
        return _below_autograd(grad_op, args)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs[:8])
        ctx.save_for_forward(*inputs[:8])
        *ctx.options, ctx.need_x, ctx.need_y = inputs[8:]
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        return _grad_backward(ctx, _Hvp.apply, cotangents)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        saved = ctx.saved_tensors
        u = [_zero_if_none(t, like) for t, like in zip(tangents[:4], saved[:4], strict=True)]
        h_x, h_y, h_a, h_b = _Hvp.apply(*saved, *u, *ctx.options)
        return (
            h_x if ctx.need_x else h_x.new_empty(0),
            h_y if ctx.need_y else h_y.new_empty(0),
            h_a,
            h_b,
        )

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        return _unflattened(info, _Grad.apply(*_flattened(info, in_dims, args)))


def _grad_backward(ctx: Any, product: Callable[..., Any], cotangents: Sequence[Any]) -> Any:
    """The Hessian is symmetric, so its product with the cotangents is the gradient."""
    saved = ctx.saved_tensors
    wanted = ctx.need_x, ctx.need_y, True, True
    u = [
        _zero_if_none(t if want else None, like)
        for t, want, like in zip(cotangents, wanted, saved[:4], strict=True)
    ]
    return *product(*saved, *u, *ctx.options), *(None,) * (4 + _N_OPTIONS + 2)


_call_grad = _outside_graphs(_Grad, grad_op)


class _Solve(Differentiable):
    @staticmethod
    def forward(*args: Any) -> Any:
        return _below_autograd(solve_op, args)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _solve_setup(ctx, inputs, output)
        ctx.save_for_forward(*inputs[:4], *output[1:5])

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        return _solve_backward(ctx, _call_grad, cotangents[0])

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        need = tangents[0] is not None, tangents[1] is not None
        gradients = _Grad.apply(*ctx.saved_tensors, *ctx.options, *need)
        n, m = _counts(ctx.options)
        total = None
        for tangent, gradient, counts in zip(tangents[:4], gradients, (n, m, n, m), strict=True):
            if tangent is not None:
                change = tangent * gradient
                change = per_item(change.sum(-1) if change.dim() == 3 else change, counts)
                total = change if total is None else total + change
        return total, None, None, None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        return _unflattened(info, _Solve.apply(*_flattened(info, in_dims, args)))


def _solve_setup(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs[:4], *output[1:5])
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)
    ctx.options = inputs[8 : 8 + _N_OPTIONS]


def _solve_backward(ctx: Any, gradient: Callable[..., Any], cotangent: Any) -> Any:
    rest = (None,) * (4 + _N_OPTIONS + 4)
    if cotangent is None:
        return None, None, None, None, *rest
    need = ctx.needs_input_grad[:4]
    n, m = _counts(ctx.options)
    gradients = gradient(*ctx.saved_tensors, *ctx.options, *need[:2])
    return (
        *(
            _scaled(cotangent, g, counts) if wanted else None
            for g, wanted, counts in zip(gradients, need, (n, m, n, m), strict=True)
        ),
        *rest,
    )


def _counts(options: Sequence[Any]) -> tuple[Sequence[int], Sequence[int]]:
    named = Options(*options)
    return named.n, named.m


class _FollowGrad(Differentiable):
    @staticmethod
    def forward(*args: Any) -> Any:
        return _below_autograd(follow_grad_op, args)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise RuntimeError(_NO_SECOND)

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> Any:
        raise RuntimeError(_NO_SECOND)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        return _unflattened(info, _FollowGrad.apply(*_flattened(info, in_dims, args)))


_call_follow_grad = _outside_graphs(_FollowGrad, follow_grad_op)


class _Follow(Differentiable):
    @staticmethod
    def forward(*args: Any) -> Any:
        return _below_autograd(follow_op, args)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _follow_setup(ctx, inputs, output)
        ctx.save_for_forward(*inputs[:4], *output[5:], *output[1:5])

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        return _follow_backward(ctx, _call_follow_grad, cotangents)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return _follow_jvp(ctx.saved_tensors, ctx.options, tangents[:4])

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        *flat, groups = _flattened(info, in_dims, args)
        return _unflattened(info, _Follow.apply(*flat, groups * info.batch_size))


def _follow_setup(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs[:4], *output[5:], *output[1:5])
    ctx.mark_non_differentiable(*output[5:])
    ctx.set_materialize_grads(False)
    ctx.options = inputs[4 : 4 + _N_OPTIONS]


def _follow_backward(ctx: Any, gradient: Callable[..., Any], cotangents: Sequence[Any]) -> Any:
    need_x, need_y, need_a, need_b = ctx.needs_input_grad[:4]
    saved, options, u = ctx.saved_tensors, ctx.options, cotangents[:5]
    rest = (None,) * (_N_OPTIONS + 4)
    g_x = g_y = g_a = g_b = None
    if (need_x or need_y) and any(t is not None for t in u):
        g_x, g_y = gradient(*saved, *u, *options, need_x, need_y)
    if u[0] is not None:
        n, m = _counts(options)
        g_a = _scaled(u[0], _follow_weight_gradient(saved, options, 0), n) if need_a else None
        g_b = _scaled(u[0], _follow_weight_gradient(saved, options, 1), m) if need_b else None
    return g_x if need_x else None, g_y if need_y else None, g_a, g_b, *rest


def _follow_weight_gradient(saved: Sequence[Tensor], options: Sequence[Any], side: int) -> Tensor:
    """The derivative of the value of `follow` in a (side 0) or b (side 1)."""
    named = Options(*options)
    rho = (named.rho_x, named.rho_y)[side]
    gradient = weight_gradient(saved[8 + side], named.eps, rho)
    if named.debias:
        gradient = gradient - weight_gradient(saved[10 + side], named.eps, rho)
    return gradient.to(saved[2 + side].dtype)


def _follow_jvp(saved: Sequence[Tensor], options: Sequence[Any], tangents: Sequence[Any]) -> Any:
    """A potential depends on its own points only: row by row, its tangent is its gradient of cotangent 1."""
    t_x, t_y, t_a, t_b = tangents
    x, _, a, b = saved[:4]
    debias = Options(*options).debias

    def directions(*cotangents: Tensor | None) -> tuple[Tensor, Tensor]:
        g_x, g_y = _FollowGrad.apply(*saved, *cotangents, *options, t_x is not None, t_y is not None)
        along_x = torch.zeros_like(a) if t_x is None else (g_x * t_x).sum(-1)
        along_y = torch.zeros_like(b) if t_y is None else (g_y * t_y).sum(-1)
        return along_x, along_y

    counts = _counts(options)
    ones = x.new_ones(len(x) * max(1, len(counts[0])))
    along_x, along_y = directions(ones, None, None, None, None)
    value = per_item(along_x, counts[0]) + per_item(along_y, counts[1])
    for side, tangent in enumerate((t_a, t_b)):
        if tangent is not None:
            change = tangent * _follow_weight_gradient(saved, options, side)
            value = value + per_item(change, counts[side])
    each = torch.ones_like(a), torch.ones_like(b)
    cross = directions(None, *each, None, None)
    self_terms = directions(None, None, None, *each) if debias else (cross[0][:, :0], cross[1][:, :0])
    return value, *cross, *self_terms, None, None, None, None


def _compiled_grad_setup(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs[:8])
    *ctx.options, ctx.need_x, ctx.need_y = inputs[8:]


def _raising(message: str) -> Callable[..., Any]:
    def backward(ctx: Any, *_: Any) -> Any:
        raise RuntimeError(message)

    return backward


# Function.apply asks for the signature of `forward` at every call; found here, it is not worked out anew.
for _forward in (_Hvp.forward, _Grad.forward, _Solve.forward, _FollowGrad.forward, _Follow.forward):
    vars(_forward)["__signature__"] = inspect.signature(_forward)

torch.library.register_autograd(
    "otcore::solve", lambda ctx, value, *_: _solve_backward(ctx, grad_op, value), setup_context=_solve_setup
)
torch.library.register_autograd(
    "otcore::grad", lambda ctx, *u: _grad_backward(ctx, hvp_op, u), setup_context=_compiled_grad_setup
)
torch.library.register_autograd("otcore::hvp", _raising(_NO_THIRD))
torch.library.register_autograd(
    "otcore::follow", lambda ctx, *u: _follow_backward(ctx, follow_grad_op, u), setup_context=_follow_setup
)
torch.library.register_autograd("otcore::follow_grad", _raising(_NO_SECOND))


def solve(*args: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """`otcore::solve`, differentiable wherever it is called: (value, f, g, f_xx, g_yy, info)."""
    result: tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
    result = solve_op(*args) if _compiling() else _Solve.apply(*args)
    return result


def follow(*args: Any) -> tuple[Tensor, ...]:
    """`otcore::follow`, differentiable wherever it is called: value, last potentials, and those before."""
    result: tuple[Tensor, ...]
    result = follow_op(*args) if _compiling() else _Follow.apply(*args)
    return result


def _compiling() -> bool:
    if not torch.compiler.is_compiling():
        return False
    # PyTorch would give zeros for forward mode here, and fail obscurely for the others.
    if torch._C._are_functorch_transforms_active():
        raise RuntimeError(
            "otcore: torch.compile cannot trace torch.func transforms of this function; call them eagerly, "
            "for instance behind torch.compiler.disable"
        )
    return True
