"""Sweeps and seconds that sinkhorn_divergence takes to given marginal errors, as a markdown table.

python benchmarks/convergence.py                         N = 2000, to 1e-2 and 1e-3
python benchmarks/convergence.py --tol 1e-4 --points 500
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

import torch

# benchmarks/ is on the path already, as the script's folder; clouds are in tests/.
sys.path.append(str(Path(__file__).resolve().parents[1]))

from clouds import pair
from comparison.line import duration
from comparison.solve import Solve, solve

# Name, family of clouds, dimension, blur.
PROBLEMS = (
    ("flower, blur .05", "flower", 2, 0.05),
    ("uniform 3-D, blur .05", "uniform", 3, 0.05),
    ("uniform 3-D, blur .02", "uniform", 3, 0.02),
    ("manifold 8-D, blur .05", "manifold", 8, 0.05),
    ("normal 64-D, blur 2", "normal", 64, 2.0),
)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tol", type=float, nargs="+", default=(1e-2, 1e-3), help="marginal errors")
    parser.add_argument("--points", type=int, default=2000, metavar="N", help="in each of the clouds")
    parser.add_argument("--max-iter", type=int, default=2000, help="sweeps at the final temperature")
    return parser.parse_args()


def cells(found: Solve) -> list[str]:
    """Sweeps and seconds; pairs evaluated too where the solution counts them."""
    sweeps = (
        str(found.sweeps) if found.converged else f"{found.sweeps} (stopped at {found.marginal_error:.1e})"
    )
    pairs = [] if found.pairs is None else [f"{found.pairs:.2e}"]
    return [sweeps, duration(found.seconds), *pairs]


def main() -> int:
    options = arguments()
    warnings.filterwarnings("ignore", message=".*max_iter")  # the table says so
    rows: list[list[str]] = []
    for name, family, d, blur in PROBLEMS:
        for dtype in (torch.float64, torch.float32):
            x, y = (t.to(dtype) for t in pair(family, options.points, d))
            solve(x[:100], y[:100], blur=blur)
            solves = [solve(x, y, blur=blur, tol=tol, max_iter=options.max_iter) for tol in options.tol]
            rows.append([name, str(dtype).removeprefix("torch."), *(c for s in solves for c in cells(s))])
    columns = ["sweeps", "time", "pairs"][: (len(rows[0]) - 2) // len(options.tol)]
    headings = ["clouds", "dtype", *(f"{column} to {tol:g}" for tol in options.tol for column in columns)]
    print(f"N = {options.points}, {torch.get_num_threads()} threads\n")
    for row in (headings, ["---"] * len(headings), *rows):
        print(f"| {' | '.join(row)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
