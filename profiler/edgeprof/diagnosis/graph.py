"""The graph of a model, read by the runtimes that load its format."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from edgeprof.compression.isolation import apart
from edgeprof.launch.choose import runtimes_for
from edgeprof.plugins import PluginHost
from edgeprof.worker.graph import INTEGER, Graph, Layer

if TYPE_CHECKING:
    from edgeprof.artifact import Artifact
    from edgeprof.worker.runtime import Runtime

__all__ = ["INTEGER", "Graph", "Layer", "inspect_with", "read_graph"]

#: Seconds that reading a graph in a process of its own may take.
_LIMIT_S = 120.0


def read_graph(artifact: Artifact, host: PluginHost | None = None) -> Graph | None:
    """The graph of a model as a runtime executes it (``inspect_with``); None where no runtime can tell."""
    return inspect_with(artifact, host or PluginHost.from_environment())[1]


def inspect_with(artifact: Artifact, host: PluginHost) -> tuple[Runtime | None, Graph | None]:
    """The first runtime that can tell what a model computes, and the graph.

    None and None: no runtime of this format can tell, or the library that it reads with is not installed, or the model
    was written by a version of it that this one does not read.
    """
    if artifact.path is None:
        return None, None
    for runtime in runtimes_for(host, artifact):
        inspect = functools.partial(runtime.inspect, str(artifact.path))
        try:
            graph = apart(inspect, label=artifact.path.name, limit_s=_LIMIT_S) if runtime.inspects_apart else inspect()
        except Exception:  # noqa: BLE001, S112 - a plugin's code on anybody's file: as a model that nothing reads
            continue
        if graph is not None:
            return runtime, graph
    return None, None
