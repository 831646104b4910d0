"""How the conformance tests solve, how exactly the result must then hold, and the problems they draw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from otcore import sinkhorn_divergence
from tests.problems import cloud, weights

TOL = {torch.float32: 1e-5, torch.float64: 1e-10}
BACKENDS = ["cpu", "dense"]
DTYPES = [torch.float32, torch.float64]


def solve(x: Tensor, y: Tensor, a: Tensor | None = None, b: Tensor | None = None, **options: Any) -> Tensor:
    """The value at TOL in float64; warnings of an unconverged solve are errors in this suite."""
    return sinkhorn_divergence(x, y, a, b, **{"tol": TOL[x.dtype], "max_iter": 5000, **options}).double()


def largest_cost(x: Tensor, y: Tensor, p: int) -> float:
    """Of the largest distance of two points or of one from the origin: points are rounded as well."""
    longest = 2.0 * max(float(t.double().norm(dim=-1).max()) for t in (x, y))
    return longest**p / p


def allowed(x: Tensor, y: Tensor, p: int, eps: float, mass: float = 1.0) -> float:
    """How far a converged value may be from the exact one.

    The dual is concave: a value is off by at most the marginal error times the error of the potentials, and
    these by at most the largest cost; for each of three transports. Rounding in the D + 16 operations of a
    logit and its exponential comes to as many units in the last place of the largest cost, or of eps.
    """
    size = largest_cost(x, y, p) + eps
    last_places = (x.shape[-1] + 16) * torch.finfo(x.dtype).eps
    return 3.0 * mass * max(1.0, mass) * size * (TOL[x.dtype] + last_places)


@dataclass(frozen=True)
class Drawn:
    """A problem, with everything a value depends on."""

    seed: int
    n: int
    m: int
    d: int
    p: int
    blur: float
    reach: Any
    dtype: torch.dtype
    backend: str

    @property
    def options(self) -> dict[str, Any]:
        return {"p": self.p, "blur": self.blur, "reach": self.reach, "backend": self.backend}

    @property
    def eps(self) -> float:
        return self.blur**self.p

    def clouds(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x, y, a, b; the masses differ where they may."""
        mass = 1.0 if self.reach is None else 1.5
        x, y = cloud(self.n, self.d, self.seed), 0.7 * cloud(self.m, self.d, self.seed + 1) + 0.2
        a, b = weights(self.n, self.seed + 2), weights(self.m, self.seed + 3, mass=mass)
        return tuple(t.to(self.dtype) for t in (x, y, a, b))  # type: ignore[return-value]

    def close(self, got: Tensor, expected: Tensor | float, scale: float = 1.0) -> None:
        """Both within what is allowed of this problem's values, magnified `scale` times in length."""
        x, y, _, b = self.clouds()
        mass = float(b.sum())
        error = float((got - torch.as_tensor(expected, dtype=torch.float64)).abs().max())
        limit = 2.0 * allowed(x * scale, y * scale, self.p, self.eps * scale**self.p, mass)
        assert error <= limit, f"{got} and {expected} differ by {error:.2e}, allowed {limit:.2e}"


def drawn(reaches: tuple[Any, ...] = (None, 0.5, (0.7, 0.4), (None, 0.6))) -> st.SearchStrategy[Drawn]:
    """Small problems on both backends, in both precisions."""
    return st.builds(
        Drawn,
        seed=st.integers(0, 10_000),
        n=st.integers(1, 16),
        m=st.integers(1, 16),
        d=st.sampled_from([1, 2, 3, 7]),
        p=st.sampled_from([1, 2]),
        blur=st.sampled_from([0.15, 0.4, 2.0]),
        reach=st.sampled_from(reaches),
        dtype=st.sampled_from(DTYPES),
        backend=st.sampled_from(BACKENDS),
    )
