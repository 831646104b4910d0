"""The demo's one table, and metrics.json."""

from __future__ import annotations

import json
import platform
import statistics
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch

from otcore_ae.demo.settings import Settings
from otcore_ae.demo.training import Trained
from otcore_ae.metrics.collection import METRICS

Summary = dict[str, dict[str, dict[str, float]]]
_REFERENCE_WORDS = {
    "floor": "floor {:.4f}",
    "ceiling": "ceiling {:.3f}",
    "random": "random labels {:.3f}",
    "ideal": "ideal {:.3f}",
}


def summarise(trained: Mapping[str, Trained], averaged: int) -> Summary:
    """{system: {metric: {"mean", "sd", "last"}}} over the last `averaged` evaluations."""
    return {
        system: {name: _of_curve(result.history.curves[f"val/{name}"].values[-averaged:]) for name in METRICS}
        for system, result in trained.items()
    }


def _of_curve(values: list[float]) -> dict[str, float]:
    return {"mean": statistics.fmean(values), "sd": statistics.pstdev(values), "last": values[-1]}


def table(summary: Summary, references: Mapping[str, Mapping[str, float]]) -> str:
    """The metrics as text: a row each, the systems side by side, the better one starred, then the ends."""
    header = ["metric", "better", *summary, "for comparison"]
    rows = [header]
    for name, info in METRICS.items():
        means = [values[name]["mean"] for values in summary.values()]
        best = min(means) if info.better == "lower" else max(means)
        cells = [_cell(values[name], values[name]["mean"] == best) for values in summary.values()]
        ends = ", ".join(
            _REFERENCE_WORDS[end].format(value) for end, value in references.get(name, {}).items()
        )
        rows.append([info.title, info.better, *cells, ends])
    return _align(rows)


def _cell(values: Mapping[str, float], best: bool) -> str:
    return f"{values['mean']:.4f} ± {values['sd']:.4f} {'*' if best else ' '}"


def _align(rows: list[list[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    return "\n".join([lines[0], "-" * (sum(widths) + 2 * (len(widths) - 1)), *lines[1:]])


def metrics_json(
    summary: Summary,
    references: Mapping[str, Mapping[str, float]],
    trained: Mapping[str, Trained],
    settings: Settings,
    **facts: Any,
) -> bytes:
    """Everything the table shows and how it came about, as indented JSON."""
    content = {
        "systems": summary,
        "references": references,
        "better": {name: info.better for name, info in METRICS.items()},
        "history": {system: result.history.state_dict() for system, result in trained.items()},
        "unconverged_solves": {system: result.unconverged for system, result in trained.items()},
        "settings": asdict(settings),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        **facts,
    }
    return json.dumps(content, indent=2).encode()


def convergence_note(trained: Mapping[str, Trained]) -> str:
    """A sentence on the solves that stopped short of the tolerance, or nothing where none did."""
    counts = [f"{result.unconverged} of {system}" for system, result in trained.items() if result.unconverged]
    return f" Stopped short of the transport's tolerance: {', '.join(counts)}'s solves." if counts else ""
