"""The bytes between a host and a device's door: messages of a length (4 bytes, big-endian) and JSON, and files' bytes.

The length of a message and the time for it are limited. This module is separate from the kinds of messages
(edgeprof.fleet.protocol), so that a door answers ``hello`` and ``status`` without msgspec.
"""

from __future__ import annotations

import hashlib
import json
import os
import select
import struct
import time
from typing import Any

from edgeprof.errors import InputError

#: The version of the messages. A host rejects a device with another version.
VERSION = 1
#: The longest JSON of a message, in bytes.
LONGEST_HEADER = 256 << 10
#: The most jobs that a device lists; the results of older jobs can still be fetched.
MOST_JOBS = 1000
#: Bytes that are read or written at a time.
CHUNK = 1 << 20
#: The time limit of a message (s), and the slowest transfer of a file, which extends the limit.
MESSAGE_S, SLOWEST_BYTES_PER_S = 60.0, 10_000


class WireError(InputError):
    """Raised if the received bytes are not a message, or end in the middle of one."""


class NotAMessageError(WireError):
    """Raised if the received bytes do not begin like a message, because the other side is another program."""


class Wire:
    """Messages over two descriptors.

    Args:
        reading: The descriptor from which messages are read.
        writing: The descriptor to which messages are written.
    """

    def __init__(self, reading: int, writing: int) -> None:
        self._reading, self._writing = reading, writing

    def read(self, *, timeout_s: float | None = MESSAGE_S) -> bytes | None:
        """Read the JSON of the next message; return None if the other side has closed the connection.

        Args:
            timeout_s: The time limit of the message, seconds; None waits without a limit, as for a measurement.

        Raises:
            WireError: The message is too long, is incomplete, or does not arrive in time.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        head = self._read_some(4, deadline)
        if not head:
            return None
        head += self._read_exactly(4 - len(head), deadline)
        (length,) = struct.unpack(">I", head)
        if length > LONGEST_HEADER:
            raise NotAMessageError(
                f"a message begins with {head!r}, which is no length of a message",
                remedy="edgeprof door is started by sshd and spoken to by edgeprof fleet (docs/fleet.md).",
            )
        return self._read_exactly(length, deadline)

    def write(self, message: bytes) -> None:
        """Send one message's JSON."""
        self.write_bytes(struct.pack(">I", len(message)) + message)

    def say(self, content: dict[str, Any]) -> None:
        """Send one message that has no type of its own, such as an answer."""
        self.write(json.dumps(content).encode())

    def write_bytes(self, content: bytes) -> None:
        """Send raw bytes, such as a part of a file."""
        view = memoryview(content)
        while view:
            view = view[os.write(self._writing, view) :]

    def read_file(self, size: int) -> Any:
        """Yield the ``size`` bytes of a file, in parts.

        Raises:
            WireError: The file ends early, or arrives too slowly.
        """
        deadline = time.monotonic() + MESSAGE_S + size / SLOWEST_BYTES_PER_S
        left = size
        while left:
            part = self._read_some(min(left, CHUNK), deadline)
            if not part:
                raise WireError(f"a file stopped {left} bytes before its end")
            left -= len(part)
            yield part

    def _read_exactly(self, count: int, deadline: float | None) -> bytes:
        parts = []
        while count:
            part = self._read_some(count, deadline)
            if not part:
                raise WireError("a message stopped in the middle")
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def _read_some(self, count: int, deadline: float | None) -> bytes:
        poll = select.poll()
        poll.register(self._reading, select.POLLIN)
        left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
        if not poll.poll(None if left_s is None else 1000 * left_s):
            raise WireError("no message came in time")
        return os.read(self._reading, count)


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:  # noqa: PTH123 - a path-like of either kind
        while part := file.read(CHUNK):
            digest.update(part)
    return digest.hexdigest()
