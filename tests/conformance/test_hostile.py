"""Hostile calls (hostile_cases.py), each family in a process of its own: none crashes, hangs or lies."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conformance.hostile_cases import FAMILIES

ROOT = Path(__file__).parents[2]
# A family takes a few seconds; a hang is what this is for.
TIMEOUT_S = 120


@pytest.mark.parametrize("family", FAMILIES)
def test_family(family: str, backend: str) -> None:
    command = [sys.executable, "-m", "tests.conformance.hostile_cases", family, backend]
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        out, errors, code = done.stdout, done.stderr, done.returncode
    except subprocess.TimeoutExpired as stopped:
        out, errors, code = (stopped.stdout or b"").decode(), f"stopped after {TIMEOUT_S} s", -1
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 0, f"in {lines[-1] if lines else 'the start'}: {errors[-2000:]}"
    wrong = [f"{name}: {what}" for name, *what in lines if what and what[0]]
    assert not wrong, "\n".join(wrong)
    assert len(lines) == 4 * sum(1 for _ in FAMILIES[family]())
