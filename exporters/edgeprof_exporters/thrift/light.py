"""Libraries without what the daemon, which holds them for months, does not need of them.

prometheus-client's package imports an HTTP server and pushes, and with them ssl, http and e-mail. So while it is
imported those modules are stand-ins; its metrics and encoders need none of them. PyYAML is there while a file is read.
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
    """A module whose every name is a class of which nothing can be made."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {"__init__": _refuse})


def _refuse(self: object, *_args: object, **_named: object) -> None:
    raise RuntimeError(f"{type(self).__name__} is left out of the exporter's process")


def import_client() -> None:
    """Import prometheus-client without its server; with it, where it cannot be had without.

    What is imported later gets the real modules. Before other threads run.

    Raises:
        ImportError: it is not installed.
    """
    if "prometheus_client" in sys.modules:
        return
    absent = [name for name in _LEFT_OUT if name not in sys.modules]
    sys.modules.update({name: _StandIn(name) for name in absent})
    try:
        with contextlib.suppress(Exception):  # a release that needs more of them than their names
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
    """PyYAML for one reading: without libyaml, whose loader nobody asks for, and out of memory again afterwards.

    Raises:
        ImportError: it is not installed.
    """
    with _BORROWING:
        if "yaml" in sys.modules:  # of somebody who keeps it
            yield sys.modules["yaml"]
            return
        modules: dict[str, Any] = sys.modules
        modules["yaml.cyaml"] = None  # which to Python is what cannot be imported
        try:
            import yaml  # noqa: PLC0415

            yield yaml
            del yaml
        finally:
            for name in [name for name in sys.modules if name.partition(".")[0] == "yaml"]:
                del sys.modules[name]
            gc.collect()
