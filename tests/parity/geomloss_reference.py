"""GeomLoss as a reference: values, gradients and potentials of one problem.

Known defects of GeomLoss 0.3.1 that these helpers keep out of the comparison:
- forward() leaves gradient recording enabled, even inside torch.no_grad: `restored` puts the mode back;
- potentials of an unbatched problem come as (1, N) and (1, M): `measure_potentials` drops the 1;
- p = 1 takes distances from |x|^2 - 2xy + |y|^2, which loses half the digits for near pairs, and then
  divides by them: `direct=True` gives its loop distances from differences, through its `cost` argument;
- log 0 is -1e5: see Drawn in drawn.py for where that is not enough;
- the unbalanced gradient lacks a factor (rho + eps)/(rho + eps/2): see test_geomloss.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

Results = dict[str, Tensor]


@contextmanager
def restored() -> Iterator[None]:
    before = torch.is_grad_enabled()
    try:
        yield
    finally:
        torch.set_grad_enabled(before)


def direct_distances(x: Tensor, y: Tensor) -> Tensor:
    """GeomLoss's cost for p = 1, from differences: (B, N, D), (B, M, D) -> (B, N, M)."""
    return ((x[:, :, None, :] - y[:, None, :, :]) ** 2).sum(-1).clamp_min(1e-8).sqrt()


def loss(direct: bool = False, **options: Any) -> Any:
    """GeomLoss's tensorized SamplesLoss with these options."""
    from geomloss import SamplesLoss

    if direct and options.get("p", 2) == 1:
        options["cost"] = direct_distances
    return SamplesLoss("sinkhorn", backend="tensorized", **options)


def measure(samples_loss: Any, x: Tensor, y: Tensor, weights: tuple[Tensor, Tensor] | None = None) -> Results:
    """value, and the gradients of its sum in x, y and, with weights, in a, b. For any library's
    SamplesLoss."""
    leaves = {"x": x, "y": y} | ({"a": weights[0], "b": weights[1]} if weights else {})
    leaves = {name: t.detach().clone().requires_grad_() for name, t in leaves.items()}
    with restored():
        value = samples_loss(*_arguments(leaves))
        gradients = torch.autograd.grad(value.sum(), list(leaves.values()))
    return {"value": value.detach()} | {f"d/d{n}": g for n, g in zip(leaves, gradients, strict=True)}


def measure_potentials(
    samples_loss: Any, x: Tensor, y: Tensor, weights: tuple[Tensor, Tensor] | None = None
) -> Results:
    """Potentials (the loss was made with potentials=True) and the gradients in x and y of one linear
    function of them, the same for every library."""
    leaves = {"x": x, "y": y} | ({"a": weights[0], "b": weights[1]} if weights else {})
    leaves = {name: t.detach().clone().requires_grad_(name in "xy") for name, t in leaves.items()}
    draw = torch.Generator().manual_seed(7)
    with restored():
        f, g = samples_loss(*_arguments(leaves))
        along = [torch.randn(t.shape, generator=draw, dtype=torch.float64).to(t) for t in (f, g)]
        gradients = torch.autograd.grad(
            (along[0] * f).sum() + (along[1] * g).sum(), (leaves["x"], leaves["y"])
        )
    f, g = f.detach().reshape(x.shape[:-1]), g.detach().reshape(y.shape[:-1])
    return {"f": f, "g": g, "d/dx": gradients[0], "d/dy": gradients[1]}


def _arguments(leaves: Results) -> tuple[Tensor, ...]:
    order = ("a", "x", "b", "y") if "a" in leaves else ("x", "y")
    return tuple(leaves[name] for name in order)


def errors(found: Results, exact: Results) -> dict[str, float]:
    """Relative errors, in the Euclidean norm, of each result."""
    assert found.keys() == exact.keys()
    out = {}
    for name, reference in exact.items():
        assert found[name].shape == reference.shape, f"{name}: {found[name].shape} for {reference.shape}"
        scale = reference.double().norm()
        out[name] = float((found[name].double() - reference.double()).norm() / scale.clamp_min(1e-300))
    return out
