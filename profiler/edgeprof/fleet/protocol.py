"""The kinds of messages between a host and a device's door.

Each message is JSON, and, if the JSON announces it, the bytes of one file follow (edgeprof.fleet.framing). Everything
is limited: the length of the JSON, the number and the names of files, and the time for a message. A request names files
by their SHA-256 and never by a path.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated

import msgspec
from msgspec import Meta

from edgeprof.fleet.framing import MOST_JOBS, VERSION, WireError

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
