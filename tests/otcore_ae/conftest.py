"""What the tests of the autoencoder layer share: tiny data, tiny networks, and a silent Trainer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import lightning as L
import pytest
import torch

from otcore_ae import Flower
from otcore_ae.data import ImageSet
from otcore_ae.data.module import ImageData
from otcore_ae.networks import mlp


class TinyData(ImageData):
    """60 training and 20 test images of 4 x 4 pixels: ten fixed patterns plus noise."""

    def __init__(self, batch_size: int = 20, *, seed: int = 0) -> None:
        super().__init__(batch_size, seed=seed)

    def load(self) -> tuple[ImageSet, ImageSet]:
        generator = torch.Generator().manual_seed(1)
        patterns = torch.rand(10, 1, 4, 4, generator=generator)

        def draw(n: int) -> ImageSet:
            labels = torch.arange(n) % 10
            noise = 0.1 * torch.rand(n, 1, 4, 4, generator=generator)
            return ImageSet(0.9 * patterns[labels] + noise, labels)

        return draw(60), draw(20)


@pytest.fixture
def tiny_data() -> type[TinyData]:
    return TinyData


@pytest.fixture
def tiny_model() -> Callable[..., Any]:
    """Build a model of a class on 4 x 4 images, always from the same initial weights."""

    def build(kind: Callable[..., Any], **options: Any) -> Any:
        torch.manual_seed(0)
        encoder, decoder = mlp(4, latent_dim=2, hidden=(16, 16))
        return kind(encoder, decoder, options.pop("prior", Flower()), **options)

    return build


@pytest.fixture
def trainer() -> Callable[..., L.Trainer]:
    """Build a Trainer that neither logs nor draws anything."""

    def build(**options: Any) -> L.Trainer:
        silent = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        defaults = {"accelerator": "cpu", "num_sanity_val_steps": 0, "enable_checkpointing": False}
        return L.Trainer(**{**silent, **defaults, **options})

    return build


@pytest.fixture(autouse=True)
def quiet_lightning() -> Iterator[None]:
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    yield
    logger.setLevel(level)
