"""The connections of the HTTP server: what each is waiting for, and which gives way to a new one.

A connection whose request has not come whole, or whose password is not checked yet, is *late* and gives way first, the
oldest before the younger; then one that rests between two requests, the longest first. One that is being answered
never gives way. No address may hold more than seven eighths of the places, so that others always find one; and of the
late ones, those of the address that has most of them go first. For IPv6 an address counts as its /64, since a client
has all of that.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import Counter

#: Deadlines (s): a request's head from its first byte, writing an answer, and a kept connection's pause between two
#: requests (Prometheus scrapes at most every few minutes and reconnects without loss).
HEAD_S, WRITE_S, IDLE_S = 5.0, 10.0, 150.0
#: The longest head of a request (bytes).
MOST_HEAD = 16 * 1024
#: How long (s) a new connection waits for one that gave way to end.
_PATIENCE_S = 1.0


class HeadTooLongError(Exception):
    """A request's head is longer than ``MOST_HEAD``."""


class Connection:
    """A socket, and what it waits for.

    Attributes:
        sock: The socket.
        network: Whose it is: an IPv4 address, or the /64 of an IPv6 one.
        since: When it began to wait for what it waits for (monotonic s).
        is_answering: Whether a request that was let through is being answered.
        has_asked: Whether a request was answered before.
    """

    def __init__(self, sock: socket.socket, address: str) -> None:
        self.sock = sock
        self.network = _network(address)
        self.since = time.monotonic()
        self.is_answering = False
        self.has_asked = False
        self.is_dropped = False
        self._buffer = b""

    @property
    def is_late(self) -> bool:
        """Whether its request, or its first word, is still to come."""
        return not self.is_answering and (not self.has_asked or bool(self._buffer))

    def begin(self) -> None:
        """From now on a request is answered."""
        self.is_answering = self.has_asked = True

    def rest(self) -> None:
        """The answer went out; wait for the next request."""
        self.since, self.is_answering = time.monotonic(), False

    def drop(self) -> None:
        """End the connection from another thread; its own thread sees the end of the stream and closes the socket."""
        self.is_dropped = True
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)  # not SSLSocket's, which forgets its session first

    def read_head(self) -> bytes | None:
        """The bytes of a request's head up to the empty line; None where the client has gone or waited too long.

        Raises:
            HeadTooLongError: it is too long.
        """
        deadline = time.monotonic() + (HEAD_S if self._buffer else IDLE_S)
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > MOST_HEAD:
                raise HeadTooLongError("the request's head is too long")
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            self.sock.settimeout(left)
            try:
                data = self.sock.recv(4096)
            except OSError:  # timeouts and TLS errors are among them
                return None
            if not data:
                return None
            if not self._buffer:
                self.since = time.monotonic()
                deadline = self.since + HEAD_S
            self._buffer += data
        head, self._buffer = self._buffer[:end], self._buffer[end + 4 :]
        if len(head) > MOST_HEAD:
            raise HeadTooLongError("the request's head is too long")
        return head

    def write(self, data: bytes) -> bool:
        """Send all bytes; returns whether they were sent in time."""
        self.sock.settimeout(WRITE_S)
        try:
            self.sock.sendall(data)
        except OSError:
            return False
        return True


class Places:
    """The places for connections. Thread-safe.

    Args:
        most: Connections at once. Those that gave way and have not ended yet may be as many again.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._most_of_one = max(1, most - max(1, most // 8))
        self._changed = threading.Condition()
        self._connections: set[Connection] = set()

    def admit(self, connection: Connection) -> bool:
        """Give a new connection a place, closing another one if necessary; returns whether there was a place."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._connections) < 2 * self._most, _PATIENCE_S)
            if len(self._connections) >= 2 * self._most:
                return False
            held = [other for other in self._connections if not other.is_dropped]
            neighbours = [other for other in held if other.network == connection.network]
            crowd = neighbours if len(neighbours) >= self._most_of_one else held
            if crowd is neighbours or len(held) >= self._most:
                victim = _choose_victim(crowd)
                if victim is None:
                    return False
                victim.drop()
            self._connections.add(connection)
            return True

    def leave(self, connection: Connection) -> None:
        """A connection has ended."""
        with self._changed:
            self._connections.discard(connection)
            self._changed.notify_all()

    def make_room(self) -> None:
        """Let one connection go, since the system has no room for more, and wait a moment for its end."""
        with self._changed:
            victim = _choose_victim([other for other in self._connections if not other.is_dropped])
            if victim is not None:
                victim.drop()
            self._changed.wait(0.05)

    def drain(self, seconds: float) -> None:
        """Let answers that run end for so long, and everything else at once."""

        def is_quiet() -> bool:
            for connection in self._connections:
                if not connection.is_answering and not connection.is_dropped:
                    connection.drop()
            return not any(connection.is_answering for connection in self._connections)

        deadline = time.monotonic() + seconds
        with self._changed:
            while not is_quiet() and time.monotonic() < deadline:
                self._changed.wait(0.01)  # an answer that ends on a kept connection says nothing
            for connection in self._connections:
                connection.drop()


def _choose_victim(connections: list[Connection]) -> Connection | None:
    late = [connection for connection in connections if connection.is_late]
    if late:
        (network, _), *_ = Counter(connection.network for connection in late).most_common(1)
        late = [connection for connection in late if connection.network == network]
    candidates = late or [connection for connection in connections if not connection.is_answering]
    return min(candidates, key=lambda connection: connection.since, default=None)


def _network(address: str) -> str:
    if ":" not in address:
        return address
    plain = address.partition("%")[0]
    try:
        packed = socket.inet_pton(socket.AF_INET6, plain)
    except OSError:
        return address
    if packed[:12] == b"\0" * 10 + b"\xff\xff":  # an IPv4 address on a socket for both
        return socket.inet_ntop(socket.AF_INET, packed[12:])
    return socket.inet_ntop(socket.AF_INET6, packed[:8] + b"\0" * 8)
