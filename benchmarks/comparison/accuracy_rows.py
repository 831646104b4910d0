"""fp32 error of SamplesLoss relative to that of plain dense torch in fp32, both against fp64."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

from .line import Check, Line
from .options import Options

POINTS = 200
PROBLEMS = 8
RATIO = 1000  # diameter / blur
BAR = 2.0


def lines(row: str, d: int, apart: float, _: Options) -> Iterator[Line]:
    """The same comparison as tests/parity/test_fp32_accuracy.py, on larger clouds and fixed seeds."""
    from tests.parity.accuracy import Hard, errors

    for name, found in errors(Hard(d, apart, RATIO, n=POINTS), range(PROBLEMS)).items():
        ours, torchs = found.typical
        finite = math.isfinite(found.worst[0])
        check = Check(finite, f"worst {found.worst[0]:.0e}, torch {found.worst[1]:.0e}")
        yield Line(
            f"{row}: {name}",
            "torch dense fp32",
            f"{ours:.1e}",
            f"{torchs:.1e}",
            ours / torchs,
            BAR,
            False,
            check,
        )


ROWS = {
    row: functools.partial(lines, row, d, apart)
    for d in (2, 64)
    for apart in (0.0, 10.0)
    for row in [f"accuracy fp32 D={d} {'ten diameters apart' if apart else 'together'}"]
}
