"""How the time of sinkhorn_divergence with its gradient grows with the number of points.

    python benchmarks/growth.py                       writes benchmarks/results/growth.png and growth.json
    python benchmarks/growth.py --sizes 1000 2000 4000 --output /tmp/growth.png

Flower clouds in float32, both with a gradient, at a fixed blur and at one that shrinks with the spacing of
the points, .05 (30,000 / N)^(1/2). The exponents are fitted to all sizes. Exit status: 0 when both bars are
met, 1 when one is not, 2 when a solve did not converge. Needs matplotlib.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import statistics
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy

# benchmarks/ is on the path already, as the script's folder; clouds are in tests/.
sys.path.append(str(Path(__file__).resolve().parents[1]))

from clouds import pair
from comparison import machine
from comparison.line import duration
from comparison.solve import solve

OUTPUT = Path(__file__).parent / "results" / "growth.png"
SIZES = (30000, 60000, 120000, 240000)
BLUR, BLUR_POINTS = 0.05, 30000
WARM_UP = 500  # points


@dataclass(frozen=True)
class Family:
    """Solves whose blur is a function of the number of points; bar: the largest exponent of the time."""

    name: str
    blur: Callable[[int], float]
    bar: float
    colour: str


FAMILIES = (
    Family(f"blur {BLUR:g}", lambda n: BLUR, 2.0, "#e76300"),
    Family(f"blur {BLUR:g} (30,000 / N)^(1/2)", lambda n: BLUR * (BLUR_POINTS / n) ** 0.5, 1.2, "#3f90da"),
)


@dataclass(frozen=True)
class Growth:
    """The solves of one family, one entry a size."""

    family: str
    bar: float
    sizes: list[int]
    blurs: list[float]
    seconds: list[float]
    sweeps: list[int]
    marginal_errors: list[float]
    converged: bool

    @property
    def exponent(self) -> float:
        """Of N, in the seconds; least squares on logarithms."""
        return float(numpy.polyfit(numpy.log(self.sizes), numpy.log(self.seconds), 1)[0])

    @property
    def verdict(self) -> str:
        return "met" if self.exponent <= self.bar else "NOT MET"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, metavar="N")
    parser.add_argument("--rounds", type=int, default=3, help="solves of each, of which the median counts")
    parser.add_argument("--output", type=Path, default=OUTPUT, metavar="FILE.png")
    options = parser.parse_args()
    if len(set(options.sizes)) < 2:
        parser.error(f"--sizes is {options.sizes}; an exponent needs at least two")
    if options.rounds < 1:
        parser.error(f"--rounds is {options.rounds}; use at least 1")
    return options


def grow(family: Family, sizes: list[int], rounds: int) -> Growth:
    solves = []
    for n in sizes:
        x, y = (t.float().requires_grad_() for t in pair("flower", n, 2))
        solves.append([solve(x, y, blur=family.blur(n)) for _ in range(rounds)])
        print(
            f"{family.name}, N = {n}: {duration(solves[-1][0].seconds)}, {solves[-1][0].sweeps} sweeps",
            file=sys.stderr,
        )
    return Growth(
        family=family.name,
        bar=family.bar,
        sizes=sizes,
        blurs=[family.blur(n) for n in sizes],
        seconds=[statistics.median(found.seconds for found in same) for same in solves],
        sweeps=[same[0].sweeps for same in solves],
        marginal_errors=[same[0].marginal_error for same in solves],
        converged=all(found.converged for same in solves for found in same),
    )


def draw(results: list[Growth], about: str, path: Path) -> None:
    """Seconds and sweeps against N."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    time, sweeps = figure.subplots(1, 2)
    for growth, family in zip(results, FAMILIES, strict=True):
        label = f"{growth.family}: N^{growth.exponent:.2f} (bar {growth.bar:g}, {growth.verdict})"
        time.plot(growth.sizes, growth.seconds, "o-", color=family.colour, label=label)
        sweeps.plot(growth.sizes, growth.sweeps, "o-", color=family.colour, label=growth.family)
    for axes, label in ((time, "seconds, with gradients"), (sweeps, "sweeps")):
        axes.set_xscale("log")
        axes.set_xticks(results[0].sizes, [f"{n:,}" for n in results[0].sizes])
        axes.minorticks_off()
        axes.set_xlabel("N")
        axes.set_ylabel(label)
        axes.grid(True, color="#d9d9d9", linewidth=0.5)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc="upper left", fontsize=8)
    time.set_yscale("log")
    time.margins(y=0.2)  # room for the legend
    sweeps.set_ylim(0, 1.3 * max(max(growth.sweeps) for growth in results))
    figure.suptitle(
        f"sinkhorn_divergence of flower clouds, float32, marginal error 1e-2; {about}", fontsize=9
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=160, facecolor="white")


def main() -> int:
    options = arguments()
    warnings.filterwarnings("ignore", message=".*max_iter")  # reported by the exit status
    about = machine.describe()
    today = datetime.date.today().isoformat()
    solve(*(t.float().requires_grad_() for t in pair("flower", WARM_UP, 2)))
    results = [grow(family, sorted(set(options.sizes)), options.rounds) for family in FAMILIES]
    draw(results, f"{about['CPU']}, {about['torch threads']} threads, {today}", options.output)
    rows = [
        dataclasses.asdict(growth) | {"exponent": growth.exponent, "verdict": growth.verdict}
        for growth in results
    ]
    figures = options.output.with_suffix(".json")
    figures.write_text(json.dumps({"date": today, "machine": about, "families": rows}, indent=1) + "\n")
    for growth in results:
        print(f"{growth.family}: time grows as N^{growth.exponent:.2f}, bar {growth.bar:g}: {growth.verdict}")
        for n, time, sweeps in zip(growth.sizes, growth.seconds, growth.sweeps, strict=True):
            print(f"  N = {n:<9,} {duration(time):>9} {sweeps:>5} sweeps")
    print(f"{options.output}, {figures}")
    if not all(growth.converged for growth in results):
        print("WRONG RESULT: a solve did not converge")
        return 2
    return int(any(growth.verdict != "met" for growth in results))


if __name__ == "__main__":
    sys.exit(main())
