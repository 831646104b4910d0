"""Tables' pictures: of trained models alone, and with what they say in them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from otcore_ae import (
    ConditionalDCGAN,
    ConditionalE2ESAE,
    DigitsData,
    NoiseGenerator,
    SyntheticCalorimeterData,
)
from otcore_ae.data.module import ImageData
from otcore_ae.models import GenerativeModel
from otcore_ae.networks import ConditionedDecoder, ConditionedEncoder, MLPDecoder, MLPEncoder
from otcore_ae.reproduce.calorimeter import TABLE as CALORIMETER
from otcore_ae.reproduce.calorimeter import responses, sums
from otcore_ae.reproduce.cell import MODEL
from otcore_ae.reproduce.conditional import TABLE as CONDITIONAL
from otcore_ae.reproduce.pictures import (
    LATENT,
    draw_pictures,
    embedding,
    generated_classes,
    interpolations,
)
from otcore_ae.reproduce.report import markdown
from otcore_ae.reproduce.table import System, Table


def e2e(data: ImageData, seed: int) -> ConditionalE2ESAE:
    side, classes = (44, 9) if isinstance(data, SyntheticCalorimeterData) else (8, 10)
    generator = NoiseGenerator(classes=classes, latent_dim=3)
    return ConditionalE2ESAE(
        MLPEncoder(side, 3, (8,)), MLPDecoder(side, 3, (8,)), generator, classes=classes
    ).eval()


def gan(data: ImageData, seed: int) -> ConditionalDCGAN:
    generator = ConditionedDecoder(MLPDecoder(8, 74, (8,)))
    return ConditionalDCGAN(generator, ConditionedEncoder(MLPEncoder(8, 1, (8,)))).eval()


def digits(folder: Path | None, seed: int) -> ImageData:
    data = DigitsData(seed=seed)
    data.setup()
    return data


def responses_of_few(folder: Path | None, seed: int) -> ImageData:
    data = SyntheticCalorimeterData(200, seed=seed)
    data.setup()
    return data


def keep(table: Table, work: Path, name: str, model: GenerativeModel) -> None:
    folder = work / table.name / name
    folder.mkdir(parents=True)
    save_file(model.state_dict(), folder / MODEL)


def test_pictures_of_what_was_trained(tmp_path: Path) -> None:
    """Nothing, without data, where no model is; else those that the models there allow, and the report."""
    systems = (
        System("e2e", "e2e-SAE", 2, e2e),
        System("gan", "GAN", 1, gan),
        System("few", "few", 1, e2e, steps=3),
    )
    table = replace(CONDITIONAL, load=digits, systems=systems, pictures=(*CONDITIONAL.pictures, LATENT))
    work, results = tmp_path / "work", tmp_path / "results"
    (results / table.name).mkdir(parents=True)
    data = digits(None, 0)

    def drawn() -> list[str]:
        return [path.name for path in draw_pictures(table, None, work, results)]

    def unread(folder: Path | None, seed: int) -> ImageData:
        raise AssertionError

    keep(table, work, "e2e-1", e2e(data, 1))
    keep(table, work, "few-0", e2e(data, 0))
    assert draw_pictures(replace(table, load=unread), None, work, results) == []
    assert "![" not in markdown(table, results)
    keep(table, work, "gan-0", gan(data, 0))
    assert drawn() == ["generated.png"]
    keep(table, work, "e2e-0", e2e(data, 0))
    state = torch.get_rng_state()
    assert drawn() == ["generated.png", "embedding.png", "interpolations.png"]
    assert torch.equal(torch.get_rng_state(), state)
    text = markdown(table, results)
    for picture in CONDITIONAL.pictures:
        assert f"![{picture.caption}]({table.name}/{picture.file})" in text
        assert (results / table.name / picture.file).read_bytes().startswith(b"\x89PNG")
    assert "latent.png" not in text


@torch.no_grad()
def test_pictures_of_the_conditional_table() -> None:
    data = digits(None, 0)
    models = {"e2e-SAE": e2e(data, 0), "GAN": gan(data, 0)}
    assert [axis.get_ylabel() for axis in generated_classes(models, data).axes] == ["test images", *models]
    (panel,) = embedding(models, data).axes
    assert [len(points.get_offsets()) for points in panel.collections] == [360, 360]
    (panel,) = interpolations(models, data).axes
    (image,) = panel.images
    shown = torch.from_numpy(image.get_array().filled(0)).unfold(0, 8, 9).unfold(1, 8, 9)
    assert shown.shape[:2] == (8, 11)
    model, ends = models["e2e-SAE"], data.test_set.images[:16].reshape(8, 2, 1, 8, 8)
    assert torch.equal(shown[:, [0, -1]], ends[:, :, 0])
    assert torch.allclose(shown[:, [1, -2]], model(ends.flatten(0, 1)).reshape(8, 2, 8, 8), atol=1e-6)
    assert embedding({"GAN": models["GAN"]}, data) is None
    assert interpolations({"GAN": models["GAN"]}, data) is None


@torch.no_grad()
def test_pictures_of_the_calorimeter() -> None:
    """The same particles in every column, the brightest first, and the channels that the figures measure."""
    data = responses_of_few(None, 0)
    assert isinstance(data, SyntheticCalorimeterData)
    models = {"e2e-SAE": e2e(data, 0)}
    counts = data.scaling.to_counts(data.test_set.images, whole=True)
    figure = responses(models, data)
    simulated, again, made, _ = figure.axes
    assert [axis.get_title() for axis in (simulated, again, made)] == [
        "simulated",
        "simulated again",
        "e2e-SAE",
    ]
    brightest = int(counts.sum((1, 2, 3)).argmax())
    shown = torch.from_numpy(simulated.images[0].get_array().filled(0))[:44]
    assert torch.equal(shown, counts[brightest, 0].clamp_min(0.5))
    label = data.test_set.labels[brightest]
    energy, charge = data.scaling.to_attributes(label[None])[0, [0, 8]].tolist()
    told = simulated.get_yticklabels()[0].get_text()
    assert told.startswith(f"{energy:.0f} GeV")
    assert told.endswith(f"charge {charge:.0f}")
    assert len(figure.axes[0].get_yticklabels()) == 6
    assert made.images[0].get_array().shape == (6 * 45 - 1, 44)
    histograms = sums(models, data)
    assert len(histograms.axes) == 5
    for axis in histograms.axes:
        assert [stairs.get_data().values.sum() for stairs in axis.patches] == [len(counts), len(counts)]
    for words in (figure, histograms):
        assert "Synthetic" in words.get_suptitle()
    assert all("synthetic" in picture.caption for picture in CALORIMETER.pictures)
