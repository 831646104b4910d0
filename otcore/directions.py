"""Directions to project on: drawn, or given and checked."""

from __future__ import annotations

import math
from typing import Any

import numpy
import torch
from torch import Tensor

from .problem import _array, _count

SAMPLINGS = ("normal", "orthogonal", "sobol")


def draw(
    d: int, n_projections: int, like: Tensor, sampling: str, generator: torch.Generator | None
) -> Tensor:
    """Unit columns (D, n_projections), uniform on the sphere, in the dtype and on the device of `like`.

    "normal" draws them independently, and from a seed the very ones that POT draws. "orthogonal" draws blocks
    of D at right angles. "sobol" takes a scrambled Sobol sequence to the sphere by way of normal quantiles.
    """
    if sampling == "normal":
        columns = torch.randn(d, n_projections, generator=generator, dtype=like.dtype, device=like.device)
        columns /= torch.linalg.vector_norm(columns, dim=0)
        return columns
    device = like.device if generator is None else generator.device
    if sampling == "orthogonal":
        blocks = -(-n_projections // max(d, 1))
        square = torch.randn(blocks, d, d, generator=generator, dtype=torch.float64, device=device)
        q, r = torch.linalg.qr(square)
        # With these signs, q is uniform among the orthogonal matrices (Mezzadri, math-ph/0609050).
        q = q * r.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)
        columns = q.transpose(0, 1).reshape(d, blocks * d)[:, :n_projections]
    else:
        seed = torch.randint(2**31, (), generator=generator, device=device)
        engine: Any = torch.quasirandom.SobolEngine(d, scramble=True, seed=int(seed))  # type: ignore[no-untyped-call]
        points = engine.draw(n_projections, dtype=torch.float64)
        columns = torch.special.ndtri(points.clamp(1e-12, 1.0 - 1e-12)).mT
        columns = columns / torch.linalg.vector_norm(columns, dim=0).clamp(min=1e-300)
    result: Tensor = columns.to(like.device, like.dtype).contiguous()
    return result


def draw_planes(d: int, n_projections: int, like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Orthonormal pairs (n_projections, D, 2), uniform among the planes."""
    pairs = torch.randn(n_projections, d, 2, generator=generator, dtype=like.dtype, device=like.device)
    planes: Tensor = torch.linalg.qr(pairs)[0]
    return planes


def make_generator(seed: Any, generator: Any, like: Tensor) -> torch.Generator | None:
    """The generator of a seed, or the given one; None for that of the device."""
    if generator is not None:
        if seed is not None:
            raise ValueError(f"seed is {seed!r} and generator is given; give one of them.")
        if not isinstance(generator, torch.Generator):
            raise ValueError(f"generator is {generator!r}; use a torch.Generator, or None.")
        return generator
    if seed is None:
        return None
    if not isinstance(seed, (int, numpy.integer)) or isinstance(seed, bool):
        raise ValueError(f"seed is {seed!r}; use a whole number, or generator=torch.Generator().")
    return torch.Generator(like.device).manual_seed(int(seed))


def make_projections(
    x: Tensor,
    items: int,
    n_projections: Any,
    projections: Any,
    seed: Any,
    generator: Any,
    sampling: Any,
) -> Tensor:
    """Projections (D, L) or (items, D, L), drawn or as given, of the shape and dtype that work."""
    d = x.shape[-1]
    if sampling not in SAMPLINGS:
        raise ValueError(f"sampling is {sampling!r}; use one of {', '.join(map(repr, SAMPLINGS))}.")
    if projections is None:
        count = _count("n_projections", n_projections)
        drawn_by = make_generator(seed, generator, x)
        return draw(d, count, x, sampling, drawn_by)
    if not isinstance(projections, Tensor):
        raise ValueError(
            f"projections is a {type(projections).__name__}; use a torch.Tensor (or NumPy arrays throughout)."
        )
    shape = tuple(projections.shape)
    batched = len(shape) == 3 and shape[0] == items
    if not (len(shape) == 2 or batched) or shape[-2] != d or shape[-1] < 1:
        raise ValueError(
            f"projections has shape {shape} and the points have {d} coordinates; use ({d}, L), one direction "
            f"a column, or ({items}, {d}, L)."
        )
    if projections.dtype != x.dtype and projections.dtype not in (torch.float16, torch.bfloat16):
        raise ValueError(
            f"projections has dtype {projections.dtype} and x is computed in {x.dtype}; convert it, for "
            "instance projections.to(x.dtype)."
        )
    if projections.device != x.device:
        raise ValueError(f"projections is on {projections.device} and x on {x.device}; move it, with .to().")
    return projections.to(x.dtype).contiguous()


def check_projections(projections: Tensor) -> None:
    """Given projections (..., D, L) are to be finite, and none of them 0."""
    # The sum of a column's sizes is finite only when all of it is, and 0 only when all of it is.
    sizes = abs(_array(projections.detach())).sum(-2)
    if float(sizes.min()) > 0 and float(sizes.max()) < math.inf:
        return
    sizes = torch.as_tensor(sizes)
    *_, column = (int(i) for i in (~(sizes > 0) | ~torch.isfinite(sizes)).nonzero()[0])
    bad = torch.as_tensor(projections.detach()).movedim(-1, 0)[column]
    what = "the zero vector" if not bool(bad.any()) else "values that are not finite"
    raise ValueError(
        f"projections has {what} in column {column}; every column must be a finite direction other than 0."
    )
