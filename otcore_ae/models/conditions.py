"""Labels as the vectors that conditional models read, and models whose networks read them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from otcore_ae.data.loader import ImageSet
from otcore_ae.models.base import GenerativeAutoencoder
from otcore_ae.precision import full_precision


def condition_vectors(labels: Tensor | None, size: int) -> Tensor:
    """(b, size) float32: the one-hot vectors of integer labels (b,), or real labels (b, size) as they are.

    Raises:
        ValueError: if there are no labels, or they do not fit `size`.
    """
    if labels is None:
        raise ValueError(
            f"a conditional model needs labels: (b,) integers below {size} or (b, {size}) numbers"
        )
    if labels.is_floating_point():
        if labels.ndim != 2 or labels.shape[1] != size:
            raise ValueError(f"real labels must be (b, {size}), got {tuple(labels.shape)}")
        return labels.float()
    if labels.ndim != 1:
        raise ValueError(f"integer labels must be (b,), got {tuple(labels.shape)}")
    if len(labels) and not (int(labels.min()) >= 0 and int(labels.max()) < size):
        raise ValueError(
            f"integer labels must be from 0 to {size - 1} for {size} classes, got {int(labels.min())} to "
            f"{int(labels.max())}; give classes={int(labels.max()) + 1}"
        )
    return nn.functional.one_hot(labels, size).to(torch.float32)


def conditions_for(n: int, labels: Tensor | None, size: int) -> Tensor:
    """`condition_vectors` of labels for n images to sample.

    Raises:
        ValueError: where there are not n of them, too.
    """
    conditions = condition_vectors(labels, size)
    if len(conditions) != n:
        raise ValueError(f"sampling {n} images needs as many labels, got {len(conditions)}")
    return conditions


class ReadsConditions(GenerativeAutoencoder):
    """Makes an autoencoder's networks read conditions (b, classes) as their second argument."""

    classes: int

    def encode(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        return full_precision(self.encoder(images, self.conditions(labels, images)))

    def decode(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        return full_precision(self.decoder(latents, self.conditions(labels, latents)))

    def conditions(self, labels: Tensor | None, like: Tensor) -> Tensor:
        """The labels' vectors, with the type and on the device of another tensor."""
        return condition_vectors(labels, self.classes).to(like)

    def check(self, data: ImageSet) -> None:
        condition_vectors(data.labels, self.classes)
        super().check(data)
