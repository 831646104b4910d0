"""Bad input: every error names the argument, says what it was, and says what would work."""

from __future__ import annotations

import math
import warnings
from typing import Any

import hypothesis
import numpy
import pytest
import torch
from hypothesis import strategies as st

import otcore
from tests.problems import cloud, uniform, weights

X, Y = cloud(6, 2, 0), cloud(5, 2, 1)
A, B = weights(6, 2), weights(5, 3)
NAN = math.nan


def changed(tensor: torch.Tensor, value: float) -> torch.Tensor:
    tensor = tensor.clone()
    tensor.view(-1)[3] = value
    return tensor


# What is passed instead of, or besides, good clouds; the argument; what it was; what would work.
BAD: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "x is a list of numbers": (
        {"x": [[0.0, 1.0]], "y": [[0.0, 1.0]], "a": None, "b": None},
        "x",
        "list",
        "torch.Tensor",
    ),
    "x is one point": ({"x": X[0]}, "x", r"\(2,\)", r"\(N, D\)"),
    "x has four dimensions": ({"x": X[None, None]}, "x", r"\(1, 1, 6, 2\)", r"\(B, N, D\)"),
    "x is empty": ({"x": X[:0]}, "x", r"\(0, 2\)", "at least one point"),
    "y is empty": ({"y": Y[:0]}, "y", r"\(0, 2\)", "at least one point"),
    "empty batch": ({"x": X[None][:0], "y": Y[None][:0]}, "x", r"\(0, 6, 2\)", "at least one"),
    "x is integer": ({"x": X.long()}, "x", "int64", "float32"),
    "one batched": ({"x": X[None]}, "x", r"\(1, 6, 2\)", r"\(B, N, D\)"),
    "different D": ({"y": Y[:, :1]}, "y", "1", "one space"),
    "different batch": ({"x": X.expand(3, 6, 2), "y": Y.expand(2, 5, 2)}, "x", "3", "expand"),
    "different dtype": ({"y": Y.float()}, "y", "float32", r"y.to\(x.dtype\)"),
    "different device": ({"y": Y.to("meta")}, "y", "meta", r"y.to\(x.device\)"),
    "x has nan": ({"x": changed(X, NAN)}, "x", r"nan at \[1, 1\]", "finite"),
    "y has inf": ({"y": changed(Y, math.inf)}, "y", r"inf at \[1, 1\]", "finite"),
    "nan in a batch": ({"x": changed(X, NAN)[None], "y": Y[None]}, "x", "nan", "finite"),
    "a is a list": ({"a": [1.0] * 6}, "a", "list", "torch.Tensor"),
    "a has another length": ({"a": B}, "a", r"\(5,\)", r"\(6,\)"),
    "a is a column": ({"a": A[:, None]}, "a", r"\(6, 1\)", r"\(6,\)"),
    "a has another dtype": ({"a": A.float()}, "a", "float32", r"a.to\(x.dtype\)"),
    "a is elsewhere": ({"a": A.to("meta")}, "a", "meta", "move"),
    "a is negative": ({"a": changed(A, -0.5)}, "a", r"-0.5 at \[3\]", "clamp"),
    "b has nan": ({"b": changed(B, NAN)}, "b", r"nan at \[3\]", "not negative"),
    "a has inf": ({"a": changed(A, math.inf)}, "a", "inf", "finite"),
    "a has no mass": ({"a": torch.zeros_like(A)}, "a", "0.0", "positive"),
    "different masses": ({"a": 2.0 * A}, "a", "2", "reach"),
    "p is 3": ({"p": 3}, "p", "3", "use 1"),
    "blur is zero": ({"blur": 0.0}, "blur", "0.0", "positive"),
    "blur is negative": ({"blur": -1.0}, "blur", "-1.0", "positive"),
    "blur is nan": ({"blur": NAN}, "blur", "nan", "positive"),
    "blur is infinite": ({"blur": math.inf}, "blur", "inf", "finite"),
    "blur is text": ({"blur": "small"}, "blur", "small", "positive"),
    "blur and eps": ({"blur": 0.1, "eps": 0.01}, "blur", "0.01", "one of them"),
    "eps is zero": ({"eps": 0.0}, "eps", "0.0", "positive"),
    "reach is zero": ({"reach": 0.0}, "reach", "0.0", "positive"),
    "reach has three": ({"reach": (1.0, 1.0, 1.0)}, "reach", r"\(1.0, 1.0, 1.0\)", "pair"),
    "one reach of a pair": ({"reach": (1.0, -2.0)}, "reach", "-2.0", "positive"),
    "scaling is one": ({"scaling": 1.0}, "scaling", "1.0", "between 0 and 1"),
    "scaling is zero": ({"scaling": 0.0}, "scaling", "0.0", "between 0 and 1"),
    "diameter is zero": ({"diameter": 0.0}, "diameter", "0.0", "positive"),
    "tol is zero": ({"tol": 0.0}, "tol", "0.0", "positive"),
    "max_iter is zero": ({"max_iter": 0}, "max_iter", "0", "at least 1"),
    "max_iter is a fraction": ({"max_iter": 2.5}, "max_iter", "2.5", "whole number"),
    "cost is text": ({"cost": "euclidean"}, "cost", "euclidean", "sqeuclidean"),
    "backend is unknown": ({"backend": "gpu"}, "backend", "gpu", "dense"),
    "backend is no name": ({"backend": None}, "backend", "None", "auto"),
    "init is a tensor": ({"init": A}, "init", "Tensor", "Solution"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case: str) -> None:
    arguments, name, was, works = BAD[case]
    options: dict[str, Any] = {"x": X, "y": Y, **arguments}
    with pytest.raises(ValueError, match=rf"(?s)^{name}.*{was}.*{works}|^[a-z]+ .*{name}.*{was}.*{works}"):
        otcore.sinkhorn_divergence(options.pop("x"), options.pop("y"), **options)


