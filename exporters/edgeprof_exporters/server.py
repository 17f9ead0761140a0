"""The HTTP server of the exposition: it limits every resource, and a slow client never blocks it.

Each connection is served by its own thread, which also does the TLS handshake. (The server of prometheus-client does
the handshake in the thread that accepts connections, so that one silent client stops every scrape.) A deadline applies
to a whole step and not to each byte, so that a client gains nothing by sending one byte per second. The server answers
only GET and HEAD.
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
from edgeprof_exporters.connections import Connection, HeadTooLongError, Places
from edgeprof_exporters.logs import event

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping, Sequence

#: Deadlines (s) for the TLS handshake, and for the client to read the answer to a bad request.
HANDSHAKE_S, LINGER_S = 5.0, 0.5
#: Most header lines of a request.
MOST_HEADERS = 100
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
class Request:
    """A request without a body. Header names are in lower case; lists in several header lines are joined."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    keep: bool = True


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


class BadRequestError(Exception):
    """A head that is not a valid request, with the status of the answer."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


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
    """Accepts connections in one thread, and serves each in a thread of its own.

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
        max_connections: int = 256,
    ) -> None:
        self._listeners = list(listeners)
        self._application = application
        self.guard = guard
        self._places = Places(max_connections)
        self._stopping = threading.Event()
        self._wake = socket.socketpair()
        self._thread = threading.Thread(target=self._accept, name="edgeprof web", daemon=True)

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
        for sock in self._listeners:
            sock.close()
        self._places.drain(drain_s)
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
                        try:
                            self._take(key.fileobj)  # type: ignore[arg-type]  # only sockets were registered
                        except Exception:  # whatever goes wrong with one connection, others are accepted
                            logging.getLogger("edgeprof.exporter").exception("a connection could not be accepted")

    def _take(self, listener: socket.socket) -> None:
        try:
            sock, address = listener.accept()
        except OSError as error:
            if error.errno not in _TRANSIENT:
                event(logging.WARNING, "a connection could not be accepted", error=str(error))
                self._places.make_room()  # out of descriptors or memory
            return
        connection = Connection(sock, str(address[0]))
        if not self._places.admit(connection):
            sock.close()
            return
        try:
            threading.Thread(target=self._serve, args=(connection,), name="edgeprof web client", daemon=True).start()
        except RuntimeError:
            event(logging.WARNING, "a connection could not be served: no more threads")
            self._places.leave(connection)
            sock.close()
            self._places.make_room()

    # -- one connection -----------------------------------------------------------------------------------------------

    def _serve(self, connection: Connection) -> None:
        try:
            with contextlib.suppress(OSError):
                connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._shake_hands(connection):
                while not self._stopping.is_set() and self._once(connection):
                    connection.rest()
        except Exception:
            logging.getLogger("edgeprof.exporter").exception("a connection failed")
        finally:
            with contextlib.suppress(OSError):
                connection.sock.close()
            self._places.leave(connection)

    def _shake_hands(self, connection: Connection) -> bool:
        """Do the TLS handshake if TLS is configured; return whether to go on."""
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

    def _once(self, connection: Connection) -> bool:
        """Serve one request; return whether the connection stays open."""
        try:
            head = connection.read_head()
            if head is None:
                return False
            request = parse_head(head)
        except HeadTooLongError as error:
            return self._refuse(connection, 431, str(error))
        except BadRequestError as error:
            return self._refuse(connection, error.status, str(error))
        # begin() comes after the check of the password: until then the connection may be closed to make room.
        response = self.guard.refuses(request) if self.guard else None
        connection.begin()
        response = response or self._answer(request)
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


def parse_head(head: bytes) -> Request:
    """Parse a request's head (RFC 9112) strictly: what two programs could understand differently is refused.

    Raises:
        BadRequestError: the head is not a valid request.
    """
    first, *lines = head.decode("latin-1").split("\r\n")
    parts = first.split(" ")
    if len(parts) != 3 or not parts[0].isalpha() or not parts[1].startswith("/") or not set(parts[1]) <= _TARGET:
        raise BadRequestError(400, "not a request")
    method, target, version = parts
    if version not in {"HTTP/1.1", "HTTP/1.0"}:
        raise BadRequestError(505, "only HTTP/1.0 and HTTP/1.1")
    if len(lines) > MOST_HEADERS:
        raise BadRequestError(431, "too many headers")
    headers = _parse_headers(lines)
    _check_framing(headers, version)
    path, _, query = target.partition("?")
    options = {option.strip() for option in headers.get("connection", "").lower().split(",")}
    keep = "close" not in options and (version == "HTTP/1.1" or "keep-alive" in options)
    return Request(method, path, query, headers, keep)


def _parse_headers(lines: Sequence[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, text = line.partition(":")
        value = text.strip(" \t")
        if not colon or not name or not set(name) <= _TOKEN or set(value) & _NEVER:
            raise BadRequestError(400, "not a header")
        name = name.lower()
        if name in headers and name not in _LISTS:
            raise BadRequestError(400, f"more than one {name}")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _check_framing(headers: Mapping[str, str], version: str) -> None:
    """Refuse requests on whose host or end proxies may disagree.

    Raises:
        BadRequestError: the host is missing or not valid, the length is not clear, or there is a body.
    """
    if version == "HTTP/1.1" and "host" not in headers:
        raise BadRequestError(400, "no host")
    if not set(headers.get("host", "")) <= _HOST:
        raise BadRequestError(400, "not a host")
    length, coding = headers.get("content-length"), headers.get("transfer-encoding")
    if coding is not None and (length is not None or version == "HTTP/1.0" or coding.lower() != "chunked"):
        raise BadRequestError(400, "a body of which the length is not clear")
    if length is not None and not (length.isascii() and length.isdecimal()):
        raise BadRequestError(400, "a body of which the length is not clear")
    if coding is not None or (length or "").strip("0"):
        raise BadRequestError(413, "a request has no body here")


_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
#: The characters of a request's target (RFC 3986), and those that lenient clients do not escape in a query.
_TARGET = frozenset(map(chr, range(0x21, 0x7F))) - frozenset('#"<>\\^`{|}')
#: The characters of a host with its port.
_HOST = frozenset("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-._~!$&'()*+,;=:[]%")
#: The control characters that the value of a header must not contain; a tab is allowed.
_NEVER = frozenset(map(chr, range(0x20))) - {"\t"} | {"\x7f"}
#: The headers that may occur in several lines, since their values are lists (RFC 9110, 5.3).
_LISTS = frozenset(
    {
        "accept",
        "accept-encoding",
        "accept-language",
        "cache-control",
        "connection",
        "forwarded",
        "pragma",
        "te",
        "trailer",
        "upgrade",
        "via",
        "x-forwarded-for",
    }
)
_TRANSIENT = {11, 103, 71}  # EAGAIN, ECONNABORTED, EPROTO


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
