"""Requests that two proxies could read differently, so that one lets through what the other never saw."""

from __future__ import annotations

import contextlib
import socket

import pytest

from edgeprof_exporters.http_request import Request, parse_head
from edgeprof_exporters.server import Response, Server, listen


class Hello:
    def answer(self, request: Request) -> Response:
        return Response(200, request.path.encode())


@pytest.fixture
def port():
    server = Server(listen(["127.0.0.1:0"]), Hello())
    server.start()
    yield int(server.addresses[0].rpartition(":")[2])
    server.stop()


@pytest.mark.parametrize(
    "lines",
    [
        b"",  # HTTP/1.1 needs a host
        b"Host: x\r\nHost: y\r\n",
        b"Host: x\r\nHost: x\r\n",
        b"Host: x y\r\n",
        b"Host: x/y\r\n",
        b"Host: x\r\nContent-Length: 5\r\nContent-Length: 0\r\n",
        b"Host: x\r\nContent-Length: 0\r\nContent-Length: 5\r\n",
        b"Host: x\r\nContent-Length: 0\r\ncontent-length: 0\r\n",
        b"Host: x\r\nContent-Length: +0\r\n",
        b"Host: x\r\nContent-Length: -0\r\n",
        b"Host: x\r\nContent-Length: 0, 5\r\n",
        b"Host: x\r\nContent-Length: 0x0\r\n",
        b"Host: x\r\nContent-Length: \r\n",
        b"Host: x\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n",
        b"Host: x\r\nTransfer-Encoding: identity\r\n",
        b"Host: x\r\nTransfer-Encoding: xchunked\r\n",
        b"Host: x\r\nTransfer-Encoding: chunked, chunked\r\n",
        b"Host: x\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
        b"Host: x\r\nTransfer-Encoding : chunked\r\n",
        b"Host: x\r\nTransfer-Encoding:\x0bchunked\r\n",
        b"Host: x\r\nX: a\nTransfer-Encoding: chunked\r\n",
        b"Host: x\r\nX: a\rTransfer-Encoding: chunked\r\n",
        b"Host: x\r\nX: a\x00b\r\n",
        b"Host: x\r\nAuthorization: Basic a\r\nAuthorization: Basic b\r\n",
    ],
)
def test_a_request_that_two_readers_could_understand_differently_gets_400_and_the_connection_ends(
    port: int, lines: bytes
) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n" + lines + b"\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while data := sock.recv(65536):
                answer += data
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("target", [b"/#x", b"/a\tb", b"/a\x7f", b"/\xff", b"/a\\b", b"//x{y}"])
def test_a_target_with_characters_that_no_target_has_gets_400(port: int, target: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        sock.sendall(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        assert sock.recv(100).startswith(b"HTTP/1.1 400 ")


def test_lists_may_come_in_several_lines() -> None:
    request = parse_head(b"GET / HTTP/1.1\r\nHost: x\r\nAccept: a\r\nAccept: b\r\nConnection: x, Close")
    assert request.headers["accept"] == "a, b"
    assert not request.keep
