"""Zero Degree Calorimeter responses from two .npy files, and a synthetic stand-in for them.

The format is that of K. Deja et al., End-to-end Sinkhorn Autoencoder with Noise Generator (IEEE Access,
2021): photon counts of 44 x 44 fibres and nine attributes of the particle that caused them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from otcore_ae.data.loader import ImageSet
from otcore_ae.data.mnist import DATA_VARIABLE
from otcore_ae.data.module import ImageData

SIDE = 44
ATTRIBUTES = (
    *("energy", "vertex_x", "vertex_y", "vertex_z", "momentum_x", "momentum_y", "momentum_z"),
    *("mass", "charge"),
)
Array = NDArray[Any]

_IMAGE_FILE, _ATTRIBUTE_FILE = "images.npy", "attributes.npy"

# The synthetic detector and its particles, in cm, GeV, and fibres for the profile.
_DISTANCE, _PITCH, _BENDING = 11_200.0, 0.16, 50.0
_VERTEX_SD, _SLOPE_SD = (0.01, 0.01, 5.0), 1.2e-4
_BEAM_ENERGY, _BEAM_SPREAD, _SPECTATORS = 2510.0, 0.05, 0.08
_LOWEST_ENERGY, _HIGHEST_ENERGY = 20.0, 700.0
_MASSES = np.array([0.9396, 0.9383, 0.0, 0.1396, 0.1396])  # neutron, proton, photon, pi+, pi-
_CHARGES = np.array([0.0, 1.0, 0.0, 1.0, -1.0])
_SHARES = np.array([0.4, 0.2, 0.2, 0.1, 0.1])
_PHOTONS_PER_GEV, _RESOLUTION, _CENTRE_SD = 1.2, 0.1, 0.2
_CORE_WIDTH, _HALO_WIDTH = 0.62, 5.0
_CORE_SHARE_HADRON, _CORE_SHARE_PHOTON, _CORE_SHARE_SD = 0.7, 0.9, 0.04
_BLOCK = 4000  # images simulated at a time, which bounds the memory


@dataclass(frozen=True, eq=False)
class CalorimeterScaling:
    """How counts became images and attributes became labels, and the way back.

    Images are log(1 + counts) / log(1 + max_count). Labels are (a - mean) / deviation, where a is the
    attributes with log(1 + energy) in the place of the energy and the other eight as they are.

    Args:
        max_count: the count of a pixel of value 1.
        mean, deviation: (9,) float64.
    """

    max_count: float
    mean: Tensor
    deviation: Tensor

    @classmethod
    def fit(cls, counts: Array, attributes: Array) -> CalorimeterScaling:
        """The scaling by the largest count, means and standard deviations of a training set.

        An attribute that is the same everywhere has the deviation 1, so its label is 0 there.

        Args:
            counts: (n, 44, 44).
            attributes: (n, 9).

        Raises:
            ValueError: if there is no photon in the counts.
        """
        max_count = float(counts.max())
        if max_count <= 0:
            raise ValueError(
                f"the {len(counts)} training images must have counts above 0 to be scaled by, found only "
                "zeros; give images with photons, or another split_seed"
            )
        values = _with_log_energy(torch.as_tensor(attributes).double())
        deviation = values.std(0, correction=0)
        constant = (values == values[0]).all(0)
        return cls(max_count, values.mean(0), torch.where(constant, 1.0, deviation))

    def to_images(self, counts: Tensor) -> Tensor:
        """Images, float32, of counts of any shape; above 1 where a count is above `max_count`."""
        return counts.float().log1p() / self._log_max

    def to_counts(self, images: Tensor, *, whole: bool = False) -> Tensor:
        """Counts, float32, of images of any shape; negative pixels count as 0.

        Args:
            images: as a model makes them.
            whole: round to whole photons (default False).
        """
        counts = (images.float().clamp_min(0) * self._log_max).expm1()
        return counts.round() if whole else counts

    def to_labels(self, attributes: Tensor) -> Tensor:
        """Labels (n, 9), float32, of attributes (n, 9)."""
        values = _with_log_energy(attributes.double())
        return ((values - self.mean.to(values)) / self.deviation.to(values)).float()

    def to_attributes(self, labels: Tensor) -> Tensor:
        """Attributes (n, 9), float64, of labels (n, 9)."""
        values = labels.double() * self.deviation.to(labels.device) + self.mean.to(labels.device)
        return torch.cat([values[:, :1].expm1(), values[:, 1:]], 1)

    @property
    def _log_max(self) -> float:
        return float(np.log1p(self.max_count))


def _with_log_energy(attributes: Tensor) -> Tensor:
    return torch.cat([attributes[:, :1].log1p(), attributes[:, 1:]], 1)


class _ParticleData(ImageData):
    """Responses and their particles, split and scaled; subclasses say where they are from.

    Args:
        test_fraction: share of the images in the test set (default 0.2; a little less where whole particles
            do not add up to it).
        whole_particles: all images of a particle, that is of equal attributes, are on one side of the split
            (default True); False splits image by image.
        split_seed: seed of the split (default 0).
        options: the other arguments of `ImageData`.
    """

    _scaling: CalorimeterScaling

    def __init__(
        self,
        batch_size: int = 100,
        *,
        test_fraction: float = 0.2,
        whole_particles: bool = True,
        split_seed: int = 0,
        **options: Any,
    ) -> None:
        if not 0 < test_fraction < 1:
            raise ValueError(f"test_fraction must be between 0 and 1, got {test_fraction}; try 0.2")
        super().__init__(batch_size, **options)
        self.test_fraction = test_fraction
        self.whole_particles = whole_particles
        self.split_seed = split_seed

    def responses(self) -> tuple[Array, Array]:
        """All counts (n, 44, 44) and attributes (n, 9)."""
        raise NotImplementedError

    @property
    def scaling(self) -> CalorimeterScaling:
        """How counts and attributes were scaled, by the training set."""
        self.setup()
        return self._scaling

    def load(self) -> tuple[ImageSet, ImageSet]:
        counts, attributes = self.responses()
        train, test = self._split(attributes)
        own_counts, own_attributes = counts[train], attributes[train]
        self._scaling = CalorimeterScaling.fit(own_counts, own_attributes)
        test_set = self._image_set(counts[test], attributes[test])
        return self._image_set(own_counts, own_attributes), test_set

    def _split(self, attributes: Array) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Rows of the training and of the test set, each in stored order."""
        n = len(attributes)
        group = np.arange(n)
        if self.whole_particles:
            group = np.unique(attributes, axis=0, return_inverse=True)[1].reshape(n)
        sizes = np.bincount(group)
        if len(sizes) < 2:
            raise ValueError(
                f"a training and a test set need at least 2 particles, got {len(sizes)} in {n} image(s); "
                "give more, or split the images of one particle with whole_particles=False"
            )
        order = np.random.default_rng(self.split_seed).permutation(len(sizes))
        fitting = np.searchsorted(sizes[order].cumsum(), int(self.test_fraction * n), side="right")
        in_test = np.isin(group, order[: max(1, int(fitting))])
        return np.flatnonzero(~in_test), np.flatnonzero(in_test)

    def _image_set(self, counts: Array, attributes: Array) -> ImageSet:
        images = self._scaling.to_images(torch.from_numpy(counts.astype(np.float32)))
        return ImageSet(images.unsqueeze(1), self._scaling.to_labels(torch.from_numpy(attributes)))


