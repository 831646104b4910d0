"""Tables are run cell by cell, taken up where they were stopped, and reported as they were measured."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from otcore_ae import SAE, DigitsData, Flower, mlp
from otcore_ae.cli import main
from otcore_ae.data.loader import Batch
from otcore_ae.reproduce.cell import run_cell
from otcore_ae.reproduce.conditional import TABLE as CONDITIONAL
from otcore_ae.reproduce.global_sae import METRIC_NAMES, TABLE_1, TABLE_2, first_gradient_error
from otcore_ae.reproduce.pictures import LATENT
from otcore_ae.reproduce.report import markdown
from otcore_ae.reproduce.run import run_table
from otcore_ae.reproduce.table import Published, System, Table
from otcore_ae.training import LAST
from otcore_ae.transport import Transport


def build(data: DigitsData, seed: int) -> SAE:
    return SAE(*mlp(data.image_size, hidden=(16,)), Flower(), seed=seed, learning_rate=5e-3)


def digits(folder: Path | None, seed: int) -> DigitsData:
    return DigitsData(seed=seed)


TINY = Table(
    name="tiny",
    title="Tiny",
    source="nobody",
    load=digits,
    epochs=3,
    steps_per_epoch=14,
    metrics=METRIC_NAMES,
    averaged={"val/global_ot": 2},
    references=lambda data: {"val/global_ot": {"floor": 0.0714}, "val/covered_area": {"ceiling": 0.904}},
    pictures=(LATENT,),
    final=lambda model, data: {"images": float(model.sample(3).shape[0])},
    systems=(
        System("local", "Local", 2, build, {"val/global_ot": Published(0.5, 0.1)}),
        System("short", "Short", 1, build, steps=5, note="not run at full length"),
    ),
)


def test_cells_by_pattern() -> None:
    assert [cell.name for cell in TINY.cells()] == ["local-0", "short-0", "local-1"]
    assert [cell.name for cell in TINY.cells(("local-*",))] == ["local-0", "local-1"]
    with pytest.raises(ValueError, match="no cell of tiny matches 'lokal-0'; the cells are local-0, short-0"):
        TINY.cells(("lokal-0",))


def test_a_table_and_its_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = {"results": tmp_path / "results", "work": tmp_path / "work"}
    before = torch.get_num_threads()
    report = run_table(TINY, None, patterns=("local-0", "short-0"), **options)
    assert torch.get_num_threads() == before
    result = json.loads((tmp_path / "results" / "tiny" / "local-0.json").read_text())
    curve = result["curves"]["val/global_ot"]
    assert len(curve) == 3
    assert result["cost"]["steps"] == 42
    assert result["cost"]["resumed"] == 0
    assert result["final"] == {"final/images": 3}
    short = json.loads((tmp_path / "results" / "tiny" / "short-0.json").read_text())
    assert short["cost"]["steps"] == 5
    assert not short["full_length"]
    text = report.read_text()
    assert f"{sum(curve[-2:]) / 2:.4f} (1) | 0.5000 ± 0.1000" in text
    assert f"{result['curves']['val/covered_area'][-1]:.4f} (1) |  |" in text
    assert "Not run: local-1." in text
    assert "![latent points over the prior](tiny/latent.png)" in text
    assert (tmp_path / "results" / "tiny" / "latent.png").read_bytes().startswith(b"\x89PNG")
    assert "not run at full length" in text
    assert "floor 0.0714" in text
    assert "ceiling 0.904" in text
    capsys.readouterr()
    run_table(TINY, None, patterns=("*",), **options)
    printed = capsys.readouterr().out
    assert "local-0: done" in printed
    assert "local-1: 42 steps" in printed
    assert "(2) | 0.5000" in markdown(TINY, tmp_path / "results")


def test_a_killed_cell_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    """Killed with SIGKILL, whenever it falls, and resumed: the same curves to the last bit."""
    script = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[2]);"
        "from tests.otcore_ae.reproduce.test_reproduce import long, digits; "
        "from otcore_ae.reproduce.cell import run_cell; import torch; torch.set_num_threads(1);"
        "data = digits(None, 0); data.setup();"
        "run_cell(long().cells()[0], data, Path(sys.argv[1]) / 'work', Path(sys.argv[1]) / 'results')"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "killed"), str(Path(__file__).parents[3])]
    process = subprocess.Popen(command)
    last = tmp_path / "killed" / "work" / LAST
    while not last.exists() and process.poll() is None:
        time.sleep(0.02)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    result = tmp_path / "killed" / "results" / "tiny" / "local-0.json"
    assert not result.exists()
    subprocess.run(command, check=True)
    resumed = json.loads(result.read_text())
    assert resumed["cost"]["resumed"] == 1
    command[3] = str(tmp_path / "whole")
    subprocess.run(command, check=True)
    whole = json.loads((tmp_path / "whole" / "results" / "tiny" / "local-0.json").read_text())
    assert resumed["curves"] == whole["curves"]
    assert resumed["cost"]["steps"] == whole["cost"]["steps"]


def long() -> Table:
    return replace(TINY, epochs=20)


def test_every_commit_that_trained_a_cell_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, each once; what an old checkpoint does not say is unknown, and old results name one."""
    data = digits(None, 0)
    data.setup()
    work, results = tmp_path / "work", tmp_path / "results"

    def train(commit: str, epochs: int) -> list[str]:
        monkeypatch.setattr("otcore_ae.reproduce.cell.commit", lambda: commit)
        return run_cell(replace(TINY, epochs=epochs).cells()[0], data, work, results)["commits"]

    assert train("aaa", 1) == ["aaa"]
    assert train("bbb+", 2) == ["aaa", "bbb+"]
    assert train("aaa", 3) == ["aaa", "bbb+"]
    assert "| aaa, bbb+ |" in markdown(TINY, results)
    checkpoint = torch.load(work / LAST, weights_only=True)
    del checkpoint["callbacks"]["Cost"]["commits"]
    torch.save(checkpoint, work / LAST)
    assert train("ccc", 4) == ["unknown", "ccc"]
    file = results / "tiny" / "local-0.json"
    result = json.loads(file.read_text())
    del result["commits"]
    file.write_text(json.dumps({**result, "commit": "ddd"}))
    assert "| ddd |" in markdown(TINY, results)


