"""A value that did not converge is an error in this suite, wherever a test does not ask for the warning."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("error::otcore.ConvergenceWarning"))


@pytest.fixture
def seed() -> int:
    """A new one in every run."""
    return random.randrange(2**30)
