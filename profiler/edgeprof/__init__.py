"""edgeprof: what one inference of a model costs, in joules, on this device."""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing takes a tenth of the time of a start; type checkers know this name
if TYPE_CHECKING:
    from typing import Any

    from pluggy import HookimplMarker

    from edgeprof.library.bench import bench
    from edgeprof.library.recorder import measure, record
    from edgeprof.library.result import Result, compare, load
    from edgeprof.library.sensors import sensors
    from edgeprof.staging import stage
    from edgeprof.tracking import track
    from edgeprof.worker.pipeline import pipeline

    hookimpl: HookimplMarker

__version__ = "0.1.0"
__all__ = [
    "Result",
    "__version__",
    "bench",
    "compare",
    "hookimpl",
    "load",
    "measure",
    "pipeline",
    "record",
    "sensors",
    "stage",
    "track",
]

#: Name → its module. No module or folder beside this file may have such a name: importing it would replace the name.
_LIBRARY = {
    "Result": "edgeprof.library.result",
    "bench": "edgeprof.library.bench",
    "compare": "edgeprof.library.result",
    "load": "edgeprof.library.result",
    "measure": "edgeprof.library.recorder",
    "pipeline": "edgeprof.worker.pipeline",
    "record": "edgeprof.library.recorder",
    "sensors": "edgeprof.library.sensors",
    "stage": "edgeprof.staging",
    "track": "edgeprof.tracking",
}


def __getattr__(name: str) -> Any:
    # Lazy, since every start of the command line imports this module, and pluggy takes longer than the rest.
    if name == "hookimpl":
        import pluggy  # noqa: PLC0415

        globals()["hookimpl"] = marker = pluggy.HookimplMarker("edgeprof")
        return marker
    if name in _LIBRARY:
        import importlib  # noqa: PLC0415

        globals()[name] = value = getattr(importlib.import_module(_LIBRARY[name]), name)
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
