"""The HTTP server around the exposition: small, bounded in everything, and deaf to nobody for somebody else's sake.

Each connection has a thread of its own, in which the TLS handshake happens too (prometheus-client's server does it
where connections are accepted, so that one silent client stops every scrape). Each step has a deadline for the whole of
it and not for a byte, so that a client that sends one byte a second gains nothing. Only GET and HEAD are spoken.
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
from typing import TYPE_CHECKING, NamedTuple, Protocol

from edgeprof.errors import InputError, UnavailableError
from edgeprof_exporters.logs import event

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping, Sequence

#: Deadlines (s): the TLS handshake, a request's head from its first byte, writing an answer, and a kept connection's
#: pause between two requests (Prometheus scrapes at most every few minutes and reconnects without loss).
HANDSHAKE_S, HEAD_S, WRITE_S, IDLE_S = 5.0, 5.0, 10.0, 150.0
#: The longest head of a request (bytes), and the most header lines in it.
MOST_HEAD, MOST_HEADERS = 16 * 1024, 100
_LISTEN_REMEDIES = {
    errno.EADDRINUSE: "Is another exporter running there?",
    errno.EACCES: "Ports below 1024 are root's: have systemd hold the socket (--web.systemd-socket).",
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
class Request:
    """A request without a body. Header names are in lower case; of a header that comes twice, the last counts."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    keep: bool = True


@dataclass
class Response:
    """An answer with its whole body."""

    status: int
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: dict[str, str] = field(default_factory=dict)
    #: Whether the connection must end after it.
    close: bool = False


class Guard(Protocol):
    """Who may connect and ask: TLS, passwords, rates (see webconfig)."""

    def context(self) -> ssl.SSLContext | None:
        """The TLS context for a new connection; None for plain HTTP."""

    def admits(self, connection: ssl.SSLSocket) -> bool:
        """Whether the client's certificate is one of those allowed."""

    def refuses(self, request: Request) -> Response | None:
        """The answer to a request that is not let through; None lets it through."""

    def headers(self) -> Mapping[str, str]:
        """What is added to every answer."""


class Application(Protocol):
    """What answers."""

    def answer(self, request: Request) -> Response:
        """The answer; whatever it raises becomes 500."""


