"""How much of the prior the latent points cover."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from otcore_ae.priors import Sectors

_DENSITY = 4
_FINENESS = 1.1
_BLOCK = range(-2, 2)


def covered_area(latents: Tensor, sectors: Sectors) -> float:
    """Share of the prior's mass that has a latent point near it; in [0, 1], higher is better.

    Each sector's N points are mapped to the unit square, where a perfect match is uniform. The square is cut
    into r x r cells, r = floor(1.1 sqrt(4 N)); a point marks the 4 x 4 cells c-2 .. c+1 around its cell c,
    those inside the square. The result is the share of marked cells, averaged over the sectors; an empty
    sector counts 0. As in the authors' code, points in the first row or column of cells mark nothing (Global
    Sinkhorn Autoencoder, section 5.1.1).

    Args:
        latents: (n, 2) points.
        sectors: the prior's partition of the plane.
    """
    points = latents.detach().double().cpu()
    sector = sectors.assign(points)
    shares = [_marked_share(sectors.to_square(points[sector == j], j)) for j in range(sectors.count)]
    return sum(shares) / len(shares)


def _marked_share(square: Tensor) -> float:
    if len(square) == 0:
        return 0.0
    resolution = int(math.sqrt(_DENSITY * len(square)) * _FINENESS)
    cell = (resolution * square).long()
    cell = cell[(cell > 0).all(dim=1)]
    marked = torch.zeros(resolution, resolution, dtype=torch.bool)
    for down in _BLOCK:
        for right in _BLOCK:
            row, column = cell[:, 0] + down, cell[:, 1] + right
            inside = (row >= 0) & (row < resolution) & (column >= 0) & (column < resolution)
            marked[row[inside], column[inside]] = True
    return float(marked.double().mean())
