"""A loader for data that fits in memory: batches by indexing, no workers, an order that can be resumed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor


class ImageSet(NamedTuple):
    """Images (n, 1, s, s) in [0, 1], float32, and their labels: classes (n,) int64, or attributes (n, q)."""

    images: Tensor
    labels: Tensor

    def some_of_each_class(self, n: int) -> ImageSet:
        """The first n images of each class, class by class."""
        rows = [(self.labels == label).nonzero()[:n, 0] for label in self.labels.unique()]
        return ImageSet(self.images[torch.cat(rows)], self.labels[torch.cat(rows)])


class Batch(NamedTuple):
    """Some rows of an `ImageSet`, and `rows` (b,) int64: where in the set they stand."""

    images: Tensor
    labels: Tensor | None
    rows: Tensor


def as_batch(batch: Any) -> Batch:
    """What any loader serves as a `Batch`: one, (images, labels, ...), (images,), or images alone.

    Labels that are missing are None, rows -1: the global models alone need rows, and their own loader.
    """
    if isinstance(batch, Batch):
        return batch
    parts = [batch] if isinstance(batch, Tensor) else [*batch]
    images = parts[0]
    rows = torch.full((len(images),), -1, device=images.device)
    return Batch(images, parts[1] if len(parts) > 1 else None, rows)


class InMemoryLoader:
    """Batches of an `ImageSet`.

    Every iteration is an epoch; the order of epoch e = 0, 1, ... is a function of (`seed`, e) alone.
    `state_dict` and `load_state_dict` follow the protocol by which Lightning saves a loader's position in a
    checkpoint, so training resumes at the very next batch. The epochs are counted here: where `max_steps`
    limits a resumed training, Lightning's own count can be one ahead.

    Args:
        data: the set to serve.
        batch_size: rows in a batch.
        shuffle: a new order each epoch (default), or the stored order.
        drop_last: leave out the last, smaller batch of an epoch (default False).
        seed: seed of the order (default 0).
    """

    def __init__(
        self, data: ImageSet, batch_size: int, *, shuffle: bool = True, drop_last: bool = False, seed: int = 0
    ) -> None:
        if not 1 <= batch_size <= len(data.images):
            raise ValueError(
                f"batch_size must be between 1 and the {len(data.images)} images there are, got {batch_size}"
            )
        self.data = data
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.seed = seed
        self._epoch = 0
        self._position = 0
        self._resuming = False

    def __len__(self) -> int:
        n = len(self.data.images)
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        self._begin()
        order = self._order()
        while self._position < len(self):
            start = self._position * self.batch_size
            rows = order[start : start + self.batch_size]
            self._position += 1
            yield Batch(self.data.images[rows], self.data.labels[rows], rows)

    def _begin(self) -> None:
        """Go to the next epoch, unless this one is untouched or the rest of it is to be resumed."""
        rest = self._resuming and self._position < len(self)
        if self._position > 0 and not rest:
            self._epoch, self._position = self._epoch + 1, 0
        self._resuming = False

    def _order(self) -> Tensor:
        n = len(self.data.images)
        if not self.shuffle:
            return torch.arange(n)
        generator = torch.Generator().manual_seed(_mix(self.seed, self._epoch))
        return torch.randperm(n, generator=generator)

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self._epoch, "position": self._position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._epoch, self._position, self._resuming = state["epoch"], state["position"], True


def _mix(seed: int, epoch: int) -> int:
    """One 63-bit seed for each pair; neighbours get unrelated ones (splitmix64's finaliser)."""
    mask = (1 << 64) - 1
    value = (seed * 0x9E3779B97F4A7C15 + epoch * 0xD1B54A32D192ED03 + 0x8CB92BA72F3D8DD7) & mask
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & mask
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & mask
    return (value ^ (value >> 31)) >> 1
