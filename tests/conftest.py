"""Fixtures of the whole suite: poisoned memory, fixed seeds, a Hypothesis profile, the backends to test."""

from __future__ import annotations

from collections.abc import Iterator

import hypothesis
import pytest
import torch

from otcore import backends

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


@pytest.fixture(params=[name for name in backends.names() if name not in ("triton", "keops")])
def backend(request: pytest.FixtureRequest) -> str:
    """The name of each backend that can be loaded here; the others are skipped with their reason.

    KeOps compiles every formula at run time, which takes tens of seconds, and Triton takes CUDA tensors: they
    have tests of their own.
    """
    name: str = request.param
    loaded = backends.load(name)
    if isinstance(loaded, str):
        pytest.skip(f"backend {name!r}: {loaded}")
    return name
