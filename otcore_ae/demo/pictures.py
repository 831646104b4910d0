"""The demo's pictures."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Generator, Tensor

from otcore_ae import plots
from otcore_ae.data.digits import DigitsData
from otcore_ae.demo.training import GLOBAL, LOCAL, Trained
from otcore_ae.metrics.references import ot_floor
from otcore_ae.models.base import GenerativeAutoencoder
from otcore_ae.priors import Flower

_SHOWN_PRIOR = 4000
_PER_PETAL = 10
_PER_DIGIT = 2


@torch.no_grad()
def draw(
    trained: Mapping[str, Trained],
    data: DigitsData,
    prior: Flower,
    references: Mapping[str, Mapping[str, float]],
    generator: Generator,
) -> dict[str, bytes]:
    """Every picture as PNG content, by file name."""
    models = {name: result.model.eval() for name, result in trained.items()}
    histories = {name: result.history.curves for name, result in trained.items()}
    clouds = {name: _encode_everything(model, data) for name, model in models.items()}
    latents = plots.latent_points(clouds, prior(_SHOWN_PRIOR, generator))
    codes = _by_petal(prior, generator)
    sampled = plots.samples(
        {name: model.decode(codes) for name, model in models.items()},
        columns=_PER_PETAL,
        note="each row comes from one petal of the prior; both models decode the same points",
    )
    shown = data.test_set.some_of_each_class(_PER_DIGIT).images
    decoded = plots.reconstructions(shown, {name: model(shown) for name, model in models.items()})
    curves = plots.loss_curves(
        histories,
        {
            "train/reconstruction": "reconstruction (training)",
            "train/latent": "latent term (training)",
            "val/global_ot": "global OT (test)",
        },
        levels=_levels(data, prior, references["global_ot"]["floor"]),
    )
    figures = {"latent": latents, "samples": sampled, "reconstructions": decoded, "losses": curves}
    return {f"{name}.png": plots.png(figure) for name, figure in figures.items()}


def _levels(data: DigitsData, prior: Flower, test_floor: float) -> dict[str, list[plots.Level]]:
    """What each divergence would be between two samples of the prior: fewer points, higher."""
    batch, cloud = data.batch_size, len(data.train_set.images)
    return {
        "train/latent": [
            plots.Level(ot_floor(batch, prior, draws=20), f"floor for {batch} points", LOCAL),
            plots.Level(ot_floor(cloud, prior, draws=2), f"floor for {cloud} points", GLOBAL),
        ],
        "val/global_ot": [plots.Level(test_floor, f"floor for {len(data.test_set.images)} points")],
    }


def _encode_everything(model: GenerativeAutoencoder, data: DigitsData) -> tuple[Tensor, Tensor]:
    return model.encode(data.test_set.images), data.test_set.labels


def _by_petal(prior: Flower, generator: Generator) -> Tensor:
    """`_PER_PETAL` stratified samples for each petal, ordered by petal."""
    points = prior(prior.petals * _PER_PETAL, generator)
    return points.reshape(_PER_PETAL, prior.petals, prior.dim).transpose(0, 1).reshape(-1, prior.dim)
