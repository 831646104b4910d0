"""The latent spaces of a table's first seed, side by side."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from otcore_ae import plots
from otcore_ae.artifacts import write_files
from otcore_ae.metrics.collection import EVALUATION_SEED
from otcore_ae.models.base import GenerativeAutoencoder
from otcore_ae.reproduce.cell import MODEL
from otcore_ae.reproduce.table import Table

LATENT = "latent.png"
_POINTS = 2000


@torch.no_grad()
def draw_latents(table: Table, data: Path | None, work: Path, results: Path) -> Path | None:
    """Write results/<table>/latent.png: 2000 test images of each system of seed 0 that was run to its end.

    Nothing is drawn, and None returned, where there is no trained model with latents in the plane at hand.
    """
    loaded = table.load(data, 0)
    loaded.setup()
    images, labels = loaded.test_set.images[:_POINTS], loaded.test_set.labels[:_POINTS]
    clouds, sample = {}, None
    for cell in table.cells():
        weights = work / table.name / cell.name / MODEL
        if cell.seed or cell.system.steps or not weights.exists():
            continue
        with torch.random.fork_rng():
            model = cell.system.build(loaded, 0)
        if not isinstance(model, GenerativeAutoencoder) or model.prior is None:
            continue
        model.load_state_dict(load_file(weights))
        latents = model.eval().encode(images, labels)
        if latents.shape[1] == 2:
            clouds[cell.system.title] = (latents, labels)
            sample = model.prior(2 * _POINTS, torch.Generator().manual_seed(EVALUATION_SEED))
    if sample is None:
        return None
    figure = plots.latent_points(clouds, sample, title=f"{table.title}: latent points over the prior")
    write_files(results / table.name, {LATENT: plots.png(figure)})
    return results / table.name / LATENT
