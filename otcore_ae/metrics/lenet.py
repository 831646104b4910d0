"""LeNet-5 trained to tell MNIST's digits: its penultimate features judge generated digits."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

WEIGHTS = Path(__file__).with_name("lenet5.safetensors")
IMAGE_SIZE = 28
FEATURES = 84


class LeNet5(nn.Module):
    """LeCun et al., 1998, with ReLU and max-pooling: logits (n, 10) of images (n, 1, 28, 28) in [0, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *[nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)],
            *[nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()],
            *[nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, FEATURES), nn.ReLU()],
        )
        self.head = nn.Linear(FEATURES, 10)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(images))
        return logits

    def features(self, images: Tensor) -> Tensor:
        """The penultimate features (n, 84).

        Raises:
            ValueError: for images that are not (n, 1, 28, 28).
        """
        if images.shape[1:] != (1, IMAGE_SIZE, IMAGE_SIZE):
            raise ValueError(
                f"LeNet-5 reads images of shape (n, 1, {IMAGE_SIZE}, {IMAGE_SIZE}), got {tuple(images.shape)}"
            )
        found: Tensor = self.body(images)
        return found


@cache
def trained_lenet5() -> LeNet5:
    """The network with the weights that come with the package, which `train_lenet` made."""
    network = LeNet5()
    network.load_state_dict(load_file(WEIGHTS))
    return network.eval().requires_grad_(False)


@torch.no_grad()
def lenet_features(images: Tensor, chunk: int = 1000) -> Tensor:
    """Penultimate features (n, 84) of images (n, 1, 28, 28) in [0, 1], `chunk` at a time."""
    return torch.cat([trained_lenet5().features(part.cpu()) for part in images.split(chunk)])
