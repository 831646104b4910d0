"""The Sinkhorn autoencoder, global: the latent term sees the whole training set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from otcore_ae.models.base import GenerativeAutoencoder, Step
from otcore_ae.models.cache import LatentCache
from otcore_ae.priors import Prior
from otcore_ae.transport import Transport

_CACHE = "latent_cache"
_PUBLISHED_ROWS_PER_WEIGHT = 600
FULL_LATENT_WEIGHT = 0.1


class _CloudSAE(GenerativeAutoencoder):
    """Reconstruction of a batch + weight * S(latents of the training set, as many prior samples)."""

    through_all: bool  # whether gradients reach every point of the cloud

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        prior: Prior,
        *,
        latent_weight: float | None = None,
        cloud_size: int | None = None,
        recalculate_every: int = 1,
        resample_every: int = 1,
        warm_start: bool = False,
        transport: Transport | None = None,
        weights: Mapping[str, float] | None = None,
        **options: Any,
    ) -> None:
        given = {} if latent_weight is None else {"latent": latent_weight}
        super().__init__(encoder, decoder, prior, weights={**given, **(weights or {})}, **options)
        self.cache = LatentCache(
            cloud_size,
            recalculate_every=recalculate_every,
            resample_every=resample_every,
            seed=options.get("seed", 0) + 1,
        )
        self.warm_start = warm_start
        self.transport = transport or Transport()
        self._train_images: Tensor | None = None

    def default_weight(self, points: int) -> float:
        """The latent term's weight where none was given, for a cloud of so many points."""
        raise NotImplementedError

    def term_names(self) -> set[str]:
        return super().term_names() | {"latent"}

    def on_train_start(self) -> None:
        super().on_train_start()
        images = getattr(getattr(self.trainer.train_dataloader, "data", None), "images", None)
        if not isinstance(images, Tensor):
            raise ValueError(
                f"{type(self).__name__} needs all images in train_dataloader.data.images, which "
                f"{type(self.trainer.train_dataloader).__name__} lacks; use otcore_ae.data.InMemoryLoader"
            )
        self._train_images = images.to(self.device)
        self.weights.setdefault("latent", self.default_weight(self._cloud_points()))

    def terms(self, step: Step) -> dict[str, Tensor]:
        if self.cache.size is not None and self.cache.size < len(step.latents):
            raise ValueError(
                f"cloud_size={self.cache.size} is smaller than the batch of {len(step.latents)}, which the "
                "cloud holds; raise it or lower batch_size"
            )
        cloud = self.cache.cloud_with(
            self._images(), self._encode_quietly, step.rows, step.latents, through_all=self.through_all
        )
        sample, fresh = self.cache.prior_with(len(cloud), self.draw_prior)
        divergence = self._divergence(cloud, sample, fresh)
        self.cache.step += 1  # not in on_train_batch_end: callbacks save checkpoints before that
        return super().terms(step) | {"latent": divergence}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint[_CACHE] = self.cache.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.cache.load_state_dict(checkpoint[_CACHE], self.device)

    def _divergence(self, cloud: Tensor, sample: Tensor, fresh: bool) -> Tensor:
        """S(cloud, sample), warm where the potentials of the last step belong to the same points."""
        same_points = self.cache.resample_every > 1 and self._cloud_points() == len(self._images())
        if not (self.warm_start and same_points and self.transport.schedule == "converged"):
            return self.transport(cloud, sample)
        value, self.cache.duals = self.transport.warm(cloud, sample, None if fresh else self.cache.duals)
        return value

    def _encode_quietly(self, images: Tensor) -> Tensor:
        training = self.encoder.training
        self.encoder.eval()
        latents = self.encode(images)
        self.encoder.train(training)
        return latents

    def _images(self) -> Tensor:
        assert self._train_images is not None
        return self._train_images

    def _cloud_points(self) -> int:
        return min(self.cache.size or len(self._images()), len(self._images()))


class MinibatchGlobalSAE(_CloudSAE):
    """Reconstruction of a batch + weight * S(latents of all training images, as many prior samples).

    Gradients reach the encoder through the current batch's rows alone; the others come from a cache, a
    `LatentCache` (Csiszarik et al., Global Sinkhorn Autoencoder, section 4.1, "calculate in the global scope,
    but backpropagate only on a minibatch"). Each of the cloud's m points weighs 1/m in the divergence, so the
    default weight grows with m.

    The training data must come from a loader with all images in `loader.data.images`, such as
    `InMemoryLoader`. Layers that behave differently in training (batch norm, dropout) encode the cloud as in
    evaluation.

    Args:
        encoder, decoder, prior: see `GenerativeAutoencoder`.
        latent_weight: weight of the transport term (None, default: m / 600, the published 100 for 60,000
            images).
        cloud_size: points m in the cloud (None, default: all training images); fewer make a fresh random
            subset each step, which holds the batch.
        recalculate_every, resample_every: steps between two encodings of the cloud, and between two prior
            samples (default 1 each); see `LatentCache`.
        warm_start: start each solve from the last one's potentials while the prior sample is kept, that is
            with `resample_every` above 1 (default False: on the digits a step moves the cloud so far that the
            warm solves needed as many sweeps as cold ones).
        transport: settings of the divergence (default `Transport()`).
        options: the further arguments of `GenerativeAutoencoder`.
    """

    through_all = False

    def default_weight(self, points: int) -> float:
        return points / _PUBLISHED_ROWS_PER_WEIGHT


class GlobalSAE(_CloudSAE):
    """The same with gradients through every point of the cloud, all encoded anew each step.

    "Full" in Csiszarik et al., Global Sinkhorn Autoencoder, section 4.1. No activations of the cloud are
    kept: it is encoded in chunks, and once more in the backward pass, so memory does not grow with the
    network's width times the cloud.

    Args:
        latent_weight: weight of the transport term (None, default: 0.1, as published).
        encoder, decoder, prior, cloud_size, resample_every, warm_start, transport, options: see
            `MinibatchGlobalSAE`.
    """

    through_all = True

    def __init__(self, encoder: nn.Module, decoder: nn.Module, prior: Prior, **options: Any) -> None:
        if options.get("recalculate_every", 1) != 1:
            raise ValueError("GlobalSAE encodes every point in each step: recalculate_every can only be 1")
        super().__init__(encoder, decoder, prior, **options)

    def default_weight(self, points: int) -> float:
        return FULL_LATENT_WEIGHT
