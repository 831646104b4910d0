"""Run folders: a trained model as safetensors, and in JSON how to build it again. No pickle.

    model.json         {"format": 1, "model": {"class_path": ..., "init_args": ...}, "data": ...}
    model.safetensors  its state

Classes and arguments are those of the configuration that trained it, read by jsonargparse; a user's own
networks are named by their import path.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import torch
from jsonargparse import ArgumentParser
from safetensors import SafetensorError
from safetensors.torch import load, save

from otcore_ae.artifacts import prepare_folder, write_files
from otcore_ae.data.module import ImageData
from otcore_ae.models.base import GenerativeModel

FORMAT = 1
RECIPE, WEIGHTS = "model.json", "model.safetensors"

Recipe = dict[str, Any]  # {"class_path": ..., "init_args": {...}}


class RunError(ValueError):
    """A run folder cannot be read; the message says which file, why, and what would work."""


class Run(NamedTuple):
    """A trained model in evaluation mode, and the recipe of its data (None: unknown)."""

    model: GenerativeModel
    data: Recipe | None


def export_run(model: GenerativeModel, folder: Path, recipe: Recipe, data: Recipe | None = None) -> None:
    """Write a model into a folder.

    Args:
        model: the model.
        folder: made where it is not there.
        recipe: the model's class and arguments.
        data: those of its data.
    """
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    content = {"format": FORMAT, "model": recipe, "data": data}
    text = json.dumps(content, indent=2, default=str) + "\n"
    write_files(prepare_folder(folder), {RECIPE: text.encode(), WEIGHTS: save(state)})


def load_run(folder: Path) -> Run:
    """The model in a folder.

    Raises:
        RunError: in one line, where a file is missing, damaged, or of another model.
    """
    try:
        content = json.loads((folder / RECIPE).read_text())
        raw = (folder / WEIGHTS).read_bytes()
    except FileNotFoundError as error:
        raise RunError(
            f"'{folder}' is no run folder: it has no {Path(error.filename).name}; give a folder that "
            "`otcore-ae fit` wrote to its end"
        ) from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise RunError(f"{folder / RECIPE} is damaged ({error}); export the run again") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise RunError(f"{folder / RECIPE} is not of format {FORMAT}; export the run again with this version")
    model = build(GenerativeModel, content["model"])
    try:
        model.load_state_dict(load(raw))
    except SafetensorError as error:
        raise RunError(
            f"{folder / WEIGHTS} is damaged or cut short ({error}); export the run again"
        ) from error
    except RuntimeError as error:
        raise RunError(f"{folder / WEIGHTS} holds another model than {RECIPE} says: {error}") from error
    return Run(model.eval(), content["data"])


def load_data(run: Run, data: Path | None = None) -> ImageData:
    """The data that the run was trained on, set up; `data` names another folder for it.

    Raises:
        RunError: where the run does not know its data.
        OSError, ValueError: where they cannot be read.
    """
    if run.data is None:
        raise RunError("the run does not say what data it was trained on; export it with its data's recipe")
    recipe = run.data
    if data is not None:
        recipe = {**recipe, "init_args": {**recipe.get("init_args", {}), "path": str(data)}}
    built = build(L.LightningDataModule, recipe)
    assert isinstance(built, ImageData)
    built.setup()
    return built


def build(kind: type, recipe: Recipe) -> Any:
    """An object of a subclass of `kind`, from its class path and arguments.

    Raises:
        RunError: where there is no such class, or it does not take the arguments.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(kind, "object")
    with torch.random.fork_rng():  # initial weights are overwritten
        try:
            instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes  # before 4.49
            return instantiate(parser.parse_object({"object": recipe})).object
        except Exception as error:  # jsonargparse raises what the classes raise, and its own
            root: BaseException = error
            while root.__cause__ is not None:
                root = root.__cause__
            reason = (str(root).strip().splitlines() or [type(root).__name__])[0]
            raise RunError(f"cannot build {recipe.get('class_path')}: {reason}") from error
