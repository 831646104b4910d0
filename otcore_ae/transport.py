"""The transport between latent points and a prior sample: one place that calls `otcore`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from otcore import SamplesLoss, Solution, sinkhorn_divergence
from otcore.solution import Potentials

PUBLISHED_BLUR = 0.05
PUBLISHED_SCALING = 0.7


@dataclass(frozen=True)
class Transport:
    """Debiased Sinkhorn divergence S(x, y), cost |x - y|^2 / 2, with the settings of the Global-SAE paper.

    Args:
        blur: length scale of the entropic smoothing, in latent units (default 0.05).
        scaling: ratio of successive blurs while annealing (default 0.7).
        tol: marginal error at which a solve counts as converged (default 1e-2).
        max_iter: most sweeps before otcore gives up and warns (default 2000).
        diameter: GeomLoss's argument of this name, for its schedule alone (None, default: measured).
        schedule: "converged" (default) iterates to `tol`; "geomloss" runs GeomLoss's fixed schedule, as the
            published figures did, and knows no warm start.
    """

    blur: float = PUBLISHED_BLUR
    scaling: float = PUBLISHED_SCALING
    tol: float = 1e-2
    max_iter: int = 2000
    diameter: float | None = None
    schedule: str = "converged"

    def __post_init__(self) -> None:
        if self.schedule not in ("converged", "geomloss"):
            raise ValueError(f"schedule must be 'converged' or 'geomloss', got {self.schedule!r}")

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """S(x, y) of an (n, d) and an (m, d) cloud with equal weights: a differentiable scalar."""
        if self.schedule == "geomloss":
            loss = SamplesLoss("sinkhorn", p=2, blur=self.blur, scaling=self.scaling, diameter=self.diameter)
            value: Tensor = loss(x, y)
        else:
            value = self._solve(x, y)
        return value

    def warm(self, x: Tensor, y: Tensor, init: Potentials | None) -> tuple[Tensor, Potentials]:
        """S(x, y), started from the potentials of an earlier solve, and the potentials it ends at."""
        solution = self._solve(x, y, init=init, return_solution=True)
        return solution.value, _potentials(solution)

    def _solve(self, x: Tensor, y: Tensor, **options: Any) -> Any:
        settings = {"blur": self.blur, "scaling": self.scaling, "tol": self.tol, "max_iter": self.max_iter}
        return sinkhorn_divergence(x, y, p=2, **{**settings, **options})


def _potentials(solution: Solution) -> Potentials:
    return Potentials(solution.f, solution.g, solution.f_xx, solution.g_yy)
