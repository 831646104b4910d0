"""One progress bar over several trainings."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar
from tqdm import tqdm

_FORMAT = "{desc} {percentage:3.0f}% |{bar}| {elapsed} elapsed, {remaining} left"


class OverallProgress:
    """A bar on standard error that counts work of unequal cost; silent where that is not a terminal.

    Args:
        total: all the work there will be, in any unit.
    """

    def __init__(self, total: float) -> None:
        self._bar = tqdm(
            total=total, bar_format=_FORMAT, disable=None, leave=False, dynamic_ncols=True, smoothing=0.05
        )

    def describe(self, what: str) -> None:
        self._bar.set_description_str(what, refresh=False)

    def advance(self, work: float) -> None:
        self._bar.update(work)

    def __enter__(self) -> OverallProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()


class StepProgress(ProgressBar):
    """Lightning's hook into an `OverallProgress`: each training step advances it by `cost`."""

    def __init__(self, overall: OverallProgress, name: str, cost: float) -> None:
        super().__init__()
        self._overall = overall
        self._name = name
        self._cost = cost

    def disable(self) -> None:
        """Nothing to do: the overall bar decides for itself whether it is shown."""

    def on_train_start(self, trainer: L.Trainer, *_: Any) -> None:
        self._overall.advance(self._cost * trainer.global_step)  # of a run that goes on

    def on_train_epoch_start(self, trainer: L.Trainer, *_: Any) -> None:
        self._overall.describe(f"{self._name}, epoch {trainer.current_epoch + 1} of {trainer.max_epochs}")

    def on_train_batch_end(self, *_: Any) -> None:
        self._overall.advance(self._cost)
