"""The Sliced-Wasserstein autoencoder: its terms as published, its latent points where the prior is."""

from __future__ import annotations

import pytest
import torch

from otcore_ae import SWAE, Ring, Uniform
from otcore_ae.history import History
from otcore_ae.models import Step


def step_of(latents: torch.Tensor) -> Step:
    images, decoded = torch.rand(2, len(latents), 1, 4, 4, generator=torch.Generator().manual_seed(3))
    rows = torch.arange(len(latents))
    return Step(images, latents, decoded, rows % 10, rows)


def test_terms_are_those_of_the_paper(tiny_model) -> None:
    model, step = tiny_model(SWAE, prior=Uniform(), n_projections=4000), step_of(torch.rand(30, 2))
    terms = model.terms(step)
    assert set(terms) == model.term_names()
    x, y = step.images, step.reconstructions
    cross_entropy = -(x * y.log() + (1 - x) * (1 - y).log()).mean()
    assert terms["cross_entropy"].item() == pytest.approx(cross_entropy.item(), rel=1e-5)
    assert terms["absolute"].item() == pytest.approx((x - y).abs().mean().item(), rel=1e-5)
    # Sorted projections onto many angles of a grid, which random directions approach.
    sample = Uniform()(30, torch.Generator().manual_seed(0))
    angles = torch.linspace(0, torch.pi, 2001)[:-1]
    directions = torch.stack([angles.cos(), angles.sin()])
    difference = (step.latents @ directions).sort(0).values - (sample @ directions).sort(0).values
    assert terms["latent"].item() == pytest.approx(difference.square().mean().item(), rel=0.1)


def test_directions_are_fresh_in_every_step(tiny_model) -> None:
    class Kept:
        def __call__(self, n: int, generator: torch.Generator | None = None) -> torch.Tensor:
            return torch.zeros(n, 2)

    model, step = tiny_model(SWAE, prior=Kept()), step_of(torch.rand(30, 2))
    assert model.terms(step)["latent"] != model.terms(step)["latent"]


def test_published_settings(tiny_model) -> None:
    model = tiny_model(SWAE)
    (group,) = model.optimisers()[0].param_groups
    assert (group["lr"], group["alpha"], group["eps"]) == (1e-3, 0.9, 1e-7)
    assert model.weight_of("latent") == 10
    assert model.n_projections == 50


def test_latent_points_move_to_the_ring(tiny_model, tiny_data, trainer) -> None:
    model, history = tiny_model(SWAE, prior=Ring(), learning_rate=3e-3), History()
    data = tiny_data(batch_size=60)
    trainer(max_epochs=150, callbacks=[history]).fit(model, data)
    latent = history.curves["train/latent"].values
    assert sum(latent[-10:]) < 0.3 * sum(latent[:10])
    with torch.no_grad():
        radius = model.encode(data.train_set.images).norm(dim=1)
    assert 0.8 < radius.mean() < 1.2
