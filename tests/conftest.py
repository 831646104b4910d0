"""Fixtures of the whole suite: poisoned memory, fixed seeds, a Hypothesis profile, the backends to test."""

from __future__ import annotations

import os
from collections.abc import Iterator

import hypothesis
import pytest
import torch

from tests import stand_in

# torch's deterministic mode asks for this before the first product on a GPU.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
stand_in.install()

hypothesis.settings.register_profile("otcore", derandomize=True, deadline=None, max_examples=60)
hypothesis.settings.load_profile("otcore")


@pytest.fixture(autouse=True)
def _reproducible() -> Iterator[None]:
    """Fill uninitialised memory with NaN, so that reading it shows, and fix the seed."""
    torch.manual_seed(0)
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]
    yield
    torch.use_deterministic_algorithms(before)


@pytest.fixture(params=["cpu", "dense"])
def backend(request: pytest.FixtureRequest) -> str:
    """The two that run on CPU tensors everywhere.

    KeOps compiles every formula at run time, which takes tens of seconds: it has tests of its own. The suite
    tests kernels for GPUs in the place of the CPU's, see `tests.stand_in`.
    """
    name: str = request.param
    return name
