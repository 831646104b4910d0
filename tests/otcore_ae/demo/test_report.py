"""The demo's table and JSON, from made-up curves."""

from __future__ import annotations

import json

import pytest

from otcore_ae.demo.report import convergence_note, metrics_json, summarise, table
from otcore_ae.demo.settings import Settings
from otcore_ae.demo.training import Trained
from otcore_ae.history import Curve, History
from otcore_ae.metrics import METRICS


def trained(level: float) -> Trained:
    history = History()
    for name in METRICS:
        history.curves[f"val/{name}"] = Curve([1, 2, 3], [9.0, level, level + 0.2])
    return Trained(None, history)


SYSTEMS = {"local": trained(0.3), "global": trained(0.5)}
ENDS = {"global_ot": {"floor": 0.1}, "local_clustering": {"random": 0.0, "ideal": 0.9}}


def test_means_are_over_the_last_evaluations() -> None:
    values = summarise(SYSTEMS, averaged=2)["local"]["global_ot"]
    assert values == pytest.approx({"mean": 0.4, "sd": 0.1, "last": 0.5})


def test_the_star_follows_the_direction() -> None:
    lines = table(summarise(SYSTEMS, averaged=2), ENDS).splitlines()
    assert len(lines) == 2 + len(METRICS)
    rows = {line.split("  ")[0]: line for line in lines[2:]}
    assert "lower   0.4000 ± 0.1000 *  0.6000 ± 0.1000    floor 0.1000" in rows["global OT"]
    assert "higher  0.4000 ± 0.1000    0.6000 ± 0.1000 *" in rows["local clustering"]
    assert rows["local clustering"].endswith("random labels 0.000, ideal 0.900")


def test_json_round_trip() -> None:
    summary = summarise(SYSTEMS, averaged=2)
    content = json.loads(metrics_json(summary, ENDS, SYSTEMS, Settings(), seed=3))
    assert content["systems"] == summary
    assert content["references"] == ENDS
    assert content["seed"] == 3
    assert content["history"]["local"]["val/global_ot"]["epochs"] == [1, 2, 3]
    assert content["settings"]["batch_size"] == Settings().batch_size


@pytest.mark.parametrize("epochs", [1, 7, 50, 99, 200])
def test_the_last_epoch_is_always_evaluated(epochs: int) -> None:
    settings = Settings(epochs=epochs)
    assert settings.trained_epochs % settings.evaluate_every == 0
    assert 0 < settings.trained_epochs <= epochs


def test_unconverged_solves_are_reported() -> None:
    assert convergence_note(SYSTEMS) == ""
    assert "3 of global's solves" in convergence_note(
        {**SYSTEMS, "global": Trained(None, History(), unconverged=3)}
    )
