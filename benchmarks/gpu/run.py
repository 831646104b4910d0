"""Builds, tests and measures on an NVIDIA GPU, and writes benchmarks/results/<gpu>.md; `make gpu`.

    python -m benchmarks.gpu.run               all of it, in nine minutes
    python -m benchmarks.gpu.run --no-build    with the otcore that is installed
    python -m benchmarks.gpu.run --no-tests    without `pytest -m gpu`

It takes the Python that runs it, with the torch, triton and peers that are installed there, and fetches
nothing. What the time does not suffice for is left out, and said to be.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import re
import site
import subprocess
import sys
import time
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from comparison.line import HEADINGS, Line, not_measured
from comparison.machine import version

from benchmarks.gpu.timing import Budget, Timer, event_seconds

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks/results"
SECONDS = 9 * 60.0
BUILD, TESTS, ROWS_AT_LEAST, CEILINGS = 240.0, 240.0, 120.0, 15.0
LIBRARIES = ("otcore", "torch", "triton", "numpy", "geomloss", "pykeops", "flash-sinkhorn")


def missing() -> str | None:
    """What there is not, in a sentence; None where all is there."""
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA: install one that has it, and an NVIDIA GPU."
    if not torch.cuda.is_available():
        return "torch finds no CUDA GPU here: run this on a machine with an NVIDIA GPU and its driver."
    return None


def step(name: str, command: list[str], seconds: float) -> str:
    """Run a part of it within so many seconds; the last line that it printed, or what went wrong."""
    print(f"{name} (at most {seconds:.0f} s): {' '.join(command)}", flush=True)
    start = time.monotonic()
    try:
        done = subprocess.run(command, cwd=ROOT, timeout=seconds, capture_output=True, text=True)
    except subprocess.TimeoutExpired:
        return f"stopped after {seconds:.0f} s"
    lines = (done.stdout + done.stderr).strip().splitlines() or ["no output"]
    if done.returncode:
        print("\n".join(lines[-60:]), flush=True)
    told = lines[-1].strip("= ") if done.returncode == 0 else f"FAILED ({lines[-1].strip('= ')})"
    return f"{told}, after {time.monotonic() - start:.0f} s"


def build(capability: tuple[int, int], seconds: float) -> str:
    """An editable install for this GPU alone, without a network."""
    architecture = "".join(map(str, capability))
    settings = ["OTCORE_CUDA=ON", f"CMAKE_CUDA_ARCHITECTURES={architecture}-real"]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-build-isolation", "--no-deps"]
    command += [f"--config-settings=cmake.define.{setting}" for setting in settings]
    told = step("build", [*command, "--editable", "."], seconds)
    # Installing ended another process: here, too, the modules are to be found where it put them.
    importlib.invalidate_caches()
    for folder in site.getsitepackages():
        site.addsitedir(folder)
    return told


def measured(rows: Iterable[Any], ceilings: Any, timer: Timer, budget: Budget, device: Any) -> list[Line]:
    """The lines of all rows; one that fails or that there is no time for becomes a line that says so."""
    lines: list[Line] = []
    for row in rows:
        if budget.left < row.seconds:
            lines.append(
                not_measured(row.name, f"left out: {budget.left:.0f} s left, {row.seconds:g} s needed")
            )
            continue
        try:
            lines += row.lines(timer, ceilings, device)
        except (RuntimeError, ImportError, OSError, TypeError, ValueError, AttributeError) as error:
            lines.append(
                not_measured(row.name, f"{type(error).__name__}: {' '.join(str(error).split())[-200:]}")
            )
        print("  ".join(lines[-1].cells()), flush=True)
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return lines


def about(device: Any) -> dict[str, str]:
    properties = torch.cuda.get_device_properties(device)
    return {
        "date": datetime.date.today().isoformat(),
        "GPU": f"{properties.name}, {properties.multi_processor_count} multiprocessors, "
        f"{properties.total_memory / 2**30:.0f} GiB, capability {properties.major}.{properties.minor}",
        "CUDA": str(torch.version.cuda),
        "Python": sys.version.split()[0],
        **{library: version(library) for library in LIBRARIES},
    }


def report(
    facts: Mapping[str, str], ceilings: Iterable[str], steps: Mapping[str, str], lines: list[Line]
) -> str:
    """The page: what it ran on, what the card can do, what was reached. A red check withholds its figure."""
    listed = [f"- {name}: {told}" for name, told in facts.items()]
    cells = [HEADINGS, ["---"] * len(HEADINGS), *(line.cells() for line in lines)]
    table = [f"| {' | '.join(row)} |" for row in cells]
    return "\n".join(
        [
            f"# Measured on {facts['GPU'].split(',')[0]}",
            "",
            "`make gpu`. Medians by CUDA events, contenders interleaved. Ceilings are those of this card, "
            "measured in the same run; a figure against one is the fraction of it that was reached.",
            "",
            *listed,
            *(f"- {name}: {told}" for name, told in steps.items()),
            "",
            "## Ceilings",
            "",
            *(f"- {line}" for line in ceilings),
            "",
            "## Rows",
            "",
            *table,
            "",
        ]
    )


def slug(name: str) -> str:
    """Of a GPU's name, as a file's."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--no-build", action="store_true", help="take the otcore that is installed")
    parser.add_argument("--no-tests", action="store_true", help="measure only")
    given = parser.parse_args()
    reason = missing()
    if reason:
        print(reason)
        return 2
    budget, device, steps = Budget(SECONDS), torch.device("cuda"), {}
    if not given.no_build:
        steps["build"] = build(torch.cuda.get_device_capability(device), BUILD)
    if not given.no_tests:
        command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "tests/gpu", "tests/kernels"]
        left = budget.left - ROWS_AT_LEAST - CEILINGS
        steps["tests"] = step("tests", command, min(TESTS, left)) if left > 0 else "left out: no time left"
    # After the build: these import otcore.
    from benchmarks.gpu.ceilings import measure
    from benchmarks.gpu.rows import ROWS

    warnings.filterwarnings("ignore", message=".*max_iter")
    facts = about(device)
    ceilings = measure(event_seconds, device)
    print("\n".join(ceilings.lines()), flush=True)
    lines = measured(ROWS, ceilings, event_seconds, budget, device)
    page = report(facts, ceilings.lines(), steps, lines)
    to = RESULTS / f"{slug(torch.cuda.get_device_name(device))}.md"
    to.write_text(page)
    print(f"\n{page}\nwritten to {to}, {SECONDS - budget.left:.0f} s")
    failed = any("FAILED" in told or "stopped" in told for told in steps.values())
    return int(failed or any(line.met is False or not line.check.ok for line in lines))


if __name__ == "__main__":
    sys.exit(main())
