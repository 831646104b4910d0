"""Tables 1 and 2 of Csiszarik et al., Global Sinkhorn Autoencoder: MLP and LeNet on MNIST, flower prior."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from otcore_ae.data.mnist import MNISTData
from otcore_ae.data.module import ImageData
from otcore_ae.metrics.collection import METRICS, MetricInfo
from otcore_ae.metrics.references import ot_floor, references
from otcore_ae.models.base import GenerativeAutoencoder, GenerativeModel
from otcore_ae.models.cache import encode_all
from otcore_ae.models.global_sae import GlobalSAE, MinibatchGlobalSAE
from otcore_ae.models.sae import SAE
from otcore_ae.networks import lenet, mlp
from otcore_ae.priors import Flower
from otcore_ae.reproduce.pictures import LATENT
from otcore_ae.reproduce.table import Published, System, Table
from otcore_ae.transport import Transport

CLOUD = 2000
TRAINING_ROWS, BATCH = 60_000, 100
EXCERPT = 120  # steps of the runs on the whole training set

METRIC_NAMES = {f"val/{name}": info for name, info in METRICS.items()}
CONVERGED = "global_ot_converged"
# Published figures are those of GeomLoss's schedule at scaling .7, which stops at about half the divergence.
EVALUATION = {"global_ot": Transport(schedule="geomloss"), CONVERGED: Transport()}

Network = Callable[[int], tuple[nn.Module, nn.Module]]


def _mnist(folder: Path | None, seed: int) -> ImageData:
    return MNISTData(folder, BATCH, seed=seed)


def _model(
    kind: type[GenerativeAutoencoder], network: Network, options: dict[str, Any], data: ImageData, seed: int
) -> GenerativeAutoencoder:
    return kind(*network(data.image_size), Flower(), seed=seed, evaluation=EVALUATION, **options)


def first_gradient_error(model: GenerativeModel, data: ImageData) -> dict[str, float]:
    """How far the latent term's gradient in the first batch's latents is from that of a tight, cold solve.

    A relative error in the Euclidean norm; the tight solve goes to a marginal error of 1e-4.
    """
    assert isinstance(model, MinibatchGlobalSAE | GlobalSAE)
    batch = next(iter(data.train_dataloader()))
    cloud = encode_all(data.train_set.images, model.encode)
    sample = model.prior(len(cloud), torch.Generator().manual_seed(0))

    def gradient(transport: Transport) -> Tensor:
        leaf = cloud.clone().requires_grad_()
        return torch.autograd.grad(transport(leaf, sample), leaf)[0][batch.rows]

    exact = gradient(replace(model.transport, tol=1e-4))
    return {"gradient_error": ((gradient(model.transport) - exact).norm() / exact.norm()).item()}


def _published(*figures: tuple[float, float]) -> dict[str, Published]:
    return {name: Published(*figure) for name, figure in zip(METRIC_NAMES, figures, strict=True)}


def _references(data: ImageData) -> dict[str, dict[str, float]]:
    ends = references(data.test_set.labels, Flower(), transport=EVALUATION["global_ot"])
    ends[CONVERGED] = {"floor": ot_floor(len(data.test_set.labels), Flower())}
    return {f"val/{name}": end for name, end in ends.items()}


def _table(
    number: int, title: str, network: Network, epochs: int, figures: dict[str, Any], *, remark: str = ""
) -> Table:
    def system(
        key: str, title: str, seeds: int, kind: type[GenerativeAutoencoder], paper: str, **more: Any
    ) -> System:
        options = more.pop("options", {})
        build = partial(_model, kind, network, options)
        return System(key, title, seeds, build, published=figures[paper], **more)

    excerpt = {"steps": EXCERPT, "measure": first_gradient_error, "note": "not run at full length"}
    systems = (
        system("local", "Local", 5, SAE, "local", options={"transport": Transport(schedule="geomloss")}),
        system(
            "local-converged",
            "Local, converged solves",
            1,
            SAE,
            "local",
            note="converged solves follow the minibatch's noise: the latents contract",
        ),
        system(
            f"minibatch-{CLOUD}",
            f"Minibatch global, cloud of {CLOUD:,}",
            5,
            MinibatchGlobalSAE,
            "minibatch",
            options={"cloud_size": CLOUD},
        ),
        system(
            f"full-{CLOUD}",
            f"Full global, cloud of {CLOUD:,}",
            1,
            GlobalSAE,
            "full",
            options={"cloud_size": CLOUD},
        ),
        system(
            "minibatch-all",
            "Minibatch global, all 60,000",
            1,
            MinibatchGlobalSAE,
            "minibatch",
            **excerpt,
        ),
        system("full-all", "Full global, all 60,000", 1, GlobalSAE, "full", **excerpt),
    )
    return Table(
        name=f"global-sae-{number}",
        title=f"Global Sinkhorn Autoencoder, Table {number}: {title}",
        source="Csiszarik et al., Global Sinkhorn Autoencoder: optimizing the latent representation of the "
        "full dataset (5 runs)",
        load=_mnist,
        epochs=epochs,
        steps_per_epoch=TRAINING_ROWS // BATCH,
        metrics=METRIC_NAMES | {f"val/{CONVERGED}": MetricInfo("global OT, converged", "lower")},
        averaged={"val/global_ot": 5, f"val/{CONVERGED}": 5},
        systems=systems,
        references=_references,
        settings="MNIST, flower prior (stratified), batches of 100, Adam 1e-3 with betas (.5, .999), blur "
        ".05, recalculate_every 1; weights .1 (local, full) and m / 600 (minibatch global, cloud of m "
        "points). Local solves follow GeomLoss's schedule at scaling .7, as the published ones did, unless "
        "said; global ones converge to a marginal error of 1e-2. The evaluated global OT is that of the same "
        "schedule, as published; it stops at about half of the converged divergence, in the last row."
        + remark,
        pictures=(LATENT,),
    )


TABLE_1 = _table(
    1,
    "MLP, 50 epochs",
    mlp,
    50,
    {
        "local": _published((0.018, 0.0028), (0.036, 0.00019), (0.456, 0.012), (0.55, 0.067), (0.83, 0.0082)),
        "minibatch": _published(
            (0.013, 0.0033), (0.034, 0.00033), (0.505, 0.019), (0.64, 0.033), (0.89, 0.007)
        ),
        "full": _published((0.014, 0.0038), (0.034, 0.0001), (0.516, 0.017), (0.64, 0.01), (0.87, 0.008)),
    },
)
TABLE_2 = _table(
    2,
    "LeNet, 30 epochs",
    lenet,
    30,
    {
        "local": _published(
            (0.016, 0.0021), (0.0362, 0.00012), (0.5339, 0.019), (0.6374, 0.018), (0.862, 0.0085)
        ),
        "minibatch": _published(
            (0.011, 0.0013), (0.0360, 0.00016), (0.5305, 0.033), (0.6406, 0.073), (0.893, 0.007)
        ),
        "full": _published(
            (0.015, 0.0013), (0.0356, 0.0004), (0.5752, 0.031), (0.6317, 0.048), (0.862, 0.009)
        ),
    },
    remark=" Where ours falls behind: without the transport term the same network, initialised and optimised "
    "alike, reaches a test MSE of .0359 after 30 epochs (one seed), which is what the paper reports with the "
    "term. So the networks agree, and what differs is how much the term costs; under which settings it costs "
    "nothing is not known.",
)
