"""What `otcore-ae` does with a run folder: plain functions that write files and return what they found."""

from __future__ import annotations

import json
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import lightning as L
import numpy as np
import torch
from matplotlib.figure import Figure

from otcore_ae import plots
from otcore_ae.artifacts import prepare_folder, write_files
from otcore_ae.data.calorimeter import CalorimeterData, SyntheticCalorimeterData
from otcore_ae.data.loader import ImageSet
from otcore_ae.data.module import ImageData
from otcore_ae.latents import decoded_lines, encoded, in_plane
from otcore_ae.metrics.calorimeter import CalorimeterMetrics
from otcore_ae.metrics.generated import feature_floors, generated_figures
from otcore_ae.metrics.generation import GenerationMetrics
from otcore_ae.metrics.lenet import IMAGE_SIZE
from otcore_ae.metrics.references import ot_floor, references
from otcore_ae.models.base import GenerativeAutoencoder
from otcore_ae.runs import RunError, load_data, load_run
from otcore_ae.training import quiet_lightning

_TSNE_POINTS = 2000
_COLUMNS = 10


def evaluate(run: Path, data: Path | None = None, *, seed: int = 0) -> dict[str, dict[str, float]]:
    """Measure a run on its test set; writes evaluation.json into its folder.

    Args:
        run: the run folder.
        data: another folder for its data.
        seed: of generated images.

    Returns:
        {metric: {"value": ..., "floor": ..., ...}}: every metric that the model allows, with its ends. Images
        of 28 x 28 pixels also get FID and Sinkhorn of features: of as many images, made with the test set's
        labels.
    """
    loaded = load_run(run)
    model, images = loaded.model, load_data(loaded, data)
    found: dict[str, dict[str, float]] = {}
    if isinstance(model, GenerativeAutoencoder):
        with quiet_lightning():
            trainer = L.Trainer(
                accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False
            )
            (values,) = trainer.test(model, images, verbose=False)
        ends = _ends(model, images)
        for name, value in values.items():
            metric = name.removeprefix("test/")
            found[metric] = {"value": value, **ends.get(metric, {})}
    if images.image_size == IMAGE_SIZE:
        floors = feature_floors(images, seed=seed)
        for name, value in generated_figures(GenerationMetrics(), model.eval(), images, seed=seed).items():
            found[name] = {"value": value, "floor": floors[name]}
    if isinstance(images, CalorimeterData | SyntheticCalorimeterData):
        metric = CalorimeterMetrics(images.scaling.to_counts)
        for name, value in generated_figures(metric, model.eval(), images, seed=seed).items():
            found[name] = {"value": value}
    write_files(run, {"evaluation.json": (json.dumps(found, indent=2) + "\n").encode()})
    return found


