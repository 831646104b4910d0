"""The calorimeter column of Deja et al.'s Table 1, on synthetic responses: theirs are not public."""

from __future__ import annotations

from pathlib import Path

import torch
from matplotlib.figure import Figure

from otcore_ae import plots
from otcore_ae.data.calorimeter import ATTRIBUTES, SIDE, SyntheticCalorimeterData
from otcore_ae.data.module import ImageData
from otcore_ae.metrics.calorimeter import (
    QUADRANTS,
    CalorimeterMetrics,
    channel_mae,
    channel_wasserstein,
    channels,
    repeat_pairs,
)
from otcore_ae.metrics.collection import MetricInfo
from otcore_ae.metrics.generated import generated, generated_figures
from otcore_ae.models.base import GenerativeModel
from otcore_ae.models.dcgan import ConditionalDCGAN
from otcore_ae.models.e2e_sae import ConditionalE2ESAE
from otcore_ae.models.vae import ConditionalVAE
from otcore_ae.models.wae import ConditionalWAEMMD
from otcore_ae.networks import NoiseGenerator, conditional_network, dcgan_network, e2e_network
from otcore_ae.priors import Normal
from otcore_ae.reproduce.pictures import Models, made_with
from otcore_ae.reproduce.table import Picture, System, Table
from otcore_ae.transport import Transport

IMAGES, BATCH, EPOCHS = 10_000, 100, 20
LATENTS, NOISE, CONDITIONS = 16, 64, len(ATTRIBUTES)
SAMPLING_SEED, CHUNK = 11, 500
BRIGHTNESS = (1.0, 0.9, 0.75, 0.6, 0.4, 0.2)  # quantiles of the responses that are shown
METRICS = {
    "final/channel_mae": MetricInfo("MAE of channels, photons", "lower"),
    "final/channel_wasserstein": MetricInfo("Wasserstein of channels, photons", "lower"),
    "train/reconstruction": MetricInfo("MSE, training mean", "lower"),
}


def _synthetic(folder: Path | None, seed: int) -> ImageData:
    return SyntheticCalorimeterData(IMAGES, BATCH, seed=seed)


def _e2e(data: ImageData, seed: int) -> GenerativeModel:
    return ConditionalE2ESAE(
        *e2e_network(LATENTS, SIDE),
        NoiseGenerator(NOISE, CONDITIONS, LATENTS),
        noise=Normal(NOISE),
        classes=CONDITIONS,
        weights={"reconstruction": 4000.0},
        transport=Transport(blur=0.5),
        learning_rate_decay=0.95,
        seed=seed,
    )


def _vae(data: ImageData, seed: int) -> GenerativeModel:
    networks = conditional_network(LATENTS, CONDITIONS, moments=True, image_size=SIDE)
    return ConditionalVAE(*networks, LATENTS, classes=CONDITIONS, learning_rate_decay=0.95, seed=seed)


def _wae(data: ImageData, seed: int) -> GenerativeModel:
    networks = conditional_network(LATENTS, CONDITIONS, image_size=SIDE)
    return ConditionalWAEMMD(
        *networks, latent_dim=LATENTS, classes=CONDITIONS, learning_rate_decay=0.95, seed=seed
    )


def _dcgan(data: ImageData, seed: int) -> GenerativeModel:
    networks = dcgan_network(NOISE, CONDITIONS, SIDE)
    return ConditionalDCGAN(*networks, noise_dim=NOISE, classes=CONDITIONS, seed=seed)


def channel_figures(model: GenerativeModel, data: ImageData) -> dict[str, float]:
    """A response for each test particle, made with its attributes, against the simulated one."""
    assert isinstance(data, SyntheticCalorimeterData)
    metric = CalorimeterMetrics(data.scaling.to_counts)
    return generated_figures(metric, model, data, seed=SAMPLING_SEED, chunk=CHUNK)


def responses(models: Models, data: ImageData) -> Figure:
    """Responses of six test particles, the brightest first: simulated, simulated again, and generated."""
    assert isinstance(data, SyntheticCalorimeterData)
    test, scaling = data.test_set, data.scaling
    first, second = repeat_pairs(test.labels)
    order = scaling.to_counts(test.images[first]).sum((1, 2, 3)).argsort()
    shown = order[(torch.tensor(BRIGHTNESS) * (len(order) - 1)).long()]
    labels = test.labels[first[shown]]
    images = {"simulated": test.images[first[shown]], "simulated again": test.images[second[shown]]}
    images |= {name: made_with(model, labels) for name, model in models.items()}
    particles = [
        f"{energy:.0f} GeV\nmass {mass:.2f} GeV\ncharge {round(charge)}"
        for energy, mass, charge in scaling.to_attributes(labels)[:, [0, 7, 8]].tolist()
    ]
    counts = {name: scaling.to_counts(pictures, whole=True) for name, pictures in images.items()}
    return plots.responses(counts, particles, title="Synthetic responses, simulated and generated")


def sums(models: Models, data: ImageData) -> Figure:
    """How the five channels' sums are distributed over the test set, simulated and generated."""
    assert isinstance(data, SyntheticCalorimeterData)
    found = {"simulated": channels(data.scaling.to_counts(data.test_set.images))}
    for name, model in models.items():
        parts = generated(model, data.test_set.labels, seed=SAMPLING_SEED, chunk=CHUNK)
        found[name] = torch.cat([channels(data.scaling.to_counts(images)) for images in parts])
    headings = [*(f"{quadrant}, even fibres" for quadrant in QUADRANTS), "odd fibres"]
    return plots.channel_sums(
        found, headings, title="Synthetic responses: sums of channels over the test set"
    )


def repeats(data: ImageData) -> dict[str, dict[str, float]]:
    """What the simulation scores against itself: another response of the same particle, other particles."""
    assert isinstance(data, SyntheticCalorimeterData)
    first, second = repeat_pairs(data.test_set.labels)
    sums, others = (channels(data.scaling.to_counts(part.images)) for part in (data.test_set, data.train_set))
    return {
        "final/channel_mae": {"floor": channel_mae(sums[first], sums[second])},
        "final/channel_wasserstein": {"floor": channel_wasserstein(sums, others)},
    }


TABLE = Table(
    name="calorimeter",
    title="Calorimeter responses, SYNTHETIC: conditional models",
    source="",
    load=_synthetic,
    epochs=EPOCHS,
    steps_per_epoch=IMAGES * 4 // 5 // BATCH,
    metrics=METRICS,
    averaged={},
    systems=(
        System("e2e", "conditional e2e-SAE", 1, _e2e),
        System("vae", "conditional VAE", 1, _vae),
        System("wae", "conditional WAE-MMD", 1, _wae),
        System("dcgan", "conditional DCGAN", 1, _dcgan),
    ),
    references=repeats,
    final=channel_figures,
    settings="10,000 responses of 44 x 44 pixels of a made-up simulation with nine attributes a particle, "
    "five responses each (the ZDC simulation of Deja et al. is not public, so that no figure here compares "
    "with theirs); 20 epochs, batches of 100. Networks train in bfloat16 (autocast), losses in float32.",
    pictures=(
        Picture("responses", "synthetic responses of the same particles, simulated and generated", responses),
        Picture("sums", "sums of the five channels of synthetic responses, simulated and generated", sums),
    ),
    precision="bf16-mixed",
)
