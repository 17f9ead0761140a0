"""The connections of the HTTP server: what each one waits for, and which one is closed to make room for a new one.

A connection is *late* if its request has not arrived completely, or its password has not been checked yet. Late
connections are closed first, the oldest before younger ones; then connections that are idle between two requests, the
longest idle first. A connection that is being answered is never closed. No address may have more than seven eighths of
the places, so that others always find one; of the late connections, those of the address with the most of them are
closed first. An IPv6 address counts as its /64 network, since a client usually has the whole network.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import Counter

#: Deadlines (s): for a request's head from its first byte, for writing an answer, and for the pause between two
#: requests on a connection (Prometheus scrapes at least every few minutes, and reconnects without loss).
HEAD_S, WRITE_S, IDLE_S = 5.0, 10.0, 150.0
#: Largest size of a request's head (bytes).
MOST_HEAD = 16 * 1024
#: Time for which a new connection waits until a closed one has ended (s).
_PATIENCE_S = 1.0


class HeadTooLongError(Exception):
    """A request's head is longer than ``MOST_HEAD``."""


class Connection:
    """A socket, and the state of its requests.

    Attributes:
        sock: The socket.
        network: Network of the client: an IPv4 address, or the /64 network of an IPv6 address.
        since: When it began its present wait (monotonic s).
        is_answering: Whether a permitted request is being answered.
        has_asked: Whether a request was answered before.
        is_dropped: Whether ``drop`` was called.
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
        """Whether its first request, or the rest of a request that has begun, has not arrived yet."""
        return not self.is_answering and (not self.has_asked or bool(self._buffer))

    def begin(self) -> None:
        """Mark the connection as answering a request."""
        self.is_answering = self.has_asked = True

    def rest(self) -> None:
        """Mark the connection as idle after an answer, waiting for the next request."""
        self.since, self.is_answering = time.monotonic(), False

    def drop(self) -> None:
        """End the connection from another thread; its own thread sees the end of the stream and closes the socket."""
        self.is_dropped = True
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)  # not SSLSocket's, which forgets its session first

    def read_head(self) -> bytes | None:
        """Read a request's head up to the empty line; None if the client has gone or is too slow.

        Raises:
            HeadTooLongError: the head is longer than ``MOST_HEAD``.
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
        """Send all bytes; return whether they were sent in time."""
        self.sock.settimeout(WRITE_S)
        try:
            self.sock.sendall(data)
        except OSError:
            return False
        return True


class Places:
    """The places for connections. The methods are thread-safe.

    Args:
        most: Largest number of connections; as many again may have been closed and not have ended yet.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._most_of_one = max(1, most - max(1, most // 8))
        self._changed = threading.Condition()
        self._connections: set[Connection] = set()

    def admit(self, connection: Connection) -> bool:
        """Give a new connection a place, and close another one if necessary; return whether there was a place."""
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
        """Free the place of a connection that has ended."""
        with self._changed:
            self._connections.discard(connection)
            self._changed.notify_all()

    def make_room(self) -> None:
        """Close one connection, since the system has no descriptors left, and wait shortly for its end."""
        with self._changed:
            victim = _choose_victim([other for other in self._connections if not other.is_dropped])
            if victim is not None:
                victim.drop()
            self._changed.wait(0.05)

    def drain(self, seconds: float) -> None:
        """Close all connections at once, except those being answered, which get ``seconds`` to finish."""

        def is_quiet() -> bool:
            for connection in self._connections:
                if not connection.is_answering and not connection.is_dropped:
                    connection.drop()
            return not any(connection.is_answering for connection in self._connections)

        deadline = time.monotonic() + seconds
        with self._changed:
            while not is_quiet() and time.monotonic() < deadline:
                self._changed.wait(0.01)  # poll: the end of an answer does not notify if its connection stays open
            for connection in self._connections:
                connection.drop()


def _choose_victim(connections: list[Connection]) -> Connection | None:
    late = [connection for connection in connections if connection.is_late]
    if late:
        counts = Counter(connection.network for connection in late)
        # most_common imports a module, which fails where no descriptors are left.
        network = max(counts, key=counts.__getitem__)
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
    if packed[:12] == b"\0" * 10 + b"\xff\xff":  # an IPv4 address on a socket for IPv4 and IPv6
        return socket.inet_ntop(socket.AF_INET, packed[12:])
    return socket.inet_ntop(socket.AF_INET6, packed[:8] + b"\0" * 8)
