"""The Sliced-Wasserstein autoencoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from otcore import sliced_wasserstein_distance
from otcore_ae.data.augment import Augmentation
from otcore_ae.data.loader import Batch
from otcore_ae.models.base import GenerativeAutoencoder, Step
from otcore_ae.models.matching import descend
from otcore_ae.priors import Prior


@dataclass(frozen=True)
class AugmentedStep(Step):
    """A step whose images were also encoded after an augmentation: `augmented` (b, d)."""

    augmented: Tensor


class SWAE(GenerativeAutoencoder):
    """Cross-entropy + absolute error + weight * sliced W_2^2(encode(batch), as many prior samples).

    After Kolouri et al., Sliced-Wasserstein Autoencoder, 2018, with the settings of its code: 50 fresh
    directions a step, RMSprop; its batches have 500 images.

    The terms are "cross_entropy" and "absolute" (of reconstructions and images in [0, 1], means over pixels,
    weight 1 each) and "latent" (weight `latent_weight`); with an `augmentation` also "consistency", the mean
    squared distance between the latents of an image and of the augmented one. Latents that ignore the style
    of writing are distributed alike for other writers, as those of a test set are.

    Args:
        encoder, decoder, prior: see `GenerativeAutoencoder`; the decoder ends in values from 0 to 1.
        latent_weight: weight of the transport term (default 10, as published).
        n_projections: random directions a step (default 50).
        lifted: compare (z, |z|^2) instead of z: points are then sliced by circles too, and those inside a
            ring, which hardly change its projections, are seen (default False). This is the generalised
            sliced distance with circular slices of Kolouri et al., Generalized Sliced Wasserstein Distances,
            2019, as |z - r u|^2 is linear in (z, |z|^2).
        augmentation: changes images for the term "consistency" (None, default: no such term).
        consistency_weight: its weight (default 1).
        decoded: how many images of a batch are decoded in training, the first ones; the latent terms see
            the whole batch (None, default: all). Decoding costs five times as much as encoding.
        learning_rate: of RMSprop (default 1e-3).
        options: the further arguments of `GenerativeAutoencoder`; RMSprop has no `betas`.

    Raises:
        ValueError: if `decoded` is not positive.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        prior: Prior,
        *,
        latent_weight: float = 10.0,
        n_projections: int = 50,
        lifted: bool = False,
        augmentation: Augmentation | None = None,
        consistency_weight: float = 1.0,
        decoded: int | None = None,
        learning_rate: float = 1e-3,
        weights: Mapping[str, float] | None = None,
        **options: Any,
    ) -> None:
        if decoded is not None and decoded < 1:
            raise ValueError(f"decoded must be at least 1, or None for the whole batch, got {decoded}")
        consistency = {} if augmentation is None else {"consistency": consistency_weight}
        super().__init__(
            encoder,
            decoder,
            prior,
            weights={"latent": latent_weight, **consistency, **(weights or {})},
            learning_rate=learning_rate,
            **options,
        )
        self.n_projections = n_projections
        self.lifted = lifted
        self.augmentation = augmentation
        self.decoded = decoded

    def term_names(self) -> set[str]:
        augmented = set() if self.augmentation is None else {"consistency"}
        return {"cross_entropy", "absolute", "latent", *augmented, *self.extra_terms}

    def step_of(self, batch: Batch) -> Step:
        images, latents = batch.images[: self.decoded], self.encode(batch.images)
        parts = (images, latents, self.decode(latents[: self.decoded]), batch.labels, batch.rows)
        if self.augmentation is None:
            return Step(*parts)
        return AugmentedStep(*parts, self.encode(self.augmentation(batch.images, self.prior_generator)))

    def terms(self, step: Step) -> dict[str, Tensor]:
        terms = {
            "cross_entropy": nn.functional.binary_cross_entropy(step.reconstructions, step.images),
            "absolute": nn.functional.l1_loss(step.reconstructions, step.images),
            "latent": self.latent_distance(step.latents, len(step.latents)),
        }
        if isinstance(step, AugmentedStep):
            terms["consistency"] = (step.latents - step.augmented).square().sum(1).mean()
        return terms | self.own_terms(step)

    def latent_distance(self, latents: Tensor, samples: int) -> Tensor:
        """Sliced W_2^2 between latents (b, d) and so many fresh prior samples, along fresh directions."""
        value: Tensor = sliced_wasserstein_distance(
            self._sliced(latents),
            self._sliced(self.draw_prior(samples)),
            n_projections=self.n_projections,
            generator=self.prior_generator,
            root=False,
        )
        return value

    def optimisers(self) -> list[torch.optim.Optimizer]:
        return [torch.optim.RMSprop(self.parameters(), lr=self.learning_rate, alpha=0.9, eps=1e-7)]

    def _sliced(self, points: Tensor) -> Tensor:
        return torch.cat([points, points.square().sum(1, keepdim=True)], 1) if self.lifted else points


def match_prior(
    model: SWAE,
    images: Tensor,
    *,
    layers: int = 3,
    steps: int = 2500,
    cloud_size: int = 5000,
    learning_rate: float = 4e-3,
) -> list[float]:
    """Fit the encoder's last layers to the prior alone, on clouds that batches are too small for.

    The other layers stay as they are, so what they make of the images is computed once, and a step costs
    little. It minimises the model's latent distance between a random subset of the latents and four times as
    many prior samples, by Adam whose learning rate falls to 0 along a half cosine. The decoder is not
    trained: it has to follow. A progress bar is shown on terminals.

    Args:
        model: its encoder is an `nn.Sequential`; its `prior_generator` draws subsets, samples and directions.
        images: training images (n, 1, s, s).
        layers: how many of the encoder's last modules are trained (default 3: two linear layers with the
            activation between).
        steps: of Adam (default 2500).
        cloud_size: latents a step, at most n (default 5000).
        learning_rate: at the start (default 4e-3).

    Returns:
        The latent distance in each step.

    Raises:
        ValueError: if the encoder is no `nn.Sequential` of more than `layers` modules.
    """
    parts = [*model.encoder] if isinstance(model.encoder, nn.Sequential) else []
    if not 0 < layers < len(parts):
        raise ValueError(
            f"match_prior trains the last modules of an nn.Sequential, layers={layers} of them; the encoder "
            f"is a {type(model.encoder).__name__} of {len(parts)}"
        )
    body, head = nn.Sequential(*parts[:-layers]), nn.Sequential(*parts[-layers:])
    with torch.no_grad():
        features = torch.cat([body(part.to(model.device)) for part in torch.split(images, 1000)])
    return descend(
        head.parameters(),
        lambda rows: model.latent_distance(head(features[rows]), 4 * len(rows)),
        len(features),
        generator=model.prior_generator,
        steps=steps,
        cloud_size=cloud_size,
        learning_rate=learning_rate,
        what="matching the prior",
    )
