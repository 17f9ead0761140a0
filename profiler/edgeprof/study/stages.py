"""The stages of a pipeline whose models a study varies: tables ``[stages.NAME]``, and recipes for them.

A recipe of a pipeline gives each stage that it changes another model, as ``detect=int8-dynamic embed=small.onnx``: a
chain that makes a variant of the stage's model, or a file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprof import toml_files
from edgeprof.artifact.artifact import checksum
from edgeprof.compression.variant import chain_name, parse_chain
from edgeprof.errors import InputError, unknown
from edgeprof.worker.pipeline import join_models

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_KEYS = ("model", "train", "preprocess")
#: The space before ``stage=``; other spaces belong to a path.
_BEFORE_STAGE = re.compile(r"\s+(?=[^\W\d]\w*=)")
_STAGE = re.compile(r"(?P<stage>[^\W\d]\w*)=(?P<model>.+)", re.DOTALL)


@dataclass(frozen=True)
class StageModel:
    """The model of a stage.

    Attributes:
        model: The model that other variants are compared with.
        train: Data that its variants are calibrated and trained on, as for ``--dataset``; None: none.
        preprocess: Declared preprocessing of that data.
    """

    model: str
    train: str | None = None
    preprocess: Mapping[str, str] = field(default_factory=dict)


def read_stages(path: Path, tables: Mapping[str, Any], locate: Callable[[str], str]) -> dict[str, StageModel]:
    """Read the tables ``[stages.NAME]`` of a study file.

    Args:
        path: The file, for messages.
        tables: Stage → its table.
        locate: Resolves a path that is relative to the file.

    Raises:
        InputError: A table has no model, or a key or value is not valid.
    """
    stages = {}
    for name, table in tables.items():
        if not isinstance(table, dict) or not isinstance(table.get("model"), str):
            raise InputError(
                f"{path}: the stage {name} has no model",
                remedy=f'[stages.{name}] needs a line model = "FILE"; leave out stages that run no model.',
            )
        for key in table:
            if key not in _KEYS:
                raise unknown(f"key of [stages.{name}] in {path.name}", key, _KEYS)
        train, preprocess = table.get("train"), table.get("preprocess", {})
        if not isinstance(train, str | None) or not isinstance(preprocess, dict):
            raise InputError(f"{path}: [stages.{name}] takes train as text in quotes, and preprocess as a table")
        declared = {
            key: str(value).lower() if isinstance(value, bool) else str(value) for key, value in preprocess.items()
        }
        stages[name] = StageModel(locate(table["model"]), None if train is None else locate(train), declared)
    return stages


def value_text(value: Any) -> str:
    """Write a value of a TOML file in the form of a chain or a flag."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def parse_stage_recipe(recipe: str, stages: Mapping[str, StageModel], folder: Path) -> dict[str, str]:
    """Parse a recipe of a pipeline into stage → chain or path of a file.

    Args:
        recipe: The text, as ``detect=int8-dynamic embed=small.onnx``.
        stages: The stages that have models.
        folder: The folder that paths are relative to.

    Raises:
        InputError: It names no stage, an unknown one, one twice, or a model that is neither a file nor a chain.
    """
    models: dict[str, str] = {}
    for part in _BEFORE_STAGE.split(recipe.strip()):
        match = _STAGE.fullmatch(part)
        if match is None:
            example = next(iter(stages))
            raise InputError(
                f"the recipe {recipe!r} does not name the stage that it changes",
                remedy=f"Write it as {example}={part or 'int8-dynamic'}.",
            )
        stage, model = match["stage"], match["model"].strip()
        if stage not in stages:
            raise unknown("stage with a model", stage, stages)
        if stage in models:
            raise InputError(f"the recipe {recipe!r} names the stage {stage} twice", remedy="Name it once.")
        models[stage] = model
        if not is_file(model, folder):
            _check_form(model, folder)
    return models


def is_file(model: str, folder: Path) -> bool:
    """Whether a recipe gives a stage a file, not a chain that makes one."""
    return toml_files.exists(folder / model)


def _check_form(chain: str, folder: Path) -> None:
    """Check that a text that names no file can be a chain."""
    if "/" in chain or re.search(r"\.[a-zA-Z]\w*$", chain):
        raise InputError(
            f"there is no model {chain} in {folder}", remedy="Give a file, or a chain such as int8-dynamic."
        )
    parse_chain(chain)


def recipe_name(recipe: str, stages: Mapping[str, StageModel], folder: Path) -> str:
    """Return the name of the variant that a recipe makes; ``parse_stage_recipe`` says which errors it raises."""
    if not stages:
        return chain_name(parse_chain(recipe))
    models = parse_stage_recipe(recipe, stages, folder)
    ordered = [(stage, models[stage]) for stage in stages if stage in models]
    return " ".join(
        f"{stage}={model if is_file(model, folder) else chain_name(parse_chain(model))}" for stage, model in ordered
    )


def pipeline_spec(pipeline: str, stages: Mapping[str, StageModel], replaced: Mapping[str, str] | None = None) -> str:
    """Return a pipeline with the models of its stages, as ``recognise`` takes it.

    Args:
        pipeline: As ``app.py:pipeline``.
        stages: The stages with their models.
        replaced: Stage → another model.
    """
    models = {name: stage.model for name, stage in stages.items()}
    return join_models(pipeline, {**models, **(replaced or {})})


def frames_fingerprint(frames: str) -> str:
    """Return a hash of recorded frames, which changes with them; of a camera or a stream only its name."""
    path = Path(frames).expanduser()
    if path.is_file():
        return checksum([path], path.parent)
    if path.is_dir():
        return checksum(sorted(file for file in path.iterdir() if file.is_file()), path)
    return frames
