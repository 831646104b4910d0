"""`otcore-ae fit`: LightningCLI, with what every run here should have.

A run folder gets its configuration, TensorBoard and CSV logs, a checkpoint after each epoch, and in the end
the trained model as model.json and model.safetensors. The same command again goes on from the last
checkpoint.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
from jsonargparse import Namespace
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from otcore_ae.artifacts import prepare_folder, write_files
from otcore_ae.data.module import ImageData
from otcore_ae.history import History
from otcore_ae.models.base import GenerativeModel
from otcore_ae.runs import export_run
from otcore_ae.training import LAST, Cost, last_checkpoint

CONFIGURATION = "configuration.json"
_WHAT_IS_TRAINED = ("model", "data", "seed_everything")
_INTERRUPTED = 1  # Lightning's exit code after Ctrl-C


class FitCLI(LightningCLI):
    """LightningCLI for the models and data of this package, and their subclasses."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--output", type=Path, default=Path("out/run"), help="run folder: logs, checkpoints, model"
        )
        parser.set_defaults(
            {
                "trainer.accelerator": "auto",
                "trainer.enable_model_summary": False,
                "trainer.num_sanity_val_steps": 0,  # the parts are checked before training starts
                "seed_everything": 0,
            }
        )

    def before_instantiate_classes(self) -> None:
        prepare_folder(self._output)
        last = last_checkpoint(self._output)
        values = {key: self.config.fit.get(key) for key in _WHAT_IS_TRAINED}
        asked = {key: v.as_dict() if isinstance(v, Namespace) else v for key, v in values.items()}
        text = json.dumps(asked, indent=2, default=str) + "\n"
        before = self._output / CONFIGURATION
        if last is not None and before.exists() and before.read_text() != text:
            raise ValueError(
                f"'{self._output}' holds a run of another configuration ({before.name}); name another "
                "--output, or delete it to start anew"
            )
        write_files(self._output, {CONFIGURATION: text.encode()})
        if last is not None and self.config.fit.ckpt_path is None:
            self.config.fit.ckpt_path = str(last)
            self.config.fit.weights_only = True

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        output = self._output
        if self.config.fit.trainer.logger in (None, True):
            kwargs["logger"] = [
                TensorBoardLogger(output, name=None, version="tensorboard"),
                CSVLogger(output, name="csv"),
            ]
        checkpoint = ModelCheckpoint(
            output, filename=Path(LAST).stem, enable_version_counter=False, save_on_train_epoch_end=True
        )
        asked = self._get(self.config_init, "trainer.callbacks") or []
        asked = asked if isinstance(asked, list) else [asked]
        return super().instantiate_trainer(**kwargs, callbacks=[*asked, History(), Cost(), checkpoint])

    def after_fit(self) -> None:
        assert isinstance(self.model, GenerativeModel)
        config = self.config_dump.get("fit", self.config_dump)
        export_run(self.model, self._output, config["model"], config.get("data"))
        print(f"trained model in {self._output}")

    @property
    def _output(self) -> Path:
        return Path(self.config.fit.output)


def fit(arguments: Sequence[str]) -> None:
    """Train as the arguments of `otcore-ae fit` say."""
    warnings.filterwarnings("ignore", category=UserWarning, module="lightning")
    try:
        FitCLI(
            GenerativeModel,
            ImageData,
            subclass_mode_model=True,
            subclass_mode_data=True,
            args=["fit", *arguments],
            auto_configure_optimizers=False,
            save_config_callback=None,
        )
    except SystemExit as error:
        if error.code == _INTERRUPTED:
            raise KeyboardInterrupt from None
        raise
