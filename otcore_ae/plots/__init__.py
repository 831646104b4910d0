"""Pictures of a trained autoencoder. Every function returns a matplotlib figure, without global state."""

from __future__ import annotations

from otcore_ae.plots.calorimeter import channel_sums, responses
from otcore_ae.plots.curves import Level, loss_curves
from otcore_ae.plots.images import decoded_grid, reconstructions, rows, samples
from otcore_ae.plots.latent import encoded_and_made, latent_points
from otcore_ae.plots.style import png

__all__ = [
    "Level",
    "channel_sums",
    "decoded_grid",
    "encoded_and_made",
    "latent_points",
    "loss_curves",
    "png",
    "reconstructions",
    "responses",
    "rows",
    "samples",
]
