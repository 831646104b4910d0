"""The compiled extension: what it links, and that code for all machines holds no instructions of some."""

from __future__ import annotations

import platform
import re
import subprocess
from pathlib import Path

import pytest

import otcore
from otcore import _core

ROOT = Path(__file__).parents[2]
WIDE = re.compile(r"%[yz]mm\d+|\{%k\d\}")


def _objects(pattern: str) -> list[Path]:
    found = sorted(ROOT.glob(f"build/*/CMakeFiles/{pattern}/**/*.o"))
    if not found:
        pytest.skip(f"no object files under {ROOT}/build: the extension was not built from this checkout")
    return found


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(platform.system() != "Linux", reason="reads ELF")
def test_needs_no_torch_and_no_cuda() -> None:
    needed = re.findall(r"NEEDED.*\[(.+)\]", _run("readelf", "-d", _core.__file__))
    assert needed, "readelf found no NEEDED entry"
    allowed = re.compile(r"lib(stdc\+\+|gcc_s|m|c|pthread)\.so|ld-linux")
    assert [name for name in needed if not allowed.match(name)] == []


@pytest.mark.skipif(platform.machine() != "x86_64", reason="about x86-64 instruction sets")
@pytest.mark.parametrize("pattern", ["_core.dir", "kernels_x86_64_v2.dir"])
def test_baseline_code_holds_no_wider_instructions(pattern: str) -> None:
    for path in _objects(pattern):
        assert not WIDE.search(_run("objdump", "-d", "--no-show-raw-insn", str(path))), path.name


@pytest.mark.skipif(platform.machine() != "x86_64", reason="about x86-64 instruction sets")
def test_wide_code_is_wide() -> None:
    """Guards the test above: it can see wide instructions where they are."""
    sweep = next(path for path in _objects("kernels_x86_64_v4.dir") if path.name.startswith("sweep"))
    assert "%zmm" in _run("objdump", "-d", "--no-show-raw-insn", str(sweep))


def test_kernels_define_no_symbol_that_the_linker_could_merge() -> None:
    for path in _objects("kernels_*.dir"):
        weak = [line for line in _run("nm", "-C", str(path)).splitlines() if re.search(r" [WuV] ", line)]
        assert weak == [], path


def test_info_names_the_instruction_set() -> None:
    assert otcore.__version__
    assert re.fullmatch(r"x86_64_v[234]|portable", _core.isa())
