"""Clouds that pruning and expansions gain nothing from: they must not lose either.

The plain path is the one without pruning and expansions. The environment variable OTCORE_PLAIN=1 chooses it
when otcore's extension is loaded, so that each measurement has a process of its own.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from typing import Any

import torch

from tests.problems import ARRANGEMENTS, uneven_weights

from .footprint_rows import _python
from .line import Check, Line, duration
from .options import Options
from .solve import solve
from .timing import Timings, interleave

BAR = 1.1
POINTS, BLUR = 5000, 0.05
RUNS = 3  # processes of each path, in turns
REPEATS = 5  # rounds of timing in each
PATHS: dict[str, dict[str, str]] = {"otcore": {}, "plain": {"OTCORE_PLAIN": "1"}}

# Run in a fresh interpreter.
MEASURE = """
import json, pathlib, sys
sys.path.append(str(pathlib.Path.cwd().parent))  # the clouds of tests/problems.py
from comparison.adversarial_rows import measured

print(json.dumps(measured(sys.argv[1], int(sys.argv[2]))))
"""

UNEVEN = "uneven weights"
CLOUDS = ("outlier", "line", "two clusters", "duplicates", "speck and cube", "far apart", UNEVEN)


def measured(name: str, n: int) -> dict[str, Any]:
    """Seconds of sinkhorn_divergence and its gradient in both clouds, on the path that this process takes,
    and what the solution reports."""
    draw = torch.Generator().manual_seed(0)
    arrange = ARRANGEMENTS["cube" if name == UNEVEN else name]
    x, y = (t.float().requires_grad_() for t in arrange(n, n, 2, BLUR, draw))
    a, b = (uneven_weights(n, seed).float() if name == UNEVEN else None for seed in (0, 1))
    step = functools.partial(solve, x, y, a, b, blur=BLUR)
    timings = interleave({name: step}, REPEATS)
    found = step()
    bounds = found.solution.bounds()
    return {
        "seconds": timings.median(name),
        "sweeps": found.sweeps,
        "converged": found.converged,
        "lower": float(bounds.lower),
        "upper": float(bounds.upper),
    }


def lines(row: str, name: str, _: Options, n: int = POINTS) -> Iterator[Line]:
    """sinkhorn_divergence and its gradient in both clouds."""
    results: dict[str, list[dict[str, Any]]] = {path: [] for path in PATHS}
    for run in range(RUNS):
        for path in list(PATHS)[:: -1 if run % 2 else 1]:
            results[path].append(json.loads(_python(MEASURE, name, str(n), environment=PATHS[path])))
    timings = Timings(
        {path: [found["seconds"] for found in found_all] for path, found_all in results.items()}
    )
    ours, plain = results["otcore"][0], results["plain"][0]
    yield Line(
        row=row,
        against="the plain path",
        ours=duration(timings.median("otcore")),
        theirs=duration(timings.median("plain")),
        figure=timings.ratio("otcore", "plain"),
        bar=BAR,
        at_least=False,
        check=_agree(ours, plain),
        detail=f"{timings.ratio_of_medians('otcore', 'plain'):.3g} x of medians; "
        f"{ours['sweeps']} sweeps, plain {plain['sweeps']}",
    )


def _agree(ours: dict[str, Any], plain: dict[str, Any]) -> Check:
    """Both converged, and their certified intervals have a value in common."""
    lower, upper = max(ours["lower"], plain["lower"]), min(ours["upper"], plain["upper"])
    common = f"both in [{lower:.6g}, {upper:.6g}]" if lower <= upper else "bounds exclude each other"
    converged = ours["converged"] and plain["converged"]
    return Check(converged and lower <= upper, common if converged else f"not converged; {common}")


ROWS = {row: functools.partial(lines, row, name) for name in CLOUDS for row in [f"large adversarial {name}"]}
