"""The ends between which the metrics move, for the sample size at hand."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch
from torch import Tensor

from otcore_ae.metrics.clustering import cluster_matching, local_clustering
from otcore_ae.metrics.coverage import covered_area
from otcore_ae.metrics.transport import global_ot
from otcore_ae.priors import Prior, sectors_of
from otcore_ae.transport import Transport


def references(
    labels: Tensor, prior: Prior, *, transport: Transport | None = None, draws: int = 10, seed: int = 0
) -> dict[str, dict[str, float]]:
    """What the metrics give for a sample of the prior itself, in place of latents, as large as `labels`.

    "floor" of the global OT: two prior samples. "ceiling" of the covered area. "random" of the clustering
    metrics: the given labels, shuffled over the sample. "ideal": each point labelled by its sector of origin
    (a stratified prior only). Means over `draws` samples.

    Args:
        labels: (n,) labels of the evaluation set: their number and their frequencies matter; real ones,
            (n, q), have no clustering metrics.
        prior: the prior.
        transport: settings of the global OT (default `Transport()`).
        draws: samples to average over (default 10).
        seed: seed of those samples (default 0).

    Returns:
        {"global_ot": {"floor": ...}, "local_clustering": {"random": ..., "ideal": ...}, ...}; entries that
        this prior does not allow are left out.
    """
    n = len(labels)
    generator = torch.Generator().manual_seed(seed)
    samples = [prior(n, generator) for _ in range(draws)]
    shuffled = [labels.cpu()[torch.randperm(n, generator=generator)] for _ in range(draws)]

    def mean(value: Callable[[int], float]) -> float:
        return statistics.fmean(value(k) for k in range(draws))

    found = {"global_ot": {"floor": ot_floor(n, prior, transport=transport, draws=draws, seed=seed)}}
    sectors = sectors_of(prior)
    if sectors is not None:
        found["covered_area"] = {"ceiling": mean(lambda k: covered_area(samples[k], sectors))}
    if labels.is_floating_point():
        return found
    found["local_clustering"] = {"random": mean(lambda k: local_clustering(samples[k], shuffled[k]))}
    if sectors is not None:
        found["cluster_matching"] = {
            "random": mean(lambda k: cluster_matching(samples[k], shuffled[k], sectors))
        }
        origin = getattr(prior, "petal_of", None)
        if origin is not None and getattr(prior, "stratified", False):
            found["local_clustering"]["ideal"] = mean(lambda k: local_clustering(samples[k], origin(n)))
            found["cluster_matching"]["ideal"] = mean(
                lambda k: cluster_matching(samples[k], origin(n), sectors)
            )
    return found


def ot_floor(
    n: int, prior: Prior, *, transport: Transport | None = None, draws: int = 10, seed: int = 0
) -> float:
    """Mean S between two samples of the prior with n points each: what even perfect latents score.

    Args:
        n: points in each sample.
        prior: the prior.
        transport: settings of the divergence (default `Transport()`).
        draws: pairs of samples to average over (default 10).
        seed: seed of the samples (default 0).
    """
    generator = torch.Generator().manual_seed(seed)

    def one_pair() -> float:
        return global_ot(prior(n, generator), prior, transport=transport, generator=generator)

    return statistics.fmean(one_pair() for _ in range(draws))
