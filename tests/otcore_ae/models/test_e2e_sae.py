"""The end-to-end Sinkhorn autoencoder: fitting its noise generator alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from otcore_ae import E2ESAE, ConditionalE2ESAE, NoiseGenerator, Transport, match_latents
from otcore_ae.networks import mlp

CLASSES = 3


def model_of(*, conditional: bool) -> E2ESAE:
    torch.manual_seed(0)
    networks, transport = mlp(4, latent_dim=2, hidden=(16, 16)), Transport(blur=0.1)
    if conditional:
        generator = NoiseGenerator(classes=CLASSES, latent_dim=2)
        return ConditionalE2ESAE(
            *networks, generator, classes=CLASSES, condition_scale=3.0, transport=transport
        )
    return E2ESAE(*networks, NoiseGenerator(classes=0, latent_dim=2), transport=transport)


def classed_images() -> tuple[Tensor, Tensor]:
    """Images whose brightness says the class."""
    labels = torch.arange(300) % CLASSES
    noise = torch.rand(300, 1, 4, 4, generator=torch.Generator().manual_seed(5))
    return labels.view(-1, 1, 1, 1) + noise, labels


@pytest.mark.parametrize("conditional", [False, True])
def test_match_latents_moves_the_noise_generator_alone(conditional: bool) -> None:
    model, (images, labels) = model_of(conditional=conditional).train(), classed_images()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    given = labels if conditional else None
    found = match_latents(model, images, given, steps=150, cloud_size=150, learning_rate=5e-3)
    assert len(found) == 150
    assert sum(found[-10:]) < 0.1 * sum(found[:10])  # what subsets of 150 differ by is left
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if name.startswith("noise_generator.")}
    assert model.training
    if conditional:
        # Each class in the place of its own images.
        latents, made = model.encode(images), model.sample_latents(300, labels=labels)
        for label in range(CLASSES):
            assert (made[labels == label].mean(0) - latents[labels == label].mean(0)).norm() < 0.2


def test_match_latents_needs_the_labels_of_a_conditional_model() -> None:
    with pytest.raises(ValueError, match="needs labels"):
        match_latents(model_of(conditional=True), classed_images()[0], steps=2)
