"""Labels as the vectors that conditional models read."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def condition_vectors(labels: Tensor | None, size: int) -> Tensor:
    """(b, size) float32: the one-hot vectors of integer labels (b,), or real labels (b, size) as they are.

    Raises:
        ValueError: if there are no labels, or they do not fit `size`.
    """
    if labels is None:
        raise ValueError(
            f"a conditional model needs labels: (b,) integers below {size} or (b, {size}) numbers"
        )
    if labels.is_floating_point():
        if labels.ndim != 2 or labels.shape[1] != size:
            raise ValueError(f"real labels must be (b, {size}), got {tuple(labels.shape)}")
        return labels.float()
    if labels.ndim != 1:
        raise ValueError(f"integer labels must be (b,), got {tuple(labels.shape)}")
    if len(labels) and not (int(labels.min()) >= 0 and int(labels.max()) < size):
        raise ValueError(
            f"integer labels must be from 0 to {size - 1} for {size} classes, got {int(labels.min())} to "
            f"{int(labels.max())}; give classes={int(labels.max()) + 1}"
        )
    return nn.functional.one_hot(labels, size).to(torch.float32)
