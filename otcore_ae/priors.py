"""Priors: what the latent points should be distributed as.

A prior is any callable `(n, generator) -> (n, d)` float32 tensor on the CPU. The ones here also carry
metadata: `name`, `dim` and, where the plane falls into parts that can be told apart, `sectors`, which the
clustering and coverage metrics use.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor


class Prior(ABC):
    """A distribution on the latent space that can be sampled.

    Calling it with `n` and a CPU generator (None: the global one) returns an (n, d) tensor. In Python any
    other callable that does so serves as well; configuration files name subclasses.
    """

    @abstractmethod
    def __call__(self, n: int, generator: Generator | None = None) -> Tensor: ...


class Sectors(Protocol):
    """A partition of the latent space into `count` parts, each with a map onto the unit square."""

    @property
    def count(self) -> int: ...

    def assign(self, points: Tensor) -> Tensor:
        """The part each of the (n, d) points lies in, (n,) int64."""
        ...

    def to_square(self, points: Tensor, sector: int) -> Tensor:
        """Map (n, d) points by the part's distribution function; uniform on [0, 1]^2 for a perfect match."""
        ...


@dataclass(frozen=True)
class PetalSectors:
    """The `petals` equal angular sectors of `Flower`, each bisected by its petal's axis.

    Sector of an angle t: floor((floor(petals t / pi) + 1) / 2) mod petals (Csiszarik et al., Global Sinkhorn
    Autoencoder, "cluster matching").
    """

    petals: int
    radius: float
    spread: tuple[float, float]

    @property
    def count(self) -> int:
        return self.petals

    def assign(self, points: Tensor) -> Tensor:
        angle = torch.remainder(torch.atan2(points[:, 1], points[:, 0]), 2 * math.pi)
        half_sector = torch.floor(angle * (self.petals / math.pi)).long()
        return (half_sector + 1).div(2, rounding_mode="floor") % self.petals

    def to_square(self, points: Tensor, sector: int) -> Tensor:
        angle = 2 * math.pi * sector / self.petals
        cos, sin = math.cos(angle), math.sin(angle)
        along = (cos * points[:, 0] + sin * points[:, 1] - self.radius) / self.spread[0]
        across = (cos * points[:, 1] - sin * points[:, 0]) / self.spread[1]
        square: Tensor = torch.special.ndtr(torch.stack([along, across], dim=1))
        return square


@dataclass(frozen=True)
class Flower(Prior):
    """Equal Gaussians arranged as the petals of a flower, in the plane.

    Petal i has the centre radius (cos t, sin t), t = 2 pi i / petals, and standard deviation `spread[0]`
    along its axis, `spread[1]` across it. The defaults are the prior of the Global Sinkhorn Autoencoder paper
    (Figure 1).

    Args:
        petals: number of Gaussians (default 10).
        radius: distance of their centres from the origin (default 3).
        spread: standard deviations along and across a petal's axis (default (1, 0.1)).
        stratified: sample k has the petal k mod petals, so every petal gets n / petals points (default);
            otherwise petals are drawn independently.
    """

    petals: int = 10
    radius: float = 3.0
    spread: tuple[float, float] = (1.0, 0.1)
    stratified: bool = True

    @property
    def name(self) -> str:
        return "flower"

    @property
    def dim(self) -> int:
        return 2

    @property
    def sectors(self) -> PetalSectors:
        return PetalSectors(self.petals, self.radius, self.spread)

    def petal_of(self, n: int) -> Tensor:
        """The petal of each of n stratified samples, (n,) int64."""
        return torch.arange(n) % self.petals

    def __call__(self, n: int, generator: Generator | None = None) -> Tensor:
        petal = self.petal_of(n) if self.stratified else torch.randint(self.petals, (n,), generator=generator)
        angle = petal * (2 * math.pi / self.petals)
        cos, sin = torch.cos(angle), torch.sin(angle)
        noise = torch.randn(n, 2, generator=generator)
        along = self.radius + self.spread[0] * noise[:, 0]
        across = self.spread[1] * noise[:, 1]
        return torch.stack([cos * along - sin * across, sin * along + cos * across], dim=1)


@dataclass(frozen=True)
class Normal(Prior):
    """The standard normal distribution N(0, I) on R^dim (default: the plane)."""

    dim: int = 2
    sectors: None = None

    @property
    def name(self) -> str:
        return "normal"

    def __call__(self, n: int, generator: Generator | None = None) -> Tensor:
        return torch.randn(n, self.dim, generator=generator)


@dataclass(frozen=True)
class Uniform(Prior):
    """The uniform distribution on [low, high]^dim (default: [-1, 1] x [-1, 1])."""

    dim: int = 2
    low: float = -1.0
    high: float = 1.0
    sectors: None = None

    @property
    def name(self) -> str:
        return "uniform"

    def __call__(self, n: int, generator: Generator | None = None) -> Tensor:
        return self.low + (self.high - self.low) * torch.rand(n, self.dim, generator=generator)


@dataclass(frozen=True)
class Sphere(Prior):
    """The uniform distribution on the unit sphere of R^dim (default: the circle).

    Latents lie on the sphere too where the encoder ends in `otcore_ae.networks.Normalise`.
    """

    dim: int = 2
    sectors: None = None

    @property
    def name(self) -> str:
        return "sphere"

    def __call__(self, n: int, generator: Generator | None = None) -> Tensor:
        return torch.nn.functional.normalize(torch.randn(n, self.dim, generator=generator), dim=1)


