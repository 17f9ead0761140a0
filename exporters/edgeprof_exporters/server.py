"""The HTTP server of the exposition: it limits every resource, and a slow client never blocks it.

One thread does everything that waits for clients, TLS handshakes among them, and never waits for a single one. (The
server of prometheus-client does, in a handshake, so that one silent client stops every scrape.) A deadline applies to a
whole step and not to each byte, so that a client gains nothing by sending one byte per second. The server answers only
GET and HEAD.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import selectors
import socket
import threading
import time
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import TYPE_CHECKING, NamedTuple, Protocol

from edgeprof.errors import InputError, UnavailableError
from edgeprof_exporters.connections import Connection, HeadTooLongError, Places
from edgeprof_exporters.http_request import BadRequestError, Request, parse_head
from edgeprof_exporters.logs import event

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping, Sequence

#: Deadline for the client to read the answer to a bad request (s).
LINGER_S = 0.5
#: Most threads that answer requests, and the number of them that are kept for the next ones.
_MOST_THREADS, _SPARE_THREADS = 256, 4
#: Most connections that the kernel queues until they are accepted.
_BACKLOG = 1024
_LISTEN_REMEDIES = {
    errno.EADDRINUSE: "Is another exporter running there?",
    errno.EACCES: "Only root may use ports below 1024: let systemd open the socket (--web.systemd-socket).",
}
_REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Content Too Large",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}


@dataclass
class Response:
    """An answer with its complete body."""

    status: int
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: dict[str, str] = field(default_factory=dict)
    #: Whether the connection must be closed after it.
    close: bool = False


class Guard(Protocol):
    """Decides who may connect and ask, by TLS, passwords and rates (see webconfig)."""

    def context(self) -> ssl.SSLContext | None:
        """The TLS context of a new connection; None for plain HTTP."""

    def admits(self, connection: ssl.SSLSocket) -> bool:
        """Whether the client's certificate is allowed."""

    def refuses(self, request: Request) -> Response | None:
        """The answer to a request that is refused; None if it is permitted."""

    def headers(self) -> Mapping[str, str]:
        """Headers that are added to every answer."""


class Application(Protocol):
    """Answers the requests."""

    def answer(self, request: Request) -> Response:
        """Answer a request; any exception becomes status 500."""


class Address(NamedTuple):
    """An address to listen on: a host (empty for all) and a port."""

    host: str
    port: int


def parse_address(text: str) -> Address:
    """Parse an address, as ``127.0.0.1:28283``, ``[::1]:28283`` or ``:28283``.

    Raises:
        InputError: the text has another form.
    """
    host, _, port = text.rpartition(":")
    plain = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not port.isdecimal() or not int(port) <= 65535 or (":" in plain and plain == host):
        raise InputError(
            f"{text!r} is not an address to listen on",
            remedy="Write it as 127.0.0.1:28283, [::1]:28283, or :28283 for all addresses.",
        )
    return Address(plain, int(port))


def listen(addresses: Sequence[str]) -> list[socket.socket]:
    """Open listening sockets.

    Raises:
        InputError: an address is not valid.
        UnavailableError: an address cannot be used.
    """
    if not addresses:
        raise InputError("there is no address to listen on", remedy="Give one: --web.listen-address 127.0.0.1:28283")
    opened: list[socket.socket] = []
    try:
        for text in addresses:
            host, port = parse_address(text)
            try:
                opened += _bind_sockets(host, port)
            except OSError as error:
                raise UnavailableError(
                    f"cannot listen on {text}: {error.strerror or error}",
                    remedy=_LISTEN_REMEDIES.get(error.errno or 0, "Is it an address of this device?")
                    + " Another one can be chosen by --web.listen-address HOST:PORT.",
                ) from None
    except BaseException:
        for sock in opened:
            sock.close()
        raise
    return opened


def _bind_sockets(host: str, port: int) -> list[socket.socket]:
    if not host:
        if socket.has_dualstack_ipv6():
            with contextlib.suppress(OSError):
                return [socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=_BACKLOG)]
        return [socket.create_server(("", port), backlog=_BACKLOG)]
    if (literal := _address_family(host)) is not None:
        # getaddrinfo would load the tables of international domain names even for a numeric address.
        return [socket.create_server((host, port), family=literal, backlog=_BACKLOG)]
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets = []
    for family, _, _, _, address in dict.fromkeys(addresses):
        sockets.append(socket.create_server(address[:2], family=family, backlog=_BACKLOG))
        port = sockets[-1].getsockname()[1]
    return sockets


def _address_family(host: str) -> socket.AddressFamily | None:
    """The address family of a host that is a numeric address; None for a name."""
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):
            socket.inet_pton(family, host)
            return family
    return None


