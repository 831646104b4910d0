"""Everything here needs an NVIDIA GPU: `pytest -m gpu` runs it, and without one it is skipped, saying so."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            if not torch.cuda.is_available():
                item.add_marker(pytest.mark.skip(reason="torch finds no CUDA GPU"))
            item.add_marker(pytest.mark.filterwarnings("error::otcore.ConvergenceWarning"))