@dataclass(frozen=True)
class Dirichlet(Prior):
    """The symmetric Dirichlet distribution on the simplex of R^dim (Patrini et al., Sinkhorn AutoEncoders).

    Latents lie on the simplex too where the encoder ends in a softmax.

    Args:
        dim: number of coordinates, which are positive and sum to 1 (default 3).
        concentration: of each; below 1, samples are near the corners (default 0.5).
    """

    dim: int = 3
    concentration: float = 0.5
    sectors: None = None

    @property
    def name(self) -> str:
        return "dirichlet"

    def __call__(self, n: int, generator: Generator | None = None) -> Tensor:
        # Of gamma samples, by their logarithms, as small concentrations make samples too small for any float:
        # Gamma(c) is Gamma(c + 1) U^(1/c).
        alpha = torch.full((n, self.dim), self.concentration + 1, dtype=torch.float64)
        logs = torch._standard_gamma(alpha, generator=generator).log()
        uniform = torch.rand(n, self.dim, generator=generator, dtype=torch.float64)
        return (logs + uniform.clamp_min(1e-300).log() / self.concentration).softmax(1).float()


@dataclass(frozen=True)
class GaussianMixture(Prior):
    """Gaussians with standard deviation `spread` about the given means.

    Args:
        means: k points of d coordinates each.
        spread: standard deviation, the same in every direction (default 0.1).
        weights: k shares that sum to 1 (None, default: equal).
    """

    means: tuple[tuple[float, ...], ...]
    spread: float = 0.1
    weights: tuple[float, ...] | None = None
    sectors: None = None

    def __post_init__(self) -> None:
        if not self.means or len({len(mean) for mean in self.means}) != 1:
            raise ValueError("means must be points of one dimension, at least one")
        if self.weights is not None and (
            len(self.weights) != len(self.means) or min(self.weights) < 0 or abs(sum(self.weights) - 1) > 1e-6
        ):
            raise ValueError(f"weights must be {len(self.means)} shares that sum to 1, got {self.weights}")

    @property
    def dim(self) -> int:
        return len(self.means[0])

    @property
    def name(self) -> str:
        return "mixture"

    def __call__(self, n: int, generator: Generator | None = None) -> Tensor:
        weights = torch.tensor(self.weights or [1.0] * len(self.means))
        chosen = torch.multinomial(weights, n, replacement=True, generator=generator)
        noise = torch.randn(n, self.dim, generator=generator)
        return torch.tensor(self.means)[chosen] + self.spread * noise


@dataclass(frozen=True)
class Ring(Prior):
    """A thin ring in the plane: (cos t, sin t) with t uniform, plus N(0, spread^2 I).

    Args:
        spread: standard deviation of the noise in each coordinate (default 0.01).
    """

    spread: float = 0.01
    dim: int = 2
    sectors: None = None

    @property
    def name(self) -> str:
        return "ring"

    def __call__(self, n: int, generator: Generator | None = None) -> Tensor:
        return _at_radius(torch.ones(n), generator) + self.spread * torch.randn(n, 2, generator=generator)


@dataclass(frozen=True)
class Circle(Prior):
    """The unit disk with uniform radius and angle, denser towards the centre: density 1 / (2 pi r).

    The "circle" of Kolouri et al., Sliced-Wasserstein Autoencoder; `Disk` is uniform by area.
    """

    dim: int = 2
    sectors: None = None

    @property
    def name(self) -> str:
        return "circle"

    def __call__(self, n: int, generator: Generator | None = None) -> Tensor:
        return _at_radius(torch.rand(n, generator=generator), generator)


@dataclass(frozen=True)
class Disk(Prior):
    """The uniform distribution on the unit disk."""

    dim: int = 2
    sectors: None = None

    @property
    def name(self) -> str:
        return "disk"

    def __call__(self, n: int, generator: Generator | None = None) -> Tensor:
        return _at_radius(torch.rand(n, generator=generator).sqrt(), generator)


@dataclass(frozen=True)
class Bowl(Prior):
    """A bowl over the unit disk: density 2 r^2 / pi, nothing at the centre and most at the rim.

    Kolouri et al. name a bowl without a formula; this one is ours.
    """

    dim: int = 2
    sectors: None = None

    @property
    def name(self) -> str:
        return "bowl"

    def __call__(self, n: int, generator: Generator | None = None) -> Tensor:
        return _at_radius(torch.rand(n, generator=generator).sqrt().sqrt(), generator)


def _at_radius(radius: Tensor, generator: Generator | None) -> Tensor:
    """Points (n, 2) of these radii (n,), at uniform angles."""
    angle = 2 * math.pi * torch.rand(len(radius), generator=generator)
    return radius.unsqueeze(1) * torch.stack([angle.cos(), angle.sin()], dim=1)


def prior_name(prior: Prior) -> str:
    """A word for the prior: its `name`, or what the callable is called."""
    return str(getattr(prior, "name", None) or getattr(prior, "__name__", type(prior).__name__))


def sectors_of(prior: Prior) -> Sectors | None:
    """The prior's `sectors`, or None where it has none."""
    return getattr(prior, "sectors", None)
