"""Output files that are either complete or not there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path


class OutputError(OSError):
    """An output folder or file cannot be written; the message says which, why, and what would work."""


def prepare_folder(path: str | Path) -> Path:
    """Make the folder, with its parents, and prove that files can be written there.

    Raises:
        OutputError: in one line, if not.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor, probe = tempfile.mkstemp(prefix=".probe-", dir=folder)
        os.close(descriptor)
        os.unlink(probe)
    except OSError as error:
        raise _unwritable(folder, error) from error
    return folder


def write_files(folder: Path, files: Mapping[str, bytes]) -> list[Path]:
    """Write all files or none: complete files replace their namesakes together, at the end.

    Args:
        folder: an existing folder.
        files: content by file name; files of those names are replaced.

    Raises:
        OutputError: in one line, if the folder cannot be written.
    """
    waiting: list[tuple[str, Path]] = []
    try:
        for name, content in files.items():
            descriptor, temporary = tempfile.mkstemp(prefix=f".{name}-", dir=folder)
            waiting.append((temporary, folder / name))
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(content)
            os.chmod(temporary, 0o666 & ~_umask())
        for temporary, final in waiting:
            os.replace(temporary, final)
    except OSError as error:
        raise _unwritable(folder, error) from error
    finally:
        for temporary, _ in waiting:
            Path(temporary).unlink(missing_ok=True)
    return [final for _, final in waiting]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _unwritable(folder: Path, error: OSError) -> OutputError:
    return OutputError(f"cannot write to '{folder}': {error.strerror or error}; name another folder")
