"""The demo's command line: arguments, exit codes, and one line instead of a traceback."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

from otcore_ae.artifacts import OutputError, prepare_folder

PROGRAM = "python -m otcore_ae.demo"
EXIT_MISSING = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line's arguments; exits with 2 and one line where they make no sense."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Train a local and a global Sinkhorn autoencoder on scikit-learn's digits, compare them "
        "by five metrics, and draw what they learned.",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("out/demo"),
        help="folder for metrics.json and pictures (default: out/demo)",
    )
    parser.add_argument(
        "--seed", type=_natural, default=0, help="seed of weights, batches and prior samples (default: 0)"
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=_positive, help="training epochs of each model (default: 120)")
    length.add_argument("--quick", action="store_true", help="a shortened run, to see that everything works")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo: 0, 1 where a package is missing, 2 for an unwritable folder, 130 after Ctrl-C."""
    arguments = parse(argv)
    existed = arguments.output.exists()
    try:
        prepare_folder(arguments.output)
        from otcore_ae.demo.run import run

        run(arguments.output, seed=arguments.seed, epochs=arguments.epochs, quick=arguments.quick)
    except OutputError as error:
        print(f"{PROGRAM}: {error} with --output", file=sys.stderr)
        return EXIT_USAGE
    except ModuleNotFoundError as error:
        print(f"{PROGRAM}: {error.name} is not installed; pip install 'otcore[ae]'", file=sys.stderr)
        return EXIT_MISSING
    except KeyboardInterrupt:
        if not existed:
            _remove_if_empty(arguments.output)
        print(f"\n{PROGRAM}: interrupted, nothing written", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


def _natural(text: str) -> int:
    return _at_least(text, 0)


def _positive(text: str) -> int:
    return _at_least(text, 1)


def _at_least(text: str, least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}, got {text!r}")
    return value


if __name__ == "__main__":
    sys.exit(main())
