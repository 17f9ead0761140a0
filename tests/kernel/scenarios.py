"""What is done inside the guest, with edgeprof's own sensors, sampler and analysis; each answers with plain data."""

from __future__ import annotations

import errno
import json
import os
import random
import time
from pathlib import Path
from typing import Any

from edgeprof.plugins import PluginHost
from edgeprof.roots import Roots
from edgeprof.sensing.discover import Discovery, discover
from edgeprof.sensing.sampler import Sampler
from edgeprof.simulation.board_specs import BOARDS
from edgeprof.simulation.waveform import Pieces, parse
from tests.kernel.player import Player, Registers, SwitchedLoad, configuration, hwmon, nvpower


def _find(rail: str | None = None) -> Discovery:
    return discover(PluginHost(only=["ina3221", "hwmon"]), Roots(), rail=rail)


def _settings(board: str) -> None:
    """What a stock board does at its start, where it does anything."""
    nvpower([chip.address for chip in BOARDS[board].chips if chip.part == "ina3221" and chip.samples == 512])


def _errno(path: Path) -> str | None:
    try:
        path.read_text()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return None


def survey(board: str, watts: dict[str, float] | None = None, off: tuple[str, ...] = ()) -> dict[str, Any]:
    """Everything that ``edgeprof sensors`` would show, at steady powers; idle if none are given."""
    _settings(board)
    player = Player(board, tuple(off))
    specs = {rail.label: rail for chip in BOARDS[board].chips for rail in chip.rails if rail is not None}
    player.hold({label: rail.idle_w for label, rail in specs.items()} | (watts or {}))
    found = _find()
    values = {}
    for sensor in found.sensors:
        values |= sensor.read_once()
    return {
        "board": found.topology.board.id,
        "headline": {
            "channels": [channel.name for channel in found.topology.headline.channels],
            "covers": found.topology.headline.covers,
            "reason": found.topology.headline.reason,
        },
        "channels": [
            {
                "name": channel.name,
                "quantity": channel.quantity,
                "available": channel.available,
                "reason": channel.reason,
                "role": channel.role,
                "parent": channel.parent,
                "resolution": channel.resolution,
                "tau_s": channel.filter.tau_s,
                "kind": channel.filter.kind,
                "cycle_s": channel.update_interval_s,
                "provenance": channel.provenance,
                "value": values.get(f"{channel.name}/{channel.quantity}"),
            }
            for channel in found.topology.channels
        ],
        "failures": [list(failure) for failure in found.failures],
        "errnos": {
            f"{chip.address:04x} channel {number}": _errno(hwmon(chip.address) / f"curr{number}_input")
            for chip in BOARDS[board].chips
            if chip.part != "ina238"
            for number in (1, 2, 3)
        },
        "configurations": {
            str(chip.address): list(configuration(player.chips[chip.address])[:2])
            for chip in BOARDS[board].chips
            if chip.part != "ina238"
        },
    }


def bursts(
    board: str, rail: str, lengths: list[tuple[float, int]], idle_w: float, burst_w: float, rate_hz: float = 100.0
) -> dict[str, Any]:
    """Bursts of several lengths on one rail: edgeprof's joules of each burst's own window, and the true ones.

    ``lengths``: (seconds, how many). The pauses between are 1.5 s and a random bit, so that no burst lies to the
    samples as another does, and each begins in the tail of the one before.
    """
    from edgeprof.energy.integrate import window_energy

    _settings(board)
    player = Player(board)
    player.hold({rail: idle_w})
    chance = random.Random(1)
    pieces, windows, at = [], [], 0.0
    for length, count in lengths:
        for _ in range(count):
            pause = 1.5 + chance.random() * 0.1
            pieces += [(pause, idle_w, idle_w), (length, burst_w, burst_w)]
            windows.append((at + pause, at + pause + length))
            at += pause + length
    pieces.append((1.0, idle_w, idle_w))
    found = _find()
    sampler = Sampler(found.sensors, rate_hz, found.topology.by_key())
    begin = player.start({rail: Pieces(pieces, repeat=False)})
    sampler.start()
    time.sleep(at + 1.0)
    sampler.stop()
    player.stop()
    channel = next(c for c in found.topology.channels if c.name == rail and c.quantity == "power")
    series = sampler.trace.series(channel.key)
    results = []
    for start, end in windows:
        energy = window_energy(series.times, series.values, begin + start, begin + end, channel)
        plain = _trapezoid(series.times, series.values, begin + start, begin + end)
        results.append(
            {
                "length_s": end - start,
                "true_j": player.energy(rail, begin + start, begin + end),
                "joules": energy.joules,
                "u_filter": energy.u_filter,
                "u_resolution": energy.u_resolution,
                "plain_j": plain,
                "problems": list(energy.problems),
            }
        )
    (stats,) = [s for s in sampler.stats() if s.key == channel.key]
    return {
        "tau_s": channel.filter.tau_s,
        "resolution": channel.resolution,
        "bursts": results,
        "samples": stats.samples,
        "missed": stats.missed,
        "seconds": at + 1.0,
    }


