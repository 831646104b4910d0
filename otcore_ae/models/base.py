"""What every generative autoencoder here shares: two networks, a prior, and loss terms that have names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import lightning as L
import torch
from torch import Generator, Tensor, nn
from torchmetrics import MeanSquaredError

from otcore_ae.data.loader import Batch
from otcore_ae.metrics.collection import LatentMetrics
from otcore_ae.precision import full_precision
from otcore_ae.priors import Prior
from otcore_ae.transport import Transport

_RANDOM_STATES = "random_states"


class Step(NamedTuple):
    """A training step: images (b, 1, s, s), latents (b, d), reconstructions, labels (b,), rows (b,)."""

    images: Tensor
    latents: Tensor
    reconstructions: Tensor
    labels: Tensor
    rows: Tensor


Term = Callable[[Step], Tensor]


class NonFiniteLossError(RuntimeError):
    """A loss term became NaN or infinite; the message names it."""


class GenerativeAutoencoder(L.LightningModule):
    """Encoder, decoder and prior, trained on a weighted sum of named terms.

    Every term is logged as "train/<name>", unweighted, and their weighted sum as "train/loss"; the metrics of
    an evaluation as "val/<metric>" or "test/<metric>". Subclasses add terms by overriding `terms`.
    Checkpoints hold the states of the random generators, so that a resumed run continues bit for bit.

    Args:
        encoder: maps images to (b, d) latents.
        decoder: maps (b, d) latents to images.
        prior: callable (n, generator) -> (n, d).
        weights: weight of each term by name.
        extra_terms: further terms by name, each a callable `Step` -> scalar; their weights are 1 unless
            `weights` has others.
        learning_rate, betas: of Adam (default 1e-3 and (0.5, 0.999), as published).
        seed: seed of the prior samples drawn in training (default 0).
        evaluation: settings of the transport in the metrics (default `Transport()`).
        prior_draws: prior samples that the global OT metric averages over (default 1).
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        prior: Prior,
        *,
        weights: Mapping[str, float],
        extra_terms: Mapping[str, Term] | None = None,
        learning_rate: float = 1e-3,
        betas: tuple[float, float] = (0.5, 0.999),
        seed: int = 0,
        evaluation: Transport | None = None,
        prior_draws: int = 1,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.prior = prior
        self.weights = dict(weights)
        self.extra_terms = dict(extra_terms or {})
        self.learning_rate = learning_rate
        self.betas = betas
        self.prior_generator = torch.Generator().manual_seed(seed)
        self.latent_metrics = LatentMetrics(prior, transport=evaluation, prior_draws=prior_draws)
        self.reconstruction_metric = MeanSquaredError()
        self._global_random_state: Tensor | None = None

    def encode(self, images: Tensor) -> Tensor:
        """Latents (b, d) of images (b, 1, s, s)."""
        return full_precision(self.encoder(images))

    def decode(self, latents: Tensor) -> Tensor:
        """Images (b, 1, s, s) of latents (b, d)."""
        return full_precision(self.decoder(latents))

    def forward(self, images: Tensor) -> Tensor:
        """Reconstructions of images."""
        return self.decode(self.encode(images))

    @torch.no_grad()
    def sample(self, n: int, generator: Generator | None = None) -> Tensor:
        """n new images: decoded samples of the prior."""
        return self.decode(self.prior(n, generator).to(self.device))

    def draw_prior(self, n: int) -> Tensor:
        """n prior samples for training, from the module's own generator, on the module's device."""
        return self.prior(n, self.prior_generator).to(self.device)

    def terms(self, step: Step) -> dict[str, Tensor]:
        """The loss terms by name, each an unweighted scalar."""
        reconstruction = nn.functional.mse_loss(step.reconstructions, step.images)
        return {"reconstruction": reconstruction} | {
            name: term(step) for name, term in self.extra_terms.items()
        }

    def weight_of(self, name: str) -> float:
        """The weight of a term (1 where none was given)."""
        return self.weights.get(name, 1.0)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        latents = self.encode(batch.images)
        step = Step(batch.images, latents, self.decode(latents), batch.labels, batch.rows)
        terms = self.terms(step)
        self._check_finite(terms)
        loss = torch.stack([self.weight_of(name) * value for name, value in terms.items()]).sum()
        logged = {f"train/{name}": value.detach() for name, value in terms.items()} | {
            "train/loss": loss.detach()
        }
        self.log_dict(logged, on_step=False, on_epoch=True, batch_size=len(batch.images))
        return loss

    def on_fit_start(self) -> None:
        unknown = set(self.weights) - self.term_names()
        if unknown:
            raise ValueError(
                f"weights name unknown terms {sorted(unknown)}; the terms are {sorted(self.term_names())}"
            )

    def term_names(self) -> set[str]:
        """The names of all terms."""
        return {"reconstruction", *self.extra_terms}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        latents = self.encode(batch.images)
        self.latent_metrics.update(latents, batch.labels)
        self.reconstruction_metric.update(self.decode(latents).contiguous(), batch.images)

    def on_validation_epoch_end(self) -> None:
        self._log_metrics("val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.validation_step(batch, batch_idx)

    def on_test_epoch_end(self) -> None:
        self._log_metrics("test")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.learning_rate, betas=self.betas)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[_RANDOM_STATES] = {
            "prior": self.prior_generator.get_state(),
            "global": torch.get_rng_state(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        states = checkpoint[_RANDOM_STATES]
        self.prior_generator.set_state(states["prior"].cpu())
        self._global_random_state = states["global"].cpu()

    def on_train_start(self) -> None:
        if self._global_random_state is not None:
            torch.set_rng_state(self._global_random_state)
            self._global_random_state = None

    def _log_metrics(self, stage: str) -> None:
        values = {"reconstruction": self.reconstruction_metric.compute(), **self.latent_metrics.compute()}
        self.log_dict({f"{stage}/{name}": value for name, value in values.items()})
        self.reconstruction_metric.reset()
        self.latent_metrics.reset()

    def _check_finite(self, terms: Mapping[str, Tensor]) -> None:
        values = torch.stack([value.detach() for value in terms.values()])
        if not torch.isfinite(values).all():
            listed = ", ".join(f"{name} = {value.item():.4g}" for name, value in terms.items())
            raise NonFiniteLossError(
                f"a loss term is not finite in epoch {self.current_epoch}, step {self.global_step}: "
                f"{listed}; lower its weight or the learning rate"
            )
