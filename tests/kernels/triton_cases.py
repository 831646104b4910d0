"""What the Triton verbs must do on any device, against the dense oracle in float64.

Used under Triton's interpreter (interpreted/check_verbs.py) and on a GPU (test_triton_gpu.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from otcore.backends.clouds import Cloud, Pairs
from otcore.backends.dense import Dense
from otcore.backends.triton import Triton
from tests.problems import cloud, weights
from tests.tolerance import assert_as_accurate, assert_solved


@dataclass(frozen=True)
class Draw:
    """A random problem, and how the kernels are to read its points (see `Pairs.choice`)."""

    n: int
    m: int
    d: int
    p: int
    dtype: torch.dtype
    blur: float
    layout: str
    distance: float = 0.3
    floor: float = 0.0
    batch: int = 2

    @property
    def ground(self) -> dict[str, Any]:
        return {"cost": self.p, "eps": self.blur**self.p, "floor": self.floor}


DRAWS = [
    Draw(1, 1, 1, 2, torch.float32, 0.2, "split"),
    Draw(1, 40, 3, 1, torch.float32, 0.2, "differences"),
    Draw(33, 1, 3, 2, torch.float64, 0.2, "wide"),
    Draw(35, 70, 17, 2, torch.float32, 0.2, "split"),
    Draw(70, 33, 64, 2, torch.float32, 0.5, "split", batch=1),
    Draw(33, 35, 130, 2, torch.float32, 0.7, "split", batch=1),
    Draw(34, 33, 130, 2, torch.float64, 0.7, "wide", batch=1),
    Draw(33, 40, 17, 2, torch.float32, 0.02, "differences"),
    Draw(33, 40, 3, 2, torch.float32, 0.015, "centred", distance=8.0),
    Draw(40, 35, 64, 2, torch.float16, 0.5, "raw", batch=1),
    Draw(35, 40, 17, 2, torch.bfloat16, 0.5, "raw"),
    Draw(35, 40, 3, 2, torch.bfloat16, 0.2, "split", distance=3.0),
    Draw(40, 33, 17, 1, torch.float32, 0.2, "differences", floor=0.04),
    Draw(33, 34, 3, 1, torch.float64, 0.2, "wide", floor=0.04),
    Draw(33, 34, 17, 1, torch.float16, 0.2, "differences"),
]


@dataclass(frozen=True)
class Clouds:
    """Two clouds in a batch, with potentials and weights."""

    x: Tensor
    y: Tensor
    f: Tensor
    g: Tensor
    a: Tensor
    b: Tensor

    def __iter__(self) -> Any:
        return iter((self.x, self.y, self.f, self.g, self.a, self.b))

    def to(self, dtype: torch.dtype) -> Clouds:
        return Clouds(*(t.to(dtype) for t in self))

    @property
    def own(self) -> tuple[Tensor, ...]:
        """x against itself."""
        return self.x, self.x, self.f, self.f, self.a, self.a


def drawn(draw: Draw, device: str) -> Clouds:
    """Potentials a few half-steps into a solve, with some noise; a third of the columns without weight."""
    x = cloud(draw.n, draw.d, 1, batch=draw.batch) - 0.5
    y = cloud(draw.m, draw.d, 2, batch=draw.batch) - 0.5 + draw.distance / draw.d**0.5
    x, y = (t.to(draw.dtype) for t in (x, y))
    a, b = weights(draw.n, 3, batch=draw.batch), weights(draw.m, 4, batch=draw.batch)
    b[:, 1::3] = 0.0
    narrow = torch.promote_types(draw.dtype, torch.float32)
    a, b = a.to(narrow), b.to(narrow)
    wide = x.double(), y.double()
    g = torch.zeros_like(b).double()
    for _ in range(3):
        f = Dense().softmin(*wide, g, b.double(), **draw.ground)
        g = Dense().softmin(*wide[::-1], f, a.double(), **draw.ground)
    g = g + draw.ground["eps"] * torch.randn_like(g)
    return Clouds(*(t.to(device) for t in (x, y, f.to(narrow), g.to(narrow), a, b)))


def results(verbs: Any, clouds: Clouds, v: Tensor, ground: dict[str, Any]) -> list[Tensor]:
    """What the verbs give; sums as such, as a logarithm near 0 has no relative accuracy to speak of."""
    x, y, _, g, _, b = clouds
    log_r, log_c = verbs.sweep(*clouds, **ground)
    # Potentials of x-y at x-x: sums as large as they are for near pairs, out of range for some.
    own, _ = verbs.sweep(*clouds.own, same=True, **ground)
    return [
        verbs.softmin(x, y, g, b, **ground) / ground["eps"],
        log_r.exp(),
        log_c.exp(),
        own,
        verbs.apply(*clouds, v, **ground),
        verbs.grad(*clouds, **ground),
        verbs.grad(*clouds, normalise=True, **ground),
    ]


def check(draw: Draw, device: str = "cpu") -> None:
    """Every verb: in float64 exact, in float32 as accurate as torch on full matrices."""
    clouds = drawn(draw, device)
    assert Pairs(Cloud(clouds.x), Cloud(clouds.y), draw.p).choice(draw.ground["eps"]) == draw.layout
    v = torch.randn(draw.batch, draw.m, 5, dtype=clouds.a.dtype, device=device)
    ground = draw.ground
    got = results(Triton(), clouds, v, ground)
    exact = results(Dense(), clouds.to(torch.float64), v.double(), ground)
    if draw.dtype == torch.float64:
        for one, reference in zip(got, exact, strict=True):
            assert_solved(one, reference)
        return
    plain = results(Dense(), clouds.to(torch.float32), v, ground)
    logits = largest_logit(clouds, ground)
    for one, other, reference in zip(got, plain, exact, strict=True):
        assert one.dtype == torch.float32
        assert_as_accurate(one, other, reference, logits)


def largest_logit(clouds: Clouds, ground: dict[str, Any]) -> float:
    """The size of the largest potential by eps."""
    return float(max(clouds.f.abs().max(), clouds.g.abs().max())) / ground["eps"]


def check_out_of_range(dtype: torch.dtype, device: str = "cpu") -> None:
    """Potentials off by thousands of temperatures: sums over- or underflow, each row in its way."""
    draw = Draw(40, 70, 17, 2, dtype, 0.2, "any")
    clouds = drawn(draw, device)
    x, y, f, g, a, b = clouds
    f = f.clone()
    f[:, ::3] += 60.0
    f[:, 1::3] -= 60.0
    moved = Clouds(x, y, f, g, a, b)
    for pair, same in ((tuple(moved), False), (moved.own, True)):
        wide = (t.double() for t in pair)
        exact = Dense().sweep(*wide, **draw.ground)
        for got, log_sums in zip(Triton().sweep(*pair, same=same, **draw.ground), exact, strict=True):
            assert torch.isfinite(got).all()
            torch.testing.assert_close(got.double(), log_sums, rtol=1e-5, atol=1e-4)


def check_temperatures(device: str = "cpu") -> None:
    """One temperature an item is the same as each alone."""
    draw = Draw(33, 40, 3, 2, torch.float32, 0.2, "split")
    clouds = drawn(draw, device)
    x, y, _, g, _, b = clouds
    eps = torch.tensor([0.04, 0.3], device=device)
    both = Triton().sweep(*clouds, cost=2, eps=eps)[0], Triton().softmin(x, y, g, b, cost=2, eps=eps)
    for i in range(2):
        own = [t[i : i + 1] for t in clouds]
        alone = Triton().sweep(*own, cost=2, eps=float(eps[i]))[0]
        torch.testing.assert_close(both[0][i : i + 1], alone, rtol=1e-5, atol=1e-5)
        alone = Triton().softmin(own[0], own[1], own[3], own[5], cost=2, eps=float(eps[i]))
        torch.testing.assert_close(both[1][i : i + 1], alone, rtol=1e-5, atol=1e-5)


def check_partial_sums(device: str = "cpu") -> None:
    """Groups of several tiles of rows, segments of several of columns: the same sums."""
    draw = Draw(150, 170, 3, 2, torch.float32, 0.3, "split", batch=1)
    clouds = drawn(draw, device)
    wide = clouds.to(torch.float64)
    for pair, exact, same in ((clouds, wide, False), (clouds.own, wide.own, True)):
        sums = Dense().sweep(*exact, **draw.ground)
        for got, log_sums in zip(Triton().sweep(*pair, same=same, **draw.ground), sums, strict=True):
            torch.testing.assert_close(got.double(), log_sums, rtol=1e-5, atol=2e-5)


def check_near_points(device: str = "cpu") -> None:
    """p = 1 where points nearly coincide: distances and slopes keep their digits, and the kink has none."""
    x = cloud(20, 17, 1, batch=1).float()
    y = x + 1e-5 * torch.randn_like(x)
    y[:, 0] = x[:, 0]
    f, a = torch.zeros(1, 20), torch.full((1, 20), 0.05)
    clouds = Clouds(*(t.to(device) for t in (x, y, f, f, a, a)))
    ground = {"cost": 1, "eps": 1e-4}
    exact = Dense().grad(*clouds.to(torch.float64), **ground)
    plain = Dense().grad(*clouds, **ground)
    assert_as_accurate(Triton().grad(*clouds, **ground), plain, exact)
    alone = [t[:, :1] for t in clouds]
    assert not Triton().grad(*alone, **ground).any()
