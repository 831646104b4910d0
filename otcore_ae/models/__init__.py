"""The generative models, as Lightning modules."""

from __future__ import annotations

from otcore_ae.models.base import GenerativeAutoencoder, GenerativeModel, NonFiniteLossError, Step
from otcore_ae.models.dcgan import ConditionalDCGAN
from otcore_ae.models.e2e_sae import E2ESAE, ConditionalE2ESAE, match_latents
from otcore_ae.models.global_sae import GlobalSAE, MinibatchGlobalSAE
from otcore_ae.models.sae import SAE
from otcore_ae.models.swae import SWAE, match_prior
from otcore_ae.models.vae import VAE, ConditionalVAE
from otcore_ae.models.wae import CWAE, WAEMMD, ConditionalWAEMMD

__all__ = [
    "CWAE",
    "E2ESAE",
    "SAE",
    "SWAE",
    "VAE",
    "WAEMMD",
    "ConditionalDCGAN",
    "ConditionalE2ESAE",
    "ConditionalVAE",
    "ConditionalWAEMMD",
    "GenerativeAutoencoder",
    "GenerativeModel",
    "GlobalSAE",
    "MinibatchGlobalSAE",
    "NonFiniteLossError",
    "Step",
    "match_latents",
    "match_prior",
]
