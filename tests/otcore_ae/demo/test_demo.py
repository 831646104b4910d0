"""The demo as a user runs it: in a process of its own."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "otcore_ae.demo"]
PICTURES = ["latent.png", "losses.png", "reconstructions.png", "samples.png"]


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=300
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("demo") / "out"
    return folder, run("--epochs", 3, "--output", folder)


def test_writes_everything(finished) -> None:
    folder, process = finished
    assert process.returncode == 0, process.stderr
    assert sorted(path.name for path in folder.iterdir()) == sorted(["metrics.json", *PICTURES])
    assert all((folder / name).read_bytes().startswith(b"\x89PNG") for name in PICTURES)


def test_prints_one_table_and_nothing_else(finished) -> None:
    _, process = finished
    assert process.stderr == ""
    rows = [line for line in process.stdout.splitlines() if "±" in line and re.search("lower|higher", line)]
    assert len(rows) == 5
    for line in rows:
        # One better mean in each row, or both where they are equal.
        first, second = re.findall(r"(\d\.\d+) ± \d\.\d+", line)
        stars = line.count(" *")
        assert stars == 1 or (stars == 2 and first == second), line
    assert "floor" in process.stdout
    assert "ceiling" in process.stdout
    assert len(process.stdout.splitlines()) == 12


def test_the_table_shows_what_the_json_says(finished) -> None:
    folder, process = finished
    content = json.loads((folder / "metrics.json").read_text())
    for values in content["systems"].values():
        for of_metric in values.values():
            assert f"{of_metric['mean']:.4f} ± {of_metric['sd']:.4f}" in process.stdout
    assert content["settings"]["epochs"] == 3


def test_ctrl_c(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    process = subprocess.Popen(
        [*COMMAND, "--output", str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert "Training" in process.stdout.readline()
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.strip() == "python -m otcore_ae.demo: interrupted, nothing written"
    assert not folder.exists()


def test_an_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    process = run("--output", tmp_path / "file" / "out")
    assert process.returncode == 2
    assert process.stdout == ""
    assert process.stderr.count("\n") == 1
    assert f"cannot write to '{tmp_path / 'file' / 'out'}': Not a directory" in process.stderr


@pytest.mark.parametrize("arguments", [["--epochs", "0"], ["--seed", "x"], ["--epochs", "3", "--quick"]])
def test_senseless_arguments(arguments: list[str]) -> None:
    process = run(*arguments)
    assert process.returncode == 2
    assert "Traceback" not in process.stderr
