"""The command `otcore-ae`: plain functions, their arguments read by jsonargparse.

What takes seconds to import (Lightning, scikit-learn) is imported by the command that needs it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

EXIT_MISSING, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


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
        table: global-sae-1, global-sae-2 or conditional.
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


COMMANDS = {"reproduce": reproduce}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command: 0, 1 where a package is missing, 2 for wrong input, 130 after Ctrl-C."""
    try:
        from jsonargparse import auto_cli

        auto_cli(COMMANDS, args=None if argv is None else [*argv], prog="otcore-ae")
    except ModuleNotFoundError as error:
        print(f"otcore-ae: {error.name} is not installed; pip install 'otcore[ae]'", file=sys.stderr)
        return EXIT_MISSING
    except (OSError, ValueError) as error:
        print(f"otcore-ae: {error}", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        print("\notcore-ae: interrupted; the same command goes on", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
