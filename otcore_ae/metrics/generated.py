"""Judging what a model makes with the test set's labels against the test set."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torchmetrics import Metric

from otcore_ae.data.module import ImageData
from otcore_ae.metrics.generation import GenerationMetrics
from otcore_ae.models.base import GenerativeModel


def generated_figures(
    metric: Metric, model: GenerativeModel, data: ImageData, *, seed: int, chunk: int = 1000
) -> dict[str, float]:
    """A metric's figures for as many images as the test set has, made with its labels.

    Args:
        metric: has `update(images, real=...)`, and gives figures by name.
        model: in evaluation mode.
        data: set up.
        seed: of the draw.
        chunk: images made at once (default 1000).
    """
    metric.update(data.test_set.images, real=True)
    for images in generated(model, data.test_set.labels, seed=seed, chunk=chunk):
        metric.update(images, real=False)
    return {name: value.item() for name, value in metric.compute().items()}


def generated(model: GenerativeModel, labels: Tensor, *, seed: int, chunk: int = 1000) -> Iterator[Tensor]:
    """An image for each of the labels, in parts of up to `chunk`; see `generated_figures`."""
    draw = torch.Generator().manual_seed(seed)
    for part in torch.split(labels, chunk):
        yield model.sample(len(part), draw, labels=part)


def feature_floors(data: ImageData, *, seed: int) -> dict[str, float]:
    """What as many training images, drawn at random, score by `GenerationMetrics` instead of generated ones.

    Args:
        data: 28 x 28 images, set up.
        seed: of the draw.
    """
    metric, test, draw = GenerationMetrics(), data.test_set, torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(data.train_set.images), generator=draw)[: len(test.images)]
    metric.update(test.images, real=True)
    metric.update(data.train_set.images[chosen], real=False)
    return {name: value.item() for name, value in metric.compute().items()}
