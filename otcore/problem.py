"""The optimal transport problem handed to the solver, and every check on what the user gave.

Two kinds of checks live here. `make_problem` looks only at shapes, dtypes, devices and options, so that it
can be traced by `torch.compile` and `torch.vmap`. `check_values` looks at the numbers; the operators of
`otcore.autograd` call it from their implementation, where the numbers are at hand.

Every error is a ValueError that names the argument, says what it was and what would work.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy
import torch
from torch import Tensor

from . import ragged
from .ragged import Sizes
from .solution import Potentials

Cost = int | str | Callable[[Tensor, Tensor], Tensor]
Reach = float | Sequence[float | None] | None

# |x - y|^2 and 1 - <x, y> / (|x| |y|): both are half the squared distance of other points.
NAMED_COSTS = ("sqeuclidean", "cosine")
DEFAULT_BLUR = 0.05
# As `backend`: "auto", and the fixed schedule of `SamplesLoss` on clusters of points where they are many.
MULTISCALE = "multiscale"
_MASS_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
_SHAPES = "(N, D) and (M, D), or (B, N, D) and (B, M, D), or two lists of (N, D) and (M, D)"


@dataclass(frozen=True)
class Problem:
    """Two weighted point clouds and how to compare them: batched, contiguous and already checked.

    Attributes:
        x, y: points, (B, N, D) and (B, M, D), float32 or float64, on one device.
        a, b: weights, (B, N) and (B, M).
        cost: 1 for |x - y|, 2 for |x - y|^2 / 2, a KeOps formula in X and Y, or a callable (B, N, D), (B, M,
            D) -> (B, N, M).
        eps: temperature, in units of the cost.
        rho: strengths of the two marginal constraints, in units of the cost; math.inf is an exact constraint.
        scaling: ratio between successive lengths of the annealing schedule.
        diameter: first length of that schedule; None for the diagonal of the bounding box.
        debias: whether the self-terms x-x and y-y are wanted as well.
        tol: the marginal error at which a solve stops (see `otcore.dual.marginal_error`).
        max_iter: the most sweeps at the final temperature.
        init: potentials to start from, instead of annealing.
        backend: name of the backend, or "auto".
        p: the exponent that turns lengths into temperatures, eps = blur^p; equals `cost` when that is an
            integer.
        floor: for cost 1 only, the cost is sqrt(max(|x - y|^2, floor)), flat below (GeomLoss has 1e-8).
        weighted: whether a or b was given by the user; weights that were made here need no check.
        sizes: of a ragged batch, laid out as `otcore.ragged` says; None for a regular one.
        verbose: whether long solves report their progress on sys.stderr.
    """

    x: Tensor
    y: Tensor
    a: Tensor
    b: Tensor
    cost: Cost
    eps: float
    rho: tuple[float, float] = (math.inf, math.inf)
    scaling: float = 0.5
    diameter: float | None = None
    debias: bool = True
    tol: float = 1e-2
    max_iter: int = 2000
    init: Potentials | None = None
    backend: str = "auto"
    p: int = 2
    floor: float = 0.0
    weighted: bool = True
    sizes: Sizes | None = None
    verbose: bool = False

    @property
    def counts(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The sizes of the items in x and in y, empty for a regular batch."""
        return self.sizes or ((), ())

    @property
    def items(self) -> int:
        """How many problems there are."""
        return len(self.x) * (len(self.sizes.n) if self.sizes else 1)

    def split(self) -> list[Problem]:
        """The items of a ragged batch, each a regular batch of one."""
        if self.sizes is None:
            return [self]
        n, m = self.sizes
        parts: list[Sequence[Any]] = [
            ragged.split(t, c) for t, c in zip(self._tensors, (n, m, n, m), strict=True)
        ]
        init: Sequence[Potentials | None] = [None] * self.items
        if self.init is not None:
            init = self.init.split(self.sizes)
        return [
            dataclasses.replace(self, x=x, y=y, a=a, b=b, init=i, sizes=None)
            for x, y, a, b, i in zip(*parts, init, strict=True)
        ]

    def wide(self) -> Problem:
        """The same in float64; weights that were made here are uniform to its last place."""
        x, y, a, b = (t.double() for t in self._tensors)
        if not self.weighted and self.sizes is None:
            a, b = (torch.full_like(t, 1.0 / t.shape[-1]) for t in (a, b))
        return dataclasses.replace(self, x=x, y=y, a=a, b=b)

    @property
    def multiscale(self) -> bool:
        """Whether a fixed schedule may run on clusters of points."""
        return self.backend == MULTISCALE

    @property
    def _tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.x, self.y, self.a, self.b

    @property
    def balanced(self) -> bool:
        """Whether both marginal constraints are exact."""
        return self.rho[0] == self.rho[1] == math.inf

    @property
    def ground(self) -> dict[str, Any]:
        """The ground cost as keyword arguments of the backend verbs; `floor` only where it is used."""
        return {"cost": self.cost, "floor": self.floor} if self.floor else {"cost": self.cost}


