"""Variants: chains of compressors, written as text and applied in order, with their provenance.

``prune-structured:amount=0.3+int8-static`` is one variant of two steps; its name is
``prune-structured(amount=0.3)+int8-static``.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from edgeprof.artifact import Artifact, recognise
from edgeprof.artifact.formats import suffixes_of
from edgeprof.compression.isolation import apart
from edgeprof.compression.outputs import check_outputs
from edgeprof.compression.recipe import check_preprocessing, declared_changes, recipe_beside
from edgeprof.compression.scratch import scratch
from edgeprof.compression.share import LEAST_SHARE, check_share
from edgeprof.compression.target import current_target, making_for
from edgeprof.errors import EdgeprofError, InputError, StorageError, VariantError, unknown
from edgeprof.reasons import Code

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from edgeprof.compression.compressor import Compressor, Parameter
    from edgeprof.compression.target import Target
    from edgeprof.evaluation.dataset import Dataset


@dataclass(frozen=True)
class Step:
    """One compressor of a chain, with the parameters that were given as text."""

    compressor: str
    given: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        if not self.given:
            return self.compressor
        return f"{self.compressor}({','.join(f'{key}={value}' for key, value in self.given.items())})"


def parse_chain(text: str) -> list[Step]:
    """Parse a chain written as ``NAME[:key=value,…][+NAME…]`` into steps.

    Raises:
        InputError: A step is empty, or a parameter has no value.
    """
    steps = []
    for part in text.split("+"):
        name, settings = _split_step(part.strip())
        if not name:
            raise InputError(
                f"--with {text!r} has an empty step", remedy="Write it as prune-structured:amount=0.3+int8-static."
            )
        given: dict[str, str] = {}
        for setting in filter(None, settings.split(",")):
            key, equals, value = setting.partition("=")
            if not (key and equals and value):
                raise InputError(f"--with {text!r}: {setting!r} is not key=value")
            given[key.strip()] = value.strip()
        steps.append(Step(name, given))
    return steps


def _split_step(part: str) -> tuple[str, str]:
    """Split a step into its name and settings; the colon of a pattern, as in prune-2:4, belongs to the name."""
    match = re.match(r"(?P<name>[^:]*(?::\d+)?)(?::(?P<settings>.*))?$", part)
    assert match is not None
    return match["name"], match["settings"] or ""


def chain_name(steps: Sequence[Step]) -> str:
    """Return the variant's name."""
    return "+".join(step.name for step in steps)


def settings(compressor: Compressor, given: Mapping[str, str]) -> dict[str, Any]:
    """Return the typed parameters of a step: the given ones, checked, and the defaults of the others.

    Raises:
        InputError: A parameter is unknown or missing, or its value has the wrong type or is out of range.
    """
    known = {parameter.name: parameter for parameter in compressor.parameters}
    for key in given:
        if key not in known:
            raise unknown(f"parameter of {compressor.name}", key, known)
    values = {}
    for name, parameter in known.items():
        if name in given:
            values[name] = _typed_value(compressor.name, parameter, given[name])
        elif parameter.default is not None:
            values[name] = parameter.default
        elif parameter.required:
            raise InputError(
                f"{compressor.name} needs {name} ({parameter.help})", remedy=f"--with {compressor.name}:{name}=…"
            )
    return values


def _typed_value(owner: str, parameter: Parameter, text: str) -> Any:
    converters: dict[str, Callable[[str], Any]] = {"int": int, "float": float, "str": str, "bool": _parse_boolean}
    try:
        value = converters[parameter.type](text)
    except ValueError:
        raise InputError(f"{owner}: {parameter.name}={text} is not of type {parameter.type}") from None
    if parameter.choices and value not in parameter.choices:
        raise unknown(f"{parameter.name} of {owner}", text, parameter.choices)
    low, high = parameter.minimum, parameter.maximum
    if (low is not None and value < low) or (high is not None and value > high):
        raise InputError(
            f"{owner}: {parameter.name}={text} is out of range",
            remedy=f"Use a value from {'-∞' if low is None else low} to {'∞' if high is None else high}.",
        )
    return value


def _parse_boolean(text: str) -> bool:
    lowered = text.lower()
    if lowered in {"1", "true", "yes", "on"}:
        return True
    if lowered in {"0", "false", "no", "off"}:
        return False
    raise ValueError(text)


