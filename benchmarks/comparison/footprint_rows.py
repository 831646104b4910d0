"""What otcore costs besides time: peak memory beyond its inputs, and seconds to import."""

from __future__ import annotations

import functools
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from .line import Check, Line, duration, size
from .options import Options

BENCHMARKS = Path(__file__).parents[1]
SIZES = (2000, 8000, 32000)
LINEAR = 1.1  # the exponent of N up to which growth counts as linear; a matrix would give 2
IMPORT_BAR = 0.3  # seconds
IMPORTS = 5
IMPORT_ROW = "import otcore"

# Run in a fresh interpreter. The schedule is short (few temperatures): memory does not depend on its length.
MEASURE = """
import json, pathlib, sys, torch
sys.path.append(str(pathlib.Path.cwd().parent))  # the clouds of tests/problems.py
from otcore import SamplesLoss, sinkhorn_divergence
from clouds import pair
from comparison.memory import peak_beyond

what, n, d = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
losses = {
    "samples_loss": SamplesLoss(blur=1.0, scaling=0.3),
    "divergence": lambda x, y: sinkhorn_divergence(x, y, blur=2.0),
}

def step(x, y):
    return torch.autograd.grad(losses[what](x, y), x)

def points(n):
    x, y = (t.float() for t in pair("uniform", n, d))
    return x.requires_grad_(), y

step(*points(300))
x, y = points(n)
peak = peak_beyond(lambda: step(x, y))
(gradient,) = step(x, y)
print(json.dumps({"peak": peak, "finite": bool(torch.isfinite(gradient).all())}))
"""

IMPORT = """
import time, torch
start = time.perf_counter()
import otcore
print(time.perf_counter() - start)
"""


def memory_lines(row: str, what: str, d: int, _: Options) -> Iterator[Line]:
    """Peak memory of one forward and backward, at growing N."""
    measured = [json.loads(_python(MEASURE, what, str(n), str(d))) for n in SIZES]
    peaks = [result["peak"] for result in measured]
    exponent = math.log(max(peaks[-1], 1) / max(peaks[-2], 1)) / math.log(SIZES[-1] / SIZES[-2])
    n = SIZES[-1]
    yield Line(
        row=row,
        against=f"N = {', '.join(str(n) for n in SIZES)}",
        ours=", ".join(size(peak) for peak in peaks),
        theirs=f"matrix {size(4.0 * n * n)}",
        figure=exponent,
        bar=LINEAR,
        at_least=False,
        check=Check(all(result["finite"] for result in measured), "gradient finite"),
        unit="(exponent of N)",
        detail=f"{peaks[-1] / (2 * n):.0f} bytes a point",
    )


def import_lines(_: Options) -> Iterator[Line]:
    """Seconds `import otcore` takes after `import torch`."""
    times = [float(_python(IMPORT)) for _ in range(IMPORTS + 1)][1:]  # the first one fills the page cache
    middle = statistics.median(times)
    yield Line(
        IMPORT_ROW,
        "after import torch",
        duration(middle),
        "-",
        middle,
        IMPORT_BAR,
        False,
        Check(True, "imports"),
        "s",
    )


def _python(code: str, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
    """Last line that code prints in a fresh interpreter. RuntimeError with its last errors when it fails."""
    path = os.pathsep.join(filter(None, [str(BENCHMARKS), os.environ.get("PYTHONPATH", "")]))
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **(environment or {}), "PYTHONPATH": path},
        cwd=BENCHMARKS,
    )
    if result.returncode:
        raise RuntimeError(f"the measuring process failed:\n{result.stderr[-1500:]}")
    return result.stdout.splitlines()[-1]


ROWS = {IMPORT_ROW: import_lines} | {
    row: functools.partial(memory_lines, row, what, d)
    for what in ("samples_loss", "divergence")
    for d in (2, 64)
    for row in [f"memory {what} D={d}"]
}
