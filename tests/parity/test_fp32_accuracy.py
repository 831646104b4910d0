"""fp32 against plain dense torch where it is hard: blur = diameter/1000, D = 64, clouds far apart.

The rule for every kernel: error against fp64 at most twice that of torch's own dense code in the same dtype
(`accuracy.py` says how errors are compared). Problems are drawn afresh; the first seed is in the message of a
failure.
"""

from __future__ import annotations

import random

import pytest

from tests.parity.accuracy import Hard, errors

PROBLEMS = 16
WORST = 10  # no problem further off than this many times torch's worst


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("apart", [0.0, 10.0], ids=["together", "ten diameters apart"])
@pytest.mark.parametrize("d", [2, 64])
@pytest.mark.parametrize("ratio", [20, 1000])
def test_error_at_most_twice_torchs(ratio: int, d: int, apart: float, p: int) -> None:
    first = random.randrange(2**30)
    for name, found in errors(Hard(d, apart, ratio, p), range(first, first + PROBLEMS)).items():
        (ours, torchs), (worst, torchs_worst) = found.typical, found.worst
        assert ours <= 2 * torchs, f"{name}: {ours:.2e}, torch {torchs:.2e}; first seed {first}"
        assert worst <= WORST * torchs_worst, (
            f"{name}: {worst:.2e}, torch {torchs_worst:.2e}; first seed {first}"
        )
