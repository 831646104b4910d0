"""The operator `otcore::sliced`, and its derivatives.

On CPU tensors the compiled kernel gives the value and, where the points are to be differentiated, their
gradient in the same call; a backward is then a multiplication. Elsewhere, and for derivatives in weights and
projections and for second ones, `otcore.quantiles` is differentiated.

Clouds are (B, N, D) and (B, M, D), weights (B, N) and (B, M), or ragged as `otcore.ragged` says; projections
(D, L), or (items, D, L). A single pair of clouds may also come as (N, D), (M, D), (N,) and (M,), and its
results then lack the first dimension, so that small problems spend no time on reshaping.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from . import _core, ragged
from .autograd import Differentiable, _below_autograd, _compiling, _flattened, _scaled, _unflattened
from .directions import check_projections
from .problem import Problem, check_values
from .quantiles import root_slope, rooted, transport
from .ragged import Sizes
from .sliced_triton import triton_slices, triton_takes

# Numbers in a block of projections that the plain formulation sorts at a time.
_BLOCK_ENTRIES = 2**21
# Numbers from which torch would use its threads for a product; they spin for a while afterwards.
_NATIVE_SCALE = 2**15


class Options(NamedTuple):
    """given: whether the projections are the user's, and to be checked; n and m empty for a regular batch."""

    p: float
    root: bool
    weighted: bool
    given: bool
    n: Sequence[int]
    m: Sequence[int]
    need_x: bool
    need_y: bool


_SCHEMA = (
    "sliced(Tensor x, Tensor y, Tensor a, Tensor b, Tensor projections, float p, bool root, bool weighted, "
    "bool given, int[] n, int[] m, bool need_x, bool need_y) -> (Tensor, Tensor, Tensor, Tensor)"
)


class Measures(NamedTuple):
    """What is compared, checked: clouds as the operator takes them, empty weights where they are uniform."""

    x: Tensor
    y: Tensor
    a: Tensor
    b: Tensor
    weighted: bool
    n: Sequence[int]
    m: Sequence[int]

    @property
    def items(self) -> int:
        """How many pairs of clouds there are."""
        return (self.x.shape[0] if self.x.dim() == 3 else 1) * max(1, len(self.n))


def _problem(x: Tensor, y: Tensor, a: Tensor, b: Tensor, options: Options) -> Problem:
    sizes = Sizes(tuple(options.n), tuple(options.m)) if options.n else None
    if x.dim() == 2:
        x, y, a, b = (t.unsqueeze(0) for t in (x, y, a, b))
    return Problem(x, y, a, b, 2, 1.0, weighted=options.weighted, sizes=sizes)


def check_measures(measures: Measures) -> None:
    """Check the numbers: points finite, weights finite, not negative and of equal masses."""
    x, y, a, b, weighted, n, m = measures
    check_values(_problem(x, y, a, b, Options(1.0, False, weighted, False, n, m, False, False)))


def _sliced(x: Tensor, y: Tensor, a: Tensor, b: Tensor, projections: Tensor, *rest: Any) -> Any:
    options = Options(*rest)
    native = x.device.type == "cpu"
    if options.given:
        check_projections(projections)
    # The kernel sees for itself whether projections are finite, and so whether points are.
    if options.weighted or not native:
        check_values(_problem(x, y, a, b, options))
    if native:
        return _native(x, y, a, b, projections, options)
    if not options.weighted and not options.n and triton_takes(x, y, projections):
        return by_triton(x, y, projections, options)
    with torch.enable_grad():
        points = [t.detach().requires_grad_() for t in (x, y)]
        value, costs = dense((*points, a, b, projections), options)
        g_x, g_y = torch.autograd.grad(value.sum(), points)
    return (
        value.detach(),
        costs.detach(),
        g_x if options.need_x else x.new_empty(0),
        g_y if options.need_y else x.new_empty(0),
    )


