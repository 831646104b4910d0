"""Running one cell of a table: resumed where it was stopped, and written down when it is done."""

from __future__ import annotations

import json
import platform
import subprocess
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.model_helpers import is_overridden
from safetensors.torch import save_file

import otcore
from otcore import ConvergenceWarning
from otcore_ae.artifacts import prepare_folder, write_files
from otcore_ae.data.module import ImageData
from otcore_ae.history import History
from otcore_ae.progress import OverallProgress, StepProgress
from otcore_ae.reproduce.table import Cell
from otcore_ae.training import (
    LAST,
    UNKNOWN_COMMIT,
    Cost,
    forget_peak_memory,
    last_checkpoint,
    quiet_lightning,
)

MODEL = "model.safetensors"
STEPS_BETWEEN_CHECKPOINTS = 20  # of a run that ends within an epoch; others write one after each


def result_path(cell: Cell, results: Path) -> Path:
    """Where a finished cell is written down."""
    return results / cell.table.name / f"{cell.name}.json"


def run_cell(cell: Cell, data: ImageData, work: Path, results: Path) -> dict[str, Any]:
    """Train a cell to its end, from its last checkpoint where there is one, and write its result.

    Args:
        cell: which.
        data: of the cell's seed, set up.
        work: folder for checkpoints, of this cell alone.
        results: folder of all tables' results.

    Returns:
        The content of the result's file.

    Raises:
        KeyboardInterrupt: after Ctrl-C; the last checkpoint stays.
    """
    prepare_folder(work)
    L.seed_everything(cell.seed, verbose=False)
    model = cell.system.build(data, cell.seed)
    measured = cell.system.measure(model, data) if cell.system.measure else {}
    L.seed_everything(cell.seed, verbose=False)
    history = History()
    forget_peak_memory()
    steps = len(data.train_dataloader())
    total = cell.system.steps or cell.table.epochs * steps
    last = last_checkpoint(work)
    with (
        OverallProgress(total) as progress,
        quiet_lightning(),
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", ConvergenceWarning)
        cost = Cost(caught, commit())
        trainer = L.Trainer(
            max_epochs=cell.table.epochs,
            max_steps=cell.system.steps or -1,
            accelerator="cpu",
            precision=cell.table.precision,
            callbacks=[
                history,
                cost,
                StepProgress(progress, cell.name, 1.0),
                _checkpoints(work, within_epoch=total < steps),
            ],
            num_sanity_val_steps=0,
            logger=False,
            enable_model_summary=False,
        )
        try:
            trainer.fit(model, data, ckpt_path=last, weights_only=True)
        except SystemExit:
            if trainer.interrupted:
                raise KeyboardInterrupt from None
            raise
        finished = trainer.global_step >= total
        if not finished:
            raise KeyboardInterrupt
        if total < steps and is_overridden("validation_step", model):  # no epoch, so no evaluation yet
            trainer.validate(model, data, verbose=False)
    model.eval()
    if cell.system.finish:
        cell.system.finish(model, data)
    final = cell.table.final(model, data) if cell.table.final else {}
    result = {
        "table": cell.table.name,
        "cell": cell.name,
        "system": cell.system.key,
        "seed": cell.seed,
        "epochs": trainer.current_epoch,
        "full_length": cell.system.steps is None,
        "precision": cell.table.precision,
        "curves": {name: _rounded(curve.values) for name, curve in sorted(history.curves.items())},
        "cost": {**cost.figures(), "threads": torch.get_num_threads()},
        "measured": measured,
        "final": {f"final/{name}": value for name, value in final.items()},
        "unconverged_solves": cost.unconverged,
        "commits": cost.commits,
        "machine": machine(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "lightning": L.__version__,
            "otcore": otcore.__version__,
        },
    }
    target = result_path(cell, results)
    prepare_folder(target.parent)
    write_files(target.parent, {target.name: (json.dumps(result, indent=1) + "\n").encode()})
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, work / MODEL)
    return result


def _checkpoints(work: Path, *, within_epoch: bool) -> ModelCheckpoint:
    """One at an epoch's last batch would be taken up after the evaluation, which were then missing."""
    when: dict[str, Any] = (
        {"every_n_train_steps": STEPS_BETWEEN_CHECKPOINTS}
        if within_epoch
        else {"every_n_epochs": 1, "save_on_train_epoch_end": True}
    )
    return ModelCheckpoint(work, filename=Path(LAST).stem, enable_version_counter=False, **when)


def _rounded(values: list[float]) -> list[float]:
    return [float(f"{value:.6g}") for value in values]


def commit() -> str:
    """The commit of the checkout this package stands in, "+" where it has changes; "unknown" outside one."""
    folder = Path(__file__).parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", str(folder.parents[1]))
        return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return UNKNOWN_COMMIT


def machine() -> str:
    """The processor, in words."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
