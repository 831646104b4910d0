"""The end-to-end Sinkhorn autoencoder: a network learns to make latents from noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Generator, Tensor, nn

from otcore_ae.data.loader import ImageSet
from otcore_ae.models.base import GenerativeAutoencoder, Step
from otcore_ae.models.cache import encode_all
from otcore_ae.models.conditions import condition_vectors, conditions_for
from otcore_ae.models.matching import descend
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
        return self.latent_distance(step.latents, step.labels)

    def latent_distance(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """S between latents (n, d) and as many made from noise."""
        return self.transport(latents, self._made(len(latents), self.prior_generator))

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

    def latent_distance(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """S between latents (n, d) and as many made from noise, both with these labels' conditions."""
        conditions = condition_vectors(labels, self.classes)
        made = self._made(len(latents), self.prior_generator, conditions)
        scaled = self.condition_scale * conditions
        return self.transport(torch.cat([latents, scaled], 1), torch.cat([made, scaled], 1))

    @torch.no_grad()
    def sample_latents(
        self, n: int, generator: Generator | None = None, *, labels: Tensor | None = None
    ) -> Tensor:
        return self._made(n, generator, conditions_for(n, labels, self.classes).to(self.device))


def match_latents(
    model: E2ESAE,
    images: Tensor,
    labels: Tensor | None = None,
    *,
    steps: int = 1500,
    cloud_size: int = 3000,
    learning_rate: float = 2e-3,
) -> list[float]:
    """Fit the noise generator alone to the latents of images, on clouds that batches are too small for.

    Encoder and decoder stay as they are, so the images are encoded once, and a step costs little. It
    minimises the model's divergence on random subsets, by Adam whose learning rate falls to 0 along a half
    cosine. A progress bar is shown on terminals.

    Args:
        model: trained; its `prior_generator` draws subsets and noise.
        images: training images (n, 1, s, s).
        labels: theirs (n, ...), for a conditional model.
        steps: of Adam (default 1500).
        cloud_size: latents a step, at most n (default 3000).
        learning_rate: at the start (default 2e-3).

    Returns:
        The divergence in each step.

    Raises:
        ValueError: if the model is conditional and has no labels here.
    """
    training = model.training
    model.eval()
    latents = encode_all(images, model.encode)
    found = descend(
        model.noise_generator.parameters(),
        lambda rows: model.latent_distance(latents[rows], None if labels is None else labels[rows]),
        len(latents),
        generator=model.prior_generator,
        steps=steps,
        cloud_size=cloud_size,
        learning_rate=learning_rate,
        what="matching the latents",
    )
    model.train(training)
    return found
