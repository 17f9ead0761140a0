"""The connections of the HTTP server: what each one waits for, and which one is closed to make room for a new one.

A connection is *late* if its first request has not arrived, or only a part of a request has. Late connections are
closed first, the oldest before younger ones; then connections that are idle between two requests, the longest idle
first. A connection that is being answered is never closed. No address may have more than seven eighths of the places,
so that others always find one; of the late connections, those of the address with the most of them are closed first.
An IPv6 address counts as its /64 network, since a client usually has the whole network.
"""

from __future__ import annotations

import contextlib
import math
import selectors
import socket
import time
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

#: Deadlines (s): for the TLS handshake, for a request's head from its first byte, for writing an answer, and for the
#: pause between two requests on a connection (Prometheus scrapes at least every few minutes, and reconnects without
#: loss).
HANDSHAKE_S, HEAD_S, WRITE_S, IDLE_S = 5.0, 5.0, 10.0, 150.0
#: Largest size of a request's head (bytes).
MOST_HEAD = 16 * 1024
#: Shortest time between two searches for connections whose deadline has passed (s).
_SEARCH_S = 0.2


class HeadTooLongError(Exception):
    """A request's head is longer than ``MOST_HEAD``."""


class Connection:
    """A socket that never blocks, except while an answer is written, and the state of its requests.

    Attributes:
        sock: The socket.
        network: Network of the client: an IPv4 address, or the /64 network of an IPv6 address.
        since: When it began its present wait (monotonic s).
        watched: The value of ``since`` and the events with which it is watched; None if it is not watched.
        has_place: Whether ``Places`` counts it.
        is_new: Whether nothing was done with it yet.
        handshake: The socket, if its TLS handshake is not complete.
        has_asked: Whether a request was answered before.
        keep: Whether it stays open after the answer that is being made.
    """

    def __init__(self, sock: socket.socket, address: str) -> None:
        self.sock = sock
        self.network = _network(address)
        self.since = time.monotonic()
        self.watched: tuple[float, int] | None = None
        self.has_place = False
        self.is_new = True
        self.handshake: ssl.SSLSocket | None = None
        self.has_asked = False
        self.keep = False
        self._buffer = b""

    @property
    def is_late(self) -> bool:
        """Whether its first request, or the rest of a request that has begun, has not arrived yet."""
        return not self.has_asked or bool(self._buffer)

    @property
    def deadline(self) -> float:
        """When its present wait has to end (monotonic s)."""
        return self.since + (HANDSHAKE_S if self.handshake is not None else HEAD_S if self._buffer else IDLE_S)

    def read_head(self) -> bytes:
        """Read a request's head up to the empty line.

        Raises:
            HeadTooLongError: the head is longer than ``MOST_HEAD``.
            EOFError: the client has gone.
            OSError: there is nothing more to read yet (BlockingIOError, or its equivalents of TLS), or the connection
                has failed.
        """
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > MOST_HEAD:
                raise HeadTooLongError("the request's head is too long")
            data = self.sock.recv(4096)
            if not data:
                raise EOFError
            if not self._buffer:
                self.since = time.monotonic()
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
        finally:
            self.sock.setblocking(False)
        return True

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.close()


class Places:
    """The places for connections, and those of them that wait for their client. Only one thread may use it.

    Args:
        selector: Watches the sockets of the connections that wait; the connection is the key's data.
        most: Largest number of connections.
    """

    def __init__(self, selector: selectors.BaseSelector, most: int) -> None:
        self._selector = selector
        self._most = most
        self._most_of_one = max(1, most - max(1, most // 8))
        #: The connections of each network, and of those the ones that wait, in the order in which they began to.
        self._counts: Counter[str] = Counter()
        self._late: dict[str, dict[Connection, None]] = {}
        self._idle: dict[str, dict[Connection, None]] = {}
        self._next_search = math.inf

    def admit(self, connection: Connection) -> bool:
        """Give a new connection a place, and close another one if necessary; return whether there was a place."""
        network = connection.network
        if self._counts[network] >= self._most_of_one:
            is_free = self.make_room(network)
        else:
            is_free = self._counts.total() < self._most or self.make_room()
        if is_free:
            self._counts[network] += 1
            connection.has_place = True
        return is_free

    def wait(self, connection: Connection, events: int = selectors.EVENT_READ) -> None:
        """Watch a connection that has a place until ``events`` happen or its deadline passes."""
        if connection.watched == (connection.since, events):
            return  # a client that sends byte by byte does not become younger
        self.take(connection)
        connection.watched = (connection.since, events)
        crowds = self._late if connection.is_late else self._idle
        crowds.setdefault(connection.network, {})[connection] = None
        self._selector.register(connection.sock, events, connection)
        self._next_search = min(self._next_search, connection.deadline)

    def take(self, connection: Connection) -> None:
        """Watch a connection no longer; it keeps its place."""
        if connection.watched is None:
            return
        connection.watched = None
        self._selector.unregister(connection.sock)
        for crowds in (self._late, self._idle):
            crowd = crowds.get(connection.network, {})
            if connection in crowd:
                del crowd[connection]
                if not crowd:
                    del crowds[connection.network]

    def leave(self, connection: Connection) -> None:
        """Close a connection, and free its place; nothing if it has none."""
        if not connection.has_place:
            return
        connection.has_place = False
        self.take(connection)
        connection.close()
        self._counts[connection.network] -= 1
        if not self._counts[connection.network]:
            del self._counts[connection.network]

    def make_room(self, network: str | None = None) -> bool:
        """Close one of the waiting connections, of a network if it is given; return whether there was one."""
        victim = self._choose_victim(network)
        if victim is not None:
            self.leave(victim)
        return victim is not None

    def timeout_s(self) -> float | None:
        """How long the selector may wait until ``close_overdue`` has to be called; None for ever."""
        return None if self._next_search == math.inf else max(0.0, self._next_search - time.monotonic())

    def close_overdue(self) -> None:
        """Close the connections whose deadline has passed."""
        now = time.monotonic()
        if now < self._next_search:
            return
        for connection in [connection for connection in self._waiting() if connection.deadline <= now]:
            self.leave(connection)
        nearest = min((connection.deadline for connection in self._waiting()), default=math.inf)
        self._next_search = max(nearest, now + _SEARCH_S)

    def close_waiting(self) -> None:
        """Close all connections that wait."""
        while self.make_room():
            pass

    def _waiting(self) -> Iterator[Connection]:
        for crowds in (self._late, self._idle):
            for crowd in crowds.values():
                yield from crowd

    def _choose_victim(self, network: str | None) -> Connection | None:
        """Choose the connection to close; the first of each crowd has waited the longest in it."""
        if network is not None:
            crowd = self._late.get(network) or self._idle.get(network)
        elif self._late:
            crowd = max(self._late.values(), key=len)
        else:
            crowd = min(self._idle.values(), key=lambda crowd: next(iter(crowd)).since, default=None)
        return next(iter(crowd)) if crowd else None


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
