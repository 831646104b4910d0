"""The latent cloud of a global model, kept between steps."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from otcore.solution import Potentials

_CHUNK = 1000


class StaleCloudWarning(UserWarning):
    """The latent cloud is re-encoded too seldom for training to stay stable."""


class LatentCache:
    """Where all training rows lie in the latent space, as far as is known, and a prior sample for comparison.

    It also keeps the dual potentials between the two, `duals`, for the next solve to start from.

    Every `recalculate_every` steps the rows are encoded anew, without gradients; in between, a row stays
    where it was last seen. With a `size` below the number n of training rows, each step draws a fresh random
    subset of that many rows, which holds the current batch, and encodes it. The prior sample is redrawn every
    `resample_every` steps.

    Args:
        size: points in the cloud (None, default: all n training rows).
        recalculate_every: steps between two encodings of all rows (default 1, as published). Larger values
            let the cloud go stale: in trials 2, 10, 30 and once an epoch all made training diverge.
        resample_every: steps between two prior samples (default 1).
        seed: seed of the random subsets (default 0).
    """

    def __init__(
        self, size: int | None = None, *, recalculate_every: int = 1, resample_every: int = 1, seed: int = 0
    ) -> None:
        for name, value in (("recalculate_every", recalculate_every), ("resample_every", resample_every)):
            if value < 1:
                raise ValueError(f"{name} must be a number of steps, at least 1, got {value}")
        if size is not None and size < 1:
            raise ValueError(f"cloud_size must be at least 1, or None for all training rows, got {size}")
        if recalculate_every > 1:
            warnings.warn(
                f"recalculate_every={recalculate_every} lets the latent cloud go stale, which made training "
                "diverge in trials; to save time use recalculate_every=1 with a cloud_size of a few thousand",
                StaleCloudWarning,
                stacklevel=3,
            )
        self.size = size
        self.recalculate_every = recalculate_every
        self.resample_every = resample_every
        self.generator = torch.Generator().manual_seed(seed)
        self.step = 0
        self.cloud: Tensor | None = None
        self.prior_sample: Tensor | None = None
        self.duals: Potentials | None = None

    def cloud_with(
        self,
        images: Tensor,
        encode: Callable[[Tensor], Tensor],
        rows: Tensor,
        live: Tensor,
        *,
        through_all: bool = False,
    ) -> Tensor:
        """The cloud (m, d) with the current batch's rows live.

        Args:
            images: all n training images.
            encode: images -> latents.
            rows: (b,) which training rows the batch holds.
            live: (b, d) their latents, with gradients.
            through_all: let gradients flow through every point, which then are all encoded anew; otherwise
                they flow to `live` and nowhere else (default).
        """
        others = encode_with_gradients if through_all else encode_all
        if self.size is None or self.size >= len(images):
            if through_all:
                return others(images, encode).index_copy(0, rows, live)
            if self.cloud is None or self.step % self.recalculate_every == 0:
                self.cloud = others(images, encode)
            self.cloud = self.cloud.index_copy(0, rows, live.detach())
            return self.cloud.index_copy(0, rows, live)
        subset = self._others(len(images), rows.cpu())
        return torch.cat([live, others(images[subset.to(images.device)], encode)])

    def prior_with(self, count: int, draw: Callable[[int], Tensor]) -> tuple[Tensor, bool]:
        """The current prior sample (count, d), and whether it was drawn just now."""
        fresh = self.prior_sample is None or self.step % self.resample_every == 0
        if fresh:
            self.prior_sample = draw(count)
        assert self.prior_sample is not None
        return self.prior_sample, fresh

    def _others(self, n: int, rows: Tensor) -> Tensor:
        """A random subset, without the batch's rows, that fills the cloud up to `size`."""
        assert self.size is not None
        free = torch.ones(n, dtype=torch.bool)
        free[rows] = False
        candidates = free.nonzero().squeeze(1)
        count = max(self.size - len(rows), 0)
        return candidates[torch.randperm(len(candidates), generator=self.generator)[:count]]

    def state_dict(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "cloud": self.cloud,
            "prior_sample": self.prior_sample,
            "duals": None if self.duals is None else [*self.duals],
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        def moved(tensor: Tensor | None) -> Any:
            return None if tensor is None else tensor.to(device)

        self.step = state["step"]
        self.cloud = moved(state["cloud"])
        self.prior_sample = moved(state["prior_sample"])
        self.duals = None if state["duals"] is None else Potentials(*map(moved, state["duals"]))
        self.generator.set_state(state["generator"].cpu())


def encode_with_gradients(images: Tensor, encode: Callable[[Tensor], Tensor], chunk: int = _CHUNK) -> Tensor:
    """Latents (n, d) of all images, with gradients, in the memory of one chunk (default 1000 images).

    No activations are kept: the backward pass encodes each chunk a second time.
    """
    return torch.cat([checkpoint(encode, part, use_reentrant=False) for part in torch.split(images, chunk)])


@torch.no_grad()
def encode_all(images: Tensor, encode: Callable[[Tensor], Tensor], chunk: int = _CHUNK) -> Tensor:
    """Latents (n, d) of all images, without gradients, `chunk` at a time (default 1000)."""
    return torch.cat([encode(part) for part in torch.split(images, chunk)])
