"""The end-to-end Sinkhorn autoencoder: a network learns to make latents from noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Generator, Tensor, nn

from otcore_ae.data.loader import ImageSet
from otcore_ae.models.base import GenerativeAutoencoder, Step
from otcore_ae.models.conditions import condition_vectors, conditions_for
from otcore_ae.priors import Normal, Prior
from otcore_ae.transport import Transport


class E2ESAE(GenerativeAutoencoder):
    """Reconstruction + weight * S(encode(batch), noise_generator(noise)).

    The latent space follows no prior: the encoder and the noise generator meet each other, and the
    divergence's gradient reaches both (Deja et al., End-to-end Sinkhorn Autoencoder with Noise Generator,
    2020).

    Args:
        encoder, decoder: see `GenerativeAutoencoder`.
        noise_generator: maps (b, k) noise to (b, d) latents.
        noise: callable (n, generator) -> (n, k) (default N(0, I) in 64 dimensions).
        latent_weight: weight of the term "latent" (default 1).
        transport: settings of the divergence (default `Transport()`).
        options: the further arguments of `GenerativeAutoencoder`.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        noise_generator: nn.Module,
        *,
        noise: Prior | None = None,
        latent_weight: float = 1.0,
        transport: Transport | None = None,
        weights: Mapping[str, float] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            encoder, decoder, None, weights={"latent": latent_weight, **(weights or {})}, **options
        )
        self.noise_generator = noise_generator
        self.noise = noise or Normal(64)
        self.transport = transport or Transport()

    def term_names(self) -> set[str]:
        return super().term_names() | {"latent"}

    def terms(self, step: Step) -> dict[str, Tensor]:
        return super().terms(step) | {"latent": self.divergence(step)}

    def divergence(self, step: Step) -> Tensor:
        """S between the batch's latents and as many made from noise."""
        return self.transport(step.latents, self._made(len(step.latents), self.prior_generator))

    @torch.no_grad()
    def sample_latents(
        self, n: int, generator: Generator | None = None, *, labels: Tensor | None = None
    ) -> Tensor:
        return self._made(n, generator)

    def _made(self, n: int, generator: Generator | None, *conditions: Tensor) -> Tensor:
        made: Tensor = self.noise_generator(self.noise(n, generator).to(self.device), *conditions)
        return made


class ConditionalE2ESAE(E2ESAE):
    """Reconstruction + weight * S([encode(batch); s q], [noise_generator(noise, q); s q]), q the conditions.

    The conditions enter neither encoder nor decoder: comparing them in the divergence places each of them in
    a region of the latent space, which the noise generator learns (Deja et al., section III-D).

    Args:
        encoder, decoder, noise, latent_weight, transport, options: see `E2ESAE`.
        noise_generator: maps (b, k) noise and (b, classes) conditions to (b, d) latents.
        classes: size of the conditions: number of integer labels, or of real attributes (default 10).
        condition_scale: s, in latent units (default 1).
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        noise_generator: nn.Module,
        *,
        classes: int = 10,
        condition_scale: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(encoder, decoder, noise_generator, **options)
        self.classes = classes
        self.condition_scale = condition_scale

    def check(self, data: ImageSet) -> None:
        condition_vectors(data.labels, self.classes)
        super().check(data)

    def divergence(self, step: Step) -> Tensor:
        conditions = condition_vectors(step.labels, self.classes)
        made = self._made(len(step.latents), self.prior_generator, conditions)
        scaled = self.condition_scale * conditions
        return self.transport(torch.cat([step.latents, scaled], 1), torch.cat([made, scaled], 1))

    @torch.no_grad()
    def sample_latents(
        self, n: int, generator: Generator | None = None, *, labels: Tensor | None = None
    ) -> Tensor:
        return self._made(n, generator, conditions_for(n, labels, self.classes).to(self.device))