def sample(
    run: Path, n: int = 100, *, labels: list[int] | None = None, data: Path | None = None, seed: int = 0
) -> Path:
    """Make images; writes samples.npy (n, s, s), in [0, 1], and samples.png into the run's folder.

    Args:
        run: the run folder.
        n: how many (default 100).
        labels: of a conditional model, repeated up to n (default 0, 1, ..., one for each class; where the
            data's labels are attributes, those of the first n test images).
        data: another folder for the data.
        seed: of the draw (default 0).

    Returns:
        The picture's path.
    """
    loaded = load_run(run)
    model = loaded.model
    classes = getattr(model, "classes", None)
    conditions = None
    if classes is not None:
        own = None if loaded.data is None else load_data(loaded, data).test_set.labels
        attributes = own is not None and own.is_floating_point()
        if attributes and labels is not None:
            raise RunError("the run's labels are attributes, not classes: it cannot be told classes to make")
        conditions = own if attributes and own is not None else torch.tensor(labels or list(range(classes)))
        conditions = conditions.repeat(-(-n // len(conditions)), *[1] * (conditions.ndim - 1))[:n]
    elif labels is not None:
        raise RunError(f"{type(model).__name__} is not conditional: it cannot be told which labels to make")
    images = model.sample(n, torch.Generator().manual_seed(seed), labels=conditions)
    picture = plots.samples({type(model).__name__: images}, columns=_COLUMNS, title="Samples")
    return _written(run, "samples", images.squeeze(1).numpy(), picture)


def embed(run: Path, data: Path | None = None, *, seed: int = 0) -> Path:
    """Encode the test set; writes latents.npy (n, d), labels.npy (n,) and latents.png into the run's folder.

    The picture shows them over a sample of what the model draws latents from; with more than two dimensions,
    2000 of each by t-SNE.

    Returns:
        The picture's path.
    """
    model, images = _autoencoder(run, data, "embed")
    latents = encoded(model, images.test_set)
    labels = images.test_set.labels
    classes = torch.zeros(len(labels), dtype=torch.int64) if labels.is_floating_point() else labels
    if latents.shape[1] == 1:
        raise RunError("latents of one dimension have no picture")
    shown = slice(0, len(latents) if latents.shape[1] == 2 else _TSNE_POINTS)
    conditions = labels[shown] if hasattr(model, "classes") else None
    draw = torch.Generator().manual_seed(seed)
    made = model.sample_latents(len(labels[shown]), draw, labels=conditions)
    points, drawn = in_plane(latents[shown], made, seed=seed)
    title = "Latent points over what is sampled"
    if latents.shape[1] > 2:
        title = f"{title}: t-SNE of {latents.shape[1]} dimensions"
    figure = plots.latent_points(
        {type(model).__name__: (points, classes[shown])},
        drawn,
        title=title,
        sampled="noise generator" if model.prior is None else "prior",
    )
    write_files(run, {"labels.npy": _npy(labels.numpy())})
    return _written(run, "latents", latents.numpy(), figure)


def reconstruct(run: Path, data: Path | None = None, *, n: int = 20) -> Path:
    """Encode and decode the first n test images; writes reconstructions.npy and .png into the run's folder.

    Returns:
        The picture's path.
    """
    model, images = _autoencoder(run, data, "reconstruct")
    originals, labels = images.test_set.images[:n], images.test_set.labels[:n]
    with torch.no_grad():
        decoded = model(originals, labels)
    figure = plots.reconstructions(originals, {type(model).__name__: decoded})
    return _written(run, "reconstructions", decoded.squeeze(1).numpy(), figure)


def interpolate(run: Path, data: Path | None = None, *, pairs: int = 8, steps: int = 10) -> Path:
    """Decode straight lines between latents of test images; writes interpolations.npy and .png.

    Args:
        run: the run folder.
        data: another folder for its data.
        pairs: lines, a row each (default 8): between the first images of the test set, two by two.
        steps: images on a line, its ends included (default 10).

    Returns:
        The picture's path.
    """
    model, images = _autoencoder(run, data, "interpolate")
    ends = ImageSet(images.test_set.images[: 2 * pairs], images.test_set.labels[: 2 * pairs])
    decoded = decoded_lines(model, ends, steps).flatten(0, 1)
    figure = plots.samples(
        {type(model).__name__: decoded}, columns=steps, title="Straight lines in the latent space"
    )
    return _written(run, "interpolations", decoded.squeeze(1).numpy(), figure)


def _autoencoder(run: Path, data: Path | None, verb: str) -> tuple[GenerativeAutoencoder, ImageData]:
    loaded = load_run(run)
    if not isinstance(loaded.model, GenerativeAutoencoder):
        raise RunError(f"{type(loaded.model).__name__} has no encoder: it cannot {verb}")
    return loaded.model, load_data(loaded, data)


def _ends(model: GenerativeAutoencoder, images: ImageData) -> dict[str, dict[str, float]]:
    """The metrics' ends, under the model's own settings of the transport."""
    if model.prior is None or model.latent_metrics is None:
        return {}
    labels, asked = images.test_set.labels, model.latent_metrics.transport
    several = asked if isinstance(asked, Mapping) else {"global_ot": asked}
    ends = references(labels, model.prior, transport=several.get("global_ot"))
    rest = {name: one for name, one in several.items() if name not in ends}
    floors = {name: ot_floor(len(labels), model.prior, transport=one) for name, one in rest.items()}
    return ends | {name: {"floor": floor} for name, floor in floors.items()}


def _written(run: Path, name: str, values: np.ndarray, figure: Figure) -> Path:
    write_files(prepare_folder(run), {f"{name}.npy": _npy(values), f"{name}.png": plots.png(figure)})
    return run / f"{name}.png"


def _npy(values: np.ndarray) -> bytes:
    stream = BytesIO()
    np.save(stream, values, allow_pickle=False)
    return stream.getvalue()
