"""Networks of the conditional end-to-end Sinkhorn autoencoder and its baselines.

Images are in [0, 1] outside; inside, as published, in [-1, 1]. Convolutions run channels last, which is
what processors' own kernels read: a step of encoder and decoder takes 1.9 s for 2.8 (a batch of 1000).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_CHANNELS = 64
_SLOPE = 0.01
_GENERATOR_SLOPE = 0.2


class Affine(nn.Module):
    """x -> scale x + shift."""

    def __init__(self, scale: float, shift: float) -> None:
        super().__init__()
        self.scale = scale
        self.shift = shift

    def forward(self, values: Tensor) -> Tensor:
        return self.scale * values + self.shift


class Normalise(nn.Module):
    """Latents (b, d) divided by their lengths: the end of an encoder onto the sphere."""

    def forward(self, latents: Tensor) -> Tensor:
        return nn.functional.normalize(latents, dim=1)


class NoiseGenerator(nn.Module):
    """Latents from noise and conditions: noise-128 and conditions-64, concatenated, then 192-256-192-latents.

    Args:
        noise_dim: of the noise (default 64).
        classes: size of the conditions; 0: none, and noise-192 instead (default 10).
        latent_dim: of the latents (default 16).
    """

    def __init__(self, noise_dim: int = 64, classes: int = 10, latent_dim: int = 16) -> None:
        super().__init__()
        self.from_noise = nn.Linear(noise_dim, 128 if classes else 192)
        self.from_conditions = nn.Linear(classes, 64) if classes else None
        self.rest = nn.Sequential(
            *[nn.LeakyReLU(_GENERATOR_SLOPE), nn.Linear(192, 256), nn.LeakyReLU(_GENERATOR_SLOPE)],
            *[nn.Linear(256, 192), nn.LeakyReLU(_GENERATOR_SLOPE), nn.Linear(192, latent_dim)],
        )

    def forward(self, noise: Tensor, conditions: Tensor | None = None) -> Tensor:
        parts = [self.from_noise(noise)]
        if self.from_conditions is not None:
            parts.append(self.from_conditions(conditions))
        latents: Tensor = self.rest(torch.cat(parts, 1))
        return latents


class ConditionedEncoder(nn.Module):
    """A network on images with the conditions as further channels, each of one value."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, conditions: Tensor) -> Tensor:
        planes = conditions[:, :, None, None].expand(-1, -1, *images.shape[-2:])
        out: Tensor = self.network(torch.cat([images, planes], 1))
        return out


class ConditionedDecoder(nn.Module):
    """A network on latents with the conditions as further coordinates."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, latents: Tensor, conditions: Tensor) -> Tensor:
        out: Tensor = self.network(torch.cat([latents, conditions], 1))
        return out


class ConvEncoder(nn.Sequential):
    """Images (n, channels, s, s) to (n, outputs): the published encoder.

    Three 4 x 4 convolutions of stride 2 to 64 channels, each with batch norm and leaky ReLU .01, then their
    features (576 for 28 x 28 pixels) to the outputs. Convolutions have no bias and weights N(0, .02), batch
    norms N(1, .02).

    Args:
        outputs: of the last layer (default 16).
        channels: of the images (default 1).
        image_size: side s of the images, in pixels, at least 8 (default 28).
    """

    def __init__(self, outputs: int = 16, channels: int = 1, image_size: int = 28) -> None:
        layers: list[nn.Module] = [Affine(2.0, -1.0)]
        for inputs in (channels, _CHANNELS, _CHANNELS):
            layers += [
                nn.Conv2d(inputs, _CHANNELS, 4, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(_CHANNELS),
                nn.LeakyReLU(_SLOPE),
            ]
        features = _CHANNELS * (image_size // 8) ** 2
        super().__init__(*layers, nn.Flatten(), nn.Linear(features, outputs))
        self.apply(_initialise)
        self.to(memory_format=torch.channels_last)


class ConvDecoder(nn.Sequential):
    """Numbers (n, inputs) to images (n, 1, s, s) in [0, 1]: the published decoder.

    inputs-256, then 4 x 4 transposed convolutions (64, 2, 2)-256-128-64-1, batch norm and leaky ReLU .01
    after each but the last; other sizes start from more than (2, 2).

    Args:
        inputs: of the first layer (default 16).
        image_size: side s of the images, in pixels: 20, 28 (default), 36, 44, ...

    Raises:
        ValueError: for another image_size.
    """

    def __init__(self, inputs: int = 16, image_size: int = 28) -> None:
        if image_size < 20 or (image_size - 12) % 8:
            raise ValueError(f"ConvDecoder makes images of 20, 28, 36, 44, ... pixels, got {image_size}")
        side = (image_size - 12) // 8
        layers: list[nn.Module] = [
            *[nn.Linear(inputs, _CHANNELS * side * side), nn.LeakyReLU(_SLOPE)],
            nn.Unflatten(1, (_CHANNELS, side, side)),
        ]
        for before, after, stride, padding in ((64, 256, 2, 0), (256, 128, 2, 1), (128, 64, 1, 1)):
            layers += [
                nn.ConvTranspose2d(before, after, 4, stride=stride, padding=padding, bias=False),
                nn.BatchNorm2d(after),
                nn.LeakyReLU(_SLOPE),
            ]
        last = nn.ConvTranspose2d(64, 1, 4, stride=2, bias=False)
        super().__init__(*layers, last, nn.Tanh(), Affine(0.5, 0.5))
        self.apply(_initialise)
        self.to(memory_format=torch.channels_last)


def e2e_network(latent_dim: int = 16, image_size: int = 28) -> tuple[nn.Module, nn.Module]:
    """Encoder and decoder of the published conditional end-to-end SAE on MNIST (K. Deja et al., their code).

    Args:
        latent_dim: of the latent space (default 16).
        image_size: of the images, in pixels: 20, 28 (default), 36, 44, ...
    """
    return ConvEncoder(latent_dim, image_size=image_size), ConvDecoder(latent_dim, image_size)


def conditional_network(
    latent_dim: int = 16, classes: int = 10, *, moments: bool = False, image_size: int = 28
) -> tuple[nn.Module, nn.Module]:
    """The same networks, reading conditions too: for conditional VAEs (`moments`) and WAEs.

    Args:
        latent_dim: of the latent space (default 16).
        classes: size of the conditions (default 10).
        moments: the encoder gives means and log-variances, 2 latent_dim numbers (default False).
        image_size: see `e2e_network`.
    """
    outputs = 2 * latent_dim if moments else latent_dim
    return (
        ConditionedEncoder(ConvEncoder(outputs, 1 + classes, image_size)),
        ConditionedDecoder(ConvDecoder(latent_dim + classes, image_size)),
    )


def dcgan_network(
    noise_dim: int = 64, classes: int = 10, image_size: int = 28
) -> tuple[nn.Module, nn.Module]:
    """A generator and a discriminator of the same shapes as the decoder and the encoder.

    Args:
        noise_dim: of the noise (default 64).
        classes: size of the conditions (default 10).
        image_size: see `e2e_network`.
    """
    generator = ConditionedDecoder(ConvDecoder(noise_dim + classes, image_size))
    return generator, ConditionedEncoder(ConvEncoder(1, 1 + classes, image_size))


def _initialise(part: nn.Module) -> None:
    if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(part.weight, 0.0, 0.02)
    elif isinstance(part, nn.BatchNorm2d):
        nn.init.normal_(part.weight, 1.0, 0.02)
        nn.init.zeros_(part.bias)
