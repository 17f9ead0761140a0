"""The flags of ``edgeprof bench`` that a fleet may give to a device."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from edgeprof.errors import InputError

if TYPE_CHECKING:
    from edgeprof.fleet.protocol import Bench

_INTEGER = re.compile(r"\d{1,9}", re.ASCII)
_NUMBER = re.compile(r"\d{1,9}(\.\d{1,9})?", re.ASCII)
_WORD = re.compile(r"\w[\w.+-]*", re.ASCII)
_DEVICE = re.compile(r"[a-z]\w*(:\d{1,3})?", re.ASCII)
_RAIL = re.compile(r"\w[\w .+@-]*")
_PAIR = re.compile(r"\w+=[\w.,x+-]*", re.ASCII)
_SHAPE = re.compile(r"\w[\w./:-]*=(scalar|\d+([x,]\d+)*)(:\w+)?", re.ASCII)
_NOTHING = re.compile(r"")
#: The flags of ``edgeprof bench`` that a fleet may give, with patterns for their values. None of them names a file, a
#: program or an address, loads code, or changes a setting of the device.
FLAGS = {
    **dict.fromkeys(
        ("threads", "batch", "streams", "windows", "prompt", "generate", "depth", "context", "seed"), _INTEGER
    ),
    **dict.fromkeys(("rate", "window", "warmup", "idle", "sample-rate", "estimate-power", "timeout"), _NUMBER),
    **dict.fromkeys(("runtime", "scenario", "preset", "metric", "sensor"), _WORD),
    "device": _DEVICE,
    "rail": _RAIL,
    "preprocess": _PAIR,
    "input": _SHAPE,
    "strict": _NOTHING,
}


def bench_flags(request: Bench) -> list[str]:
    """Return the flags of a request as arguments for ``edgeprof bench``.

    Raises:
        InputError: A flag is not in ``FLAGS``, or its value does not match the pattern.
    """
    arguments = []
    for name, values in request.flags.items():
        if name not in FLAGS:
            raise InputError(
                f"a fleet may not give --{name}", remedy=f"It may give {', '.join(f'--{flag}' for flag in FLAGS)}."
            )
        for value in values:
            if not FLAGS[name].fullmatch(value):
                raise InputError(f"--{name} {value!r} is refused by the device")
            arguments.append(f"--{name}={value}" if value else f"--{name}")
    return arguments