def test_first_gradient_error() -> None:
    """Zero where the solve is as tight as the one it is compared with, small at the default."""
    data = DigitsData()
    data.setup()
    torch.manual_seed(0)
    tight = TABLE_1.systems[2].build(data, 0)
    loose = first_gradient_error(tight, data)["gradient_error"]
    assert 0 < loose < 0.2
    tight.transport = Transport(tol=1e-4)
    assert first_gradient_error(tight, data)["gradient_error"] == 0


def test_the_published_tables() -> None:
    """Every system builds, with the published weights; figures are those of AUTOENCODERS and the paper."""
    data = DigitsData()
    for table in (TABLE_1, TABLE_2):
        models = {system.key: system.build(data, 0) for system in table.systems}
        assert models["local"].weight_of("latent") == models["full-2000"].default_weight(2000) == 0.1
        assert models["minibatch-2000"].default_weight(60_000) == 100
    assert TABLE_1.systems[0].published["val/global_ot"] == Published(0.018, 0.0028)
    assert TABLE_2.systems[2].published["val/covered_area"] == Published(0.893, 0.007)


def test_the_regularised_model_of_the_conditional_table() -> None:
    """Its terms, on a few images: the last layer's is that of its own encoder."""
    data = DigitsData()
    (system,) = (system for system in CONDITIONAL.systems if system.key == "e2e-converged")
    model = system.build(data, 0)
    images, labels = torch.rand(4, 1, 28, 28), torch.arange(4)
    terms = model.terms(model.step_of(Batch(images, labels, labels)))
    assert terms.keys() == {"reconstruction", "latent", "laplacian", "diversity", "last_layer"}
    assert terms["last_layer"].item() == pytest.approx(0.5 * model.encoder[-1].weight.square().sum().item())
    assert set(model.weights) == model.term_names()


def test_the_command_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "global-sae-3"]) == 2
    assert "there are global-sae-1, global-sae-2, conditional, calorimeter" in capsys.readouterr().err
    assert main(["reproduce", "global-sae-1", "--cells", "x,local-0"]) == 2
    assert "matches 'x'" in capsys.readouterr().err
    folders = ["--results", str(tmp_path / "r"), "--work", str(tmp_path / "w")]
    assert main(["reproduce", "global-sae-1", "--data", str(tmp_path), *folders]) == 2
    assert "train-images" in capsys.readouterr().err
