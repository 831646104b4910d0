"""How far the latent points are from the prior, in transport."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from otcore_ae.priors import Prior
from otcore_ae.transport import Transport


@torch.no_grad()
def global_ot(
    latents: Tensor,
    prior: Prior,
    *,
    transport: Transport | None = None,
    draws: int = 1,
    generator: Generator | None = None,
) -> float:
    """S(latents, prior sample of the same size), in squared latent units / 2; lower is better.

    Even latents drawn from the prior itself do not reach 0: compare with the floor that `references`
    computes.

    Args:
        latents: (n, d) points, usually those of a whole test set.
        prior: what to compare with.
        transport: settings of the divergence (default `Transport()`).
        draws: number of prior samples to average over (default 1; a few steady the value for n under about
            1000).
        generator: CPU generator of the prior samples.
    """
    transport = transport or Transport()
    latents = latents.detach()
    samples = [prior(len(latents), generator).to(latents) for _ in range(draws)]
    return sum(float(transport(latents, sample)) for sample in samples) / draws
