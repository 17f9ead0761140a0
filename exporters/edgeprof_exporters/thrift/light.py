"""Import libraries without the parts that the daemon never uses, since it runs for months and must stay small.

The package of prometheus-client imports an HTTP server and a push client, which import ssl, http and e-mail. Its
metrics and encoders need none of these modules, so stand-ins take their place during the import. PyYAML is imported
only while a configuration file is read, and removed from memory afterwards.
"""

from __future__ import annotations

import contextlib
import gc
import sys
import threading
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_LEFT_OUT = ("http.server", "ssl", "urllib.error", "urllib.request", "wsgiref.simple_server")


class _StandIn(types.ModuleType):
    """A module in which every name is a class that cannot be instantiated."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {"__init__": _refuse})


def _refuse(self: object, *_args: object, **_named: object) -> None:
    raise RuntimeError(f"{type(self).__name__} is left out of the exporter's process")


def import_client() -> None:
    """Import prometheus-client without its HTTP server, or as a whole if its release does not allow that.

    Modules that are imported later get the real ssl, http and so on. Call this before other threads run, since it
    changes ``sys.modules`` for the time of the import.

    Raises:
        ImportError: prometheus-client is not installed.
    """
    if "prometheus_client" in sys.modules:
        return
    absent = [name for name in _LEFT_OUT if name not in sys.modules]
    sys.modules.update({name: _StandIn(name) for name in absent})
    try:
        with contextlib.suppress(Exception):  # another release may use more of the stand-ins than their names
            import prometheus_client  # noqa: PLC0415
    finally:
        for name in absent:
            del sys.modules[name]
    if "prometheus_client" not in sys.modules:
        for name in [name for name in sys.modules if name.startswith("prometheus_client.")]:
            del sys.modules[name]
        import prometheus_client  # noqa: F401, PLC0415


_BORROWING = threading.Lock()


@contextlib.contextmanager
def borrowed_yaml() -> Iterator[Any]:
    """Import PyYAML for reading one file, without libyaml, and remove it from memory afterwards.

    Raises:
        ImportError: PyYAML is not installed.
    """
    with _BORROWING:
        if "yaml" in sys.modules:  # other code has imported it and may keep references: leave it there
            yield sys.modules["yaml"]
            return
        modules: dict[str, Any] = sys.modules
        # A None in sys.modules makes ``import`` raise ImportError: PyYAML then goes on without libyaml, whose C loader
        # edgeprof does not use.
        modules["yaml.cyaml"] = None
        try:
            import yaml  # noqa: PLC0415

            yield yaml
            del yaml
        finally:
            for name in [name for name in sys.modules if name.partition(".")[0] == "yaml"]:
                del sys.modules[name]
            gc.collect()
