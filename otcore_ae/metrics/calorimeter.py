"""How generated calorimeter responses compare with real ones, by the sums of five groups of fibres.

After K. Deja et al., End-to-end Sinkhorn Autoencoder with Noise Generator (IEEE Access, 2021): images are
summed in five channels, which are compared in counts of photons.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from otcore import wasserstein_1d

QUADRANTS = ("top left", "top right", "bottom left", "bottom right")


def channels(images: Tensor, *, parity: int = 0, order: Sequence[str] = QUADRANTS) -> Tensor:
    """Channel sums (n, 5), float64, of images (n, h, w) or (n, 1, h, w), usually counts of 44 x 44 fibres.

    Channels 1 to 4 are the quadrants' sums over pixels (i, j) with i + j even, channel 5 is the sum of all
    pixels with i + j odd. Row 0 is the top, column 0 the left; of an odd side, the middle belongs to the
    bottom or the right.

    Args:
        images: of any number type.
        parity: 0 (default), or 1 to exchange even and odd.
        order: the four quadrants in the order of channels 1 to 4 (default `QUADRANTS`).

    Raises:
        ValueError: for images of another shape, or another parity or order.
    """
    if not (images.ndim == 3 or (images.ndim == 4 and images.shape[1] == 1)):
        raise ValueError(f"images must be (n, h, w) or (n, 1, h, w), got {tuple(images.shape)}")
    if parity not in (0, 1):
        raise ValueError(f"parity must be 0 or 1, got {parity}")
    if sorted(order) != sorted(QUADRANTS):
        raise ValueError(f"order must hold each of {', '.join(QUADRANTS)} once, got {', '.join(order)}")
    h, w = images.shape[-2:]
    i, j = torch.arange(h)[:, None], torch.arange(w)
    lit = (i + j) % 2 == parity
    bottom, right = i >= h // 2, j >= w // 2
    halves = {"top": ~bottom, "bottom": bottom, "left": ~right, "right": right}
    quadrants = [halves[vertical] & halves[side] for vertical, side in map(str.split, order)]
    masks = torch.stack([*(lit & quadrant for quadrant in quadrants), ~lit])
    return images.reshape(len(images), h * w).double() @ masks.reshape(5, h * w).T.to(images.device).double()


def channel_mae(real: Tensor, generated: Tensor) -> float:
    """Mean absolute difference of channels (n, 5) over samples and channels, in counts.

    Args:
        real, generated: of `channels`; row k of both belongs to the same particle.

    Raises:
        ValueError: if their shapes are not equal.
    """
    _check_channels(real, generated)
    if len(real) != len(generated):
        raise ValueError(
            f"channel_mae compares images of the same particles, row by row, but there are {len(real)} real "
            f"and {len(generated)} generated ones; generate one for each label"
        )
    return float((real.double() - generated.double()).abs().mean())


def channel_wasserstein(real: Tensor, generated: Tensor) -> float:
    """Mean over channels of the 1-D Wasserstein distance W_1 between (n, 5) and (m, 5) channels, in counts.

    By `otcore.wasserstein_1d` with p = 1 and equal weights: the integral of the quantile functions' absolute
    difference, which is also `scipy.stats.wasserstein_distance`.

    Args:
        real, generated: of `channels`, in any order and number.

    Raises:
        ValueError: if they are not such channels.
    """
    _check_channels(real, generated)
    return float(wasserstein_1d(real.double(), generated.double(), p=1).mean())


def repeat_pairs(attributes: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (k,) and (k,) of images of the same particles: each image of a repeated one, and the next of it.

    `channel_mae(c[first], c[second])` is then what a perfect model would score: the error between two runs of
    the same simulation. A particle's last image is paired with its first; particles of one image are left
    out.

    Args:
        attributes: (n, 9) attributes or labels, equal for images of the same particle.
    """
    particle, images = torch.unique(attributes, dim=0, return_inverse=True, return_counts=True)[1:]
    rows = particle.argsort(stable=True)
    ends = images.cumsum(0)
    last = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
    last[ends - 1] = True
    following = torch.where(last, rows[(ends - images)[particle[rows]]], rows.roll(-1))
    repeated = images[particle[rows]] > 1
    return rows[repeated], following[repeated]


class CalorimeterMetrics(Metric):
    """`channel_mae` and `channel_wasserstein` of generated calorimeter responses.

    `update(images, real=...)`, then `compute()` gives {"channel_mae": ..., "channel_wasserstein": ...}. The
    k-th real and the k-th generated image must belong to the same particle.

    Args:
        to_counts: callable from images to counts of photons, such as `CalorimeterScaling.to_counts`; None
            (default) where `update` is given counts.
        parity, order: see `channels`.
    """

    full_state_update = False
    real: list[Tensor]
    generated: list[Tensor]

    def __init__(
        self,
        to_counts: Callable[[Tensor], Tensor] | None = None,
        *,
        parity: int = 0,
        order: Sequence[str] = QUADRANTS,
    ) -> None:
        super().__init__()
        self.to_counts = to_counts
        self.parity = parity
        self.order = tuple(order)
        self.add_state("real", default=[], dist_reduce_fx="cat")
        self.add_state("generated", default=[], dist_reduce_fx="cat")

    def update(self, images: Tensor, *, real: bool) -> None:
        counts = images.detach() if self.to_counts is None else self.to_counts(images.detach())
        (self.real if real else self.generated).append(channels(counts, parity=self.parity, order=self.order))

    def compute(self) -> dict[str, Tensor]:
        real, generated = dim_zero_cat(self.real), dim_zero_cat(self.generated)
        return {
            "channel_mae": torch.tensor(channel_mae(real, generated)),
            "channel_wasserstein": torch.tensor(channel_wasserstein(real, generated)),
        }


def _check_channels(real: Tensor, generated: Tensor) -> None:
    for name, values in (("real", real), ("generated", generated)):
        if values.ndim != 2 or values.shape[1] != 5 or len(values) == 0:
            raise ValueError(
                f"{name} must be channels (n, 5) of at least one image, got {tuple(values.shape)}; give "
                "channels(images)"
            )
