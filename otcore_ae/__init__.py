"""Generative autoencoders whose latent term is an optimal transport computed by `otcore`.

Names are imported on first use, so that `python -m otcore_ae.demo --help` answers at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from otcore_ae.data import (
        CalorimeterData,
        DigitsData,
        HandwritingStyle,
        MNISTData,
        SyntheticCalorimeterData,
    )
    from otcore_ae.losses import Diversity, LaplacianPyramid, LastLayerL2
    from otcore_ae.metrics import LatentMetrics
    from otcore_ae.models import (
        CWAE,
        E2ESAE,
        SAE,
        SWAE,
        VAE,
        WAEMMD,
        ConditionalDCGAN,
        ConditionalE2ESAE,
        ConditionalVAE,
        ConditionalWAEMMD,
        GenerativeAutoencoder,
        GenerativeModel,
        GlobalSAE,
        MinibatchGlobalSAE,
        match_latents,
        match_prior,
    )
    from otcore_ae.networks import (
        NoiseGenerator,
        Normalise,
        conditional_network,
        dcgan_network,
        e2e_network,
        lenet,
        mlp,
        swae_network,
    )
    from otcore_ae.priors import (
        Bowl,
        Circle,
        Dirichlet,
        Disk,
        Flower,
        GaussianMixture,
        Normal,
        Prior,
        Ring,
        Sphere,
        Uniform,
    )
    from otcore_ae.transport import Transport

_HOME = {
    "Bowl": "otcore_ae.priors",
    "CWAE": "otcore_ae.models",
    "CalorimeterData": "otcore_ae.data",
    "Circle": "otcore_ae.priors",
    "ConditionalDCGAN": "otcore_ae.models",
    "ConditionalE2ESAE": "otcore_ae.models",
    "ConditionalVAE": "otcore_ae.models",
    "ConditionalWAEMMD": "otcore_ae.models",
    "DigitsData": "otcore_ae.data",
    "Dirichlet": "otcore_ae.priors",
    "Disk": "otcore_ae.priors",
    "Diversity": "otcore_ae.losses",
    "E2ESAE": "otcore_ae.models",
    "Flower": "otcore_ae.priors",
    "GaussianMixture": "otcore_ae.priors",
    "GenerativeAutoencoder": "otcore_ae.models",
    "GenerativeModel": "otcore_ae.models",
    "GlobalSAE": "otcore_ae.models",
    "HandwritingStyle": "otcore_ae.data",
    "LaplacianPyramid": "otcore_ae.losses",
    "LastLayerL2": "otcore_ae.losses",
    "LatentMetrics": "otcore_ae.metrics",
    "MNISTData": "otcore_ae.data",
    "MinibatchGlobalSAE": "otcore_ae.models",
    "NoiseGenerator": "otcore_ae.networks",
    "Normal": "otcore_ae.priors",
    "Normalise": "otcore_ae.networks",
    "Prior": "otcore_ae.priors",
    "Ring": "otcore_ae.priors",
    "SAE": "otcore_ae.models",
    "SWAE": "otcore_ae.models",
    "Sphere": "otcore_ae.priors",
    "SyntheticCalorimeterData": "otcore_ae.data",
    "Transport": "otcore_ae.transport",
    "Uniform": "otcore_ae.priors",
    "VAE": "otcore_ae.models",
    "WAEMMD": "otcore_ae.models",
    "conditional_network": "otcore_ae.networks",
    "dcgan_network": "otcore_ae.networks",
    "e2e_network": "otcore_ae.networks",
    "lenet": "otcore_ae.networks",
    "match_latents": "otcore_ae.models",
    "match_prior": "otcore_ae.models",
    "mlp": "otcore_ae.networks",
    "swae_network": "otcore_ae.networks",
}

__all__ = [
    "CWAE",
    "E2ESAE",
    "SAE",
    "SWAE",
    "VAE",
    "WAEMMD",
    "Bowl",
    "CalorimeterData",
    "Circle",
    "ConditionalDCGAN",
    "ConditionalE2ESAE",
    "ConditionalVAE",
    "ConditionalWAEMMD",
    "DigitsData",
    "Dirichlet",
    "Disk",
    "Diversity",
    "Flower",
    "GaussianMixture",
    "GenerativeAutoencoder",
    "GenerativeModel",
    "GlobalSAE",
    "HandwritingStyle",
    "LaplacianPyramid",
    "LastLayerL2",
    "LatentMetrics",
    "MNISTData",
    "MinibatchGlobalSAE",
    "NoiseGenerator",
    "Normal",
    "Normalise",
    "Prior",
    "Ring",
    "Sphere",
    "SyntheticCalorimeterData",
    "Transport",
    "Uniform",
    "conditional_network",
    "dcgan_network",
    "e2e_network",
    "lenet",
    "match_latents",
    "match_prior",
    "mlp",
    "swae_network",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'otcore_ae' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
