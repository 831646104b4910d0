"""What every generative autoencoder here shares: two networks, a prior, and loss terms that have names."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import lightning as L
import torch
from torch import Generator, Tensor, nn
from torchmetrics import MeanSquaredError

from otcore_ae.data.loader import Batch, ImageSet, as_batch
from otcore_ae.metrics.collection import LatentMetrics
from otcore_ae.precision import full_precision
from otcore_ae.priors import Prior, prior_name
from otcore_ae.transport import Transport

_RANDOM_STATES, _LOADER = "random_states", "train_loader"


@dataclass(frozen=True)
class Step:
    """A training step: images (b, 1, s, s), latents (b, d), reconstructions, labels (b, ...), rows (b,).

    Extra terms are also given the model that takes it.
    """

    images: Tensor
    latents: Tensor
    reconstructions: Tensor
    labels: Tensor | None
    rows: Tensor
    model: nn.Module | None = field(default=None, kw_only=True, repr=False, compare=False)


class Term(ABC):
    """A loss term: called with a `Step`, it returns an unweighted scalar. In Python any callable will do."""

    @abstractmethod
    def __call__(self, step: Step) -> Tensor: ...


class NonFiniteLossError(RuntimeError):
    """A loss term became NaN or infinite; the message names it."""


class GenerativeModel(L.LightningModule):
    """What is trained on a weighted sum of named terms, and can be sampled.

    Every term is logged as "train/<name>", unweighted, and their weighted sum as "train/loss". Checkpoints
    hold the states of the random generators and of a loader that has one, so that a resumed run continues
    bit for bit (with an `InMemoryLoader`; torch's own shuffles anew).

    Args:
        weights: weight of each term by name (1 where none is given).
        learning_rate, betas: of Adam (default 1e-3 and (0.5, 0.999)).
        learning_rate_decay: what the learning rate is multiplied with after each epoch (default 1).
        seed: seed of what is drawn in training (default 0).
    """

    def __init__(
        self,
        *,
        weights: Mapping[str, float] | None = None,
        learning_rate: float = 1e-3,
        betas: tuple[float, float] = (0.5, 0.999),
        learning_rate_decay: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.weights = dict(weights or {})
        self.learning_rate = learning_rate
        self.betas = betas
        self.learning_rate_decay = learning_rate_decay
        self.prior_generator = torch.Generator().manual_seed(seed)
        self._global_random_state: Tensor | None = None
        self._loader_state: dict[str, Any] | None = None

    def sample(self, n: int, generator: Generator | None = None, *, labels: Tensor | None = None) -> Tensor:
        """n new images (n, 1, s, s).

        Args:
            n: how many.
            generator: CPU generator of what they are drawn with (None: the global one).
            labels: (n,) or (n, q) conditions of a conditional model; others ignore them.
        """
        raise NotImplementedError

    def term_names(self) -> set[str]:
        """The names of all terms."""
        raise NotImplementedError

    def weight_of(self, name: str) -> float:
        """The weight of a term (1 where none was given)."""
        return self.weights.get(name, 1.0)

    def loss_of(self, terms: Mapping[str, Tensor], batch_idx: int, batch_size: int) -> Tensor:
        """The weighted sum of the terms, logged with each of them.

        Raises:
            NonFiniteLossError: where a term is not finite.
        """
        self.check_finite(terms, batch_idx)
        loss = torch.stack([self.weight_of(name) * value for name, value in terms.items()]).sum()
        logged = {f"train/{name}": value.detach() for name, value in terms.items()}
        self.log_dict(
            logged | {"train/loss": loss.detach()}, on_step=False, on_epoch=True, batch_size=batch_size
        )
        return loss

    def on_fit_start(self) -> None:
        unknown = set(self.weights) - self.term_names()
        if unknown:
            raise ValueError(
                f"weights name unknown terms {sorted(unknown)}; the terms are {sorted(self.term_names())}"
            )

    def configure_optimizers(self) -> Any:
        optimisers = self.optimisers()
        decay = self.learning_rate_decay
        return optimisers, [torch.optim.lr_scheduler.ExponentialLR(each, decay) for each in optimisers]

    def optimisers(self) -> list[torch.optim.Optimizer]:
        """The optimisers; their learning rates are decayed after each epoch."""
        return [torch.optim.Adam(self.parameters(), lr=self.learning_rate, betas=self.betas)]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[_RANDOM_STATES] = {
            "prior": self.prior_generator.get_state(),
            "global": torch.get_rng_state(),
        }
        loader = getattr(self.trainer, "train_dataloader", None)
        if hasattr(loader, "state_dict"):
            checkpoint[_LOADER] = loader.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        states = checkpoint[_RANDOM_STATES]
        self.prior_generator.set_state(states["prior"].cpu())
        self._global_random_state = states["global"].cpu()
        self._loader_state = checkpoint.get(_LOADER)

    def on_train_start(self) -> None:
        if self._global_random_state is not None:
            torch.set_rng_state(self._global_random_state)
            self._global_random_state = None
        # Lightning does so itself, but not where the checkpoint is from an epoch's end.
        loader = self.trainer.train_dataloader
        if self._loader_state is not None and hasattr(loader, "load_state_dict"):
            loader.load_state_dict(self._loader_state)
        self._loader_state = None
        data = getattr(self.trainer.train_dataloader, "data", None)
        if isinstance(data, ImageSet):
            was_training = self.training
            self.eval()
            try:
                with torch.no_grad():
                    self.check(data)
            except RuntimeError as error:
                raise ValueError(
                    f"{type(self).__name__} cannot take images of shape {tuple(data.images.shape[1:])}: "
                    f"{str(error).splitlines()[0]}; build its networks for "
                    f"image_size={data.images.shape[-1]}"
                ) from error
            self.train(was_training)

    def check(self, data: ImageSet) -> None:
        """Raise a ValueError where the networks, the prior and the training set do not fit each other."""

    def check_finite(self, values: Mapping[str, Tensor], batch_idx: int) -> None:
        """Raise a NonFiniteLossError with their sums where the values are not all finite."""
        sums = {name: value.detach().sum() for name, value in values.items()}
        if not torch.isfinite(torch.stack([*sums.values()])).all():
            listed = ", ".join(f"{name} = {value.item():.4g}" for name, value in sums.items())
            raise NonFiniteLossError(
                f"not finite in epoch {self.current_epoch}, step {self.global_step}, batch {batch_idx}: "
                f"{listed}; lower the term's weight or the learning rate"
            )


class GenerativeAutoencoder(GenerativeModel):
    """Encoder, decoder and prior, trained on a weighted sum of named terms.

    The metrics of an evaluation are logged as "val/<metric>" or "test/<metric>". Subclasses add terms by
    overriding `terms`.

    Args:
        encoder: maps images to (b, d) latents.
        decoder: maps (b, d) latents to images.
        prior: callable (n, generator) -> (n, d); None for models that learn what to sample from.
        extra_terms: further terms by name, each a callable `Step` -> scalar.
        evaluation: settings of the global OT in the metrics (default `Transport()`), or several by name.
        prior_draws: prior samples that the global OT metric averages over (default 1).
        options: the arguments of `GenerativeModel`.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        prior: Prior | None,
        *,
        extra_terms: Mapping[str, Term] | None = None,
        evaluation: Transport | dict[str, Transport] | None = None,
        prior_draws: int = 1,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.encoder = encoder
        self.decoder = decoder
        self.prior = prior
        self.extra_terms = dict(extra_terms or {})
        self.latent_metrics = (
            None if prior is None else LatentMetrics(prior, transport=evaluation, prior_draws=prior_draws)
        )
        self.reconstruction_metric = MeanSquaredError()

    def encode(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Latents (b, d) of images (b, 1, s, s), and of their labels (b,) where the model is conditional."""
        return full_precision(self.encoder(images))

    def decode(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images (b, 1, s, s) of latents (b, d), and of their labels (b,) where the model is conditional."""
        return full_precision(self.decoder(latents))

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Reconstructions of images."""
        return self.decode(self.encode(images, labels), labels)

    @torch.no_grad()
    def sample(self, n: int, generator: Generator | None = None, *, labels: Tensor | None = None) -> Tensor:
        return self.decode(self.sample_latents(n, generator, labels=labels), labels)

    def check(self, data: ImageSet) -> None:
        images, labels = data.images[:2].to(self.device), data.labels[:2].to(self.device)
        latents = self.encode(images, labels)
        if latents.ndim != 2:
            raise ValueError(f"the encoder must give latents (b, d), got {tuple(latents.shape)} for b = 2")
        sampled = self.sample_latents(2, torch.Generator().manual_seed(0), labels=labels)
        if sampled.shape != latents.shape:
            source = type(self).__name__ if self.prior is None else prior_name(self.prior)
            raise ValueError(
                f"the encoder gives latents of {latents.shape[1]} dimensions, the {source} samples of "
                f"{sampled.shape[-1]}; give both the same"
            )
        decoded = self.decode(latents, labels)
        if decoded.shape != images.shape:
            raise ValueError(
                f"the decoder makes images of shape {tuple(decoded.shape[1:])}, the data have "
                f"{tuple(images.shape[1:])}; build the networks for image_size={images.shape[-1]}"
            )

    def sample_latents(
        self, n: int, generator: Generator | None = None, *, labels: Tensor | None = None
    ) -> Tensor:
        """n latents (n, d) to decode: samples of the prior."""
        assert self.prior is not None
        return self.prior(n, generator).to(self.device)

    def draw_prior(self, n: int) -> Tensor:
        """n prior samples for training, from the module's own generator, on the module's device."""
        return self.sample_latents(n, self.prior_generator)

    def step_of(self, batch: Batch) -> Step:
        """A batch, encoded and decoded."""
        latents = self.encode(batch.images, batch.labels)
        return Step(batch.images, latents, self.decode(latents, batch.labels), batch.labels, batch.rows)

    def terms(self, step: Step) -> dict[str, Tensor]:
        """The loss terms by name, each an unweighted scalar."""
        reconstruction = nn.functional.mse_loss(step.reconstructions, step.images)
        return {"reconstruction": reconstruction} | self.own_terms(step)

    def own_terms(self, step: Step) -> dict[str, Tensor]:
        """The values of `extra_terms`."""
        step = replace(step, model=self)
        return {name: term(step) for name, term in self.extra_terms.items()}

    def term_names(self) -> set[str]:
        return {"reconstruction", *self.extra_terms}

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        batch = as_batch(batch)
        step = self.step_of(batch)
        self.check_finite({"latents": step.latents, "reconstructions": step.reconstructions}, batch_idx)
        with torch.autocast(self.device.type, enabled=False):  # half precision is for networks
            terms = self.terms(step)
        return self.loss_of(terms, batch_idx, len(batch.images))

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        batch = as_batch(batch)
        latents = self.encode(batch.images, batch.labels)
        if self.latent_metrics is not None:
            unlabelled = latents.new_zeros(len(latents), 0)
            self.latent_metrics.update(latents, unlabelled if batch.labels is None else batch.labels)
        self.reconstruction_metric.update(self.decode(latents, batch.labels).contiguous(), batch.images)

    def on_validation_epoch_end(self) -> None:
        self._log_metrics("val")

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.validation_step(batch, batch_idx)

    def on_test_epoch_end(self) -> None:
        self._log_metrics("test")

    def _log_metrics(self, stage: str) -> None:
        values = {"reconstruction": self.reconstruction_metric.compute()}
        self.reconstruction_metric.reset()
        if self.latent_metrics is not None:
            values.update(self.latent_metrics.compute())
            self.latent_metrics.reset()
        self.log_dict({f"{stage}/{name}": value for name, value in values.items()})
