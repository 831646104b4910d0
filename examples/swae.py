"""Train a Sliced-Wasserstein autoencoder and draw its latent space.

python examples/swae.py --prior ring                           scikit-learn's digits, a minute
python examples/swae.py --prior ring --data shared/data        MNIST, 20 epochs of 120 steps as published

With --settings converged the published epochs are followed by three more phases, which bring the latents of
the test set as near to the prior as samples of it are: epochs in which an image and the same image in another
hand share their latents; the encoder's last layers alone, on clouds of 5000 latents; and epochs of the
decoder alone, which follows.

A run that was stopped goes on from its last epoch when the same command is given again, and a published run
goes on to the converged one.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar
from torch import Tensor
from torch.nn import functional

from otcore import sliced_wasserstein_distance
from otcore_ae import (
    SWAE,
    Bowl,
    Circle,
    DigitsData,
    Disk,
    HandwritingStyle,
    MNISTData,
    Prior,
    Ring,
    Uniform,
    match_prior,
    plots,
    swae_network,
)
from otcore_ae.artifacts import OutputError, prepare_folder
from otcore_ae.data.module import ImageData
from otcore_ae.history import History
from otcore_ae.training import LAST, last_checkpoint

PRIORS: dict[str, Prior] = {
    "ring": Ring(),
    "circle": Circle(),
    "disk": Disk(),
    "bowl": Bowl(),
    "uniform": Uniform(),
}
PUBLISHED_BATCH = 500
CONSISTENT, FOLLOWED = "consistent.ckpt", "followed.ckpt"  # of the epochs beyond the published ones
CONSISTENT_EPOCHS, FOLLOWING_EPOCHS = 6, 2
MATCHING_STEPS = 2500
DIRECTIONS = 1000  # of the measured distances
PAIRS = 10  # of samples, whose mean distance is the floor; that of the latents is a mean over as many


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prior", choices=PRIORS, default="ring")
    parser.add_argument("--settings", choices=["published", "converged"], default="published")
    parser.add_argument("--data", type=Path, help="folder with MNIST (default: scikit-learn's digits)")
    parser.add_argument("--epochs", type=int, help="as published; default: 20 on MNIST, 200 on digits")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--precision",
        choices=["32-true", "bf16-mixed"],
        default="32-true",
        help="bf16-mixed: networks in bfloat16, twice as fast on CPUs that have it; losses stay in float32",
    )
    parser.add_argument("--output", type=Path, help="default: out/swae-<prior>")
    return parser.parse_args()


def fit(model: SWAE, data: ImageData, options: argparse.Namespace, name: str, epochs: int) -> History:
    """Train for so many epochs, or go on from the checkpoint of that name; what was logged."""
    history, last = History(), last_checkpoint(options.output, name)
    trainer = L.Trainer(
        max_epochs=epochs,
        accelerator="auto",
        precision=options.precision,
        callbacks=[
            history,
            ModelCheckpoint(
                options.output,
                filename=Path(name).stem,
                enable_version_counter=False,
                save_on_train_epoch_end=True,
            ),
            TQDMProgressBar(),
        ],
        check_val_every_n_epoch=5,
        logger=False,
        enable_model_summary=False,
    )
    trainer.fit(model, data, ckpt_path=last, weights_only=True)
    return history


def converge(model: SWAE, data: ImageData, options: argparse.Namespace) -> History:
    """Train the model further until test latents are distributed as the prior; what was logged."""
    further: dict[str, Any] = {
        "latent_weight": 300.0,
        "consistency_weight": 100.0,
        "augmentation": HandwritingStyle(thickness=0.8 * data.image_size / 28),
        "lifted": options.prior == "ring",
        "seed": options.seed + 1,
    }
    consistent = SWAE(
        model.encoder, model.decoder, model.prior, decoded=100, learning_rate_decay=0.6, **further
    )
    history = fit(consistent, data, options, CONSISTENT, CONSISTENT_EPOCHS)
    if last_checkpoint(options.output, FOLLOWED) is None:
        match_prior(consistent, data.train_set.images, steps=MATCHING_STEPS)
    model.encoder.requires_grad_(False)
    follower = SWAE(model.encoder, model.decoder, model.prior, learning_rate_decay=0.3, seed=options.seed + 2)
    fit(follower, data, options, FOLLOWED, FOLLOWING_EPOCHS)
    return history


def distance(points: Tensor, sample: Tensor) -> float:
    """Sliced W_2^2 over DIRECTIONS fixed directions."""
    return sliced_wasserstein_distance(points, sample, n_projections=DIRECTIONS, seed=0, root=False).item()


@torch.no_grad()
def measure(model: SWAE, images: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Latents of the images, how far they are from the prior, beside its samples, and the two errors."""
    latents = torch.cat([model.encode(part) for part in images.split(1000)])
    decoded = torch.cat([model.decode(part) for part in latents.split(1000)])
    draw = torch.Generator().manual_seed(1)
    samples = [model.prior(len(latents), draw) for _ in range(1 + PAIRS)]
    radius = latents.norm(dim=1)
    return latents, {
        "sliced_w2_squared": sum(distance(latents, sample) for sample in samples[1:]) / PAIRS,
        "floor": sum(distance(*pair) for pair in pairwise(samples)) / PAIRS,
        "radius_mean": radius.mean().item(),
        "radius_std": radius.std().item(),
        "cross_entropy": functional.binary_cross_entropy(decoded, images).item(),
        "absolute": functional.l1_loss(decoded, images).item(),
    }


def main() -> int:
    options = parse()
    options.output = output = options.output or Path("out") / f"swae-{options.prior}"
    try:
        prepare_folder(output)
    except OutputError as error:
        print(f"{error} with --output", file=sys.stderr)
        return 2
    warnings.filterwarnings("ignore", category=UserWarning, module="lightning")
    L.seed_everything(options.seed, verbose=False)
    data = (
        MNISTData(options.data, PUBLISHED_BATCH, seed=options.seed)
        if options.data
        else DigitsData(100, seed=options.seed)
    )
    try:
        data.setup()
        for name in (LAST, CONSISTENT, FOLLOWED):
            last_checkpoint(output, name)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    encoder, decoder = swae_network(data.image_size)
    model = SWAE(encoder, decoder, PRIORS[options.prior], seed=options.seed)
    histories = {
        "published": fit(model, data, options, LAST, options.epochs or (20 if options.data else 200))
    }
    if options.settings == "converged":
        histories["converged"] = converge(model, data, options)
    model.eval()
    latents, found = measure(model, data.test_set.images)
    draw = torch.Generator().manual_seed(2)
    name = f"SWAE, {options.prior}"
    curves = {f"train/{term}": term.replace("_", " ") for term in ("cross_entropy", "absolute", "latent")}
    with torch.no_grad():
        figures = {
            "latent": plots.latent_points({name: (latents, data.test_set.labels)}, model.prior(4000, draw)),
            "grid": plots.decoded_grid(model.decode, title=f"{name}: the decoded latent plane"),
            "reconstructions": plots.reconstructions(
                data.test_set.images[:20], {name: model(data.test_set.images[:20])}
            ),
            "losses": plots.loss_curves(
                {f"{name}, {settings}": history.curves for settings, history in histories.items()}, curves
            ),
        }
    for picture, figure in figures.items():
        (output / f"{picture}.png").write_bytes(plots.png(figure))
    (output / "metrics.json").write_text(json.dumps(found, indent=2) + "\n")
    for key, value in found.items():
        print(f"{key:>18}  {value:.5f}")
    print(f"pictures and metrics.json in {output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
