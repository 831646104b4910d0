"""The results of a table as Markdown: our figures beside the published ones, their cost, what is missing."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from otcore_ae.artifacts import write_files
from otcore_ae.reproduce.cell import result_path
from otcore_ae.reproduce.table import System, Table

REFERENCES = "references.json"
_ENDS = {
    "floor": "floor {:.4f}",
    "ceiling": "ceiling {:.3f}",
    "random": "random {:.3f}",
    "ideal": "ideal {:.3f}",
}


def load_results(table: Table, results: Path) -> dict[str, dict[str, Any]]:
    """The finished cells of a table by name."""
    return {
        cell.name: json.loads(path.read_text())
        for cell in table.cells()
        if (path := result_path(cell, results)).exists()
    }


def keep_references(table: Table, data: Path | None, results: Path) -> None:
    """Write down, once, between what ends the metrics move for the data in this folder."""
    folder = results / table.name
    if not (folder / REFERENCES).exists():
        loaded = table.load(data, 0)
        loaded.setup()
        content = json.dumps(table.references(loaded), indent=1)
        write_files(folder, {REFERENCES: f"{content}\n".encode()})


def figure(result: Mapping[str, Any], metric: str, table: Table) -> float:
    """A cell's figure for a metric: its last value, or the mean of the last few; NaN for fewer."""
    values = result["curves"].get(metric) or [result.get("final", {}).get(metric, math.nan)]
    count = table.averaged.get(metric, 1)
    return statistics.fmean(values[-count:]) if len(values) >= count else math.nan


def write_report(table: Table, results: Path) -> Path:
    """Write results/<table>.md and return its path."""
    path = results / f"{table.name}.md"
    write_files(results, {path.name: markdown(table, results).encode()})
    return path


def markdown(table: Table, results: Path) -> str:
    """The report."""
    found = load_results(table, results)
    file = results / table.name / REFERENCES
    ends = json.loads(file.read_text()) if file.exists() else {}
    of = {system.key: [r for r in found.values() if r["system"] == system.key] for system in table.systems}
    blocks = [
        f"# {table.title}",
        f"{table.settings} Ours: mean ± standard deviation over seeds (how many in brackets). "
        f"{_which_evaluations(table)}{f' Paper: {table.source}.' if table.source else ''}",
        _figures(table, of, ends),
        "## What it cost",
        _costs(table, of),
        "## Cells",
        _cells(table, found),
    ]
    drawn = [p for p in table.pictures if (results / table.name / p.file).exists()]
    blocks[3:3] = [f"![{picture.caption}]({table.name}/{picture.file})" for picture in drawn]
    return "\n\n".join(blocks) + "\n"


def _which_evaluations(table: Table) -> str:
    averaged = ", ".join(
        f"{table.metrics[name].title} the mean of the last {n}" for name, n in table.averaged.items()
    )
    return f"Each figure is that after the last epoch{'; ' if averaged else ''}{averaged}."


def _figures(table: Table, of: Mapping[str, list[dict[str, Any]]], ends: Mapping[str, Any]) -> str:
    whole = [system for system in table.systems if system.steps is None]
    who = ("ours", "paper") if any(system.published for system in whole) else ("ours",)
    header = ["metric", "better", *(f"{s.title}: {whose}" for s in whole for whose in who), "ends"]
    rows = [header, ["---"] * len(header)]
    for name in table.metrics:
        info = table.metrics[name]
        row = [info.title, info.better]
        for system in whole:
            row += [_ours([figure(r, name, table) for r in of[system.key]]), _paper(system, name)][: len(who)]
        row.append(", ".join(_ENDS[end].format(value) for end, value in ends.get(name, {}).items()))
        rows.append(row)
    return _lines(rows)


def _ours(values: list[float]) -> str:
    if not values:
        return "not run"
    if all(map(math.isnan, values)):
        return ""
    sd = f" ± {_short(statistics.stdev(values))}" if len(values) > 1 else ""
    return f"{_short(statistics.fmean(values))}{sd} ({len(values)})"


def _paper(system: System, metric: str) -> str:
    published = system.published.get(metric)
    if published is None:
        return ""
    return _short(published.mean) + ("" if published.sd is None else f" ± {_short(published.sd)}")


def _short(value: float) -> str:
    """Four decimals, more where the first digit comes later; nothing for NaN."""
    if math.isnan(value):
        return ""
    return f"{value:.4f}" if abs(value) >= 1e-3 or value == 0 else f"{value:.2g}"


def _costs(table: Table, of: Mapping[str, list[dict[str, Any]]]) -> str:
    header = [
        "system",
        "steps",
        "CPU s / step",
        "CPU hours a full run",
        "peak MB",
        "threads",
        "taken up again",
        "remarks",
    ]
    rows = [header, ["---"] * len(header)]
    for system in table.systems:
        if not (results := of[system.key]):
            continue
        costs = [result["cost"] for result in results]
        step = statistics.fmean(cost["seconds"] / cost["steps"] for cost in costs)
        length = table.epochs * table.steps_per_epoch
        remarks = [system.note] if system.note else []
        for name in results[0]["measured"]:
            mean = statistics.fmean(result["measured"][name] for result in results)
            remarks.append(f"{name.replace('_', ' ')} {mean:.2g}")
        rows.append(
            [
                system.title,
                str(max(cost["steps"] for cost in costs)),
                f"{step:.4f}",
                f"{step * length / 3600:.2f}",
                f"{max(cost['peak_mb'] for cost in costs):.0f}",
                "/".join(sorted({str(cost["threads"]) for cost in costs})),
                str(max(cost["resumed"] for cost in costs)),
                "; ".join(remarks),
            ]
        )
    return _lines(rows)


def _cells(table: Table, found: Mapping[str, dict[str, Any]]) -> str:
    missing = [cell.name for cell in table.cells() if cell.name not in found]
    header = ["cell", *(table.metrics[name].title for name in table.metrics), "unconverged solves", "commit"]
    rows = [header, ["---"] * len(header)]
    for name, result in found.items():
        figures = [_short(figure(result, metric, table)) for metric in table.metrics]
        rows.append([name, *figures, str(result["unconverged_solves"]), _commits(result)])
    text = _lines(rows)
    if missing:
        text += f"\n\nNot run: {', '.join(missing)}."
    machines = sorted({result["machine"] for result in found.values()})
    return text + (f"\n\nRun on {', '.join(machines)}." if machines else "")


def _commits(result: Mapping[str, Any]) -> str:
    """Those that trained the cell; results written before these were kept name the last one alone."""
    return ", ".join(result.get("commits") or [result["commit"]])


def _lines(rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
