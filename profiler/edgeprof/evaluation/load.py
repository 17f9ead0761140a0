"""Create the dataset and the metric that ``--dataset SPEC`` and ``--metric NAME`` name."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprof import toml_files
from edgeprof.errors import EdgeprofError, InputError
from edgeprof.evaluation.metric import Metric, Score, proportion

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType

    import numpy.typing as npt

    from edgeprof.evaluation.dataset import Dataset
    from edgeprof.plugins import PluginHost


def load_dataset(spec: str, host: PluginHost, options: Mapping[str, str] | None = None) -> Dataset:
    """Find the format of a dataset and open it.

    Args:
        spec: A file or folder; ``FORMAT:PATH`` to state the format, which is otherwise recognised by the content; or a
            ``.toml`` file with ``path`` (relative to that file), ``format`` and the options, including the
            preprocessing, in tables or at the top level.
        host: The plugins.
        options: The options of ``--preprocess KEY=VALUE`` …; they override the file's.

    Raises:
        InputError: The dataset is missing or has no known format, or an option does not fit.
    """
    declared: dict[str, str] = {}
    kind, path = _split_spec(spec, host)
    if kind is None and path.suffix == ".toml":
        kind, path, declared = _read_declaration(path)
    if not toml_files.exists(path):
        raise InputError(f"dataset {path} does not exist", remedy=_layout_remedy(kind, host))
    factory = host.get("datasets", kind) if kind else _find_opener(path, host)
    try:
        dataset: Dataset = factory(str(path), {**declared, **(options or {})})
    except EdgeprofError:
        raise
    except Exception as error:  # a plugin may raise anything on an arbitrary file
        lines = str(error).strip().splitlines()
        reason = f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
        raise InputError(
            f"dataset {path} cannot be opened{f' as {kind}' if kind else ''}: {reason}", remedy="It may be damaged."
        ) from error
    return dataset


def _layout_remedy(kind: str | None, host: PluginHost) -> str:
    """Return the remedy that says which files to put where; datasets are never downloaded."""
    layout = getattr(host.get("datasets", kind), "layout", None) if kind else None
    wanted = f"{kind} wants {layout}" if layout else "Give a file, a folder, or a dataset .toml"
    return f"{wanted}; edgeprof downloads nothing: put the data there, or give the path where they are."


def _split_spec(spec: str, host: PluginHost) -> tuple[str | None, Path]:
    kind, colon, rest = spec.partition(":")
    if colon and kind in host.of("datasets") and not toml_files.exists(Path(spec)):
        return kind, Path(rest)
    return None, Path(spec)


def _find_opener(path: Path, host: PluginHost) -> Callable[[str, Mapping[str, str]], Dataset]:
    """Return the first format whose factory's ``recognises(path)`` is true; formats marked ``generic`` are tried last,
    because a folder of folders or a .csv may have a more specific format.
    """
    known = host.of("datasets")
    for name in sorted(known, key=lambda name: (getattr(known[name], "generic", False), name)):
        recognises = getattr(known[name], "recognises", None)
        try:
            if recognises is not None and recognises(path):
                opener: Callable[[str, Mapping[str, str]], Dataset] = known[name]
                return opener
        except OSError as error:
            raise InputError(f"cannot read dataset {path}: {error.strerror}") from None
    raise InputError(
        f"{path} is no dataset of a known format",
        remedy=f"Name its format, as FORMAT:{path}. Known: {', '.join(sorted(known)) or 'none'}.",
    )


def _read_declaration(path: Path) -> tuple[str | None, Path, dict[str, str]]:
    content = toml_files.read(path)
    target, kind = content.pop("path", None), content.pop("format", None)
    if not isinstance(target, str) or not isinstance(kind, str | None):
        raise InputError(f"{path} names no data", remedy='It needs a line path = "FILE or FOLDER".')
    options: dict[str, str] = {}
    for key, value in content.items():
        pairs = value if isinstance(value, dict) else {key: value}
        options.update({name: _option_text(path, name, item) for name, item in pairs.items()})
    return kind, path.parent / Path(target).expanduser(), options


def _option_text(path: Path, key: str, value: Any) -> str:
    if isinstance(value, list) and all(
        isinstance(number, int | float) and not isinstance(number, bool) for number in value
    ):
        return ("x" if key in {"shape", "resize", "letterbox", "crop"} else ",").join(map(str, value))
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return str(value)
    raise InputError(f"{path}: {key} must be a text, a number or a list of numbers")


# --- metrics ----------------------------------------------------------------------------------------------------------


def load_metric(name: str, host: PluginHost) -> Metric:
    """Return a registered metric, or the user's own as ``file.py:name``: a function, or a subclass of ``Metric``.

    The suffix ``:output=NAME`` names the output to judge if a model has several, as in ``top1:output=label``.

    The function gets ``(outputs, labels)`` as ``Metric.score`` does and returns a ``Score``, a number, or one boolean
    per sample (which yields an interval and pairs variants). ``function.higher_is_better = False`` declares that lower
    is better.

    Raises:
        InputError: There is no such metric, file or function.
    """
    whole, colon, output = name.partition(":output=")
    metric = _load_metric(whole, host)
    if colon:
        if not output:
            raise InputError(f"{name} names no output", remedy=f"As: {whole}:output=NAME, or its number from 0.")
        metric.output = output
    return metric


def _load_metric(name: str, host: PluginHost) -> Metric:
    file, colon, function = name.rpartition(":")
    if colon and file.endswith(".py"):
        declared = getattr(_import_file(Path(file)), function, None)
        if not callable(declared):
            raise InputError(f"{file} has no function {function}")
        if isinstance(declared, type) and issubclass(declared, Metric):
            return _make_metric(declared, name)
        return _FunctionMetric(f"{Path(file).name}:{function}", declared)
    metric: Metric = host.get("metrics", name)()
    return metric


def _make_metric(kind: type[Metric], name: str) -> Metric:
    try:
        metric = kind()
    except Exception as error:
        raise InputError(f"the metric {name} failed: {type(error).__name__}: {error}") from error
    metric.name = getattr(metric, "name", kind.__name__)
    return metric


class _FunctionMetric(Metric):
    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self.name, self._function = name, function
        self.higher_is_better = bool(getattr(function, "higher_is_better", True))

    def score(self, outputs: dict[str, npt.NDArray[Any]], labels: npt.NDArray[Any]) -> Score:
        try:
            returned = self._function(outputs, labels)
        except EdgeprofError:
            raise
        except Exception as error:
            raise InputError(f"the metric {self.name} failed: {type(error).__name__}: {error}") from error
        if isinstance(returned, Score):
            return returned
        array = np.asarray(returned)
        if array.dtype == np.bool_ and array.shape == (len(labels),):
            return proportion(array)
        if array.shape == () and array.dtype.kind in "fiu" and np.isfinite(array):
            return Score(value=float(array), ci95=None, samples=len(labels))
        raise InputError(
            f"the metric {self.name} returned {type(returned).__name__} of shape {array.shape}",
            remedy=f"Return a Score, a finite number, or {len(labels)} truth values.",
        )


def _import_file(path: Path) -> ModuleType:
    """Import a Python file as a module under a unique name, so that it shadows no other module."""
    if not path.is_file():
        raise InputError(f"the metric's file {path} does not exist")
    name = "edgeprof_metric_" + hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise InputError(f"the metric's file {path} cannot be imported: {type(error).__name__}: {error}") from error
    return module
