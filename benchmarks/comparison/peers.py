"""The divergence of each library behind one signature: a call computes the value and its gradient.

`x`, `y` are (N, D) and (M, D) torch tensors with uniform weights; C = |x-y|^2/2 and eps = blur^2 everywhere.
The gradient is that in x, or with `both` that in x above that in y, (N + M, D). What a peer needs (copies,
compilation) is prepared outside the returned call.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Step = Callable[[], tuple[Any, Any]]  # () -> (value, gradient), in the library's own array type

OTT_ITERATIONS = 20  # alternating: as many half-steps as GeomLoss takes on its schedule at scaling .7

NEEDS = {
    "otcore": ("otcore",),
    "geomloss tensorized": ("geomloss",),
    "geomloss online": ("geomloss", "pykeops"),
    "geomloss multiscale": ("geomloss", "pykeops"),
    "ott-jax": ("jax", "ott"),
    "pot": ("ot",),
    "torch.sort": ("torch",),
}


def absent(name: str) -> str | None:
    """Why the library cannot be used here, or None."""
    missing = [module for module in NEEDS[name] if importlib.util.find_spec(module) is None]
    return f"{', '.join(missing)} not installed" if missing else None


def value_and_gradient(
    loss: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor, *, both: bool = False
) -> Step:
    """Forward and backward of a torch loss."""
    x, y = x.detach().clone().requires_grad_(), y.detach().clone().requires_grad_(both)

    def step() -> tuple[Tensor, Tensor]:
        value = loss(x, y)
        gradients = torch.autograd.grad(value, (x, y) if both else (x,))
        return value.detach(), torch.cat(gradients) if both else gradients[0]

    return step


def geomloss(x: Tensor, y: Tensor, *, backend: str, blur: float, scaling: float, both: bool = False) -> Step:
    from geomloss import SamplesLoss

    loss = SamplesLoss("sinkhorn", p=2, blur=blur, scaling=scaling, backend=backend)
    return value_and_gradient(loss, x, y, both=both)


def ott(x: Tensor, y: Tensor, *, blur: float, iterations: int = OTT_ITERATIONS, both: bool = False) -> Step:
    """OTT-JAX's jitted sinkdiv: a fixed number of iterations, no stopping test, envelope gradient.

    OTT's cost is |x-y|^2 without the half, so its regularisation is 2 blur^2 and its value is halved.
    """
    import jax
    import jax.numpy as jnp
    from ott.tools.sinkhorn_divergence import sinkdiv

    solve = {
        "max_iterations": iterations,
        "min_iterations": iterations,
        "inner_iterations": iterations,
        "threshold": -1.0,
    }

    def loss(points: Any, others: Any) -> Any:
        return sinkdiv(points, others, epsilon=2 * blur**2, solve_kwargs=solve)[0] / 2

    def differentiated(points: Any, others: Any) -> tuple[Any, Any]:
        value, gradients = jax.value_and_grad(loss, (0, 1) if both else (0,))(points, others)
        return value, jnp.concatenate(gradients)

    compiled = jax.jit(differentiated)
    points, others = jnp.asarray(x.numpy()), jnp.asarray(y.numpy())

    def step() -> tuple[Any, Any]:
        return jax.block_until_ready(compiled(points, others))

    return step


def samples_loss(
    x: Tensor, y: Tensor, *, blur: float, scaling: float, backend: str = "auto", both: bool = False
) -> Step:
    """otcore's SamplesLoss: GeomLoss's schedule."""
    from otcore import SamplesLoss

    loss = SamplesLoss("sinkhorn", p=2, blur=blur, scaling=scaling, backend=backend)
    return value_and_gradient(loss, x, y, both=both)


def sinkhorn_divergence(
    x: Tensor, y: Tensor, *, blur: float, tol: float = 1e-2, backend: str = "auto", both: bool = False
) -> Step:
    """otcore's sinkhorn_divergence, converged to `tol`; the default is otcore's own."""
    from otcore import sinkhorn_divergence as divergence

    def loss(u: Tensor, v: Tensor) -> Tensor:
        value: Tensor = divergence(u, v, blur=blur, tol=tol, backend=backend)
        return value

    return value_and_gradient(loss, x, y, both=both)


def schedule_peer(
    name: str, x: Tensor, y: Tensor, *, blur: float, scaling: float, both: bool = False
) -> Step:
    """The peer `name` of NEEDS, set up for one problem."""
    if name == "ott-jax":
        return ott(x, y, blur=blur, both=both)
    return geomloss(x, y, backend=name.split()[1], blur=blur, scaling=scaling, both=both)


def as_tensor(array: Any) -> Tensor:
    """A peer's result as an fp64 torch tensor."""
    import numpy as np

    return torch.as_tensor(np.array(array), dtype=torch.float64)
