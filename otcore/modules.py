"""nn.Module forms: `SinkhornDivergence`, and `SamplesLoss` with GeomLoss's arguments and numbers."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from . import autograd
from .backends import choose
from .backends.dense import cost_matrix
from .dual import damping, geomloss_value
from .functional import CostFunction, common_options, sinkhorn_divergence
from .problem import Problem, Reach, check_values, make_problem
from .schedule import geomloss_temperatures, joint_diameter
from .solution import Potentials
from .solver import follow

# GeomLoss keeps the square root away from zero by this.
_GEOMLOSS_FLOOR = 1e-8
_GEOMLOSS_BACKENDS = ("tensorized", "online", "multiscale")


class SinkhornDivergence(torch.nn.Module):
    """`otcore.sinkhorn_divergence` with its options fixed; call it with (x, y) or (x, y, a, b)."""

    def __init__(
        self,
        *,
        p: int = 2,
        blur: float | None = None,
        eps: float | None = None,
        reach: Reach = None,
        scaling: float = 0.5,
        diameter: float | None = None,
        cost: CostFunction | None = None,
        debias: bool = True,
        tol: float = 1e-2,
        max_iter: int = 2000,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.p = p
        self.blur = blur
        self.eps = eps
        self.reach = reach
        self.scaling = scaling
        self.diameter = diameter
        self.cost = cost
        self.debias = debias
        self.tol = tol
        self.max_iter = max_iter
        self.backend = backend

    def forward(self, x: Tensor, y: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> Tensor:
        value: Tensor = sinkhorn_divergence(
            x,
            y,
            a,
            b,
            p=self.p,
            blur=self.blur,
            eps=self.eps,
            reach=self.reach,
            scaling=self.scaling,
            diameter=self.diameter,
            cost=self.cost,
            debias=self.debias,
            tol=self.tol,
            max_iter=self.max_iter,
            backend=self.backend,
        )
        return value

    def extra_repr(self) -> str:
        lengths = f"blur={self.blur}" if self.eps is None else f"eps={self.eps}"
        return f"p={self.p}, {lengths}, reach={self.reach}, tol={self.tol}, backend={self.backend!r}"


class SamplesLoss(torch.nn.Module):
    """A drop-in for `geomloss.SamplesLoss(loss="sinkhorn")`: its arguments, its schedule, its values.

    Call it with (x, y), (a, x, b, y) or (l_x, a, x, l_y, b, y). Points are (N, D) and (M, D), or with a batch
    dimension; weights are (N,) or (N, 1), uniform when not given. The result is a scalar or (B,); with
    `potentials`, a pair shaped as the weights.

    The fixed schedule stops short of convergence; `sinkhorn_divergence` converges. What differs from
    GeomLoss:

    - The unbalanced gradient in the points is the true one of the value at convergence; GeomLoss's is (rho +
      eps/2) / (rho + eps) of it.
    - Weights that are negative, NaN, or (balanced) of different masses raise ValueError.
    - Second derivatives raise; those of GeomLoss leave the potentials' own derivatives out.

    Args:
        loss: "sinkhorn".
        p: the ground cost, |x - y| for 1 (with GeomLoss's floor of 1e-4) and |x - y|^2 / 2 for 2.
        blur: the length at which details are lost, eps = blur^p.
        reach: the length beyond which mass is destroyed rather than moved; None for balanced transport.
        diameter: first length of the schedule; None for the diagonal of the bounding box of the whole batch.
            When it is less than `blur` the schedule is [diameter^p, blur^p], as in GeomLoss.
        scaling: ratio between successive lengths.
        truncate, cluster_scale, verbose: accepted and ignored; they steer GeomLoss's two-scale solver.
        cost: a function of (B, N, D) and (B, M, D) tensors giving (B, N, M), instead of p; computed densely.
        kernel: None; kernels belong to other losses.
        debias: whether to subtract the self-terms.
        potentials: whether to return the potentials (f - f_xx, g - g_yy), or (f, g) when not debiased,
            instead of the value.
        backend: a backend of otcore or "auto"; GeomLoss's "tensorized", "online", "multiscale" are "auto".

    Labels l_x, l_y are accepted and ignored: they are cluster numbers that steer GeomLoss's two-scale solver
        and leave the loss as it is.
    """

    def __init__(
        self,
        loss: str = "sinkhorn",
        p: int = 2,
        blur: float = 0.05,
        reach: float | None = None,
        diameter: float | None = None,
        scaling: float = 0.5,
        truncate: float | None = 5,
        cost: CostFunction | None = None,
        kernel: Any = None,
        cluster_scale: float | None = None,
        debias: bool = True,
        potentials: bool = False,
        verbose: bool = False,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        if loss != "sinkhorn":
            raise ValueError(
                f'loss is {loss!r}; use "sinkhorn", the only one here (GeomLoss has kernel losses).'
            )
        if kernel is not None:
            raise ValueError(f"kernel is {kernel!r}; use None, kernels have no part in the Sinkhorn loss.")
        if isinstance(cost, str):
            raise ValueError(f"cost is {cost!r}; use a Python function of x and y, not a KeOps formula.")
        self.loss = loss
        self.p = p
        self.blur = blur
        self.reach = reach
        self.diameter = diameter
        self.scaling = scaling
        self.truncate = truncate
        self.cost = cost
        self.kernel = kernel
        self.cluster_scale = cluster_scale
        self.debias = debias
        self.potentials = potentials
        self.verbose = verbose
        self.backend = backend

    def forward(self, *args: Any) -> Any:
        x, y, a, b = _measures(args)
        problem = make_problem(
            x,
            y,
            _vector(a, x),
            _vector(b, y),
            p=self.p,
            blur=self.blur,
            reach=self.reach,
            scaling=self.scaling,
            diameter=self.diameter,
            cost=self.cost,
            debias=self.debias,
            backend="auto" if self.backend in _GEOMLOSS_BACKENDS else self.backend,
            floor=_GEOMLOSS_FLOOR if self.p == 1 and self.cost is None else 0.0,
        )
        value, after = self._follow(problem)
        if self.potentials:
            f, g, f_xx, g_yy = after
            pair = (f, g) if f_xx is None or g_yy is None else (f - f_xx, g - g_yy)
            shapes = (points.shape[:-1] if w is None else w.shape for w, points in ((a, x), (b, y)))
            dtype = problem.x.dtype
            return tuple(t.to(dtype).reshape(shape) for t, shape in zip(pair, shapes, strict=True))
        return value.squeeze(0) if x.dim() == 2 else value

    def _follow(self, problem: Problem) -> tuple[Tensor, Potentials]:
        if not isinstance(problem.cost, int):
            return _follow_callable(problem, problem.cost, self.blur)
        value, f, g, f_xx, g_yy, *_ = autograd.follow(
            problem.x,
            problem.y,
            problem.a,
            problem.b,
            *common_options(problem),
            float(self.blur),
            problem.scaling,
            problem.diameter,
            1,
        )
        return value, Potentials(f, g, f_xx, g_yy) if problem.debias else Potentials(f, g, None, None)

    def extra_repr(self) -> str:
        lengths = f"blur={self.blur}, reach={self.reach}, scaling={self.scaling}"
        return f"p={self.p}, {lengths}, backend={self.backend!r}"


def _measures(args: tuple[Any, ...]) -> tuple[Any, Any, Any, Any]:
    """(x, y, a, b) from the three call conventions."""
    if len(args) == 2:
        return args[0], args[1], None, None
    if len(args) == 4:
        return args[1], args[3], args[0], args[2]
    if len(args) == 6:
        return args[2], args[5], args[1], args[4]
    raise ValueError(
        f"SamplesLoss got {len(args)} arguments; use (x, y), (a, x, b, y) or (l_x, a, x, l_y, b, y)."
    )


def _vector(weights: Any, points: Any) -> Any:
    """Weights (N, 1) or (B, N, 1) as (N,) or (B, N)."""
    if (
        isinstance(weights, Tensor)
        and isinstance(points, Tensor)
        and weights.dim() == points.dim()
        and weights.shape[-1] == 1
    ):
        return weights.squeeze(-1)
    return weights


def _follow_callable(problem: Problem, cost: CostFunction, blur: float) -> tuple[Tensor, Potentials]:
    """The schedule without gradients, then the last half-step through autograd, all else held constant."""
    x, y, a, b = problem.x, problem.y, problem.a, problem.b
    with torch.no_grad():
        check_values(problem)
        diameter = problem.diameter
        if diameter is None:
            diameter = joint_diameter(x, y)
        _, before, _ = follow(
            choose(problem), problem, geomloss_temperatures(diameter, blur, problem.scaling, problem.p)
        )

    def half_step(
        z: Tensor, other: Tensor, g: Tensor, weights: Tensor, rho: float, transpose: bool = False
    ) -> Tensor:
        fixed = other.detach()
        c = cost_matrix(fixed, z, cost).mT if transpose else cost_matrix(z, fixed, cost)
        s = weights.detach().log() + g / problem.eps
        return -damping(problem.eps, rho) * problem.eps * torch.logsumexp(s.unsqueeze(1) - c / problem.eps, 2)

    rho_x, rho_y = problem.rho
    f, g, f_xx, g_yy = before.to(x.dtype)
    after = Potentials(
        half_step(x, y, g, b, rho_x),
        half_step(y, x, f, a, rho_y, transpose=True),
        None if f_xx is None else half_step(x, x, f_xx, a, rho_x),
        None if g_yy is None else half_step(y, y, g_yy, b, rho_y),
    )
    value = geomloss_value(problem, after)
    # Where unbalanced, the gradient has the factor rho + eps and the value rho + eps / 2 (see
    # `geomloss_value`).
    doubled = geomloss_value(dataclasses.replace(problem, eps=2.0 * problem.eps), after)
    return value.detach() + doubled - doubled.detach(), after