class _BadRequestError(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class _Connection:
    """A socket, who waits for what on it, and since when."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.idle_since: float | None = time.monotonic()
        self.buffer = b""

    def drop(self) -> None:
        """End it from another thread: its own sees the end of the stream and closes."""
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)  # not SSLSocket's, which forgets its session first

    def read_head(self) -> bytes | None:
        """The bytes of a request's head up to the empty line; None where the client has gone or waited too long.

        Raises:
            _BadRequestError: it is too long.
        """
        deadline = time.monotonic() + (HEAD_S if self.buffer else IDLE_S)
        while (end := self.buffer.find(b"\r\n\r\n")) < 0:
            if len(self.buffer) > MOST_HEAD:
                raise _BadRequestError(431, "the request's head is too long")
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
            if not self.buffer:
                self.idle_since = None
                deadline = time.monotonic() + HEAD_S
            self.buffer += data
        head, self.buffer = self.buffer[:end], self.buffer[end + 4 :]
        if len(head) > MOST_HEAD:
            raise _BadRequestError(431, "the request's head is too long")
        return head

    def write(self, data: bytes) -> bool:
        """Whether all of it went out in time."""
        self.sock.settimeout(WRITE_S)
        try:
            self.sock.sendall(data)
        except OSError:
            return False
        return True


class Address(NamedTuple):
    """Where to listen: a host (empty for all) and a port."""

    host: str
    port: int


def parse_address(text: str) -> Address:
    """``127.0.0.1:28283``, ``[::1]:28283``, ``:28283``.

    Raises:
        InputError: it is none of these.
    """
    host, _, port = text.rpartition(":")
    plain = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not port.isdecimal() or not int(port) <= 65535 or (":" in plain and plain == host):
        raise InputError(
            f"{text!r} is no address to listen on", remedy="As in 127.0.0.1:28283, [::1]:28283 or :28283 for all."
        )
    return Address(plain, int(port))


def listen(addresses: Sequence[str]) -> list[socket.socket]:
    """Listening sockets.

    Raises:
        InputError: an address that is none.
        UnavailableError: one that cannot be had.
    """
    if not addresses:
        raise InputError("there is no address to listen on", remedy="As in --web.listen-address 127.0.0.1:28283")
    opened: list[socket.socket] = []
    try:
        for text in addresses:
            host, port = parse_address(text)
            try:
                opened += _bound(host, port)
            except OSError as error:
                raise UnavailableError(
                    f"cannot listen on {text}: {error.strerror or error}",
                    remedy=_LISTEN_REMEDIES.get(error.errno or 0, "Is it an address of this device?")
                    + " Another is chosen with --web.listen-address HOST:PORT.",
                ) from None
    except BaseException:
        for sock in opened:
            sock.close()
        raise
    return opened


def _bound(host: str, port: int) -> list[socket.socket]:
    if not host:
        if socket.has_dualstack_ipv6():
            with contextlib.suppress(OSError):
                return [socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=128)]
        return [socket.create_server(("", port), backlog=128)]
    if (literal := _family(host)) is not None:
        # Not by getaddrinfo, which loads the tables of international domain names even for a number.
        return [socket.create_server((host, port), family=literal, backlog=128)]
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    made = []
    for family, _, _, _, address in dict.fromkeys(found):
        made.append(socket.create_server(address[:2], family=family, backlog=128))
        port = made[-1].getsockname()[1]
    return made


def _family(host: str) -> socket.AddressFamily | None:
    """Of a host that is an address already; None of a name."""
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):
            socket.inet_pton(family, host)
            return family
    return None


class Server:
    """Accepts in one thread, answers in one for each connection.

    Args:
        listeners: Listening sockets; the server closes them.
        application: What answers.
        guard: Who may ask; None lets everybody, without TLS.
        max_connections: The most at once; a new one takes the place of the one that is idle longest.
    """

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        application: Application,
        guard: Guard | None = None,
        max_connections: int = 256,
    ) -> None:
        self._listeners = list(listeners)
        self._application = application
        self.guard = guard
        self._most = max_connections
        self._lock = threading.Lock()
        self._connections: set[_Connection] = set()
        self._stopping = threading.Event()
        self._wake = socket.socketpair()
        self._thread = threading.Thread(target=self._accept, name="edgeprof web", daemon=True)

    @property
    def addresses(self) -> list[str]:
        """Where it listens, as a URL has it."""
        return [_shown(sock) for sock in self._listeners]

    @property
    def is_begun(self) -> bool:
        """Whether it was started, be it stopped since or not."""
        return self._thread.ident is not None

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def stop(self, drain_s: float = 1.0) -> None:
        """Accept no more, let running answers end for ``drain_s``, then close everything. Safe to call twice."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._wake[1].send(b"x")
        if self.is_begun:
            self._thread.join(1.0)
        for sock in self._listeners:
            sock.close()
        deadline = time.monotonic() + drain_s
        while True:
            with self._lock:
                for connection in self._connections:
                    if connection.idle_since is not None:
                        connection.drop()
                busy = [c for c in self._connections if c.idle_since is None]
                if not busy or time.monotonic() >= deadline:
                    for connection in busy:
                        connection.drop()
                    break
            time.sleep(0.01)
        for sock in self._wake:
            sock.close()

    # -- accepting ----------------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        with selectors.DefaultSelector() as selector:
            for sock in self._listeners:
                sock.setblocking(False)
                selector.register(sock, selectors.EVENT_READ)
            selector.register(self._wake[0], selectors.EVENT_READ)
            while not self._stopping.is_set():
                for key, _ in selector.select():
                    if key.fileobj is not self._wake[0]:
                        self._take(key.fileobj)  # type: ignore[arg-type]  # only sockets were registered

    def _take(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except OSError as error:
            if error.errno not in _TRANSIENT:
                event(logging.WARNING, "a connection could not be accepted", error=str(error))
                time.sleep(0.05)  # out of descriptors: others must end first
            return
        connection = _Connection(sock)
        with self._lock:
            if len(self._connections) >= self._most:
                idle = [c for c in self._connections if c.idle_since is not None]
                if not idle:
                    sock.close()
                    return
                min(idle, key=lambda c: c.idle_since or 0.0).drop()
            if len(self._connections) >= 2 * self._most:  # those that were dropped have not ended yet
                sock.close()
                return
            self._connections.add(connection)
        try:
            threading.Thread(target=self._serve, args=(connection,), name="edgeprof web client", daemon=True).start()
        except RuntimeError:
            with self._lock:
                self._connections.discard(connection)
            sock.close()

    # -- one connection -----------------------------------------------------------------------------------------------

    def _serve(self, connection: _Connection) -> None:
        try:
            with contextlib.suppress(OSError):
                connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._secured(connection):
                while not self._stopping.is_set() and self._once(connection):
                    connection.idle_since = time.monotonic()
        except Exception:
            logging.getLogger("edgeprof.exporter").exception("a connection failed")
        finally:
            with self._lock:
                self._connections.discard(connection)
            with contextlib.suppress(OSError):
                connection.sock.close()

    def _secured(self, connection: _Connection) -> bool:
        """Shake hands where TLS is configured; whether to go on."""
        context = self.guard.context() if self.guard else None
        if context is None or self.guard is None:
            return True
        raw = connection.sock
        raw.settimeout(HANDSHAKE_S)
        timer = threading.Timer(HANDSHAKE_S, connection.drop)  # the time-out above is for each read of the handshake
        timer.daemon = True
        timer.start()
        try:
            secured = context.wrap_socket(raw, server_side=True, do_handshake_on_connect=False)
            connection.sock = secured
            secured.do_handshake()
        except (OSError, ValueError):
            return False
        finally:
            timer.cancel()
        return self.guard.admits(secured)

    def _once(self, connection: _Connection) -> bool:
        """Serve one request; whether the connection goes on."""
        try:
            head = connection.read_head()
            if head is None:
                return False
            request = parse_head(head)
        except _BadRequestError as error:
            connection.idle_since = None
            self._send(connection, Response(error.status, f"{error}\n".encode(), close=True), None)
            _linger(connection.sock)
            return False
        connection.idle_since = None
        response = (self.guard.refuses(request) if self.guard else None) or self._answer(request)
        keep = request.keep and not response.close and not self._stopping.is_set()
        response.close = not keep
        return self._send(connection, response, request) and keep

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

    def _send(self, connection: _Connection, response: Response, request: Request | None) -> bool:
        own = {
            "Content-Type": response.content_type,
            "Content-Length": str(len(response.body)),
            "Date": _date(),
            "Connection": "close" if response.close else "keep-alive",
        }
        added = self.guard.headers() if self.guard else {}
        lines = [f"HTTP/1.1 {response.status} {_REASONS[response.status]}"]
        lines += [f"{name}: {value}" for name, value in {**own, **response.headers, **added}.items()]
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        body = b"" if request is not None and request.method == "HEAD" else response.body
        return connection.write(head + body)


def parse_head(head: bytes) -> Request:
    """A request from its head (RFC 9112), strictly: what is not plainly right is refused.

    Raises:
        _BadRequestError: it is no such request.
    """
    first, *lines = head.decode("latin-1").split("\r\n")
    parts = first.split(" ")
    if len(parts) != 3 or not parts[0].isalpha() or not parts[1].startswith("/"):
        raise _BadRequestError(400, "not a request")
    method, target, version = parts
    if version not in {"HTTP/1.1", "HTTP/1.0"}:
        raise _BadRequestError(505, "HTTP/1.0 and HTTP/1.1 only")
    if len(lines) > MOST_HEADERS:
        raise _BadRequestError(431, "too many headers")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or not set(name) <= _TOKEN or set(value) & _NEVER:
            raise _BadRequestError(400, "not a header")
        headers[name.lower()] = value.strip(" \t")
    if "transfer-encoding" in headers or headers.get("content-length", "0") != "0":
        raise _BadRequestError(413, "a request has no body here")
    path, _, query = target.partition("?")
    wish = headers.get("connection", "").lower()
    keep = wish == "keep-alive" if version == "HTTP/1.0" else "close" not in wish
    return Request(method, path, query, headers, keep)


_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_NEVER = frozenset("\r\n\0")
_TRANSIENT = {11, 103, 71}  # EAGAIN, ECONNABORTED, EPROTO


def _linger(sock: socket.socket) -> None:
    """Let a client that still sends read the answer first: closing at once would reset it away."""
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_WR)
        sock.settimeout(0.5)
        deadline, left = time.monotonic() + 0.5, 1 << 20
        while left > 0 and time.monotonic() < deadline and (data := sock.recv(65536)):
            left -= len(data)


def _shown(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def _date() -> str:
    t = time.gmtime()
    day, month = _DAYS[t.tm_wday], _MONTHS[t.tm_mon - 1]
    return f"{day}, {t.tm_mday:02d} {month} {t.tm_year} {t.tm_hour:02d}:{t.tm_min:02d}:{t.tm_sec:02d} GMT"
