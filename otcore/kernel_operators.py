"""The operators `otcore::kernel_loss` and `otcore::kernel_gradient`, and their derivatives.

With the signed weights w = (a, -b) on the points z = (x, y), the loss is <w, K w> / 2 for a radial kernel K,
summed over the `blurs`: its gradient is K w in w, and w_l sum_m w_m dK_lm/dz_l in z_l. The Hausdorff
divergence (`otcore.hausdorff`) has the same operators. A forward that will be differentiated computes the
gradient in the same pass.

Sums over pairs take memory linear in the number of points; second derivatives take plain PyTorch on matrices.

Clouds are (B, N, D) and (B, M, D), weights (B, N) and (B, M). An absent gradient is (B, 0, ...).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from . import _core, hausdorff
from .autograd import Differentiable, _below_autograd, _flattened, _unflattened, _zero_if_none
from .problem import Problem, check_values

_BLOCK_ENTRIES = 2**20

Four = tuple[Tensor, Tensor, Tensor, Tensor]


class Options(NamedTuple):
    """What both operators take, in this order.

    kernel: a name of `_core.Kernel`, or "hausdorff" with one blur. unbiased: leave out the diagonal and raise
    the terms within a cloud of n points by n / (n - 1). p: the exponent of the Hausdorff divergence's cost.
    """

    kernel: str
    blurs: Sequence[float]
    unbiased: bool
    p: int
    backend: str


_N_OPTIONS = len(Options._fields)
_CLOUDS = "Tensor x, Tensor y, Tensor a, Tensor b"
_OPTIONS = "str kernel, float[] blurs, bool unbiased, int p, str backend"
_SCHEMAS = (
    f"kernel_loss({_CLOUDS}, {_OPTIONS}, bool weighted, bool potentials, bool need) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    f"kernel_gradient({_CLOUDS}, Tensor g_x, Tensor g_y, Tensor g_a, Tensor g_b, {_OPTIONS}) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
)


def _problem(x: Tensor, y: Tensor, a: Tensor, b: Tensor, options: Options, weighted: bool) -> Problem:
    eps = options.blurs[0] ** options.p if options.blurs else 1.0
    # A finite rho: the masses may differ.
    return Problem(
        x, y, a, b, options.p, eps, rho=(1.0, 1.0), p=options.p, backend=options.backend, weighted=weighted
    )


def _loss(x: Tensor, y: Tensor, a: Tensor, b: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    options = Options(*rest[:_N_OPTIONS])
    weighted, _, need = rest[_N_OPTIONS:]
    problem = _problem(x, y, a, b, options, weighted)
    check_values(problem)
    if options.kernel == "hausdorff":
        return hausdorff.divergence(problem, need)
    phi_x, phi_y, gradient = _terms(x, y, a, b, options, need)
    value = 0.5 * ((a * phi_x).sum(-1) + (b * phi_y).sum(-1))
    phi_x, phi_y, value = phi_x.to(x.dtype), phi_y.to(x.dtype), value.to(x.dtype)
    if gradient is None:
        return value, phi_x, phi_y, *_absent(x)
    return value, phi_x, phi_y, *gradient, phi_x.clone(), phi_y.clone()


def _gradient(x: Tensor, y: Tensor, a: Tensor, b: Tensor, *rest: Any) -> Four:
    """The derivative of the value in x, y, a, b: the one that is given, or computed where that is absent."""
    known, options = rest[:4], Options(*rest[4:])
    if known[0].shape[1]:
        return tuple(t.clone() for t in known)
    if options.kernel == "hausdorff":
        return hausdorff.divergence(_problem(x, y, a, b, options, True), True)[3:]  # type: ignore[return-value]
    phi_x, phi_y, gradient = _terms(x, y, a, b, options, True)
    assert gradient is not None
    return *gradient, phi_x.to(x.dtype), phi_y.to(x.dtype)


def _absent(x: Tensor) -> Four:
    points, weights = x.new_empty(len(x), 0, x.shape[-1]), x.new_empty(len(x), 0)
    return points, points.clone(), weights, weights.clone()


def _terms(
    x: Tensor, y: Tensor, a: Tensor, b: Tensor, options: Options, need: bool
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor] | None]:
    """K w on x and -K w on y, float64 where compiled, and the gradients in x and y where needed."""
    if x.device.type != "cpu" or options.backend == "dense":
        with torch.no_grad():
            *gradient, phi_x, phi_y = dense_gradient(x, y, a, b, options, streamed=True)
        return phi_x, phi_y, (gradient[0], gradient[1]) if need else None
    (count, n, d), m = x.shape, y.shape[1]
    x, y, a, b = x.contiguous(), y.contiguous(), a.contiguous(), b.contiguous()
    sums = torch.empty(count, n + m, dtype=torch.float64)
    force = torch.empty(count, n + m, d, dtype=torch.float64) if need else None
    _core.kernel_norms(
        x.dtype == torch.float64,
        x.data_ptr(),
        a.data_ptr(),
        y.data_ptr(),
        b.data_ptr(),
        count,
        n,
        m,
        d,
        getattr(_core.Kernel, options.kernel),
        list(options.blurs),
        options.unbiased,
        torch.get_num_threads(),
        sums.data_ptr(),
        0 if force is None else force.data_ptr(),
    )
    phi_x, phi_y = sums[:, :n], sums[:, n:].neg()
    if force is None:
        return phi_x, phi_y, None
    g_x, g_y = force[:, :n].to(x.dtype) * a.unsqueeze(-1), force[:, n:].to(x.dtype) * -b.unsqueeze(-1)
    return phi_x, phi_y, (g_x, g_y)


def profile(square: Tensor, kernel: str, blurs: Sequence[float]) -> tuple[Tensor, Tensor]:
    """k and h = 2 dk/d(square) of squared distances: the gradient of k in x is h (x - y), 0 at a kink."""
    if kernel == "gaussian":
        terms = [(torch.exp(square / (-2.0 * s * s)), s) for s in blurs]
        return _sum([k for k, _ in terms]), _sum([k / -(s * s) for k, s in terms])
    if kernel == "inverse_multiquadric":
        terms = [(1.0 / (1.0 + square / (s * s)), s) for s in blurs]
        return _sum([k for k, _ in terms]), _sum([k * k * (-2.0 / (s * s)) for k, s in terms])
    kink = square == 0
    root = torch.where(kink, 1.0, square).sqrt()
    distance, inverse = torch.where(kink, 0.0, root), torch.where(kink, 0.0, 1.0 / root)
    if kernel == "energy":
        return -distance, -inverse
    terms = [(torch.exp(distance / -s), s) for s in blurs]
    return _sum([k for k, _ in terms]), inverse * _sum([k / -s for k, s in terms])


def _sum(terms: list[Tensor]) -> Tensor:
    return torch.stack(terms).sum(0) if len(terms) > 1 else terms[0]


def dense_gradient(
    x: Tensor, y: Tensor, a: Tensor, b: Tensor, options: Options, *, streamed: bool = False
) -> Four:
    """The gradient of the loss in x, y, a, b by plain PyTorch: the reference.

    On whole matrices, to be differentiated again, or `streamed` a block of rows at a time.
    """
    rows = _streamed_rows if streamed else _dense_rows
    z, ones = torch.cat([x, y], 1), (1.0, 1.0)
    within_x, within_y = (n / (n - 1) for n in (x.shape[1], y.shape[1])) if options.unbiased else ones
    diagonal = float(len(options.blurs)) if options.unbiased else 0.0
    phi_x, slope_x = rows(x, z, torch.cat([within_x * a, -b], 1), options)
    phi_y, slope_y = rows(y, z, torch.cat([-a, within_y * b], 1), options)
    return (
        a.unsqueeze(-1) * slope_x,
        b.unsqueeze(-1) * slope_y,
        phi_x - diagonal * within_x * a,
        phi_y - diagonal * within_y * b,
    )


def _dense_rows(points: Tensor, z: Tensor, w: Tensor, options: Options) -> tuple[Tensor, Tensor]:
    difference = points.unsqueeze(2) - z.unsqueeze(1)
    k, h = profile(difference.square().sum(-1), options.kernel, options.blurs)
    return (k * w.unsqueeze(1)).sum(-1), ((h * w.unsqueeze(1)).unsqueeze(-1) * difference).sum(2)


def _streamed_rows(points: Tensor, z: Tensor, w: Tensor, options: Options) -> tuple[Tensor, Tensor]:
    # Results made beforehand: pieces kept between the blocks' own memory would keep it from being reused.
    sums, slopes = torch.empty_like(points[..., 0]), torch.empty_like(points)
    size = max(1, _BLOCK_ENTRIES // max(1, z.numel()))
    for start in range(0, points.shape[1], size):
        rows = slice(start, start + size)
        sums[:, rows], slopes[:, rows] = _dense_rows(points[:, rows], z, w, options)
    return sums, slopes


def _second(known: Sequence[Tensor], options: Sequence[Any], u: Sequence[Tensor | None]) -> Any:
    """The Hessian times u, on matrices; it is symmetric, so this is the derivative both ways."""
    named = Options(*options)
    if named.kernel == "hausdorff":
        raise RuntimeError("otcore: the Hausdorff divergence has first derivatives only")
    along = tuple(_zero_if_none(t, like) for t, like in zip(u, known, strict=True))
    x, y, a, b = known
    return torch.func.vjp(lambda x, y, a, b: dense_gradient(x, y, a, b, named), x, y, a, b)[1](along)


class _Gradient(Differentiable):
    @staticmethod
    def forward(*args: Any) -> Any:
        return _below_autograd(_gradient_op, args)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs[:4])
        ctx.save_for_forward(*inputs[:4])
        ctx.options = inputs[8:]
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        return *_second(ctx.saved_tensors, ctx.options, cotangents), *(None,) * (4 + _N_OPTIONS)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return _second(ctx.saved_tensors, ctx.options, tangents[:4])

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        return _unflattened(info, _Gradient.apply(*_flattened(info, in_dims, args)))


def _call_gradient(*args: Any) -> Four:
    """The gradient as saved, where nothing records or transforms it, or through the Function."""
    if torch.is_grad_enabled() or torch._C._are_functorch_transforms_active():
        result: Four = _Gradient.apply(*args)
        return result
    if args[4].shape[1]:
        return args[4:8]
    return _gradient(*args)


class _Loss(Differentiable):
    @staticmethod
    def forward(*args: Any) -> Any:
        return _below_autograd(_loss_op, args)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _loss_setup(ctx, inputs, output)
        ctx.save_for_forward(*inputs[:4], *output[3:])

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        return _loss_backward(ctx, _call_gradient, cotangents[:3])

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        if ctx.potentials:
            raise RuntimeError("otcore: potentials of a kernel loss have no forward-mode derivative")
        gradients = _Gradient.apply(*ctx.saved_tensors, *ctx.options)
        terms = [
            (t * g).flatten(1).sum(-1) for t, g in zip(tangents[:4], gradients, strict=True) if t is not None
        ]
        return torch.stack(terms).sum(0), *(None,) * 6

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        return _unflattened(info, _Loss.apply(*_flattened(info, in_dims, args)))


def _loss_setup(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.options = inputs[4 : 4 + _N_OPTIONS]
    ctx.potentials = inputs[5 + _N_OPTIONS]
    ctx.save_for_backward(*inputs[:4], *output[3:])
    ctx.mark_non_differentiable(*output[3 if ctx.potentials else 1 :])
    ctx.set_materialize_grads(False)


def _loss_backward(ctx: Any, gradient: Callable[..., Four], cotangents: Sequence[Tensor | None]) -> Any:
    known, options = ctx.saved_tensors, ctx.options
    u_value, *u = cotangents
    total: list[Tensor | None] = [None] * 4
    if u_value is not None:
        parts = gradient(*known, *options)
        total = [
            _over_items(u_value, g) if w else None for g, w in zip(parts, ctx.needs_input_grad, strict=False)
        ]
    if any(t is not None for t in u):
        u_x, u_y = (_zero_if_none(t, like) for t, like in zip(u, known[2:4], strict=True))
        parts = _potential_gradient(gradient, known[:4], u_x, u_y, options)
        total = [g if t is None else t + g for t, g in zip(total, parts, strict=True)]
    return *total, *(None,) * (_N_OPTIONS + 3)


def _over_items(factor: Tensor, gradient: Tensor) -> Tensor:
    return factor.view(-1, *(1,) * (gradient.dim() - 1)) * gradient


def _potential_gradient(
    gradient: Callable[..., Four], inputs: Sequence[Tensor], u: Tensor, v: Tensor, options: Sequence[Any]
) -> Four:
    """The derivative of <u, K w> on x and -<v, K w> on y.

    That is the bilinear form of two signed measures w and s: (Q(w + t s) - Q(w - t s)) / (2 t) with Q the
    loss, for any t; one that makes them of a size loses nothing to rounding.
    """
    if Options(*options).kernel == "hausdorff":
        raise RuntimeError(
            "otcore: the potentials of the Hausdorff divergence have no derivative; its value has"
        )
    x, y, a, b = inputs
    size = torch.cat([a, b], 1).norm(dim=1, keepdim=True)
    other = torch.cat([u, v], 1).norm(dim=1, keepdim=True)
    t = torch.where((size > 0) & (other > 0), size / other, 1.0)
    absent = _absent(x)
    plus = gradient(x, y, a + t * u, b + t * v, *absent, *options)
    minus = gradient(x, y, a - t * u, b - t * v, *absent, *options)
    half = (0.5 / t).squeeze(1)
    d_x, d_y, d_a, d_b = (_over_items(half, p - q) for p, q in zip(plus, minus, strict=True))
    return d_x, d_y, d_a, d_b


def _fake_loss(x: Tensor, y: Tensor, a: Tensor, b: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    gradient = _fake_gradient(x, y, a, b) if rest[-1] else _absent(x)
    return x.new_empty(x.shape[0]), torch.empty_like(a), torch.empty_like(b), *gradient


def _fake_gradient(x: Tensor, y: Tensor, a: Tensor, b: Tensor, *_: Any) -> Four:
    return torch.empty_like(x), torch.empty_like(y), torch.empty_like(a), torch.empty_like(b)


_library: Any = torch.library.Library("otcore", "FRAGMENT")  # type: ignore[no-untyped-call]
for _schema, _implementation, _fake in zip(
    _SCHEMAS, (_loss, _gradient), (_fake_loss, _fake_gradient), strict=True
):
    _name = _schema.partition("(")[0]
    _library.define(_schema)
    for _device in ("CPU", "CUDA"):
        _library.impl(_name, _implementation, _device)
    torch.library.register_fake(f"otcore::{_name}", cast(Any, _fake), lib=_library)

_loss_op = torch.ops.otcore.kernel_loss.default
_gradient_op = torch.ops.otcore.kernel_gradient.default

# Function.apply asks for the signature of `forward` at every call; found here, it is not worked out anew.
for _forward in (_Loss.forward, _Gradient.forward):
    vars(_forward)["__signature__"] = inspect.signature(_forward)


def _compiled_second(ctx: Any, *_: Any) -> Any:
    raise RuntimeError("otcore: a compiled kernel loss has first derivatives only")


torch.library.register_autograd(
    "otcore::kernel_loss",
    lambda ctx, *u: _loss_backward(ctx, _gradient_op, u[:3]),
    setup_context=_loss_setup,
)
torch.library.register_autograd("otcore::kernel_gradient", _compiled_second)


def kernel_loss(problem: Problem, options: Options, potentials: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The loss (B,) of a problem's clouds and its potentials, (B, N) and (B, M), differentiable."""
    x, y, a, b = problem.x, problem.y, problem.a, problem.b
    need = torch.is_grad_enabled() and (x.requires_grad or y.requires_grad)
    args = (x, y, a, b, *options, problem.weighted, potentials, need)
    value, phi_x, phi_y, *_ = _loss_op(*args) if torch.compiler.is_compiling() else _Loss.apply(*args)
    return value, phi_x, phi_y
