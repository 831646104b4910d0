"""FID and the Sinkhorn divergence of features, and the classifier they come from."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch

from otcore_ae.data import MNISTData
from otcore_ae.metrics.generation import GenerationMetrics, frechet_distance
from otcore_ae.metrics.lenet import lenet_features, trained_lenet5
from tests.otcore_ae.mnist import MNIST, needs_mnist


@pytest.mark.parametrize("d", [1, 2, 20])
def test_frechet_distance_against_scipy(d: int) -> None:
    draw = torch.Generator().manual_seed(d)
    x = torch.randn(50, d, generator=draw) @ torch.randn(d, d, generator=draw)
    y = torch.randn(70, d, generator=draw) + 0.3
    s_x, s_y = (np.atleast_2d(np.cov(t.double().numpy().T)) for t in (x, y))
    root = scipy.linalg.sqrtm(s_x @ s_y).real
    means = (x.double().mean(0) - y.double().mean(0)).square().sum().item()
    expected = means + np.trace(s_x + s_y - 2 * root)
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-6)


def test_frechet_distance_of_degenerate_points() -> None:
    """Fewer points than dimensions: singular covariances. A translation costs its square, a copy nothing."""
    x = torch.randn(5, 30)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-5)
    assert frechet_distance(x, x + 2) == pytest.approx(120, rel=1e-5)
    with pytest.raises(ValueError, match="at least 2 points, got 1"):
        frechet_distance(x[:1], x)


def test_features_of_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(n, 1, 28, 28\), got \(3, 1, 8, 8\)"):
        lenet_features(torch.rand(3, 1, 8, 8))


def test_metric_over_batches() -> None:
    images, other = torch.rand(60, 1, 28, 28), torch.rand(50, 1, 28, 28) ** 2
    metric = GenerationMetrics()
    for part in images.split(25):
        metric.update(part, real=True)
    metric.update(other, real=False)
    found = metric.compute()
    assert found["fid"].item() == pytest.approx(
        frechet_distance(lenet_features(images), lenet_features(other)), rel=1e-5
    )
    assert found["feature_sinkhorn"] > 0


@needs_mnist
def test_the_shipped_classifier() -> None:
    """It tells 99 % of the test digits, and the FID of training images is under 1."""
    data = MNISTData(MNIST)
    data.setup()
    with torch.no_grad():
        told = trained_lenet5()(data.test_set.images).argmax(1)
    assert (told == data.test_set.labels).double().mean() > 0.99
    train = lenet_features(data.train_set.images)
    assert frechet_distance(train, lenet_features(data.test_set.images)) < 1
