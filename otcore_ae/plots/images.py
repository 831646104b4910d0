"""Grids of images: samples and reconstructions."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from otcore_ae.plots.style import TEXT_COLOUR

_CELL_INCHES = 0.42
_TITLE_INCHES = 0.75
_LETTER_INCHES = 0.075  # of names beside a row


def samples(
    images: Mapping[str, Tensor],
    *,
    columns: int = 10,
    title: str = "Decoded samples of the prior",
    note: str = "",
) -> Figure:
    """One grid per system, filled row by row.

    Args:
        images: (n, 1, s, s) images in [0, 1], by the system's name.
        columns: images in a row (default 10).
        title, note: of the whole figure, and what to say below the grids.
    """
    rows = max(-(-len(pictures) // columns) for pictures in images.values())
    width = len(images) * (columns * _CELL_INCHES + 0.5)
    figure = Figure(figsize=(width, rows * _CELL_INCHES + _TITLE_INCHES + 0.3))
    figure.set_layout_engine("constrained", wspace=0.06)
    panels = figure.subplots(1, len(images), squeeze=False)[0]
    for panel, (name, pictures) in zip(panels, images.items(), strict=True):
        _show(panel, tile(pictures, columns))
        panel.set_title(name, fontsize=11, color=TEXT_COLOUR)
    figure.suptitle(title, fontsize=13, color=TEXT_COLOUR)
    if note:
        figure.supxlabel(note, fontsize=9, color=TEXT_COLOUR)
    return figure


def reconstructions(
    originals: Tensor, decoded: Mapping[str, Tensor], *, title: str = "Test images and their reconstructions"
) -> Figure:
    """Originals in the first row, each system's reconstructions of them below.

    Args:
        originals: (n, 1, s, s) images in [0, 1].
        decoded: as many images, by the system's name.
        title: of the whole figure.
    """
    return rows({"original": originals, **decoded}, title=title)


def rows(images: Mapping[str, Tensor], *, title: str) -> Figure:
    """A row for each name, what belongs together one above the other.

    Args:
        images: as many (n, 1, s, s) images in [0, 1] of each, by name.
        title: of the whole figure.
    """
    columns = max(len(pictures) for pictures in images.values())
    names = _LETTER_INCHES * max(len(name) for name in images)
    figure = Figure(
        figsize=(columns * _CELL_INCHES + names + 0.3, len(images) * (_CELL_INCHES + 0.08) + 0.5),
        layout="constrained",
    )
    panels = figure.subplots(len(images), 1, squeeze=False)[:, 0]
    for panel, (name, pictures) in zip(panels, images.items(), strict=True):
        _show(panel, tile(pictures, columns))
        panel.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=10, color=TEXT_COLOUR)
    figure.suptitle(title, fontsize=13, color=TEXT_COLOUR)
    return figure


def decoded_grid(
    decode: Callable[[Tensor], Tensor],
    *,
    reach: float = 1.0,
    steps: int = 25,
    title: str = "Decoded latent plane",
) -> Figure:
    """What the decoder makes of a regular grid of the latent plane, each image at its place.

    Args:
        decode: (n, 2) latents -> (n, 1, s, s) images in [0, 1].
        reach: the grid covers [-reach, reach]^2 (default 1).
        steps: points a side (default 25).
        title: of the figure.
    """
    ticks = torch.linspace(-reach, reach, steps)
    rows, columns = torch.meshgrid(ticks.flip(0), ticks, indexing="ij")
    codes = torch.stack([columns.flatten(), rows.flatten()], 1)
    figure = Figure(figsize=(7.6, 8.0), layout="constrained")
    panel = figure.subplots()
    images = decode(codes)
    picture, side = tile(images, steps), images.shape[-1]
    edge = reach * (1 + side / (steps - 1) / (side + 1))  # image k of a row is centred at its code
    panel.imshow(
        picture.numpy(),
        cmap="gray_r",
        vmin=0,
        vmax=1,
        interpolation="nearest",
        extent=(-edge, edge, -edge, edge),
    )
    panel.set(xlabel="first latent coordinate", ylabel="second latent coordinate")
    panel.tick_params(labelsize=8, colors=TEXT_COLOUR)
    panel.spines[:].set_visible(False)
    figure.suptitle(title, fontsize=13, color=TEXT_COLOUR)
    return figure


def tile(images: Tensor, columns: int, gap: int = 1) -> Tensor:
    """Images (n, 1, s, s) in one (h, w) picture, row by row, `gap` pixels apart; what is empty is NaN."""
    pictures = images.detach().cpu().squeeze(1)
    n, height, width = pictures.shape
    rows = -(-n // columns)
    canvas = torch.full((rows * (height + gap) - gap, columns * (width + gap) - gap), torch.nan)
    for k, picture in enumerate(pictures):
        top, left = (k // columns) * (height + gap), (k % columns) * (width + gap)
        canvas[top : top + height, left : left + width] = picture
    return canvas


def _show(panel: Axes, picture: Tensor) -> None:
    panel.imshow(picture.numpy(), cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
    panel.set(xticks=[], yticks=[])
    panel.spines[:].set_visible(False)
