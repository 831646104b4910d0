"""Triton kernels without a GPU: interpreted against torch, and compiled for the GPUs they are meant for."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

INTERPRETED = Path(__file__).parent / "interpreted"
triton = pytest.importorskip("triton", reason="triton is not installed: pip install triton")


@pytest.mark.parametrize("path", sorted(INTERPRETED.glob("check_*.py")), ids=lambda path: path.stem)
def test_interpreted(path: Path) -> None:
    """In a process of its own: Triton decides when it is imported."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(path)]
    found = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"TRITON_INTERPRET": "1"}
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert re.search(r"\d+ passed", found.stdout)
    assert "skipped" not in found.stdout


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize(("pad", "power"), [(16, 0), (256, 1), (1024, 2), (4096, 2)])
def test_slice_compiles_without_spilling(pad: int, power: int, capability: int, tmp_path: Path) -> None:
    from otcore.kernels.triton.slice import slice_lines, warps_of
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    pointers = dict.fromkeys(("x", "y", "directions", "costs", "slopes_x", "slopes_y"), "*fp32")
    constants = {"D": 64, "PAD": pad, "POWER": power, "NEED_X": True, "NEED_Y": True}
    signature = {**pointers, "n": "i32", "count": "i32", "p": "fp32", **dict.fromkeys(constants, "constexpr")}
    kernel = triton.compile(
        ASTSource(slice_lines, signature, constexprs=constants),
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": warps_of(pad)},
    )
    assert kernel.metadata.shared <= 96 * 1024
    (tmp_path / "kernel.cubin").write_bytes(kernel.asm["cubin"])
    cuobjdump = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    usage = subprocess.run(
        [cuobjdump, "-res-usage", tmp_path / "kernel.cubin"], capture_output=True, text=True, check=True
    ).stdout
    assert "STACK:0 " in usage
    assert "LOCAL:0 " in usage
