"""The conformance test of compressors: it checks the contract of edgeprof.compression.compressor on a model."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from edgeprof.artifact import recognise
from edgeprof.compression.compressor import Change
from edgeprof.errors import InputError
from edgeprof.testing.require import require, require_error

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgeprof.compression.compressor import Compressor, Parameter
    from edgeprof.evaluation.dataset import Dataset

_TYPES: dict[str, tuple[type, ...]] = {"int": (int,), "float": (float, int), "bool": (bool,), "str": (str,)}


def check_compressor(
    compressor: Compressor,
    model: str | Path,
    *,
    parameters: Mapping[str, Any] | None = None,
    data: Dataset | None = None,
) -> None:
    """Check a compressor against its contract with one model.

    The compressor must declare its parameters consistently, write a file of the promised format, leave the source
    unchanged, write the same bytes for the same seed, and return provenance that JSON can represent. It must refuse a
    file that is not a model with an InputError, and leave no file behind.

    Args:
        compressor: The object that the plugin's factory returns.
        model: A model file of one of its formats.
        parameters: Parameters to apply; None: the defaults.
        data: Data for calibration or training.

    Raises:
        AssertionError: the compressor does not conform; the message says why in one sentence.
    """
    require(compressor.name and compressor.version, "the compressor has no name or no version")
    require(compressor.takes, f"{compressor.name} takes no format")
    for parameter in compressor.parameters:
        _check_parameter(parameter)
    require(compressor.needs_data in ("no", "calibration", "training"), f"needs_data is {compressor.needs_data!r}")
    strange = {*compressor.changes} - {*get_args(Change)}
    require(not strange, f"changes names {', '.join(sorted(strange))}; there are {', '.join(get_args(Change))}")
    source = recognise(str(model))
    require(source.format in compressor.takes, f"{model} is {source.format}; it takes {', '.join(compressor.takes)}")
    given = {p.name: p.default for p in compressor.parameters} | dict(parameters or {})
    with tempfile.TemporaryDirectory() as folder:
        variants = []
        for number in range(2):
            target = Path(folder) / f"{number}" / Path(model).name
            target.parent.mkdir()
            provenance = compressor.apply(Path(model), target, given, data, seed=7)
            require(target.exists(), f"{compressor.name} wrote nothing to its target")
            _require_json(compressor.name, provenance)
            variants.append(recognise(str(target)))
        wanted = compressor.gives or source.format
        require(variants[0].format == wanted, f"it promises {wanted} and wrote {variants[0].format}")
        require(variants[0].sha256 == variants[1].sha256, "the same seed gives other bytes: it is not deterministic")
        require(recognise(str(model)).sha256 == source.sha256, "the source was changed")
        bad, target = Path(folder) / f"bad{Path(model).suffix}", Path(folder) / f"out{Path(model).suffix}"
        _write_damaged(Path(model), bad)
        require_error(InputError, "a damaged model", lambda: compressor.apply(bad, target, given, data, seed=7))
        require(not target.exists(), "a failed compression leaves a file behind")


def _write_damaged(model: Path, target: Path) -> None:
    """Copy a model of which only the beginning is left; of a folder, this concerns its largest file."""
    spoilt = target
    if model.is_dir():
        shutil.copytree(model, target)
        spoilt = max((path for path in target.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    spoilt.write_bytes((spoilt if model.is_dir() else model).read_bytes()[:64] + b"\x00\xff" * 64)


def _check_parameter(parameter: Parameter) -> None:
    name, default = parameter.name, parameter.default
    require(name.isidentifier(), f"the parameter {name!r} cannot be written as {name}=VALUE")
    require(parameter.help, f"the parameter {name} has no help")
    if default is None:
        return
    require(isinstance(default, _TYPES[parameter.type]), f"the default {default!r} of {name} is no {parameter.type}")
    require(parameter.minimum is None or default >= parameter.minimum, f"the default of {name} is below its minimum")
    require(parameter.maximum is None or default <= parameter.maximum, f"the default of {name} is above its maximum")
    require(not parameter.choices or default in parameter.choices, f"the default of {name} is none of its choices")


def _require_json(name: str, provenance: Any) -> None:
    require(isinstance(provenance, dict), f"{name} returns {type(provenance).__name__}, not a dict of provenance")
    try:
        json.dumps(provenance)
    except (TypeError, ValueError) as error:
        raise AssertionError(f"{name}'s provenance is not JSON: {error}") from None