class CalorimeterData(_ParticleData):
    """Zero Degree Calorimeter responses: images (n, 1, 44, 44) and labels (n, 9), both float32.

    Images are log1p of the counts over log1p of the largest training count: in [0, 1], but for test pixels
    brighter than any in training. Labels are the attributes, the energy as log1p, standardised by training
    means and deviations. `scaling` has both ways back.

    Args:
        path: folder with images.npy, (n, 44, 44) counts of photons, and attributes.npy, (n, 9): energy,
            vertex x y z, momentum x y z, mass and charge; or a folder with such a folder `calorimeter` in it.
            Default: the environment variable OTCORE_DATA. Energies are best in GeV, since log1p depends on
            the unit; the units of the rest do not matter.
        test_fraction: share of the images in the test set (default 0.2; a little less where whole particles
            do not add up to it).
        whole_particles: all images of a particle, that is of equal attributes, are on one side of the split
            (default True); False splits image by image.
        split_seed: seed of the split (default 0).
        batch_size, eval_batch_size, drop_last, seed: see `ImageData`.

    Raises:
        FileNotFoundError, ValueError: on `setup`, where the folder or a file is missing or holds something
            else, in one line that names it.
    """

    def __init__(self, path: str | Path | None = None, batch_size: int = 100, **options: Any) -> None:
        super().__init__(batch_size, **options)
        self.path = path

    def responses(self) -> tuple[Array, Array]:
        return read_responses(_folder(self.path))


