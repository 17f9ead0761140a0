"""The messages between the parent and a worker: one JSON object per line, both ways.

Python 3.6 grammar: this file runs in the worker too. Requests carry ``do`` and arguments; each gets exactly one answer,
``{"ok": true, …}`` or ``{"ok": false, "kind": …, "message": …, "remedy": …}``. Times are CLOCK_MONOTONIC seconds, which
parent and worker share. Arrays of times and tensors travel as raw bytes after the line, whose key ``blobs`` lists their
lengths.
"""

import json
import select
import socket
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple


def encode(message: Dict[str, Any]) -> bytes:
    """Encode a message as one line of JSON in UTF-8 with its line end; NaN and infinities as Python writes them."""
    return json.dumps(message, separators=(",", ":"), allow_nan=True).encode("utf-8") + b"\n"


def decode(line: bytes) -> Dict[str, Any]:
    """Decode the message in a line.

    Raises:
        ValueError: the line is no JSON object in UTF-8.
    """
    try:
        message = json.loads(line.decode("utf-8"))
    except RecursionError:
        raise ValueError("a message is nested too deeply") from None
    if not isinstance(message, dict):
        raise ValueError("a message is an object, got " + type(message).__name__)  # noqa: TRY004 - bad data, not a bad call
    return message


#: The longest line of a message, and the most bytes that may follow it as blobs.
LIMIT_LINE = 16 << 20
LIMIT_BLOBS = 4 << 30


class Connection:
    """One end of the socket.

    Args:
        sock: A connected stream socket. If it has a timeout, ``send`` and ``receive`` call ``check`` whenever they have
            waited that long; an exception of ``check`` ends the wait.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._pending = bytearray()

    def send(
        self, message: Dict[str, Any], blobs: Sequence[bytes] = (), check: Optional[Callable[[], None]] = None
    ) -> None:
        """Send one message.

        Raises:
            OSError: the other side has closed the connection.
        """
        if blobs:
            message = dict(message, blobs=[len(blob) for blob in blobs])
        for part in [encode(message)] + list(blobs):  # noqa: RUF005 - reads the same under 3.6 and stays a list
            rest = memoryview(part)
            while rest:
                try:
                    rest = rest[self._socket.send(rest) :]
                except socket.timeout:  # noqa: PERF203 - the wait is the point
                    if check is not None:
                        check()

    def receive(self, check: Optional[Callable[[], None]] = None) -> Tuple[Dict[str, Any], List[bytes]]:
        """Wait for the next message and return it with its blobs.

        Raises:
            EOFError: the other side has closed the connection.
            ValueError: the received bytes are no message, or are beyond ``LIMIT_LINE`` or ``LIMIT_BLOBS``.
        """
        end = self._pending.find(b"\n")
        while end < 0:
            seen = len(self._pending)
            if seen > LIMIT_LINE:
                raise ValueError("a line has more than {} MiB".format(LIMIT_LINE >> 20))
            self._fill(check)
            end = self._pending.find(b"\n", seen)
        message = decode(self._take(end + 1, check))
        sizes = message.pop("blobs", [])
        if not isinstance(sizes, list) or not all(isinstance(size, int) and size >= 0 for size in sizes):
            raise ValueError("the sizes of the bytes that follow are no sizes")
        if sum(sizes) > LIMIT_BLOBS:
            raise ValueError("more than {} GiB are to follow".format(LIMIT_BLOBS >> 30))
        return message, [self._take(size, check) for size in sizes]

    def has_unread(self) -> bool:
        """Whether bytes have arrived that nothing has asked for."""
        if self._pending:
            return True
        readable, _, _ = select.select([self._socket], [], [], 0)
        return bool(readable) and self._socket.recv(1, socket.MSG_PEEK) != b""

    def close(self) -> None:
        """Close this end; the other one then reads the end of the stream. Safe to call twice."""
        self._socket.close()

    def _take(self, size: int, check: Optional[Callable[[], None]]) -> bytes:
        while len(self._pending) < size:
            self._fill(check)
        taken = bytes(self._pending[:size])
        del self._pending[:size]
        return taken

    def _fill(self, check: Optional[Callable[[], None]]) -> None:
        while True:
            try:
                chunk = self._socket.recv(1 << 20)
                break
            except socket.timeout:
                if check is not None:
                    check()
            except ConnectionResetError:
                chunk = b""
                break
        if not chunk:
            raise EOFError("the connection was closed")
        self._pending += chunk
