"""Fully connected encoder and decoder."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from otcore_ae.networks.init import kaiming_init

HIDDEN = (256, 256, 256)


class MLPEncoder(nn.Sequential):
    """Images (n, 1, s, s) to (n, latent_dim): pixels-256-256-256-latent, ReLU between.

    Args:
        image_size: side s of the images, in pixels (default 28).
        latent_dim: dimension of the latent space (default 2).
        hidden: widths of the hidden layers (default 256, 256, 256).
    """

    def __init__(self, image_size: int = 28, latent_dim: int = 2, hidden: Sequence[int] = HIDDEN) -> None:
        super().__init__(nn.Flatten(), *_layers([image_size * image_size, *hidden, latent_dim]))
        kaiming_init(self)


class MLPDecoder(nn.Sequential):
    """Latents (n, latent_dim) to images (n, 1, s, s) in [0, 1]: the encoder's mirror, a sigmoid at the end.

    Args:
        image_size, latent_dim: see `MLPEncoder`.
        hidden: the encoder's, from its first layer to its last.
    """

    def __init__(self, image_size: int = 28, latent_dim: int = 2, hidden: Sequence[int] = HIDDEN) -> None:
        super().__init__(
            *_layers([latent_dim, *reversed(hidden), image_size * image_size]),
            nn.Sigmoid(),
            nn.Unflatten(1, (1, image_size, image_size)),
        )
        kaiming_init(self)


def mlp(
    image_size: int = 28, latent_dim: int = 2, hidden: Sequence[int] = HIDDEN
) -> tuple[nn.Sequential, nn.Sequential]:
    """Mirrored multilayer perceptrons: `MLPEncoder` and `MLPDecoder`.

    Args:
        image_size: side s of the images, in pixels (default 28; scikit-learn's digits have 8).
        latent_dim: dimension of the latent space (default 2).
        hidden: widths of the encoder's hidden layers; the decoder has them in reverse.
    """
    return MLPEncoder(image_size, latent_dim, hidden), MLPDecoder(image_size, latent_dim, hidden)


def _layers(widths: Sequence[int]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return layers[:-1]
