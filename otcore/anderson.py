"""Anderson acceleration of a batch of fixed-point iterations z <- image(z), each item with its own history.

Source: Walker and Ni, "Anderson acceleration for fixed-point iterations", SIAM J. Numer. Anal. 49 (2011),
    type II.
"""

from __future__ import annotations

import torch
from torch import Tensor

_RIDGE = 1e-10


class Anderson:
    """Keeps the last `window` differences of images and residuals, and combines them into the next iterate.

    Args:
        weight: (B, n), the non-negative weights of the inner product in which residuals are minimised.
        window: how many differences to keep.
    """

    def __init__(self, weight: Tensor, window: int = 10) -> None:
        batch, size = weight.shape
        self._weight = weight.double().unsqueeze(1)
        self._images = weight.new_zeros(batch, window, size)
        self._residuals = weight.new_zeros(batch, window, size)
        self._gram = torch.zeros(batch, window, window, dtype=torch.float64, device=weight.device)
        self._fresh = torch.ones(batch, 1, dtype=torch.bool, device=weight.device)
        self._last: tuple[Tensor, Tensor] | None = None
        self._slot = 0

    def reset(self, items: Tensor) -> None:
        """Forget the history of the items where the mask, (B,) bool, is true."""
        self._fresh |= items.unsqueeze(1)
        mask = items.view(-1, 1, 1)
        for history in (self._images, self._residuals, self._gram):
            history.masked_fill_(mask, 0.0)

    def mix(self, z: Tensor, image: Tensor) -> Tensor:
        """The next iterate, from the current one and its image, (B, n); without a history the image."""
        residual = image - z
        old_image, old_residual = self._last or (image, residual)
        self._last = image, residual
        slot = self._slot
        self._slot = (slot + 1) % self._images.shape[1]
        self._images[:, slot] = (image - old_image).masked_fill(self._fresh, 0.0)
        self._residuals[:, slot] = (residual - old_residual).masked_fill(self._fresh, 0.0)
        self._fresh.zero_()
        return image - self._correction(slot, residual)

    def _correction(self, slot: int, residual: Tensor) -> Tensor:
        """The combination of image differences whose residual differences come closest to the residual."""
        weighted = self._residuals.double() * self._weight
        right = torch.stack([self._residuals[:, slot], residual], -1).double()
        products = weighted @ right
        self._gram[:, slot, :] = products[..., 0]
        self._gram[:, :, slot] = products[..., 0]
        trace = self._gram.diagonal(dim1=-2, dim2=-1).sum(-1, keepdim=True)
        ridge = torch.where(trace > 0, _RIDGE * trace, 1.0)
        matrix = self._gram + torch.diag_embed(ridge.expand(-1, self._gram.shape[-1]))
        coefficients, _ = torch.linalg.solve_ex(matrix, products[..., 1:])
        correction: Tensor = (coefficients.to(residual.dtype) * self._images).sum(1)
        return correction
