"""The command line: training into a run folder, and what is done with one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from otcore_ae import ConditionalDCGAN, ConditionalE2ESAE, NoiseGenerator, commands
from otcore_ae.cli import main
from otcore_ae.models import GenerativeModel
from otcore_ae.networks import ConditionedDecoder, ConditionedEncoder, MLPDecoder, MLPEncoder
from otcore_ae.runs import RECIPE, WEIGHTS, RunError, build, export_run, load_run
from otcore_ae.training import LAST

CONFIG = """
model:
  class_path: otcore_ae.SAE
  init_args:
    encoder: {class_path: otcore_ae.networks.MLPEncoder, init_args: {image_size: 8, hidden: [16]}}
    decoder: {class_path: otcore_ae.networks.MLPDecoder, init_args: {image_size: 8, hidden: [16]}}
    prior: {class_path: otcore_ae.Flower}
    learning_rate: 5.0e-3
data:
  class_path: otcore_ae.DigitsData
trainer:
  enable_progress_bar: false
"""
PICTURES = {
    "sample": "samples",
    "embed": "latents",
    "reconstruct": "reconstructions",
    "interpolate": "interpolations",
}


def fit(folder: Path, epochs: int, *more: str) -> int:
    config = folder.parent / "config.yaml"
    config.write_text(CONFIG)
    options = ["--output", str(folder), "--trainer.max_epochs", str(epochs), *more]
    return main(["fit", "--config", str(config), *options])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fit") / "run"
    assert fit(folder, 4) == 0
    return folder


def test_fit_writes_logs_a_checkpoint_and_the_model(run: Path) -> None:
    assert {RECIPE, WEIGHTS, LAST} <= {path.name for path in run.iterdir()}
    assert "train/latent" in (run / "csv" / "version_0" / "metrics.csv").read_text()
    assert list((run / "tensorboard").glob("events*"))
    recipe = json.loads((run / RECIPE).read_text())
    assert recipe["model"]["class_path"].endswith("SAE")
    assert recipe["model"]["init_args"]["learning_rate"] == 5e-3


def test_fit_goes_on_and_ends_with_the_same_bits(run: Path, tmp_path: Path) -> None:
    half = tmp_path / "half"
    assert fit(half, 2) == 0
    assert fit(half, 4) == 0
    whole, resumed = load_file(run / WEIGHTS), load_file(half / WEIGHTS)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_every_command(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command, name in PICTURES.items():
        assert main([command, str(run)]) == 0
        assert capsys.readouterr().out.strip() == str(run / f"{name}.png")
        assert (run / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert np.load(run / "samples.npy").shape == (100, 8, 8)
    assert np.load(run / "latents.npy").shape == (360, 2)
    assert np.load(run / "interpolations.npy").shape == (80, 8, 8)
    model = load_run(run).model
    latents = torch.from_numpy(np.load(run / "latents.npy"))
    lines = torch.from_numpy(np.load(run / "interpolations.npy")).reshape(8, 10, 8, 8)
    with torch.no_grad():
        ends = model.decode(latents[:16]).reshape(8, 2, 8, 8)
    assert torch.allclose(lines[:, [0, -1]], ends, atol=1e-6)


def test_evaluate_gives_each_figure_with_its_ends(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(run)]) == 0
    found = json.loads((run / "evaluation.json").read_text())
    assert found["covered_area"]["value"] < found["covered_area"]["ceiling"]
    assert found["global_ot"]["value"] > found["global_ot"]["floor"]
    last = (run / "csv" / "version_0" / "metrics.csv").read_text().strip().splitlines()
    header, rows = last[0].split(","), [line.split(",") for line in last[1:]]
    logged = [row[header.index("val/global_ot")] for row in rows if row[header.index("val/global_ot")]]
    assert found["global_ot"]["value"] == pytest.approx(float(logged[-1]), rel=1e-5)
    assert "floor" in capsys.readouterr().out


def conditional(folder: Path) -> Path:
    """A conditional e2e-SAE with three latent dimensions, untrained."""
    networks = {
        "encoder": {"class_path": "otcore_ae.networks.MLPEncoder"},
        "decoder": {"class_path": "otcore_ae.networks.MLPDecoder"},
    }
    for network in networks.values():
        network["init_args"] = {"image_size": 8, "latent_dim": 3, "hidden": [8]}
    generator = {"class_path": "otcore_ae.NoiseGenerator", "init_args": {"latent_dim": 3}}
    recipe = {
        "class_path": "otcore_ae.ConditionalE2ESAE",
        "init_args": {**networks, "noise_generator": generator},
    }
    model = ConditionalE2ESAE(
        MLPEncoder(8, 3, (8,)), MLPDecoder(8, 3, (8,)), NoiseGenerator(latent_dim=3), classes=10
    )
    export_run(model, folder, recipe, {"class_path": "otcore_ae.DigitsData"})
    return folder


def test_conditional_runs(tmp_path: Path) -> None:
    folder = conditional(tmp_path / "run")
    commands.sample(folder, 6, labels=[3, 4], seed=1)
    both = np.load(folder / "samples.npy")
    model = load_run(folder).model
    labels = torch.tensor([3, 4, 3, 4, 3, 4])
    expected = model.sample(6, torch.Generator().manual_seed(1), labels=labels).squeeze(1)
    assert np.array_equal(both, expected.numpy())
    assert commands.embed(folder).exists()  # by t-SNE
    assert np.load(folder / "latents.npy").shape == (360, 3)
    assert commands.interpolate(folder).exists()


def test_what_a_run_cannot_do(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", str(run), "--labels", "[3]"]) == 2
    assert "SAE is not conditional" in capsys.readouterr().err
    assert main(["sample", str(tmp_path / "nowhere")]) == 2
    assert "is no run folder: it has no model.json" in capsys.readouterr().err
    assert main(["interpolate", str(run), "--steps", "1"]) == 2
    assert "at least 2 steps" in capsys.readouterr().err
    gan = ConditionalDCGAN(ConditionedDecoder(MLPDecoder(8, 74, (8,))), ConditionedEncoder(MLPEncoder(8)))
    recipe = {
        "class_path": "otcore_ae.ConditionalDCGAN",
        "init_args": {
            "generator": {
                "class_path": "otcore_ae.networks.ConditionedDecoder",
                "init_args": {
                    "network": {
                        "class_path": "otcore_ae.networks.MLPDecoder",
                        "init_args": {"image_size": 8, "latent_dim": 74, "hidden": [8]},
                    }
                },
            },
            "discriminator": {
                "class_path": "otcore_ae.networks.ConditionedEncoder",
                "init_args": {
                    "network": {
                        "class_path": "otcore_ae.networks.MLPEncoder",
                        "init_args": {"image_size": 8},
                    }
                },
            },
        },
    }
    export_run(gan, tmp_path / "gan", recipe)
    assert main(["embed", str(tmp_path / "gan")]) == 2
    assert "ConditionalDCGAN has no encoder: it cannot embed" in capsys.readouterr().err
    assert commands.sample(tmp_path / "gan", 4).exists()


def test_damaged_runs(run: Path, tmp_path: Path) -> None:
    def copy(name: str, content: bytes) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for file in (RECIPE, WEIGHTS):
            (folder / file).write_bytes((run / file).read_bytes())
        (folder / (WEIGHTS if name == "cut" or name == "other" else RECIPE)).write_bytes(content)
        return folder

    with pytest.raises(RunError, match=r"model\.safetensors is damaged or cut short"):
        load_run(copy("cut", (run / WEIGHTS).read_bytes()[:-100]))
    with pytest.raises(RunError, match=r"model\.json is damaged"):
        load_run(copy("half", (run / RECIPE).read_bytes()[:30]))
    with pytest.raises(RunError, match="is not of format 1"):
        load_run(copy("new", b'{"format": 2}'))
    text = (run / RECIPE).read_text()
    with pytest.raises(RunError, match="holds another model than"):
        load_run(copy("wide", text.replace('"latent_dim": 2', '"latent_dim": 5').encode()))
    with pytest.raises(RunError, match=r"cannot build .*SAEE: "):
        load_run(copy("name", text.replace('SAE"', 'SAEE"').encode()))


def test_a_cut_checkpoint_stops_fit_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    assert fit(folder, 1) == 0
    (folder / LAST).write_bytes((folder / LAST).read_bytes()[:1000])
    capsys.readouterr()
    assert fit(folder, 2) == 2
    assert "last.ckpt is damaged or cut short" in capsys.readouterr().err


def test_another_configuration_does_not_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Weights of one configuration are not taken up, or exported, under another's name."""
    folder = tmp_path / "run"
    assert fit(folder, 1) == 0
    weights = (folder / WEIGHTS).read_bytes()
    capsys.readouterr()
    assert fit(folder, 1, "--model.init_args.latent_weight", "100") == 2
    assert "holds a run of another configuration" in capsys.readouterr().err
    assert fit(folder, 2) == 0
    assert (folder / WEIGHTS).read_bytes() != weights
    assert len(list((folder / "csv").glob("*/metrics.csv"))) == 2


