"""Running a table: the cells that are asked for and not done yet, then the report."""

from __future__ import annotations

from pathlib import Path

import torch

from otcore_ae.artifacts import prepare_folder
from otcore_ae.reproduce.calorimeter import TABLE as CALORIMETER
from otcore_ae.reproduce.cell import result_path, run_cell
from otcore_ae.reproduce.conditional import TABLE as CONDITIONAL
from otcore_ae.reproduce.global_sae import TABLE_1, TABLE_2
from otcore_ae.reproduce.pictures import draw_pictures
from otcore_ae.reproduce.report import keep_references, write_report
from otcore_ae.reproduce.table import Table

TABLES = {table.name: table for table in (TABLE_1, TABLE_2, CONDITIONAL, CALORIMETER)}


def find_table(name: str) -> Table:
    """A table by name.

    Raises:
        ValueError: if there is none, with the names there are.
    """
    if name not in TABLES:
        raise ValueError(f"no table is called '{name}'; there are {', '.join(TABLES)}")
    return TABLES[name]


def run_table(
    table: Table,
    data: Path | None,
    *,
    patterns: tuple[str, ...] = ("*",),
    results: Path = Path("docs/results"),
    work: Path = Path("out/reproduce"),
    threads: int = 1,
) -> Path:
    """Run the cells that match a pattern and have no result yet, one after another, and write the report.

    Args:
        table: which.
        data: the data's folder.
        patterns: shell patterns of cell names.
        results: folder for the results, one JSON a cell, and the report.
        work: folder for checkpoints; a stopped cell goes on from there.
        threads: of torch and otcore; networks of the tables' sizes gain little from a second one.

    Returns:
        The report's path; beside it, the pictures of the models that were trained here.
    """
    cells = table.cells(patterns)
    prepare_folder(results / table.name)
    keep_references(table, data, results)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for cell in cells:
            if result_path(cell, results).exists():
                print(f"{cell.name}: done", flush=True)
                continue
            loaded = table.load(data, cell.seed)
            loaded.setup()
            result = run_cell(cell, loaded, work / table.name / cell.name, results)
            cost = result["cost"]
            print(f"{cell.name}: {cost['steps']} steps in {cost['seconds']:.0f} s of CPU", flush=True)
    finally:
        torch.set_num_threads(before)
    draw_pictures(table, data, work, results)
    return write_report(table, results)
