"""nn.Module forms: `SinkhornDivergence`, `SlicedWasserstein`, and `SamplesLoss` with GeomLoss's numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from . import autograd
from .backends import choose
from .backends.dense import cost_matrix
from .dual import damping, geomloss_value
from .functional import CostFunction, common_options, full_precision, sinkhorn_divergence
from .kernel_loss import KERNEL_LOSSES, KernelFunction, custom_loss, kernel_problem, named_loss
from .problem import Problem, Reach, check_cost_name, check_values, make_problem
from .ragged import join, split
from .schedule import geomloss_temperatures, joint_diameter
from .sliced import power_of, sliced_wasserstein_distance
from .solution import Potentials
from .solver import follow

# GeomLoss keeps the square root away from zero by this.
_GEOMLOSS_FLOOR = 1e-8
_GEOMLOSS_BACKENDS = ("tensorized", "online")


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
        cost: str | CostFunction | None = None,
        debias: bool = True,
        tol: float = 1e-2,
        max_iter: int = 2000,
        backend: str = "auto",
        verbose: bool = False,
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
        self.verbose = verbose

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
            verbose=self.verbose,
        )
        return value

    def extra_repr(self) -> str:
        lengths = f"blur={self.blur}" if self.eps is None else f"eps={self.eps}"
        return f"p={self.p}, {lengths}, reach={self.reach}, tol={self.tol}, backend={self.backend!r}"


class SlicedWasserstein(torch.nn.Module):
    """`otcore.sliced_wasserstein_distance` with its options fixed; call it with (x, y) or (x, y, a, b).

    Directions are drawn anew at every call, from `generator` or PyTorch's own; with `projections` (D, L), or
    with a `seed`, they are the same at every call. `projections` is a buffer: it moves with the module.
    """

    projections: Tensor | None

    def __init__(
        self,
        n_projections: int = 50,
        p: float = 2,
        projections: Tensor | None = None,
        seed: int | None = None,
        *,
        generator: torch.Generator | None = None,
        sampling: str = "normal",
        root: bool = True,
    ) -> None:
        super().__init__()
        self.n_projections = n_projections
        self.p = power_of(p)
        self.register_buffer("projections", projections)
        self.seed = seed
        self.generator = generator
        self.sampling = sampling
        self.root = root

    def forward(self, x: Tensor, y: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> Tensor:
        value: Tensor = sliced_wasserstein_distance(
            x,
            y,
            a,
            b,
            self.n_projections,
            self.p,
            self.projections,
            self.seed,
            generator=self.generator,
            sampling=self.sampling,
            root=self.root,
        )
        return value

    def extra_repr(self) -> str:
        return f"n_projections={self.n_projections}, p={self.p}, sampling={self.sampling!r}, root={self.root}"


class SamplesLoss(torch.nn.Module):
    """A drop-in for `geomloss.SamplesLoss`: its arguments, its schedule, its values.

    Call it with (x, y), (a, x, b, y) or (l_x, a, x, l_y, b, y). Points are (N, D) and (M, D), or with a batch
    dimension, or lists of them; weights are (N,) or (N, 1), uniform when not given. The result is a scalar or
    (B,); with `potentials`, a pair shaped as the weights.

    The losses, with d = |x - y|:

    - "sinkhorn": the Sinkhorn divergence at the end of a fixed schedule, which stops short of convergence;
      `sinkhorn_divergence` converges.
    - "gaussian", "laplacian", "energy": the kernel norm <a - b, k * (a - b)> / 2 with k = exp(-d^2 / (2
      blur^2)), exp(-d / blur) and -d. The potentials are (k * a - k * b on x, k * b - k * a on y). Masses are
      free, but "energy" is a distance between equal ones only.
    - "hausdorff": the Hausdorff divergence, <a - b, s_b - s_a> / 2 with the symmetric Sinkhorn potentials s,
      for equal masses: see `otcore.hausdorff`. The potentials are (s_b - s_a on x, s_a - s_b on y).

    What differs from GeomLoss:

    - The unbalanced gradient in the points is the true one of the value at convergence; GeomLoss's is (rho +
      eps/2) / (rho + eps) of it.
    - Weights that are negative, NaN, or (balanced) of different masses raise ValueError.
    - Second derivatives of "sinkhorn" raise, where GeomLoss leaves the potentials' own derivatives out; those
      of the kernel norms are exact, on matrices.
    - "laplacian" and "energy" take the true distance, where GeomLoss's tensorized backend raises it to 1e-4
      (blurs), even of a point to itself; potentials have their true derivatives.
    - "hausdorff" works; in GeomLoss 0.3.1 it raises a KeyError.

    Args:
        loss: "sinkhorn", "energy", "gaussian", "laplacian" or "hausdorff".
        p: the ground cost of "sinkhorn" and "hausdorff": |x - y| for 1 ("sinkhorn" with GeomLoss's floor of
            1e-4) and |x - y|^2 / 2 for 2.
        blur: the length at which details are lost, eps = blur^p; the length of a kernel. "energy" has none.
        reach: the length beyond which mass is destroyed rather than moved; None for balanced transport.
        diameter: first length of the schedule; None for the diagonal of the bounding box of the whole batch.
            When it is less than `blur` the schedule is [diameter^p, blur^p], as in GeomLoss.
        scaling: ratio between successive lengths.
        truncate, cluster_scale: accepted and ignored; they steer GeomLoss's two-scale solver. Losses other
            than "sinkhorn" also ignore reach, diameter, scaling, cost and debias.
        verbose: whether a long schedule says on sys.stderr, once a second, where it is.
        cost: another ground cost, as for `sinkhorn_divergence`, instead of p.
        kernel: another kernel in the place of "energy", "gaussian" or "laplacian": a symmetric function
            kernel(x, y, blur=blur) of (B, N, D) and (B, M, D) tensors giving (B, N, M). On matrices.
        debias: whether to subtract the self-terms.
        potentials: whether to return the potentials (f - f_xx, g - g_yy), or (f, g) when not debiased,
            instead of the value.
        backend: a backend of otcore or "auto"; GeomLoss's "tensorized" and "online" are "auto". "multiscale"
            runs the first temperatures on clusters of points (some thousand points and more, on the CPU): the
            value then differs a little from the full schedule's.

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
        cost: str | CostFunction | None = None,
        kernel: KernelFunction | None = None,
        cluster_scale: float | None = None,
        debias: bool = True,
        potentials: bool = False,
        verbose: bool = False,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        if loss not in ("sinkhorn", *KERNEL_LOSSES):
            raise ValueError(f'loss is {loss!r}; use "sinkhorn", {", ".join(map(repr, KERNEL_LOSSES))}.')
        if kernel is not None and loss in ("sinkhorn", "hausdorff"):
            raise ValueError(f"kernel is {kernel!r}; use None, kernels have no part in the {loss} loss.")
        if kernel is not None and not callable(kernel):
            raise ValueError(
                f"kernel is {kernel!r}; use a function of x, y and blur giving (B, N, M), or None."
            )
        if loss == "hausdorff" and p not in (1, 2):
            raise ValueError(f"p is {p!r}; use 1 (cost |x - y|) or 2 (cost |x - y|^2 / 2).")
        if cost is not None and not callable(cost):
            check_cost_name(cost, p)
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

    @full_precision
    def forward(self, *args: Any) -> Any:
        x, y, a, b = _measures(args)
        value, pair, problem = (self._sinkhorn if self.loss == "sinkhorn" else self._kernel)(x, y, a, b)
        if self.potentials:
            n, m = problem.counts
            f, g = (t.to(problem.x.dtype) for t in pair)
            return _shaped(f, x, a, n), _shaped(g, y, b, m)
        return value if problem.sizes is not None or x.dim() == 3 else value.squeeze(0)

    def _kernel(self, x: Any, y: Any, a: Any, b: Any) -> tuple[Tensor, tuple[Tensor, Tensor], Problem]:
        problem = kernel_problem(x, y, _vector(a, x), _vector(b, y), backend=self._backend)
        parts = []
        for item in problem.split():
            if self.kernel is not None:
                parts.append(custom_loss(item, self.kernel, self.blur))
            else:
                parts.append(named_loss(item, self.loss, self.blur, self.p, self.potentials))
        value, phi_x, phi_y = zip(*parts, strict=True)
        if problem.sizes is None:
            return value[0], (phi_x[0], phi_y[0]), problem
        n, m = problem.sizes
        return torch.cat(value), (join(phi_x, n), join(phi_y, m)), problem

    @property
    def _backend(self) -> str:
        return "auto" if self.backend in _GEOMLOSS_BACKENDS else self.backend

    def _sinkhorn(self, x: Any, y: Any, a: Any, b: Any) -> tuple[Tensor, tuple[Tensor, Tensor], Problem]:
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
            backend=self._backend,
            floor=_GEOMLOSS_FLOOR if self.p == 1 and self.cost is None else 0.0,
            verbose=self.verbose,
        )
        value, (f, g, f_xx, g_yy) = self._follow(problem)
        pair = (f, g) if f_xx is None or g_yy is None else (f - f_xx, g - g_yy)
        return value, pair, problem

    def _follow(self, problem: Problem) -> tuple[Tensor, Potentials]:
        if callable(problem.cost):
            diameter = problem.diameter or joint_diameter(problem.x.detach(), problem.y.detach())
            parts = [
                _follow_callable(item, problem.cost, self.blur)
                for item in dataclasses.replace(problem, diameter=diameter).split()
            ]
            if problem.sizes is None:
                return parts[0]
            values, potentials = zip(*parts, strict=True)
            return torch.cat(values), Potentials.join(potentials, problem.sizes)
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
        return f"{self.loss!r}, p={self.p}, {lengths}, backend={self.backend!r}"


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
    if isinstance(weights, (list, tuple)) and isinstance(points, (list, tuple)):
        return [_vector(w, p) for w, p in zip(weights, points, strict=False)]
    if (
        isinstance(weights, Tensor)
        and isinstance(points, Tensor)
        and weights.dim() == points.dim()
        and weights.shape[-1] == 1
    ):
        return weights.squeeze(-1)
    return weights


def _shaped(potential: Tensor, points: Any, weights: Any, counts: Sequence[int]) -> Any:
    """A potential (B, N) or (L, sum N) in the shape of the weights, or of the points where there are none."""
    if not counts:
        return potential.reshape(points.shape[:-1] if weights is None else weights.shape)
    shapes = [item.shape[:-1] for item in points] if weights is None else [item.shape for item in weights]
    return [t.reshape(shape) for t, shape in zip(split(potential, counts), shapes, strict=True)]


def _follow_callable(problem: Problem, cost: CostFunction, blur: float) -> tuple[Tensor, Potentials]:
    """The schedule without gradients, then the last half-step through autograd, all else held constant."""
    x, y, a, b = problem.x, problem.y, problem.a, problem.b
    with torch.no_grad():
        check_values(problem)
        assert problem.diameter is not None
        temperatures = geomloss_temperatures(problem.diameter, blur, problem.scaling, problem.p)
        _, before, _ = follow(choose(problem), problem, temperatures)

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
