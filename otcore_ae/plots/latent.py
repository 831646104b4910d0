"""Latent points over the prior."""

from __future__ import annotations

import math
from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from otcore_ae.plots.style import CLASS_COLOURS, PRIOR_COLOUR, TEXT_COLOUR

_MOST_GLYPHS = 600


def latent_points(
    clouds: Mapping[str, tuple[Tensor, Tensor]],
    prior_sample: Tensor,
    *,
    title: str = "Latent points over the prior",
    sampled: str = "prior",
) -> Figure:
    """One panel per system: its points in the plane, coloured by label, over a sample of the prior in grey.

    Up to 600 points are drawn as the digits they stand for, more as dots.

    Args:
        clouds: (n, 2) points and (n,) labels in 0..9, by the system's name.
        prior_sample: (m, 2) points.
        title: of the whole figure.
        sampled: what the grey points are (default "prior").
    """
    figure = Figure(figsize=(5.2 * len(clouds), 5.9), layout="constrained")
    panels = figure.subplots(1, len(clouds), squeeze=False, sharex=True, sharey=True)[0]
    reach = max(float(points.abs().max()) for points in [prior_sample, *(z for z, _ in clouds.values())])
    for panel, (name, (points, labels)) in zip(panels, clouds.items(), strict=True):
        _scatter(panel, points.cpu(), labels.cpu(), prior_sample.cpu())
        panel.set_title(f"{name}, {len(points)} images", fontsize=11, color=TEXT_COLOUR)
        panel.set(xlim=(-1.03 * reach, 1.03 * reach), ylim=(-1.03 * reach, 1.03 * reach), aspect="equal")
        panel.tick_params(labelsize=8, colors=TEXT_COLOUR)
        panel.spines[:].set_color(PRIOR_COLOUR)
    figure.suptitle(title, fontsize=13, color=TEXT_COLOUR)
    _legend(figure, [*_keys(), _key(PRIOR_COLOUR, sampled)], len(clouds))
    return figure


def encoded_and_made(
    clouds: Mapping[str, tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]], *, title: str
) -> Figure:
    """One panel per system: latents of images as dots, and over them those made from noise as rings.

    Args:
        clouds: (n, 2) points and (n,) labels in 0..9 of images, and (m, 2) and (m,) of noise, by the
            system's name. Panels have no scales: they may be of a t-SNE each.
        title: of the whole figure.
    """
    figure = Figure(figsize=(5.2 * len(clouds), 5.9), layout="constrained")
    panels = figure.subplots(1, len(clouds), squeeze=False)[0]
    for panel, (name, (encoded, made)) in zip(panels, clouds.items(), strict=True):
        points, labels = encoded
        panel.scatter(points[:, 0], points[:, 1], s=7, c=_colours(labels), alpha=0.5, linewidths=0, zorder=1)
        points, labels = made
        panel.scatter(
            *(points[:, 0], points[:, 1]),
            s=16,
            facecolors="white",
            edgecolors=_colours(labels),
            linewidths=0.9,
            zorder=2,
        )
        panel.set_title(name, fontsize=11, color=TEXT_COLOUR)
        panel.set(xticks=[], yticks=[], aspect="equal", adjustable="datalim")
        panel.spines[:].set_color(PRIOR_COLOUR)
    ring = Line2D([], [], linestyle="", marker="o", markersize=6, color=TEXT_COLOUR, markerfacecolor="white")
    ring.set_label("made from noise")
    figure.suptitle(title, fontsize=13, color=TEXT_COLOUR)
    _legend(figure, [*_keys(), ring], len(clouds))
    return figure


def _legend(figure: Figure, handles: list[Line2D], panels: int) -> None:
    columns = len(handles) if panels > 1 else 6
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)


def _colours(labels: Tensor) -> list[str]:
    return [CLASS_COLOURS[int(label) % len(CLASS_COLOURS)] for label in labels]


def _scatter(panel: Axes, points: Tensor, labels: Tensor, prior_sample: Tensor) -> None:
    panel.scatter(prior_sample[:, 0], prior_sample[:, 1], s=4, color=PRIOR_COLOUR, linewidths=0, zorder=1)
    if len(points) > _MOST_GLYPHS:
        size = max(1.5, 20 * math.sqrt(_MOST_GLYPHS / len(points)))
        panel.scatter(
            points[:, 0], points[:, 1], s=size, c=_colours(labels), alpha=0.85, linewidths=0, zorder=2
        )
        return
    for digit, colour in enumerate(CLASS_COLOURS):
        chosen = points[labels == digit]
        panel.scatter(
            chosen[:, 0], chosen[:, 1], s=34, marker=f"${digit}$", color=colour, linewidths=0.3, zorder=2
        )


def _keys() -> list[Line2D]:
    return [
        _key(colour, f"digit {digit}" if digit == 0 else str(digit))
        for digit, colour in enumerate(CLASS_COLOURS)
    ]


def _key(colour: str, label: str) -> Line2D:
    return Line2D(
        [], [], linestyle="", marker="o", markersize=7, markeredgewidth=0, color=colour, label=label
    )