def make_problem(
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
    cost: str | Callable[[Tensor, Tensor], Tensor] | None = None,
    debias: bool = True,
    tol: float = 1e-2,
    max_iter: int = 2000,
    init: Potentials | None = None,
    backend: str = "auto",
    floor: float = 0.0,
    verbose: bool = False,
) -> Problem:
    """Check shapes, dtypes, devices and options, and bring the clouds to batched form.

    Half-precision clouds are converted to float32, missing weights are uniform of total mass 1. The arguments
    are those of `otcore.sinkhorn_divergence`; `floor` is described in `Problem`.

    Raises:
        ValueError: naming the argument, what it was, and what would work.
    """
    sizes = None
    if is_ragged(x) or is_ragged(y):
        x, y, a, b, sizes = _joined(x, y, a, b)
    _check_clouds(x, y)
    if not _is_real(p) or p not in (1, 2):
        raise ValueError(
            f"p is {p!r}; use 1 (cost |x - y|) or 2 (cost |x - y|^2 / 2), or pass a callable as cost."
        )
    p = int(p)
    if not isinstance(debias, bool):
        raise ValueError(f"debias is {debias!r}; use True or False.")
    if cost is not None and not callable(cost):
        check_cost_name(cost, p)
    if not isinstance(backend, str):
        raise ValueError(f'backend is {backend!r}; use the name of one, or "auto".')
    temperature = _temperature(p, blur, eps)
    weighted = a is not None or b is not None
    x, y, a, b = _batched(x, y, a, b)
    if isinstance(cost, str) and cost in NAMED_COSTS:
        x, y = embedded(cost, x, "x", sizes and sizes.n), embedded(cost, y, "y", sizes and sizes.m)
        cost = None
    return Problem(
        x=x,
        y=y,
        a=a,
        b=b,
        cost=p if cost is None else cost,
        eps=temperature,
        rho=_strengths(p, reach),
        scaling=_between_zero_and_one("scaling", scaling),
        diameter=None if diameter is None else _positive("diameter", diameter),
        debias=debias,
        tol=_positive("tol", tol),
        max_iter=_count("max_iter", max_iter),
        init=None if init is None else _check_init(init, a, b, debias),
        backend=backend,
        p=p,
        floor=floor,
        weighted=weighted,
        sizes=sizes,
        verbose=bool(verbose),
    )


def readable(tensor: Tensor) -> bool:
    """Whether its numbers can be looked at: not while a CUDA graph is captured, when there are none yet."""
    return not (tensor.is_cuda and torch.cuda.is_current_stream_capturing())


def check_values(problem: Problem) -> None:
    """Check the numbers of a problem: points finite, weights finite and not negative, masses that match.

    Nothing is checked while a CUDA graph is captured.

    Raises:
        ValueError: naming the argument, what it was, and what would work.
    """
    check_points(problem)
    check_weights(problem)


def check_points(problem: Problem) -> None:
    """The first half of `check_values`: finite points."""
    if not readable(problem.x):
        return
    _check_finite("x", problem.x, problem.counts[0])
    _check_finite("y", problem.y, problem.counts[1])


def check_weights(problem: Problem) -> None:
    """The second half of `check_values`: weights finite and not negative, masses that match."""
    if not problem.weighted or not readable(problem.x):
        return
    mass_a, mass_b = (
        _mass(name, weights, counts)
        for name, weights, counts in zip("ab", (problem.a, problem.b), problem.counts, strict=True)
    )
    if problem.balanced:
        gap = abs(mass_a - mass_b)
        if not (gap <= _MASS_TOLERANCE[problem.x.dtype] * mass_a).all():
            worst = int(gap.argmax())
            of = f" in item {worst}" if len(gap) > 1 else ""
            raise ValueError(
                f"a has mass {float(mass_a[worst]):.6g} and b has mass {float(mass_b[worst]):.6g}{of}; "
                "without reach the masses must be equal: divide each by its sum, or pass reach=... for "
                "unbalanced transport."
            )


