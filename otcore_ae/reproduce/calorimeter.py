"""The calorimeter column of Deja et al.'s Table 1, on synthetic responses: theirs are not public."""

from __future__ import annotations

from pathlib import Path

from otcore_ae.data.calorimeter import ATTRIBUTES, SIDE, SyntheticCalorimeterData
from otcore_ae.data.module import ImageData
from otcore_ae.metrics.calorimeter import (
    CalorimeterMetrics,
    channel_mae,
    channel_wasserstein,
    channels,
    repeat_pairs,
)
from otcore_ae.metrics.collection import MetricInfo
from otcore_ae.metrics.generated import generated_figures
from otcore_ae.models.base import GenerativeModel
from otcore_ae.models.dcgan import ConditionalDCGAN
from otcore_ae.models.e2e_sae import ConditionalE2ESAE
from otcore_ae.models.vae import ConditionalVAE
from otcore_ae.models.wae import ConditionalWAEMMD
from otcore_ae.networks import NoiseGenerator, conditional_network, dcgan_network, e2e_network
from otcore_ae.priors import Normal
from otcore_ae.reproduce.table import System, Table
from otcore_ae.transport import Transport

IMAGES, BATCH, EPOCHS = 10_000, 100, 20
LATENTS, NOISE, CONDITIONS = 16, 64, len(ATTRIBUTES)
SAMPLING_SEED, CHUNK = 11, 500
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
    precision="bf16-mixed",
)
