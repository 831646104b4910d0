"""Training the demo's two models."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import lightning as L

from otcore import ConvergenceWarning
from otcore_ae.data.digits import DigitsData
from otcore_ae.demo.settings import Settings
from otcore_ae.history import History
from otcore_ae.models.base import GenerativeAutoencoder
from otcore_ae.models.global_sae import MinibatchGlobalSAE
from otcore_ae.models.sae import SAE
from otcore_ae.networks import mlp
from otcore_ae.priors import Prior
from otcore_ae.progress import OverallProgress, StepProgress
from otcore_ae.training import one_thread, quiet_lightning

LOCAL = "SAE (local)"
GLOBAL = "Minibatch-Global-SAE"
_STEP_COST = {LOCAL: 1.0, GLOBAL: 5.0}


@dataclass(frozen=True)
class Trained:
    """A trained model, what was logged on the way, and how many solves stopped short of the tolerance."""

    model: GenerativeAutoencoder
    history: History
    unconverged: int = 0


def train_both(data: DigitsData, prior: Prior, settings: Settings, seed: int) -> dict[str, Trained]:
    """Train the local and the global model from the same initial weights on the same batches.

    Networks of this size gain nothing from a second thread, and lose much where other programs keep the cores
    busy; so there is one, which leaves the result independent of the machine's number of cores.

    Raises:
        KeyboardInterrupt: after Ctrl-C, once Lightning has shut down.
    """
    steps = settings.trained_epochs * len(data.train_dataloader())
    trained = {}
    with OverallProgress(steps * sum(_STEP_COST.values())) as progress, one_thread(), quiet_lightning():
        for name in (LOCAL, GLOBAL):
            L.seed_everything(seed, verbose=False)
            model = _model(name, data.image_size, prior, settings, seed)
            trained[name] = _fit(model, data, settings, StepProgress(progress, name, _STEP_COST[name]))
    return trained


def _model(name: str, image_size: int, prior: Prior, settings: Settings, seed: int) -> GenerativeAutoencoder:
    encoder, decoder = mlp(image_size, latent_dim=2, hidden=settings.hidden)
    kind, weight = (
        (SAE, settings.local_weight) if name == LOCAL else (MinibatchGlobalSAE, settings.global_weight)
    )
    return kind(
        encoder,
        decoder,
        prior,
        latent_weight=weight,
        learning_rate=settings.learning_rate,
        seed=seed,
        prior_draws=settings.prior_draws,
    )


def _fit(model: GenerativeAutoencoder, data: DigitsData, settings: Settings, bar: StepProgress) -> Trained:
    history = History()
    trainer = L.Trainer(
        max_epochs=settings.trained_epochs,
        accelerator="cpu",
        callbacks=[history, bar],
        check_val_every_n_epoch=settings.evaluate_every,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", ConvergenceWarning)
        try:
            trainer.fit(model, data)
        except SystemExit:
            if trainer.interrupted:
                raise KeyboardInterrupt from None
            raise
    return Trained(model, history, unconverged=len(caught))