def test_masses_may_differ_when_unbalanced() -> None:
    assert bool(otcore.sinkhorn_divergence(X, Y, 2.0 * A, B, reach=0.5).isfinite())
    assert bool(otcore.sinkhorn_divergence(X, Y, 2.0 * A, B, reach=(0.5, None)).isfinite())


def test_init_of_another_kind() -> None:
    short = otcore.sinkhorn_divergence(X[:4], Y, return_solution=True)
    with pytest.raises(
        ValueError, match=r"init.f has shape \(1, 4\); use a Solution of clouds of these sizes"
    ):
        otcore.sinkhorn_divergence(X, Y, init=short)
    biased = otcore.sinkhorn(X, Y)
    with pytest.raises(
        ValueError, match=r"init has no f_xx; use a Solution of the same kind \(debias=True\)"
    ):
        otcore.sinkhorn_divergence(X, Y, init=biased)


def test_a_refusal_gives_its_reason() -> None:
    huge = torch.zeros(1, 1, dtype=torch.float64).expand(2**16, 1)
    with pytest.raises(ValueError, match=r"backend 'dense' refuses: it stores matrices of .* entries"):
        otcore.sinkhorn_divergence(huge, huge, backend="dense")


def test_numpy_and_torch_do_not_mix() -> None:
    with pytest.raises(ValueError, match="y is a Tensor and x a NumPy array; use one kind throughout"):
        otcore.sinkhorn_divergence(X.numpy(), Y)
    with pytest.raises(ValueError, match=r"y is a ndarray; use a torch\.Tensor"):
        otcore.sinkhorn_divergence(X, Y.numpy())


def test_numpy_in_numpy_out() -> None:
    value = otcore.sinkhorn_divergence(X.numpy(), Y.numpy(), A.numpy(), B.numpy())
    assert isinstance(value, numpy.float64)
    assert value == otcore.sinkhorn_divergence(X, Y, A, B).item()
    batch = otcore.sinkhorn_divergence(X[None].numpy(), Y[None].numpy())
    assert isinstance(batch, numpy.ndarray)
    assert batch.shape == (1,)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    x, y = X.to(dtype).requires_grad_(), Y.to(dtype)
    value = otcore.sinkhorn_divergence(x, y, uniform(x), uniform(y).float())
    assert value.dtype == torch.float32
    assert torch.equal(
        value, otcore.sinkhorn_divergence(x.float(), y.float(), uniform(x).float(), uniform(y).float())
    )
    value.backward()
    assert x.grad is not None
    assert x.grad.dtype == dtype


def test_non_contiguous_clouds() -> None:
    assert torch.equal(
        otcore.sinkhorn_divergence(X.T.contiguous().T, Y.flip(0).flip(0)), otcore.sinkhorn_divergence(X, Y)
    )


reals = st.floats(width=32, allow_nan=True, allow_infinity=True)


def attempt(*arguments: Any, **options: Any) -> torch.Tensor | ValueError:
    """The value, converged or not, or the error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", otcore.ConvergenceWarning)
        try:
            return otcore.sinkhorn_divergence(*arguments, **options)
        except ValueError as error:
            return error


@hypothesis.given(
    n=st.integers(0, 5),
    m=st.integers(0, 5),
    d=st.integers(0, 3),
    other_d=st.integers(0, 3),
    fill=st.lists(reals, min_size=1, max_size=4),
    mass=st.lists(reals, min_size=1, max_size=3),
    blur=reals,
    reach=st.one_of(st.none(), reals, st.tuples(reals, reals)),
    scaling=reals,
)
def test_any_input_gives_a_number_or_a_value_error(
    n: int,
    m: int,
    d: int,
    other_d: int,
    fill: list[float],
    mass: list[float],
    blur: float,
    reach: Any,
    scaling: float,
) -> None:
    """No other exception, no NaN, whatever comes in."""

    def filled(values: list[float], *shape: int) -> torch.Tensor:
        size = math.prod(shape)
        return torch.tensor((values * (size + 1))[:size], dtype=torch.float64).view(shape)

    arguments = filled(fill, n, d), filled(fill[::-1], m, other_d), filled(mass, n), filled(mass, m)
    options = {"blur": blur, "reach": reach, "scaling": scaling, "max_iter": 5}
    outcome = attempt(*arguments, **options)
    if isinstance(outcome, ValueError):
        assert str(outcome).split()[0] in {"x", "y", "a", "b", "blur", "reach", "scaling"}, outcome
    else:
        assert bool(outcome.isfinite()), (arguments, options)