def test_a_loss_that_is_not_finite_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit(tmp_path / "run", 2, "--model.init_args.learning_rate", "1e30") == 1
    told = capsys.readouterr().err
    assert "not finite in epoch 0, step 1, batch 1: latents = nan" in told
    assert "Traceback" not in told


def test_further_terms_in_a_configuration(tmp_path: Path) -> None:
    term = "{pyramid: {class_path: otcore_ae.LaplacianPyramid, init_args: {levels: 2}}}"
    assert fit(tmp_path / "run", 1, "--model.init_args.extra_terms", term) == 0
    csv = next((tmp_path / "run" / "csv").glob("*/metrics.csv")).read_text()
    assert "train/pyramid" in csv


def test_a_term_of_the_configuration_reads_the_model(tmp_path: Path, trainer, tiny_data, capsys) -> None:
    """Its network is the model's own: that of the first step, before it is trained."""

    def mlp(name: str) -> dict[str, Any]:
        options = {"image_size": 4, "hidden": [8]}
        return {"class_path": f"otcore_ae.networks.{name}", "init_args": options}

    term = {"class_path": "otcore_ae.LastLayerL2", "init_args": {"part": "encoder"}}
    parts = {"encoder": mlp("MLPEncoder"), "decoder": mlp("MLPDecoder"), "prior": "otcore_ae.Flower"}
    recipe = {"class_path": "otcore_ae.SAE", "init_args": {**parts, "extra_terms": {"l2": term}}}
    model = build(GenerativeModel, recipe)
    before = model.encoder[-1].weight.detach().clone()
    run = trainer(max_steps=1)
    run.fit(model, tiny_data(60))
    assert not torch.equal(model.encoder[-1].weight, before)
    assert run.callback_metrics["train/l2"].item() == pytest.approx(0.5 * before.square().sum().item())
    wrong = "{l2: {class_path: otcore_ae.LastLayerL2, init_args: {part: generator}}}"
    assert fit(tmp_path / "run", 1, "--model.init_args.extra_terms", wrong) == 2
    assert "SAE has no part 'generator'; there are encoder, decoder" in capsys.readouterr().err


