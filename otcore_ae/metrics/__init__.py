"""The five measures of a generative autoencoder's latent space, and the values they take at their ends."""

from __future__ import annotations

from otcore_ae.metrics.clustering import cluster_matching, local_clustering
from otcore_ae.metrics.collection import METRICS, LatentMetrics, MetricInfo, latent_metrics
from otcore_ae.metrics.coverage import covered_area
from otcore_ae.metrics.references import ot_floor, references
from otcore_ae.metrics.transport import global_ot

__all__ = [
    "METRICS",
    "LatentMetrics",
    "MetricInfo",
    "cluster_matching",
    "covered_area",
    "global_ot",
    "latent_metrics",
    "local_clustering",
    "ot_floor",
    "references",
]
