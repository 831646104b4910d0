"""Encoders and decoders of the published experiments, for square one-channel images of any size."""

from __future__ import annotations

from otcore_ae.networks.init import kaiming_init
from otcore_ae.networks.lenet import lenet
from otcore_ae.networks.mlp import mlp

__all__ = ["kaiming_init", "lenet", "mlp"]