def _array(tensor: Tensor) -> Any:
    """The tensor as a NumPy array where that is free: NumPy is the faster of the two on small arrays."""
    return tensor.numpy() if tensor.device.type == "cpu" else tensor


def _check_finite(name: str, points: Tensor, counts: Sequence[int]) -> None:
    # A sum is finite only when all its terms are; it may overflow although they are, hence the second look.
    if math.isfinite(float(_array(points).sum())) or bool(torch.isfinite(points).all()):
        return
    value, place = _first(points, ~torch.isfinite(points), counts)
    raise ValueError(f"{name} has {value} at {place}; all coordinates must be finite.")


def _check_clouds(x: Tensor, y: Tensor) -> None:
    for name, points in (("x", x), ("y", y)):
        if not isinstance(points, Tensor):
            raise ValueError(
                f"{name} is a {type(points).__name__}; use a torch.Tensor (or NumPy arrays throughout)."
            )
        if points.dim() not in (2, 3):
            raise ValueError(f"{name} has shape {tuple(points.shape)}; use {_SHAPES}.")
        if points.shape[-2] == 0 or points.shape[0] == 0:
            raise ValueError(
                f"{name} has shape {tuple(points.shape)}, without a point; give at least one point a cloud."
            )
        if not points.is_floating_point():
            raise ValueError(
                f"{name} has dtype {points.dtype}; use float32 or float64, for instance {name}.float()."
            )
    if x.dim() != y.dim():
        raise ValueError(f"x has shape {tuple(x.shape)} and y has shape {tuple(y.shape)}; use {_SHAPES}.")
    if x.shape[-1] != y.shape[-1]:
        raise ValueError(
            f"x has {x.shape[-1]} coordinates a point and y has {y.shape[-1]}; both must live in one space."
        )
    if x.dim() == 3 and x.shape[0] != y.shape[0]:
        raise ValueError(
            f"x has a batch of {x.shape[0]} and y a batch of {y.shape[0]}; expand one to that of the other."
        )
    if x.dtype != y.dtype:
        raise ValueError(
            f"x has dtype {x.dtype} and y has dtype {y.dtype}; convert one, for instance y.to(x.dtype)."
        )
    if x.device != y.device:
        raise ValueError(f"x is on {x.device} and y on {y.device}; move one, for instance y.to(x.device).")


def is_ragged(points: Any) -> bool:
    """Whether a cloud is given as a sequence of tensors, or as a nested one."""
    return isinstance(points, (list, tuple)) or (isinstance(points, Tensor) and points.is_nested)


def _joined(x: Any, y: Any, a: Any, b: Any) -> tuple[Any, Any, Any, Any, Sizes]:
    """The items of a ragged batch one after another, (1, sum N, D) and (1, sum N), and their sizes."""
    parts = {name: _items(name, given) for name, given in (("x", x), ("y", y), ("a", a), ("b", b))}
    count = len(parts["x"] or ())
    for name, items in parts.items():
        if items is not None and len(items) != count:
            raise ValueError(f"{name} has {len(items)} items and x has {count}; give each item of the batch.")
    for i, (u, v) in enumerate(zip(parts["x"] or (), parts["y"] or (), strict=True)):
        try:
            _check_clouds(u, v)
            if u.dim() != 2:
                raise ValueError(f"x has shape {tuple(u.shape)}; use (N, D) for an item of a list.")
            for weights, cloud, points in (("a", "x", u), ("b", "y", v)):
                given = parts[weights]
                _weights(weights, None if given is None else given[i], cloud, points)
        except ValueError as error:
            raise ValueError(f"item {i} of the ragged batch: {error}") from None
    joined = (None if t is None else _concatenated(name, t) for name, t in parts.items())
    x, y, a, b = joined
    sizes = Sizes(*(tuple(len(item) for item in parts[name] or ()) for name in "xy"))
    a, b = (
        _uniform(points, counts) if weights is None else weights
        for weights, points, counts in zip((a, b), (x, y), sizes, strict=True)
    )
    return x, y, a, b, sizes


def _items(name: str, given: Any) -> Sequence[Tensor] | None:
    if given is None:
        return None
    if not is_ragged(given):
        raise ValueError(
            f"{name} is a {type(given).__name__} and the batch is ragged; use a list with one tensor an item."
        )
    items: Sequence[Tensor] = given.unbind() if isinstance(given, Tensor) else given
    if not items:
        raise ValueError(f"{name} is an empty list; give at least one item.")
    return items


