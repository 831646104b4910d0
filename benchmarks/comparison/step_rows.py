"""Training steps of the autoencoders, forward, backward and optimiser, against the same model written plainly
with GeomLoss, or with a sort in torch: networks, batches and optimiser alike, on random images."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .line import Check, Line, duration
from .options import Options
from .timing import interleave

GEOMLOSS, SORT = "geomloss tensorized", "torch.sort"
FASTER, NEVER_SLOWER = 3.0, 1.0
CLOUD = 2000
AGREED = 0.05  # of the latent terms, relative: GeomLoss's schedule does not converge

Step = Callable[[], float]


@dataclass(frozen=True)
class Case:
    """A model at its paper's batch size.

    name, batch: which, and images a step. peer: what the plain one calls. bar: least ratio of its time to
    ours: 3 where the latent term dominates. build: () -> our model. plain: (model, images, labels) -> the
    loss, written plainly on the same networks; it also gives the latent term's value.
    """

    name: str
    batch: int
    peer: str
    bar: float
    build: Callable[[], Any]
    plain: Callable[[Any, Tensor, Tensor], tuple[Tensor, Tensor]]
    size: int = 28


def _flower_loss(
    model: Any, images: Tensor, labels: Tensor, *, weight: float = 0.1, through: str = "batch"
) -> tuple[Tensor, Tensor]:
    from geomloss import SamplesLoss

    latents = model.encoder(images)
    reconstruction = torch.nn.functional.mse_loss(model.decoder(latents), images)
    cloud = latents
    if through != "batch":
        others = _training_images()[: CLOUD - len(images)]
        with torch.set_grad_enabled(through == "all"):
            rest = model.encoder(others)
        cloud = torch.cat([latents, rest])
    sample = model.prior(len(cloud), torch.Generator().manual_seed(0))
    latent = SamplesLoss("sinkhorn", p=2, blur=0.05, scaling=0.7, backend="tensorized")(cloud, sample)
    return reconstruction + weight * latent, latent


def _conditional_loss(model: Any, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    from geomloss import SamplesLoss

    latents, conditions = model.encoder(images), torch.nn.functional.one_hot(labels, 10).float()
    reconstruction = torch.nn.functional.mse_loss(model.decoder(latents), images)
    made = model.noise_generator(model.noise(len(images), torch.Generator().manual_seed(0)), conditions)
    loss = SamplesLoss("sinkhorn", p=2, blur=0.05, scaling=0.95, diameter=0.01, backend="tensorized")
    latent = loss(torch.cat([latents, conditions], 1), torch.cat([made, conditions], 1))
    return 4000 * reconstruction + latent, latent


def _sorted_loss(model: Any, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    latents = model.encoder(images)
    reconstructed = model.decoder(latents)
    theta = torch.nn.functional.normalize(torch.randn(50, latents.shape[1]), dim=1).T
    sample = model.prior(len(images), torch.Generator().manual_seed(0))
    latent = ((latents @ theta).sort(0).values - (sample @ theta).sort(0).values).square().mean()
    pixels = torch.nn.functional.binary_cross_entropy(reconstructed, images)
    return pixels + torch.nn.functional.l1_loss(reconstructed, images) + 10 * latent, latent


@functools.cache
def _training_images() -> Tensor:
    return torch.rand(CLOUD, 1, 28, 28, generator=torch.Generator().manual_seed(1))


def _models() -> tuple[Case, ...]:
    from otcore_ae import (
        SAE,
        SWAE,
        ConditionalE2ESAE,
        Flower,
        GlobalSAE,
        MinibatchGlobalSAE,
        NoiseGenerator,
        Ring,
        Transport,
        Uniform,
        e2e_network,
        lenet,
        mlp,
        swae_network,
    )

    published = Transport(blur=0.05, scaling=0.95, diameter=0.01, schedule="geomloss")

    def conditional() -> Any:
        return ConditionalE2ESAE(
            *e2e_network(), NoiseGenerator(), noise=Uniform(64, 0.0, 1.0), transport=published,
            weights={"reconstruction": 4000.0},
        )  # fmt: skip

    whole = functools.partial(_flower_loss, weight=CLOUD / 600, through="rows")
    return (
        Case("SAE, MLP", 100, GEOMLOSS, NEVER_SLOWER, lambda: SAE(*mlp(), Flower()), _flower_loss),
        Case("SAE, LeNet", 100, GEOMLOSS, NEVER_SLOWER, lambda: SAE(*lenet(), Flower()), _flower_loss),
        Case(
            f"Minibatch-Global-SAE, MLP, {CLOUD}",
            100,
            GEOMLOSS,
            FASTER,
            lambda: MinibatchGlobalSAE(*mlp(), Flower(), cloud_size=CLOUD),
            whole,
        ),
        Case(
            f"Global-SAE, MLP, {CLOUD}",
            100,
            GEOMLOSS,
            FASTER,
            lambda: GlobalSAE(*mlp(), Flower(), cloud_size=CLOUD),
            functools.partial(_flower_loss, through="all"),
        ),
        Case("conditional e2e-SAE", 1000, GEOMLOSS, NEVER_SLOWER, conditional, _conditional_loss),
        Case("SWAE", 500, SORT, NEVER_SLOWER, lambda: SWAE(*swae_network(), Ring()), _sorted_loss),
    )


NAMES = (
    "SAE, MLP",
    "SAE, LeNet",
    f"Minibatch-Global-SAE, MLP, {CLOUD}",
    f"Global-SAE, MLP, {CLOUD}",
    "conditional e2e-SAE",
    "SWAE",
)


def step_lines(name: str, options: Options) -> Iterator[Line]:
    """Both train on in their own copies; the first steps' latent terms are compared."""
    case = next(case for case in _models() if case.name == name)
    if not options.wants_peer(case.peer, has_bar=True):
        return
    torch.manual_seed(0)
    model = case.build()
    if hasattr(model, "cache"):
        model._train_images = _training_images()
        model.weights.setdefault("latent", model.default_weight(CLOUD))
    twin = copy.deepcopy(model)
    images, labels = _training_images()[: case.batch], torch.arange(case.batch) % 10
    contenders = {"otcore": _ours(model, images, labels), case.peer: _plain(case, twin, images, labels)}
    first = {name: step() for name, step in contenders.items()}
    error = abs(first["otcore"] - first[case.peer]) / abs(first[case.peer])
    timings = interleave(contenders, options.rounds)
    yield Line(
        row=f"step {name}",
        against=case.peer,
        ours=duration(timings.median("otcore")),
        theirs=duration(timings.median(case.peer)),
        figure=timings.ratio(case.peer, "otcore"),
        bar=case.bar,
        at_least=True,
        # Prior samples, noise and directions are drawn anew: the terms agree in size.
        check=Check(
            error < 10 * AGREED, f"first latent terms {first['otcore']:.3g} and {first[case.peer]:.3g}"
        ),
        detail=f"{timings.ratio_of_medians(case.peer, 'otcore'):.3g} x of medians; batches of {case.batch}",
    )


def _ours(model: Any, images: Tensor, labels: Tensor) -> Step:
    from otcore_ae.data import Batch

    optimiser = _optimiser(model)
    batch = Batch(images, labels, torch.arange(len(images)))

    def step() -> float:
        terms = model.terms(model.step_of(batch))
        loss = torch.stack([model.weight_of(name) * value for name, value in terms.items()]).sum()
        return _update(optimiser, loss, terms["latent"])

    return step


def _plain(case: Case, model: Any, images: Tensor, labels: Tensor) -> Step:
    optimiser = _optimiser(model)
    return lambda: _update(optimiser, *case.plain(model, images, labels))


def _update(optimiser: torch.optim.Optimizer, loss: Tensor, latent: Tensor) -> float:
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return latent.item()


def _optimiser(model: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=1e-3)


ROWS = {f"step {name}": functools.partial(step_lines, name) for name in NAMES}