def _native(x: Tensor, y: Tensor, a: Tensor, b: Tensor, projections: Tensor, options: Options) -> Any:
    *rows, points_x, d = x.shape
    count = projections.shape[-1]
    n, m = list(options.n) or [points_x], list(options.m) or [y.shape[-2]]
    if rows:
        n, m = n * rows[0], m * rows[0]
        rows = [len(n)]
    value, costs = x.new_empty(rows), x.new_empty([*rows, count])
    x, y, projections = x.contiguous(), y.contiguous(), projections.contiguous()
    a, b = a.contiguous(), b.contiguous()
    g_x = x.new_empty(x.shape if options.need_x else 0)
    g_y = y.new_empty(y.shape if options.need_y else 0)
    finite = _core.sliced(
        x.dtype == torch.float64,
        x.data_ptr(),
        y.data_ptr(),
        a.data_ptr() if options.weighted else 0,
        b.data_ptr() if options.weighted else 0,
        projections.data_ptr(),
        n,
        m,
        d,
        count,
        projections.dim() == 3,
        options.p,
        options.root,
        torch.get_num_threads(),
        value.data_ptr(),
        costs.data_ptr(),
        g_x.data_ptr() if options.need_x else 0,
        g_y.data_ptr() if options.need_y else 0,
    )
    if not finite:
        check_values(_problem(x, y, a, b, options))
        raise ValueError(
            f"x and y have projections beyond the range of {x.dtype}; scale the points down, or use float64."
        )
    return value, costs, g_x, g_y


def by_triton(x: Tensor, y: Tensor, projections: Tensor, options: Options) -> tuple[Tensor, ...]:
    """What the operator returns, from `triton_slices`."""
    single, needs = x.dim() == 2, (options.need_x, options.need_y)
    points = (x.unsqueeze(0), y.unsqueeze(0)) if single else (x, y)
    costs, *gradients = triton_slices(*points, projections, options.p, need_x=needs[0], need_y=needs[1])
    mean = costs.double().mean(-1)
    value, slope = mean, torch.ones_like(mean)
    if options.root:
        value, slope = rooted(mean, options.p), root_slope(mean, options.p)
    results = [value.to(x.dtype), costs]
    results += [x.new_empty(0) if g is None else g.mul_(slope.to(g.dtype)[:, None, None]) for g in gradients]
    return tuple(t.squeeze(0) if single and t.numel() else t for t in results)


def _fake(x: Tensor, y: Tensor, a: Tensor, b: Tensor, projections: Tensor, *rest: Any) -> Any:
    options = Options(*rest)
    rows = [x.shape[0] * max(1, len(options.n))] if x.dim() == 3 else []
    return (
        x.new_empty(rows),
        x.new_empty([*rows, projections.shape[-1]]),
        x.new_empty(x.shape if options.need_x else 0),
        y.new_empty(y.shape if options.need_y else 0),
    )


def dense(inputs: Sequence[Tensor], options: Options) -> tuple[Tensor, Tensor]:
    """The value (items,) and the costs (items, L) by plain PyTorch in float64: the reference.

    The inputs are x, y, a, b and projections.
    """
    costs = dense_costs(inputs, options)
    mean = costs.mean(-1)
    value = rooted(mean, options.p) if options.root else mean
    return value.to(inputs[0].dtype), costs.to(inputs[0].dtype)


def dense_costs(inputs: Sequence[Tensor], options: Options) -> Tensor:
    """W_p^p along each direction, (items, L), in float64."""
    *measures, projections = (t.double() for t in inputs)
    if projections.dim() == 2:
        projections = projections.unsqueeze(0)
    if measures[0].dim() == 2:
        return _costs([t.unsqueeze(0) for t in measures], projections, options).squeeze(0)
    if not options.n:
        return _costs(measures, projections, options)
    n, m = options.n, options.m
    parts = zip(*(ragged.split(t, c) for t, c in zip(measures, (n, m, n, m), strict=True)), strict=True)
    shared = len(projections) == 1
    return torch.cat(
        [
            _costs(part, projections if shared else projections[i : i + 1], options)
            for i, part in enumerate(parts)
        ]
    )