class SyntheticCalorimeterData(_ParticleData):
    """What `simulate` draws, in the form of `CalorimeterData`. Synthetic: no physics simulation.

    Args:
        n: images in both sets together (default 10,000).
        repeats: images of each particle (default 5).
        simulation_seed: seed of the particles and their images (default 0).
        test_fraction, whole_particles, split_seed: see `CalorimeterData`.
        batch_size, eval_batch_size, drop_last, seed: see `ImageData`.
    """

    def __init__(
        self,
        n: int = 10_000,
        batch_size: int = 100,
        *,
        repeats: int = 5,
        simulation_seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(batch_size, **options)
        self.n = n
        self.repeats = repeats
        self.simulation_seed = simulation_seed

    def responses(self) -> tuple[Array, Array]:
        return simulate(self.n, self.simulation_seed, repeats=self.repeats)


def read_responses(folder: str | Path) -> tuple[Array, Array]:
    """Counts (n, 44, 44) and attributes (n, 9) from images.npy and attributes.npy of a folder.

    Raises:
        FileNotFoundError, ValueError: where a file is missing or holds something else.
    """
    folder = Path(folder)
    image_file, attribute_file = folder / _IMAGE_FILE, folder / _ATTRIBUTE_FILE
    counts = _read(image_file, (SIDE, SIDE))
    attributes = _read(attribute_file, (len(ATTRIBUTES),))
    if len(counts) != len(attributes):
        raise ValueError(
            f"{image_file} has {len(counts)} images but {attribute_file} has {len(attributes)} rows: "
            "expected as many; use two files of one set"
        )
    _check_range(image_file, "counts", counts, 0.0, "give photon counts, not scaled or centred images")
    _check_range(attribute_file, "attributes", attributes, -np.inf, "remove those rows from both files")
    energies, order = attributes[:, 0], ", ".join(ATTRIBUTES)
    _check_range(attribute_file, "energies", energies, 0.0, f"give unscaled columns in the order {order}")
    return counts, attributes.astype(np.float64)


def _folder(path: str | Path | None) -> Path:
    remedy = f"pass path=, or set {DATA_VARIABLE}, to a folder with {_IMAGE_FILE} and {_ATTRIBUTE_FILE}"
    named = path if path is not None else os.environ.get(DATA_VARIABLE)
    if not named:
        raise FileNotFoundError(f"no folder with calorimeter responses was named: {remedy}")
    folder = Path(named)
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise FileNotFoundError(
            f"{folder} must be a folder with calorimeter responses, found {found}: {remedy}"
        )
    return folder / "calorimeter" if (folder / "calorimeter").is_dir() else folder


def _read(file: Path, row_shape: tuple[int, ...]) -> Array:
    """The numbers in a .npy file of at least one row of this shape."""
    expected = f"an array of numbers ({', '.join(map(str, ('n', *row_shape)))})"
    remedy = f"write it with numpy.save from {expected}"
    if not file.is_file():
        raise FileNotFoundError(f"{file} not found: expected {expected}; point to the folder that has it")
    try:
        array = np.load(file, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{file} cannot be read: expected {expected}, found {reason}; {remedy}") from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise ValueError(f"{file} must hold {expected}, found an .npz archive; {remedy}")
    if array.dtype.kind not in "buif" or array.shape[1:] != row_shape or len(array) == 0:
        raise ValueError(f"{file} must hold {expected}, found {array.dtype} {array.shape}; {remedy}")
    return array


def _check_range(file: Path, name: str, values: Array, lowest: float, remedy: str) -> None:
    """Raise unless all values are finite and at least `lowest`."""
    low, high = values.min(), values.max()  # NaN if any is
    if low >= lowest and np.isfinite(low) and np.isfinite(high):
        return
    bad = ~(np.isfinite(values) & (values >= lowest))
    row = int(np.argmax(bad.reshape(len(values), -1).any(1)))
    expected = "finite" if lowest == -np.inf else f"finite and at least {lowest:g}"
    raise ValueError(
        f"{file}: {name} must be {expected}, found {values[bad][0]} in row {row} ({bad.sum()} such in all); "
        f"{remedy}"
    )


def simulate(n: int, seed: int = 0, *, repeats: int = 5) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Synthetic responses: counts (n, 44, 44) int32 and attributes (n, 9) float64. No physics simulation.

    A made-up model with traits of the published data: on average 0.23 photons a pixel, 96 % of the pixels
    zero, and up to about 1000 photons in one. Particles are neutrons, protons, photons and charged pions, 8 %
    of them nucleons of about the beam's energy. They fly to `impact_point`. The number of photons is Poisson
    distributed about a multiple of the energy, which fluctuates by 10 %; each photon falls in a Gaussian core
    or a wider Gaussian halo, so that, given these, the pixels' counts are independent Poisson numbers.
    Photons beyond the edge are lost.

    Args:
        n: images, at least 1.
        seed: of everything drawn (default 0).
        repeats: images of each particle, in consecutive rows (default 5; the last particle may have fewer).
    """
    for name, value in (("n", n), ("repeats", repeats)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    rng = np.random.default_rng(seed)
    attributes = _particles(-(-n // repeats), rng).repeat(repeats, axis=0)[:n]
    counts = np.empty((n, SIDE, SIDE), np.int32)
    for start in range(0, n, _BLOCK):
        counts[start : start + _BLOCK] = _respond(attributes[start : start + _BLOCK], rng)
    return counts, attributes


def impact_point(attributes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where synthetic particles (n, 9) hit the detector: row and column (n, 2), k to k + 1 being fibre k.

    A straight line from the vertex along the momentum, y giving the row and x the column; charge over
    momentum shifts the column.
    """
    x, y, z = attributes[:, 1:4].T
    p_x, p_y, p_z = attributes[:, 4:7].T
    column = x + p_x / p_z * (_DISTANCE - z) + _BENDING * attributes[:, 8] / p_z
    row = y + p_y / p_z * (_DISTANCE - z)
    return np.stack([row, column], axis=1) / _PITCH + SIDE / 2


def _particles(n: int, rng: Generator) -> NDArray[np.float64]:
    """Attributes (n, 9) of n particles."""
    spectator = rng.random(n) < _SPECTATORS
    kind = np.where(spectator, rng.choice(2, n), rng.choice(len(_SHARES), n, p=_SHARES))
    beam = _BEAM_ENERGY * rng.normal(1, _BEAM_SPREAD, n)
    produced = np.exp(rng.uniform(np.log(_LOWEST_ENERGY), np.log(_HIGHEST_ENERGY), n))
    energy, mass = np.where(spectator, beam, produced), _MASSES[kind]
    vertex = rng.normal(0, _VERTEX_SD, (n, 3))
    direction = np.concatenate([rng.normal(0, _SLOPE_SD, (n, 2)), np.ones((n, 1))], axis=1)
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    momentum = np.sqrt(energy**2 - mass**2)[:, None] * direction
    return np.column_stack([energy, vertex, momentum, mass, _CHARGES[kind]])


def _respond(attributes: NDArray[np.float64], rng: Generator) -> NDArray[np.intp]:
    """Counts (n, 44, 44) of particles (n, 9)."""
    n = len(attributes)
    fluctuation = rng.gamma(_RESOLUTION**-2, _RESOLUTION**2, n)
    photons = rng.poisson(_PHOTONS_PER_GEV * attributes[:, 0] * fluctuation)
    core_share = np.where(attributes[:, 7] > 0, _CORE_SHARE_HADRON, _CORE_SHARE_PHOTON)
    core_share = np.clip(rng.normal(core_share, _CORE_SHARE_SD), 0, 1)
    centre = impact_point(attributes) + rng.normal(0, _CENTRE_SD, (n, 2))
    image = np.arange(n).repeat(photons)
    width = np.where(rng.random(len(image)) < core_share[image], _CORE_WIDTH, _HALO_WIDTH)
    place = np.floor(centre[image] + width[:, None] * rng.standard_normal((len(image), 2))).astype(np.intp)
    inside = ((place >= 0) & (place < SIDE)).all(axis=1)
    pixel = (image * SIDE + place[:, 0]) * SIDE + place[:, 1]
    return np.bincount(pixel[inside], minlength=n * SIDE * SIDE).reshape(n, SIDE, SIDE)
