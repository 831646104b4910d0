"""The latent cache: which rows are live, what is re-encoded, and when."""

from __future__ import annotations

import pytest
import torch

from otcore_ae.models.cache import LatentCache, StaleCloudWarning, encode_all

IMAGES = torch.arange(24.0).reshape(12, 2)
ROWS = torch.tensor([3, 7])


class Encoder:
    """Scales by `factor` and counts the images it has seen."""

    def __init__(self) -> None:
        self.factor = 1.0
        self.seen = 0

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        self.seen += len(images)
        return self.factor * images


def live_rows() -> torch.Tensor:
    return torch.tensor([[100.0, 0.0], [0.0, 100.0]], requires_grad=True)


def test_only_the_batch_is_live() -> None:
    live = live_rows()
    cloud = LatentCache().cloud_with(IMAGES, Encoder(), ROWS, live)
    expected = IMAGES.clone()
    expected[ROWS] = live.detach()
    assert torch.equal(cloud, expected)
    weights = torch.arange(24.0).reshape(12, 2)
    (cloud * weights).sum().backward()
    assert torch.equal(live.grad, weights[ROWS])


@pytest.mark.parametrize(("every", "seen"), [(1, 6 * 12), (2, 3 * 12), (4, 2 * 12)])
def test_all_rows_are_encoded_every_so_often(every: int, seen: int, recwarn: pytest.WarningsRecorder) -> None:
    cache, encoder = LatentCache(recalculate_every=every), Encoder()
    for _ in range(6):
        cache.cloud_with(IMAGES, encoder, ROWS, live_rows())
        cache.step += 1
    assert encoder.seen == seen
    assert [w.category for w in recwarn] == ([StaleCloudWarning] if every > 1 else [])


def test_a_stale_cloud_remembers_rows_where_last_seen() -> None:
    with pytest.warns(StaleCloudWarning, match="recalculate_every=5"):
        cache = LatentCache(recalculate_every=5)
    encoder = Encoder()
    cache.cloud_with(IMAGES, encoder, ROWS, live_rows())
    cache.step += 1
    encoder.factor = 2.0
    cloud = cache.cloud_with(IMAGES, encoder, torch.tensor([0]), torch.zeros(1, 2))
    assert torch.equal(cloud[ROWS], live_rows().detach())
    assert torch.equal(cloud[1], IMAGES[1])


def test_a_smaller_cloud_is_a_fresh_subset_with_the_batch_in_it() -> None:
    cache, subsets = LatentCache(6, seed=4), set()
    for _ in range(20):
        cloud = cache.cloud_with(IMAGES, Encoder(), ROWS, live_rows())
        assert cloud.shape == (6, 2)
        assert torch.equal(cloud[:2], live_rows())
        others = [int(row[0]) // 2 for row in cloud[2:]]
        assert len(set(others)) == 4
        assert not {3, 7} & set(others)
        subsets.add(tuple(sorted(others)))
    assert len(subsets) > 10


@pytest.mark.parametrize(("every", "draws"), [(1, 6), (4, 2), (6, 1)])
def test_the_prior_sample_is_redrawn_every_so_often(every: int, draws: int) -> None:
    cache, drawn = LatentCache(resample_every=every), []
    for _ in range(6):
        sample, fresh = cache.prior_with(5, lambda n: torch.full((n, 2), float(len(drawn))))
        if fresh:
            drawn.append(sample)
        assert torch.equal(sample, drawn[-1])
        cache.step += 1
    assert len(drawn) == draws


def test_the_state_round_trips() -> None:
    cache = LatentCache(6, resample_every=3)
    cache.prior_with(6, lambda n: torch.rand(n, 2))
    cache.step = 2
    copy = LatentCache(6, resample_every=3, seed=99)
    copy.load_state_dict(cache.state_dict(), torch.device("cpu"))
    assert torch.equal(copy.prior_with(6, lambda n: torch.rand(n, 2))[0], cache.prior_sample)
    clouds = [c.cloud_with(IMAGES, Encoder(), ROWS, live_rows()) for c in (cache, copy)]
    assert torch.equal(*clouds)


@pytest.mark.parametrize("options", [{"size": 0}, {"recalculate_every": 0}, {"resample_every": -1}])
def test_impossible_settings(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be"):
        LatentCache(**options)


def test_chunks_make_no_difference() -> None:
    encoder = torch.nn.Linear(2, 3)
    latents = encode_all(IMAGES, encoder, chunk=5)
    assert not latents.requires_grad
    torch.testing.assert_close(latents, encoder(IMAGES).detach())
