"""The whole contract on GPU kernels: the suite of the CPU's verbs, with these in their place.

Tensors travel to the GPU and back at every call (`tests.stand_in`), so this is slow by design. Each part is a
process of its own, and all run at once.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# What belongs to the CPU's kernels alone: threads, instruction sets, trees of clusters, KeOps; and what has
# nothing to do with the verbs.
_NOT = "not threads and not instruction and not multiscale and not keops and not sliced and not kernel"
PARTS = {
    "verbs": ["tests/kernels/test_verbs.py"],
    "solves": ["tests/conformance", "--ignore=tests/conformance/test_large_clouds.py"],
    "library": [
        "tests/otcore",
        "--ignore=tests/otcore/test_large.py",
        "--ignore=tests/otcore/test_clouds.py",
    ],
    "peers": ["tests/parity"],
}
KERNELS = ("cuda", "triton")


@pytest.fixture(scope="module")
def processes() -> Iterator[dict[tuple[str, str], subprocess.Popen[str]]]:
    started = {}
    for kernels in KERNELS:
        for part, paths in PARTS.items():
            # Verbs are called the same wherever they are called from.
            if kernels == "triton" and part != "verbs":
                continue
            started[kernels, part] = subprocess.Popen(
                [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", _NOT, *paths],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env=os.environ | {"OTCORE_TEST_KERNELS": kernels},
            )
    yield started
    for process in started.values():
        process.kill()


@pytest.mark.parametrize(
    ("kernels", "part"), [*(("cuda", part) for part in PARTS), ("triton", "verbs")], ids=str
)
def test_contract(kernels: str, part: str, processes: dict[tuple[str, str], subprocess.Popen[str]]) -> None:
    output, _ = processes[kernels, part].communicate()
    assert processes[kernels, part].returncode == 0, output[-6000:]
