"""The operators `otcore::solve`, `grad`, `hvp`, `follow`, `follow_grad`: whole operations on tensors.

Here are their implementations and their fakes (the shapes of the results, for `torch.compile`);
`otcore.autograd` makes them differentiable. Values are checked here, because only here are the numbers at
hand.

Clouds are (B, N, D) and (B, M, D), weights and potentials (B, N) and (B, M). Absent self potentials are (B,
0).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from .backends import Backend, choose, prepared
from .dual import damping, geomloss_slope, weight_gradient
from .implicit import Direction, hessian_vector_product
from .problem import Problem, check_points, check_values, check_weights, readable
from .ragged import Sizes, join, per_item, per_point, split
from .schedule import geomloss_temperatures, joint_diameter
from .solution import ConvergenceWarning, Potentials, Solved, Status
from .solver import anneal, follow


class Options(NamedTuple):
    """What every operator takes, in this order; `formula` "" for p, n and m empty for a regular batch."""

    p: int
    eps: float
    rho_x: float
    rho_y: float
    debias: bool
    backend: str
    floor: float
    weighted: bool
    formula: str
    n: Sequence[int]
    m: Sequence[int]
    verbose: bool


Four = tuple[Tensor, Tensor, Tensor, Tensor]
_Weights = tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]

_CLOUDS = "Tensor x, Tensor y, Tensor a, Tensor b"
_POTENTIALS = "Tensor f, Tensor g, Tensor f_xx, Tensor g_yy"
_OPTIONS = (
    "int p, float eps, float rho_x, float rho_y, bool debias, str backend, float floor, bool weighted, "
    "str formula, int[] n, int[] m, bool verbose"
)
_SCHEMAS = (
    f"solve({_CLOUDS}, Tensor? f, Tensor? g, Tensor? f_xx, Tensor? g_yy, {_OPTIONS}, "
    "float scaling, float? diameter, float tol, int max_iter) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    f"grad({_CLOUDS}, {_POTENTIALS}, {_OPTIONS}, bool need_x, bool need_y) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    f"hvp({_CLOUDS}, {_POTENTIALS}, Tensor u_x, Tensor u_y, Tensor u_a, Tensor u_b, {_OPTIONS}) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    f"follow({_CLOUDS}, {_OPTIONS}, float blur, float scaling, float? diameter, int groups) -> "
    "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    f"follow_grad({_CLOUDS}, {_POTENTIALS}, Tensor f_last, Tensor g_last, Tensor xx_last, Tensor yy_last, "
    "Tensor? u_value, Tensor? u_f, Tensor? u_g, Tensor? u_xx, Tensor? u_yy, "
    f"{_OPTIONS}, bool need_x, bool need_y) -> (Tensor, Tensor)",
)


def _problem(x: Tensor, y: Tensor, a: Tensor, b: Tensor, options: Sequence[Any], **more: Any) -> Problem:
    p, eps, rho_x, rho_y, debias, backend, floor, weighted, formula, n, m, verbose = options
    return Problem(
        x,
        y,
        a,
        b,
        cost=formula or p,
        eps=eps,
        rho=(rho_x, rho_y),
        debias=debias,
        backend=backend,
        floor=floor,
        weighted=weighted,
        p=p,
        sizes=Sizes(tuple(n), tuple(m)) if n else None,
        verbose=verbose,
        **more,
    )


def _filled(potentials: Potentials, x: Tensor) -> Four:
    """The four potentials in float64, an absent one as (B, 0): an operator returns tensors only."""
    f, g, f_xx, g_yy = potentials.to(torch.float64)
    if f_xx is None or g_yy is None:
        absent = f.new_empty(len(x), 0)
        return f, g, absent, absent.clone()
    return f, g, f_xx, g_yy


def _solve(
    x: Tensor,
    y: Tensor,
    a: Tensor,
    b: Tensor,
    f: Tensor | None,
    g: Tensor | None,
    f_xx: Tensor | None,
    g_yy: Tensor | None,
    *options: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    *common, scaling, diameter, tol, max_iter = options
    init = None if f is None or g is None else Potentials(f, g, f_xx, g_yy)
    problem = _problem(
        x, y, a, b, common, scaling=scaling, diameter=diameter, tol=tol, max_iter=max_iter, init=init
    )
    check_values(problem)
    solved = anneal(choose(problem), problem)
    info = report(solved)
    warn_unless_converged(info, tol)
    # A copy, as no output of an operator may be a view of another tensor.
    return solved.value.clone(), *_filled(solved.potentials, x), info


def report(solved: Solved) -> Tensor:
    """(B, 4) float64: status, n_iter, marginal_error, pairs."""
    status = torch.where(solved.value.isfinite(), solved.status, int(Status.NOT_FINITE))
    told = (status, solved.n_iter, solved.marginal_error, solved.pairs)
    return torch.stack([t.double() for t in told], -1)


def warn_unless_converged(info: Tensor, tol: float) -> None:
    """Warn once when an item of info, as of `report`, did not converge; not while a graph is captured."""
    if not readable(info):
        return
    bad = info[:, 0] != int(Status.CONVERGED)
    if bool(bad.any()):
        count = int(bad.sum())
        status, _, error, _ = info[bad][0].tolist()
        which = f"{count} of {len(info)} problems, the first" if len(info) > 1 else "the problem"
        warnings.warn(
            f"not converged: {which} with marginal error {error:.2e} and tol {tol:.2e}; "
            + Status(int(status)).text,
            ConvergenceWarning,
            stacklevel=2,
        )


def point_gradients(
    verbs: Backend, problem: Problem, potentials: Potentials, weights: _Weights, normalise: bool
) -> tuple[Tensor, Tensor]:
    """w_x G_xy + w_xx G_xx, (B, N, D), and w_y G_yx + w_yy G_yy, (B, M, D).

    Row i of G_xy is sum_j b_j e_ij dC(x_i, y_j)/dx_i, divided by sum_j b_j e_ij when normalised. The weights
    are (w_x, w_y, w_xx, w_yy), (B, N) or (B, M); terms whose weight is None are left out, and a side without
    any is empty, (0,).
    """
    native = getattr(verbs, "gradients", None)
    if native is not None:
        result: tuple[Tensor, Tensor] = native(problem, potentials, weights, normalise)
        return result
    if problem.sizes is not None:
        n, m = problem.sizes
        shares = [None if w is None else split(w, c) for w, c in zip(weights, (n, m, n, m), strict=True)]
        parts = [
            point_gradients(verbs, item, own, tuple(None if w is None else w[i] for w in shares), normalise)  # type: ignore[arg-type]
            for i, (item, own) in enumerate(
                zip(problem.split(), potentials.split(problem.sizes), strict=True)
            )
        ]
        return tuple(  # type: ignore[return-value]
            join(side, c) if side[0].numel() else side[0]
            for side, c in zip(zip(*parts, strict=True), (n, m), strict=True)
        )
    verbs = prepared(verbs, problem)
    x, y, a, b = problem.x, problem.y, problem.a, problem.b
    f, g, f_xx, g_yy = _filled(potentials, x)

    def term(weight: Tensor | None, *pair: Tensor) -> Tensor | None:
        if weight is None:
            return None
        x, y, f, g, a, b = pair
        # Rows of weight 1: theirs come with `weight`.
        slope = verbs.grad(
            x, y, f, g, torch.ones_like(a), b, eps=problem.eps, normalise=normalise, **problem.ground
        )
        return weight.to(slope.dtype).unsqueeze(-1) * slope

    g_x = [term(weights[0], x, y, f, g, a, b), term(weights[2], x, x, f_xx, f_xx, a, a)]
    g_y = [term(weights[1], y, x, g, f, b, a), term(weights[3], y, y, g_yy, g_yy, b, b)]
    return _total(x, g_x), _total(y, g_y)


def _grad(*args: Any) -> Four:
    x, y, a, b, f, g, f_xx, g_yy, *options, need_x, need_y = args
    problem = _problem(x, y, a, b, options)
    weights: _Weights = (
        a if need_x else None,
        b if need_y else None,
        -a if need_x and problem.debias else None,
        -b if need_y and problem.debias else None,
    )
    g_x, g_y = point_gradients(choose(problem), problem, Potentials(f, g, f_xx, g_yy), weights, False)
    rho_x, rho_y = problem.rho
    g_a, g_b = weight_gradient(f, problem.eps, rho_x), weight_gradient(g, problem.eps, rho_y)
    if problem.debias:
        g_a = g_a - weight_gradient(f_xx, problem.eps, rho_x)
        g_b = g_b - weight_gradient(g_yy, problem.eps, rho_y)
    else:
        # The self-terms would cancel these constants.
        n, m = problem.counts
        g_a = g_a + problem.eps * (per_point(per_item(b, m), a.shape, n) - 1.0)
        g_b = g_b + problem.eps * (per_point(per_item(a, n), b.shape, m) - 1.0)
    return g_x, g_y, g_a.to(a.dtype), g_b.to(b.dtype)


def _hvp(*args: Any) -> Four:
    x, y, a, b, f, g, f_xx, g_yy, u_x, u_y, u_a, u_b, *options = args
    problem = _problem(x, y, a, b, options)
    if not isinstance(problem.cost, int):
        raise RuntimeError("otcore: a KeOps formula has first derivatives only; named costs have second ones")
    self_terms = (f_xx, g_yy) if problem.debias else (None, None)
    # In float64 throughout: conjugate gradients need the digits.
    problem = _problem(x.double(), y.double(), a.double(), b.double(), options)
    potentials = Potentials(f, g, *self_terms).to(torch.float64)
    u = Direction(*(t.double() for t in (u_x, u_y, u_a, u_b)))
    return tuple(h.to(x.dtype) for h in _product(problem, potentials, u))  # type: ignore[return-value]


def _product(problem: Problem, potentials: Potentials, u: Direction) -> Sequence[Tensor]:
    if problem.sizes is None:
        return hessian_vector_product(choose(problem), problem, potentials, u)
    n, m = problem.sizes
    directions = zip(*(split(t, c) for t, c in zip(u, (n, m, n, m), strict=True)), strict=True)
    products = [
        hessian_vector_product(choose(item), item, own, Direction(*direction))
        for item, own, direction in zip(
            problem.split(), potentials.split(problem.sizes), directions, strict=True
        )
    ]
    return [join(t, c) for t, c in zip(zip(*products, strict=True), (n, m, n, m), strict=True)]


def _follow(x: Tensor, y: Tensor, a: Tensor, b: Tensor, *options: Any) -> tuple[Tensor, ...]:
    *common, blur, scaling, diameter, groups = options
    problem = _problem(x, y, a, b, common)
    check_weights(problem)
    if groups == 1:
        return _follow_group(problem, blur, scaling, diameter)
    # Under vmap each group of items is a call of its own, with a diameter of its own.
    parts = [
        _follow_group(_problem(*part, common), blur, scaling, diameter)
        for part in zip(x.chunk(groups), y.chunk(groups), a.chunk(groups), b.chunk(groups), strict=True)
    ]
    return tuple(torch.cat(outputs) for outputs in zip(*parts, strict=True))


def _follow_group(
    problem: Problem, blur: float, scaling: float, diameter: float | None
) -> tuple[Tensor, ...]:
    backend = choose(problem)
    if diameter is None:
        if not readable(problem.x):
            raise RuntimeError(
                "otcore: the schedule follows from the diameter of the clouds, which is not known while a "
                "CUDA graph is captured; give it, as in SamplesLoss(diameter=...)"
            )
        native = getattr(backend, "diameter", None)
        diameter = native(problem) if native is not None else joint_diameter(problem.x, problem.y)
        # It is finite only when all points are.
        if not math.isfinite(diameter):
            check_points(problem)
    else:
        check_points(problem)
    eps_list = geomloss_temperatures(diameter, blur, scaling, problem.p)
    value, before, after = follow(backend, problem, eps_list)
    return value, *_filled(after, problem.x), *_filled(before, problem.x)


def _follow_grad(*args: Any) -> tuple[Tensor, Tensor]:
    """The gradient in x and y of value and potentials after the last half-step, times their cotangents.

    A potential depends on its own point only: lam times the mean of dC/dx under its row of the plan.
    """
    x, y, a, b, f, g, f_xx, g_yy, f_last, g_last, xx_last, yy_last, *rest = args
    u_value, u_f, u_g, u_xx, u_yy, *options, need_x, need_y = rest
    problem = _problem(x, y, a, b, options)
    rho_x, rho_y = problem.rho

    n, m = problem.counts

    def weight(
        a: Tensor, counts: Sequence[int], last: Tensor, u: Tensor | None, sign: float, rho: float
    ) -> Tensor | None:
        """The cotangent of the potential of each row, through the value as well, times lam."""
        if u_value is not None:
            slope = geomloss_slope(a, last, problem.eps, rho) * per_point(sign * u_value, a.shape, counts)
            u = slope if u is None else u + slope
        return u if u is None or rho == math.inf else damping(problem.eps, rho) * u

    weights: _Weights = (
        weight(a, n, f_last, u_f, 1.0, rho_x) if need_x else None,
        weight(b, m, g_last, u_g, 1.0, rho_y) if need_y else None,
        weight(a, n, xx_last, u_xx, -1.0, rho_x) if need_x and problem.debias else None,
        weight(b, m, yy_last, u_yy, -1.0, rho_y) if need_y and problem.debias else None,
    )
    return point_gradients(choose(problem), problem, Potentials(f, g, f_xx, g_yy), weights, True)


def _total(like: Tensor, parts: list[Tensor | None]) -> Tensor:
    """The sum of the parts that are there; empty when there is none."""
    present = [part for part in parts if part is not None]
    if not present:
        return like.new_empty(0)
    return present[0] if len(present) == 1 else present[0].add_(present[1])


def _fake_potentials(x: Tensor, a: Tensor, b: Tensor, debias: bool) -> Four:
    f, g = torch.empty_like(a, dtype=torch.float64), torch.empty_like(b, dtype=torch.float64)
    absent = f.new_empty(x.shape[0], 0)
    self_terms = (torch.empty_like(f), torch.empty_like(g)) if debias else (absent, absent.clone())
    return f, g, *self_terms


def _fake_solve(x: Tensor, y: Tensor, a: Tensor, b: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    options = Options(*rest[4 : 4 + len(Options._fields)])
    items = _items(x, options)
    info = x.new_empty(items, 4, dtype=torch.float64)
    return x.new_empty(items), *_fake_potentials(x, a, b, options.debias), info


def _fake_follow(x: Tensor, y: Tensor, a: Tensor, b: Tensor, *options: Any) -> tuple[Tensor, ...]:
    named = Options(*options[: len(Options._fields)])
    value = x.new_empty(_items(x, named))
    potentials = (_fake_potentials(x, a, b, named.debias) for _ in range(2))
    return value, *next(potentials), *next(potentials)


def _items(x: Tensor, options: Options) -> int:
    return x.shape[0] * max(1, len(options.n))


def _fake_hvp(x: Tensor, y: Tensor, a: Tensor, b: Tensor, *_: Any) -> Four:
    return torch.empty_like(x), torch.empty_like(y), torch.empty_like(a), torch.empty_like(b)


def _fake_grad(x: Tensor, y: Tensor, a: Tensor, b: Tensor, *rest: Any) -> Four:
    return *_fake_follow_grad(x, y, *rest), torch.empty_like(a), torch.empty_like(b)


def _fake_follow_grad(x: Tensor, y: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    need_x, need_y = rest[-2:]
    return (
        torch.empty_like(x) if need_x else x.new_empty(0),
        torch.empty_like(y) if need_y else y.new_empty(0),
    )


def _in_its_precision(implementation: Callable[..., Any]) -> Callable[..., Any]:
    """Without autocast, which would otherwise reach the dense backend's products of matrices."""

    def run(*args: Any) -> Any:
        device = args[0].device.type
        if not torch.is_autocast_enabled(device):
            return implementation(*args)
        with torch.autocast(device, enabled=False):
            return implementation(*args)

    return run


_library: Any = torch.library.Library("otcore", "DEF")  # type: ignore[no-untyped-call]
for _schema, _implementation, _fake in zip(
    _SCHEMAS,
    (_solve, _grad, _hvp, _follow, _follow_grad),
    (_fake_solve, _fake_grad, _fake_hvp, _fake_follow, _fake_follow_grad),
    strict=True,
):
    _name = _schema.partition("(")[0]
    _library.define(_schema)
    for _device in ("CPU", "CUDA"):
        _library.impl(_name, _in_its_precision(cast(Any, _implementation)), _device)
    torch.library.register_fake(f"otcore::{_name}", cast(Any, _fake), lib=_library)

solve_op = torch.ops.otcore.solve.default
grad_op = torch.ops.otcore.grad.default
hvp_op = torch.ops.otcore.hvp.default
follow_op = torch.ops.otcore.follow.default
follow_grad_op = torch.ops.otcore.follow_grad.default
