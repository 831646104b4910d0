"""Another hand: what is drawn stays in its bounds, and nothing changes where the bounds are 0."""

from __future__ import annotations

import torch

from otcore_ae.data import HandwritingStyle

STILL = {"rotation": 0.0, "shear": 0.0, "stretch": 0.0, "shift": 0.0, "thickness": 0.0}


def bars(n: int) -> torch.Tensor:
    """n images of 28 x 28 pixels with the same upright bar, four pixels wide, in the middle."""
    images = torch.zeros(n, 1, 28, 28)
    images[:, :, 4:24, 12:16] = 1
    return images


def test_no_change_within_bounds_of_zero() -> None:
    images = torch.rand(5, 1, 28, 28)
    torch.testing.assert_close(HandwritingStyle(**STILL)(images), images)


def test_is_drawn_from_the_generator_alone() -> None:
    images, style = torch.rand(5, 1, 28, 28), HandwritingStyle()
    first, again, other = (style(images, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == images.shape
    assert first.min() >= 0
    assert first.max() <= 1


def test_thickness_widens_and_narrows_strokes() -> None:
    """A bar of 4 x 20 pixels becomes at most 6 x 22, at least 2 x 18, where the blend is whole."""
    ink = HandwritingStyle(**STILL | {"thickness": 1.0})(bars(2000)).sum((1, 2, 3))
    assert 36 <= ink.min() < 40
    assert 128 < ink.max() <= 132


def test_shift_moves_by_a_share_of_half_the_side() -> None:
    moved = HandwritingStyle(**STILL | {"shift": 0.5})(bars(2000))
    columns = torch.arange(28.0) - 13.5
    centre = (moved.sum((1, 2)) @ columns) / moved.sum((1, 2, 3))
    assert -7.01 < centre.min() < -6.8
    assert 6.8 < centre.max() < 7.01


def test_rotation_keeps_the_ink_and_turns_the_bar() -> None:
    moved = HandwritingStyle(**STILL | {"rotation": 0.5})(bars(2000))
    torch.testing.assert_close(moved.sum((1, 2, 3)), torch.full((2000,), 80.0), rtol=0.05, atol=0)
    rows, columns = torch.meshgrid(torch.arange(28.0) - 13.5, torch.arange(28.0) - 13.5, indexing="ij")
    slope = (moved * rows * columns).sum((1, 2, 3)) / (moved * rows * rows).sum((1, 2, 3))
    # For a bar of length l and width w turned by t: (l^2 - w^2) tan(t) / (l^2 + w^2 tan(t)^2).
    bound = (400 - 16) * torch.tensor(0.5).tan() / (400 + 16 * torch.tensor(0.5).tan() ** 2)
    torch.testing.assert_close(slope.abs().max(), bound, rtol=0.05, atol=0)
