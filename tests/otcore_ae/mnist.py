"""Where the tests find MNIST, and the mark of those that need it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

MNIST = Path(os.environ.get("OTCORE_DATA") or Path(__file__).parents[3] / "shared" / "data")
needs_mnist = pytest.mark.skipif(
    not (MNIST / "mnist").is_dir(), reason=f"needs MNIST in {MNIST}/mnist, or OTCORE_DATA naming its folder"
)
