"""Wasserstein autoencoders with the maximum mean discrepancy, plain and conditional, and Cramer-Wold's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from otcore_ae.models.base import GenerativeAutoencoder, Step
from otcore_ae.models.conditions import ReadsConditions
from otcore_ae.priors import Normal, Prior

_SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


def imq_mmd(x: Tensor, y: Tensor, sigma: float = 1.0) -> Tensor:
    """The unbiased squared MMD of (n, d) and (m, d) points, kernels sum_s C_s / (C_s + |x - y|^2).

    C_s = 2 d sigma^2 s with s = .1, .2, .5, 1, 2, 5, 10 (Tolstikhin et al., Wasserstein Auto-Encoders,
    2018). Diagonals are left out, so it may be negative.

    Args:
        x, y: points, at least two of each.
        sigma: standard deviation of the prior (default 1).
    """
    n, m, d = len(x), len(y), x.shape[1]

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        squares = _squared_distances(a, b)
        scales = [2 * d * sigma**2 * s for s in _SCALES]
        return torch.stack([c / (c + squares) for c in scales]).sum(0)

    xx, yy = kernel(x, x), kernel(y, y)
    own = (xx.sum() - xx.diagonal().sum()) / (n * (n - 1)) + (yy.sum() - yy.diagonal().sum()) / (m * (m - 1))
    return own - 2 * kernel(x, y).mean()


def cramer_wold_normality(x: Tensor) -> Tensor:
    """The squared Cramer-Wold distance of (n, d) points, smoothed, from N(0, I).

    With the bandwidth g = (4 / (3 n))^(2/5) and the approximation for d >= 2 of the hypergeometric function
    (Knop et al., Cramer-Wold Auto-Encoder, 2020, equation 8).

    Raises:
        ValueError: for d = 1, where the approximation does not hold.
    """
    n, d = x.shape
    if d < 2:
        raise ValueError(f"the Cramer-Wold distance needs latents of at least 2 dimensions, got {d}")
    gamma = (4 / (3 * n)) ** 0.4
    own = (gamma + _squared_distances(x, x) / (2 * d - 3)).rsqrt().mean()
    cross = (gamma + 0.5 + x.square().sum(1) / (2 * d - 3)).rsqrt().mean()
    return (own + (1 + gamma) ** -0.5 - 2 * cross) / (2 * math.sqrt(math.pi))


def _squared_distances(a: Tensor, b: Tensor) -> Tensor:
    return (a.unsqueeze(1) - b.unsqueeze(0)).square().sum(2)


class WAEMMD(GenerativeAutoencoder):
    """Reconstruction + weight * MMD^2(encode(batch), as many prior samples).

    Args:
        encoder, decoder: see `GenerativeAutoencoder`.
        prior: what the latents follow (default N(0, I) in `latent_dim` dimensions).
        latent_dim: for the default prior.
        latent_weight: weight of the term "latent" (default 10, as published for MNIST with summed errors; a
            mean over 784 pixels makes that 10 / 784).
        options: the further arguments of `GenerativeAutoencoder`.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        prior: Prior | None = None,
        *,
        latent_dim: int = 8,
        latent_weight: float = 10 / 784,
        weights: Mapping[str, float] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            encoder,
            decoder,
            prior or Normal(latent_dim),
            weights={"latent": latent_weight, **(weights or {})},
            **options,
        )

    def term_names(self) -> set[str]:
        return super().term_names() | {"latent"}

    def terms(self, step: Step) -> dict[str, Tensor]:
        return super().terms(step) | {"latent": imq_mmd(step.latents, self.draw_prior(len(step.latents)))}


class ConditionalWAEMMD(ReadsConditions, WAEMMD):
    """A WAE-MMD whose encoder and decoder also read the conditions.

    Args:
        encoder: maps images and (b, classes) conditions to (b, d) latents.
        decoder: maps (b, d) latents and conditions to images.
        classes: size of the conditions: number of integer labels, or of real attributes (default 10).
        prior, latent_dim, latent_weight, options: see `WAEMMD`.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        prior: Prior | None = None,
        *,
        classes: int = 10,
        **options: Any,
    ) -> None:
        super().__init__(encoder, decoder, prior, **options)
        self.classes = classes


class CWAE(GenerativeAutoencoder):
    """Reconstruction + weight * log of the squared Cramer-Wold distance of encode(batch) from N(0, I).

    Args:
        encoder, decoder: see `GenerativeAutoencoder`.
        latent_dim: of the latent space, at least 2.
        latent_weight: weight of the term "latent" (default 1 with summed errors, as published: 1 / 784).
        options: the further arguments of `GenerativeAutoencoder`.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        latent_dim: int,
        *,
        latent_weight: float = 1 / 784,
        weights: Mapping[str, float] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            encoder,
            decoder,
            Normal(latent_dim),
            weights={"latent": latent_weight, **(weights or {})},
            **options,
        )

    def term_names(self) -> set[str]:
        return super().term_names() | {"latent"}

    def terms(self, step: Step) -> dict[str, Tensor]:
        return super().terms(step) | {"latent": cramer_wold_normality(step.latents).log()}
