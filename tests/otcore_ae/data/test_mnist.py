"""MNIST: made-up files of the right form, and the real ones where they are."""

from __future__ import annotations

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from otcore_ae.data import MNISTData

SHARED = Path(__file__).parents[4] / "shared" / "data" / "mnist"


def write_set(
    folder: Path, part: str, n: int, *, labels: int | None = None, pack=bytes, suffix: str = ""
) -> None:
    images = np.full((n, 28, 28), 51, np.uint8)
    count = n if labels is None else labels
    image_bytes = struct.pack(">BBBB3I", 0, 0, 8, 3, n, 28, 28) + images.tobytes()
    label_bytes = struct.pack(">BBBBI", 0, 0, 8, 1, count) + bytes(k % 10 for k in range(count))
    (folder / f"{part}-images-idx3-ubyte{suffix}").write_bytes(pack(image_bytes))
    (folder / f"{part}-labels-idx1-ubyte{suffix}").write_bytes(pack(label_bytes))


@pytest.mark.parametrize(("pack", "suffix"), [(bytes, ""), (gzip.compress, ".gz")])
@pytest.mark.parametrize("inner", ["", "mnist"])
def test_reads_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack, suffix: str, inner: str
) -> None:
    folder = tmp_path / inner
    folder.mkdir(exist_ok=True)
    write_set(folder, "train", 12, pack=pack, suffix=suffix)
    write_set(folder, "t10k", 7, pack=pack, suffix=suffix)
    monkeypatch.setenv("OTCORE_DATA", str(tmp_path))
    data = MNISTData(batch_size=5)
    data.setup()
    assert data.train_set.images.shape == (12, 1, 28, 28)
    assert torch.equal(data.train_set.images, torch.full((12, 1, 28, 28), 0.2))
    assert data.test_set.labels.tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert len(data.train_dataloader()) == 2


def test_says_which_file_is_missing(tmp_path: Path) -> None:
    write_set(tmp_path, "train", 3)
    with pytest.raises(FileNotFoundError, match=r"t10k-images-idx3-ubyte.*OTCORE_DATA") as caught:
        MNISTData(tmp_path).setup()
    assert str(tmp_path) in str(caught.value)


def test_says_that_no_folder_was_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTCORE_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="pass path=, or set OTCORE_DATA"):
        MNISTData().setup()


def test_images_and_labels_must_match(tmp_path: Path) -> None:
    write_set(tmp_path, "train", 3, labels=4)
    with pytest.raises(ValueError, match=r"3 images but .* 4 labels"):
        MNISTData(tmp_path).setup()


def test_the_real_files() -> None:
    folder = Path(os.environ.get("OTCORE_DATA", SHARED))
    if not folder.is_dir():
        pytest.skip(f"no MNIST: {folder} is not a folder; set OTCORE_DATA to one with the four IDX files")
    data = MNISTData(folder)
    data.setup()
    assert data.train_set.images.shape == (60_000, 1, 28, 28)
    assert data.test_set.images.shape == (10_000, 1, 28, 28)
    assert torch.bincount(data.train_set.labels).tolist() == [
        *[5923, 6742, 5958, 6131, 5842],
        *[5421, 5918, 6265, 5851, 5949],
    ]
    assert data.train_set.images.mean().item() == pytest.approx(0.1307, abs=1e-4)
    assert data.train_set.images.std().item() == pytest.approx(0.3081, abs=1e-4)
