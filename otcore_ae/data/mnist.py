"""MNIST from its four IDX files."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from otcore_ae.data.idx import read_idx
from otcore_ae.data.loader import ImageSet
from otcore_ae.data.module import ImageData

DATA_VARIABLE = "OTCORE_DATA"


class MNISTData(ImageData):
    """MNIST (LeCun, Cortes, Burges): 60,000 training and 10,000 test images, 28 x 28 pixels in [0, 1].

    Args:
        path: folder with train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and
            t10k-labels-idx1-ubyte, each plain or with .gz, or a folder with such a folder `mnist` in it.
            Default: the environment variable OTCORE_DATA.
        batch_size, eval_batch_size, drop_last, seed: see `ImageData`.

    Raises:
        FileNotFoundError, ValueError: on `setup`, where a file is missing or damaged, in one line that names
            it.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        batch_size: int = 100,
        *,
        eval_batch_size: int = 1000,
        drop_last: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, eval_batch_size=eval_batch_size, drop_last=drop_last, seed=seed)
        self.path = path

    def load(self) -> tuple[ImageSet, ImageSet]:
        folder = _folder(self.path)
        return _read_pair(folder, "train"), _read_pair(folder, "t10k")


def _folder(path: str | Path | None) -> Path:
    named = path if path is not None else os.environ.get(DATA_VARIABLE)
    if not named:
        raise FileNotFoundError(
            f"no folder with MNIST was named: pass path=, or set {DATA_VARIABLE} to a folder with its four "
            "IDX files"
        )
    folder = Path(named)
    return folder / "mnist" if (folder / "mnist").is_dir() else folder


def _read_pair(folder: Path, part: str) -> ImageSet:
    image_file = _find(folder, f"{part}-images-idx3-ubyte")
    label_file = _find(folder, f"{part}-labels-idx1-ubyte")
    images, labels = read_idx(image_file, ndim=3), read_idx(label_file, ndim=1)
    if len(images) != len(labels):
        raise ValueError(
            f"{image_file} has {len(images)} images but {label_file} has {len(labels)} labels; "
            "use two files of one set"
        )
    pixels = torch.tensor(images).unsqueeze(1).float().div_(255)
    return ImageSet(pixels, torch.tensor(labels).long())


def _find(folder: Path, name: str) -> Path:
    for candidate in (folder / f"{name}.gz", folder / name):
        if candidate.is_file():
            return candidate
    raise FileNotFoundError(
        f"MNIST file {name} (plain or .gz) not found in {folder}: pass path=, or set {DATA_VARIABLE} to a "
        "folder that holds the four IDX files"
    )
