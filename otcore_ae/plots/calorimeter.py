"""Calorimeter responses, and the sums of their channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle, islice
from textwrap import fill

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FormatStrFormatter
from torch import Tensor

from otcore_ae.plots.images import tile
from otcore_ae.plots.style import PRIOR_COLOUR, SYSTEM_COLOURS, TEXT_COLOUR

_CELL_INCHES = 1.35
_TITLE_LETTERS = 18
_BINS = 30


def responses(counts: Mapping[str, Tensor], particles: Sequence[str], *, title: str) -> Figure:
    """One column per source, one row per particle; colours are logarithmic, pixels without photons white.

    Args:
        counts: (n, 1, s, s) whole photons of the same n particles, by the source's name.
        particles: n names of rows.
        title: of the whole figure.
    """
    side = next(iter(counts.values())).shape[-1]
    colours = colormaps["viridis_r"].with_extremes(under="white", bad=PRIOR_COLOUR)
    brightest = max(float(images.max()) for images in counts.values())
    norm = LogNorm(1, max(brightest, 10))
    figure = Figure(
        figsize=(len(counts) * _CELL_INCHES + 2.1, len(particles) * _CELL_INCHES + 1.0), layout="constrained"
    )
    panels = figure.subplots(1, len(counts), squeeze=False)[0]
    for panel, (name, images) in zip(panels, counts.items(), strict=True):
        column = tile(images.clamp_min(0.5), 1)
        panel.imshow(column.numpy(), cmap=colours, norm=norm, interpolation="nearest")
        panel.set_title(fill(name, _TITLE_LETTERS, break_on_hyphens=False), fontsize=10, color=TEXT_COLOUR)
        panel.set(xticks=[], yticks=[])
        panel.spines[:].set_color(PRIOR_COLOUR)
    centres = [(side + 1) * row + (side - 1) / 2 for row in range(len(particles))]
    panels[0].set_yticks(centres, particles, fontsize=9, color=TEXT_COLOUR)
    panels[0].tick_params(length=0)
    bar = figure.colorbar(ScalarMappable(norm, colours), ax=list(panels), shrink=0.6, pad=0.01)
    bar.set_label("photons in a fibre", fontsize=9, color=TEXT_COLOUR)
    bar.ax.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    bar.ax.tick_params(which="both", labelsize=8, colors=TEXT_COLOUR)
    figure.suptitle(title, fontsize=13, color=TEXT_COLOUR)
    return figure


def channel_sums(sums: Mapping[str, Tensor], channels: Sequence[str], *, title: str) -> Figure:
    """One panel per channel: how many responses have which sum, the first source filled, the others lines.

    Args:
        sums: (n, c) photons by the source's name.
        channels: c headings.
        title: of the whole figure.
    """
    highest = max(10.0, *(float(values.max()) for values in sums.values()))
    # Each bin holds a whole number: simulated sums have no others.
    edges = np.unique(np.round(np.geomspace(1.0, np.ceil(highest) + 1, _BINS))) - 1
    colours = dict(zip(sums, [PRIOR_COLOUR, *islice(cycle(SYSTEM_COLOURS), len(sums) - 1)], strict=True))
    figure = Figure(figsize=(2.4 * len(channels) + 0.6, 3.8), layout="constrained")
    panels = figure.subplots(1, len(channels), squeeze=False, sharex=True, sharey=True)[0]
    for k, (panel, heading) in enumerate(zip(panels, channels, strict=True)):
        for number, (source, values) in enumerate(sums.items()):
            heights = np.histogram(values[:, k].numpy(), edges)[0]
            panel.stairs(heights, edges, fill=number == 0, color=colours[source], linewidth=1.3)
        panel.set_xscale("symlog", linthresh=1.0, linscale=0.4)
        panel.set_yscale("log")
        panel.xaxis.set_major_formatter(FormatStrFormatter("%g"))
        panel.yaxis.set_major_formatter(FormatStrFormatter("%g"))
        panel.set_title(heading, fontsize=10, color=TEXT_COLOUR)
        panel.set_xlabel("photons", fontsize=9, color=TEXT_COLOUR)
        panel.tick_params(which="both", labelsize=8, colors=TEXT_COLOUR)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("responses", fontsize=9, color=TEXT_COLOUR)
    handles = [Line2D([], [], color=colour, linewidth=3, label=source) for source, colour in colours.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9)
    figure.suptitle(title, fontsize=13, color=TEXT_COLOUR)
    return figure
