"""What was asked of a bench, and each model of it recognised, named and given a runtime, before anything runs."""

from __future__ import annotations

import contextlib
import functools
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprof.artifact import Artifact, recognise, unsupported
from edgeprof.compression.recipe import recipe_beside
from edgeprof.errors import InputError, UnavailableError, VariantError, unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from edgeprof.errors import EdgeprofError
    from edgeprof.evaluation.dataset import Dataset
    from edgeprof.evaluation.metric import Metric
    from edgeprof.plugins import PluginHost
    from edgeprof.workload.runtime import Runtime


@dataclass(frozen=True)
class ModelRequest:
    """One model or variant to bench: what to load, under which name, and how it was made."""

    spec: str
    name: str | None = None
    recipe: list[dict[str, Any]] = field(default_factory=list)
    #: Set where making this variant failed: it is reported, not run; ``spec`` is then the model it was to come from.
    failure: VariantError | None = None


@dataclass(frozen=True)
class BenchRequest:
    """Everything that was asked for; the flags of ``edgeprof bench``, resolved but not interpreted."""

    models: Sequence[ModelRequest]
    runtime: str | None = None
    device: str | None = None  # None: the runtime's own default
    threads: int | None = None
    batch: int = 1
    scenario: str = "single-stream"
    rate_hz: float | None = None
    streams: int | None = None
    preset: str = "default"
    windows: int | None = None
    window_s: float | None = None
    warmup_s: float | None = None
    idle_s: float | None = None
    sample_rate_hz: float = 100.0
    sensors: Sequence[str] | None = None
    rail: str | None = None
    estimate_power_w: float | None = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    dtypes: Mapping[str, str] = field(default_factory=dict)
    input_data: Path | None = None
    dataset: Dataset | None = None
    metric: Metric | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    worker_python: str | None = None
    isolated: bool = True
    timeout_s: float = 120.0
    strict: bool = False
    seed: int = 0
    #: Lower the averaging of INA3221s for the run, as root.
    fast_sensor: bool = False


@dataclass
class Candidate:
    """A model that was recognised, and the runtime that will load it; or the reason why there is nothing to run."""

    name: str
    recipe: list[dict[str, Any]]
    artifact: Artifact
    runtime: Runtime | None
    failure: VariantError | None = None

    @functools.cached_property
    def history(self) -> list[dict[str, Any]]:
        """How it was made, here or by an earlier ``edgeprof compress``, as far as that is known."""
        return self.recipe or recipe_beside(self.artifact)


def input_shapes(texts: Sequence[str]) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """``NAME=1x3x224x224[:float32]`` (commas do as well) as shapes and dtypes by name.

    Raises:
        InputError: one of them is not written so.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    dtypes: dict[str, str] = {}
    for text in texts:
        # A TensorFlow name ends in ":0", so the shape is what follows the last "=".
        name, _, rest = text.rpartition("=")
        dims, _, dtype = rest.partition(":")
        try:
            shape = tuple(int(d) for d in dims.replace(",", "x").split("x")) if dims not in {"", "scalar"} else ()
        except ValueError:
            shape = (0,)
        if not name or any(d < 1 for d in shape):
            raise InputError(f"the input {text!r} is not NAME=SHAPE[:DTYPE]", remedy="Write it as x=1x3x32x32:float32.")
        shapes[name] = shape
        if dtype:
            dtypes[name] = dtype
    return shapes, dtypes


def candidates(request: BenchRequest, host: PluginHost) -> list[Candidate]:
    """The models, each with a name of its own, recognised and with a runtime.

    One of several that is no model, or that nothing here loads, costs itself alone: the others are measured.

    Raises:
        InputError: a path or a runtime that does not exist.
        EdgeprofError: there is nothing to run; the first model's reason.
    """
    if not request.models:
        raise InputError("no model was given", remedy="edgeprof bench MODEL [MODEL …]")
    taken: set[str] = set()
    several = len(request.models) > 1
    named = None if request.runtime is None else _named(host, request.runtime)
    formats = own_formats(host)
    made: list[Candidate] = []
    refusals: list[EdgeprofError | None] = []
    for model in request.models:
        refusal: EdgeprofError | None
        artifact, refusal = examine(model.spec, formats)
        name = model.name or (Path(artifact.spec).name if several else "baseline")
        unique, count = name, 1
        while unique in taken:
            count += 1
            unique = f"{name}#{count}"
        taken.add(unique)
        runtime = None
        if model.failure is not None:  # what was to be made of the model has neither its size nor its checksum
            artifact, refusal = replace(artifact, size_bytes=None, sha256=None, files=()), model.failure
        elif refusal is None:
            try:
                runtime = choose_runtime(host, artifact, named, foreign_python=request.worker_python is not None)
            except (InputError, UnavailableError) as error:
                refusal = error
        refusals.append(refusal)
        failure = None if refusal is None else VariantError.of(refusal)
        made.append(Candidate(unique, model.recipe, artifact, runtime, failure))
    if refusals[0] is not None and None not in refusals:
        raise refusals[0]
    return made


def own_formats(host: PluginHost) -> dict[str, tuple[int, bytes]]:
    """The formats that plugins' runtimes recognise themselves."""
    return {name: mark for runtime in _runtimes(host) for name, mark in runtime.own_formats.items()}