def _concatenated(name: str, items: Sequence[Tensor]) -> Tensor:
    first = items[0]
    for i, item in enumerate(items):
        if not isinstance(item, Tensor):
            raise ValueError(
                f"{name}[{i}] is {item!r}; give a tensor for each item, or None for all of them."
            )
        if item.shape[1:] != first.shape[1:] or item.dtype != first.dtype or item.device != first.device:
            kinds = (f"{tuple(t.shape)} {t.dtype} on {t.device}" for t in (item, first))
            raise ValueError(
                f"{name}[{i}] is {next(kinds)} and {name}[0] is {next(kinds)}; "
                "items may differ in their number of points only."
            )
    return torch.cat(list(items)).unsqueeze(0)


def _uniform(points: Tensor, counts: Sequence[int]) -> Tensor:
    """Weights of mass 1 an item, (1, sum N)."""
    half = points.dtype not in (torch.float32, torch.float64)
    dtype = torch.float32 if half else points.dtype
    each = torch.tensor([1.0 / count for count in counts], dtype=dtype, device=points.device)
    return ragged.per_point(each, points.shape, counts)


def check_cost_name(cost: Any, p: int) -> None:
    """ValueError unless the cost, which is no function, is the name of one or may be a formula."""
    named = cost in NAMED_COSTS
    if not named and not (isinstance(cost, str) and "X" in cost and "Y" in cost):
        raise ValueError(
            f"cost is {cost!r}; use None, one of {', '.join(map(repr, NAMED_COSTS))}, a KeOps formula in X "
            'and Y such as "Norm2(X-Y)", or a function of (B, N, D) and (B, M, D) tensors giving (B, N, M).'
        )
    if named and p != 2:
        raise ValueError(f"p is {p!r} and cost is {cost!r}; leave p at 2 (then eps = blur^2).")


def embedded(cost: str, points: Tensor, name: str = "points", counts: Sequence[int] | None = None) -> Tensor:
    """Points (B, N, D) whose half squared distances are the named cost between the given ones."""
    if cost == "sqeuclidean":
        return points * math.sqrt(2.0)
    if points.shape[-1]:
        # Squares of the raw coordinates may leave the range of floating point; their direction does not.
        size = points.detach().abs().amax(-1, keepdim=True)
        points = points / torch.where(size > 0, size, 1.0)
    length: Tensor = torch.linalg.vector_norm(points, dim=-1, keepdim=True)
    # A tracer cannot look at values; there the check for NaN catches a zero vector.
    traced = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
    if not traced and readable(points) and not bool(length.all()):
        _, place = _first(length.squeeze(-1), length.squeeze(-1) == 0, counts or ())
        raise ValueError(f"{name} has the zero vector at {place}; the cosine cost needs a direction.")
    return points / length