def check_chain(steps: Sequence[Step], compressors: Mapping[str, Callable[[], Compressor]], model_format: str) -> None:
    """Check a chain for misspelt names and values out of range before any variant is made.

    The check ends at a step that does not accept the format which it would get; ``make_variant`` reports that, because
    it is not a misspelling and affects only one of several variants.

    Raises:
        InputError: A compressor or parameter is unknown, or a value is not allowed.
    """
    tools = [_find_compressor(step, compressors) for step in steps]
    current = model_format
    for step, family in zip(steps, tools, strict=True):
        if current not in family.takes:
            return
        tool = family.for_format(current)
        settings(tool, step.given)
        current = tool.gives or current


#: A variant and its recipe.
Made: TypeAlias = tuple[Artifact, list[dict[str, Any]]]


def make_variant(
    source: Artifact,
    steps: Sequence[Step],
    compressors: Mapping[str, Callable[[], Compressor]],
    directory: Path,
    data: Dataset | None = None,
    *,
    seed: int = 0,
    timeout_s: float = 120.0,
    isolated: bool = True,
    begun: Made | None = None,
    least_share: float = LEAST_SHARE,
    device: Target | None = None,
) -> Made:
    """Apply a chain to a model in a child process.

    Args:
        source: The model file.
        steps: The chain.
        compressors: The registered compressors: name → factory.
        directory: The directory for the variant's file.
        data: The data for steps that calibrate or train.
        seed: The seed that makes every step repeatable.
        timeout_s: The time limit of each call of the user's code that makes the model (a factory), seconds.
        isolated: If False, the chain runs in this process, which a crash in a library or in the user's code then ends.
        begun: A variant to which the first steps of the chain, those in its recipe, were already applied.
        device: The processor for which the variant is made; None for this machine's.
        least_share: Share of the weights or of the multiply-accumulates that each step must change; 0 allows any
            change, and any outputs, so that a variant that is of no use can be examined.

    Returns:
        The variant, and its recipe: one entry per step with name, version, parameters, input and output checksums and
        what was actually done.

    Raises:
        InputError: The chain, a parameter or the data cannot be used.
        StorageError: The variant cannot be written.
        VariantError: A step failed on this model, crashed, changed too little (``changed_nothing``) or wrote another
            format than it declares, or the user's code did not end.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with scratch("compress", directory) as folder:

            def work() -> Made:
                if isolated:  # libraries put their temporary files there too
                    tempfile.tempdir = os.environ["TMPDIR"] = os.fspath(folder)
                with making_for(device or current_target()):
                    return _run_chain(
                        source, steps, compressors, folder, data, seed=seed, begun=begun, least=least_share
                    )

            name = chain_name(steps)
            answer = apart(work, label=name, limit_s=timeout_s, folder=folder) if isolated else work()
            _require_variant_in_folder(answer, folder, f"{stem(source)}.{safe(name)}")
            variant, recipe = answer
            final = _install_files(variant, directory)
    except OSError as error:
        raise _cannot_write(directory, error) from error
    return recognise(os.fspath(final), source.own_formats), recipe


def _run_chain(
    source: Artifact,
    steps: Sequence[Step],
    compressors: Mapping[str, Callable[[], Compressor]],
    folder: Path,
    data: Dataset | None,
    *,
    seed: int,
    begun: Made | None,
    least: float,
) -> Made:
    """Apply the steps; return the file in ``folder`` that the last step wrote, and the recipe."""
    tools = [(step, _find_compressor(step, compressors)) for step in steps]
    check_preprocessing(source.spec, recipe_beside(source), data)
    current, recipe = (source, []) if begun is None else (begun[0], list(begun[1]))
    for number, (step, family) in list(enumerate(tools))[len(recipe) :]:
        tool = family
        if current.format not in tool.takes:
            raise InputError(
                f"{tool.name} takes {', '.join(tool.takes)}; {_displayed_name(source, current)} is {current.format}",
                remedy=_bridging_remedy(tool, current.format, compressors),
            )
        tool = family.for_format(current.format)
        if tool.needs_data != "no" and data is None and "data" not in step.given:
            raise InputError(f"{tool.name} needs {tool.needs_data} data", remedy="Add --dataset SPEC.")
        values = settings(tool, step.given)
        # In a model of several files the first names the others, so each gets its final name from the start.
        target = folder / str(number) / (stem(source) + "." + safe(chain_name(steps)) + _suffix(tool, current))
        target.parent.mkdir(exist_ok=True)
        # The attribute of a factory (FILE.py:attribute) is a part of its name.
        given = current.path if current.path is not None and current.format != "python" else Path(current.target)
        label = given.name if current is source else _displayed_name(source, current)
        try:
            facts = _apply_step(tool, given, target, values, data, seed=seed, label=label)
        except EdgeprofError as error:
            # The name of a scratch file means nothing to the user.
            error.message = error.message.replace(os.fspath(given), _displayed_name(source, current))
            if current is not source:
                error.message = error.message.replace(f"{given.name}: ", f"{_displayed_name(source, current)}: ")
            error.args = (error.message,)
            raise
        produced = recognise(os.fspath(target), source.own_formats)
        if produced.format != (tool.gives or current.format):
            raise VariantError(f"{tool.name} wrote {produced.format} where {tool.gives or current.format} was due")
        name = _displayed_name(source, current)
        check_share(tool.name, name, facts, least, same=produced.sha256 == current.sha256)
        if least:
            check_outputs(tool.name, name, facts)
        recipe.append(
            {
                "compressor": tool.name,
                "version": tool.version,
                "parameters": values,
                "seed": seed,
                **({"target": current_target().to_dict()} if tool.for_target else {}),
                "from_sha256": current.sha256,
                "to_sha256": produced.sha256,
                "facts": {**declared_changes(tool), **facts},
            }
        )
        check_preprocessing(chain_name(steps), recipe, data)
        current = produced
    return current, recipe


def _suffix(tool: Compressor, current: Artifact) -> str:
    """Return the suffix of a step's file: a model that keeps its format keeps its suffix (.h5, .lite) too."""
    endings = suffixes_of(tool.gives) if tool.gives else current.suffixes
    if tool.gives in {None, current.format} and current.path is not None and current.path.suffix in endings:
        return current.path.suffix
    return endings[0] if endings else ""


