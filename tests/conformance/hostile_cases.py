"""Hostile calls, by family; test_hostile.py runs them in processes of their own, as one may crash or hang.

Each call must give a finite value with finite gradients, or raise a ValueError, or warn and say by its status
that the value is not to be used. It must not sweep more often than max_iter and the annealing allow.
"""

from __future__ import annotations

import faulthandler
import json
import math
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy
import torch
from torch import Tensor

from otcore import ConvergenceWarning, Status, sinkhorn_divergence
from tests.problems import cloud, weights

MAX_ITER = 40
# 60 sweeps at most at each temperature but the last; no schedule of these calls has more of them than this.
MOST_SWEEPS = MAX_ITER + 60 * 1100

Call = dict[str, Any]


def numbers() -> Iterator[tuple[str, str, Call]]:
    """Coordinates at and beyond the ends of floating point."""
    x, y = cloud(9, 2, 0), cloud(7, 2, 1)
    for name, value in (("nan", math.nan), ("inf", math.inf), ("-inf", -math.inf)):
        bad = x.clone()
        bad[4, 1] = value
        yield f"x has {name}", "error", {"x": bad, "y": y}
        yield f"y has {name}", "error", {"x": y.float(), "y": bad.float()}
    for dtype in (torch.float32, torch.float64):
        for size in (1e-300, 1e-38, 1e-12, 1e6, 1e18, 1e30, 1e200):
            if size * 2 < torch.finfo(dtype).max:
                yield f"{size} {dtype}", "any", {"x": (size * x).to(dtype), "y": (size * y).to(dtype)}
        far = torch.cat([x, x[:1] + (1e30 if dtype == torch.float32 else 1e60)]).to(dtype)
        yield f"one point far away {dtype}", "any", {"x": far, "y": y.to(dtype)}
    yield "float16 overflow", "error", {"x": (1e6 * x).half(), "y": y.half()}
    yield "float16 near overflow", "number", {"x": (6e4 * x).half(), "y": (6e4 * y).half()}
    yield "bfloat16", "number", {"x": (1e6 * x).bfloat16(), "y": y.bfloat16()}


def masses() -> Iterator[tuple[str, str, Call]]:
    """Weights of every size."""
    x, y, b = cloud(9, 2, 0), cloud(7, 2, 1), weights(7, 1)
    one = torch.full((9,), 1e-30, dtype=torch.float64)
    one[3] = 1.0
    yield "one weight 1, the others 1e-30", "number", {"x": x, "y": y, "a": one, "b": b}
    yield (
        "the same in float32", "number",
        {"x": x.float(), "y": y.float(), "a": one.float(), "b": b.float() / b.float().sum()},
    )  # fmt: skip
    for value, dtype in ((1e-310, torch.float64), (1e-45, torch.float32), (1e-300, torch.float64)):
        tiny = torch.full((9,), value, dtype=dtype)
        points = {"x": x.to(dtype), "y": y.to(dtype)}
        yield f"all weights {value}", "any", {**points, "a": tiny, "b": 9 / 7 * tiny[:7]}
        yield f"all weights {value}, unbalanced", "any", {**points, "a": tiny, "b": b.to(dtype), "reach": 0.5}
        some = weights(9, 2).to(dtype)
        some[2] = value
        yield (
            f"one weight {value}",
            "number",
            {**points, "a": some / some.sum(), "b": (b / b.sum()).to(dtype)},
        )
    huge = torch.full((9,), 1e300, dtype=torch.float64)
    yield "weights 1e300", "any", {"x": x, "y": y, "a": huge, "b": 9 / 7 * huge[:7]}
    yield "weights 1e300, unbalanced", "any", {"x": x, "y": y, "a": huge, "b": b, "reach": 0.5}
    yield "a mass that overflows", "error", {"x": x, "y": y, "a": 1e8 * huge, "b": b}
    none = torch.zeros(9, dtype=torch.float64)
    yield "no mass", "error", {"x": x, "y": y, "a": none, "b": b}
    none[5] = 1.0
    yield "a single point with mass", "number", {"x": x, "y": y, "a": none, "b": b}
    yield "a negative weight", "error", {"x": x, "y": y, "a": none - 1e-320, "b": b}


def lengths() -> Iterator[tuple[str, str, Call]]:
    """Temperatures and reaches of every size."""
    x, y = cloud(9, 2, 0), cloud(7, 2, 1)
    for dtype in (torch.float32, torch.float64):
        points = {"x": x.to(dtype), "y": y.to(dtype)}
        for eps in (1e-12, 1e12, 1e30, 1e300):
            yield f"eps {eps} {dtype}", "any", {**points, "eps": eps, "scaling": 0.1}
            yield (
                f"eps {eps} {dtype}, unbalanced",
                "any",
                {**points, "eps": eps, "scaling": 0.1, "reach": 0.5},
            )
        for reach in (1e-100, 1e-12, 1e-3, 1e12, 1e100, (1e-12, None), (None, 1e12), (1e-6, 1e6)):
            yield f"reach {reach} {dtype}", "any", {**points, "reach": reach}
        largest = 1e12 if dtype == torch.float32 else 1e300
        yield f"diameter {largest} {dtype}", "any", {**points, "diameter": largest}
        yield f"diameter 1e-300 {dtype}", "any", {**points, "diameter": 1e-300}
        yield f"scaling next to 1 {dtype}", "any", {**points, "scaling": 0.95}
        yield f"scaling next to 0 {dtype}", "any", {**points, "scaling": 1e-300}
        yield f"tol out of reach {dtype}", "any", {**points, "tol": 1e-300}


