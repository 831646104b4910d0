"""What the data modules have in common."""

from __future__ import annotations

import lightning as L

from otcore_ae.data.loader import ImageSet, InMemoryLoader


class ImageData(L.LightningDataModule):
    """A training and a test set of images in memory; validation uses the test set.

    A subclass fills `train_set` and `test_set` in `load`, which is called once.

    Args:
        batch_size: training rows a step (default 100, as published).
        eval_batch_size: rows a step when evaluating (default 1000).
        drop_last: leave out a last training batch smaller than `batch_size` (default True: a smaller batch
            makes a biased minibatch divergence; every row still comes up in other epochs).
        seed: seed of the training order (default 0).
    """

    train_set: ImageSet
    test_set: ImageSet

    def __init__(
        self, batch_size: int = 100, *, eval_batch_size: int = 1000, drop_last: bool = True, seed: int = 0
    ) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.drop_last = drop_last
        self.seed = seed
        self._loaded = False

    def load(self) -> tuple[ImageSet, ImageSet]:
        """Read the training and the test set."""
        raise NotImplementedError

    def setup(self, stage: str | None = None) -> None:
        if not self._loaded:
            self.train_set, self.test_set = self.load()
            self._loaded = True

    @property
    def image_size(self) -> int:
        """Side of the images, in pixels."""
        self.setup()
        return int(self.train_set.images.shape[-1])

    def train_dataloader(self) -> InMemoryLoader:
        return InMemoryLoader(self.train_set, self.batch_size, drop_last=self.drop_last, seed=self.seed)

    def val_dataloader(self) -> InMemoryLoader:
        size = min(self.eval_batch_size, len(self.test_set.images))
        return InMemoryLoader(self.test_set, size, shuffle=False)

    def test_dataloader(self) -> InMemoryLoader:
        return self.val_dataloader()
