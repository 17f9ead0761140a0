"""Names of runs: short enough to type, sortable by time, and unique enough to write without asking anybody."""

from __future__ import annotations

import secrets
from datetime import datetime, timezone

#: No 0/o and 1/l/i: an id is read from a screen and typed.
_ALPHABET = "23456789abcdefghjkmnpqrstuvwxyz"
_TAIL = 3


def new_id(now: datetime | None = None) -> str:
    """An id as ``20261121-1412-k3f``: the minute (UTC) and three letters, of which there are 29 791 in each minute.

    Args:
        now: The moment of the run; the present by default.
    """
    moment = (now or datetime.now(timezone.utc)).astimezone(timezone.utc)
    return f"{moment:%Y%m%d-%H%M}-" + "".join(secrets.choice(_ALPHABET) for _ in range(_TAIL))


def timestamp(now: datetime | None = None) -> str:
    """RFC 3339 with the local offset and milliseconds, for ``Result.created``."""
    return (now or datetime.now(timezone.utc)).astimezone().isoformat(timespec="milliseconds")
