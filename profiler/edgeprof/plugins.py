"""Loading plugins so that a bad one is named and costs nobody else anything."""

from __future__ import annotations

import importlib.metadata
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pluggy

from edgeprof import hookspecs
from edgeprof.errors import unknown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

GROUP = "edgeprof"

#: hook → the key of ``registers`` in ``edgeprof plugins list --json``
KINDS = {
    "register_sensors": "sensors",
    "register_runtimes": "runtimes",
    "register_compressors": "compressors",
    "register_metrics": "metrics",
    "register_datasets": "datasets",
    "register_reporters": "reporters",
    "register_exporters": "exporters",
    "register_commands": "commands",
}


@dataclass
class PluginInfo:
    """One entry point of the group ``edgeprof`` and what became of it."""

    name: str
    distribution: str
    version: str
    registers: dict[str, list[str]] = field(default_factory=lambda: {kind: [] for kind in KINDS.values()})
    status: str = "loaded"
    reason: str | None = None


class PluginHost:
    """All plugins, loaded one by one, each in its own try.

    Args:
        entry_points: The entry points to load; those of the group ``edgeprof`` by default.
        only: Names to restrict loading to (``EDGEPROF_PLUGINS``); None loads all, an empty set none.
    """

    def __init__(
        self,
        entry_points: Iterable[importlib.metadata.EntryPoint] | None = None,
        only: Iterable[str] | None = None,
    ) -> None:
        self.manager = pluggy.PluginManager("edgeprof")
        self.manager.add_hookspecs(hookspecs)
        self.plugins: list[PluginInfo] = []
        self._registry: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS.values()}
        only = None if only is None else set(only)
        if entry_points is None:
            entry_points = importlib.metadata.entry_points(group=GROUP)
        for point in sorted(entry_points, key=lambda p: p.name):
            self._load(point, only)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> PluginHost:
        """All installed plugins, or those that ``EDGEPROF_PLUGINS`` names."""
        environ = os.environ if environ is None else environ
        wanted = environ.get("EDGEPROF_PLUGINS")
        return cls(only=None if wanted is None else [n.strip() for n in wanted.split(",") if n.strip()])

    def of(self, kind: str) -> Mapping[str, Any]:
        """What is registered under ``kind`` (``sensors``, ``runtimes`` …): name → factory."""
        return self._registry[kind]

    def get(self, kind: str, name: str) -> Any:
        """The factory of that name.

        Raises:
            InputError: there is none; the nearest name is in the remedy.
        """
        try:
            return self._registry[kind][name]
        except KeyError:
            raise unknown(kind.removesuffix("s"), name, self._registry[kind]) from None

    def register(self, module: object, info: PluginInfo) -> None:
        """Take in an already imported plugin. Whatever it does wrong is written into ``info``."""
        self.plugins.append(info)
        try:
            self.manager.register(module, name=info.name)
            self.manager.check_pending()
            for hook, kind in KINDS.items():
                function = getattr(module, hook, None)
                if function is None or kind == "commands":
                    continue
                function(register=self._registrar(kind, info))
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything; it must not take the host down
            info.status, info.reason = "failed", f"{type(error).__name__}: {error}"
            for kind, names in info.registers.items():
                for name in names:
                    del self._registry[kind][name]
                names.clear()
            if self.manager.has_plugin(info.name):
                self.manager.unregister(name=info.name)

    def _registrar(self, kind: str, info: PluginInfo) -> hookspecs.Register:
        def register(name: str, factory: Any, /) -> None:
            if not callable(factory):
                raise TypeError(f"register({name!r}, …) got {factory!r}, which cannot be called")
            if name in self._registry[kind]:
                raise ValueError(f"the {kind.removesuffix('s')} {name!r} is already registered by another plugin")
            self._registry[kind][name] = factory
            info.registers[kind].append(name)

        return register

    def _load(self, point: importlib.metadata.EntryPoint, only: set[str] | None) -> None:
        dist = point.dist
        info = PluginInfo(point.name, dist.name if dist else "?", dist.version if dist else "?")
        if only is not None and point.name not in only:
            info.status, info.reason = "skipped", "not named in EDGEPROF_PLUGINS"
            self.plugins.append(info)
            return
        try:
            module = point.load()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - see register
            info.status, info.reason = "failed", f"{type(error).__name__}: {error}"
            self.plugins.append(info)
            return
        self.register(module, info)