def _find_compressor(step: Step, compressors: Mapping[str, Callable[[], Compressor]]) -> Compressor:
    if step.compressor not in compressors:
        raise unknown("compressor", step.compressor, compressors)
    return compressors[step.compressor]()


def _apply_step(
    tool: Compressor, source: Path, target: Path, values: dict[str, Any], data: Dataset | None, *, seed: int, label: str
) -> dict[str, Any]:
    try:
        return tool.apply(source, target, values, data, seed=seed)
    except EdgeprofError as error:
        if error.__cause__ is not None and _is_full(target.parent, error.__cause__):
            raise _cannot_write(target.parents[2], _FULL) from error
        raise
    except OSError as error:
        if _is_full(target.parent, error):
            raise _cannot_write(target.parents[2], error) from error
        raise VariantError(f"{tool.name} could not write its output: {error.strerror or error}") from error
    except Exception as error:
        if _is_full(target.parent, error):
            raise _cannot_write(target.parents[2], _FULL) from error
        # A compressor may be a plugin and the graph may be unusual: any exception fails only this variant.
        raise VariantError(f"{tool.name} failed on {label}: {type(error).__name__}: {error}") from error


def _require_variant_in_folder(answer: Any, folder: Path, name: str) -> None:
    """Check what a child process says that it made, before its files are moved: the process may have been confined.

    Args:
        answer: The answer of the process.
        folder: The folder in which alone it was to write.
        name: The beginning of the names of all its files.

    Raises:
        VariantError: The answer names other files, or has another form.
    """
    try:
        variant, recipe = answer
        path, root = variant.path, folder.resolve()
        is_valid = isinstance(variant, Artifact) and bool(variant.files) and (path in variant.files or path.is_dir())
        for file in (path, *variant.files):  # the files of a folder that is one model lie inside of it
            is_valid &= (file.is_file() or file == path) and file.resolve() == root / file.relative_to(folder)
            is_valid &= file.relative_to(path.parent).parts[0].startswith(name)
        json.dumps(recipe)
        for step in recipe:
            is_valid &= step.keys() >= _STEP_FIELDS and isinstance(step["facts"], dict)
    except (AttributeError, TypeError, ValueError, LookupError, RecursionError, OSError):
        is_valid = False
    if not is_valid:
        raise VariantError(
            f"{name} broke the connection to its process: its answer is not a variant in its folder", code=Code.CRASHED
        )


#: What each step of a recipe records (``_run_chain``).
_STEP_FIELDS = {"compressor", "version", "parameters", "seed", "from_sha256", "to_sha256", "facts"}


