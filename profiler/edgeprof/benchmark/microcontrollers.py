"""Models that run on a separate microcontroller: which sensors measure them, and which clock times them."""

from __future__ import annotations

import hashlib
import math
import os
import statistics
from dataclasses import replace
from typing import TYPE_CHECKING

from edgeprof.benchmark import latency
from edgeprof.errors import InputError
from edgeprof.reasons import Code
from edgeprof.results import schema
from edgeprof.results.schema import Reason
from edgeprof.sensing.board.topology import Board, arrange
from edgeprof.sensing.discover import instruments
from edgeprof.worker import sandbox

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeprof.benchmark.records import VariantRecord
    from edgeprof.benchmark.request import BenchRequest, Candidate
    from edgeprof.errors import VariantError
    from edgeprof.plugins import PluginHost
    from edgeprof.sensing.discover import Discovery
    from edgeprof.worker.scenario import Window

#: If a device's clock differs by more than this (relative), the latency is taken from this machine's clock.
MOST_CLOCK_ERROR = 0.01
#: The delays of the reports of a window's beginning and end may differ by this (s): USB's buffering, and a margin for
#: this machine.
REPORT_DELAY_S = 0.02
_UNSEEN = "no meter at the supply of the microcontroller was given"
_NO_PERCENTILES = (
    "the device repeats its inferences by itself and tells how long they took together: only their mean is known"
)


def run_elsewhere(models: Sequence[Candidate]) -> bool:
    """Return whether the models run on separate devices and not on this machine.

    Raises:
        InputError: Some run there and some here, two are on one port, or a sandbox blocks access to the port.
    """
    able = [model for model in models if model.failure is None and model.runtime is not None]
    apart = [model for model in able if model.runtime is not None and not model.runtime.runs_here]
    if apart and len(apart) < len(able):
        here = next(model for model in able if model not in apart)
        raise InputError(
            f"{apart[0].name} runs on a device of its own and {here.name} on this machine: one meter sees one of them",
            remedy="Measure them one after the other, and set them side by side with edgeprof compare.",
        )
    if apart and sandbox.is_asked_for():
        raise InputError(
            f"--sandbox keeps its worker from every serial port, and {apart[0].name} is behind one",
            remedy="Leave --sandbox out: no code of a model runs on this machine.",
        )
    ports = [os.path.realpath(model.artifact.target.partition("@")[0]) for model in apart]
    for number, port in enumerate(ports):
        if port in ports[:number]:
            raise InputError(f"two of the models are on one port, {port}", remedy="Name each port once.")
    return bool(apart)


def sensors_beside(request: BenchRequest, host: PluginHost) -> list[str]:
    """Return the sources that can measure a separate device: the instruments.

    Raises:
        InputError: A requested sensor measures this machine, or a wattage of this machine's processor was given.
    """
    able = instruments(host)
    if request.estimate_power_w is not None:
        raise InputError(
            "--estimate-power is of this machine's processor, and a microcontroller runs the model",
            remedy="Leave it out; a meter at its supply measures: --sensor meter:/dev/ttyUSB0.",
        )
    for text in request.sensors or ():
        name = text.partition(":")[0]
        if name in host.of("sensors") and name not in able:
            raise InputError(
                f"the sensor {name} measures this machine, and a microcontroller runs the model",
                remedy=f"Use a meter at its supply: {', '.join(able)}.",
            )
    return able


def seen_from_outside(discovery: Discovery, models: Sequence[Candidate], rail: str | None) -> Discovery:
    """Return the instruments' channels without this machine's board, whose rails are not those of the device.

    Args:
        discovery: The discovered sensors.
        models: All models to measure.
        rail: The value of ``--rail``.

    Raises:
        InputError: There are several devices, and a meter cannot separate their joules.
    """
    board = Board(id="microcontroller", name="a microcontroller", no_sensor=_UNSEEN)
    topology = arrange(board, discovery.topology.channels, rail)
    able = [model.name for model in models if model.failure is None]
    if topology.headline.channels and len(able) > 1:
        raise InputError(
            f"the meter {topology.headline.rail} cannot tell the joules of {' and '.join(able)} apart",
            remedy="Measure them one after the other, each with the meter at its own supply.",
        )
    return replace(discovery, topology=topology)


