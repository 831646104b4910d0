"""Pictures of a table's trained models, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from matplotlib.figure import Figure
from safetensors.torch import load_file
from torch import Tensor

from otcore_ae import plots
from otcore_ae.artifacts import write_files
from otcore_ae.data.loader import ImageSet
from otcore_ae.data.module import ImageData
from otcore_ae.latents import decoded_lines, in_plane
from otcore_ae.metrics.collection import EVALUATION_SEED
from otcore_ae.models.base import GenerativeAutoencoder, GenerativeModel
from otcore_ae.models.e2e_sae import E2ESAE
from otcore_ae.reproduce.cell import MODEL
from otcore_ae.reproduce.table import Picture, Table

Models = Mapping[str, GenerativeModel]

_POINTS, _MADE = 2000, 500
_PER_CLASS = 2
_LINES, _LINE_STEPS = 8, 9


def draw_pictures(table: Table, data: Path | None, work: Path, results: Path) -> list[Path]:
    """Write the table's pictures into results/<table>/, of the systems of seed 0 that were run to their ends.

    Returns:
        Their paths; those of which no trained model is at hand are not drawn.
    """
    trained = [
        (cell.system, weights)
        for cell in table.cells()
        if not cell.seed
        and cell.system.steps is None
        and (weights := work / table.name / cell.name / MODEL).exists()
    ]
    if not trained or not table.pictures:
        return []
    loaded = table.load(data, 0)
    loaded.setup()
    models: dict[str, GenerativeModel] = {}
    for system, weights in trained:
        with torch.random.fork_rng():
            model = system.build(loaded, 0)
        model.load_state_dict(load_file(weights))
        models[system.title] = model.eval()
    written: list[Path] = []
    for picture in table.pictures:
        with torch.no_grad():
            figure = picture.draw(models, loaded)
        if figure is not None:
            written += write_files(results / table.name, {picture.file: plots.png(figure)})
    return written


def latent_points(models: Models, data: ImageData) -> Figure | None:
    """Latents in the plane of 2000 test images, over the prior."""
    images, labels = data.test_set.images[:_POINTS], data.test_set.labels[:_POINTS]
    clouds, sample = {}, None
    for name, model in models.items():
        if isinstance(model, GenerativeAutoencoder) and model.prior is not None:
            latents = model.encode(images, labels)
            if latents.shape[1] == 2:
                clouds[name] = (latents, labels)
                sample = model.prior(2 * _POINTS, torch.Generator().manual_seed(EVALUATION_SEED))
    if sample is None:
        return None
    return plots.latent_points(clouds, sample)


def generated_classes(models: Models, data: ImageData) -> Figure:
    """Two images of each class: test images, and below them what each model makes."""
    shown = data.test_set.some_of_each_class(_PER_CLASS)
    made = {name: made_with(model, shown.labels) for name, model in models.items()}
    return plots.rows(
        {"test images": shown.images, **made}, title="Test images, and generated ones of the same classes"
    )


def embedding(models: Models, data: ImageData) -> Figure | None:
    """Latents of 2000 test images and, over them, 500 made from noise for such classes: t-SNE."""
    images, labels = data.test_set.images[:_POINTS], data.test_set.labels[:_POINTS]
    clouds = {}
    for name, model in _end_to_end(models).items():
        draw = torch.Generator().manual_seed(EVALUATION_SEED)
        made = model.sample_latents(len(labels[:_MADE]), draw, labels=labels[:_MADE])
        encoded, drawn = in_plane(model.encode(images, labels), made)
        clouds[name] = ((encoded, labels), (drawn, labels[:_MADE]))
    title = "Test images, and noise over them: t-SNE of latents"
    return plots.encoded_and_made(clouds, title=title) if clouds else None


def interpolations(models: Models, data: ImageData) -> Figure | None:
    """Straight lines between the latents of two test images, which stand at the ends."""
    ends = ImageSet(data.test_set.images[: 2 * _LINES], data.test_set.labels[: 2 * _LINES])
    pictures = {}
    for name, model in _end_to_end(models).items():
        lines = decoded_lines(model, ends, _LINE_STEPS)
        pictures[name] = torch.cat([ends.images[::2, None], lines, ends.images[1::2, None]], 1).flatten(0, 1)
    title = "Straight lines in the latent space"
    note = "at the ends of a row: the two test images themselves"
    return plots.samples(pictures, columns=_LINE_STEPS + 2, title=title, note=note) if pictures else None


def made_with(model: GenerativeModel, labels: Tensor) -> Tensor:
    """An image for each of the labels, always the same ones."""
    return model.sample(len(labels), torch.Generator().manual_seed(EVALUATION_SEED), labels=labels)


def _end_to_end(models: Models) -> dict[str, E2ESAE]:
    return {name: model for name, model in models.items() if isinstance(model, E2ESAE)}


LATENT = Picture("latent", "latent points over the prior", latent_points)
GENERATED = Picture("generated", "test images, and generated ones of the same classes", generated_classes)
EMBEDDING = Picture("embedding", "t-SNE of latents: test images, and over them noise", embedding)
INTERPOLATIONS = Picture(
    "interpolations", "decoded straight lines between the latents of test images", interpolations
)