class Server:
    """Accepts connections and reads requests in one thread, and answers each request in one of a few others.

    A connection has a thread only while a complete request is answered. One that sends nothing, or only a part of a
    request, costs a descriptor and a few kilobytes.

    Args:
        listeners: Listening sockets; the server closes them.
        application: Answers the requests.
        guard: Decides who may ask; None: everybody may, without TLS.
        max_connections: Most simultaneous connections. A new one replaces one whose request is late, else the one that
            has been idle the longest (``Places``).
    """

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        application: Application,
        guard: Guard | None = None,
        max_connections: int = 1024,
    ) -> None:
        self._listeners = list(listeners)
        self._application = application
        self.guard = guard
        self._selector = selectors.DefaultSelector()
        self._places = Places(self._selector, max_connections)
        self._stopping = threading.Event()
        self._wake = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="edgeprof web", daemon=True)
        #: The connections being answered, their requests for the answering threads, and those that were answered.
        self._answering: set[Connection] = set()
        self._requests: SimpleQueue[tuple[Connection, bytes | None] | None] = SimpleQueue()
        self._answered: SimpleQueue[Connection] = SimpleQueue()
        self._threads = 0

    @property
    def addresses(self) -> list[str]:
        """The addresses that it listens on, in the form of a URL."""
        return [_printed_address(sock) for sock in self._listeners]

    @property
    def is_begun(self) -> bool:
        """Whether it was started, even if it has been stopped since."""
        return self._thread.ident is not None

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def stop(self, drain_s: float = 1.0) -> None:
        """Stop accepting, give running answers ``drain_s`` to end, and close everything. Calling it twice is safe."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._wake[1].send(b"x")
        if self.is_begun:
            self._thread.join(1.0)
        else:
            self._selector.close()
        for sock in self._listeners:
            sock.close()
        deadline = time.monotonic() + drain_s
        while self._answered.qsize() < len(self._answering) and time.monotonic() < deadline:
            time.sleep(0.01)
        for connection in self._answering:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)  # its thread sees it, and closes the socket
        for _ in range(self._threads):
            self._requests.put(None)
        for sock in self._wake:
            sock.close()

    # -- one thread: accepting and reading ----------------------------------------------------------------------------

    def _run(self) -> None:
        for sock in (*self._listeners, *self._wake):
            sock.setblocking(False)
        for sock in (*self._listeners, self._wake[0]):
            self._selector.register(sock, selectors.EVENT_READ)
        while not self._stopping.is_set():
            for key, _ in self._selector.select(self._places.timeout_s()):
                self._handle(key)
            self._places.close_overdue()
        self._places.close_waiting()
        self._selector.close()

    def _handle(self, key: selectors.SelectorKey) -> None:
        connection = key.data
        try:
            if connection is not None:
                if connection.watched is not None:  # else it was closed after the selector returned
                    self._advance(connection)
            elif key.fileobj is self._wake[0]:
                self._wake[0].recv(4096)
                while not self._answered.empty():
                    connection = self._answered.get()
                    self._take_back(connection)
            else:
                connection = self._accept(key.fileobj)  # type: ignore[arg-type]  # only listening sockets are left
                if connection is not None:
                    self._advance(connection)
        except Exception:  # whatever goes wrong with one connection, others are served
            logging.getLogger("edgeprof.exporter").exception("a connection failed")
            if connection is not None:
                self._places.leave(connection)

    def _accept(self, listener: socket.socket) -> Connection | None:
        """Accept a connection; return None if there is none, or no place for it."""
        try:
            sock, address = listener.accept()
        except OSError as error:
            if error.errno not in _TRANSIENT:
                event(logging.WARNING, "a connection could not be accepted", error=str(error))
                if not self._places.make_room():  # out of descriptors or memory
                    time.sleep(0.05)
            return None
        connection = Connection(sock, str(address[0]))
        if self._places.admit(connection):
            return connection
        connection.close()
        return None

    def _advance(self, connection: Connection) -> None:
        """Go on with a connection as far as its client has sent something."""
        try:
            head = self._read(connection)
        except HeadTooLongError:
            head = None
        except (OSError, ValueError, EOFError) as error:
            awaited = _AWAITED.get(type(error).__name__)
            if awaited is None:  # the client has gone, or is not allowed
                self._places.leave(connection)
            else:
                self._places.wait(connection, awaited)
            return
        self._hand_over(connection, head)

    def _read(self, connection: Connection) -> bytes:
        """Read a request's head, after the TLS handshake if TLS is configured.

        Raises:
            HeadTooLongError: the head is too long.
            EOFError, OSError, ValueError: see ``Connection.read_head``; the handshake failed.
        """
        if connection.is_new:
            connection.is_new = False
            connection.sock.setblocking(False)
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            context = self.guard.context() if self.guard else None
            if context is not None:
                secured = context.wrap_socket(connection.sock, server_side=True, do_handshake_on_connect=False)
                connection.sock = connection.handshake = secured
        if connection.handshake is not None:
            connection.handshake.do_handshake()
            if self.guard is not None and not self.guard.admits(connection.handshake):
                raise PermissionError
            connection.handshake = None
        return connection.read_head()

    def _hand_over(self, connection: Connection, head: bytes | None) -> None:
        """Let a thread answer a request; None is a head that is too long."""
        self._places.take(connection)
        if len(self._answering) >= _MOST_THREADS:
            self._places.leave(connection)
            return
        if self._threads <= len(self._answering):
            try:
                threading.Thread(target=self._answer_requests, name="edgeprof web client", daemon=True).start()
                self._threads += 1
            except RuntimeError:
                event(logging.WARNING, "a request has to wait: no more threads")
                if not self._threads:
                    self._places.leave(connection)
                    return
        self._answering.add(connection)
        self._requests.put((connection, head))

    def _take_back(self, connection: Connection) -> None:
        self._answering.discard(connection)
        if self._threads > max(len(self._answering), _SPARE_THREADS):
            self._threads -= 1
            self._requests.put(None)
        if connection.keep:
            connection.since, connection.has_asked = time.monotonic(), True
            self._advance(connection)
        else:
            self._places.leave(connection)

    # -- a few threads: answering -------------------------------------------------------------------------------------

    def _answer_requests(self) -> None:
        while (item := self._requests.get()) is not None:
            connection, head = item
            try:
                connection.keep = self._answer_request(connection, head) and not self._stopping.is_set()
            except Exception:  # whatever goes wrong with one request, this thread answers others
                connection.keep = False
                logging.getLogger("edgeprof.exporter").exception("a connection failed")
            if not connection.keep:
                connection.close()
            self._answered.put(connection)
            with contextlib.suppress(OSError):  # it is full and will be read, or the server has ended
                self._wake[1].send(b"x")

    def _answer_request(self, connection: Connection, head: bytes | None) -> bool:
        """Answer one request; return whether the connection stays open."""
        if head is None:
            return self._refuse(connection, 431, "the request's head is too long")
        try:
            request = parse_head(head)
        except BadRequestError as error:
            return self._refuse(connection, error.status, str(error))
        response = (self.guard.refuses(request) if self.guard else None) or self._answer(request)
        keep = request.keep and not response.close and not self._stopping.is_set()
        response.close = not keep
        return self._send(connection, response, request) and keep

    def _refuse(self, connection: Connection, status: int, why: str) -> bool:
        self._send(connection, Response(status, f"{why}\n".encode(), close=True), None)
        _close_gently(connection.sock)
        return False

    def _answer(self, request: Request) -> Response:
        if request.method not in {"GET", "HEAD"}:
            return Response(405, b"only GET and HEAD\n", headers={"Allow": "GET, HEAD"}, close=True)
        try:
            return self._application.answer(request)
        except Exception:
            logging.getLogger("edgeprof.exporter").exception(
                "a request failed", extra={"fields": {"path": request.path}}
            )
            return Response(500, b"this request failed; the log says why\n", close=True)

    def _send(self, connection: Connection, response: Response, request: Request | None) -> bool:
        headers = {
            "Content-Type": response.content_type,
            "Content-Length": str(len(response.body)),
            "Date": _http_date(),
            "Connection": "close" if response.close else "keep-alive",
        }
        added = self.guard.headers() if self.guard else {}
        lines = [f"HTTP/1.1 {response.status} {_REASONS[response.status]}"]
        lines += [f"{name}: {value}" for name, value in {**headers, **response.headers, **added}.items()]
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        body = b"" if request is not None and request.method == "HEAD" else response.body
        return connection.write(head + body)


_TRANSIENT = {11, 103, 71}  # EAGAIN, ECONNABORTED, EPROTO
#: What to wait for after these exceptions, by their names, since ssl is imported only for TLS.
_AWAITED = {
    "BlockingIOError": selectors.EVENT_READ,
    "SSLWantReadError": selectors.EVENT_READ,
    "SSLWantWriteError": selectors.EVENT_WRITE,
}


def _close_gently(sock: socket.socket) -> None:
    """Let a client that still sends read the answer first: closing at once would reset the connection."""
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_WR)
        sock.settimeout(LINGER_S)
        deadline, left = time.monotonic() + LINGER_S, 1 << 20
        while left > 0 and time.monotonic() < deadline and (data := sock.recv(65536)):
            left -= len(data)


def _printed_address(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def _http_date() -> str:
    t = time.gmtime()
    day, month = _DAYS[t.tm_wday], _MONTHS[t.tm_mon - 1]
    return f"{day}, {t.tm_mday:02d} {month} {t.tm_year} {t.tm_hour:02d}:{t.tm_min:02d}:{t.tm_sec:02d} GMT"
