"""Convolutional encoder and decoder after LeNet-5."""

from __future__ import annotations

from torch import nn

from otcore_ae.networks.init import kaiming_init

_SMALLEST_UNPADDED = 12


def lenet(image_size: int = 28, latent_dim: int = 2) -> tuple[nn.Sequential, nn.Sequential]:
    """LeNet-5 with max-pooling and ReLU, and its mirror with nearest upsampling and transposed convolutions.

    The encoder maps (n, 1, s, s) images to (n, latent_dim); the decoder maps those to (n, 1, s, s) images in
    [0, 1]. Images under 12 pixels would not survive the second, unpadded convolution, so it is padded by 2
    for them.

    Args:
        image_size: side s of the images, in pixels, a multiple of 4 (default 28).
        latent_dim: dimension of the latent space (default 2).

    Raises:
        ValueError: if `image_size` is not a positive multiple of 4.
    """
    if image_size < 4 or image_size % 4:
        raise ValueError(
            f"lenet needs an image_size that is a positive multiple of 4, got {image_size}; pad the images"
        )
    padding = 0 if image_size >= _SMALLEST_UNPADDED else 2
    side = (image_size // 2 - 4 + 2 * padding) // 2
    features = 16 * side * side
    encoder = nn.Sequential(
        *[nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)],
        *[nn.Conv2d(6, 16, 5, padding=padding), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()],
        *[nn.Linear(features, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, latent_dim)],
    )
    decoder = nn.Sequential(
        *[
            nn.Linear(latent_dim, 84),
            nn.ReLU(),
            nn.Linear(84, 120),
            nn.ReLU(),
            nn.Linear(120, features),
            nn.ReLU(),
        ],
        *[
            nn.Unflatten(1, (16, side, side)),
            nn.Upsample(scale_factor=2),
            nn.ConvTranspose2d(16, 6, 5, padding=padding),
        ],
        *[nn.Upsample(scale_factor=2), nn.ReLU(), nn.ConvTranspose2d(6, 1, 5, padding=2), nn.Sigmoid()],
    )
    kaiming_init(encoder)
    kaiming_init(decoder)
    return encoder, decoder