def _trapezoid(times: Any, values: Any, start: float, end: float) -> float:
    """What a reader gets who knows nothing of the filter: the trapezoid between interpolated edges."""
    import numpy as np

    t, v = np.asarray(times), np.asarray(values)
    inside = (t > start) & (t < end)
    t = np.concatenate([[start], t[inside], [end]])
    v = np.concatenate([[np.interp(start, times, values)], v[inside], [np.interp(end, times, values)]])
    return float(np.trapezoid(v, t))


def steady_window(board: str, waveforms: dict[str, str], settle_s: float, window_s: float) -> dict[str, Any]:
    """The joules of a window of a running waveform, for each rail of the headline, at the chip's own settings."""
    from edgeprof.energy.integrate import window_energy

    _settings(board)
    player = Player(board)
    player.hold({})
    found = _find()
    sampler = Sampler(found.sensors, 100.0, found.topology.by_key())
    begin = player.start({rail: parse(spec) for rail, spec in waveforms.items()})
    sampler.start()
    time.sleep(settle_s + window_s + 0.2)
    sampler.stop()
    player.stop()
    start, end = begin + settle_s, begin + settle_s + window_s
    rails = {}
    for channel in found.topology.channels:
        if channel.quantity == "power" and channel.name in waveforms:
            series = sampler.trace.series(channel.key)
            energy = window_energy(series.times, series.values, start, end, channel, edges="interpolated")
            rails[channel.name] = {"joules": energy.joules, "true_j": player.energy(channel.name, start, end)}
    return {"rails": rails, "headline": [channel.name for channel in found.topology.headline.channels]}


def removal(board: str) -> dict[str, Any]:
    """The chip is unbound under the sampler's open files for a while, and comes back."""
    _settings(board)
    player = Player(board)
    player.hold({})
    found = _find()
    channel = next(c for c in found.topology.channels if c.quantity == "power" and c.available)
    sampler = Sampler(found.sensors, 100.0, found.topology.by_key())
    player.hold({channel.name: 8.0})
    directory = hwmon(0x40)
    held = os.open(directory / "curr1_input", os.O_RDONLY)
    sampler.start()
    time.sleep(1.0)
    driver = Path("/sys/bus/i2c/drivers/ina3221")
    (driver / "unbind").write_text("0-0040")
    gone = time.monotonic()
    try:
        os.pread(held, 32, 0)
        code = None
    except OSError as error:
        code = errno.errorcode[error.errno or 0]
    time.sleep(2.0)
    (driver / "bind").write_text("0-0040")
    back = time.monotonic()
    player.hold({channel.name: 8.0})
    time.sleep(7.0)
    sampler.stop()
    os.close(held)
    series = sampler.trace.series(channel.key)
    rows = list(zip(series.times, series.values, strict=True))
    (stats,) = [s for s in sampler.stats() if s.key == channel.key]
    return {
        "errno": code,
        "before": [v for t, v in rows if t < gone - 0.02],
        "during": [v == v for t, v in rows if gone + 0.02 < t < back],
        "after": [v for t, v in rows if t > back + 6.0],
        "max_gap_s": stats.max_gap_s,
    }


