"""What a table is made of: systems, each run with several seeds, and the figures published for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from matplotlib.figure import Figure

from otcore_ae.data.module import ImageData
from otcore_ae.metrics.collection import MetricInfo
from otcore_ae.models.base import GenerativeModel


@dataclass(frozen=True)
class Published:
    """A published mean, and the standard deviation over the paper's runs where there is one."""

    mean: float
    sd: float | None = None


@dataclass(frozen=True)
class System:
    """A column of a table.

    Args:
        key: short name, which starts those of its cells.
        title: name in the report.
        seeds: how many seeds a full table needs: 0, 1, ...
        build: (data, seed) -> model; torch's generator has been seeded.
        published: the paper's figures, by the names of the table's metrics.
        steps: stop after so many steps (None, default: after the table's epochs), to measure what a run
            would cost; the report then says that it was not run at full length.
        measure: (model, data) -> further figures by name, taken before training.
        note: a sentence for the report.
        finish: (model, data) -> None, after training.
    """

    key: str
    title: str
    seeds: int
    build: Callable[[ImageData, int], GenerativeModel]
    published: Mapping[str, Published] = field(default_factory=dict)
    steps: int | None = None
    measure: Callable[[GenerativeModel, ImageData], dict[str, float]] | None = None
    note: str = ""
    finish: Callable[[GenerativeModel, ImageData], None] | None = None


@dataclass(frozen=True)
class Cell:
    """One run: a system with one seed."""

    table: Table
    system: System
    seed: int

    @property
    def name(self) -> str:
        return f"{self.system.key}-{self.seed}"


@dataclass(frozen=True)
class Picture:
    """What a table's trained models look like.

    Args:
        name: of the file, without ".png".
        caption: in the report.
        draw: (models in evaluation mode by title, data) -> figure; None where there is
            nothing to draw of these models.
    """

    name: str
    caption: str
    draw: Callable[[Mapping[str, GenerativeModel], ImageData], Figure | None]

    @property
    def file(self) -> str:
        return f"{self.name}.png"


@dataclass(frozen=True)
class Table:
    """A table of a paper.

    Args:
        name: what the command calls it.
        title, source: heading of the report, and where the published figures stand.
        load: (folder, seed) -> data.
        epochs: training epochs of every run, each followed by an evaluation.
        steps_per_epoch: training steps in an epoch.
        metrics: rows of the report: what was logged ("val/...", "train/...") or measured at the end
            ("final/...").
        averaged: metrics that are means over so many last epochs; the others are the last one's.
        systems: columns of the report.
        references: data -> the ends between which metrics move.
        final: (model, data) -> figures of a trained model, by name without "final/".
        settings: a paragraph on the settings.
        pictures: drawn after a run, of the first seed's models.
        precision: Lightning's, "32-true" (default) or "bf16-mixed".
    """

    name: str
    title: str
    source: str
    load: Callable[[Path | None, int], ImageData]
    epochs: int
    steps_per_epoch: int
    metrics: Mapping[str, MetricInfo]
    averaged: Mapping[str, int]
    systems: tuple[System, ...]
    references: Callable[[ImageData], dict[str, dict[str, float]]]
    final: Callable[[GenerativeModel, ImageData], dict[str, float]] | None = None
    settings: str = ""
    pictures: tuple[Picture, ...] = ()
    precision: Literal["32-true", "bf16-mixed"] = "32-true"

    def cells(self, patterns: tuple[str, ...] = ("*",)) -> list[Cell]:
        """The cells whose names match one of the shell patterns, seed by seed.

        Raises:
            ValueError: if a pattern matches none.
        """
        seeds = range(max(system.seeds for system in self.systems))
        every = [Cell(self, system, seed) for seed in seeds for system in self.systems if seed < system.seeds]
        for pattern in patterns:
            if not any(fnmatchcase(cell.name, pattern) for cell in every):
                names = ", ".join(cell.name for cell in every)
                raise ValueError(f"no cell of {self.name} matches '{pattern}'; the cells are {names}")
        return [cell for cell in every if any(fnmatchcase(cell.name, pattern) for pattern in patterns)]
