"""How generated images compare with real ones, by features of a classifier."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from otcore import sinkhorn_divergence
from otcore_ae.metrics.lenet import lenet_features

FEATURE_BLUR = 1.0  # in units of the features, whose clouds are some tens wide


def frechet_distance(x: Tensor, y: Tensor) -> float:
    """|m_x - m_y|^2 + tr(S_x + S_y - 2 (S_x S_y)^(1/2)) of (n, d) and (m, d) points' means and covariances.

    The squared 2-Wasserstein distance of the Gaussians with these moments; on a network's features, the
    Frechet inception distance (Heusel et al., 2017). In float64.

    Raises:
        ValueError: for fewer than two points.
    """
    if min(len(x), len(y)) < 2:
        raise ValueError(f"a covariance needs at least 2 points, got {min(len(x), len(y))}")
    x, y = x.double(), y.double()
    s_x, s_y = torch.atleast_2d(x.T.cov()), torch.atleast_2d(y.T.cov())
    values, vectors = torch.linalg.eigh(s_x)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ s_y @ root).clamp_min(0).sqrt().sum()
    distance = (x.mean(0) - y.mean(0)).square().sum() + s_x.trace() + s_y.trace() - 2 * cross
    return distance.clamp_min(0).item()


def feature_sinkhorn(x: Tensor, y: Tensor, blur: float = FEATURE_BLUR) -> float:
    """The Sinkhorn divergence of (n, d) and (m, d) features, cost |x - y|^2 / 2, to a marginal error of 1e-2.

    Args:
        x, y: features.
        blur: in their units (default 1).
    """
    return float(sinkhorn_divergence(x.float(), y.float(), blur=blur))


class GenerationMetrics(Metric):
    """FID and Sinkhorn divergence of generated digits, by LeNet-5 features of 28 x 28 images in [0, 1].

    `update(images, real=...)`, then `compute()` gives {"fid": ..., "feature_sinkhorn": ...}.
    """

    full_state_update = False
    real: list[Tensor]
    generated: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("real", default=[], dist_reduce_fx="cat")
        self.add_state("generated", default=[], dist_reduce_fx="cat")

    def update(self, images: Tensor, *, real: bool) -> None:
        (self.real if real else self.generated).append(lenet_features(images))

    def compute(self) -> dict[str, Tensor]:
        real, generated = dim_zero_cat(self.real), dim_zero_cat(self.generated)
        return {
            "fid": torch.tensor(frechet_distance(real, generated)),
            "feature_sinkhorn": torch.tensor(feature_sinkhorn(real, generated)),
        }
