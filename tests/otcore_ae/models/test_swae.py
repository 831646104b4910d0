"""The Sliced-Wasserstein autoencoder: its terms as published or chosen, latent points where the prior is."""

from __future__ import annotations

import pytest
import torch

from otcore_ae import SWAE, Ring, Uniform, match_prior
from otcore_ae.data import Batch
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


def test_lifted_distance_slices_by_circles(tiny_model) -> None:
    """Along (v, c) the lifted points project to c |z + v / 2c|^2 and a constant: circles about -v / 2c."""
    model, latents = tiny_model(SWAE, prior=Uniform(), n_projections=4000, lifted=True), torch.rand(30, 2)
    found = model.latent_distance(latents, 30).item()
    sample = Uniform()(30, torch.Generator().manual_seed(0))
    directions = torch.nn.functional.normalize(torch.randn(4000, 3), dim=1)
    centres, scales = -directions[:, :2] / (2 * directions[:, 2:]), directions[:, 2]
    first, second = (scales * torch.cdist(z, centres).square() for z in (latents, sample))
    difference = first.double().sort(0).values - second.double().sort(0).values
    assert found == pytest.approx(difference.square().mean().item(), rel=0.1)


def test_lifted_distance_pulls_what_lies_inside_a_ring(tiny_model) -> None:
    """30 of 3000 points at half the radius hardly change the projections; their radius is wrong."""
    pull = {}
    for lifted in (False, True):
        model = tiny_model(SWAE, prior=Ring(), n_projections=500, lifted=lifted)
        points = Ring()(3000, torch.Generator().manual_seed(4))
        points[:30] *= 0.5
        points.requires_grad_()
        (slope,) = torch.autograd.grad(model.latent_distance(points, 30_000), points)
        pull[lifted] = -(slope * points)[:30].sum().item()
    assert pull[True] > 5 * abs(pull[False])


def test_consistency_is_the_distance_to_the_augmented(tiny_model) -> None:
    def blank(images: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        return torch.zeros_like(images)

    model = tiny_model(SWAE, augmentation=blank, consistency_weight=7.0)
    images = torch.rand(8, 1, 4, 4)
    terms = model.terms(model.step_of(Batch(images, None, torch.arange(8))))
    assert set(terms) == model.term_names() == {"cross_entropy", "absolute", "latent", "consistency"}
    moved = model.encode(images) - model.encode(torch.zeros(1, 1, 4, 4))
    assert terms["consistency"].item() == pytest.approx(moved.square().sum(1).mean().item(), rel=1e-5)
    assert model.weight_of("consistency") == 7


def test_part_of_a_batch_can_be_decoded(tiny_model) -> None:
    model, images = tiny_model(SWAE, decoded=3), torch.rand(8, 1, 4, 4)
    step = model.step_of(Batch(images, None, torch.arange(8)))
    assert torch.equal(step.images, images[:3])
    torch.testing.assert_close(step.latents, model.encode(images))
    torch.testing.assert_close(step.reconstructions, model(images[:3]))
    with pytest.raises(ValueError, match="decoded must be at least 1"):
        tiny_model(SWAE, decoded=0)


def test_match_prior_moves_the_last_layers_alone(tiny_model) -> None:
    model = tiny_model(SWAE, prior=Uniform(), lifted=True)
    images = torch.rand(400, 1, 4, 4, generator=torch.Generator().manual_seed(5))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = match_prior(model, images, layers=3, steps=200, cloud_size=100)
    assert len(found) == 200
    assert sum(found[-10:]) < 0.1 * sum(found[:10])
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    last = {f"encoder.{name}" for name, _ in [*model.encoder.named_parameters()][-4:]}
    assert changed == last


def test_match_prior_needs_a_sequence_of_layers(tiny_model) -> None:
    model, images = tiny_model(SWAE), torch.rand(10, 1, 4, 4)
    with pytest.raises(ValueError, match="layers=50 of them; the encoder is a MLPEncoder of"):
        match_prior(model, images, layers=50)
    model.encoder = torch.nn.Bilinear(4, 4, 2)
    with pytest.raises(ValueError, match="the encoder is a Bilinear of 0"):
        match_prior(model, images)
