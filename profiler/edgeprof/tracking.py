"""``edgeprof.track``: an application reports each call of its model to the daemon by a datagram, without waiting.

    with edgeprof.track("yolov8s", variant="int8", runtime="tensorrt"):
        outputs = session.run(None, inputs)

Standard library only, and the grammar of Python 3.6, so that the file can be copied beside an application that runs
under a Jetson's system Python. If there is no daemon, or it is slow, the datagram is dropped and the application does
not wait: statistics are not worth a frame.
"""

import functools
import os
import socket
import threading
import time
from types import TracebackType
from typing import Any, Callable, List, Optional, Type, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

#: Places of the daemon's socket, in this order; ``EDGEPROF_TRACK_SOCKET`` names another one.
_PLACES = ("/run/edgeprof/track.sock", "{XDG_RUNTIME_DIR}/edgeprof/track.sock")
#: Longest label (characters); the daemon refuses longer ones.
_MOST_LABEL = 100
#: After a datagram could not be sent for want of a daemon, none is tried for so long (s).
_PAUSE_S = 1.0


def _nanoseconds() -> int:
    return int(time.monotonic() * 1e9)


#: CLOCK_MONOTONIC, ns. Python 3.6 has no clock in whole nanoseconds yet.
_now: Callable[[], int] = getattr(time, "monotonic_ns", _nanoseconds)


class Sender:
    """A way to the daemon's socket. Thread-safe, and safe over fork.

    Attributes:
        sent: Datagrams that the kernel took.
        dropped: Datagrams that went nowhere: no daemon, or its buffer was full.
    """

    def __init__(self, path: Optional[str] = None) -> None:
        self.path = path
        self.sent = 0
        self.dropped = 0
        self._sock: Optional[socket.socket] = None
        self._retry_at = 0.0
        self._lock = threading.Lock()

    def send(self, data: bytes) -> None:
        """Send one datagram or drop it; never waits, never raises."""
        sock = self._sock
        if sock is None:
            sock = self._connect()
            if sock is None:
                self.dropped += 1
                return
        try:
            sock.send(data, socket.MSG_DONTWAIT)
            self.sent += 1
        except BlockingIOError:
            self.dropped += 1
        except OSError:
            self.dropped += 1
            self._forget(sock)

    def close(self) -> None:
        """Give the socket back; the next ``send`` takes a new one."""
        sock = self._sock
        if sock is not None:
            self._forget(sock)
        self._retry_at = 0.0

    def _connect(self) -> Optional[socket.socket]:
        with self._lock:
            if self._sock is not None:
                return self._sock
            if time.monotonic() < self._retry_at:
                return None
            for path in [self.path] if self.path else _paths():
                sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                try:
                    sock.setblocking(False)
                    sock.connect(path)
                except (OSError, ValueError):
                    sock.close()
                else:
                    self._sock = sock
                    return sock
            self._retry_at = time.monotonic() + _PAUSE_S
            return None

    def _forget(self, sock: socket.socket) -> None:
        with self._lock:
            if self._sock is sock:
                self._sock = None
                self._retry_at = time.monotonic() + _PAUSE_S
        sock.close()


def _paths() -> List[str]:
    named = os.environ.get("EDGEPROF_TRACK_SOCKET")
    if named:
        return [named]
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    return [p.format(XDG_RUNTIME_DIR=runtime) for p in _PLACES if runtime or "{" not in p]


#: What ``track`` sends with; its ``dropped`` tells whether anybody listens.
sender = Sender()


class track:  # noqa: N801 - it is used as a function is
    """A context manager and a decorator around a call of a model.

    Args:
        model: The model's name, as it shall stand in dashboards. Not an id of a request: the daemon keeps a series
            for each, and puts what is too many under ``other``.
        variant: What was made of it: ``int8``, ``baseline`` …
        runtime: What runs it: ``onnxruntime`` …
        count: Inferences in one call: the size of the batch. May be set on the object inside the ``with``.

    Raises:
        ValueError: a label that the daemon would refuse: too long, or not printable; or a model without a name.
    """

    __slots__ = ("_labels", "_start", "count")

    def __init__(self, model: str, variant: str = "", runtime: str = "", count: int = 1) -> None:
        self._labels = _labels(model, variant, runtime)
        self.count = count
        self._start = 0

    def __enter__(self) -> "track":
        self._start = _now()
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        # A call that failed is no inference.
        if kind is None and self.count > 0:
            sender.send(b"EP1 %d %d %d\t%b" % (self._start, _now(), self.count, self._labels))

    def __call__(self, function: F) -> F:
        labels, count, send = self._labels, self.count, sender.send

        @functools.wraps(function)
        def tracked(*args: Any, **kwargs: Any) -> Any:
            start = _now()
            result = function(*args, **kwargs)
            send(b"EP1 %d %d %d\t%b" % (start, _now(), count, labels))
            return result

        return tracked  # type: ignore[return-value]


@functools.lru_cache(maxsize=256)
def _labels(model: str, variant: str, runtime: str) -> bytes:
    for name, label in (("model", model), ("variant", variant), ("runtime", runtime)):
        if len(label) > _MOST_LABEL or not label.isprintable():
            raise ValueError("%s is %r; a label is at most %d printable characters" % (name, label[:120], _MOST_LABEL))
    if not model:
        raise ValueError("model is empty; it names the series")
    return f"{model}\t{variant}\t{runtime}".encode("utf-8")


def report(model: str, seconds: float, variant: str = "", runtime: str = "", count: int = 1) -> None:
    """Report a call that ends now and took ``seconds``, for applications that time themselves.

    Raises:
        ValueError: see ``track``; or a negative time.
    """
    if not 0 <= seconds < 86400:
        raise ValueError("seconds is %r; it has to be from 0 to a day" % (seconds,))
    end = _now()
    labels = _labels(model, variant, runtime)
    sender.send(b"EP1 %d %d %d\t%b" % (max(0, end - int(seconds * 1e9)), end, count, labels))
