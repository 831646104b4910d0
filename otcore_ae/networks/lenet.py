"""Convolutional encoder and decoder after LeNet-5."""

from __future__ import annotations

from torch import nn

from otcore_ae.networks.init import kaiming_init

_SMALLEST_UNPADDED = 12


class LeNetEncoder(nn.Sequential):
    """Images (n, 1, s, s) to (n, latent_dim): LeNet-5 with max-pooling and ReLU.

    Images under 12 pixels would not survive the second, unpadded convolution, so it is padded by 2 for them.

    Args:
        image_size: side s of the images, in pixels, a multiple of 4 (default 28).
        latent_dim: dimension of the latent space (default 2).

    Raises:
        ValueError: if `image_size` is not a positive multiple of 4.
    """

    def __init__(self, image_size: int = 28, latent_dim: int = 2) -> None:
        padding, side = _shape(image_size)
        super().__init__(
            *[nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)],
            *[nn.Conv2d(6, 16, 5, padding=padding), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()],
            *[nn.Linear(16 * side * side, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU()],
            nn.Linear(84, latent_dim),
        )
        kaiming_init(self)


class LeNetDecoder(nn.Sequential):
    """Latents (n, latent_dim) to images (n, 1, s, s) in [0, 1]: the mirror of `LeNetEncoder`, with nearest
    upsampling and transposed convolutions.

    Args:
        image_size, latent_dim: see `LeNetEncoder`.
    """

    def __init__(self, image_size: int = 28, latent_dim: int = 2) -> None:
        padding, side = _shape(image_size)
        super().__init__(
            *[nn.Linear(latent_dim, 84), nn.ReLU(), nn.Linear(84, 120), nn.ReLU()],
            *[nn.Linear(120, 16 * side * side), nn.ReLU(), nn.Unflatten(1, (16, side, side))],
            *[nn.Upsample(scale_factor=2), nn.ConvTranspose2d(16, 6, 5, padding=padding)],
            *[nn.Upsample(scale_factor=2), nn.ReLU(), nn.ConvTranspose2d(6, 1, 5, padding=2), nn.Sigmoid()],
        )
        kaiming_init(self)


def lenet(image_size: int = 28, latent_dim: int = 2) -> tuple[nn.Sequential, nn.Sequential]:
    """`LeNetEncoder` and `LeNetDecoder`.

    Args:
        image_size: side s of the images, in pixels, a multiple of 4 (default 28).
        latent_dim: dimension of the latent space (default 2).

    Raises:
        ValueError: if `image_size` is not a positive multiple of 4.
    """
    return LeNetEncoder(image_size, latent_dim), LeNetDecoder(image_size, latent_dim)


def _shape(image_size: int) -> tuple[int, int]:
    """The second convolution's padding, and the side of its pooled output."""
    if image_size < 4 or image_size % 4:
        raise ValueError(
            f"lenet needs an image_size that is a positive multiple of 4, got {image_size}; pad the images"
        )
    padding = 0 if image_size >= _SMALLEST_UNPADDED else 2
    return padding, (image_size // 2 - 4 + 2 * padding) // 2
