"""Colours and sizes that the pictures share."""

from __future__ import annotations

import io

from matplotlib.figure import Figure

# Paul Tol, Colour Schemes, 2021: the "muted" scheme, told apart with any colour vision, and black.
CLASS_COLOURS = (
    "#332288",
    "#cc6677",
    "#117733",
    "#aa4499",
    "#44aa99",
    "#882255",
    "#88ccee",
    "#999933",
    "#000000",
    "#ddcc77",
)
SYSTEM_COLOURS = ("#e76300", "#3f90da", "#717581", "#832db6")
PRIOR_COLOUR = "#d9d9d9"
TEXT_COLOUR = "#333333"
DPI = 160


def png(figure: Figure) -> bytes:
    """The figure as a PNG file's content."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, facecolor="white")
    return buffer.getvalue()
