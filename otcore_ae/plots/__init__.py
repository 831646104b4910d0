"""Pictures of a trained autoencoder. Every function returns a matplotlib figure, without global state."""

from __future__ import annotations

from otcore_ae.plots.curves import Level, loss_curves
from otcore_ae.plots.images import decoded_grid, reconstructions, samples
from otcore_ae.plots.latent import latent_points
from otcore_ae.plots.style import png

__all__ = ["Level", "decoded_grid", "latent_points", "loss_curves", "png", "reconstructions", "samples"]
