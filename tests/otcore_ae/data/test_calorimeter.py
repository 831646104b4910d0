"""Calorimeter responses: files of the right and of wrong forms, the way back to counts, synthetic data."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from otcore_ae import ConditionalE2ESAE, ConditionalVAE, NoiseGenerator, mlp
from otcore_ae.data.calorimeter import (
    ATTRIBUTES,
    CalorimeterData,
    CalorimeterScaling,
    SyntheticCalorimeterData,
    impact_point,
    simulate,
)
from otcore_ae.history import History
from otcore_ae.metrics.calorimeter import CalorimeterMetrics
from otcore_ae.networks.e2e import ConditionedDecoder, ConditionedEncoder


def write_set(folder: Path, counts: np.ndarray, attributes: np.ndarray) -> None:
    np.save(folder / "images.npy", counts)
    np.save(folder / "attributes.npy", attributes)


def rows_of(images: torch.Tensor) -> list[bytes]:
    return [image.numpy().tobytes() for image in images]


@pytest.mark.parametrize("inner", ["", "calorimeter"])
@pytest.mark.parametrize("kind", ["int32", "uint8", ">f8"])
def test_reads_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inner: str, kind: str) -> None:
    """Three particles, of 4, 4 and 2 images that are all different; the last is the test set of 20 %."""
    counts = np.arange(10 * 44 * 44).reshape(10, 44, 44) % 251
    attributes = np.arange(27.0).reshape(3, 9)[[0, 0, 0, 0, 1, 1, 1, 1, 2, 2]]
    (tmp_path / inner).mkdir(exist_ok=True)
    write_set(tmp_path / inner, counts.astype(kind), attributes.astype(kind))
    monkeypatch.setenv("OTCORE_DATA", str(tmp_path))
    data = CalorimeterData(batch_size=4)
    data.setup()
    assert data.image_size == 44
    assert data.train_set.images.shape == (8, 1, 44, 44)
    assert data.train_set.images.dtype == data.train_set.labels.dtype == torch.float32
    assert data.train_set.images.max() == 1
    assert torch.equal(
        data.scaling.to_counts(data.test_set.images, whole=True)[:, 0], torch.tensor(counts[8:])
    )
    assert torch.allclose(
        data.scaling.to_attributes(data.test_set.labels), torch.tensor(attributes[8:]), rtol=1e-5
    )
    images, labels, rows = next(iter(data.train_dataloader()))
    assert torch.equal(images, data.train_set.images[rows])
    assert torch.equal(labels, data.train_set.labels[rows])


WRONG = {
    "no counts": ({"images.npy": None}, FileNotFoundError, r"images\.npy not found.*\(n, 44, 44\)"),
    "no attributes": ({"attributes.npy": None}, FileNotFoundError, r"attributes\.npy not found.*\(n, 9\)"),
    "other images": (
        {"images.npy": np.ones((6, 28, 28))},
        ValueError,
        r"images\.npy must hold .*\(n, 44, 44\), found float64 \(6, 28, 28\); write it with numpy\.save",
    ),
    "no rows": ({"images.npy": np.ones((0, 44, 44))}, ValueError, r"found float64 \(0, 44, 44\)"),
    "other attributes": ({"attributes.npy": np.ones(6)}, ValueError, r"\(n, 9\), found float64 \(6,\)"),
    "text": ({"attributes.npy": np.full((6, 9), "1")}, ValueError, r"attributes\.npy must hold .*found <U1"),
    "objects": (
        {"images.npy": np.array([None, 1])},
        ValueError,
        r"images\.npy cannot be read: .*allow_pickle",
    ),
    "rubbish": (
        {"images.npy": b"\x93NUMPY\x01"},
        ValueError,
        r"images\.npy cannot be read: expected .*found",
    ),
    "nothing in it": ({"images.npy": b""}, ValueError, r"images\.npy cannot be read: .*; write it with"),
    "lengths": (
        {"attributes.npy": np.ones((5, 9))},
        ValueError,
        r"images\.npy has 6 images but .*attributes\.npy has 5 rows: .*use two files of one set",
    ),
    "negative": (
        {"images.npy": np.where(np.arange(6)[:, None, None] == 4, -2.5, np.ones((6, 44, 44)))},
        ValueError,
        r"images\.npy: counts must be finite and at least 0, found -2\.5 in row 4 \(1936 such in all\); give",
    ),
    "infinite": ({"images.npy": np.full((6, 44, 44), np.inf)}, ValueError, "found inf in row 0"),
    "not a number": (
        {"attributes.npy": np.where(np.eye(6, 9) == 1, np.nan, 1)},
        ValueError,
        r"attributes\.npy: attributes must be finite, found nan in row 0 \(6 such in all\); remove",
    ),
    "negative energy": (
        {"attributes.npy": -np.ones((6, 9))},
        ValueError,
        r"attributes\.npy: energies must be .*found -1\.0 in row 0 .* the order energy, vertex_x, .*, charge",
    ),
    "empty images": ({"images.npy": np.zeros((6, 44, 44))}, ValueError, "counts above 0 .* found only zeros"),
    "one particle": (
        {"attributes.npy": np.ones((6, 9))},
        ValueError,
        "at least 2 particles, got 1 in 6 image",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_files_are_named_in_one_line(tmp_path: Path, name: str) -> None:
    files, error, match = WRONG[name]
    write_set(tmp_path, np.ones((6, 44, 44)), np.arange(54.0).reshape(6, 9))
    for file, content in files.items():
        if content is None:
            (tmp_path / file).unlink()
        elif isinstance(content, bytes):
            (tmp_path / file).write_bytes(content)
        else:
            np.save(tmp_path / file, content)
    with pytest.raises(error, match=match) as caught:
        CalorimeterData(tmp_path).setup()
    assert "\n" not in str(caught.value)


def test_an_archive_is_not_an_array(tmp_path: Path) -> None:
    write_set(tmp_path, np.ones((6, 44, 44)), np.ones((6, 9)))
    with (tmp_path / "images.npy").open("wb") as file:
        np.savez(file, images=np.ones((6, 44, 44)))
    with pytest.raises(ValueError, match=r"images\.npy must hold .*found an \.npz archive"):
        CalorimeterData(tmp_path).setup()


def test_says_which_folder_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTCORE_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match=r"was named: pass path=, or set OTCORE_DATA, to a folder"):
        CalorimeterData().setup()
    with pytest.raises(FileNotFoundError, match=r"nowhere must be a folder .*found nothing: pass path="):
        CalorimeterData(tmp_path / "nowhere").setup()
    (tmp_path / "file").touch()
    with pytest.raises(FileNotFoundError, match=r"found a file: pass path="):
        CalorimeterData(tmp_path / "file").setup()


@pytest.mark.parametrize("fraction", [0, 1, -0.5])
def test_other_fractions_are_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match=f"test_fraction must be between 0 and 1, got {fraction}"):
        SyntheticCalorimeterData(100, test_fraction=fraction)


def test_scaling_by_hand() -> None:
    """Energies e^0 - 1 and e^2 - 1: logarithms 0 and 2, so -1 and 1. Charges 1 and 5; the rest constant."""
    attributes = np.full((2, 9), 4.0)
    attributes[:, 0] = np.expm1([0, 2])
    attributes[:, 8] = 1, 5
    counts = np.zeros((2, 44, 44))
    counts[0, 0, 0] = 99
    scaling = CalorimeterScaling.fit(counts, attributes)
    labels = scaling.to_labels(torch.tensor(attributes))
    assert torch.allclose(labels, torch.tensor([[-1.0, *[0] * 7, -1], [1, *[0] * 7, 1]]))
    assert torch.allclose(scaling.to_attributes(labels), torch.tensor(attributes))
    images = scaling.to_images(torch.tensor([0, 9, 99, 9999]))
    assert torch.allclose(images, torch.tensor([0, 0.5, 1, 2]))
    assert torch.allclose(scaling.to_counts(torch.tensor([-0.3, 0, 0.5])), torch.tensor([0, 0, 9.0]))


def test_counts_come_back_exactly() -> None:
    counts = torch.arange(1000 + 1)
    scaling = CalorimeterScaling(700.0, torch.zeros(9), torch.ones(9))
    images = scaling.to_images(counts)
    assert torch.equal(scaling.to_counts(images, whole=True), counts.float())
    assert torch.allclose(scaling.to_counts(images), counts.float(), rtol=1e-5)


def test_labels_are_standardised_by_the_training_set() -> None:
    data = SyntheticCalorimeterData(1000)
    data.setup()
    assert torch.allclose(data.train_set.labels.mean(0), torch.zeros(9), atol=1e-5)
    assert torch.allclose(data.train_set.labels.std(0, correction=0), torch.ones(9), atol=1e-5)
    assert data.test_set.labels.mean(0).abs().min() > 1e-3
    assert data.train_set.images.min() == 0
    assert data.train_set.images.max() == 1


def test_the_split_keeps_particles_together() -> None:
    data = SyntheticCalorimeterData(1000, test_fraction=0.3)
    data.setup()
    counts, _ = simulate(1000)
    assert len(data.test_set.images) == 300
    everything = data.scaling.to_images(torch.as_tensor(counts)).unsqueeze(1)
    found = rows_of(data.train_set.images) + rows_of(data.test_set.images)
    assert sorted(found) == sorted(rows_of(everything))
    assert not set(rows_of(data.train_set.labels)) & set(rows_of(data.test_set.labels))
    by_image = SyntheticCalorimeterData(1000, whole_particles=False)
    by_image.setup()
    assert set(rows_of(by_image.train_set.labels)) & set(rows_of(by_image.test_set.labels))
    assert len(by_image.test_set.images) == 200


def test_the_split_depends_on_its_seed_alone() -> None:
    sets = [SyntheticCalorimeterData(200, seed=1), SyntheticCalorimeterData(200, seed=2)]
    sets += [SyntheticCalorimeterData(200, split_seed=3), SyntheticCalorimeterData(200, simulation_seed=4)]
    first, second, *others = (
        sorted(rows_of(data.test_dataloader().data.images)) for data in map(ready, sets)
    )
    assert first == second
    assert first not in others


def ready(data: SyntheticCalorimeterData) -> SyntheticCalorimeterData:
    data.setup()
    return data


def test_simulation_depends_on_its_seed_alone() -> None:
    np.random.seed(0)  # noqa: NPY002
    one = simulate(50, 3)
    np.random.seed(1)  # noqa: NPY002
    same, other = simulate(50, 3), simulate(50, 4)
    for first, second, third in zip(one, same, other, strict=True):
        assert np.array_equal(first, second)
        assert not np.array_equal(first, third)


def test_repeated_particles() -> None:
    """Equal attributes within four rows and different ones beyond, and no two equal responses."""
    counts, attributes = simulate(42, repeats=4)
    assert counts.shape == (42, 44, 44)
    assert counts.dtype == np.int32
    assert attributes.shape == (42, len(ATTRIBUTES))
    for a, b in itertools.combinations(range(42), 2):
        assert np.array_equal(attributes[a], attributes[b]) == (a // 4 == b // 4)
        assert not np.array_equal(counts[a], counts[b])


@pytest.mark.parametrize(("n", "repeats"), [(0, 5), (5, 0)])
def test_nothing_to_simulate(n: int, repeats: int) -> None:
    with pytest.raises(ValueError, match=r"(n|repeats) must be at least 1, got 0"):
        simulate(n, repeats=repeats)


@pytest.fixture(scope="module")
def ten_thousand() -> tuple[np.ndarray, np.ndarray]:
    return simulate(10_000)


def test_published_sparsity(ten_thousand: tuple[np.ndarray, np.ndarray]) -> None:
    """Photons a pixel: .23 on average, up to about 1000 (slides of the paper's authors); mostly none."""
    counts, _ = ten_thousand
    assert counts.min() == 0
    assert counts.mean() == pytest.approx(0.23, abs=0.01)
    assert 850 < counts.max() < 1150
    assert (counts == 0).mean() > 0.95


def test_particles_obey_their_masses(ten_thousand: tuple[np.ndarray, np.ndarray]) -> None:
    """E^2 = p^2 + m^2."""
    _, attributes = ten_thousand
    momentum = np.linalg.norm(attributes[:, 4:7], axis=1)
    assert np.allclose(np.hypot(momentum, attributes[:, 7]), attributes[:, 0])
    assert set(attributes[:, 8]) == {-1, 0, 1}


def test_impact_point_by_hand() -> None:
    """1 mm aside at the vertex, 1.5 cm by the slope over 100 m, 0.1 cm by the charge; fibres of 1.6 mm."""
    particle = np.array([[500.0, 0.1, 0, 1200, 500 * 1.5e-4, 0, 500, 0.9383, 1]])
    assert impact_point(particle)[0] == pytest.approx([22, 22 + 1.7 / 0.16])


def test_responses_follow_the_particle(ten_thousand: tuple[np.ndarray, np.ndarray]) -> None:
    """Well inside the detector: light in proportion to energy, its median at the impact point."""
    counts, attributes = ten_thousand
    point = impact_point(attributes)
    inside = (np.abs(point - 22) < 8).all(1)
    light, energy = counts[inside].sum((1, 2)), attributes[inside, 0]
    for chosen in (energy < 100, (energy > 100) & (energy < 700), energy > 2000):
        assert light[chosen].sum() / energy[chosen].sum() == pytest.approx(1.2, rel=0.05)
    along = counts[inside].sum(2).cumsum(1)
    middle = (along < light[:, None] / 2).sum(1)
    bright = light > 100
    assert np.abs(middle - np.floor(point[inside, 0]))[bright].max() <= 2


def build_e2e() -> ConditionalE2ESAE:
    encoder, decoder = mlp(44, latent_dim=2, hidden=(16,))
    generator = NoiseGenerator(classes=9, latent_dim=2)
    return ConditionalE2ESAE(encoder, decoder, generator, classes=9, latent_weight=0.1, learning_rate=5e-3)


def build_vae() -> ConditionalVAE:
    network = torch.nn.Sequential(torch.nn.AvgPool2d(11), torch.nn.Flatten(), torch.nn.Linear(10 * 4 * 4, 4))
    decoder = mlp(44, latent_dim=11, hidden=(16,))[1]
    return ConditionalVAE(
        ConditionedEncoder(network), ConditionedDecoder(decoder), 2, classes=9, learning_rate=5e-3
    )


@pytest.mark.parametrize("build", [build_e2e, build_vae])
def test_conditional_models_train_on_it(build, trainer) -> None:
    """Two epochs; then one image for each test particle, other where its label is other, and the metrics."""
    torch.manual_seed(0)
    data, model, history = SyntheticCalorimeterData(500, batch_size=20), build(), History()
    before = copy.deepcopy(model)
    trainer(max_epochs=2, callbacks=[history]).fit(model, data)
    curve = history.curves["train/reconstruction"].values
    assert curve[1] < 0.8 * curve[0]
    test, metrics, labels = data.test_set, CalorimeterMetrics(data.scaling.to_counts), data.test_set.labels

    def sample(model, labels: torch.Tensor) -> torch.Tensor:
        return model.eval().sample(100, torch.Generator().manual_seed(0), labels=labels)

    made = sample(model, labels)
    assert made.shape == (100, 1, 44, 44)
    assert not torch.allclose(made, sample(model, labels.flip(0)))
    values = []
    for images in (made, sample(before, labels)):
        metrics.reset()
        metrics.update(test.images, real=True)
        metrics.update(images, real=False)
        values.append(metrics.compute())
    for name, trained in values[0].items():
        assert 0 < trained < 0.5 * values[1][name], (name, values)