def _install_files(variant: Artifact, directory: Path) -> Path:
    """Flush the files and rename them, the model last, so that a full disk or a kill leaves no partial model."""
    assert variant.path is not None  # a step writes a file
    if variant.path.is_dir():  # nothing must be left of a former variant of the same name
        shutil.rmtree(directory / variant.path.name, ignore_errors=True)
    for source in sorted(variant.files, key=lambda file: file == variant.path):
        with source.open("rb") as written:
            os.fsync(written.fileno())
        place = directory / source.relative_to(variant.path.parent)
        place.parent.mkdir(parents=True, exist_ok=True)
        source.replace(place)
    beside = directory / f"{variant.path.name}.data"
    if len(variant.files) == 1:
        beside.unlink(missing_ok=True)  # left by a larger variant of the same name
    return directory / variant.path.name


def _is_full(folder: Path, error: BaseException) -> bool:
    """Return whether a step failed because the disk is full; few libraries report that as an OSError."""
    if isinstance(error, OSError):
        return error.errno in {errno.ENOSPC, errno.EDQUOT}
    return shutil.disk_usage(folder).free < _LEAST_FREE


#: If fewer bytes are free, a failed step is attributed to a full disk.
_LEAST_FREE = 256 * 1024
_FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _cannot_write(directory: Path, error: OSError) -> StorageError:
    return StorageError(
        f"cannot write to {directory}: {error.strerror or error}", remedy="Free some space, or choose another folder."
    )


#: Conversions by other projects' programs: (from, to) → the command.
_CONVERTERS = {
    ("onnx", "tflite"): "onnx2tf -i MODEL.onnx (onnx2tf wants an environment of its own)",
    (
        "tflite",
        "onnx",
    ): "python -m tf2onnx.convert --tflite MODEL.tflite --output MODEL.onnx (tf2onnx wants an environment of its own)",
    (
        "savedmodel",
        "onnx",
    ): "python -m tf2onnx.convert --saved-model DIR --output MODEL.onnx (tf2onnx wants an environment of its own)",
    ("torchscript", "onnx"): "torch.onnx.export of the module that it was made from",
    ("pt2", "onnx"): "torch.onnx.export of the exported program",
}


def _bridging_remedy(tool: Compressor, model_format: str, compressors: Mapping[str, Callable[[], Compressor]]) -> str:
    """Return the remedy for a format that a compressor does not take: a step that converts it, or other compressors."""
    candidates = {name: factory() for name, factory in sorted(compressors.items())}
    fitting = {
        name: candidate.for_format(model_format)
        for name, candidate in candidates.items()
        if model_format in candidate.takes
    }
    for name, candidate in fitting.items():
        if candidate.gives is not None and candidate.gives != model_format and candidate.gives in tool.takes:
            return f"Convert it first: --with {name}+{tool.name}."
    words = [
        f"Convert it to {wanted} first: {_CONVERTERS[model_format, wanted]}."
        for wanted in tool.takes
        if (model_format, wanted) in _CONVERTERS
    ][:1]
    words.append(f"For {model_format} there are: {', '.join(fitting)}." if fitting else f"None takes {model_format}.")
    return " ".join(words)


def _displayed_name(source: Artifact, current: Artifact) -> str:
    """Return the name of a step's model for messages: the user's name for it, not the name of a scratch file."""
    return source.spec if current is source else f"what the steps before made of {source.spec}"


def stem(artifact: Artifact) -> str:
    """Return the common name of the files made from a model: its name without the suffix of its format."""
    if artifact.format == "python":  # FILE.py:attribute, package.module:attribute
        where, _, attribute = artifact.target.rpartition(":")
        return f"{Path(where).name.removesuffix('.py')}-{attribute}"
    if artifact.path is None:
        return "model"
    # mobilenet_v1_0.25 and mobilenet_v1_0.5 are two models.
    known = artifact.path.suffix in artifact.suffixes
    return artifact.path.stem if known else artifact.path.name


def safe(name: str) -> str:
    """Turn the name of a chain or a model into part of a file name; a long one is cut and gets a checksum."""
    safe_name = "".join(c if c.isalnum() or c in "-+=._" else "_" for c in name)
    if len(safe_name) <= 120:
        return safe_name
    return safe_name[:100] + "-" + hashlib.sha256(name.encode()).hexdigest()[:12]
