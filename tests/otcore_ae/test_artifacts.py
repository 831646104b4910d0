"""Output files: all of them or none, and one clear line where a folder cannot be written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from otcore_ae.artifacts import OutputError, prepare_folder, write_files


def test_writes_and_replaces(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("old")
    written = write_files(tmp_path, {"a.json": b"new", "b.png": b"\0\1"})
    assert [path.name for path in written] == ["a.json", "b.png"]
    assert [path.read_bytes() for path in written] == [b"new", b"\0\1"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "b.png"]


@pytest.mark.parametrize("failure", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interruption_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure) -> None:
    (tmp_path / "a.json").write_text("old")
    chmod, calls = os.chmod, []

    def fail_the_second_time(*arguments) -> None:
        calls.append(arguments)
        if len(calls) == 2:
            raise failure
        chmod(*arguments)

    monkeypatch.setattr(os, "chmod", fail_the_second_time)
    with pytest.raises((KeyboardInterrupt, OutputError)):
        write_files(tmp_path, {"a.json": b"new", "b.png": b"\0\1"})
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "old"


def test_makes_parents(tmp_path: Path) -> None:
    assert list(prepare_folder(tmp_path / "x" / "y").iterdir()) == []


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputError, match=r"cannot write to '.*file.*: .*; name another") as caught:
            prepare_folder(folder)
        assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="Permission denied"):
        prepare_folder(tmp_path)
