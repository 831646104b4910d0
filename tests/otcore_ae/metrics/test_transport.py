"""Global OT against closed forms of the debiased divergence, and the references against published ones."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from otcore_ae.metrics import METRICS, LatentMetrics, global_ot, latent_metrics, ot_floor, references
from otcore_ae.priors import Flower, Normal
from otcore_ae.transport import Transport


def test_between_two_single_places_it_is_half_the_squared_distance() -> None:
    def prior(n: int, generator: torch.Generator | None = None) -> Tensor:
        return torch.tensor([[1.0, 2.0]]).repeat(n, 1)

    assert global_ot(torch.zeros(30, 2), prior) == pytest.approx(2.5, rel=1e-3)


def test_a_shift_costs_half_its_square() -> None:
    points = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    shift = torch.tensor([0.6, -0.8])
    value = global_ot(points, lambda n, generator=None: points + shift, transport=Transport(tol=1e-4))
    assert value == pytest.approx(0.5, rel=5e-3)


def test_draws_are_averaged_and_seeded() -> None:
    latents = Normal()(50, torch.Generator().manual_seed(1))
    one_by_one = torch.Generator().manual_seed(2)
    single = [global_ot(latents, Flower(), generator=one_by_one) for _ in range(3)]
    together = global_ot(latents, Flower(), draws=3, generator=torch.Generator().manual_seed(2))
    assert together == pytest.approx(sum(single) / 3)


def test_published_floor_at_batch_size() -> None:
    """.155 is GeomLoss's value, whose schedule stops short of convergence; the converged one is higher."""
    published = ot_floor(100, Flower(), transport=Transport(schedule="geomloss"), draws=40)
    assert published == pytest.approx(0.155, abs=0.015)
    assert 1.2 * published < ot_floor(100, Flower(), draws=40) < 1.5 * published


def test_references_say_what_the_metrics_give_for_the_prior_itself() -> None:
    labels = torch.arange(200) % 10
    ends = references(labels, Flower(), draws=4)
    assert set(ends) == set(METRICS) - {"reconstruction"}
    assert ends["global_ot"]["floor"] < global_ot(0.5 * Flower()(200), Flower())
    assert ends["local_clustering"]["random"] < 0.02 < 0.8 < ends["local_clustering"]["ideal"] <= 1
    assert ends["cluster_matching"]["random"] < 0.3 < 0.97 < ends["cluster_matching"]["ideal"] <= 1
    assert 0.85 < ends["covered_area"]["ceiling"] < 1


def test_a_prior_without_sectors_has_fewer_metrics() -> None:
    labels = torch.arange(40) % 10
    assert set(references(labels, Normal(), draws=2)) == {"global_ot", "local_clustering"}
    assert set(latent_metrics(Normal()(40), labels, Normal())) == {"global_ot", "local_clustering"}


def test_the_metric_object_sees_all_batches() -> None:
    latents, labels = Flower()(80, torch.Generator().manual_seed(0)), torch.arange(80) % 7
    metric = LatentMetrics(Flower())
    for part in range(0, 80, 30):
        metric.update(latents[part : part + 30], labels[part : part + 30])
    found = {name: value.item() for name, value in metric.compute().items()}
    assert found == pytest.approx(latent_metrics(latents, labels, Flower()))
    metric.reset()
    assert metric.latents == []
