"""The further loss terms, against figures worked out by hand."""

from __future__ import annotations

import pytest
import torch

from otcore_ae import SAE, Diversity, LaplacianPyramid, LastLayerL2
from otcore_ae.models import Step


def step(images: torch.Tensor, reconstructions: torch.Tensor, latents: torch.Tensor | None = None) -> Step:
    rows = torch.arange(len(images))
    return Step(
        images, torch.zeros(len(images), 2) if latents is None else latents, reconstructions, rows, rows
    )


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_a_constant_difference_is_in_the_last_level(levels: int) -> None:
    """A quarter of the pixels a level, at four times the weight: |c| times the number of pixels."""
    images = torch.rand(3, 1, 16, 16)
    loss = LaplacianPyramid(levels)(step(images, images - 0.25))
    assert loss.item() == pytest.approx(0.25 * 16 * 16, rel=1e-5)


def test_fine_detail_is_in_the_first_level() -> None:
    """A checkerboard vanishes when it is blurred: the kernel's even and odd weights are equal."""
    board = (torch.arange(16)[:, None] + torch.arange(16)[None, :]) % 2 * 2.0 - 1
    inside = torch.zeros(1, 1, 16, 16)
    inside[..., 4:12, 4:12] = 0.1 * board[4:12, 4:12]
    loss = LaplacianPyramid(3)(step(inside, torch.zeros_like(inside)))
    assert loss.item() >= 0.1 * 64 * 0.9
    assert loss.item() <= LaplacianPyramid(3)(step(inside.abs(), torch.zeros_like(inside))).item()


def test_diversity_counts_pairs_that_are_alike() -> None:
    latents = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    # cosines: 1 between the first two, .7071 of the last with each, 0 otherwise
    found = Diversity(tau=0.5)(step(torch.zeros(4, 1, 2, 2), torch.zeros(4, 1, 2, 2), latents))
    assert found.item() == pytest.approx(2 * (1 + 3 * 0.5))
    strict = Diversity(tau=0.9)(step(torch.zeros(4, 1, 2, 2), torch.zeros(4, 1, 2, 2), latents))
    assert strict.item() == pytest.approx(2)


def test_last_layer(tiny_model) -> None:
    """Of the part that it names, in the model that takes the step."""
    model = tiny_model(SAE, extra_terms={"encoder": LastLayerL2(), "decoder": LastLayerL2("decoder")})
    images = torch.zeros(1, 1, 4, 4)
    found = model.own_terms(step(images, images))
    for name, layer in (("encoder", model.encoder[-1]), ("decoder", model.decoder[-3])):
        assert isinstance(layer, torch.nn.Linear)
        assert found[name].item() == pytest.approx(0.5 * layer.weight.square().sum().item())
    found["encoder"].backward()
    assert torch.equal(model.encoder[-1].weight.grad, model.encoder[-1].weight)


def test_a_last_layer_that_is_not_there(tiny_model) -> None:
    model, images = tiny_model(SAE), torch.zeros(1, 1, 4, 4)
    model.extra_terms = {"l2": LastLayerL2("generator")}
    with pytest.raises(ValueError, match="SAE has no part 'generator'; there are encoder, decoder"):
        model.own_terms(step(images, images))
    model.extra_terms = {"l2": LastLayerL2("encoder.0")}
    with pytest.raises(ValueError, match=r"'encoder.0', a Flatten, has no linear or convolutional layer"):
        model.own_terms(step(images, images))
    with pytest.raises(ValueError, match="the step has none"):
        LastLayerL2()(step(images, images))
