"""The messages between a host and a device's door.

Each message is a length (4 bytes, big-endian), JSON of that length, and, if the JSON announces it, the bytes of one
file. Everything is limited: the length of the JSON, the number and the names of files, and the time for a message. A
request names files by their SHA-256 and never by a path.
"""

from __future__ import annotations

import hashlib
import json
import os
import select
import struct
import time
from typing import Annotated, Any

import msgspec
from msgspec import Meta

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

Sha256 = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
#: The name of a file without a folder: no slash, no colon, no leading dot or hyphen, no control characters.
FileName = Annotated[str, Meta(pattern=r"\A\w[\w.+=@,()\[\] -]{0,199}\Z")]
#: The name that a board's owner gives a microcontroller at one of its ports.
MCU_NAME = r"\A\w[\w.-]{0,99}\Z"
McuName = Annotated[str, Meta(pattern=MCU_NAME)]
FlagName = Annotated[str, Meta(pattern=r"\A[a-z][a-z-]{0,31}\Z")]
FlagValue = Annotated[str, Meta(max_length=200)]


class Message(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, tag_field="op"):
    """The base of all requests."""


class File(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, frozen=True):
    """A file that was already sent to the device."""

    name: FileName
    sha256: Sha256


class Expected(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The properties of the device in the inventory; None if the inventory does not state them.

    Attributes:
        board: The board's name, which was recorded when the device was added.
        machine: The hash of the device's machine-id.
        power_mode: The power mode in which the device must be measured.
    """

    board: str | None = None
    machine: str | None = None
    power_mode: str | None = None


class Hello(Message, tag="hello"):
    """Ask for the device's description."""


class Status(Message, tag="status"):
    """Ask for the description, the present measurement, the temperature, and the jobs of the device."""


class Put(Message, tag="put"):
    """Offer a file of ``size`` bytes. The device answers whether it needs the bytes, which then follow."""

    sha256: Sha256
    size: Annotated[int, Meta(ge=0, le=1 << 40)]


class Bench(Message, tag="bench"):
    """Ask for one measurement.

    Attributes:
        models: The files of each model, the one to load first; none for a microcontroller.
        mcu: A microcontroller by its owner's name for it, whose own firmware is measured.
        nonce: Distinguishes a measurement of a microcontroller from earlier ones, since its firmware may have changed.
        dataset: A file with labelled data.
        input_data: A file with real inputs.
        flags: Flags of ``edgeprof bench`` without their hyphens, each with its values.
        repeat: 1; a higher number requests a further measurement of the same.
        expected: The properties that the device must have.
        wait_s: How long to wait while another program measures, seconds.
        rest_s: How long the device must have rested since its last job, seconds.
        start_below_c: The temperature (°C) below which the hottest zone must be at the start.
    """

    models: Annotated[list[Annotated[list[File], Meta(min_length=1, max_length=64)]], Meta(max_length=64)]
    mcu: McuName | None = None
    nonce: Annotated[str, Meta(max_length=64)] = ""
    dataset: File | None = None
    input_data: File | None = None
    flags: dict[FlagName, Annotated[list[FlagValue], Meta(max_length=32)]] = {}
    repeat: Annotated[int, Meta(ge=1, le=1_000_000)] = 1
    expected: Expected = msgspec.field(default_factory=Expected)
    wait_s: Annotated[float, Meta(ge=0, le=86_400)] = 0.0
    rest_s: Annotated[float, Meta(ge=0, le=3_600)] = 0.0
    start_below_c: Annotated[float, Meta(ge=-40, le=125)] | None = None


class Fetch(Message, tag="fetch"):
    """Ask for the result of a job."""

    key: Sha256


class Cancel(Message, tag="cancel"):
    """End a job that is running; what it has measured is kept as an interrupted result."""

    key: Sha256


class Description(msgspec.Struct, kw_only=True):
    """A device's description of itself, which is the answer to ``hello``.

    Attributes:
        board: The board's name.
        machine: The hash of the machine's id; None if it has none.
        power_mode: The present power mode; None if it has none.
        time_s: The device's clock, seconds since the epoch.
        allow_code: Whether its owner allows models that are code.
        simulated: Whether it is a virtual board.
    """

    board: str
    machine: str | None
    power_mode: str | None
    time_s: float
    allow_code: bool
    simulated: bool


class State(Description, kw_only=True):
    """The answer to ``status``.

    Attributes:
        measuring: The program that measures there, since when and what; None if there is none.
        running: The key of the fleet's running job; None if there is none.
        temperature_c: The temperature of its hottest zone, °C; None if no zone has a reading.
        free_bytes: The free space for files, bytes; None if unknown.
        jobs: The newest finished jobs: key, length of the result in bytes, and end (seconds since the epoch).
    """

    measuring: str | None
    running: str | None
    temperature_c: float | None
    free_bytes: int | None
    jobs: Annotated[list[tuple[Sha256, int, float]], Meta(max_length=MOST_JOBS)]


Request = Hello | Status | Put | Bench | Fetch | Cancel


def job_key(request: Bench, *, machine: str | None, fingerprint: str, version: str) -> str:
    """Return the key of a job: a hash of the device, the models, the data, the flags and the version of edgeprof."""
    parts = [
        VERSION,
        machine,
        fingerprint,
        version,
        [[(file.name, file.sha256) for file in model] for model in request.models],
        [None if file is None else file.sha256 for file in (request.dataset, request.input_data)],
        sorted(request.flags.items()),
        request.repeat,
        *([request.mcu, request.nonce] if request.mcu is not None else []),
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


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


def parse_request(text: bytes) -> Request:
    """Parse and check a request.

    Raises:
        WireError: The text is not a request.
    """
    try:
        return msgspec.json.decode(text, type=Request)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(
            f"the request is refused: {str(error)[:300]}",
            remedy="A door knows hello, status, put, bench, fetch and cancel, and nothing else.",
        ) from None


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:  # noqa: PTH123 - a path-like of either kind
        while part := file.read(CHUNK):
            digest.update(part)
    return digest.hexdigest()
