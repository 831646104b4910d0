"""The sliced Wasserstein distance of points on the sphere, along great circles."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .directions import draw_planes, make_generator
from .functional import _from_numpy, full_precision
from .problem import _count
from .quantiles import rooted, transport_on_circle
from .sliced import as_given, checked_clouds, make_solution, power_of
from .sliced_operators import Measures, check_measures

_ON_SPHERE = 1e-4


@full_precision
def sliced_wasserstein_sphere(
    x: Any,
    y: Any,
    a: Any = None,
    b: Any = None,
    n_projections: int = 50,
    p: float = 2,
    projections: Any = None,
    seed: int | None = None,
    *,
    generator: torch.Generator | None = None,
    root: bool = True,
    return_solution: bool = False,
) -> Any:
    """The spherical sliced distance (mean over great circles of W_p^p)^(1/p) of points on the unit sphere.

    Points are projected on planes, and from there on the unit circle; angles are in turns, so that the circle
    has length 1, as in POT. Shapes, weights, dtypes and results are those of `sliced_wasserstein_distance`,
    except ragged batches; it runs in plain PyTorch, in float64. The cost along a circle is exact: the best
    shift is bisected, not searched on a grid. Gradients are those at the best shift.

    Args:
        x, y: points of length 1 up to 1e-4, (N, D) and (M, D) with D >= 2, or with a batch dimension.
        projections: orthonormal pairs (L, D, 2) that span the planes, instead of drawn ones.

    Source: Bonet et al., "Spherical sliced-Wasserstein", arXiv:2206.08780.
    """
    measures, form = checked_clouds(x, y, a, b, single=False)
    p = power_of(p)
    d = measures.x.shape[-1]
    if measures.n:
        raise ValueError("x is a ragged batch; use (N, D) or (B, N, D), or one call an item.")
    if d < 2:
        raise ValueError(f"x has {d} coordinates a point; a sphere needs at least 2.")
    if projections is None:
        count = _count("n_projections", n_projections)
        projections = draw_planes(d, count, measures.x, make_generator(seed, generator, measures.x))
    elif form.numpy:
        projections = _from_numpy("projections", projections)
    if not isinstance(projections, Tensor) or projections.shape[1:] != (d, 2) or not len(projections):
        shape = tuple(getattr(projections, "shape", ())) or type(projections).__name__
        raise ValueError(f"projections is {shape}; use (L, {d}, 2), orthonormal pairs.")
    with torch.no_grad():
        check_measures(measures)
        _check_lengths(measures)
    planes = projections.double()
    gram = planes.detach().mT @ planes.detach()
    if not bool(((gram - torch.eye(2, dtype=gram.dtype, device=gram.device)).abs() < _ON_SPHERE).all()):
        raise ValueError("projections are not orthonormal pairs; use torch.linalg.qr(projections)[0].")
    u, v = (_turns(points.double(), planes) for points in (measures.x, measures.y))
    a, b = (measures.a, measures.b) if measures.weighted else (None, None)
    a, b = (None if w is None else w.double().unsqueeze(1) for w in (a, b))
    costs = transport_on_circle(u, v, a, b, p)
    mean = costs.mean(-1)
    value = (rooted(mean, p) if root else mean).to(measures.x.dtype)
    if not return_solution:
        return as_given(form, value)
    shown = projections.detach().numpy() if form.numpy else projections
    return make_solution(form, value, costs.to(value.dtype), shown, p, root)


def _turns(points: Tensor, planes: Tensor) -> Tensor:
    """Where the points (B, N, D) lie on the circles of (L, D, 2), in turns: (B, L, N) in [0, 1]."""
    first, second = ((points @ planes[..., i].mT).mT for i in (0, 1))
    # From -x, as in POT: angles then start at 0 where they jump. A point at right angles to the plane has no
    # place on the circle, and no derivative; it is put at angle 0.
    nowhere = (first == 0) & (second == 0)
    first = torch.where(nowhere, -1.0, first)
    return (math.pi + torch.atan2(-second, -first)) / (2.0 * math.pi)


def _check_lengths(measures: Measures) -> None:
    for name, points in (("x", measures.x), ("y", measures.y)):
        gap = (points.double().square().sum(-1) - 1.0).abs()
        if float(gap.max()) > _ON_SPHERE:
            item, point = (int(i) for i in (gap > _ON_SPHERE).nonzero()[0])
            length = float(points[item, point].norm())
            raise ValueError(
                f"{name} has a point of length {length:.6g}, number {point}; points are to be on the unit "
                f"sphere, for instance torch.nn.functional.normalize({name}, dim=-1)."
            )