def single_shot(board: str) -> dict[str, Any]:
    """The driver waits for a conversion that never ends: ETIMEDOUT on every read, then it does end."""
    registers = Player(board).chips[0x40]
    registers.write(0x0F, 0)
    before = time.monotonic()
    code = _errno(hwmon(0x40) / "curr1_input")
    took = time.monotonic() - before
    silent = survey_channels(_find())
    registers.write(0x0F, 1)  # CVRF: a conversion is ready
    return {"errno": code, "took_s": took, "silent": silent, "ready": survey_channels(_find())}


def survey_channels(found: Discovery) -> list[list[Any]]:
    return [[c.name, c.quantity, c.available, c.reason] for c in found.topology.channels]


def bench(
    board: str, waveforms: dict[str, str], callable_file: str, arguments: list[str], characterise_s: float = 0.2
) -> dict[str, Any]:
    """A whole ``edgeprof bench`` of a callable that sleeps, while the rails play; its exit code and its result file.

    For ``characterise_s`` the sensors are read as fast as they can be, which is most of what the guest computes.
    """
    from edgeprof.cli.main import run
    from edgeprof.sensing import prepare

    prepare.CHARACTERISE_S = characterise_s
    _settings(board)
    player = Player(board)
    parsed = {rail: parse(spec) for rail, spec in waveforms.items()}
    player.hold({rail: waveform.power(0.0) for rail, waveform in parsed.items()})
    player.start(parsed)
    try:
        code = run(["bench", callable_file, "-o", "/run/answer/result.json", "-q", *arguments])
    finally:
        player.stop()
    written = Path("/run/answer/result.json")
    # After the run: --fast-sensor changes it and has to put it back.
    chips = [chip.address for chip in BOARDS[board].chips if chip.part == "ina3221"]
    return {
        "code": code,
        "result": json.loads(written.read_text()) if written.exists() else None,
        "samples": {f"{address:02x}": int((hwmon(address) / "samples").read_text()) for address in chips},
        "registers": {f"{address:02x}": configuration(player.chips[address])[0] for address in chips},
    }


def proof(board: str, shares: dict[str, float], idle_w: float, load_w: float, rate_hz: float = 100.0) -> dict[str, Any]:
    """``doctor --prove`` with a load that moves the rails: each draws its share of what the load makes of the power.

    At half of its rate: reading is most of what the guest computes.
    """
    from edgeprof.calibration import prove as proving
    from edgeprof.sensing.proofs import Proofs

    proving._RATE_HZ = rate_hz
    _settings(board)
    player = Player(board)
    load = SwitchedLoad()
    begin = player.start({rail: load.share(share * idle_w, share * load_w) for rail, share in shares.items()})
    load.begin(begin)
    try:
        return proving.prove(
            PluginHost(only=["ina3221", "hwmon"]),
            Roots(),
            load=lambda: load,
            activity=dict,
            proofs=Proofs(Path("/run/data")),
            quick=True,
        ).to_dict()
    finally:
        player.stop()


def two_buses(board: str) -> dict[str, Any]:
    """The board's chip at 9 W, and another one of its address on a second bus, without labels and at 3 W."""
    _settings(board)
    Player(board).hold({"VDD_IN": 9.0, "VDD_CPU_GPU_CV": 3.0, "VDD_SOC": 2.0})
    second = Registers(0x40, bus=1)
    Path("/sys/bus/i2c/devices/i2c-1/new_device").write_text("ina3221 0x40")
    for number in range(3):
        second.write(1 + 2 * number, 1500 << 3)  # 60 mV on the driver's default of 10 mΩ: 6 A
        second.write(2 + 2 * number, 62 << 3)  # 496 mV
    found = _find()
    values = {}
    for sensor in found.sensors:
        values |= sensor.read_once()
    return {
        "headline": [[channel.name, channel.chip] for channel in found.topology.headline.channels],
        "watts": {name: value for name, value in values.items() if name.endswith("/power")},
        "refused": survey_channels(found),
    }
