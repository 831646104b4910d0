"""The functional API: check the arguments, solve, wrap the result."""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy
import torch
from torch import Tensor

from . import autograd
from .autograd import Differentiable
from .backends import choose
from .backends.dense import logits
from .dual import transport_value
from .operators import Options, report, warn_unless_converged
from .plan import Plan, differentiable_potentials
from .problem import NAMED_COSTS, Problem, Reach, check_values, embedded, is_ragged, make_problem
from .ragged import split
from .solution import Form, Potentials, Solution, make_solution
from .solver import anneal

CostFunction = Callable[[Tensor, Tensor], Tensor]


def full_precision(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as it is outside `torch.autocast`, where half-precision arguments become float32."""

    @functools.wraps(function)
    def outside(*args: Any, **options: Any) -> Any:
        devices = [name for name in ("cpu", "cuda") if torch.is_autocast_enabled(name)]
        if not devices:
            return function(*args, **options)
        with contextlib.ExitStack() as stack:
            for device in devices:
                stack.enter_context(torch.autocast(device, enabled=False))
            return function(*(_widened(t) for t in args), **{k: _widened(t) for k, t in options.items()})

    return outside


def _widened(argument: Any) -> Any:
    if isinstance(argument, (list, tuple)) and not isinstance(argument, Potentials):
        return [_widened(item) for item in argument]
    if isinstance(argument, Tensor) and argument.dtype in (torch.float16, torch.bfloat16):
        return argument.float()
    return argument


@full_precision
def sinkhorn_divergence(
    x: Any,
    y: Any,
    a: Any = None,
    b: Any = None,
    *,
    p: int = 2,
    blur: float | None = None,
    eps: float | None = None,
    reach: Reach = None,
    scaling: float = 0.5,
    diameter: float | None = None,
    cost: str | CostFunction | None = None,
    debias: bool = True,
    tol: float = 1e-2,
    max_iter: int = 2000,
    init: Solution | Potentials | None = None,
    backend: str = "auto",
    verbose: bool = False,
    return_solution: bool = False,
) -> Any:
    """The debiased Sinkhorn divergence OT(x, y) - OT(x, x)/2 - OT(y, y)/2, converged and differentiable.

    Clouds are (N, D) and (M, D), giving a scalar, or (B, N, D) and (B, M, D), giving (B,). Ragged batches are
    lists of B clouds (N_i, D) and (M_i, D), or jagged nested tensors, and give (B,), nothing being padded.
    Each item of a batch is solved, stopped and reported for itself. Clouds are float32 or float64 (computed
    as such), float16 or bfloat16 (computed and returned in float32; under `torch.autocast` they may be mixed
    with float32), on one device; or all NumPy arrays, and then the result is too.

    Args:
        x, y: the points.
        a, b: their weights, (N,) and (M,), with the batch dimension if there is one; uniform of mass 1 when
            None. They are not rescaled: balanced transport needs equal masses.
        p: the ground cost, |x - y| for 1 and |x - y|^2 / 2 for 2.
        blur: the length at which details are lost, eps = blur^p; 0.05 when neither it nor `eps` is given.
        eps: the temperature in units of the cost, instead of `blur`.
        reach: the length beyond which mass is destroyed rather than moved, rho = reach^p; None for balanced
            transport. A pair holds one for each cloud. The self-terms then use the reach of their own cloud,
            so the value is not 0 for x equal to y.
        scaling: ratio between successive lengths of the annealing, between 0 and 1.
        diameter: first length of the annealing; None for the diagonal of the bounding box of each item.
        cost: another ground cost: "sqeuclidean" for |x - y|^2, "cosine" for 1 - <x, y> / (|x| |y|), both as
            fast as p=2; a KeOps formula in X and Y such as "Norm2(X-Y)" (needs pykeops); or a function of (B,
            N, D) and (B, M, D) tensors giving (B, N, M), computed densely. Formulas and functions are
            differentiated once, which is not checked for tensors that a function holds besides its arguments;
            a symmetric one makes a divergence. `p` then only says that eps = blur^p.
        debias: False leaves the self-terms out, as `sinkhorn` does.
        tol: the marginal error at which each transport stops: sum_i a_i |r_i - 1| + sum_j b_j |c_j - 1|,
            relative to the mass.
        max_iter: the most sweeps of each transport at the final temperature.
        init: a `Solution`, or the `Potentials` of one, of clouds of the same sizes to start from, instead of
            annealing.
        backend: "auto" or the name of one, see `otcore.backends.names`.
        verbose: whether a long solve says on sys.stderr, once a second, where it is (backend "cpu").
        return_solution: whether to return the whole `Solution`, whose `value` is what is otherwise returned.

    Returns:
        The value, or a `Solution`.

    Raises:
        ValueError: on unusable arguments, naming the argument, what it was and what would work.

    Warns:
        ConvergenceWarning: when `max_iter` was reached.

    Inside `torch.cuda.graph` a solve on the backend "cuda" is captured whole, and as nothing can be looked at
    there, no number is checked and nothing warned of: replays on NaN give NaN. Ask for the value, or give a
    batch, whose `Solution` holds its report as tensors.

    Source: Genevay, Peyre, Cuturi, arXiv:1706.00292; Feydy et al., arXiv:1810.08278; Sejourne et al.,
        arXiv:1910.12958.
    """
    form = _form(x)
    if form.numpy:
        x, y, a, b = (_from_numpy(name, given) for name, given in (("x", x), ("y", y), ("a", a), ("b", b)))
    problem = make_problem(
        x,
        y,
        a,
        b,
        p=p,
        blur=blur,
        eps=eps,
        reach=reach,
        scaling=scaling,
        diameter=diameter,
        cost=cost,
        debias=debias,
        tol=tol,
        max_iter=max_iter,
        init=None if init is None else _potentials(init),
        backend=backend,
        verbose=verbose,
    )
    value, potentials, info = _solve_callable(problem) if callable(cost) else _solve(problem)
    if return_solution:
        return _solution(problem, value, potentials, info, form, y, cost)
    if form.numpy:
        return value.numpy() if form.batched or form.ragged else value.numpy()[0]
    return value if form.batched or form.ragged else value.squeeze(0)


def _form(x: Any) -> Form:
    first = x[0] if isinstance(x, (list, tuple)) and x else x
    return Form(
        batched=getattr(x, "ndim", 2) == 3 and not is_ragged(x),
        ragged=is_ragged(x),
        nested=isinstance(x, Tensor) and x.is_nested,
        numpy=isinstance(first, numpy.ndarray),
    )


def _solution(
    problem: Problem, value: Tensor, potentials: Potentials, info: Tensor, form: Form, y: Any, cost: Any
) -> Solution:
    backend = choose(problem)
    named = cost if isinstance(cost, str) and cost in NAMED_COSTS else None
    embed = None if named is None else functools.partial(embedded, named)
    parts = [(problem, potentials, problem.y if embed is None else _like(y, problem))]
    if problem.sizes is not None:
        targets = split(parts[0][2], problem.sizes.m)
        parts = list(zip(problem.split(), potentials.split(problem.sizes), targets, strict=True))
    plans = [
        Plan(backend, own, differentiable_potentials(backend, own, duals), target, embed)
        for own, duals, target in parts
    ]
    return make_solution(problem, backend, value, potentials, info, form=form, plans=plans)


def _like(y: Any, problem: Problem) -> Tensor:
    """The points as given, laid out as those of the problem."""
    joined = torch.cat(list(y.unbind() if isinstance(y, Tensor) else y)) if is_ragged(y) else y
    return joined.to(problem.y.dtype).reshape(problem.y.shape)


def sinkhorn(x: Any, y: Any, a: Any = None, b: Any = None, **options: Any) -> Solution:
    """Entropic transport between x and y, without self-terms: the plan's value is <C, pi> + eps KL(pi | a b).

    The arguments are those of `sinkhorn_divergence`, except `debias` and `return_solution`.

    Returns:
        A `Solution`; its `value` is differentiable, and negative entropy makes it less than the value of
        transport itself.
    """
    for name in ("debias", "return_solution"):
        if name in options:
            raise ValueError(f"{name} is not an argument of sinkhorn; use sinkhorn_divergence.")
    solution: Solution = sinkhorn_divergence(x, y, a, b, debias=False, return_solution=True, **options)
    return solution


_parameters = [
    parameter
    for name, parameter in inspect.signature(sinkhorn_divergence).parameters.items()
    if name not in ("debias", "return_solution")
]
vars(sinkhorn)["__signature__"] = inspect.Signature(_parameters)


def _from_numpy(name: str, array: Any) -> Any:
    if array is None:
        return None
    if isinstance(array, (list, tuple)):
        return [_from_numpy(name, item) for item in array]
    if not isinstance(array, numpy.ndarray):
        raise ValueError(f"{name} is a {type(array).__name__} and x a NumPy array; use one kind throughout.")
    if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
        raise ValueError(
            f"{name} has dtype {array.dtype}; use float32 or float64, for instance {name}.astype(float)."
        )
    # torch takes neither negative strides nor another byte order, and warns of arrays that cannot be written.
    usual = array.flags.writeable and array.dtype.isnative and all(stride >= 0 for stride in array.strides)
    return torch.from_numpy(array if usual else array.astype(array.dtype.newbyteorder("="), order="C"))


def _potentials(init: Solution | Potentials) -> Potentials:
    if isinstance(init, Potentials):
        return init
    if not isinstance(init, Solution):
        raise ValueError(
            f"init is a {type(init).__name__}; use a Solution, from return_solution=True, or its Potentials."
        )
    return init._potentials


def common_options(problem: Problem) -> Options:
    """The arguments that all operators take."""
    rho_x, rho_y = problem.rho
    return Options(
        problem.p,
        problem.eps,
        rho_x,
        rho_y,
        problem.debias,
        problem.backend,
        problem.floor,
        problem.weighted,
        problem.cost if isinstance(problem.cost, str) else "",
        *problem.counts,
        problem.verbose,
    )


def _solve(problem: Problem) -> tuple[Tensor, Potentials, Tensor]:
    value, f, g, f_xx, g_yy, info = autograd.solve(
        problem.x,
        problem.y,
        problem.a,
        problem.b,
        *(problem.init or (None, None, None, None)),
        *common_options(problem),
        problem.scaling,
        problem.diameter,
        problem.tol,
        problem.max_iter,
    )
    return value, Potentials(f, g, f_xx, g_yy) if problem.debias else Potentials(f, g, None, None), info


class _FirstOrder(Differentiable):
    """The identity, which refuses to be differentiated twice."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return _NoSecond.apply(gradient, *ctx.saved_tensors)


class _NoSecond(Differentiable):
    """The gradient, tied to the points so that a second derivative comes by here."""

    @staticmethod
    def forward(gradient: Tensor, x: Tensor) -> Tensor:
        return gradient.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise RuntimeError(
            "otcore: a callable cost has first derivatives only; p=1 and p=2 have second derivatives"
        )


def _solve_callable(problem: Problem) -> tuple[Tensor, Potentials, Tensor]:
    """Solve without gradients, then write the dual at these potentials: its gradient is exact (envelope)."""
    with torch.no_grad():
        check_values(problem)
        solved = anneal(choose(problem), problem)
        info = report(solved)
        warn_unless_converged(info, problem.tol)
    if problem.sizes is None:
        value = _dual_divergence(problem, solved.potentials)
    else:
        parts = zip(problem.split(), solved.potentials.split(problem.sizes), strict=True)
        value = torch.cat([_dual_divergence(*part) for part in parts])
    return value, solved.potentials, info


def _dual_divergence(problem: Problem, potentials: Potentials) -> Tensor:
    """The value as a function of the points and weights, at fixed potentials."""
    assert callable(problem.cost)
    f, g, f_xx, g_yy = potentials.to(problem.x.dtype)
    x, y, a, b = (_FirstOrder.apply(t) for t in (problem.x, problem.y, problem.a, problem.b))
    cost, eps, (rho_x, rho_y) = problem.cost, problem.eps, problem.rho
    value = _dual(x, y, f, g, a, b, cost, eps, (rho_x, rho_y))
    if f_xx is not None and g_yy is not None:
        value = value - 0.5 * _dual(x, x, f_xx, f_xx, a, a, cost, eps, (rho_x, rho_x))
        value = value - 0.5 * _dual(y, y, g_yy, g_yy, b, b, cost, eps, (rho_y, rho_y))
        value = value + 0.5 * eps * (a.sum(-1) - b.sum(-1)).square()
    return value


def _dual(
    x: Tensor,
    y: Tensor,
    f: Tensor,
    g: Tensor,
    a: Tensor,
    b: Tensor,
    cost: CostFunction,
    eps: float,
    rho: tuple[float, float],
) -> Tensor:
    """`otcore.dual.transport_value`, differentiable through the cost and the weights."""
    # Not through log b, whose derivative is infinite at a weight of zero; b e is at most its sum, about 1.
    e = logits(x, y, f, g, cost, eps).clamp(max=0.9 * math.log(torch.finfo(x.dtype).max)).exp()
    return transport_value(f, g, (e @ b.unsqueeze(-1)).squeeze(-1).log(), a, b, eps, rho).to(x.dtype)
