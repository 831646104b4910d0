"""The command `otcore-ae`: plain functions, their arguments read by jsonargparse.

What takes seconds to import (Lightning, scikit-learn) is imported by the command that needs it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


def reproduce(
    table: str,
    data: Path | None = None,
    cells: str = "*",
    results: Path = Path("docs/results"),
    work: Path = Path("out/reproduce"),
    threads: int = 1,
) -> None:
    """Run the cells of a published table that have no result yet, and write results/TABLE.md.

    Stopped at any moment, the same command goes on from the last checkpoint. Several may run at once, on
    different cells.

    Args:
        table: global-sae-1, global-sae-2, conditional or calorimeter (synthetic).
        data: folder with the data (default: the environment variable OTCORE_DATA).
        cells: shell patterns of the cells to run, such as "local-*,full-2000-0".
        results: folder for results, one JSON file a cell, and the report.
        work: folder for checkpoints and trained models.
        threads: threads of torch and otcore.
    """
    from otcore_ae.reproduce.run import find_table, run_table

    path = run_table(
        find_table(table), data, patterns=tuple(cells.split(",")), results=results, work=work, threads=threads
    )
    print(f"written to {path}")


def evaluate(run: Path, data: Path | None = None, seed: int = 0) -> None:
    """Measure a run on its test set, each figure beside its ends; writes evaluation.json.

    Args:
        run: run folder.
        data: another folder for its data.
        seed: seed of generated images.
    """
    from otcore_ae.commands import evaluate

    for name, figures in evaluate(run, data, seed=seed).items():
        ends = ", ".join(f"{end} {value:.4f}" for end, value in figures.items() if end != "value")
        print(f"{name:>18}  {figures['value']:.4f}  {ends}")


def sample(run: Path, n: int = 100, labels: list[int] | None = None, seed: int = 0) -> None:
    """Make images; writes samples.npy and samples.png into the run folder.

    Args:
        run: run folder.
        n: how many.
        labels: of a conditional model, repeated up to n (default: one of each class).
        seed: seed of the draw.
    """
    from otcore_ae.commands import sample

    print(sample(run, n, labels=labels, seed=seed))


def embed(run: Path, data: Path | None = None, seed: int = 0) -> None:
    """Encode the test set; writes latents.npy, labels.npy and latents.png into the run folder.

    Args:
        run: run folder.
        data: another folder for its data.
        seed: seed of the sampled latents, and of t-SNE.
    """
    from otcore_ae.commands import embed

    print(embed(run, data, seed=seed))


def reconstruct(run: Path, data: Path | None = None, n: int = 20) -> None:
    """Encode and decode test images; writes reconstructions.npy and .png into the run folder.

    Args:
        run: run folder.
        data: another folder for its data.
        n: how many.
    """
    from otcore_ae.commands import reconstruct

    print(reconstruct(run, data, n=n))


def interpolate(run: Path, data: Path | None = None, pairs: int = 8, steps: int = 10) -> None:
    """Decode lines between latents of test images; writes interpolations.npy and .png into the run folder.

    Args:
        run: run folder.
        data: another folder for its data.
        pairs: lines, a row each.
        steps: images on a line, its ends included.
    """
    from otcore_ae.commands import interpolate

    print(interpolate(run, data, pairs=pairs, steps=steps))


def demo(output: Path = Path("out/demo"), seed: int = 0, epochs: int | None = None) -> None:
    """Train a local and a global Sinkhorn autoencoder on digits, compare them, and draw what they learned.

    Args:
        output: folder for metrics.json and pictures.
        seed: seed of weights, batches and prior samples.
        epochs: of each model (default 120).
    """
    from otcore_ae.artifacts import prepare_folder
    from otcore_ae.demo.run import run

    run(prepare_folder(output), seed=seed, epochs=epochs)


def fit() -> None:
    """Train a model: `otcore-ae fit --config FILE`, LightningCLI's arguments; `fit --help` lists them."""


COMMANDS = {
    "fit": fit,
    "evaluate": evaluate,
    "sample": sample,
    "embed": embed,
    "reconstruct": reconstruct,
    "interpolate": interpolate,
    "reproduce": reproduce,
    "demo": demo,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command: 0, 1 where a package is missing or a loss is not finite, 2 for wrong input, 130 after
    Ctrl-C."""
    arguments = sys.argv[1:] if argv is None else [*argv]
    try:
        if arguments[:1] == ["fit"]:
            from otcore_ae.fit import fit

            fit(arguments[1:])
        else:
            from jsonargparse import auto_cli

            auto_cli(COMMANDS, args=arguments, prog="otcore-ae")
    except ModuleNotFoundError as error:
        print(f"otcore-ae: {error.name} is not installed; pip install 'otcore[ae]'", file=sys.stderr)
        return EXIT_FAILED
    except (OSError, ValueError) as error:
        print(f"otcore-ae: {error}", file=sys.stderr)
        return EXIT_USAGE
    except RuntimeError as error:
        if type(error).__name__ != "NonFiniteLossError":
            raise
        print(f"otcore-ae: {error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        print("\notcore-ae: interrupted; the same command goes on", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
