"""Random changes of an image that leave what it shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor
from torch.nn import functional


class Augmentation(Protocol):
    """Called with images (b, 1, s, s) in [0, 1] and a CPU generator, it returns changed ones alike."""

    def __call__(self, images: Tensor, generator: Generator | None = None) -> Tensor: ...


@dataclass(frozen=True)
class HandwritingStyle:
    """Another hand for drawn digits: each image gets a random affine map and another stroke thickness.

    The image is rotated, sheared, stretched along both axes and shifted, then blended with its dilation or
    erosion by 3 x 3 pixels. Every parameter is uniform, within the bounds below on either side of no change.

    Args:
        rotation: radians (default 0.25).
        shear: horizontal, a share of the height (default 0.3).
        stretch: of each axis, a share (default 0.15).
        shift: along each axis, a share of half the side (default 0.07).
        thickness: largest share of the dilation or erosion in the blend, from 0 to 1 (default 0.8, for digits
            of 20 pixels).
    """

    rotation: float = 0.25
    shear: float = 0.3
    stretch: float = 0.15
    shift: float = 0.07
    thickness: float = 0.8

    def __call__(self, images: Tensor, generator: Generator | None = None) -> Tensor:
        def within(bound: float, *shape: int) -> Tensor:
            drawn = bound * (2 * torch.rand(len(images), *shape, generator=generator) - 1)
            return drawn.to(images)

        angle, shear = within(self.rotation), within(self.shear)
        wide, high = 1 + within(self.stretch), 1 + within(self.stretch)
        first = torch.stack([wide * angle.cos(), shear - high * angle.sin(), within(self.shift)], 1)
        second = torch.stack([wide * angle.sin(), high * angle.cos(), within(self.shift)], 1)
        grid = functional.affine_grid(torch.stack([first, second], 1), [*images.shape], align_corners=False)
        moved = functional.grid_sample(images, grid, align_corners=False)
        share = within(self.thickness, 1, 1, 1)
        dilated, eroded = (sign * functional.max_pool2d(sign * moved, 3, 1, 1) for sign in (1, -1))
        return (moved + share.abs() * (torch.where(share > 0, dilated, eroded) - moved)).clamp(0, 1)
