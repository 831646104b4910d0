"""One line of the comparison table, and the rule that a figure is only shown beside a green check."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """Whether the result behind a figure is right; `text` says what was compared and the error found."""

    ok: bool
    text: str
    measured: bool = True


def not_measured(row: str, reason: str) -> Line:
    """The line of something that could not be run here."""
    return Line(row, "-", "-", "-", float("nan"), None, True, Check(False, reason, measured=False))


@dataclass(frozen=True)
class Line:
    """One measured figure.

    row: what was measured (`--rows` selects by it); against: the yardstick or peer.
    ours, theirs: the two quantities, already written with their unit.
    figure: the number judged, `bar` the value it has to reach (`at_least`) or not to pass (otherwise);
    bar None: shown for information. detail: anything more (the ratio of medians, say).
    """

    row: str
    against: str
    ours: str
    theirs: str
    figure: float
    bar: float | None
    at_least: bool
    check: Check
    unit: str = "x"
    detail: str = ""

    @property
    def met(self) -> bool | None:
        """None when there is no bar."""
        if self.bar is None:
            return None
        if not self.check.ok:
            return False
        return self.figure >= self.bar if self.at_least else self.figure <= self.bar

    @property
    def verdict(self) -> str:
        if not self.check.ok:
            return "WRONG RESULT" if self.check.measured else "NOT MEASURED"
        return {None: "-", True: "met", False: "NOT MET"}[self.met]

    def cells(self) -> tuple[str, ...]:
        """The columns of HEADINGS. A red check hides the figure."""
        bar = "-" if self.bar is None else f"{'>=' if self.at_least else '<='} {self.bar:.3g}"
        figure = f"{self.figure:.3g} {self.unit}" if self.check.ok else "withheld"
        detail = self.detail if self.check.ok else ""
        return (
            self.row,
            self.against,
            self.ours,
            self.theirs,
            figure,
            bar,
            self.verdict,
            detail,
            self.check.text,
        )


HEADINGS = ("row", "against", "ours", "theirs", "figure", "bar", "verdict", "detail", "check")


def table(lines: list[Line]) -> str:
    """The lines as one plain-text table."""
    rows = [HEADINGS, *(line.cells() for line in lines)]
    widths = [max(len(row[k]) for row in rows) for k in range(len(HEADINGS))]
    text = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([text[0], "-" * len(text[0]), *text[1:]])


def duration(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.2f} s"
    if seconds >= 1e-3:
        return f"{seconds * 1e3:.3g} ms"
    return f"{seconds * 1e6:.3g} us"


def size(octets: float) -> str:
    if octets >= 2**20:
        return f"{octets / 2**20:.3g} MiB"
    return f"{octets / 2**10:.3g} KiB"
