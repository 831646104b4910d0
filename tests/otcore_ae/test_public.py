"""The public names, and how fast the package itself is imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

import otcore_ae


def test_every_public_name_is_there() -> None:
    assert all(getattr(otcore_ae, name) is not None for name in otcore_ae.__all__)
    assert dir(otcore_ae) == sorted(otcore_ae.__all__)


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match="no attribute 'VQVAE'"):
        _ = otcore_ae.VQVAE


def test_the_package_alone_does_not_import_torch() -> None:
    script = "import sys, otcore_ae, otcore_ae.demo.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
