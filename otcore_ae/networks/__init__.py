"""Encoders and decoders of the published experiments, for square one-channel images."""

from __future__ import annotations

from otcore_ae.networks.e2e import (
    ConditionedDecoder,
    ConditionedEncoder,
    ConvDecoder,
    ConvEncoder,
    NoiseGenerator,
    Normalise,
    conditional_network,
    dcgan_network,
    e2e_network,
)
from otcore_ae.networks.init import kaiming_init
from otcore_ae.networks.lenet import LeNetDecoder, LeNetEncoder, lenet
from otcore_ae.networks.mlp import MLPDecoder, MLPEncoder, mlp
from otcore_ae.networks.swae import SWAEDecoder, SWAEEncoder, swae_network

__all__ = [
    "ConditionedDecoder",
    "ConditionedEncoder",
    "ConvDecoder",
    "ConvEncoder",
    "LeNetDecoder",
    "LeNetEncoder",
    "MLPDecoder",
    "MLPEncoder",
    "NoiseGenerator",
    "Normalise",
    "SWAEDecoder",
    "SWAEEncoder",
    "conditional_network",
    "dcgan_network",
    "e2e_network",
    "kaiming_init",
    "lenet",
    "mlp",
    "swae_network",
]