def _costs(measures: Sequence[Tensor], projections: Tensor, options: Options) -> Tensor:
    x, y, a, b = measures
    u, v = (x @ projections).mT, (y @ projections).mT
    if not options.weighted:
        return transport(u, v, None, None, options.p)
    return transport(u, v, a.unsqueeze(1), b.unsqueeze(1), options.p)


def _pulled(ctx: Any, u_value: Tensor | None, u_costs: Tensor | None) -> Sequence[Tensor]:
    """The cotangents of points, weights and projections, by the plain formulation; differentiable again."""
    options = ctx.options
    known = ctx.saved_tensors[:5]
    (value, costs), pull, *_ = torch.func.vjp(lambda *t: dense(t, options), *known)
    u_value = torch.zeros_like(value) if u_value is None else u_value
    u_costs = torch.zeros_like(costs) if u_costs is None else u_costs
    result: Sequence[Tensor] = pull((u_value, u_costs))
    return result


def _pulled_by_blocks(ctx: Any, u_value: Tensor | None, u_costs: Tensor | None) -> list[Tensor]:
    """The same some directions at a time, in memory linear in the points."""
    x, y, a, b, projections, *_, costs = ctx.saved_tensors
    options: Options = ctx.options
    u = torch.zeros_like(costs, dtype=torch.float64) if u_costs is None else u_costs.double()
    if u_value is not None:
        slope = u_value.double() / costs.shape[-1]
        if options.root:
            slope = slope * root_slope(costs.double().mean(-1), options.p)
        u = u + slope.unsqueeze(-1)
    size = max(1, _BLOCK_ENTRIES // ((x.numel() + y.numel()) // x.shape[-1]))
    total = [torch.zeros_like(t) for t in (x, y, a, b)]
    along = []
    with torch.enable_grad():
        for first in range(0, u.shape[-1], size):
            block, own = projections[..., first : first + size], u[..., first : first + size]
            inputs = [t.detach().requires_grad_() for t in (x, y, a, b, block)]
            *parts, last = torch.autograd.grad(
                dense_costs(inputs, options), inputs, own, allow_unused=True, materialize_grads=True
            )
            total = [t + part for t, part in zip(total, parts, strict=True)]
            along.append(last)
    return [*total, torch.cat(along, -1)]


def _over_items(u: Tensor, gradient: Tensor, counts: Sequence[int]) -> Tensor:
    """The gradient (B, N, D) times the cotangent (items,) of each item."""
    if gradient.device.type != "cpu" or gradient.numel() < _NATIVE_SCALE:
        return u * gradient if u.dim() == 0 else _scaled(u, gradient, counts)
    *rows, points, d = gradient.shape
    u, result = u.contiguous(), torch.empty_like(gradient)
    _core.scale_items(
        gradient.dtype == torch.float64,
        gradient.data_ptr(),
        u.data_ptr(),
        [count * d for count in counts or (points,)] * (rows[0] if rows else 1),
        torch.get_num_threads(),
        result.data_ptr(),
    )
    return result


def _backward(ctx: Any, u_value: Tensor | None, u_costs: Tensor | None, again: bool) -> Any:
    """`again`: whether the result is to be differentiated."""
    need, options = ctx.needs_input_grad[:5], ctx.options
    rest = (None,) * (len(ctx.needs_input_grad) - 5)
    if u_value is None and u_costs is None:
        return *(None,) * 5, *rest
    if not again and u_costs is None and not any(need[2:]):
        g_x, g_y = ctx.saved_tensors[5:7]
        assert u_value is not None
        return (
            _over_items(u_value, g_x, options.n) if need[0] else None,
            _over_items(u_value, g_y, options.m) if need[1] else None,
            None,
            None,
            None,
            *rest,
        )
    pulled = (_pulled if again else _pulled_by_blocks)(ctx, u_value, u_costs)
    return *(g if wanted else None for g, wanted in zip(pulled, need, strict=True)), *rest


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs[:5], *output[2:], output[1])
    ctx.mark_non_differentiable(*output[2:])
    ctx.set_materialize_grads(False)
    ctx.options = inputs[5] if len(inputs) == 6 else Options(*inputs[5:])


