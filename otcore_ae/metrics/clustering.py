"""How well the labels, unseen in training, separate in the latent space."""

from __future__ import annotations

from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree
from sklearn.metrics.cluster import contingency_matrix
from torch import Tensor

from otcore_ae.priors import Sectors


def local_clustering(latents: Tensor, labels: Tensor, neighbours: int = 10) -> float:
    """Share of points whose nearest neighbours all carry the point's own label; in [0, 1], higher is better.

    The point itself counts as one of its neighbours (Global Sinkhorn Autoencoder paper, section 5.1.1, as in
    the authors' code).

    Args:
        latents: (n, d) points.
        labels: (n,) integers.
        neighbours: how many nearest points to look at, the point itself among them (default 10; at most n).

    Raises:
        ValueError: if there are fewer points than neighbours.
    """
    if len(latents) < neighbours:
        raise ValueError(
            f"local_clustering needs at least neighbours={neighbours} points, got {len(latents)}"
        )
    points = latents.detach().double().cpu().numpy()
    own = labels.cpu().numpy()
    _, nearest = cKDTree(points).query(points, neighbours)
    return float((own[nearest.reshape(len(points), -1)] == own[:, None]).all(axis=1).mean())


def cluster_matching(latents: Tensor, labels: Tensor, sectors: Sectors) -> float:
    """Share of points classified rightly by their sector, under the best assignment of labels to sectors.

    In [0, 1], higher is better. The assignment maximises the count (Hungarian algorithm, scipy); an unmatched
    label or sector counts as wrong (Global Sinkhorn Autoencoder paper, section 5.1.1).

    Args:
        latents: (n, 2) points.
        labels: (n,) integers.
        sectors: the prior's partition of the plane.
    """
    counts = contingency_matrix(labels.cpu().numpy(), sectors.assign(latents.detach().double()).cpu().numpy())
    chosen = linear_sum_assignment(counts, maximize=True)
    return float(counts[chosen].sum() / len(labels))
