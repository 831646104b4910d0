"""The Sinkhorn autoencoder, local: the latent term sees one minibatch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from otcore_ae.models.base import GenerativeAutoencoder, Step
from otcore_ae.priors import Prior
from otcore_ae.transport import Transport

LOCAL_LATENT_WEIGHT = 0.1


class SAE(GenerativeAutoencoder):
    """Reconstruction + weight * S(encode(batch), as many prior samples).

    After Patrini et al., Sinkhorn Autoencoders, 2018.

    The terms are "reconstruction" (mean squared error per pixel, weight 1) and "latent" (weight
    `latent_weight`).

    Args:
        encoder, decoder, prior: see `GenerativeAutoencoder`.
        latent_weight: weight of the transport term (default 0.1, as published for batches of 100).
        transport: settings of the divergence (default `Transport()`).
        options: the further arguments of `GenerativeAutoencoder`.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        prior: Prior,
        *,
        latent_weight: float = LOCAL_LATENT_WEIGHT,
        transport: Transport | None = None,
        weights: Mapping[str, float] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            encoder, decoder, prior, weights={"latent": latent_weight, **(weights or {})}, **options
        )
        self.transport = transport or Transport()

    def term_names(self) -> set[str]:
        return super().term_names() | {"latent"}

    def terms(self, step: Step) -> dict[str, Tensor]:
        return super().terms(step) | {
            "latent": self.transport(step.latents, self.draw_prior(len(step.latents)))
        }
