"""Importing otcore stays light."""

from __future__ import annotations

import subprocess
import sys

import otcore


def test_import_pulls_in_no_compiler() -> None:
    """Neither torch's compiler nor any peer comes with the import."""
    heavy = "'torch._dynamo', 'torch._inductor', 'scipy', 'pykeops', 'geomloss'"
    report = f"print(({{{heavy}}} & set(sys.modules)) - before)"
    code = f"import sys, torch; before = set(sys.modules); import otcore; {report}"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


def test_public_names() -> None:
    assert set(otcore.__all__) <= set(dir(otcore))
