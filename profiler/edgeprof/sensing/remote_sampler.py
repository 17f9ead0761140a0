"""The parent's side of a sampler in a child process, which keeps sampling and the caller from delaying each other.

The caller's Python may hold its interpreter lock for any time; the child (``sampler_process``) goes on reading, with
the same CLOCK_MONOTONIC. The child ends when ``stop`` is called, when this process ends for any reason, and when the
sampler is garbage-collected. A fork of this process cannot use the child.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import threading
import weakref
from array import array
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from edgeprof.errors import EdgeprofError, UnavailableError
from edgeprof.sensing.trace import Series, deduplicate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeprof.roots import Roots
    from edgeprof.sensing.board.topology import Topology
    from edgeprof.sensing.discover import Failure
    from edgeprof.sensing.sensor import Channel
    from edgeprof.sensing.trace import Key

#: The longest that finding the sensors may take (s): once per boot each power source is watched for some seconds.
_START_S = 60.0
#: The longest that the child may take for an answer, and to end (s).
_ANSWER_S = 15.0

#: The child's program: it uses the import path of this process, whatever the environment is.
_PROGRAM = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[2]); "
    "from edgeprof.sensing.sampler_process import main; main(int(sys.argv[1]))"
)


class ReceivedTrace:
    """The readings received from the child so far, with the interface of a ``Trace``.

    Attributes:
        channels: The channels that are sampled.
    """

    def __init__(self, channels: Sequence[tuple[Channel, float]]) -> None:
        self.channels = [channel for channel, _ in channels]
        self._known = {channel.key: (channel, period_s) for channel, period_s in channels}
        self._rows = {channel.key: Series(array("d"), array("d")) for channel, _ in channels}

    def series(self, key: Key) -> Series:
        """A channel's readings without those that only repeat the one before.

        Raises:
            KeyError: no channel of that key was sampled.
        """
        channel, period_s = self._known[key]
        return deduplicate(self.readings(key), channel, period_s)

    def readings(self, key: Key) -> Series:
        """A channel's readings as they were read, repeats included.

        Raises:
            KeyError: no channel of that key was sampled.
        """
        rows = self._rows[key]
        return Series(rows.times[:], rows.values[:])

    def last_s(self) -> dict[Key, float]:
        """The time of each channel's newest reading; channels without readings are absent."""
        return {key: rows.times[-1] for key, rows in self._rows.items() if rows.times}

    def extend(self, rows: dict[Key, tuple[bytes, bytes]]) -> None:
        """Take newer readings, as float64 of times and values."""
        for key, (times, values) in rows.items():
            self._rows[key].times.frombytes(times)
            self._rows[key].values.frombytes(values)


class RemoteSampler:
    """Finds the sensors of this device and samples them in a child process, from ``start`` to ``stop``.

    Args:
        roots: Where to look.
        sensors: Only these sources; None: all that work.
        rail: Which rail is the headline; None leaves that to the board.
        rate_hz: Readings per second.
    """

    def __init__(
        self, roots: Roots, sensors: Sequence[str] | None = None, rail: str | None = None, rate_hz: float = 100.0
    ) -> None:
        if not 0 < rate_hz < float("inf"):
            raise ValueError(f"rate_hz is {rate_hz}; it has to be a positive number")
        self._request = {"roots": roots, "sensors": sensors, "rail": rail, "rate_hz": rate_hz}
        self._lock = threading.Lock()
        self._child: _Child | None = None
        self._stopped = False
        self._topology: Topology | None = None
        self._trace = ReceivedTrace(())
        self.failures: list[Failure] = []

    @property
    def topology(self) -> Topology:
        """The board and its channels; known from ``start`` on."""
        if self._topology is None:
            raise RuntimeError("the sampler was not started")
        return self._topology

    @property
    def trace(self) -> ReceivedTrace:
        """What was sampled so far."""
        with self._lock:
            self._fetch()
        return self._trace

    def start(self) -> None:
        """Start the child; return after each sensor was tried once.

        Raises:
            RuntimeError: it was started before.
            EdgeprofError: no such sensor or rail; or the child did not start.
        """
        with self._lock:
            if self._child is not None or self._stopped:
                raise RuntimeError("a sampler samples once; make a new one")
            self._child = child = _Child(self)
            try:
                answer = child.ask(self._request, _START_S)
            except BaseException:
                self._end()
                raise
            self._topology, channels, self.failures = answer
            self._trace = ReceivedTrace(channels)

    def stop(self) -> None:
        """Fetch the last readings and end the child. Safe to call twice, and before ``start``."""
        with self._lock:
            self._stopped = True
            if self._child is not None and self._child.is_ours:
                try:
                    self._fetch()
                finally:
                    self._end()

    def _fetch(self) -> None:
        if self._child is None:
            return
        if not self._child.is_ours:
            raise UnavailableError(
                "this recording belongs to the process that was forked",
                remedy="Quote it there, or start one of its own in each process.",
            )
        self._trace.extend(self._child.ask(self._trace.last_s(), _ANSWER_S))

    def _end(self) -> None:
        if self._child is not None:
            self._child.finish()
            self._child = None


class _Child:
    """The child process and the connection to it."""

    def __init__(self, owner: RemoteSampler) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            argv = [sys.executable, "-c", _PROGRAM, str(theirs.fileno()), json.dumps(sys.path)]
            try:
                self._process = subprocess.Popen(
                    argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=[theirs.fileno()]
                )
            except OSError as error:
                ours.close()
                raise UnavailableError(f"the process that samples cannot be started: {error.strerror}") from error
        self._pid = os.getpid()
        self._connection = Connection(ours.detach())
        _children.add(self)
        # A sampler that is forgotten without a stop: the closed connection ends the child.
        self.finish = weakref.finalize(owner, _finish_child, self._connection, self._process, self._pid)

    @property
    def is_ours(self) -> bool:
        """Whether this process started the child; False in a fork of that process."""
        return os.getpid() == self._pid

    def ask(self, request: Any, patience_s: float) -> Any:
        """Send a request and return the child's answer.

        Raises:
            EdgeprofError: the child raised it, has ended, or does not answer.
        """
        try:
            self._connection.send(request)
            while self._connection.poll(patience_s):
                kind, answer = self._connection.recv()
                if kind == "error":
                    raise answer
                if kind == "answer":
                    return answer
                logging.getLogger("edgeprof").info("%s", answer)
        except (EOFError, OSError):
            raise UnavailableError("the process that samples has ended before it was told to") from None
        raise UnavailableError(f"the process that samples has not answered for {patience_s:g} s")

    def abandon(self) -> None:
        """Close this fork's copy of the connection; the child belongs to the process that started it."""
        self.finish.detach()
        self._connection.close()
        self._process.returncode = 0  # it is no child of this process: there is nothing to wait for


def _finish_child(connection: Connection, process: subprocess.Popen[bytes], pid: int) -> None:
    if os.getpid() != pid:
        return
    connection.close()
    try:
        process.wait(_ANSWER_S)
    except subprocess.TimeoutExpired:  # a read of a sensor that never comes back
        process.kill()
        process.wait()


#: The children of this process, which a fork abandons.
_children: weakref.WeakSet[_Child] = weakref.WeakSet()


def _abandon_all() -> None:
    for child in list(_children):
        child.abandon()
    _children.clear()


os.register_at_fork(after_in_child=_abandon_all)

__all__ = ["EdgeprofError", "ReceivedTrace", "RemoteSampler"]
