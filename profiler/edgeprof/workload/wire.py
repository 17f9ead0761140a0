"""What crosses the socket between the parent and a worker: one JSON object per line, both ways.

Python 3.6 grammar: this file runs in the worker too. Requests carry ``do`` and arguments; each gets exactly one answer,
``{"ok": true, …}`` or ``{"ok": false, "kind": …, "message": …, "remedy": …}``. Times are CLOCK_MONOTONIC seconds, which
parent and worker share; arrays of them travel as base64 of little-endian float64.
"""

import base64
import json
from array import array
from typing import Any, Dict, Iterable


def pack(times: Iterable[float]) -> str:
    """Seconds as base64 of float64."""
    return base64.b64encode(array("d", times).tobytes()).decode("ascii")


def unpack(text: str) -> "array[float]":
    """The inverse of ``pack``."""
    times = array("d")
    times.frombytes(base64.b64decode(text))
    return times


def encode(message: Dict[str, Any]) -> bytes:
    return json.dumps(message, separators=(",", ":"), allow_nan=True).encode("utf-8") + b"\n"


def decode(line: bytes) -> Dict[str, Any]:
    message = json.loads(line.decode("utf-8"))
    if not isinstance(message, dict):
        raise ValueError("a message is an object, got " + type(message).__name__)  # noqa: TRY004 - bad data, not a bad call
    return message
