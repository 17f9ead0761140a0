"""The daemon: it finds the sensors, samples them, answers scrapes, reloads its settings, and ends without loss."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprof import __version__
from edgeprof.errors import EdgeprofError, UnavailableError, unknown
from edgeprof.plugins import PluginHost
from edgeprof.roots import Roots
from edgeprof.sensing.device.power_mode import mode_and_governor
from edgeprof.sensing.discover import discover
from edgeprof_exporters import configuration as settings_of
from edgeprof_exporters import views
from edgeprof_exporters.control import Control
from edgeprof_exporters.engine import Engine
from edgeprof_exporters.exposition import Exposition, build_info
from edgeprof_exporters.hotplug import Hardware
from edgeprof_exporters.inferences import Inferences
from edgeprof_exporters.latest_results import LatestResults
from edgeprof_exporters.logs import LOG, event, setup
from edgeprof_exporters.notify import Notifier, inherited_sockets
from edgeprof_exporters.quotas import affordable_connections
from edgeprof_exporters.receiver import Receiver, group_id
from edgeprof_exporters.server import Server, listen
from edgeprof_exporters.stages import Stages, stage_folder
from edgeprof_exporters.state import NOT_OURS, state_file
from edgeprof_exporters.thrift.memory import few_arenas, give_back
from edgeprof_exporters.throttling import Throttling
from edgeprof_exporters.web import Web

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from prometheus_client.registry import Collector

    from edgeprof.plugins import Point
    from edgeprof.sensing.discover import Discovery
    from edgeprof_exporters.configuration import Settings
    from edgeprof_exporters.exposition import Samples

#: Intervals of housekeeping (s): of its loop, and of its tasks.
_TICK_S, _SETTLE_S, _THROTTLE_S, _BENCH_S, _LOOK_S, _RUNTIME_STATE_S = 0.5, 1.0, 5.0, 10.0, 3.0, 5.0
#: Interval at which the rings of stages are read (s).
_STAGES_S = 1.0
#: Interval at which free memory is returned to the system (s).
_MEMORY_S = 60.0
#: Longest time from SIGTERM to the end (s).
_END_S = 2.0
#: A sensor that was not read for this long (s) when hardware appeared is assumed to have come back.
_BEHIND_S = 2.0
#: Time for which a thread may compute before another one runs (s; Python's default is 5 ms). It is short, so that the
#: sampling threads do not wait for scrapes and reports.
_SWITCH_S = 0.001
#: Settings that a reload does not change.
_NEEDS_RESTART = (
    "web_listen_address",
    "web_systemd_socket",
    "web_max_connections",
    "track_socket",
    "control_socket",
    "control_group",
    "state_file",
    "state_interval_s",
)


class Daemon:
    """One exporter, from its settings to its end.

    Args:
        settings: The settings.
        reread: Loads the settings again, for SIGHUP.
        points: Entry points of the plugins that may register sensors.
    """

    def __init__(self, settings: Settings, reread: Callable[[], Settings], points: Sequence[Point]) -> None:
        self.settings = settings
        self._reread = reread
        self._points = points
        self.roots = Roots.resolve(settings.sampling_sysfs_root or None, settings.sampling_procfs_root or None)
        self.engine = Engine(settings.sampling_rate_hz, settings.sampling_bridge_s)
        self.inferences = Inferences(self.engine.history, settings.track_max_series)
        self.stages = Stages(None, settings.track_max_series)
        self.throttling = Throttling(self.roots)
        self.bench = LatestResults(Path(settings.bench_directory) if settings.bench_directory else None)
        self.notifier = Notifier()
        self.reload_good = True
        self._power_mode = ("", "")
        self._hurry = threading.Event()  # something to do before the next tick
        self._ending = threading.Event()
        self._reloading = threading.Event()
        self._problem: str | None = None
        self._guard: Any = None
        runtime = runtime_directory()
        self.state = state_file(settings.state_file, runtime)
        self._track_path = _socket_path(settings.track_socket, runtime, "track.sock")
        self._control_path = _socket_path(settings.control_socket, runtime, "control.sock")
        self._hardware = Hardware()
        self._web: Web | None = None
        self._server: Server | None = None
        self._receiver: Receiver | None = None
        self._control: Control | None = None
        self._found: Discovery | None = None

    # -- life ---------------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Run until SIGTERM or SIGINT, and return the exit code.

        Raises:
            EdgeprofError: the daemon cannot start, as when an address is in use or a setting is not valid.
        """
        few_arenas()
        sys.setswitchinterval(_SWITCH_S)
        self._signals()
        try:
            self.begin()
            self._keep_house()
        finally:
            self.end()
        return 0

    def begin(self) -> None:
        """Start to sample, listen and answer.

        Raises:
            EdgeprofError: see ``run``.
        """
        settings = self.settings
        self._guard = _guard(settings)
        discovery = self._discover()
        listeners = inherited_sockets() if settings.web_systemd_socket else listen(settings.web_listen_address)
        if not listeners:
            raise UnavailableError(
                "systemd passed no socket, but --web.systemd-socket asks for one",
                remedy="Add a .socket unit, or leave the flag out.",
            )
        most = affordable_connections(settings.web_max_connections)
        self._server = Server(listeners, self._make_web(), self._guard, most)
        self.resume()  # claims the state, so it comes after everything that may prevent the start, as a port in use
        self.engine.start(discovery)
        self.throttling.look()
        self._power_mode = mode_and_governor(self.roots)
        if self._track_path is not None:
            self._receiver = Receiver(self._track_path, self.inferences, settings.control_group)
            self._receiver.start()
            group = group_id(settings.control_group) if settings.control_group else None
            self.stages.watch(stage_folder(self._track_path, group))
            self.engine.listener = self.stages.hear
        if self._control_path is not None:
            self._control = Control(self._control_path, settings.control_group, self._commands())
            self._control.start()
        self._server.start()
        event(
            logging.INFO,
            "listening",
            addresses=",".join(self._server.addresses),
            tls=self._guard is not None and self._guard.context() is not None,
        )
        self.notifier.send("READY=1", f"STATUS={self._status()}")
        gc.collect()
        gc.freeze()  # the present objects stay, so later collections need not examine them
        give_back()

    def end(self) -> None:
        """Finish running answers, attribute the energy that is known, and write the state, within ``_END_S``."""
        begun = time.monotonic()
        self._ending.set()
        self.notifier.send("STOPPING=1")
        if self._server is not None:
            self._server.stop(drain_s=1.0)
        for part in (self._receiver, self._control):
            if part is not None:
                part.stop()
        self.engine.stop()
        now = time.monotonic()
        self.inferences.settle(now, self.engine.lock, all_of_them=True)
        self.stages.poll(now, self.engine.headline_channels)
        self.stages.close()
        if self._server is not None and self._server.is_begun:
            self.state.save(self.collect_state(), clean=True)
            event(logging.INFO, "ended", seconds=round(time.monotonic() - begun, 3))

    def _signals(self) -> None:
        def end(_number: int, _frame: object) -> None:
            self._ending.set()
            self._hurry.set()

        def reload(_number: int, _frame: object) -> None:
            self._reloading.set()
            self._hurry.set()

        signal.signal(signal.SIGTERM, end)
        signal.signal(signal.SIGINT, end)
        signal.signal(signal.SIGHUP, reload)

    def _keep_house(self) -> None:
        due = dict.fromkeys(
            ("settle", "stages", "throttle", "bench", "rescan", "runtime", "state", "watchdog", "memory"), 0.0
        )
        now = time.monotonic()
        due |= {
            "rescan": now + _LOOK_S,
            # The first write comes early, to find out soon whether the file can be written at all.
            "state": now + min(_RUNTIME_STATE_S, self.settings.state_interval_s),
            "runtime": now + _RUNTIME_STATE_S,
        }
        tasks: dict[str, tuple[float, Callable[[], None]]] = {
            "settle": (_SETTLE_S, lambda: self.inferences.settle(time.monotonic(), self.engine.lock)),
            "stages": (_STAGES_S, lambda: self.stages.poll(time.monotonic(), self.engine.headline_channels)),
            "throttle": (_THROTTLE_S, self._look_around),
            "bench": (_BENCH_S, self.bench.refresh),
            "rescan": (_LOOK_S, self._rescan_if_changed),
            "runtime": (_RUNTIME_STATE_S, lambda: self.state.save_runtime(self.collect_state())),
            "state": (self.settings.state_interval_s, lambda: self.state.save(self.collect_state(), clean=False)),
            "watchdog": (self.notifier.watchdog_s or 10.0, self._watch),
            "memory": (_MEMORY_S, give_back),
        }
        while not self._ending.is_set():
            self._hurry.wait(_TICK_S)
            self._hurry.clear()
            if self._reloading.is_set():
                self._reloading.clear()
                self.reload()
            now = time.monotonic()
            for name, (interval, task) in tasks.items():
                if now >= due[name] and not self._ending.is_set():
                    due[name] = now + interval
                    try:
                        task()
                    except Exception:  # noqa: BLE001 - one task that fails leaves the others alone
                        LOG.exception("housekeeping failed", extra={"fields": {"task": name}})

    # -- reload -------------------------------------------------------------------------------------------------------

    def reload(self) -> str | None:
        """Apply changed settings; return None, or the reason why none was applied."""
        self.notifier.send("RELOADING=1", f"MONOTONIC_USEC={int(time.monotonic() * 1e6)}")
        try:
            self._swap_settings(self._reread())
        except EdgeprofError as error:
            self.reload_good = False
            event(
                logging.ERROR, "reload refused; the old settings stay", reason=error.message, remedy=error.remedy or ""
            )
            return error.message
        except Exception as error:  # noqa: BLE001 - a reload must never end the daemon
            self.reload_good = False
            LOG.exception("reload failed; the old settings stay")
            return f"{type(error).__name__}: {error}"
        finally:
            self.notifier.send("READY=1", f"STATUS={self._status()}")
        self.reload_good = True
        event(logging.INFO, "reloaded")
        return None

    def _swap_settings(self, new: Settings) -> None:
        """Apply new settings: first everything that can fail, then everything that changes the daemon."""
        old = self.settings
        for name in _NEEDS_RESTART:
            if getattr(new, name) != getattr(old, name):
                event(logging.WARNING, "this setting needs a restart", setting=settings_of.key_of(name))
                new = replace(new, **{name: getattr(old, name)})
        guard = self._guard if new.web_config_file == old.web_config_file else _guard(new)
        if guard is not None and guard is self._guard:
            guard.reread()
        exposition = self._exposition(new)
        roots = Roots.resolve(new.sampling_sysfs_root or None, new.sampling_procfs_root or None)
        # Some meters do not allow two readers, so sampling pauses while sensors are looked for.
        self.engine.stop()
        before, self.roots = self.roots, roots
        try:
            discovery = self._discover(new)
        except BaseException:
            self.roots = before
            if self._found is not None:
                self.engine.start(self._found)
            raise
        self.settings, self._guard = new, guard
        setup(new.log_level, new.log_format)
        if self._server is not None and self._web is not None:
            self._server.guard = guard
            self._web.exposition = exposition
            self._web.telemetry_path = new.web_telemetry_path
            self._web.max_requests = new.web_max_requests
        self.inferences.most_series = self.stages.most_series = new.track_max_series
        self.throttling.roots = roots
        self._power_mode = mode_and_governor(roots)
        if new.bench_directory != old.bench_directory:
            self.bench.move(Path(new.bench_directory) if new.bench_directory else None)
        self.engine.rate_hz, self.engine.bridge_s = new.sampling_rate_hz, new.sampling_bridge_s
        self.engine.start(discovery)

    # -- sensors ------------------------------------------------------------------------------------------------------

    def _discover(self, settings: Settings | None = None) -> Discovery:
        """Find the sensors.

        Raises:
            InputError: a sensor or rail does not exist.
            UnavailableError: a rail cannot be read.
        """
        settings = settings or self.settings
        self._hardware.has_changed(
            self.roots
        )  # called first, so that hardware that appears meanwhile is seen next time
        host = PluginHost.from_environment(points=self._points)
        discovery = discover(host, self.roots, settings.sampling_sensors or None, settings.sampling_rail or None)
        for info in host.failures:
            event(logging.WARNING, "a plugin failed", plugin=info.name, reason=info.reason or "")
        for failure in discovery.failures:
            event(logging.WARNING, "a sensor source failed", source=failure.source, reason=failure.reason)
        headline = discovery.topology.headline
        if headline.channels:
            event(
                logging.INFO,
                "sampling",
                board=discovery.topology.board.name,
                rail=headline.rail,
                covers=headline.covers,
            )
        else:
            event(logging.WARNING, "nothing measures the whole device", reason=headline.reason or "")
        self._found = discovery
        return discovery

    def _rescan_if_changed(self) -> None:
        """Look for sensors again if hardware came or went, a sensor is lost, or nothing measures the device."""
        now = time.monotonic()
        is_whole = self.engine.total is not None and all(self.engine.is_up(name, now) for name in self.engine.known)
        # If the total stands still while its parts rise, sensors are looked for as after a change of the hardware.
        has_changed = self._hardware.has_changed(self.roots) or self.engine.is_standing_still()
        if not self._hardware.is_search_due(now, is_whole=is_whole) and not has_changed:
            return
        host = PluginHost.from_environment(points=self._points)
        discovery = discover(
            host, self.roots, self.settings.sampling_sensors or None, self.settings.sampling_rail or None
        )
        behind = {name for name in self.engine.known if not self.engine.is_up(name, now, within_s=_BEHIND_S)}
        returned = {sensor.name for sensor in discovery.sensors} & behind
        readable = {channel.key for channel in discovery.topology.channels if channel.available}
        new = readable - self.engine.watched
        # The open file of a chip that has gone may repeat its last value for ever, so such channels are removed. A
        # channel that is refused now (a charging battery, a counter that stands still) is removed too; it is no
        # failure.
        gone = self.engine.watched - readable if has_changed else set()
        if gone:
            names = {sensor for sensor, _, _ in gone}
            event(logging.WARNING, "sensors are gone or at rest", sensors=",".join(sorted(names)))
        if returned or new:
            names = returned | {sensor for sensor, _, _ in new}
            event(logging.INFO, "sensors found anew", sensors=",".join(sorted(names)))
        if returned or new or gone:
            self._found = discovery
            self.engine.start(discovery)

    def _look_around(self) -> None:
        self.throttling.look()
        self._power_mode = mode_and_governor(self.roots)

    # -- what is answered ---------------------------------------------------------------------------------------------

    def _make_web(self) -> Web:
        self._web = Web(
            self._exposition(self.settings),
            telemetry_path=self.settings.web_telemetry_path,
            max_requests=self.settings.web_max_requests,
            unhealthy=self.unhealthy,
            unready=self.unready,
            before_scrape=self._before_scrape,
        )
        return self._web

    def _exposition(self, settings: Settings) -> Exposition:
        from prometheus_client.process_collector import ProcessCollector  # noqa: PLC0415

        def process() -> Collector:
            return ProcessCollector(registry=None)

        sources: dict[str, Callable[[], Samples]] = {
            "power": lambda: views.power(self.engine),
            "device": lambda: views.device(self.engine, self.roots, self.throttling, self._power_mode),
            "inference": lambda: {
                **views.inference(self.inferences, self.engine),
                **views.stages(self.stages, self.engine),
            },
            "bench": self.bench.samples,
            "sampler": lambda: views.sampler(self.engine),
            "process": self._process,
        }
        for name in settings.collectors_exclude:
            if name not in sources:
                raise unknown("collector", name, sources)
            del sources[name]
        return Exposition(sources, [process] if "process" in sources else [])

    def _process(self) -> Samples:
        return {
            **build_info(__version__),
            **views.messages(self.inferences),
            "edgeprof_config_last_reload_success": [((), float(self.reload_good))],
        }

    def unhealthy(self) -> str | None:
        """Why the daemon is not healthy; None if it is."""
        return self.engine.stuck(time.monotonic())

    def unready(self) -> str | None:
        """Why there is nothing to scrape; None if there is."""
        if self._ending.is_set():
            return "the daemon is ending"
        return None if self.engine.ready else "no plausible sample was read yet"

    def _before_scrape(self) -> None:
        if self.state.copy is not None:
            self.state.save_runtime(self.collect_state())

    # -- state, watchdog, control -------------------------------------------------------------------------------------

    def collect_state(self) -> dict[str, Any]:
        """The state from which a later daemon resumes."""
        return {
            "engine": self.engine.state(),
            "inferences": self.inferences.state(),
            "stages": self.stages.state(),
            "throttling": self.throttling.seen()[0],
        }

    def resume(self) -> None:
        """Resume from the last daemon's state, if there is one that can be trusted."""
        saved, same_boot = self.state.load()
        if saved is None:
            return
        now = time.monotonic() if same_boot else None
        try:
            self.engine.resume(saved["engine"], now)
            self.inferences.resume(saved["inferences"])
            self.stages.resume(saved.get("stages", []))  # earlier versions stored no stages
            self.throttling.resume(saved["throttling"])
        except NOT_OURS as error:
            # All or nothing: counters from different times would be worse than counters from zero.
            self.engine = Engine(self.settings.sampling_rate_hz, self.settings.sampling_bridge_s)
            self.inferences = Inferences(self.engine.history, self.settings.track_max_series)
            self.stages = Stages(None, self.settings.track_max_series)
            self.throttling = Throttling(self.roots)
            event(logging.WARNING, "the state is not ours; counters begin at zero", error=str(error))
        else:
            event(logging.INFO, "counters go on", same_boot=now is not None)

    def _watch(self) -> None:
        problem = self.unhealthy()
        if problem != self._problem:
            level = logging.ERROR if problem else logging.INFO
            event(level, "not well" if problem else "well again", reason=problem or "")
            self._problem = problem
        if problem is None and (self._server is None or self._server.is_alive):
            self.notifier.send("WATCHDOG=1", f"STATUS={self._status()}")

    def _status(self) -> str:
        watts = self.engine.watts(time.monotonic())
        addresses = ", ".join(self._server.addresses) if self._server else ""
        missing = "no power sensor" if self.engine.total is None else "no reading yet"
        return f"{addresses}; {missing if watts is None else f'{watts:.2f} W'}"

    def _commands(self) -> Mapping[str, Callable[[], Any]]:
        def reload() -> str:
            self._reloading.set()
            self._hurry.set()
            return "reloading; edgeprof_config_last_reload_success tells how it went"

        def status() -> dict[str, Any]:
            return {
                "version": __version__,
                "pid": os.getpid(),
                "addresses": self._server.addresses if self._server else [],
                "unhealthy": self.unhealthy(),
                "unready": self.unready(),
                "sensors": {name: self.engine.is_up(name, time.monotonic()) for name in self.engine.known},
                "power_w": self.engine.watts(time.monotonic()),
                "models": self.inferences.counts(time.monotonic(), self.engine.lock),
                "reload_good": self.reload_good,
            }

        return {"status": status, "reload": reload}


def runtime_directory() -> Path | None:
    """The folder of the sockets: systemd's, root's /run/edgeprof, or the user's; None if there is no such folder."""
    given = os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    if given:
        return Path(given)
    if os.geteuid() == 0:
        path = Path("/run/edgeprof")
    elif os.environ.get("XDG_RUNTIME_DIR"):
        path = Path(os.environ["XDG_RUNTIME_DIR"]) / "edgeprof"
    else:
        return None
    with contextlib.suppress(OSError):
        path.mkdir(mode=0o755, exist_ok=True)
        return path
    return None


def _socket_path(setting: str, runtime: Path | None, name: str) -> Path | None:
    if setting != "auto":
        return Path(setting) if setting else None
    return None if runtime is None else runtime / name


def _guard(settings: Settings) -> Any:
    """Load the web configuration, which says who may ask; None without one.

    Raises:
        InputError: the file does not have the required format.
    """
    if not settings.web_config_file:
        return None
    from edgeprof_exporters.webconfig import WebConfig  # noqa: PLC0415 - YAML and bcrypt, where they are used

    return WebConfig(Path(settings.web_config_file))
