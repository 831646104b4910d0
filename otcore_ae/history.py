"""What a training run logged, epoch by epoch, for loss curves and reports."""

from __future__ import annotations

from dataclasses import dataclass, field

import lightning as L


@dataclass
class Curve:
    """A logged value over the epochs: `values[i]` at the end of epoch `epochs[i]`, counted from 1."""

    epochs: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)


class History(L.Callback):
    """Keeps the "train/..." values of every epoch and the "val/..." values of every evaluation, by name."""

    def __init__(self) -> None:
        self.curves: dict[str, Curve] = {}

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._record(trainer, "train/")

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.sanity_checking:
            self._record(trainer, "val/")

    def state_dict(self) -> dict[str, dict[str, list[float]]]:
        return {
            name: {"epochs": [*curve.epochs], "values": [*curve.values]}
            for name, curve in self.curves.items()
        }

    def load_state_dict(self, state_dict: dict[str, dict[str, list[float]]]) -> None:
        self.curves = {
            name: Curve([int(epoch) for epoch in curve["epochs"]], list(curve["values"]))
            for name, curve in state_dict.items()
        }

    def _record(self, trainer: L.Trainer, prefix: str) -> None:
        for name, value in trainer.callback_metrics.items():
            if name.startswith(prefix):
                curve = self.curves.setdefault(name, Curve())
                curve.epochs.append(trainer.current_epoch + 1)
                curve.values.append(float(value))
