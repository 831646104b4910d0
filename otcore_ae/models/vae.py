"""Variational autoencoders, plain and conditional."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from otcore_ae.data.loader import Batch
from otcore_ae.models.base import GenerativeAutoencoder, Step
from otcore_ae.models.conditions import ReadsConditions
from otcore_ae.precision import full_precision
from otcore_ae.priors import Normal


@dataclass(frozen=True)
class VariationalStep(Step):
    """A step whose latents are drawn from N(mean, exp(log_variance)), each (b, d)."""

    mean: Tensor
    log_variance: Tensor


class VAE(GenerativeAutoencoder):
    """Reconstruction + weight * KL(N(mean, variance) | N(0, I)), latents drawn from the encoder's Gaussian.

    After Kingma and Welling, Auto-Encoding Variational Bayes, 2014. The term "kl" is a mean over the batch of
    a sum over dimensions, as "reconstruction" is a mean over pixels: with squared errors of variance s^2 per
    pixel, of which there are P, the evidence bound has the weight 2 s^2 / P.

    Args:
        encoder: maps images to (b, 2 d): means and logarithms of variances.
        decoder: maps (b, d) latents to images.
        latent_dim: d.
        kl_weight: weight of the term "kl" (default 1e-3, about s = .6 for 28 x 28 pixels).
        options: the further arguments of `GenerativeAutoencoder`.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        latent_dim: int,
        *,
        kl_weight: float = 1e-3,
        weights: Mapping[str, float] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            encoder, decoder, Normal(latent_dim), weights={"kl": kl_weight, **(weights or {})}, **options
        )
        self.latent_dim = latent_dim

    def moments(self, images: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Means and logarithms of variances (b, d) of images' latents.

        Raises:
            ValueError: if the encoder does not give 2 d numbers an image.
        """
        both = self.encoded(images, labels)
        if both.shape[1] != 2 * self.latent_dim:
            raise ValueError(
                f"the encoder of a VAE with latent_dim={self.latent_dim} must give 2 x {self.latent_dim} "
                f"numbers an image, means and log-variances; it gives {both.shape[1]}"
            )
        mean, log_variance = both.chunk(2, dim=1)
        return mean, log_variance

    def encode(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.moments(images, labels)[0]

    def step_of(self, batch: Batch) -> Step:
        mean, log_variance = self.moments(batch.images, batch.labels)
        noise = torch.randn(mean.shape, generator=self.prior_generator).to(mean)
        latents = mean + noise * (0.5 * log_variance).exp()
        reconstructions = self.decode(latents, batch.labels)
        return VariationalStep(
            batch.images, latents, reconstructions, batch.labels, batch.rows, mean, log_variance
        )

    def term_names(self) -> set[str]:
        return super().term_names() | {"kl"}

    def terms(self, step: Step) -> dict[str, Tensor]:
        assert isinstance(step, VariationalStep)
        parts = step.mean.square() + step.log_variance.exp() - 1 - step.log_variance
        return super().terms(step) | {"kl": 0.5 * parts.sum(1).mean()}

    def encoded(self, images: Tensor, labels: Tensor | None) -> Tensor:
        """What the encoder gives, (b, 2 d)."""
        return full_precision(self.encoder(images))


class ConditionalVAE(ReadsConditions, VAE):
    """A VAE whose encoder and decoder also read the conditions (Sohn et al., 2015).

    Args:
        encoder: maps images and (b, classes) conditions to (b, 2 d).
        decoder: maps (b, d) latents and conditions to images.
        classes: size of the conditions: number of integer labels, or of real attributes (default 10).
        latent_dim, kl_weight, options: see `VAE`.
    """

    def __init__(
        self, encoder: nn.Module, decoder: nn.Module, latent_dim: int, *, classes: int = 10, **options: Any
    ) -> None:
        super().__init__(encoder, decoder, latent_dim, **options)
        self.classes = classes

    def encode(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.moments(images, labels)[0]

    def encoded(self, images: Tensor, labels: Tensor | None) -> Tensor:
        return ReadsConditions.encode(self, images, labels)
