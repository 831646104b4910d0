"""Side by side with the peers: one table of ratios, measured in one process with the contenders interleaved.

    python benchmarks/compare.py                         everything that has a bar (about eleven minutes)
    python benchmarks/compare.py --rows 'samples_loss 5' the rows whose name matches
    python benchmarks/compare.py --rows '^large'         clouds of 5000 to 60,000 points, and adversarial ones
    python benchmarks/compare.py --peers ott,tensorized  only these peers; "all" adds those without a bar
    python benchmarks/compare.py --peers-only            the peers alone, without otcore
    python benchmarks/compare.py --json figures.json     the figures as a file, too

A ratio is the peer's time over ours: the median over rounds of each round's ratio, with the ratio of the
medians beside it. Warm-ups and compilation are not counted. Every row checks its result first, and a row
whose check is red shows no figure. Bars hold for two idle cores with AVX-512; without AVX-512 those against
peers are two thirds. Exit status: 0 when every bar is met, 1 when one is not, 2 when a result is wrong or a
row could not be measured.

Peers: pip install -r benchmarks/requirements.txt (KeOps compiles its formulas at first use: needs g++).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

# benchmarks/ is on the path already, as the script's folder; clouds and the accuracy yardstick are in tests/.
sys.path.append(str(Path(__file__).resolve().parents[1]))

from comparison import (
    accuracy_rows,
    adversarial_rows,
    batch_rows,
    footprint_rows,
    kernel_rows,
    large_rows,
    machine,
    peers,
    schedule_rows,
    sliced_rows,
    step_rows,
    sweep_rows,
)
from comparison.line import Line, not_measured, table
from comparison.options import Options

Lines = Callable[[Options], Iterator[Line]]

ROWS: dict[str, Lines] = {
    **footprint_rows.ROWS,
    **sweep_rows.ROWS,
    **schedule_rows.ROWS,
    **batch_rows.ROWS,
    **accuracy_rows.ROWS,
    **kernel_rows.ROWS,
    **sliced_rows.ROWS,
    **step_rows.ROWS,
    **large_rows.ROWS,
    **adversarial_rows.ROWS,
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="compare.py [options]",
    )
    parser.add_argument(
        "--rows", default="", metavar="PATTERN", help="regular expression searched in row names"
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds of interleaved timing (default 5)")
    parser.add_argument(
        "--peers", default="", metavar="NAMES", help=f"comma-separated parts of: {', '.join(peers.NEEDS)}"
    )
    parser.add_argument("--peers-only", action="store_true", help="time the peers without otcore")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error(f"--rounds is {options.rounds}; use at least 1")
    return options


def collect(rows: dict[str, Lines], options: Options) -> list[Line]:
    """The lines of the rows asked for; a row that cannot run becomes one line that says why."""
    lines = []
    for row, measure in rows.items():
        if not options.wants(row):
            continue
        try:
            for line in measure(options):
                print(f"  {line.row} against {line.against}: {line.verdict}", file=sys.stderr, flush=True)
                lines.append(line)
        except (RuntimeError, OSError, ImportError, AttributeError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())[-200:]
            lines.append(not_measured(row, f"{type(error).__name__}: {reason}"))
    return lines


def main() -> int:
    given = arguments()
    names = tuple(name for name in given.peers.split(",") if name)
    options = Options(rows=given.rows, rounds=given.rounds, peers=names)
    about = machine.describe()
    print("\n".join(f"{key + ':':17}{value}" for key, value in about.items()), flush=True)
    warnings.filterwarnings("ignore", category=UserWarning, module="keopscore|pykeops")
    lines = collect(schedule_rows.PEER_ROWS if given.peers_only else ROWS, options)
    print("\n" + table(lines))
    for name, reason in options.absent.items():
        print(f"left out: {name} ({reason})")
    if given.json:
        rows = [dataclasses.asdict(line) | {"verdict": line.verdict} for line in lines]
        given.json.write_text(json.dumps({"machine": about, "rows": rows}, indent=1) + "\n")
    if any(not line.check.ok for line in lines):
        return 2
    return int(any(line.met is False for line in lines))


if __name__ == "__main__":
    sys.exit(main())