def host_of(machine: schema.Host, records: Sequence[VariantRecord]) -> schema.Host:
    """Return the device that ran the models, as the host of the result; this machine only measured it."""
    devices = [r.loaded.microcontroller for r in records if r.loaded is not None and r.loaded.microcontroller]
    names = list(dict.fromkeys(str(device["name"]) for device in devices))
    board = " and ".join(names) or "a microcontroller that did not answer"
    return schema.Host(
        board=f"{board} (microcontroller)",
        hostname=machine.hostname,
        arch="unknown",
        cpu="unknown",
        cores=1,
        memory_bytes=None,
        kernel="none",
        os="its own firmware",
        power_mode=None,
        governor=None,
        fingerprint=f"sha256:{hashlib.sha256(board.encode()).hexdigest()}",
        context={"measured_by": f"{machine.board}, {machine.os}"},
    )


def refuse_silent(records: Sequence[VariantRecord]) -> None:
    """Check that the only device has given something to report.

    Raises:
        InputError: It failed before its first window: it is something else, restarts, or answers out of step.
    """
    failure = silence(records[0]) if len(records) == 1 else None
    if failure is not None:
        raise InputError(failure.message, remedy=failure.remedy)


def silence(record: VariantRecord) -> VariantError | None:
    """Return the failure of a device that gave no window; None if it gave one."""
    return None if record.main.windows else record.failure


def is_clock_wrong(windows: Sequence[Window]) -> bool:
    """Return whether a device's own clock differs from this machine's by more than late reports explain.

    The median over the windows decides, because a busy machine receives single reports late.
    """
    deviations = [
        (window.device_s - window.span.seconds, window.span.seconds)
        for window in windows
        if window.device_s is not None
    ]
    if not deviations:
        return False
    shares = sorted(max(0.0, abs(off_s) - REPORT_DELAY_S) / seconds for off_s, seconds in deviations if seconds > 0)
    return bool(shares) and statistics.median(shares) > MOST_CLOCK_ERROR


def window_means_s(windows: Sequence[Window]) -> list[float | None]:
    """Return the mean latency (s) of each window in which the device itself repeated the calls; None for any other.

    The device's own clock is used, as in MLPerf Tiny, as long as it agrees with this machine's.
    """
    is_wrong = is_clock_wrong(windows)
    means: list[float | None] = []
    for window in windows:
        seconds = window.span.seconds if window.device_s is None or is_wrong else window.device_s
        means.append(seconds / window.calls if window.is_burst and window.calls else None)
    return means


def mean_latency(windows: Sequence[Window]) -> schema.Latency | None:
    """Return the mean over the windows in which the device itself repeated the calls; None if there are none."""
    means = zip(windows, window_means_s(windows), strict=True)
    known = [(window.calls, mean) for window, mean in means if mean is not None]
    return latency.mean_alone(sum(calls for calls, _ in known), math.fsum(calls * mean for calls, mean in known))


def add_findings(row: schema.Variant, record: VariantRecord) -> None:
    """Fill ``microcontroller`` of a variant whose session reports that it runs on one; do nothing for any other."""
    stated = record.loaded.microcontroller if record.loaded is not None else None
    if stated is None:
        return
    row.microcontroller = schema.Microcontroller(
        name=str(stated["name"]),
        model=stated.get("model"),
        port=stated.get("port"),
        arena_bytes=stated.get("arena_bytes"),
        flash_bytes=stated.get("flash_bytes"),
        ram_bytes=stated.get("ram_bytes"),
    )
    if not record.main.windows:
        return
    row.reasons.append(Reason(code=Code.MEAN_LATENCY_ONLY, message=_NO_PERCENTILES))
    timed = [window for window in record.main.windows if window.device_s is not None and window.span.seconds > 0]
    if not timed:
        return
    device_s, here_s = math.fsum(w.device_s or 0.0 for w in timed), math.fsum(w.span.seconds for w in timed)
    row.microcontroller.clock_ppm = 1e6 * (device_s / here_s - 1)
    row.microcontroller.clock_u_ppm = 1e6 * math.fsum(w.span.edge_s for w in timed) / here_s
    if is_clock_wrong(timed):
        row.reasons.append(
            Reason(
                code=Code.DEVICE_CLOCK,
                message=f"the device's clock differs from this machine's by {100 * (device_s / here_s - 1):+.1f} %:"
                " the latency is by this machine's clock",
                remedy="Look at the firmware's timer and its clock source.",
            )
        )