def layouts() -> Iterator[tuple[str, str, Call]]:
    """Memory as nobody expects it, and clouds of extreme shapes."""
    x, y = cloud(9, 3, 0), cloud(7, 3, 1)
    wide = cloud(18, 6, 0)
    yield "every second row and column", "number", {"x": wide[::2, ::2], "y": y}
    yield "transposed", "number", {"x": cloud(3, 9, 0).T, "y": y}
    yield "expanded points", "number", {"x": x[:1].expand(9, 3), "y": y}
    yield "expanded batch", "number", {"x": x.expand(4, 9, 3), "y": y.expand(4, 7, 3)}
    yield "expanded weights", "number", {"x": x, "y": y, "a": x.new_full((1,), 1 / 9).expand(9)}
    yield (
        "permuted batch",
        "number",
        {"x": cloud(9, 3, 0, batch=2).transpose(0, 1), "y": cloud(7, 3, 1, batch=9)[:, :, :3]},
    )
    yield "leaves", "number", {"x": x.clone().requires_grad_(), "y": y.clone().requires_grad_()}
    for shape in ((0, 9, 3), (2, 0, 3), (0, 0, 0)):
        empty = torch.empty(shape, dtype=torch.float64)
        yield f"empty {shape}", "error", {"x": empty, "y": empty}
    yield "no coordinates", "number", {"x": x[:, :0], "y": y[:, :0]}
    yield "a thousand coordinates", "number", {"x": cloud(20, 1000, 0), "y": cloud(15, 1000, 1), "blur": 5.0}
    yield "one against 1000", "number", {"x": x[:1], "y": cloud(1000, 3, 2)}
    yield "one against 5000", "number", {"x": x[:1], "y": cloud(5000, 3, 2), "debias": False}
    yield (
        "5000 against one, far",
        "number",
        {"x": cloud(5000, 3, 2).float(), "y": x[:1].float() + 1e3, "debias": False},
    )
    yield "all identical", "number", {"x": torch.full((40, 3), 0.1), "y": torch.full((33, 3), 0.1)}
    yield "two places", "number", {"x": x[:1].expand(40, 3), "y": torch.cat([x[:1], y[:1]]).repeat(20, 1)}
    arrays = x.numpy(), y.numpy()
    yield "NumPy in Fortran order", "number", {"x": numpy.asfortranarray(arrays[0]), "y": arrays[1]}
    yield "NumPy backwards", "number", {"x": arrays[0][::-1], "y": arrays[1][::-1, ::-1]}
    locked = arrays[0].copy()
    locked.flags.writeable = False
    yield "read-only NumPy", "number", {"x": locked, "y": arrays[1]}
    yield "NumPy of the other byte order", "any", {"x": arrays[0].astype(">f8"), "y": arrays[1].astype(">f8")}
    yield "NumPy of objects", "error", {"x": arrays[0].astype(object), "y": arrays[1]}


FAMILIES: dict[str, Callable[[], Iterator[tuple[str, str, Call]]]] = {
    "numbers": numbers,
    "masses": masses,
    "lengths": lengths,
    "layouts": layouts,
}


def report(expected: str, call: Call) -> str:
    """What is wrong with how the call ends; empty where nothing is."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            solution = sinkhorn_divergence(**call, max_iter=MAX_ITER, return_solution=True)
        except ValueError as error:
            return "" if expected != "number" and str(error) else f"ValueError: {error}"
    if expected == "error":
        return f"no error, the value is {solution.value}"
    other = [str(w.message) for w in caught if not issubclass(w.category, ConvergenceWarning)]
    if other:
        return f"warning: {other[0]}"
    return _solution_report(solution, len(caught) > 0, call)


def _solution_report(solution: Any, warned: bool, call: Call) -> str:
    statuses = numpy.atleast_1d(numpy.asarray(solution.status))
    if int(numpy.asarray(solution.n_iter).max()) > MOST_SWEEPS:
        return f"{solution.n_iter} sweeps"
    converged = bool((statuses == Status.CONVERGED).all())
    if converged == warned:
        return f"status {statuses} and warned: {warned}"
    results = {
        name: getattr(solution, name) for name in ("value", "f", "g", "f_xx", "g_yy", "marginal_error")
    }
    if isinstance(solution.value, Tensor) and solution.value.requires_grad:
        leaves = [t for t in call.values() if isinstance(t, Tensor) and t.requires_grad]
        gradients = torch.autograd.grad(solution.value.sum(), leaves)
        results |= {f"gradient {i}": g for i, g in enumerate(gradients)}
    for name, result in results.items():
        if result is None:
            continue
        array = result.detach().numpy() if isinstance(result, Tensor) else numpy.asarray(result)
        if not numpy.isfinite(array).all() and converged:
            return f"{name} is not finite, and the status {statuses}"
    return ""


def main(family: str, backend: str) -> None:
    """Prints a line of JSON before each call, and one after: [name] and [name, what is wrong]."""
    faulthandler.enable()
    for name, expected, call in FAMILIES[family]():
        for p in (1, 2):
            options = {"p": p, "backend": backend, **call}
            if (
                isinstance(options["x"], Tensor)
                and options["x"].is_floating_point()
                and "float16" not in name
            ):
                options["x"] = options["x"].detach().requires_grad_(options["x"].is_leaf)
            label = f"{name}, p={p}"
            print(json.dumps([label]), flush=True)
            try:
                wrong = report(expected, options)
            except Exception as error:
                wrong = f"{type(error).__name__}: {error}"
            print(json.dumps([label, wrong]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
