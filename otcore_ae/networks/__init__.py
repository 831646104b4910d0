"""Encoders and decoders of the published experiments, for square one-channel images."""

from __future__ import annotations

from otcore_ae.networks.e2e import (
    NoiseGenerator,
    Normalise,
    conditional_network,
    dcgan_network,
    e2e_network,
)
from otcore_ae.networks.init import kaiming_init
from otcore_ae.networks.lenet import lenet
from otcore_ae.networks.mlp import mlp
from otcore_ae.networks.swae import swae_network

__all__ = [
    "NoiseGenerator",
    "Normalise",
    "conditional_network",
    "dcgan_network",
    "e2e_network",
    "kaiming_init",
    "lenet",
    "mlp",
    "swae_network",
]
