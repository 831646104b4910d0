"""How the Triton kernels read pairs of points: as inner products of short numbers, or as differences.

On matrix units a product of float32 numbers takes three products of shorter ones. Points are taken about the
centre of their cloud, scaled by a power of two, and written as the sum of two float16 numbers, 22 bits: as
exact as three products in tf32 and twice as fast. What that loses is bounded by `logit_error`; where the
bound is too large for the temperature, the cost is summed from differences of coordinates instead, as torch
does. For the cost |x - y|, whose error grows without bound where points meet, it always is.

With u and v the points about their centres, and t the vector between these,

    |x - y|^2 / 2 = (|u|^2 / 2 + <u, t> + |t|^2 / 2) + (|v|^2 / 2 - <v, t>) - <u, v>

of which the first two terms, the lifts, are float64 and go into the potentials.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..kernels.triton.tiles import padded_width  # type: ignore[import-untyped]

LOG2_E = 1.0 / math.log(2.0)
# The largest error of a logit, in bits, that products may make at worst. On average it is some thirty times
# smaller, and near that of torch's own (f + g - C) / eps in float32.
LARGEST_ERROR = 2.0**-8
# The largest cost by eps, in bits, of which float32 still holds an eighth of a bit.
_LARGEST_LOGIT = 2.0**20
# Temperatures above so many times the costs within the clouds: what is eps times the logarithm of a sum is
# lost where float32 rounds that.
_FLAT = 30.0
# Lengths whose squares stay within float32, with their inverses.
_LARGEST_LENGTH = 2.0**40


def logit_error(parts: int, width: int, size: float) -> float:
    """A bound on the error, in bits, of a logit from inner products on matrix units.

    Args:
        parts: 1 for points that are float16 or bfloat16 themselves, 2 for sums of two float16 numbers.
        width: coordinates a point.
        size: max_i |u_i| max_j |v_j| log2(e) / eps, in bits.

    Products of 11-bit numbers are exact in float32. Their sums are truncated, once every 16 coordinates: up
    to 2^-23 of the partial sums, which |u| |v| bounds (Cauchy and Schwarz). Two parts leave out 2^-22 of each
    coordinate, and the product of the low parts, 2^-22 again. The lifted potentials of row and column, and
    their sum with the product, are each rounded once, 2^-24 of sizes up to 2 |u| |v| together.
    """
    truncated = math.ceil(width / 16) * (3 if parts == 2 else 1) * 2.0**-23
    left_out = 3 * 2.0**-22 if parts == 2 else 0.0
    return size * (truncated + left_out + 2.0**-22)


class Cloud:
    """Points (B, N, D) in float32, float64, float16 or bfloat16, and what is worked out of them once."""

    def __init__(self, points: Tensor) -> None:
        self.points = points.contiguous()

    def beyond(self, dtype: torch.dtype) -> Tensor:
        """1 where points are not numbers of that short dtype, else 0; (B,) float64."""
        same = self.points.to(dtype).to(self.points.dtype) == self.points
        return (~same).flatten(1).any(1).double()

    @cached_property
    def centre(self) -> Tensor:
        """(B, 1, D) float64."""
        return self.points.mean(1, keepdim=True, dtype=torch.float64)

    def about(self, centre: Tensor) -> Tensor:
        """The points from there, float64."""
        return self.points.double() - centre

    @cached_property
    def halves(self) -> Tensor:
        """|u|^2 / 2 about the centre, (B, N) float64."""
        return 0.5 * self.about(self.centre).square().sum(-1)

    @cached_property
    def raw_halves(self) -> Tensor:
        """|x|^2 / 2, (B, N) float64."""
        return 0.5 * self.points.double().square().sum(-1)

    @cached_property
    def radius(self) -> Tensor:
        """The largest |u|, (B,) float64."""
        return (2.0 * self.halves.amax(-1)).sqrt()

    @cached_property
    def raw_radius(self) -> Tensor:
        """The largest |x|, (B,) float64."""
        return (2.0 * self.raw_halves.amax(-1)).sqrt()

    @cached_property
    def split(self) -> tuple[Tensor, Tensor]:
        """Two float16 parts of the points about the centre, (B, 2, N, width), and their unit, (B,) float64.

        The largest coordinate is between 2^12 and 2^13 units, so that also low parts of coordinates 2^13
        times smaller are normal numbers.
        """
        u = self.about(self.centre)
        largest = u.abs().flatten(1).amax(-1) if u.shape[-1] else u.new_zeros(len(u))
        unit = torch.ldexp(torch.ones_like(largest), torch.frexp(largest).exponent - 13)
        u = _padded(u / unit.view(-1, 1, 1))
        high = u.half()
        return torch.stack([high, (u - high).half()], 1), unit

    @cached_property
    def centred(self) -> Tensor:
        """The points about their centre, (B, N, D), in the dtype that sums have."""
        dtype = torch.float64 if self.points.dtype == torch.float64 else torch.float32
        return self.about(self.centre).to(dtype)

    def padded(self, dtype: torch.dtype) -> Tensor:
        """The points as they are, (B, N, width)."""
        return _padded(self.points.to(dtype))


def _padded(points: Tensor) -> Tensor:
    """With coordinates 0 up to a multiple of what a kernel reads at a time."""
    d = points.shape[-1]
    return torch.nn.functional.pad(points, (0, padded_width(d) - d)).contiguous()


class Layout(NamedTuple):
    """What a kernel reads of two clouds; x and y are as `kernels/triton/pairs.py` has them.

    lift_x (B, N), lift_y (B, M) and unit_x, unit_y (B,) are float64; d is the length of a row of x; `wide`
    says that the kernel computes in float64.
    """

    x: Tensor
    y: Tensor
    lift_x: Tensor
    lift_y: Tensor
    unit_x: Tensor
    unit_y: Tensor
    d: int
    parts: int
    wide: bool

    @property
    def turned(self) -> Layout:
        return self._replace(
            x=self.y,
            y=self.x,
            lift_x=self.lift_y,
            lift_y=self.lift_x,
            unit_x=self.unit_y,
            unit_y=self.unit_x,
        )


class Pairs:
    """The pairs of two clouds under the cost 1 or 2, in the cheapest layout that is exact enough.

    Choosing it reads the sizes of the clouds: one wait for the device, at the first temperature.
    """

    def __init__(self, x: Cloud, y: Cloud, cost: int) -> None:
        self.x, self.y, self.cost = x, y, cost
        self._layouts: dict[str, Layout] = {}

    def layout(self, eps: float) -> Layout:
        """The layout for this temperature and all above."""
        choice = self.choice(eps)
        if choice not in self._layouts:
            self._layouts[choice] = self._make(choice)
        return self._layouts[choice]

    def choice(self, eps: float) -> str:
        """How pairs are computed: "raw" or "split" by products, the others by differences.

        "raw" multiplies points as they are, which must be numbers of float16 or of bfloat16; "centred" are
        float32 differences of points about their own centres, for clouds that are far apart; "wide" is
        float64.
        """
        if self.x.points.dtype == torch.float64:
            return "wide"
        bits, sizes = LOG2_E / abs(eps), self._sizes
        extent = 2.0 * sizes.radius + sizes.distance
        farthest = 0.5 * extent**2 if self.cost == 2 else extent
        blur = abs(eps) ** (1.0 / self.cost)
        flat = blur * sizes.inverse > _FLAT ** (1.0 / self.cost)
        within = 1.0 / _LARGEST_LENGTH < blur + extent < _LARGEST_LENGTH
        if flat or farthest * bits > _LARGEST_LOGIT or not within:
            return "wide"
        if self.cost == 1:
            return "differences"
        d = self.x.points.shape[-1]
        # Far from the origin raw products have larger errors, if no more than is allowed.
        near = self._short is not None and sizes.raw_product <= 2.0 * sizes.product
        if near and logit_error(1, d, sizes.raw_product * bits) <= LARGEST_ERROR:
            return "raw"
        if logit_error(2, d, sizes.product * bits) <= LARGEST_ERROR:
            return "split"
        return "centred" if sizes.distance > 2.0 * sizes.radius else "differences"

    def _make(self, choice: str) -> Layout:
        x, y = self.x, self.y
        one = torch.ones(len(x.points), dtype=torch.float64, device=x.points.device)
        d, width = x.points.shape[-1], padded_width(x.points.shape[-1])
        if choice == "raw":
            assert self._short is not None
            u, v = x.padded(self._short), y.padded(self._short)
            return Layout(u, v, x.raw_halves, y.raw_halves, one, one, width, 1, False)
        if choice == "split":
            (u, unit_x), (v, unit_y) = x.split, y.split
            lift_x, lift_y = self._shifts
            return Layout(u, v, x.halves + lift_x, y.halves + lift_y, unit_x, unit_y, width, 2, False)
        if choice == "centred":
            return Layout(x.centred, y.centred, *self._shifts, one, one, d, 0, False)
        lift_x, lift_y = (one.new_zeros(c.points.shape[:2]) for c in (x, y))
        return Layout(x.points, y.points, lift_x, lift_y, one, one, d, 0, choice == "wide")

    @cached_property
    def _sizes(self) -> _Sizes:
        x, y = self.x, self.y
        radius = torch.maximum(x.radius, y.radius)
        found = _Sizes(
            radius=radius,
            distance=torch.linalg.vector_norm(self.offset, dim=(1, 2)),
            product=x.radius * y.radius,
            raw_product=x.raw_radius * y.raw_radius,
            beyond_float16=torch.maximum(*(cloud.beyond(torch.float16) for cloud in (x, y))),
            beyond_bfloat16=torch.maximum(*(cloud.beyond(torch.bfloat16) for cloud in (x, y))),
            inverse=torch.where(radius > 0.0, radius, torch.inf).reciprocal(),
        )
        return _Sizes(*torch.stack(list(found)).amax(1).tolist())

    @property
    def _short(self) -> torch.dtype | None:
        """In which the points are exact, if there is one."""
        if not self._sizes.beyond_float16:
            return torch.float16
        return None if self._sizes.beyond_bfloat16 else torch.bfloat16

    @cached_property
    def offset(self) -> Tensor:
        """The vector between the centres, t above; (B, 1, D) float64."""
        return self.x.centre - self.y.centre

    @cached_property
    def _shifts(self) -> tuple[Tensor, Tensor]:
        """<u, t> + |t|^2 / 2, (B, N), and -<v, t>, (B, M)."""
        t = self.offset.mT
        along_x, along_y = ((c.about(c.centre) @ t).squeeze(-1) for c in (self.x, self.y))
        return along_x + 0.5 * t.square().sum(1), -along_y


class _Sizes(NamedTuple):
    """The largest of any item: radius and distance of clouds, products of radii, 1 / radius (0 of points)."""

    radius: Any
    distance: Any
    product: Any
    raw_product: Any
    beyond_float16: Any
    beyond_bfloat16: Any
    inverse: Any
