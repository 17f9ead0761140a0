"""edgeprof: what one inference of a model costs, in joules, on this device."""

from __future__ import annotations

TYPE_CHECKING = False  # typing's own costs a start of the command line a tenth of its time; checkers know this name
if TYPE_CHECKING:
    from typing import Any

    from pluggy import HookimplMarker

    from edgeprof.tracking import track

    hookimpl: HookimplMarker

__version__ = "0.1.0"
__all__ = ["__version__", "hookimpl", "track"]


def __getattr__(name: str) -> Any:
    # Lazy, because every start of the command line passes here and pluggy costs more than the rest of it.
    if name == "hookimpl":
        import pluggy  # noqa: PLC0415

        globals()["hookimpl"] = marker = pluggy.HookimplMarker("edgeprof")
        return marker
    if name == "track":
        from edgeprof.tracking import track  # noqa: PLC0415

        globals()["track"] = track
        return track
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
