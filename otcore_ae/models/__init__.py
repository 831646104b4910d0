"""The autoencoders, as Lightning modules."""

from __future__ import annotations

from otcore_ae.models.base import GenerativeAutoencoder, NonFiniteLossError, Step
from otcore_ae.models.global_sae import GlobalSAE, MinibatchGlobalSAE
from otcore_ae.models.sae import SAE
from otcore_ae.models.swae import SWAE

__all__ = [
    "SAE",
    "SWAE",
    "GenerativeAutoencoder",
    "GlobalSAE",
    "MinibatchGlobalSAE",
    "NonFiniteLossError",
    "Step",
]
