"""Generative autoencoders whose latent term is an optimal transport computed by `otcore`.

Names are imported on first use, so that `python -m otcore_ae.demo --help` answers at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from otcore_ae.data.digits import DigitsData
    from otcore_ae.data.mnist import MNISTData
    from otcore_ae.metrics.collection import LatentMetrics
    from otcore_ae.models.base import GenerativeAutoencoder
    from otcore_ae.models.global_sae import GlobalSAE, MinibatchGlobalSAE
    from otcore_ae.models.sae import SAE
    from otcore_ae.models.swae import SWAE
    from otcore_ae.networks import lenet, mlp, swae_network
    from otcore_ae.priors import Bowl, Circle, Disk, Flower, Normal, Prior, Ring, Uniform
    from otcore_ae.transport import Transport

_HOME = {
    "Bowl": "otcore_ae.priors",
    "Circle": "otcore_ae.priors",
    "DigitsData": "otcore_ae.data.digits",
    "Disk": "otcore_ae.priors",
    "Flower": "otcore_ae.priors",
    "GenerativeAutoencoder": "otcore_ae.models.base",
    "GlobalSAE": "otcore_ae.models.global_sae",
    "LatentMetrics": "otcore_ae.metrics.collection",
    "MNISTData": "otcore_ae.data.mnist",
    "MinibatchGlobalSAE": "otcore_ae.models.global_sae",
    "Normal": "otcore_ae.priors",
    "Prior": "otcore_ae.priors",
    "Ring": "otcore_ae.priors",
    "SAE": "otcore_ae.models.sae",
    "SWAE": "otcore_ae.models.swae",
    "Transport": "otcore_ae.transport",
    "Uniform": "otcore_ae.priors",
    "lenet": "otcore_ae.networks",
    "mlp": "otcore_ae.networks",
    "swae_network": "otcore_ae.networks",
}

__all__ = [
    "SAE",
    "SWAE",
    "Bowl",
    "Circle",
    "DigitsData",
    "Disk",
    "Flower",
    "GenerativeAutoencoder",
    "GlobalSAE",
    "LatentMetrics",
    "MNISTData",
    "MinibatchGlobalSAE",
    "Normal",
    "Prior",
    "Ring",
    "Transport",
    "Uniform",
    "lenet",
    "mlp",
    "swae_network",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'otcore_ae' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