def examine(spec: str, formats: Mapping[str, tuple[int, bytes]]) -> tuple[Artifact, InputError | None]:
    """``recognise`` one of several: a file that is no model is of unknown format, and its reason comes with it.

    Raises:
        InputError: there is no such file: that is a slip of the pen.
    """
    try:
        return recognise(spec, formats), None
    except InputError as error:
        if not os.path.isfile(os.path.expanduser(spec)):  # noqa: PTH111, PTH113 - Path raises where a folder is closed
            raise
        path = Path(spec).expanduser()
        return Artifact(spec, path, str(path.resolve()), format="unknown", size_bytes=None, sha256=None), error


def _runtimes(host: PluginHost) -> list[Runtime]:
    """All that can be made; a plugin whose factory fails is no reason not to use another."""
    made = []
    for name, factory in host.of("runtimes").items():
        with contextlib.suppress(UnavailableError):
            made.append(_make(host, name, factory))
    return made


def _make(host: PluginHost, name: str, factory: Callable[[], Runtime]) -> Runtime:
    """
    Raises:
        UnavailableError: the plugin's factory raised.
    """
    try:
        return factory()
    except (Exception, SystemExit) as error:
        raise UnavailableError(
            f"the runtime {name} cannot be used: {type(error).__name__}: {error}",
            remedy=f"It comes from the plugin {host.owner('runtimes', name).name}: edgeprof plugins check.",
        ) from error


def _named(host: PluginHost, name: str) -> Runtime:
    """
    Raises:
        InputError: no runtime has this name.
        UnavailableError: see ``_make``.
    """
    registered = host.of("runtimes")
    if name not in registered:
        raise unknown("runtime", name, registered)
    return _make(host, name, registered[name])


def choose_runtime(
    host: PluginHost, artifact: Artifact, named: Runtime | None = None, *, foreign_python: bool = False
) -> Runtime:
    """The runtime that loads an artifact: the one that was named, else the first that is here and takes the format.

    Args:
        host: The plugins.
        artifact: The model.
        named: ``--runtime``.
        foreign_python: The worker runs under another Python, so what is installed here says nothing.

    Raises:
        InputError: the runtime does not take this format.
        UnavailableError: none that takes it is installed; the remedy is the command that adds one.
    """
    if named is not None:
        if artifact.format not in named.formats:
            raise InputError(
                f"{artifact.spec} is {artifact.format}, which the runtime {named.name} does not load",
                remedy=f"It loads {', '.join(named.formats)}.",
            )
        able = [named]
    else:
        able = [r for r in _runtimes(host) if artifact.format in r.formats]
        able.sort(key=lambda r: r.formats.index(artifact.format))
    if not able:
        raise unsupported(artifact)
    reasons = []
    for runtime in able:
        status = runtime.availability()
        if status.reason is None or foreign_python:
            return runtime
        reasons.append((runtime.name, status))
    told = "; ".join(f"{runtime_name}: {status.reason}" for runtime_name, status in reasons)
    detail = f" ({artifact.detail})" if artifact.detail and artifact.format == "tensorrt" else ""
    raise UnavailableError(
        f"no runtime for {artifact.format}{detail} works here ({told})",
        remedy=next((status.remedy for _, status in reasons if status.remedy), None),
    )
