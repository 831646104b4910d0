"""Latents of a trained autoencoder: of images, in the plane, and decoded on the lines between them."""

from __future__ import annotations

import torch
from sklearn.manifold import TSNE
from torch import Tensor

from otcore_ae.data.loader import ImageSet
from otcore_ae.models.base import GenerativeAutoencoder

_CHUNK = 1000


@torch.no_grad()
def encoded(model: GenerativeAutoencoder, images: ImageSet) -> Tensor:
    """Latents (n, d) of images, a chunk at a time."""
    parts = zip(torch.split(images.images, _CHUNK), torch.split(images.labels, _CHUNK), strict=True)
    return torch.cat([model.encode(pictures, labels) for pictures, labels in parts])


def in_plane(*clouds: Tensor, seed: int = 0) -> tuple[Tensor, ...]:
    """Clouds (n_k, d) as points (n_k, 2): as they are for d = 2, otherwise by one t-SNE of all together."""
    if clouds[0].shape[1] == 2:
        return clouds
    together = TSNE(random_state=seed, init="pca").fit_transform(torch.cat(clouds).numpy())
    return torch.split(torch.from_numpy(together), [len(cloud) for cloud in clouds])


@torch.no_grad()
def decoded_lines(model: GenerativeAutoencoder, ends: ImageSet, steps: int = 10) -> Tensor:
    """Images (n, steps, 1, s, s) on straight lines between the latents of 2 n images, taken two by two.

    Args:
        model: in evaluation mode; one that decodes conditions is told those of a line's first end.
        ends: the images.
        steps: images on a line, its ends included (default 10).

    Raises:
        ValueError: for fewer than 2 steps.
    """
    if steps < 2:
        raise ValueError(f"a line has at least 2 steps, its ends; got {steps}")
    latents = encoded(model, ends)
    share = torch.linspace(0, 1, steps)[None, :, None]
    lines = torch.lerp(latents[::2, None], latents[1::2, None], share)
    labels = ends.labels[::2].repeat_interleave(steps, 0)
    decoded = model.decode(lines.flatten(0, 1), labels)
    return decoded.reshape(-1, steps, *decoded.shape[1:])
