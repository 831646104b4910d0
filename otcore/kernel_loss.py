"""Maximum mean discrepancies and the kernel losses of `SamplesLoss`, in memory linear in the points.

A radial kernel k compares two measures by <a - b, k * (a - b)>. On CPU tensors the sums over pairs run in the
compiled kernels, each pair once, with the gradient in the same pass; on other devices in plain PyTorch, a
block of rows at a time. Differences of coordinates are taken, not expanded squares, so points that nearly
coincide keep their distance, and a shift of both clouds leaves every digit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy
import torch
from torch import Tensor

from .functional import _from_numpy, full_precision
from .kernel_operators import Options, kernel_loss
from .problem import DEFAULT_BLUR, Problem, _positive, check_values, is_ragged, make_problem

KernelFunction = Callable[..., Tensor]

KERNEL_LOSSES = ("energy", "gaussian", "laplacian", "hausdorff")
_KERNELS = ("gaussian", "laplacian", "energy", "inverse_multiquadric")
_BACKENDS = ("auto", "cpu", "dense")


@full_precision
def maximum_mean_discrepancy(
    x: Any,
    y: Any,
    a: Any = None,
    b: Any = None,
    *,
    kernel: str = "gaussian",
    blur: float | Sequence[float] = DEFAULT_BLUR,
    unbiased: bool = False,
    backend: str = "auto",
) -> Any:
    """The squared maximum mean discrepancy <a - b, k * (a - b)> of two clouds, differentiable.

    Clouds are (N, D) and (M, D), giving a scalar, (B, N, D) and (B, M, D), giving (B,), or two lists of (N,
    D) and (M, D) tensors of any sizes, giving one value an item. They are float32 or float64 (computed as
    such), float16 or bfloat16 (computed and returned in float32), on one device; or all NumPy arrays, and
    then the result is too. First and second derivatives; the latter take memory quadratic in the points.

    Args:
        x, y: the points.
        a, b: their weights, (N,) and (M,), with the batch dimension if there is one; uniform of mass 1 when
            None. Of any mass, not negative. For "energy" masses must be equal, or the result is not a
            distance and may be negative.
        kernel: k(x, y), with d = |x - y|: "gaussian" exp(-d^2 / (2 blur^2)), "laplacian" exp(-d / blur),
            "energy" -d, which gives the energy distance, "inverse_multiquadric" blur^2 / (blur^2 + d^2).
            Wasserstein autoencoders write the last C / (C + d^2): blur is the square root of C.
        blur: the length of the kernel; the kernels of a sequence of lengths are added. "energy" has none.
        unbiased: whether to leave the pairs of a point with itself out and divide by n (n - 1): the unbiased
            estimate from two samples, which may be negative. For uniform weights, given as None, and at least
            two points in each cloud.
        backend: "cpu", the compiled kernels, "dense", the reference in plain PyTorch, or "auto".

    Returns:
        The discrepancy, not halved: twice `SamplesLoss` of that name.

    Raises:
        ValueError: on unusable arguments, naming the argument, what it was and what would work.

    Source: Gretton et al., "A kernel two-sample test", JMLR 2012; Tolstikhin et al., arXiv:1711.01558, for
        the inverse multiquadric and the unbiased estimate as a loss.
    """
    if kernel not in _KERNELS:
        raise ValueError(f"kernel is {kernel!r}; use one of {', '.join(map(repr, _KERNELS))}.")
    if unbiased and (a is not None or b is not None):
        raise ValueError(
            f"unbiased is {unbiased!r} and weights are given; leave a and b at None: the estimate is for "
            "uniform ones."
        )
    first = x[0] if isinstance(x, (list, tuple)) and x else x
    as_numpy = isinstance(first, numpy.ndarray)
    if as_numpy:
        x, y, a, b = (_from_numpy(name, given) for name, given in (("x", x), ("y", y), ("a", a), ("b", b)))
    problem = kernel_problem(x, y, a, b, backend=backend)
    options = Options(kernel, _lengths(kernel, blur), bool(unbiased), 2, backend)
    values = []
    for item in problem.split():
        if unbiased and min(item.x.shape[1], item.y.shape[1]) < 2:
            name = "x" if item.x.shape[1] < 2 else "y"
            raise ValueError(
                f"{name} has one point; the unbiased estimate needs at least two, or unbiased=False."
            )
        values.append(2.0 * kernel_loss(item, options, False)[0])
    value = values[0] if len(values) == 1 else torch.cat(values)
    if not is_ragged(x) and x.dim() == 2:
        value = value.squeeze(0)
    return value.numpy()[()] if as_numpy else value


def kernel_problem(x: Any, y: Any, a: Any, b: Any, *, backend: str) -> Problem:
    """The clouds, checked and batched; their masses may differ."""
    if backend not in _BACKENDS:
        raise ValueError(f"backend is {backend!r}; use one of {', '.join(map(repr, _BACKENDS))} for kernels.")
    problem = make_problem(x, y, a, b, reach=1.0, backend=backend)
    if backend == "cpu" and problem.x.device.type != "cpu":
        raise ValueError(
            f'backend is "cpu" and x is on {problem.x.device}; use "auto", or move it with .cpu().'
        )
    return problem


def _lengths(kernel: str, blur: float | Sequence[float]) -> list[float]:
    if kernel == "energy":
        return []
    lengths = list(blur) if isinstance(blur, Sequence) and not isinstance(blur, str) else [blur]
    if not lengths or blur is None or (kernel == "hausdorff" and len(lengths) > 1):
        raise ValueError(f"blur is {blur!r}; use a positive length (or, for a kernel, several to add).")
    return [_positive("blur", length) for length in lengths]


def named_loss(
    problem: Problem, loss: str, blur: float, p: int, potentials: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """One of `KERNEL_LOSSES`, (B,), and its potentials, (B, N) and (B, M)."""
    return kernel_loss(problem, Options(loss, _lengths(loss, blur), False, p, problem.backend), potentials)


def custom_loss(problem: Problem, kernel: KernelFunction, blur: float) -> tuple[Tensor, Tensor, Tensor]:
    """The same for a function kernel(x, y, blur=blur) of (B, N, D) and (B, M, D) tensors giving (B, N, M).

    On matrices, and differentiated by autograd. The kernel should be symmetric and positive.
    """
    with torch.no_grad():
        check_values(problem)
    x, y, a, b = problem.x, problem.y, problem.a, problem.b
    across = kernel(x, y, blur=blur)
    shape = (x.shape[0], x.shape[1], y.shape[1])
    if not isinstance(across, Tensor) or across.shape != shape:
        got = tuple(across.shape) if isinstance(across, Tensor) else type(across).__name__
        raise ValueError(f"kernel gave {got} for x and y; it should give a tensor of shape {shape}.")
    phi_x = _times(kernel(x, x, blur=blur), a) - _times(across, b)
    phi_y = _times(kernel(y, y, blur=blur), b) - _times(across.mT, a)
    return 0.5 * ((a * phi_x).sum(-1) + (b * phi_y).sum(-1)), phi_x, phi_y


def _times(matrix: Tensor, weights: Tensor) -> Tensor:
    return (matrix @ weights.unsqueeze(-1)).squeeze(-1)
