"""Channels and their metrics: against hand-worked sums, loops over pixels, and scipy."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import wasserstein_distance

from otcore_ae.data.calorimeter import CalorimeterScaling, simulate
from otcore_ae.metrics.calorimeter import (
    QUADRANTS,
    CalorimeterMetrics,
    channel_mae,
    channel_wasserstein,
    channels,
    repeat_pairs,
)


def test_channels_of_a_small_image_by_hand() -> None:
    """Each pixel of 4 x 4 has a power of two of its own, so that a sum tells which pixels are in it."""
    image = 2.0 ** torch.arange(16).reshape(1, 4, 4)
    even = [1 + 2**5, 2**2 + 2**7, 2**8 + 2**13, 2**10 + 2**15]
    odd = [2 + 2**4, 2**3 + 2**6, 2**9 + 2**12, 2**11 + 2**14]
    assert channels(image).tolist() == [[*even, sum(odd)]]
    assert channels(image, parity=1).tolist() == [[*odd, sum(even)]]
    order = ("bottom left", "bottom right", "top left", "top right")
    assert channels(image, order=order).tolist() == [[even[2], even[3], even[0], even[1], sum(odd)]]


@pytest.mark.parametrize("shape", [(44, 44), (5, 7)])
@pytest.mark.parametrize("parity", [0, 1])
def test_channels_against_loops(shape: tuple[int, int], parity: int) -> None:
    images = torch.randint(0, 1000, (3, 1, *shape))
    expected = torch.zeros(3, 5, dtype=torch.float64)
    for n in range(3):
        for i in range(shape[0]):
            for j in range(shape[1]):
                quadrant = 2 * (i >= shape[0] // 2) + (j >= shape[1] // 2)
                expected[n, 4 if (i + j) % 2 != parity else quadrant] += images[n, 0, i, j]
    assert torch.equal(channels(images, parity=parity), expected)
    assert torch.equal(channels(images.squeeze(1).float(), parity=parity), expected)
    assert torch.equal(channels(images).sum(1), images.sum((1, 2, 3)).double())


def test_channels_of_other_things_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(n, h, w\) or \(n, 1, h, w\), got \(2, 3, 44, 44\)"):
        channels(torch.rand(2, 3, 44, 44))
    with pytest.raises(ValueError, match=r"got \(44, 44\)"):
        channels(torch.rand(44, 44))
    with pytest.raises(ValueError, match="parity must be 0 or 1, got 2"):
        channels(torch.rand(1, 4, 4), parity=2)
    with pytest.raises(ValueError, match=r"each of top left, .* once, got top left, top left"):
        channels(torch.rand(1, 4, 4), order=["top left"] * 2)


def test_metrics_by_hand() -> None:
    """Two images; the second channel is off by 3 and by 1, and the sets agree once they are sorted."""
    real = torch.tensor([[1.0, 2, 3, 4, 5], [1, 5, 3, 4, 5]])
    generated = torch.tensor([[1.0, 5, 3, 4, 5], [1, 4, 3, 4, 5]])
    assert channel_mae(real, generated) == pytest.approx((3 + 1) / 10)
    assert channel_wasserstein(real, generated) == pytest.approx((4 - 2) / 2 / 5)
    assert channel_wasserstein(real, real.flip(0)) == 0
    assert channel_mae(real, real.flip(0)) == pytest.approx(3 / 5)


def test_wasserstein_against_scipy() -> None:
    """Of different numbers of images, and of a translation, which costs its length."""
    real, generated = 500 * torch.rand(40, 5), 500 * torch.rand(27, 5) ** 3
    expected = sum(wasserstein_distance(real[:, k], generated[:, k]) for k in range(5)) / 5
    assert channel_wasserstein(real, generated) == pytest.approx(expected, rel=1e-6)
    assert channel_wasserstein(real, real + 7) == pytest.approx(7, rel=1e-5)


def test_metrics_of_other_things_are_refused() -> None:
    with pytest.raises(ValueError, match="row by row, but there are 3 real and 2 generated"):
        channel_mae(torch.rand(3, 5), torch.rand(2, 5))
    with pytest.raises(ValueError, match=r"real must be channels .*got \(3, 44, 44\); give channels\(images"):
        channel_wasserstein(torch.rand(3, 44, 44), torch.rand(3, 5))
    with pytest.raises(ValueError, match=r"generated must be channels .*got \(0, 5\)"):
        channel_mae(torch.rand(3, 5), torch.rand(0, 5))


def test_metric_over_batches() -> None:
    counts, _ = simulate(60, seed=1, repeats=2)
    real, generated = torch.as_tensor(counts[::2]), torch.as_tensor(counts[1::2])
    options = {"parity": 1, "order": QUADRANTS[::-1]}
    expected = [channels(part, **options) for part in (real, generated)]
    scaling = CalorimeterScaling(1000.0, torch.zeros(9), torch.ones(9))
    for to_counts, scale in ((None, lambda images: images), (scaling.to_counts, scaling.to_images)):
        metric = CalorimeterMetrics(to_counts, **options)
        for part in scale(real).split(13):
            metric.update(part, real=True)
        for part in scale(generated).split(7):
            metric.update(part.unsqueeze(1), real=False)
        found = metric.compute()
        assert set(found) == {"channel_mae", "channel_wasserstein"}
        assert found["channel_mae"].item() == pytest.approx(channel_mae(*expected), rel=1e-5)
        assert found["channel_wasserstein"].item() == pytest.approx(channel_wasserstein(*expected), rel=1e-4)


def test_repeat_pairs_against_a_loop() -> None:
    attributes = torch.tensor([[3.0], [1], [3], [2], [1], [3]])
    first, second = repeat_pairs(attributes)
    assert set(zip(first.tolist(), second.tolist(), strict=True)) == {(0, 2), (2, 5), (5, 0), (1, 4), (4, 1)}
    assert [len(rows) for rows in repeat_pairs(torch.arange(4.0)[:, None])] == [0, 0]


def test_the_conditions_matter() -> None:
    """Paired with its own repeats a particle is far nearer than with another's, by the same distribution."""
    counts, attributes = simulate(2000, repeats=4)
    sums = channels(torch.as_tensor(counts))
    first, second = repeat_pairs(torch.as_tensor(attributes))
    assert len(first) == 2000
    paired = channel_mae(sums[first], sums[second])
    assert 0 < paired < 0.2 * channel_mae(sums, sums.roll(1000, 0))
    assert channel_wasserstein(sums[first], sums[second]) == 0
