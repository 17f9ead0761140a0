"""A live virtual board: a sysfs tree whose rails change like the registers of the real parts.

The files are refreshed as often as the real part has a new value, but at most once per ``MIN_TICK_S``. An INA3221 with
a cycle of 0.84 ms and RAPL with 1 ms are therefore refreshed every 5 ms, with all cycles in between computed; only the
values that a faster reader would see in between are missing. The cost is 1 to 3 % of a core, mostly for waking up.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgeprof.errors import InputError, UnavailableError, unknown
from edgeprof.roots import SIMULATION_MARKER, Roots
from edgeprof.sensing.files import number_of
from edgeprof.simulation.board_specs import BOARDS
from edgeprof.simulation.chip import BlockAverage, Converter, EnergyCounter, Ina3221
from edgeprof.simulation.layouts import build
from edgeprof.simulation.registers import Registers
from edgeprof.simulation.source import Load, Script, Source, machine_busy
from edgeprof.simulation.truth import LOG, TruthLog
from edgeprof.simulation.waveform import Waveform, constant

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from edgeprof.simulation.tree import Layout, RailFiles

MIN_TICK_S = 0.005
#: The interval between lines of the truth while no level jumps, and between flushes of its file, s.
LOG_S, FLUSH_S = 0.1, 0.5
#: 16 averages of 1052 µs, three quantities each (drivers/hwmon/ina238.c: ADC_CONFIG 0xfb6a).
_INA238_PERIOD_S = 16 * 1052e-6 * 3
_PMIC_STEP_A = 0.00097585
_RAPL_STEP_J = 2.0**-14


@dataclass
class _Rail:
    """One simulated rail: its true power is ``base + gain × level``, with the level of its source."""

    files: RailFiles
    source: Source
    base: float
    gain: float
    start: float = 0.0
    converter: Converter = field(init=False)

    def watts(self, time: float) -> float:
        return self.base + self.gain * self.source.level(time)

    def joules(self, time: float) -> float:
        return self.base * (time - self.start) + self.gain * self.source.integral(time)


class LiveBoard:
    """A virtual board that a thread simulates.

    Args:
        board: A name that ``layouts.build`` knows.
        directory: The directory for its tree; it must be empty, absent, or that of an earlier virtual board.
        source: What the power follows: None for the CPU load of this machine (each rail moves between its typical idle
            and full-load power); a ``Source``; a waveform of the board's total in watts, of which each rail takes its
            share at full load; or waveforms by rail, while the other rails stay idle.
        seed: The seed of the noise on the load.

    Raises:
        InputError: There is no such board or rail, or the directory holds something else.
    """

    def __init__(
        self,
        board: str,
        directory: Path,
        source: Source | Waveform | Mapping[str, Waveform] | None = None,
        seed: int = 0,
    ) -> None:
        self.board, self.directory, self.seed = board, directory, seed
        if board not in BOARDS:
            raise unknown("board", board, BOARDS)
        self._lock_fd = self._lock_tree(directory)
        try:
            self.layout: Layout = build(board, directory, live_proc=True)
            self._rails = self._assign_players(source)
        except BaseException:
            self._unlock_tree()
            raise
        self._sources = list({id(rail.source): rail.source for rail in self._rails.values()}.values())
        self.totals = self.layout.totals
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._registers: Registers | None = None
        self.started = self.stopped = 0.0
        #: The longest time (s) between two updates of the files, which showed an old value meanwhile.
        self.longest_pause_s = 0.0
        #: The exception that ended the thread early, if any.
        self.failure: Exception | None = None

    def __enter__(self) -> LiveBoard:  # noqa: PYI034 - Self is not in typing before 3.11
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def rails(self) -> tuple[str, ...]:
        return tuple(self._rails)

    def energy(self, start: float, end: float, rail: str | None = None) -> float:
        """Return the true joules between two monotonic times (s), of one rail or by default of the board's total."""
        names = self.totals if rail is None else [rail]
        return sum(self._rails[name].joules(end) - self._rails[name].joules(start) for name in names)

    def start(self) -> None:
        """Start the simulation in a thread; on return the files hold the first values.

        Raises:
            InputError: The board was started before.
            UnavailableError: The files cannot be written.
        """
        try:
            self.begin(time.monotonic())
        except BaseException:
            self._unlock_tree()
            raise
        self._thread = threading.Thread(target=self._play_until_stopped, name=f"edgeprof-{self.board}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the simulation and write the sums of the truth; the tree remains. Safe to call twice."""
        if self._thread is not None:
            self._stop.set()
            self._thread.join()
            self._thread = None
            self.finish(time.monotonic())
        self._unlock_tree()

    def begin(self, now: float) -> None:
        """Switch the board on at ``now`` (s). With ``step`` and ``finish``, a caller can simulate it on any clock.

        Raises:
            InputError: The board was switched on before.
            UnavailableError: The files cannot be written.
        """
        if self._registers is not None:
            raise InputError("a virtual board plays once: make another one")
        self.started = self._last = self._logged = self._flushed = now
        for source in self._sources:
            source.begin(now)
        for rail in self._rails.values():
            rail.start = now
            rail.converter = self._make_converter(rail)
        try:
            self._log = TruthLog(self.directory, self._truth_header(), list(self._rails), list(self.totals))
            self._registers = Registers(self.layout, {name: rail.converter for name, rail in self._rails.items()})
        except OSError as error:
            raise UnavailableError(f"{error.filename or self.directory} cannot be written: {error.strerror}") from None
        self._log.write(now, [0.0] * len(self._rails))
        self.step(now)

    def step(self, now: float) -> None:
        """Update all files to the values that the parts would show at ``now`` (s)."""
        assert self._registers is not None
        steady = {id(source): source.steady(self._last, now) for source in self._sources}
        self._last = now
        for rail in self._rails.values():
            level = steady[id(rail.source)]
            rail.converter.advance(now, rail.joules, None if level is None else rail.base + rail.gain * level)
        self._registers.write(now)
        jumps = [source.advance(now) for source in self._sources]
        if any(jumps) or now - self._logged >= LOG_S:
            self._obey_settings()
            self._log.write(now, [rail.joules(now) for rail in self._rails.values()])
            self._logged = now
            if now - self._flushed >= FLUSH_S:
                self._log.flush()
                self._flushed = now

    def _obey_settings(self) -> None:
        """Let each chip average over the number in its ``samples`` file, which any program may have changed."""
        for rail in self._rails.values():
            if isinstance(rail.converter, Ina3221):
                samples = number_of(rail.files.directory / "samples")
                if samples is not None and samples >= 1:
                    rail.converter.samples = int(samples)

    def finish(self, now: float) -> None:
        """Switch the board off, and write the last line and the sums of the truth."""
        assert self._registers is not None
        self.stopped = now
        joules = [rail.joules(now) for rail in self._rails.values()]
        try:
            self._log.write(now, joules)
            self._log.close(self.started, now, joules)
        except OSError as error:
            self.failure = self.failure or error
        self._registers.close()

    # -- setting up ---------------------------------------------------------------------------------------------------

    def _lock_tree(self, directory: Path) -> int:
        """Lock the tree's marker while the board runs, so that only one simulation writes the tree."""
        try:
            directory.mkdir(parents=True, exist_ok=True)
            marker = directory / SIMULATION_MARKER
            if not marker.exists() and any(directory.iterdir()):
                raise InputError(
                    f"{directory} is not empty and holds no virtual board", remedy="Give a new or an empty directory."
                )
            descriptor = os.open(marker, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise InputError(f"{directory} cannot be used: {error.strerror}") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise InputError(
                f"{directory} is being played by another edgeprof simulate", remedy="Give another directory."
            ) from None
        text = json.dumps({"board": self.board, "truth": LOG, "seed": self.seed, "pid": os.getpid()}) + "\n"
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode(), 0)
        return descriptor

    def _unlock_tree(self) -> None:
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def _assign_players(self, source: Source | Waveform | Mapping[str, Waveform] | None) -> dict[str, _Rail]:
        """Return the simulated rails, each with its source."""
        files = self.layout.rails
        if not files:
            raise InputError(
                f"{self.board} has no power sensor to play",
                remedy="Its tree is of use as it stands: it shows what such a board lacks.",
            )
        if source is None:
            cores = os.cpu_count() or 1
            source = Load(machine_busy(Roots().procfs), cores=cores, seed=self.seed)
        if isinstance(source, Load):
            return {name: _Rail(rail, source, rail.idle_w, rail.busy_w - rail.idle_w) for name, rail in files.items()}
        if isinstance(source, Source):
            return self._rail_shares(source)
        if isinstance(source, Waveform):
            return self._rail_shares(Script(source))
        for name in source:
            if name not in files:
                raise unknown("rail", name, files)
        idle = Script(constant(0.0))
        return {
            name: _Rail(rail, Script(source[name]), 0.0, 1.0) if name in source else _Rail(rail, idle, rail.idle_w, 0.0)
            for name, rail in files.items()
        }

    def _rail_shares(self, source: Source) -> dict[str, _Rail]:
        files = self.layout.rails
        totals = self.layout.totals or [name for name, rail in files.items() if rail.inside is None]
        whole = sum(files[name].busy_w for name in totals)
        return {name: _Rail(rail, source, 0.0, rail.busy_w / whole) for name, rail in files.items()}

    def _make_converter(self, rail: _Rail) -> Converter:
        files, watts = rail.files, rail.watts(self.started)
        if files.kind == "rapl":
            wrap = round((files.wrap_j or 0.0) * 1e6)
            return EnergyCounter(step_j=_RAPL_STEP_J, wrap_uj=wrap, first_uj=1_000_000_000, start=self.started)
        if files.kind == "pmic":
            step = _PMIC_STEP_A * files.volts
            return BlockAverage(refresh_s=files.cycle_s, look_s=1e-3, step_w=step, start=self.started, watts=watts)
        assert files.shunt_ohm is not None
        if files.kind == "ina238":
            step = 2e-4 * 0.020 / files.shunt_ohm
            return BlockAverage(refresh_s=_INA238_PERIOD_S, step_w=step, start=self.started, watts=watts)
        siblings = [other.channel for other in self.layout.rails.values() if other.directory == files.directory]
        return Ina3221(
            shunt_ohm=files.shunt_ohm,
            volts=files.volts,
            samples=files.samples,
            conversion_s=files.cycle_s / 2 / len(siblings),
            channels=len(siblings),
            position=sorted(siblings).index(files.channel),
            start=self.started,
            watts=watts,
        )

    def _truth_header(self) -> dict[str, object]:
        played = {name: rail.source.describe() for name, rail in self._rails.items()}
        return {
            "board": self.board,
            "seed": self.seed,
            "start": self.started,
            "waveforms": {
                name: [self._rails[name].base, self._rails[name].gain, waveform]
                for name, waveform in played.items()
                if waveform is not None
            },
        }

    # -- playing ------------------------------------------------------------------------------------------------------

    def _play_until_stopped(self) -> None:
        refresh = min(rail.converter.refresh_s for rail in self._rails.values())
        tick = max(MIN_TICK_S, refresh)
        now = self.started
        try:
            while not self._stop.is_set():
                # A tick comes just after the parts' conversions end; a missed tick is not repeated, because the
                # converters catch up.
                due = self.started + (math.floor((now - self.started) / tick) + 1) * tick
                # A plain sleep, because waiting for the event with a time limit takes 50 % more CPU time.
                time.sleep(max(0.0, due - time.monotonic()))
                before, now = now, max(due, time.monotonic())
                self.longest_pause_s = max(self.longest_pause_s, now - before)
                self.step(now)
        except Exception as error:  # noqa: BLE001 - the owner of the board, in another thread, reports it
            self.failure = error
