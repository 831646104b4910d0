"""A million points against a million: seconds and peak memory of one sinkhorn_divergence.

    python benchmarks/million.py                   uniform in the unit cube, blur .01, float32, to 1e-2
    python benchmarks/million.py --points 5000     a small trial
    python benchmarks/million.py --verbose         with verbose=True, for the solver's own progress

Exit status: 0 when both bars are met, 1 when one is not, 2 when it did not converge.
"""

from __future__ import annotations

import argparse
import resource
import sys
from pathlib import Path
from typing import Any

# benchmarks/ is on the path already, as the script's folder; clouds are in tests/.
sys.path.append(str(Path(__file__).resolve().parents[1]))

from comparison import machine
from comparison.solve import solve

from tests.problems import cloud

BLUR, TOL = 0.01, 1e-2
SECONDS_BAR, MEMORY_BAR = 300.0, 3.0  # memory in GiB: of the whole process, torch included


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--points", type=int, default=1_000_000, metavar="N", help="in each of the clouds")
    parser.add_argument("--verbose", action="store_true", help="pass verbose=True to the solver")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    about = machine.describe()
    print(f"{about['CPU']}, {about['torch threads']} threads, {about['instruction set']}", flush=True)
    x, y = (cloud(options.points, 3, seed).float() for seed in (0, 1))
    extra: dict[str, Any] = {"verbose": True} if options.verbose else {}
    found = solve(x, y, blur=BLUR, tol=TOL, **extra)
    gibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # counted in KiB
    judged = (
        ("time", found.seconds, SECONDS_BAR, "s"),
        ("peak memory", gibibytes, MEMORY_BAR, "GiB"),
    )
    for name, figure, bar, unit in judged:
        verdict = "met" if figure <= bar else "NOT MET"
        print(f"{name + ':':16}{figure:.2f} {unit}, bar {bar:g} {unit}: {verdict}")
    print(f"{'marginal error:':16}{found.marginal_error:.2e} after {found.sweeps} sweeps")
    print(f"{'value:':16}{float(found.solution.value):.6g}")
    if not found.converged:
        print(f"WRONG RESULT: {found.solution.status.text}")
        return 2
    return int(any(figure > bar for _, figure, bar, _ in judged))


if __name__ == "__main__":
    sys.exit(main())
