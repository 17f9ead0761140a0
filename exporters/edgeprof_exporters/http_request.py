"""Requests of HTTP/1: the strict parser of their heads (RFC 9112)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: Most header lines of a request.
MOST_HEADERS = 100
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


@dataclass
class Request:
    """A request without a body. Header names are in lower case; lists in several header lines are joined."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    keep: bool = True


class BadRequestError(Exception):
    """A head that is not a valid request, with the status of the answer."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


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