class _Sliced(Differentiable):
    @staticmethod
    def forward(x: Tensor, y: Tensor, a: Tensor, b: Tensor, projections: Tensor, options: Options) -> Any:
        return _below_autograd(_sliced_op, (x, y, a, b, projections, *options))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _setup(ctx, inputs, output)
        ctx.save_for_forward(*inputs[:5])

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        again = torch.is_grad_enabled() or torch._C._are_functorch_transforms_active()
        return _backward(ctx, cotangents[0], cotangents[1], again)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        known = ctx.saved_tensors[:5]
        along = tuple(
            torch.zeros_like(t) if own is None else own for t, own in zip(known, tangents[:5], strict=True)
        )
        # The derivative of the reverse mode in its cotangents: forward mode does not nest.
        primal, pull, *_ = torch.func.vjp(lambda *t: dense(t, ctx.options), *known)
        zeros = tuple(torch.zeros_like(t) for t in primal)
        push = torch.func.vjp(pull, zeros)[1]
        ((value, costs),) = push(along)
        return value, costs, None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        *tensors, projections, options = args
        size = info.batch_size
        single = tensors[0].dim() == (2 if in_dims[0] is None else 3)
        if single:
            # The vmapped dimension is the batch.
            flat = [
                t.expand(size, *t.shape) if dim is None else t.movedim(dim, 0)
                for t, dim in zip(tensors, in_dims, strict=False)
            ]
        else:
            flat = _flattened(info, in_dims[:4], tensors)
        if in_dims[4] is not None or projections.dim() == 3:
            each = len(flat[0]) * max(1, len(options.n)) // size
            if in_dims[4] is None:
                projections = projections.unsqueeze(0).expand(size, *projections.shape)
            else:
                projections = projections.movedim(in_dims[4], 0)
            if projections.dim() == 3:
                projections = projections.unsqueeze(1)
            projections = projections.expand(-1, each, -1, -1).flatten(0, 1).contiguous()
        outputs = _Sliced.apply(*flat, projections, options)
        if single:
            return outputs, (0, 0, *(0 if t.dim() > 1 else None for t in outputs[2:]))
        unflat = [t if t.dim() == 1 and not len(t) else _unflattened(info, [t])[0][0] for t in outputs]
        return tuple(unflat), tuple(None if t.dim() == 1 and not len(t) else 0 for t in outputs)


_library: Any = torch.library.Library("otcore", "FRAGMENT")  # type: ignore[no-untyped-call]
_library.define(_SCHEMA)
for _device in ("CPU", "CUDA"):
    _library.impl("sliced", _sliced, _device)
torch.library.register_fake("otcore::sliced", cast(Any, _fake), lib=_library)
_sliced_op = torch.ops.otcore.sliced.default

# Function.apply asks for the signature of `forward` at every call; found here, it is not worked out anew.
vars(_Sliced.forward)["__signature__"] = inspect.signature(_Sliced.forward)


def _compiled_backward(ctx: Any, u_value: Any, u_costs: Any, *_: Any) -> Any:
    return _backward(ctx, u_value, u_costs, u_costs is not None or any(ctx.needs_input_grad[2:5]))


torch.library.register_autograd("otcore::sliced", _compiled_backward, setup_context=_setup)


def sliced(
    measures: Measures, projections: Tensor, p: float, root: bool, given: bool
) -> tuple[Tensor, Tensor]:
    """The value (items,) and W_p^p along each direction (items, L), differentiable."""
    x, y, a, b, weighted, n, m = measures
    grad = torch.is_grad_enabled()
    options = Options(p, root, weighted, given, n, m, grad and x.requires_grad, grad and y.requires_grad)
    if _compiling():
        value, costs, *_ = _sliced_op(x, y, a, b, projections, *options)
    else:
        value, costs, *_ = _Sliced.apply(x, y, a, b, projections, options)
    return value, costs
