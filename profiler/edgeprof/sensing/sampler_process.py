"""The child of ``remote_sampler``: it finds the sensors, samples them, and sends new readings on request."""

from __future__ import annotations

import os
import signal
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from edgeprof.errors import EdgeprofError, UnavailableError
from edgeprof.plugins import PluginHost, sensor_points
from edgeprof.sensing.prepare import prepare
from edgeprof.sensing.sampler import Sampler

if TYPE_CHECKING:
    from edgeprof.sensing.trace import Key, Trace

#: How often (s) the child checks that its parent still lives. The death of the parent closes the connection, which is
#: seen at once, unless a program that the parent started has inherited the other end.
_LOOK_S = 1.0


def main(descriptor: int) -> None:
    """Serve one parent, and end with it."""
    parent = os.getppid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which will fetch the readings
    with Connection(descriptor) as connection:
        request = _next_request(connection, parent)
        if request is None:
            return
        try:
            discovery = prepare(
                PluginHost.from_environment(points=sensor_points()),
                request["roots"],
                request["sensors"],
                request["rail"],
                note=lambda text: connection.send(("note", text)),
            )
            sampler = Sampler(discovery.sensors, request["rate_hz"], discovery.topology.by_key())
        except EdgeprofError as error:
            connection.send(("error", error))
            return
        except Exception as error:  # noqa: BLE001 - the parent says it, in a sentence
            connection.send(("error", UnavailableError(f"the sensors cannot be read: {type(error).__name__}: {error}")))
            return
        with sampler:
            trace = sampler.trace
            channels = [(channel, trace.period_s(channel.key)) for channel in trace.channels]
            connection.send(("answer", (discovery.topology, channels, discovery.failures)))
            while True:
                newest = _next_request(connection, parent)
                if newest is None:
                    return
                connection.send(
                    ("answer", {c.key: _newer_readings(trace, c.key, newest.get(c.key)) for c in trace.channels})
                )


def _next_request(connection: Connection, parent: int) -> Any:
    """The next request of the parent; None after the parent has ended."""
    try:
        while not connection.poll(_LOOK_S):
            if os.getppid() != parent:
                return None
        return connection.recv()
    except (EOFError, OSError):
        return None


def _newer_readings(trace: Trace, key: Key, last_s: float | None) -> tuple[bytes, bytes]:
    """The readings after a time, as float64 bytes of times and values."""
    readings = trace.readings_after(key, last_s)
    return readings.times.tobytes(), readings.values.tobytes()
