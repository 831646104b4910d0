"""All tolerances of the suite, and the rule behind them.

A kernel's error against the float64 reference may be at most twice the error of torch's own dense code in the
same dtype; a few units in the last place are granted where torch happens to be exact. A converged solve is
compared at the accuracy its marginal error implies.
"""

from __future__ import annotations

import torch
from torch import Tensor

# The marginal error to which tests solve, and the relative accuracy of values and gradients that follows from
# it.
SOLVE_TOL = {torch.float32: 1e-5, torch.float64: 1e-12}
SOLVED_RTOL = {torch.float32: 1e-4, torch.float64: 1e-9}
# Quadrature and series references.
REFERENCE_RTOL = 1e-8

_LAST_PLACES = 8


def rounding(dtype: torch.dtype, scale: float = 1.0) -> float:
    """A few units in the last place of numbers of the given size."""
    return _LAST_PLACES * torch.finfo(dtype).eps * scale


def assert_as_accurate(got: Tensor, torch_result: Tensor, reference: Tensor, logits: float = 1.0) -> None:
    """The twice-torch's-error rule: both results in their dtype against the float64 reference.

    A logit of size `logits` cannot be held better than to its last place, which is a relative error of the
    exponentials; torch's own error is granted that much where it happens to be smaller.
    """
    scale = float(reference.abs().max())
    last_place = logits * torch.finfo(got.dtype).eps * scale
    allowed = 2.0 * max(_error(torch_result, reference), last_place) + rounding(got.dtype, scale)
    error = _error(got, reference)
    assert error <= allowed, f"error {error:.2e}, allowed {allowed:.2e} by torch's own in {got.dtype}"


def assert_solved(got: Tensor, expected: Tensor | float, dtype: torch.dtype = torch.float64) -> None:
    """A converged result against its expected value, relative to the largest entry, or to 1."""
    expected = torch.as_tensor(expected, dtype=torch.float64)
    error = _error(got, expected)
    allowed = SOLVED_RTOL[dtype] * max(1.0, float(expected.detach().abs().max()))
    assert error <= allowed, f"error {error:.2e}, allowed {allowed:.2e}"


def without_constant(potential: Tensor, weights: Tensor) -> Tensor:
    """A potential with its free additive constant removed: its weighted mean is 0."""
    mean = (weights * potential).sum(-1, keepdim=True) / weights.sum(-1, keepdim=True)
    return potential - mean


def _error(got: Tensor, reference: Tensor) -> float:
    return float((got.detach().double() - reference.detach()).abs().max())
