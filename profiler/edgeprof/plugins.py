"""Load plugins so that a faulty one is reported by name and does not affect the others.

Built-ins come by the same door as everybody else's: the entry-point group ``edgeprof``. Each distribution's list is
read, each entry point loaded and each hook called in a try of its own; what goes wrong is written into that plugin's
``PluginInfo`` and everything that it had registered until then is taken back.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import pluggy

from edgeprof import hookspecs
from edgeprof.entry_points import GROUP, EntryPoint, installed
from edgeprof.errors import unknown
from edgeprof.worker import telemetry

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    import click

#: hook → the key of ``registers`` in ``edgeprof plugins list --json``
KINDS = {
    "register_sensors": "sensors",
    "register_runtimes": "runtimes",
    "register_compressors": "compressors",
    "register_metrics": "metrics",
    "register_datasets": "datasets",
    "register_reporters": "reporters",
    "register_exporters": "exporters",
    "register_searches": "searches",
    "register_commands": "commands",
}


class Point(Protocol):
    """What the host asks of an entry point, as edgeprof.entry_points and importlib.metadata have it."""

    @property
    def name(self) -> str: ...
    @property
    def dist(self) -> _Distribution | None: ...
    def load(self) -> Any: ...


class _Distribution(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...


@dataclass
class PluginInfo:
    """One entry point of the group ``edgeprof`` and what became of it.

    Attributes:
        registers: Kind (``sensors``, ``runtimes`` …) → the names registered under it.
        status: ``loaded``, ``failed`` (with nothing left registered) or ``skipped`` (by EDGEPROF_PLUGINS).
        reason: Why not ``loaded``, in one sentence.
        seconds: How long import and registration took; a plugin that is slow here slows every command.
    """

    name: str
    distribution: str
    version: str
    registers: dict[str, list[str]] = field(default_factory=lambda: {kind: [] for kind in KINDS.values()})
    status: str = "loaded"
    reason: str | None = None
    seconds: float = 0.0


class _RefusedError(ValueError):
    """What a plugin does that the host does not accept; its text is shown as it is."""


class PluginHost:
    """All plugins, loaded one by one, each in its own try.

    Args:
        entry_points: The entry points to load; those of the group ``edgeprof`` by default.
        only: Names to restrict loading to (``EDGEPROF_PLUGINS``); None loads all, an empty set none.
    """

    def __init__(
        self,
        entry_points: Iterable[Point] | None = None,
        only: Iterable[str] | None = None,
    ) -> None:
        telemetry.turn_off()  # before any plugin can load a library
        self.manager = pluggy.PluginManager("edgeprof")
        self.manager.add_hookspecs(hookspecs)
        self.plugins: list[PluginInfo] = []
        self._modules: dict[str, object] = {}
        self._registry: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS.values()}
        only = None if only is None else set(only)
        points = list(self._installed_entry_points() if entry_points is None else entry_points)
        for point in sorted(points, key=lambda p: p.name):
            self._load_plugin(point, only)
        for name in sorted((only or set()) - {point.name for point in points}):
            near = _nearest(name, [point.name for point in points], 0.6)
            reason = "EDGEPROF_PLUGINS names it, but no installed plugin is called so"
            reason += f"; did you mean {near[0]}?" if near else ""
            self.plugins.append(PluginInfo(name, "?", "?", status="failed", reason=reason))

    @classmethod
    def from_environment(
        cls,
        environ: Mapping[str, str] | None = None,
        points: Iterable[Point] | None = None,
    ) -> PluginHost:
        """All installed plugins, or those that ``EDGEPROF_PLUGINS`` names.

        Args:
            environ: ``os.environ`` by default.
            points: Some of the entry points only; those that the environment names beside them are passed over.
        """
        environ = os.environ if environ is None else environ
        wanted = environ.get("EDGEPROF_PLUGINS")
        only = None if wanted is None else [n.strip() for n in wanted.split(",") if n.strip()]
        if points is not None and only is not None:
            points = list(points)
            only = [name for name in only if name in {point.name for point in points}]
        return cls(points, only)

    @property
    def failures(self) -> list[PluginInfo]:
        return [info for info in self.plugins if info.status == "failed"]

    def of(self, kind: str) -> Mapping[str, Any]:
        """What is registered under ``kind`` (``sensors``, ``runtimes`` …): name → factory."""
        return self._registry[kind]

    def owner(self, kind: str, name: str) -> PluginInfo:
        """The plugin that registered ``name``; KeyError if nobody did."""
        for info in self.plugins:
            if name in info.registers[kind]:
                return info
        raise KeyError(name)

    def get(self, kind: str, name: str) -> Any:
        """The factory of that name.

        Raises:
            InputError: there is none; the nearest name and any plugin that failed to load are in the remedy.
        """
        try:
            return self._registry[kind][name]
        except KeyError:
            error = unknown(kind.removesuffix("s"), name, self._registry[kind])
            if self.failures:
                error.remedy = f"{error.remedy} {self.failure_hint()}"
            raise error from None

    def udev_rules(self) -> dict[str, str]:
        """Plugin → the udev rule that would let its sensor be read without root (``UDEV_RULE`` of its module)."""
        rules = {name: getattr(module, "UDEV_RULE", None) for name, module in self._modules.items()}
        return {name: rule for name, rule in rules.items() if isinstance(rule, str)}

    def failure_hint(self) -> str:
        """One sentence that names the plugins that failed; empty if none did."""
        if not self.failures:
            return ""
        names = ", ".join(info.name for info in self.failures)
        return f"(Failed to load: {names}; see edgeprof plugins list.)"

    def register(self, module: object, info: PluginInfo) -> None:
        """Take in an already imported plugin. Whatever it does wrong is written into ``info``."""
        self.plugins.append(info)
        with self._blamed_on(info):
            self._refuse_twins(module, info)
            _refuse_misspelt(module)
            self._modules[info.name] = module
            self.manager.register(module, name=info.name)
            self.manager.check_pending()
            for hook, impl in self._implementations(module):
                if hook != "register_commands":
                    _call_hook(hook, impl, register=self._make_registrar(KINDS[hook], info))

    def commands(self, reserved: Collection[str] = ()) -> Mapping[str, click.Command]:
        """The verbs that plugins add (``register_commands``), asked for only when somebody needs them.

        Each plugin fills a group of its own, so that one that fails half-way leaves nothing behind.

        Args:
            reserved: Verbs that a plugin must not take: edgeprof's own.
        """
        import click  # noqa: PLC0415 - only this hook needs it

        for info in list(self.plugins):
            if info.status != "loaded" or info.registers["commands"]:
                continue
            with self._blamed_on(info):
                for hook, impl in self._implementations(self._modules[info.name]):
                    if hook != "register_commands":
                        continue
                    group = click.Group()
                    _call_hook(hook, impl, cli=group)
                    for name, command in group.commands.items():
                        if name in reserved:
                            raise _RefusedError(f"the command {name!r} is edgeprof's own")
                        self._make_registrar("commands", info)(name, command)
        return self._registry["commands"]

    def _installed_entry_points(self) -> Iterator[Point]:
        """The entry points of all distributions; one with unreadable metadata is named and passed over."""

        def named(name: str, reason: str) -> None:
            self.plugins.append(PluginInfo(name, name, "?", status="failed", reason=reason))

        return installed(named)

    def _load_plugin(self, point: Point, only: set[str] | None) -> None:
        dist = point.dist
        info = PluginInfo(point.name, dist.name if dist else "?", dist.version if dist else "?")
        if only is not None and point.name not in only:
            info.status, info.reason = "skipped", "not named in EDGEPROF_PLUGINS"
            self.plugins.append(info)
            return
        module: object = None
        with self._blamed_on(info):
            module = point.load()
        if info.status == "failed":
            self.plugins.append(info)
        else:
            self.register(module, info)

    @contextlib.contextmanager
    def _blamed_on(self, info: PluginInfo) -> Iterator[None]:
        """Whatever is raised inside, SystemExit included, becomes this plugin's failure and takes its names back.

        What a plugin prints goes to stderr: stdout belongs to ``--json``.
        """
        started = time.monotonic()
        try:
            with contextlib.redirect_stdout(sys.stderr):
                yield
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - a plugin may raise anything; it must not take the host down
            info.status, info.reason = "failed", _error_sentence(error)
            for kind, names in info.registers.items():
                for name in names:
                    del self._registry[kind][name]
                names.clear()
            module = self._modules.pop(info.name, None)
            if module is not None and self.manager.is_registered(module):
                self.manager.unregister(module)
        finally:
            info.seconds += time.monotonic() - started

    def _refuse_twins(self, module: object, info: PluginInfo) -> None:
        for other in self.plugins:
            if other is info or other.name not in self._modules:
                continue
            if other.name == info.name:
                raise _RefusedError(
                    f"a plugin of this name is already loaded from the distribution {other.distribution}"
                )
            if self._modules[other.name] is module:
                raise _RefusedError(f"it is the same module as the plugin {other.name}")

    def _implementations(self, module: object) -> list[tuple[str, pluggy.HookImpl]]:
        """The hooks that this plugin marks with ``@hookimpl``, and only those."""
        return [
            (hook, impl)
            for hook in KINDS
            for impl in getattr(self.manager.hook, hook).get_hookimpls()
            if impl.plugin is module
        ]

    def _make_registrar(self, kind: str, info: PluginInfo) -> hookspecs.Register:
        def register(name: Any, factory: Any, /) -> None:
            if not isinstance(name, str) or name.split() != [name]:
                raise _RefusedError(f"register({name!r}, …): a name is a text without spaces")
            if not callable(factory):
                raise _RefusedError(f"register({name!r}, …) got {factory!r}, which cannot be called")
            if name in self._registry[kind]:
                owner = self.owner(kind, name)
                raise _RefusedError(f"the {kind.removesuffix('s')} {name!r} is already registered by {owner.name}")
            self._registry[kind][name] = factory
            info.registers[kind].append(name)

        return register


def points_of(*names: str) -> list[EntryPoint]:
    """The installed entry points of these names, without loading any."""
    return [point for point in installed() if point.name in names]


def sensor_points() -> list[EntryPoint]:
    """The installed entry points that may bring sensors, without loading any.

    Everybody's, but those of edgeprof itself that bring something else: their imports are most of the memory and of the
    start of a command that only reads sensors.
    """
    ours = ("edgeprof_plugins.", "edgeprof_exporters", "edgeprof_dashboards")
    return [
        point
        for point in installed()
        if not point.value.startswith(ours) or point.value.startswith("edgeprof_plugins.sensors.")
    ]


def _call_hook(hook: str, impl: pluggy.HookImpl, **arguments: Any) -> None:
    if impl.hookwrapper or impl.wrapper:
        raise _RefusedError(f"{hook} is a hook wrapper; a hook of edgeprof only registers")
    if not impl.argnames:
        raise _RefusedError(f"{hook} takes no argument; it needs {', '.join(arguments)} to register with")
    impl.function(**{name: arguments[name] for name in impl.argnames})


def _refuse_misspelt(module: object) -> None:
    """A hook that is misspelt or not marked must not pass in silence; pluggy sees marked functions only."""
    for name, function in _routines(module):
        mark = getattr(function, f"{GROUP}_impl", None)
        if isinstance(mark, dict):
            hook = mark.get("specname") or name
            if hook not in KINDS and not mark.get("optionalhook"):
                near = _nearest(hook, KINDS, 0.6)
                raise _RefusedError(
                    f"{hook} is no hook; " + (f"did you mean {near[0]}?" if near else _hooks_sentence())
                )
        elif name in KINDS:
            raise _RefusedError(f"{name} is not marked with @hookimpl")
        elif getattr(function, "__module__", None) == getattr(module, "__name__", "") and _takes_a_registrar(function):
            near = _nearest(name, KINDS, 0.85)
            if near:
                raise _RefusedError(f"{name} is no hook; did you mean {near[0]}, marked with @hookimpl?")


def _routines(module: object) -> Iterator[tuple[str, Any]]:
    """The functions of a module by name. What cannot be called is passed over before inspect looks at it for long."""
    for name in dir(module):
        value = getattr(module, name, None)
        if callable(value) and not isinstance(value, type) and inspect.isroutine(value):
            yield name, value


def _takes_a_registrar(function: Any) -> bool:
    """Whether a function has the argument of a hook; names are compared only of those, since it takes long."""
    code = getattr(function, "__code__", None)
    return code is not None and not {"register", "cli"}.isdisjoint(code.co_varnames[: code.co_argcount])


def _nearest(name: str, names: Iterable[str], cutoff: float) -> list[str]:
    """The most similar one of the names, if its ratio of similarity is at least ``cutoff``."""
    import difflib  # noqa: PLC0415 - only for a name that is wrong

    return difflib.get_close_matches(name, names, n=1, cutoff=cutoff)


def _hooks_sentence() -> str:
    return f"the hooks are {', '.join(KINDS)}"


def _error_sentence(error: BaseException) -> str:
    """What went wrong in a plugin, in one line."""
    if isinstance(error, _RefusedError):
        return str(error)
    if isinstance(error, SystemExit):
        return f"it called sys.exit({error.code!r})"
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
