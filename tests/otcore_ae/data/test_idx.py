"""IDX files: what the format's definition writes is read back; anything else is refused in one line."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from otcore_ae.data.idx import read_idx


def encode(array: np.ndarray) -> bytes:
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 3, 4), dtype=np.uint8)


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("name", ["images", "images.gz"])
def test_round_trip(tmp_path: Path, images: np.ndarray, pack, name: str) -> None:
    (tmp_path / name).write_bytes(pack(encode(images)))
    assert np.array_equal(read_idx(tmp_path / name, ndim=3), images)


def broken(images: np.ndarray) -> dict[str, tuple[bytes, str]]:
    content = encode(images)
    return {
        "empty": (b"", "does not start like an IDX file"),
        "other format": (b"\x89PNG" + content, "does not start like an IDX file"),
        "labels instead": (encode(images[0, 0]), "with 3 dimension"),
        "header only in part": (content[:10], "ends inside its header"),
        "cut": (content[:-1], r"cut short.*5 x 3 x 4 = 60 bytes of data, found 59"),
        "too long": (content + b"0", "too long"),
        "gzip cut": (gzip.compress(content)[:-9], "damaged or truncated gzip"),
        "gzip spoiled": (gzip.compress(content)[:12] + b"\xff" * 60, "damaged or truncated gzip"),
    }


@pytest.mark.parametrize("case", broken(np.zeros((5, 3, 4))))
def test_damaged_files_are_named(tmp_path: Path, images: np.ndarray, case: str) -> None:
    content, message = broken(images)[case]
    path = tmp_path / "images"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_idx(path, ndim=3)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_idx(tmp_path / "nowhere", ndim=1)
