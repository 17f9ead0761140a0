"""Choose the runtime that loads a model, among those that plugins register and the one that the user names."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from edgeprof.artifact import Artifact, gguf, recognise, unsupported
from edgeprof.errors import InputError, UnavailableError, unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edgeprof.plugins import PluginHost
    from edgeprof.worker.runtime import Runtime


def own_formats(host: PluginHost) -> dict[str, tuple[int, bytes]]:
    """The formats that plugins' runtimes recognise themselves."""
    return {name: mark for runtime in _usable_runtimes(host) for name, mark in runtime.own_formats.items()}


def examine(spec: str, formats: Mapping[str, tuple[int, bytes]]) -> tuple[Artifact, InputError | None]:
    """Recognise one of several models; a file that is no model gets the format ``unknown`` and a reason.

    Raises:
        InputError: there is no such file, which is taken for a typing error.
    """
    try:
        return recognise(spec, formats), None
    except InputError as error:
        if not os.path.isfile(os.path.expanduser(spec)):  # noqa: PTH111, PTH113 - Path raises where a folder is closed
            raise
        path = Path(spec).expanduser()
        return Artifact(spec, path, str(path.resolve()), format="unknown", size_bytes=None, sha256=None), error


def _usable_runtimes(host: PluginHost) -> list[Runtime]:
    """All runtimes that can be made; a plugin whose factory fails does not prevent the use of others."""
    runtimes = []
    for name, factory in host.of("runtimes").items():
        with contextlib.suppress(UnavailableError):
            runtimes.append(_make_runtime(host, name, factory))
    return runtimes


def _make_runtime(host: PluginHost, name: str, factory: Callable[[], Runtime]) -> Runtime:
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


def named_runtime(host: PluginHost, name: str) -> Runtime:
    """
    Raises:
        InputError: no runtime has this name.
        UnavailableError: see ``_make_runtime``.
    """
    registered = host.of("runtimes")
    if name not in registered:
        raise unknown("runtime", name, registered)
    return _make_runtime(host, name, registered[name])


def runtimes_for(host: PluginHost, artifact: Artifact) -> list[Runtime]:
    """The runtimes for an artifact's format, installed or not, ordered by how early they list that format."""
    able = [runtime for runtime in _usable_runtimes(host) if artifact.format in runtime.formats]
    return sorted(able, key=lambda runtime: runtime.formats.index(artifact.format))


def _require_language_model(artifact: Artifact) -> None:
    """
    Raises:
        InputError: a GGUF file is whole, and yet there is nothing in it to run.
    """
    lack = gguf.shortcoming(gguf.read_model(artifact.files))
    if lack is not None:
        raise InputError(f"{artifact.spec} {lack}", remedy="Give the GGUF file of a whole model.")


def choose_runtime(
    host: PluginHost, artifact: Artifact, named: Runtime | None = None, *, foreign_python: bool = False
) -> Runtime:
    """Choose the runtime of an artifact: the named one, or else the first installed one for its format.

    Args:
        host: The plugins.
        artifact: The model.
        named: ``--runtime``.
        foreign_python: Whether the worker runs under another Python, so that libraries need not be installed here.

    Raises:
        InputError: the runtime does not take this format.
        UnavailableError: none that takes it is installed; the remedy is the command that adds one.
    """
    if artifact.format == "gguf":
        _require_language_model(artifact)
    if named is not None:
        if artifact.format not in named.formats:
            raise InputError(
                f"{artifact.spec} is {artifact.format}, which the runtime {named.name} does not load",
                remedy=f"It loads {', '.join(named.formats)}.",
            )
        able = [named]
    else:
        able = runtimes_for(host, artifact)
    if not able:
        raise unsupported(artifact, [name for runtime in _usable_runtimes(host) for name in runtime.formats])
    reasons = []
    for runtime in able:
        status = runtime.availability()
        if status.reason is None or foreign_python:
            return runtime
        reasons.append((runtime.name, status))
    explanations = "; ".join(f"{runtime_name}: {status.reason}" for runtime_name, status in reasons)
    detail = f" ({artifact.detail})" if artifact.detail and artifact.format == "tensorrt" else ""
    raise UnavailableError(
        f"no runtime for {artifact.format}{detail} works here ({explanations})",
        remedy=next((status.remedy for _, status in reasons if status.remedy), None),
    )
