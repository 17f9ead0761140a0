"""The ids of results: short enough to type, sortable by time, and unique without a central register."""

from __future__ import annotations

import secrets
from datetime import datetime, timezone

#: Without 0, o, 1, l and i, which look alike: people read an id from a screen and type it.
_ALPHABET = "23456789abcdefghjkmnpqrstuvwxyz"
_TAIL = 3


def new_id(now: datetime | None = None) -> str:
    """Make an id such as ``20261121-1412-k3f``: the minute (UTC) and one of 29 791 combinations of three characters.

    Args:
        now: The time of the run; the current time by default.
    """
    moment = (now or datetime.now(timezone.utc)).astimezone(timezone.utc)
    return f"{moment:%Y%m%d-%H%M}-" + "".join(secrets.choice(_ALPHABET) for _ in range(_TAIL))


def timestamp(now: datetime | None = None) -> str:
    """Format a time by RFC 3339 with the local offset and milliseconds, for ``Result.created``."""
    return (now or datetime.now(timezone.utc)).astimezone().isoformat(timespec="milliseconds")


def tail_of(name: str) -> str:
    """Return the last part of an id, such as ``k3f``."""
    return name.rpartition("-")[2]


def resolve_id(reference: str, known: list[str]) -> str | None:
    """Return the id that a reference means; None if none or several match. ``known`` is sorted newest first."""
    if reference in known:
        return reference
    word, _, back = reference.partition("~")
    if word == "last" and (back.isdecimal() or back == ""):
        return dict(enumerate(known)).get(int(back or 0))
    if not reference:
        return None
    fits = [name for name in known if name.startswith(reference) or tail_of(name).startswith(reference)]
    return fits[0] if len(fits) == 1 else None
