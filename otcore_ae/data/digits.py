"""The 8 x 8 digits that come with scikit-learn: data without a download."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from otcore_ae.data.loader import ImageSet
from otcore_ae.data.module import ImageData


class DigitsData(ImageData):
    """1797 handwritten digits of 8 x 8 pixels (UCI Optical Recognition, E. Alpaydin and C. Kaynak, 1998).

    Pixels are scaled from 0..16 to [0, 1]. The split is stratified by label and always the same for one
    (`test_fraction`, `split_seed`): by default 1437 training and 360 test images.

    Args:
        test_fraction: share of the images in the test set (default 0.2).
        split_seed: seed of the split (default 0).
        batch_size, eval_batch_size, drop_last, seed: see `ImageData`.
    """

    def __init__(
        self,
        batch_size: int = 100,
        *,
        test_fraction: float = 0.2,
        split_seed: int = 0,
        eval_batch_size: int = 1000,
        drop_last: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, eval_batch_size=eval_batch_size, drop_last=drop_last, seed=seed)
        self.test_fraction = test_fraction
        self.split_seed = split_seed

    def load(self) -> tuple[ImageSet, ImageSet]:
        pixels, labels = load_digits(return_X_y=True)
        pieces = train_test_split(
            pixels, labels, test_size=self.test_fraction, random_state=self.split_seed, stratify=labels
        )
        train_x, test_x, train_y, test_y = (torch.as_tensor(piece) for piece in pieces)
        return _image_set(train_x, train_y), _image_set(test_x, test_y)


def _image_set(pixels: torch.Tensor, labels: torch.Tensor) -> ImageSet:
    return ImageSet((pixels / 16).float().reshape(-1, 1, 8, 8), labels.long())
