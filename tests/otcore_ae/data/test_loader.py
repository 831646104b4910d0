"""The in-memory loader: coverage, order, resumption."""

from __future__ import annotations

import pytest
import torch

from otcore_ae.data import ImageSet, InMemoryLoader

DATA = ImageSet(torch.rand(23, 1, 2, 2, generator=torch.Generator().manual_seed(0)), torch.arange(23))


def order(loader: InMemoryLoader) -> list[int]:
    return [row for batch in loader for row in batch.rows.tolist()]


@pytest.mark.parametrize("drop_last", [False, True])
def test_an_epoch_serves_each_row_once(drop_last: bool) -> None:
    loader = InMemoryLoader(DATA, 5, drop_last=drop_last)
    served = order(loader)
    assert len(served) == len(set(served)) == (20 if drop_last else 23)
    assert len(loader) == len(list(loader)) == (4 if drop_last else 5)


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    def orders(seed: int) -> list[list[int]]:
        loader = InMemoryLoader(DATA, 5, seed=seed)
        return [order(loader) for _ in range(4)]

    found = [tuple(served) for seed in range(4) for served in orders(seed)]
    assert len(set(found)) == 16
    assert orders(2) == orders(2)


def test_without_shuffling_the_stored_order() -> None:
    assert order(InMemoryLoader(DATA, 5, shuffle=False)) == list(range(23))


def test_an_iteration_that_was_broken_off_still_was_an_epoch() -> None:
    broken, whole = InMemoryLoader(DATA, 5), InMemoryLoader(DATA, 5)
    next(iter(broken))
    order(whole)
    assert order(broken) == order(whole)


def test_an_iterator_that_was_never_used_is_no_epoch() -> None:
    loader = InMemoryLoader(DATA, 5)
    iter(loader)
    assert order(loader) == order(InMemoryLoader(DATA, 5))


@pytest.mark.parametrize("position", range(6))
def test_resumes_at_the_next_batch(position: int) -> None:
    loader = InMemoryLoader(DATA, 5, seed=3)
    order(loader)
    batches = iter(loader)
    served = [next(batches) for _ in range(position)]
    resumed = InMemoryLoader(DATA, 5, seed=3)
    resumed.load_state_dict(loader.state_dict())
    rest = [row for batch in batches for row in batch.rows.tolist()]
    assert len(served) == position
    if 0 < position < 5:
        assert order(resumed) == rest
    assert order(resumed) == order(loader) if position else order(resumed) == rest


@pytest.mark.parametrize("batch_size", [0, 24])
def test_refuses_impossible_batches(batch_size: int) -> None:
    with pytest.raises(ValueError, match=f"between 1 and the 23 images there are, got {batch_size}"):
        InMemoryLoader(DATA, batch_size)


def test_some_of_each_class() -> None:
    images = torch.rand(7, 1, 2, 2)
    some = ImageSet(images, torch.tensor([1, 0, 1, 4, 0, 0, 1])).some_of_each_class(2)
    assert some.labels.tolist() == [0, 0, 1, 1, 4]
    assert torch.equal(some.images, images[[1, 4, 0, 2, 3]])
