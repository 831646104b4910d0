"""The conditional deep convolutional GAN: a baseline without an encoder."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor, nn

from otcore_ae.data.loader import ImageSet, as_batch
from otcore_ae.models.base import GenerativeModel
from otcore_ae.models.conditions import condition_vectors, conditions_for
from otcore_ae.precision import full_precision
from otcore_ae.priors import Normal


class ConditionalDCGAN(GenerativeModel):
    """A generator and a discriminator, both reading the conditions, trained against each other.

    After Radford et al., 2015, with the non-saturating loss; the terms are "discriminator" and "generator".

    Args:
        generator: maps (b, noise_dim) noise and (b, classes) conditions to images in [0, 1].
        discriminator: maps images and conditions to (b, 1) logits of being real.
        noise_dim: dimension of the noise, N(0, I) (default 64).
        classes: size of the conditions: number of integer labels, or of real attributes (default 10).
        learning_rate: of both Adams (default 2e-4).
        options: the further arguments of `GenerativeModel`.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        *,
        noise_dim: int = 64,
        classes: int = 10,
        learning_rate: float = 2e-4,
        **options: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, **options)
        self.generator = generator
        self.discriminator = discriminator
        self.noise = Normal(noise_dim)
        self.classes = classes
        self.automatic_optimization = False

    def term_names(self) -> set[str]:
        return {"discriminator", "generator"}

    def check(self, data: ImageSet) -> None:
        conditions = condition_vectors(data.labels[:2], self.classes).to(self.device)
        made = self._made(2, torch.Generator().manual_seed(0), conditions)
        if made.shape != data.images[:2].shape:
            raise ValueError(
                f"the generator makes images of shape {tuple(made.shape[1:])}, the data have "
                f"{tuple(data.images.shape[1:])}; build it for image_size={data.images.shape[-1]}"
            )
        self.discriminator(data.images[:2].to(self.device), conditions)
        condition_vectors(data.labels, self.classes)

    @torch.no_grad()
    def sample(self, n: int, generator: Generator | None = None, *, labels: Tensor | None = None) -> Tensor:
        return self._made(n, generator, conditions_for(n, labels, self.classes).to(self.device))

    def training_step(self, batch: Any, batch_idx: int) -> None:
        batch = as_batch(batch)
        first, second = self.optimizers()  # type: ignore[attr-defined]
        conditions = condition_vectors(batch.labels, self.classes).to(batch.images)
        made = self._made(len(batch.images), self.prior_generator, conditions)
        judged = [self.discriminator(images, conditions) for images in (batch.images, made.detach())]
        discriminator = 0.5 * (_told(judged[0], True) + _told(judged[1], False))
        first.zero_grad()
        self.manual_backward(self.weight_of("discriminator") * discriminator)
        first.step()
        generator = _told(self.discriminator(made, conditions), True)
        second.zero_grad()
        self.manual_backward(self.weight_of("generator") * generator)
        second.step()
        self.loss_of({"discriminator": discriminator, "generator": generator}, batch_idx, len(batch.images))

    def on_train_epoch_end(self) -> None:
        for schedule in self.lr_schedulers():  # type: ignore[union-attr]
            schedule.step()

    def optimisers(self) -> list[torch.optim.Optimizer]:
        return [
            torch.optim.Adam(network.parameters(), lr=self.learning_rate, betas=self.betas)
            for network in (self.discriminator, self.generator)
        ]

    def _made(self, n: int, generator: Generator | None, conditions: Tensor) -> Tensor:
        return full_precision(self.generator(self.noise(n, generator).to(self.device), conditions))


def _told(logits: Tensor, real: bool) -> Tensor:
    """The cross-entropy of telling that images are real, or are not."""
    return nn.functional.softplus(-logits if real else logits).mean()