def test_runs_on_attributes(tmp_path: Path) -> None:
    """A calorimeter run, by every command: conditions are those of its test set."""
    config = """
model:
  class_path: otcore_ae.ConditionalE2ESAE
  init_args:
    encoder: {class_path: otcore_ae.networks.MLPEncoder, init_args: {image_size: 44, hidden: [8]}}
    decoder: {class_path: otcore_ae.networks.MLPDecoder, init_args: {image_size: 44, hidden: [8]}}
    noise_generator: {class_path: otcore_ae.NoiseGenerator, init_args: {classes: 9, latent_dim: 2}}
    classes: 9
data: {class_path: otcore_ae.SyntheticCalorimeterData, init_args: {n: 300}}
trainer: {enable_progress_bar: false, max_epochs: 1}
"""
    (tmp_path / "config.yaml").write_text(config)
    folder = tmp_path / "run"
    assert main(["fit", "--config", str(tmp_path / "config.yaml"), "--output", str(folder)]) == 0
    found = commands.evaluate(folder)
    assert found["channel_mae"]["value"] > 0
    assert "local_clustering" not in found
    for command in (commands.sample, commands.embed, commands.reconstruct, commands.interpolate):
        assert command(folder).exists()
    with pytest.raises(RunError, match="labels are attributes, not classes"):
        commands.sample(folder, labels=[1])


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        (
            "--model.init_args.encoder.init_args.latent_dim",
            "3",
            "latents of 3 dimensions, the flower samples of 2",
        ),
        ("--model.init_args.prior", "otcore_ae.Sphere", None),
        ("--model.init_args.decoder.init_args.image_size", "4", "build the networks for image_size=8"),
        ("--model.init_args.encoder.init_args.image_size", "28", "build its networks for image_size=8"),
    ],
)
def test_parts_that_do_not_fit_stop_fit_before_training(
    option: str, value: str, message: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = fit(tmp_path / "run", 1, option, value)
    assert found == (0 if message is None else 2)
    if message:
        assert message in capsys.readouterr().err
        assert not (tmp_path / "run" / LAST).exists()


def test_help_answers_without_lightning() -> None:
    script = "import sys; from otcore_ae.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    script += "sys.exit('lightning' in sys.modules or 'torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    for command in ("fit", "evaluate", "sample", "embed", "reconstruct", "interpolate", "reproduce", "demo"):
        assert command in found.stdout
