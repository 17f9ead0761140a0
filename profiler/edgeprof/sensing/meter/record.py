"""A record that a meter's own program writes: CSV with columns time and watts."""

from __future__ import annotations

import csv
from datetime import datetime
from typing import TYPE_CHECKING

from edgeprof import whole_files
from edgeprof.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def read_record(path: Path) -> tuple[list[float], list[float]]:
    """Read the times (Unix s) and watts of a CSV file; a last line that is still being written is ignored.

    Both are empty while no line is complete, because many programs write only when their buffer is full.

    Raises:
        InputError: the file has another form; the sentence names the line.
    """
    times: list[float] = []
    watts: list[float] = []
    try:
        text = whole_files.read_text(path, "utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
    if not lines:
        return times, watts
    rows = _csv_rows(path, lines)
    columns = [name.strip().lower() for name in next(rows, (0, []))[1]]
    if "time" not in columns or "watts" not in columns:
        raise InputError(f"{path} has no columns time and watts", remedy="Its first line must name them: time,watts")
    at, value = columns.index("time"), columns.index("watts")
    for number, row in rows:
        if not row:
            continue
        try:
            times.append(_parse_time(row[at].strip()))
            watts.append(float(row[value]))
        except (ValueError, IndexError):
            raise InputError(
                f"{path}, line {number}: {','.join(row)[:200]!r} is no time and watts",
                remedy="Unix seconds or ISO 8601, then a number: 1763727000.25,12.5",
            ) from None
        if len(times) > 1 and times[-1] <= times[-2]:
            raise InputError(f"{path}, line {number}: time does not rise", remedy="Sort it by time.")
    return times, watts


def _csv_rows(path: Path, lines: list[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the cells of each line.

    Raises:
        InputError: the file is no CSV.
    """
    reader = csv.reader(lines)
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise InputError(f"{path} cannot be read as CSV: {error}") from None


def _parse_time(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
        return (moment if moment.tzinfo else moment.astimezone()).timestamp()