def _batched(
    x: Tensor, y: Tensor, a: Tensor | None, b: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """All four tensors with a batch dimension, contiguous, in the dtype of the computation."""
    a = _weights("a", a, "x", x)
    b = _weights("b", b, "y", y)
    if x.dim() == 2:
        x, y, a, b = x.unsqueeze(0), y.unsqueeze(0), a.unsqueeze(0), b.unsqueeze(0)
    if x.dtype not in (torch.float32, torch.float64):
        x, y = x.float(), y.float()
    return x.contiguous(), y.contiguous(), a.contiguous(), b.contiguous()


def _weights(name: str, weights: Tensor | None, cloud: str, points: Tensor) -> Tensor:
    half = points.dtype not in (torch.float32, torch.float64)
    dtype = torch.float32 if half else points.dtype
    shape = points.shape[:-1]
    if weights is None:
        return torch.full(shape, 1.0 / shape[-1], dtype=dtype, device=points.device)
    if not isinstance(weights, Tensor):
        raise ValueError(
            f"{name} is a {type(weights).__name__}; use a torch.Tensor, or None for uniform weights."
        )
    if weights.shape != shape:
        raise ValueError(
            f"{name} has shape {tuple(weights.shape)} and {cloud} has shape {tuple(points.shape)}; "
            f"use {tuple(shape)}."
        )
    if weights.dtype != points.dtype and not (half and weights.dtype == torch.float32):
        raise ValueError(
            f"{name} has dtype {weights.dtype} and {cloud} has dtype {points.dtype}; convert one, "
            f"for instance {name}.to({cloud}.dtype)."
        )
    if weights.device != points.device:
        raise ValueError(
            f"{name} is on {weights.device} and {cloud} on {points.device}; move one, with .to()."
        )
    return weights.float() if half else weights


def _temperature(p: int, blur: float | None, eps: float | None) -> float:
    if eps is None:
        return _power("blur", DEFAULT_BLUR if blur is None else blur, p)
    if blur is not None:
        raise ValueError(f"blur is {blur!r} and eps is {eps!r}; give one of them (eps = blur^p).")
    return _positive("eps", eps)


def _strengths(p: int, reach: Reach) -> tuple[float, float]:
    if isinstance(reach, Sequence) and not isinstance(reach, str):
        if len(reach) != 2:
            raise ValueError(
                f"reach is {reach!r}; use None, one length, or a pair of them (None for an exact marginal)."
            )
        return _strength(p, reach[0]), _strength(p, reach[1])
    both = _strength(p, reach)
    return both, both


def _strength(p: int, reach: Any) -> float:
    if reach is None or (_is_real(reach) and reach == math.inf):
        return math.inf
    return _power("reach", reach, p)


def _power(name: str, length: Any, p: int) -> float:
    """length^p, which is to stay within floating point."""
    value = _positive(name, length)
    if not 1e-300 < value < 1e300 ** (1.0 / p) or value < 1e-300 ** (1.0 / p):
        raise ValueError(
            f"{name} is {length!r}, and {name}^{p} leaves the range of floating point; use about 1."
        )
    return float(value**p)


def _is_real(value: Any) -> bool:
    return isinstance(value, (int, float, numpy.integer, numpy.floating)) and not isinstance(value, bool)


def _positive(name: str, value: Any) -> float:
    # `not value > 0` also catches nan.
    if not _is_real(value) or not value > 0 or value == math.inf:
        raise ValueError(f"{name} is {value!r}; use a positive, finite number.")
    return float(value)


def _between_zero_and_one(name: str, value: Any) -> float:
    if not _is_real(value) or not 0 < value < 1:
        raise ValueError(f"{name} is {value!r}; use a number between 0 and 1, such as 0.5.")
    return float(value)


def _count(name: str, value: Any) -> int:
    whole = isinstance(value, (int, numpy.integer)) and not isinstance(value, bool)
    if not whole or not 1 <= value < 2**62:
        raise ValueError(f"{name} is {value!r}; use a whole number, at least 1.")
    return int(value)


def _check_init(init: Potentials, a: Tensor, b: Tensor, debias: bool) -> Potentials:
    batched: list[Tensor | None] = []
    for name, given, like in zip(Potentials._fields, init, (a, b, a, b), strict=True):
        if given is None or (not debias and name in ("f_xx", "g_yy")):
            if debias or name in ("f", "g"):
                raise ValueError(f"init has no {name}; use a Solution of the same kind (debias={debias}).")
            batched.append(None)
            continue
        if given.numel() != like.numel() or given.shape[-1] != like.shape[-1]:
            raise ValueError(
                f"init.{name} has shape {tuple(given.shape)}; use a Solution of clouds of these sizes."
            )
        if given.device != like.device:
            raise ValueError(f"init.{name} is on {given.device}; the clouds are on {like.device}.")
        batched.append(given.detach().reshape(like.shape).to(torch.float64).contiguous())
    return Potentials(*batched)  # type: ignore[arg-type]


def _mass(name: str, weights: Tensor, counts: Sequence[int]) -> Any:
    """The total mass of each item, an array (items,), of weights that are finite and not negative."""
    array = _array(weights)
    # NaN fails the comparison as well.
    if not float(array.min()) >= 0.0:
        value, place = _first(weights, ~(weights >= 0), counts)
        raise ValueError(
            f"{name} has {value} at {place}; "
            f"weights must be finite and not negative, for instance {name}.clamp(min=0)."
        )
    mass = _array(ragged.per_item(weights, counts)) if counts else array.sum(-1)
    usable = (mass > 0.0) & (mass < math.inf)
    if not usable.all():
        worst = usable.tolist().index(False)
        of = f" in item {worst}" if len(mass) > 1 else ""
        raise ValueError(
            f"{name} has mass {float(mass[worst])}{of}; use finite weights, at least one of them positive."
        )
    return mass


def _first(tensor: Tensor, mask: Tensor, counts: Sequence[int]) -> tuple[float, str]:
    """The first value of (B, N, ...) where the mask is true, and where that is, in words."""
    item, point, *rest = (int(i) for i in mask.nonzero()[0])
    value = tensor[(item, point, *rest)].item()
    if counts:
        within, point = ragged.place(point, counts)
        item = item * len(counts) + within
    place = ", ".join(str(i) for i in (point, *rest))
    return value, f"[{place}] of item {item}" if len(tensor) > 1 or counts else f"[{place}]"
