"""The latent metrics together, as one torchmetrics metric."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from otcore_ae.metrics.clustering import cluster_matching, local_clustering
from otcore_ae.metrics.coverage import covered_area
from otcore_ae.metrics.transport import global_ot
from otcore_ae.priors import Prior, sectors_of
from otcore_ae.transport import Transport

EVALUATION_SEED = 7
Evaluation = Transport | Mapping[str, Transport]


class MetricInfo(NamedTuple):
    """What a metric is called in tables, and whether lower or higher is better."""

    title: str
    better: str


METRICS = {
    "global_ot": MetricInfo("global OT", "lower"),
    "reconstruction": MetricInfo("reconstruction (MSE)", "lower"),
    "local_clustering": MetricInfo("local clustering", "higher"),
    "cluster_matching": MetricInfo("cluster matching", "higher"),
    "covered_area": MetricInfo("covered area", "higher"),
}


def latent_metrics(
    latents: Tensor,
    labels: Tensor,
    prior: Prior,
    *,
    transport: Evaluation | None = None,
    prior_draws: int = 1,
    seed: int = EVALUATION_SEED,
) -> dict[str, float]:
    """Every metric that this prior and these labels allow, by name.

    Cluster matching and covered area need the prior's `sectors`; the clustering metrics, labels that are
    classes.

    Args:
        latents: (n, d) points.
        labels: (n,) integers; real ones, (n, q), are not classes.
        prior: the prior they should follow.
        transport: settings of the global OT (default `Transport()`), or several by the metrics' names.
        prior_draws: prior samples that the global OT averages over (default 1).
        seed: seed of those samples (default 7), so that evaluations compare with the same ones.
    """
    several = transport if isinstance(transport, Mapping) else {"global_ot": transport}
    values = {
        name: global_ot(
            latents,
            prior,
            transport=one,
            draws=prior_draws,
            generator=torch.Generator().manual_seed(seed),
        )
        for name, one in several.items()
    }
    sectors, classes = sectors_of(prior), not labels.is_floating_point()
    if classes:
        values["local_clustering"] = local_clustering(latents, labels)
    if classes and sectors is not None:
        values["cluster_matching"] = cluster_matching(latents, labels, sectors)
    if sectors is not None:
        values["covered_area"] = covered_area(latents, sectors)
    return values


class LatentMetrics(Metric):
    """`latent_metrics` over all batches of an evaluation: `update(latents, labels)`, then `compute()`."""

    full_state_update = False
    latents: list[Tensor]
    labels: list[Tensor]

    def __init__(
        self,
        prior: Prior,
        *,
        transport: Evaluation | None = None,
        prior_draws: int = 1,
        seed: int = EVALUATION_SEED,
    ) -> None:
        super().__init__()
        self.prior = prior
        self.transport = transport
        self.prior_draws = prior_draws
        self.seed = seed
        self.add_state("latents", default=[], dist_reduce_fx="cat")
        self.add_state("labels", default=[], dist_reduce_fx="cat")

    def update(self, latents: Tensor, labels: Tensor) -> None:
        self.latents.append(latents.detach())
        self.labels.append(labels)

    def compute(self) -> dict[str, Tensor]:
        values = latent_metrics(
            dim_zero_cat(self.latents),
            dim_zero_cat(self.labels),
            self.prior,
            transport=self.transport,
            prior_draws=self.prior_draws,
            seed=self.seed,
        )
        return {name: torch.tensor(value) for name, value in values.items()}
