"""What a solve returns: potentials, an honest report, and the plan as an operator in linear memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy
import torch
from torch import Tensor

from . import ragged
from .ragged import Sizes

if TYPE_CHECKING:
    from .backends import Backend
    from .bounds import Bounds
    from .plan import Plan
    from .problem import Problem

# Entries of the largest plan that `Solution.plan` writes out: 512 MiB in float64.
LARGEST_PLAN = 2**26


class ConvergenceWarning(UserWarning):
    """A solve stopped before its marginal error fell below the tolerance."""


class Status(IntEnum):
    """How a solve ended; `text` says what to do about it."""

    CONVERGED = 0
    MAX_ITER = 1
    NOT_FINITE = 2

    @property
    def text(self) -> str:
        return _TEXTS[self]


_TEXTS = {
    Status.CONVERGED: "the marginal error is below tol",
    Status.MAX_ITER: (
        "the marginal error was still above tol after max_iter sweeps at the final temperature: "
        "raise max_iter, tol or blur; in float32, a tol below about 1e-5 may be out of reach: use float64"
    ),
    Status.NOT_FINITE: (
        "the marginal error left the range of floating point: raise blur, or scale points and weights so "
        "that they are about 1"
    ),
}


class Potentials(NamedTuple):
    """Potentials of x-y, (B, N) and (B, M), and of the self-terms, likewise, None when not debiased."""

    f: Tensor
    g: Tensor
    f_xx: Tensor | None
    g_yy: Tensor | None

    def to(self, dtype: torch.dtype) -> Potentials:
        """The same in another dtype."""
        return Potentials(*(None if t is None else t.to(dtype) for t in self))  # type: ignore[arg-type]

    def detach(self) -> Potentials:
        return Potentials(*(None if t is None else t.detach() for t in self))  # type: ignore[arg-type]

    def split(self, sizes: Sizes) -> list[Potentials]:
        """Those of each item of a ragged batch, (1, N) and (1, M)."""
        counts = (sizes.n, sizes.m, sizes.n, sizes.m)
        # An operator has an absent potential as an empty tensor.
        parts = [
            ragged.split(t, c) if t is not None and t.numel() else None
            for t, c in zip(self, counts, strict=True)
        ]
        items = len(parts[0] or ())
        return [Potentials(*(None if t is None else t[i] for t in parts)) for i in range(items)]  # type: ignore[arg-type]

    @staticmethod
    def join(items: Sequence[Potentials], sizes: Sizes) -> Potentials:
        """The inverse of `split`."""
        counts = (sizes.n, sizes.m, sizes.n, sizes.m)
        parts = zip(*items, strict=True)
        return Potentials(
            *(None if t[0] is None else ragged.join(t, c) for t, c in zip(parts, counts, strict=True))  # type: ignore[arg-type]
        )


class Solved(NamedTuple):
    """What a loop returns: potentials, and (B,) each: status and n_iter int64, the rest float64."""

    value: Tensor
    potentials: Potentials
    status: Tensor
    n_iter: Tensor
    marginal_error: Tensor
    pairs: Tensor


class Form(NamedTuple):
    """How the user gave the clouds, and gets results."""

    batched: bool  # a regular batch; not one cloud
    ragged: bool  # a list of clouds
    nested: bool  # as a nested tensor
    numpy: bool


@dataclass(frozen=True, eq=False)
class Solution:
    """A solved problem.

    Everything but the report is differentiable in the points and weights that were given: the value by the
    envelope theorem, potentials and plan by implicit differentiation, once. Those derivatives are exact at
    the optimum; where a solve stops short of it they are off by far more than its marginal error. Solve to a
    tol of 1e-6 in float64, say, before you use derivatives of anything but the value.

    Arrays have the batch dimension of the clouds, or none; they are NumPy arrays when the clouds were. For a
    ragged batch whatever belongs to points is a list, or a nested tensor when the clouds were, and so are the
    arguments of the methods.

    Attributes:
        value: the divergence or transport cost; a scalar or (B,).
        f, g: potentials of the transport between x and y, (N,) and (M,), or with a batch dimension; float64.
        f_xx, g_yy: potentials of the self-terms; None when not debiased.
        status: a `Status`, or their (B,) integers. Its `text` says what to do.
        converged: whether the status is CONVERGED; a bool, or (B,).
        n_iter: sweeps spent on x-y, those on clusters of points included; an int, or (B,).
        marginal_error: sum_i a_i |r_i - 1| + sum_j b_j |c_j - 1|, where r and c are the marginals relative to
            a and b (the targets e^{-f/rho}, e^{-g/rho} replace 1 when unbalanced), relative to the mean mass;
            the largest of the transports solved.
        pairs: pairs of points (or of clusters of them) whose exponential was computed, at most, in all
            transports solved; those that trees rule out and expansions serve are not among them. A float, or
            (B,).
        eps: the temperature, in units of the cost.
        backend: the name of the backend that ran.
    """

    value: Any
    f: Any
    g: Any
    f_xx: Any
    g_yy: Any
    status: Any
    converged: Any
    n_iter: Any
    marginal_error: Any
    pairs: Any
    eps: float
    backend: str
    _problem: Problem = field(repr=False)
    _potentials: Potentials = field(repr=False)
    _plans: Sequence[Plan] = field(repr=False)
    _form: Form = field(repr=False)

    def apply(self, v: Any) -> Any:
        """The plan times v: (M,) -> (N,) or (M, K) -> (N, K), after the batch dimension if there is one."""
        return self._times(v, lambda plan, v: plan.apply(v), "m")

    def apply_transpose(self, v: Any) -> Any:
        """The transposed plan times v: (N,) -> (M,) or (N, K) -> (M, K)."""
        return self._times(v, lambda plan, v: plan.apply_transpose(v), "n")

    def marginals(self) -> tuple[Any, Any]:
        """Row and column sums of the plan, (N,) and (M,): a and b up to `marginal_error` when balanced."""
        rows, columns = zip(*(plan.marginals() for plan in self._plans), strict=True)
        return self._out(rows), self._out(columns)

    def potential(self, points: Any) -> Any:
        """f extended to new points (K, D): lam softmin(g), with lam = 1 / (1 + eps / rho); (K,)."""
        given = self._points(points)
        return self._out([plan.potential(z) for plan, z in zip(self._plans, given, strict=True)])

    def transport(self, points: Any = None) -> Any:
        """Where the plan sends x, or new points (K, D): the mean of y under each row of the plan, (N, D)."""
        if points is None:
            return self._out([plan.transport() for plan in self._plans])
        given = self._points(points)
        return self._out([plan.transport(z) for plan, z in zip(self._plans, given, strict=True)])

    def bounds(self) -> Bounds:
        """Certified intervals for the value, and for the transport cost without regularisation.

        They are of the points as the solve had them: for a named cost in float32, of rounded ones.

        They hold whatever the marginal error is, and shrink to the rounding of float64 with it. Three sweeps
        a transport and a few passes more; not differentiable. See `otcore.bounds`.

        Returns:
            `Bounds` (lower, upper, cost_lower, cost_upper), each a float64 scalar or (B,).
        """
        from .bounds import Bounds, bounds

        with torch.no_grad():
            found = bounds(self._plans[0].verbs, self._problem, self._potentials)
        several = self._form.batched or self._form.ragged
        shaped: Any = (t if several else t.squeeze(0) for t in found)
        return Bounds(*(t.numpy() if self._form.numpy else t for t in shaped))

    def plan(self) -> Any:
        """The plan itself, (N, M).

        Raises:
            ValueError: when it has more than `otcore.solution.LARGEST_PLAN` entries; `apply` needs linear
                memory only.
        """
        entries = sum(plan.problem.a.numel() * plan.problem.b.shape[-1] for plan in self._plans)
        if entries > LARGEST_PLAN:
            raise ValueError(
                f"plan() would have {entries} entries, more than {LARGEST_PLAN}; use apply(v), "
                "apply_transpose(v) or transport()."
            )
        return self._out([plan.matrix() for plan in self._plans], nest=False)

    def _times(self, v: Any, product: Callable[[Plan, Tensor], Tensor], side: str) -> Any:
        results = []
        for plan, columns in zip(self._plans, self._in("v", v), strict=True):
            size = (plan.problem.b if side == "m" else plan.problem.a).shape
            vector = columns.dim() == 2
            if columns.dim() not in (2, 3) or columns.shape[:2] != size:
                shape = columns.shape if self._form.batched else columns.shape[1:]
                usable = f"({size[1]},) or ({size[1]}, K), after any batch dimension"
                raise ValueError(f"v has shape {tuple(shape)}; use {usable}.")
            result = product(plan, columns.unsqueeze(-1) if vector else columns)
            results.append(result.squeeze(-1) if vector else result)
        return self._out(results)

    def _points(self, points: Any) -> list[Tensor]:
        given = self._in("points", points)
        for z, plan in zip(given, self._plans, strict=True):
            batch, _, d = plan.targets.shape
            if z.dim() != 3 or len(z) != batch or z.shape[-1] != d:
                batched = self._form.batched
                shape, usable = (z.shape, f"({batch}, K, {d})") if batched else (z.shape[1:], f"(K, {d})")
                raise ValueError(f"points has shape {tuple(shape)}; use {usable}.")
        return [z.contiguous() for z in given]

    def _in(self, name: str, given: Any) -> list[Tensor]:
        """An argument with a batch dimension, for each of the plans."""
        if not self._form.ragged:
            tensor = self._tensor(name, given)
            return [tensor if self._form.batched else tensor.unsqueeze(0)]
        items = given.unbind() if isinstance(given, Tensor) else given
        if not isinstance(items, (list, tuple)) or len(items) != len(self._plans):
            raise ValueError(
                f"{name} is not a list of {len(self._plans)}; give one array an item of the batch."
            )
        return [self._tensor(name, item).unsqueeze(0) for item in items]

    def _tensor(self, name: str, given: Any) -> Tensor:
        # A copy of an array: torch takes no negative strides.
        tensor = torch.as_tensor(numpy.array(given) if isinstance(given, numpy.ndarray) else given)
        if tensor.is_complex() or not bool(tensor.isfinite().all()):
            raise ValueError(f"{name} has values that are complex, infinite or NaN; use finite real numbers.")
        return tensor.to(self._problem.x)

    def _out(self, parts: Sequence[Tensor], nest: bool = True) -> Any:
        return formed(parts, self._form if nest else self._form._replace(nested=False))


def formed(parts: Sequence[Tensor], form: Form) -> Any:
    """Results in the form of the clouds: `parts` is one batched tensor, or of a ragged batch one an item."""
    if not form.ragged:
        tensor = parts[0] if form.batched else parts[0].squeeze(0)
        return tensor.detach().numpy() if form.numpy else tensor
    items = [part.squeeze(0) for part in parts]
    if form.numpy:
        return [item.detach().numpy() for item in items]
    return torch.nested.as_nested_tensor(items, layout=torch.jagged) if form.nested else items


def make_solution(
    problem: Problem,
    backend: Backend,
    value: Tensor,
    potentials: Potentials,
    info: Tensor,
    *,
    form: Form,
    plans: Sequence[Plan],
) -> Solution:
    """Wrap what the operators return; `info` is as of `otcore.operators.report`."""

    def shaped(*tensors: Tensor | None) -> Any:
        return None if tensors[0] is None else formed(tensors, form)  # type: ignore[arg-type]

    def report(tensor: Tensor) -> Any:
        return tensor.numpy() if form.numpy else tensor

    several = form.batched or form.ragged
    status, n_iter, error, pairs = info[:, 0].long(), info[:, 1].long(), info[:, 2], info[:, 3]
    own = [plan.potentials for plan in plans]
    return Solution(
        value=report(value.detach() if form.numpy else value) if several else shaped(value),
        f=shaped(*(q.f for q in own)),
        g=shaped(*(q.g for q in own)),
        f_xx=shaped(*(q.f_xx for q in own)),
        g_yy=shaped(*(q.g_yy for q in own)),
        status=report(status) if several else Status(int(status)),
        converged=report(status == Status.CONVERGED) if several else int(status) == Status.CONVERGED,
        n_iter=report(n_iter) if several else int(n_iter),
        marginal_error=report(error) if several else float(error),
        pairs=report(pairs) if several else float(pairs),
        eps=problem.eps,
        backend=backend.name,
        _problem=problem,
        _potentials=potentials.detach(),
        _plans=plans,
        _form=form,
    )
