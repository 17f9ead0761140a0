"""The graph of a model, which the runtimes for its format read."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprof.compression.isolation import apart
from edgeprof.diagnosis.zeros import with_counted_zeros
from edgeprof.errors import InputError
from edgeprof.launch.choose import runtimes_for
from edgeprof.plugins import PluginHost
from edgeprof.worker import sandbox
from edgeprof.worker.graph import INTEGER, Graph, Layer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgeprof.artifact import Artifact
    from edgeprof.worker.runtime import Runtime

__all__ = ["INTEGER", "Graph", "Layer", "inspect_with", "read_graph"]

#: The time limit for reading a graph in a separate process (s).
_LIMIT_S = 120.0


def read_graph(artifact: Artifact, host: PluginHost | None = None) -> Graph | None:
    """Return the graph of a model as a runtime executes it (``inspect_with``); None if no runtime can read it."""
    return inspect_with(artifact, host or PluginHost.from_environment())[1]


def inspect_with(
    artifact: Artifact, host: PluginHost, inputs: Mapping[str, Any] | None = None
) -> tuple[Runtime | None, Graph | None]:
    """Return the first runtime that can read a model's graph, and the graph.

    Args:
        artifact: The model.
        host: The plugins.
        inputs: Input name → array, or its shape, for sizes that the file leaves open.

    The result is (None, None) if no runtime for this format can read graphs, if the library for it is not installed, or
    if the library does not support the version that wrote the model.

    Raises:
        InputError: The file is damaged.
    """
    failure: Exception | None = None
    for runtime in runtimes_for(host, artifact) if artifact.path is not None else []:
        try:
            graph = _inspect_in_worker(runtime, str(artifact.path), inputs or {})
        except ImportError:
            continue
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything on an arbitrary file
            failure = failure or error
            continue
        if graph is not None:
            return runtime, graph
    if failure is None:
        return None, None
    lines = str(failure).strip().splitlines()
    reason = f"{type(failure).__name__}: {lines[0][:200]}" if lines else type(failure).__name__
    raise InputError(
        f"the graph of {artifact.spec} cannot be read: {reason}", remedy="The file may be damaged: export it again."
    ) from failure


def _inspect_in_worker(runtime: Runtime, path: str, inputs: Mapping[str, Any]) -> Graph | None:
    work = functools.partial(runtime.inspect_with_inputs, path, dict(inputs))
    if not runtime.inspects_apart and not sandbox.is_asked_for():
        return work()

    def read() -> Graph | None:
        graph = work()
        return None if graph is None else with_counted_zeros(graph)

    try:
        return apart(read, label=Path(path).name, limit_s=_LIMIT_S)
    except Exception:
        if not runtime.inspects_apart:
            raise
        return None  # written by another version of the library, with operators that are missing here
