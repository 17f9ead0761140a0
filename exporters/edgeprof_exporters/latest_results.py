"""The newest benchmark results, re-read when the store has changed."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from edgeprof.results.place import data_dir
from edgeprof_exporters.logs import event
from edgeprof_exporters.thrift.spawn import output_of

if TYPE_CHECKING:
    from pathlib import Path

    from edgeprof_exporters.exposition import Samples

#: The store's file (edgeprof.results.store.FILE).
STORE = "results.sqlite3"
_PATIENCE_S = 60.0
#: More model × variant × runtime × scenario than this are not shown, and no more series than this: a result has 17, a
#: language model's some 45.
MOST_RESULTS, MOST_SERIES = 80, 1300


class LatestResults:
    """What the store holds. Thread-safe.

    Args:
        directory: Where the store is; None: this user's data directory.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._rows: dict[str, list[tuple[list[str], Any]]] = {}
        self._seen: object = None

    def move(self, directory: Path | None) -> None:
        """Read another store from the next ``refresh`` on."""
        self._directory, self._seen = directory, None

    def samples(self) -> Samples:
        """What was read last."""
        with self._lock:
            return dict(self._rows)

    def refresh(self) -> None:
        """Read the store if it has changed since the last time. What cannot be read leaves the old rows."""
        directory = self._directory or data_dir()
        seen = _stamp(directory)
        if seen == self._seen:
            return
        self._seen = seen
        if not any(seen):
            rows: Any = {}
        else:
            rows = self._read(directory)
            if rows is None:
                return
        with self._lock:
            self._rows = limited(rows)

    def _read(self, directory: Path) -> Any:
        """The reader's rows; None, with a line in the log, where it did not succeed."""
        text, status = output_of(
            [sys.executable, "-m", "edgeprof_exporters.results_reader", os.fspath(directory)], _PATIENCE_S
        )
        if status == 0:
            with suppress(ValueError):
                return json.loads(text)
        lines = text.decode("utf-8", "replace").strip().splitlines()
        event(
            logging.WARNING,
            "the benchmark store cannot be read",
            directory=str(directory),
            error=lines[-1] if lines else f"exit status {status}",
        )
        return None


def limited(rows: dict[str, list[tuple[list[str], Any]]]) -> dict[str, list[tuple[list[str], Any]]]:
    """The rows of the newest results, whole: at most ``MOST_RESULTS`` of them, and ``MOST_SERIES`` series."""
    stamps = sorted(rows.get("edgeprof_bench_last_run_timestamp_seconds", []), key=lambda row: row[1], reverse=True)
    sizes: Counter[tuple[str, ...]] = Counter()
    for all_rows in rows.values():
        for labels, value in all_rows:
            # A summary: its quantiles, the sum and the count.
            sizes[tuple(labels[:4])] += len(value[0]) + 2 if isinstance(value, (list, tuple)) else 1
    shown: set[tuple[str, ...]] = set()
    series = 0
    for labels, _ in stamps[:MOST_RESULTS]:
        series += sizes[tuple(labels)]
        if series > MOST_SERIES:
            break
        shown.add(tuple(labels))
    if len(shown) == len(stamps):
        return rows
    event(logging.WARNING, "only the newest benchmark results are shown", shown=len(shown), stored=len(stamps))
    return {name: [row for row in all_rows if tuple(row[0][:4]) in shown] for name, all_rows in rows.items()}


def _stamp(directory: Path) -> tuple[object, ...]:
    """What changes when the store is written: SQLite appends to its log first."""
    return tuple(_stat(directory / name) for name in (STORE, f"{STORE}-wal"))


def _stat(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
