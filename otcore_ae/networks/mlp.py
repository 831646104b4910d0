"""Fully connected encoder and decoder."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from otcore_ae.networks.init import kaiming_init


def mlp(
    image_size: int = 28, latent_dim: int = 2, hidden: Sequence[int] = (256, 256, 256)
) -> tuple[nn.Sequential, nn.Sequential]:
    """Mirrored multilayer perceptrons: pixels-256-256-256-latent and back, ReLU between, sigmoid at the end.

    The encoder maps (n, 1, s, s) images to (n, latent_dim); the decoder maps those to (n, 1, s, s) images in
    [0, 1].

    Args:
        image_size: side s of the images, in pixels (default 28; scikit-learn's digits have 8).
        latent_dim: dimension of the latent space (default 2).
        hidden: widths of the encoder's hidden layers; the decoder has them in reverse.
    """
    pixels = image_size * image_size
    encoder = nn.Sequential(nn.Flatten(), *_layers([pixels, *hidden, latent_dim]))
    decoder = nn.Sequential(
        *_layers([latent_dim, *reversed(hidden), pixels]),
        nn.Sigmoid(),
        nn.Unflatten(1, (1, image_size, image_size)),
    )
    kaiming_init(encoder)
    kaiming_init(decoder)
    return encoder, decoder


def _layers(widths: Sequence[int]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return layers[:-1]
