"""The demo itself: train, compare, draw, write."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import torch

from otcore_ae.artifacts import write_files
from otcore_ae.data.digits import DigitsData
from otcore_ae.demo.pictures import draw
from otcore_ae.demo.report import convergence_note, metrics_json, summarise, table
from otcore_ae.demo.settings import QUICK_EPOCHS, Settings
from otcore_ae.demo.training import train_both
from otcore_ae.metrics.references import references
from otcore_ae.priors import Flower


def run(output: Path, *, seed: int = 0, epochs: int | None = None, quick: bool = False) -> None:
    """Train both models on the digits, print the table, write metrics.json and the pictures into `output`.

    Args:
        output: an existing folder.
        seed: seed of weights, batches and prior samples (default 0).
        epochs: of each model (default: `Settings.epochs`).
        quick: train for `QUICK_EPOCHS` instead.
    """
    settings = Settings()
    if quick or epochs is not None:
        settings = replace(settings, epochs=QUICK_EPOCHS if quick or epochs is None else epochs)
    data, prior = DigitsData(settings.batch_size, seed=seed), Flower()
    data.setup()
    count, tested = len(data.train_set.images), len(data.test_set.images)
    print(
        f"Training two autoencoders on {count} 8 x 8 digits, {settings.trained_epochs} epochs each.",
        flush=True,
    )

    started = time.perf_counter()
    trained = train_both(data, prior, settings, seed)
    seconds = time.perf_counter() - started

    ends = references(data.test_set.labels, prior)
    summary = summarise(trained, settings.averaged)
    pictures = draw(trained, data, prior, ends, torch.Generator().manual_seed(seed))
    report = metrics_json(
        summary, ends, trained, settings, seed=seed, quick=quick, training_seconds=round(seconds, 1)
    )
    written = write_files(output, {"metrics.json": report, **pictures})

    print(f"\n{table(summary, ends)}\n")
    evaluations = min(settings.averaged, settings.trained_epochs // settings.evaluate_every)
    names = ", ".join(path.name for path in written)
    print(
        f"{tested} test digits; mean ± standard deviation over the last {evaluations} evaluations; "
        f"* the better mean.{convergence_note(trained)}\n"
        f"Trained in {seconds:.0f} s. Written to {output}: {names}"
    )
