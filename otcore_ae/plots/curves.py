"""Curves over the epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FormatStrFormatter, LogLocator, MaxNLocator, NullFormatter

from otcore_ae.history import Curve
from otcore_ae.plots.style import PRIOR_COLOUR, SYSTEM_COLOURS, TEXT_COLOUR


class Level(NamedTuple):
    """A horizontal line in a panel: its height, its meaning, and whose it is (None: everyone's)."""

    height: float
    meaning: str
    system: str | None = None


def loss_curves(
    curves: Mapping[str, Mapping[str, Curve]],
    panels: Mapping[str, str],
    *,
    levels: Mapping[str, Sequence[Level]] | None = None,
    title: str = "Training, term by term",
) -> Figure:
    """One panel per logged name, one line per system, on a logarithmic scale.

    Args:
        curves: `History.curves` by the system's name.
        panels: title of each panel by the logged name it shows, such as {"train/latent": "latent term"}.
        levels: reference lines by the logged name of their panel.
        title: of the whole figure.
    """
    figure = Figure(figsize=(4.3 * len(panels), 4.0), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    colours = dict(zip(curves, SYSTEM_COLOURS, strict=False))
    for axis, (name, heading) in zip(axes, panels.items(), strict=True):
        for system, of_system in curves.items():
            curve = of_system.get(name, Curve())
            axis.plot(curve.epochs, curve.values, color=colours[system], linewidth=1.4)
        for level in (levels or {}).get(name, ()):
            _draw_level(axis, level, colours.get(level.system or "", TEXT_COLOUR))
        _dress(axis, heading)
    handles = [Line2D([], [], color=colour, linewidth=2, label=system) for system, colour in colours.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=10)
    figure.suptitle(title, fontsize=13, color=TEXT_COLOUR)
    return figure


def _draw_level(axis: Axes, level: Level, colour: str) -> None:
    axis.axhline(level.height, color=colour, linewidth=1, linestyle=(0, (4, 3)))
    axis.annotate(
        level.meaning,
        xy=(0.98, level.height),
        xycoords=("axes fraction", "data"),
        xytext=(0, 3),
        textcoords="offset points",
        ha="right",
        fontsize=8,
        color=colour,
    )


def _dress(axis: Axes, heading: str) -> None:
    axis.set_title(heading, fontsize=10, color=TEXT_COLOUR)
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel("epoch", fontsize=9, color=TEXT_COLOUR)
    axis.grid(True, color=PRIOR_COLOUR, linewidth=0.5, alpha=0.7)
    axis.tick_params(which="both", labelsize=8, colors=TEXT_COLOUR)
    axis.spines[["top", "right"]].set_visible(False)
