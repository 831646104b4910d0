"""A killed run, resumed from its last checkpoint, ends with the same bits as one that was never killed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from otcore_ae import SAE, SWAE, GlobalSAE, HandwritingStyle, MinibatchGlobalSAE

STEPS = 15
VARIANTS = {
    "local": (SAE, {}),
    "sliced": (SWAE, {}),
    "sliced, augmented": (SWAE, {"augmentation": HandwritingStyle(), "decoded": 4, "lifted": True}),
    "global": (MinibatchGlobalSAE, {}),
    "global, prior kept for 4 steps, warm": (MinibatchGlobalSAE, {"resample_every": 4, "warm_start": True}),
    "global, small cloud": (MinibatchGlobalSAE, {"cloud_size": 30}),
    "full": (GlobalSAE, {"cloud_size": 30, "resample_every": 4}),
    "global, stale cloud": (MinibatchGlobalSAE, {"recalculate_every": 4}),
}
SCHEDULES = {
    "in mid-epoch": {"every_n_train_steps": 4},
    "at an epoch's last batch": {"every_n_train_steps": 3},
    "after an epoch": {"every_n_epochs": 1, "save_on_train_epoch_end": True},
    "after an epoch, epochs counted": {"every_n_epochs": 1, "save_on_train_epoch_end": True},
}


class Killed(Exception):
    pass


class KillAt(L.Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            raise Killed


class Noisy(torch.nn.Module):
    """A layer that draws from the global generator, as dropout does."""

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        return latents + 0.01 * torch.randn_like(latents) if self.training else latents


@pytest.mark.filterwarnings("ignore::otcore_ae.models.cache.StaleCloudWarning")
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_exact_resume(variant: str, schedule: str, tiny_model, tiny_data, trainer, tmp_path: Path) -> None:
    kind, options = VARIANTS[variant]

    limit = (
        {"max_epochs": STEPS // 3} if schedule == "after an epoch, epochs counted" else {"max_steps": STEPS}
    )

    def fit(*callbacks: L.Callback, ckpt_path: str | None = None) -> dict[str, torch.Tensor]:
        model = tiny_model(kind, **options)
        model.decoder.insert(0, Noisy())
        built = trainer(callbacks=[*callbacks], enable_checkpointing=True, default_root_dir=tmp_path, **limit)
        torch.manual_seed(5 if ckpt_path is None else 6)
        built.fit(model, tiny_data(), ckpt_path=ckpt_path)
        return model.state_dict()

    def checkpoints(folder: str) -> ModelCheckpoint:
        return ModelCheckpoint(tmp_path / folder, filename="{step}", save_top_k=-1, **SCHEDULES[schedule])

    whole = fit(checkpoints("whole"))
    with pytest.raises(Killed):
        fit(checkpoints("killed"), KillAt(11))
    last = max((tmp_path / "killed").glob("*.ckpt"), key=lambda path: int(path.stem.split("=")[1]))
    resumed = fit(checkpoints("resumed"), ckpt_path=str(last))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_the_checkpoint_holds_tensors_and_plain_values_only(
    tiny_model, tiny_data, trainer, tmp_path: Path
) -> None:
    saver = ModelCheckpoint(tmp_path, filename="it")
    built = trainer(max_steps=3, callbacks=[saver], enable_checkpointing=True, default_root_dir=tmp_path)
    built.fit(tiny_model(MinibatchGlobalSAE, resample_every=4, warm_start=True), tiny_data())
    checkpoint = torch.load(tmp_path / "it.ckpt", weights_only=True)
    cache = checkpoint["latent_cache"]
    assert cache["cloud"].shape == cache["prior_sample"].shape == (60, 2)
    assert [len(potential) for potential in cache["duals"]] == [60] * 4
    assert not any("cloud" in name for name in checkpoint["state_dict"])
