"""The examples run as they stand, and go on where they were stopped."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_swae(tmp_path: Path) -> None:
    output = tmp_path / "out"
    first = run("swae.py", "--prior", "bowl", "--epochs", "5", "--output", str(output))
    assert first.returncode == 0, first.stderr
    pictures = {"latent.png", "grid.png", "reconstructions.png", "losses.png"}
    assert pictures | {"metrics.json", "last.ckpt"} == {path.name for path in output.iterdir()}
    found = json.loads((output / "metrics.json").read_text())
    assert 0 < found["floor"] < found["sliced_w2_squared"]
    again = run("swae.py", "--prior", "bowl", "--epochs", "6", "--output", str(output))
    assert again.returncode == 0, again.stderr
    assert "Epoch 5:" in again.stderr + again.stdout
    assert "Epoch 4:" not in again.stderr + again.stdout


def test_swae_goes_on_to_the_converged_settings(tmp_path: Path) -> None:
    """From the published run, in phases cut short here; given again, all of them are done already."""
    short = "swae.CONSISTENT_EPOCHS = swae.FOLLOWING_EPOCHS = 1; swae.MATCHING_STEPS = 300"
    code = f"import sys; sys.path.insert(0, {str(EXAMPLES)!r}); import swae; {short}; sys.exit(swae.main())"
    arguments = ["--epochs", "1", "--output", str(tmp_path)]
    found = []
    for settings in ("published", "converged", "converged"):
        command = [sys.executable, "-c", code, "--settings", settings, *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found.append(json.loads((tmp_path / "metrics.json").read_text()))
    published, converged, again = found
    assert converged["sliced_w2_squared"] < 0.1 * published["sliced_w2_squared"]
    assert converged["radius_std"] < 0.5 * published["radius_std"]
    assert again == converged
    assert "Epoch 0:" not in done.stdout + done.stderr


def test_own_model_is_what_the_readme_shows() -> None:
    """And it runs, in under 20 lines."""
    code = (EXAMPLES / "own_model.py").read_text().split("\n\n", 1)[1].strip()
    assert code in (EXAMPLES.parent / "README.md").read_text()
    assert len(code.splitlines()) < 20
    found = run("own_model.py")
    assert found.returncode == 0, found.stderr


def test_swae_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused = run("swae.py", "--output", str(tmp_path / "file" / "out"))
    assert refused.returncode == 2
    assert "--output" in refused.stderr
    assert "Traceback" not in refused.stderr
    missing = run("swae.py", "--data", str(tmp_path), "--output", str(tmp_path / "out"))
    assert missing.returncode == 2
    assert "train-images" in missing.stderr
    assert "Traceback" not in missing.stderr
