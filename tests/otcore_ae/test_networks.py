"""Shapes, sizes and initial weights of the networks."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from otcore_ae.networks import lenet, mlp, swae_network


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("build", [mlp, lenet, swae_network])
@pytest.mark.parametrize("size", [8, 12, 16, 20, 28])
@pytest.mark.parametrize("latent_dim", [2, 5])
def test_round_trip_keeps_the_shape(build, size: int, latent_dim: int) -> None:
    encoder, decoder = build(size, latent_dim)
    images = torch.rand(3, 1, size, size)
    latents = encoder(images)
    decoded = decoder(latents)
    assert latents.shape == (3, latent_dim)
    assert decoded.shape == images.shape
    assert 0 <= decoded.min() <= decoded.max() <= 1


def test_published_sizes() -> None:
    layers = [(784, 256), (256, 256), (256, 256), (256, 2)]
    encoder, decoder = mlp(28)
    assert parameters(encoder) == sum(i * o + o for i, o in layers)
    assert parameters(decoder) == sum(i * o + i for i, o in layers)
    encoder, decoder = lenet(28)
    dense = 400 * 120 + 120 * 84 + 84 * 2
    assert parameters(encoder) == 6 * 26 + 16 * 151 + dense + 120 + 84 + 2
    assert parameters(decoder) == dense + 84 + 120 + 400 + (16 * 6 * 25 + 6) + (6 * 25 + 1)
    assert [parameters(network) for network in swae_network(28)] == [203_250, 308_193]


@pytest.mark.parametrize("build", [mlp, lenet])
def test_initial_weights(build) -> None:
    torch.manual_seed(0)
    for module in build(28):
        for layer in module.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d) and layer.weight.numel() > 2000:
                fan_in = layer.weight[0].numel()
                assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / fan_in), rel=0.1)
                assert not layer.bias.any()
            if isinstance(layer, nn.ConvTranspose2d):
                assert layer.bias.any()


def test_initial_weights_of_swae_networks() -> None:
    torch.manual_seed(0)
    for module in swae_network(28):
        for layer in module.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                around = layer.weight[0][0].numel()
                fans = around * (layer.weight.shape[0] + layer.weight.shape[1])
                assert layer.weight.abs().max().item() <= math.sqrt(6 / fans)
                assert not layer.bias.any()


@pytest.mark.parametrize("build", [lenet, swae_network])
@pytest.mark.parametrize("size", [0, 3, 30])
def test_sizes_that_cannot_be_mirrored_are_refused(build, size: int) -> None:
    with pytest.raises(ValueError, match=f"multiple of 4, got {size}"):
        build(size)
