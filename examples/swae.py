"""Train a Sliced-Wasserstein autoencoder and draw its latent space.

python examples/swae.py --prior ring                           scikit-learn's digits, a minute
python examples/swae.py --prior ring --data shared/data        MNIST, 20 epochs of 120 steps as published

A run that was stopped goes on from its last epoch when the same command is given again.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from itertools import pairwise
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar
from torch import Tensor

from otcore import sliced_wasserstein_distance
from otcore_ae import (
    SWAE,
    Bowl,
    Circle,
    DigitsData,
    Disk,
    MNISTData,
    Prior,
    Ring,
    Uniform,
    plots,
    swae_network,
)
from otcore_ae.artifacts import OutputError, prepare_folder
from otcore_ae.history import History
from otcore_ae.training import last_checkpoint

PRIORS: dict[str, Prior] = {
    "ring": Ring(),
    "circle": Circle(),
    "disk": Disk(),
    "bowl": Bowl(),
    "uniform": Uniform(),
}
PUBLISHED_BATCH = 500
DIRECTIONS = 1000  # of the measured distances
PAIRS = 10  # of samples, whose distances make the floor


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prior", choices=PRIORS, default="ring")
    parser.add_argument("--data", type=Path, help="folder with MNIST (default: scikit-learn's digits)")
    parser.add_argument("--epochs", type=int, help="default: 20 on MNIST, 200 on digits")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--precision",
        choices=["32-true", "bf16-mixed"],
        default="32-true",
        help="bf16-mixed: networks in bfloat16, twice as fast on CPUs that have it; losses stay in float32",
    )
    parser.add_argument("--output", type=Path, help="default: out/swae-<prior>")
    return parser.parse_args()


def distance(points: Tensor, sample: Tensor) -> float:
    """Sliced W_2^2 over DIRECTIONS fixed directions."""
    return sliced_wasserstein_distance(points, sample, n_projections=DIRECTIONS, seed=0, root=False).item()


@torch.no_grad()
def measure(model: SWAE, images: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Latents of the images, and how far they are from the prior, beside two samples of it."""
    latents = torch.cat([model.encode(part) for part in images.split(1000)])
    draw = torch.Generator().manual_seed(1)
    samples = [model.prior(len(latents), draw) for _ in range(1 + PAIRS)]
    floor = sum(distance(*pair) for pair in pairwise(samples)) / PAIRS
    found = {"sliced_w2_squared": distance(latents, samples[0]), "floor": floor}
    radius = latents.norm(dim=1)
    return latents, found | {"radius_mean": radius.mean().item(), "radius_std": radius.std().item()}


def main() -> int:
    options = parse()
    output = options.output or Path("out") / f"swae-{options.prior}"
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
        last = last_checkpoint(output)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    encoder, decoder = swae_network(data.image_size)
    model = SWAE(encoder, decoder, PRIORS[options.prior], seed=options.seed)
    history = History()
    trainer = L.Trainer(
        max_epochs=options.epochs or (20 if options.data else 200),
        accelerator="auto",
        precision=options.precision,
        callbacks=[
            history,
            ModelCheckpoint(
                output, filename="last", enable_version_counter=False, save_on_train_epoch_end=True
            ),
            TQDMProgressBar(),
        ],
        check_val_every_n_epoch=5,
        logger=False,
        enable_model_summary=False,
    )
    trainer.fit(model, data, ckpt_path=last, weights_only=True)
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
            "losses": plots.loss_curves({name: history.curves}, curves),
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
