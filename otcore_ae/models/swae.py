"""The Sliced-Wasserstein autoencoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from otcore import sliced_wasserstein_distance
from otcore_ae.models.base import GenerativeAutoencoder, Step
from otcore_ae.priors import Prior


class SWAE(GenerativeAutoencoder):
    """Cross-entropy + absolute error + weight * sliced W_2^2(encode(batch), as many prior samples).

    After Kolouri et al., Sliced-Wasserstein Autoencoder, 2018, with the settings of its code: 50 fresh
    directions a step, RMSprop; its batches have 500 images.

    The terms are "cross_entropy" and "absolute" (of reconstructions and images in [0, 1], means over pixels,
    weight 1 each) and "latent" (weight `latent_weight`).

    Args:
        encoder, decoder, prior: see `GenerativeAutoencoder`; the decoder ends in values from 0 to 1.
        latent_weight: weight of the transport term (default 10, as published).
        n_projections: random directions a step (default 50).
        learning_rate: of RMSprop (default 1e-3).
        options: the further arguments of `GenerativeAutoencoder`; RMSprop has no `betas`.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        prior: Prior,
        *,
        latent_weight: float = 10.0,
        n_projections: int = 50,
        learning_rate: float = 1e-3,
        weights: Mapping[str, float] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            encoder,
            decoder,
            prior,
            weights={"latent": latent_weight, **(weights or {})},
            learning_rate=learning_rate,
            **options,
        )
        self.n_projections = n_projections

    def term_names(self) -> set[str]:
        return {"cross_entropy", "absolute", "latent", *self.extra_terms}

    def terms(self, step: Step) -> dict[str, Tensor]:
        return {
            "cross_entropy": nn.functional.binary_cross_entropy(step.reconstructions, step.images),
            "absolute": nn.functional.l1_loss(step.reconstructions, step.images),
            "latent": sliced_wasserstein_distance(
                step.latents,
                self.draw_prior(len(step.latents)),
                n_projections=self.n_projections,
                generator=self.prior_generator,
                root=False,
            ),
            **self.own_terms(step),
        }

    def optimisers(self) -> list[torch.optim.Optimizer]:
        return [torch.optim.RMSprop(self.parameters(), lr=self.learning_rate, alpha=0.9, eps=1e-7)]
