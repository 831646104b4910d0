"""Transport on the line."""

from __future__ import annotations

import math
from typing import Any

import numpy
import torch

from .functional import _from_numpy, full_precision
from .problem import make_problem
from .sliced import power_of
from .sliced_operators import Measures, sliced


@full_precision
def wasserstein_1d(
    u_values: Any,
    v_values: Any,
    u_weights: Any = None,
    v_weights: Any = None,
    p: float = 1,
    require_sort: bool = True,
) -> Any:
    """W_p^p between measures on the line: the integral of |Q_u - Q_v|^p of their quantile functions.

    Args:
        u_values, v_values: positions, (N,) and (M,), giving a scalar, or (N, ...) and (M, ...), one measure a
            column, giving (...). Tensors, or NumPy arrays throughout.
        u_weights, v_weights: weights shaped as the positions, or (N,) and (M,) for all columns, of equal
            masses; uniform of mass 1 when None.
        p: the exponent, at least 1. As in POT the result is the power, not its root.
        require_sort: accepted for POT's sake; positions may be in any order.

    Returns:
        The cost, differentiable in positions and weights, of any order.

    Raises:
        ValueError: on unusable arguments, naming the argument, what it was and what would work.
    """
    as_numpy = isinstance(u_values, numpy.ndarray)
    given = {"u_values": u_values, "v_values": v_values, "u_weights": u_weights, "v_weights": v_weights}
    if as_numpy:
        given = {name: _from_numpy(name, array) for name, array in given.items()}
    tensors = dict(given)
    for name, tensor in given.items():
        if tensor is None:
            continue
        if not isinstance(tensor, torch.Tensor):
            raise ValueError(f"{name} is a {type(tensor).__name__}; use a torch.Tensor, or NumPy arrays.")
        positions = given[name[0] + "_values"]
        if tensor.dim() < 1 or not len(tensor):
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}; use (N, ...) with at least one point.")
        if name.endswith("weights"):
            if tensor.shape not in (positions.shape, positions.shape[:1]):
                raise ValueError(
                    f"{name} has shape {tuple(tensor.shape)} and {name[0]}_values has shape "
                    f"{tuple(positions.shape)}; use that, or {tuple(positions.shape[:1])}."
                )
            tensor = tensor.view(-1, *(1,) * (positions.dim() - tensor.dim()), *tensor.shape[1:])
            tensor = tensor.expand(positions.shape)
        tensors[name] = tensor
    u, v = tensors["u_values"], tensors["v_values"]
    if u.shape[1:] != v.shape[1:]:
        raise ValueError(
            f"u_values has shape {tuple(u.shape)} and v_values has shape {tuple(v.shape)}; "
            "only their first dimensions may differ."
        )
    columns = math.prod(u.shape[1:])
    # One column an item; reshaped to (columns, N, 1) and (columns, N).
    x, y, a, b = (None if t is None else t.reshape(len(t), columns).mT for t in tensors.values())
    try:
        assert x is not None
        assert y is not None
        problem = make_problem(x.unsqueeze(-1), y.unsqueeze(-1), a, b)
        measures = Measures(problem.x, problem.y, problem.a, problem.b, problem.weighted, (), ())
        value, _ = sliced(measures, problem.x.new_ones(1, 1), power_of(p), False, False)
    except ValueError as error:
        names = {"x ": "u_values ", "y ": "v_values ", "a ": "u_weights ", "b ": "v_weights "}
        text = str(error)
        raise ValueError(names.get(text[:2], text[:2]) + text[2:]) from None
    value = value.reshape(u.shape[1:])
    return value.detach().numpy()[()] if as_numpy else value
