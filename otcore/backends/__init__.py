"""Backends: the few verbs that touch every pair of points, and the choice among their implementations.

Inside, everything is batched and contiguous: x (B, N, D), y (B, M, D), a (B, N), b (B, M), f (B, N), g (B,
    M), in float32 or
float64. With cost C_ij and temperature eps, e_ij = exp((f_i + g_j - C_ij) / eps) and the plan is pi_ij = a_i
b_j e_ij.

Whole operations are optional: `anneal(problem)` and `follow(problem, eps_list)` as in `otcore.solver`,
`gradients` as `otcore.operators.point_gradients`, `diameter` as `otcore.schedule.joint_diameter`; so is
`machine()`, whether it can run here and on what, for `python -m otcore info`. Where a backend lacks one, the
Python form, which is also its reference, runs on the verbs. A backend for that form may have
`prepared(problem)`, see below, and `stepped`: true where `softmin` and `sweep` need not wait for the device,
so that a solve may be decided there (`otcore.backends.stepped`).
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from ..problem import MULTISCALE

if TYPE_CHECKING:
    from otcore.problem import Cost, Problem


class Backend(Protocol):
    """What the solver asks of a backend.

    `cost` is 1 (C = |x - y|), 2 (C = |x - y|^2 / 2), a formula for `keops` or a callable for `dense`. `floor`
    is passed only when it is not 0; then cost 1 is sqrt(max(|x - y|^2, floor)), with a zero gradient below.
    `eps` is a float; for a backend without its own `anneal` the loop also passes one temperature an item,
    (B,), to `softmin` and `sweep`.
    """

    name: str

    def refuses(self, problem: Problem) -> str | None:
        """Why it cannot solve the problem, in words that follow "backend X refuses: "; None if it can."""

    def softmin(
        self,
        x: Tensor,
        y: Tensor,
        g: Tensor,
        b: Tensor,
        *,
        cost: Cost,
        eps: float | Tensor,
        floor: float = 0.0,
    ) -> Tensor:
        """-eps log sum_j b_j exp((g_j - C_ij) / eps), (B, N)."""

    def sweep(
        self,
        x: Tensor,
        y: Tensor,
        f: Tensor,
        g: Tensor,
        a: Tensor,
        b: Tensor,
        *,
        cost: Cost,
        eps: float | Tensor,
        same: bool = False,
        floor: float = 0.0,
    ) -> tuple[Tensor, Tensor]:
        """log r (B, N) and log c (B, M) with r_i = sum_j b_j e_ij and c_j = sum_i a_i e_ij; always finite.

        `same` says that y is x, g is f and b is a; then both results are log r.
        """

    def apply(
        self,
        x: Tensor,
        y: Tensor,
        f: Tensor,
        g: Tensor,
        a: Tensor,
        b: Tensor,
        v: Tensor,
        *,
        cost: Cost,
        eps: float,
        floor: float = 0.0,
    ) -> Tensor:
        """The plan times v (B, M, K), (B, N, K)."""

    def grad(
        self,
        x: Tensor,
        y: Tensor,
        f: Tensor,
        g: Tensor,
        a: Tensor,
        b: Tensor,
        *,
        cost: Cost,
        eps: float,
        normalise: bool = False,
        floor: float = 0.0,
    ) -> Tensor:
        """sum_j pi_ij dC(x_i, y_j)/dx_i, (B, N, D).

        `normalise` divides it by a_i r_i, giving a mean that is finite also where a_i = 0.
        """


# In the order in which "auto" tries them; each name is also that of its module.
_CLASSES = {"cpu": "Cpu", "cuda": "Cuda", "triton": "Triton", "keops": "Keops", "dense": "Dense"}


def names() -> list[str]:
    """The names that the argument `backend` takes, besides "auto"."""
    return list(_CLASSES)


@cache
def load(name: str) -> Backend | str:
    """The backend of that name, or the reason why it cannot be imported."""
    try:
        backend: Backend = getattr(importlib.import_module(f".{name}", __name__), _CLASSES[name])()
    except ImportError as error:
        return f"it cannot be imported ({error})"
    return backend


def choose(problem: Problem) -> Backend:
    """The backend that the problem names, or for "auto" the first that does not refuse.

    Raises:
        ValueError: when the named backend, or every one, refuses; with the reasons.
    """
    wanted = problem.backend
    if wanted not in ("auto", MULTISCALE, *_CLASSES):
        raise ValueError(f'backend is {wanted!r}; use "auto" or one of {", ".join(names())}.')
    reasons = []
    for name in [wanted] if wanted in _CLASSES else names():
        backend = load(name)
        reason = backend if isinstance(backend, str) else backend.refuses(problem)
        if isinstance(backend, str) or reason is not None:
            reasons.append(f"backend {name!r} refuses: {reason}")
            continue
        return backend
    raise ValueError("; ".join(reasons) + '. Use backend="auto", or another one.')


def prepared(backend: Backend, problem: Problem) -> Backend:
    """The verbs for many calls on one problem: what depends on its clouds alone may be worked out once."""
    native = getattr(backend, "prepared", None)
    verbs: Backend = backend if native is None else native(problem)
    return verbs
