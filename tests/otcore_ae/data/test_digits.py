"""The bundled digits: complete, stratified, always the same."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits

from otcore_ae.data import DigitsData


def rows(images: torch.Tensor) -> list[tuple[float, ...]]:
    return [tuple(image.flatten().tolist()) for image in images]


def test_the_split_is_a_partition() -> None:
    data = DigitsData()
    data.setup()
    assert len(data.train_set.images) == 1437
    assert len(data.test_set.images) == 360
    everything = torch.as_tensor(load_digits().data / 16).float().reshape(-1, 1, 8, 8)
    assert sorted(rows(data.train_set.images) + rows(data.test_set.images)) == sorted(rows(everything))


def test_the_split_is_stratified() -> None:
    data = DigitsData()
    data.setup()
    test = torch.bincount(data.test_set.labels, minlength=10)
    expected = 0.2 * torch.bincount(torch.as_tensor(load_digits().target), minlength=10)
    assert (test - expected).abs().max() <= 1


def test_the_split_depends_on_its_seed_alone() -> None:
    splits = [DigitsData(seed=1), DigitsData(seed=2), DigitsData(split_seed=3)]
    for data in splits:
        data.setup()
    first, second, other = (data.test_set.images for data in splits)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_batches_line_up() -> None:
    data = DigitsData(batch_size=64)
    data.setup()
    for images, labels, rows_of in data.train_dataloader():
        assert torch.equal(images, data.train_set.images[rows_of])
        assert torch.equal(labels, data.train_set.labels[rows_of])
    assert data.image_size == 8
    assert sum(len(batch.images) for batch in data.val_dataloader()) == 360
