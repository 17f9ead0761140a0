"""The newest benchmark results, which are read again when the store has changed."""

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
#: Most results (model × variant × runtime × scenario) and most series that are shown. A result has 17 series, that of a
#: language model about 45.
MOST_RESULTS, MOST_SERIES = 80, 1300


class LatestResults:
    """The newest results of the store. The methods are thread-safe.

    Args:
        directory: Folder of the store; None: this user's data directory.
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
        """The samples that were read last."""
        with self._lock:
            return dict(self._rows)

    def refresh(self) -> None:
        """Read the store if it has changed; if it cannot be read, the old rows stay."""
        directory = self._directory or data_dir()
        seen = _store_stamp(directory)
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
        """Run the reader and return its rows; None, with a line in the log, if it fails."""
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
    """The rows of the newest results, at most ``MOST_RESULTS`` results and ``MOST_SERIES`` series, none in part."""
    stamps = sorted(rows.get("edgeprof_bench_last_run_timestamp_seconds", []), key=lambda row: row[1], reverse=True)
    sizes: Counter[tuple[str, ...]] = Counter()
    for all_rows in rows.values():
        for labels, value in all_rows:
            # A summary has a series for each quantile, the sum and the count.
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


def _store_stamp(directory: Path) -> tuple[object, ...]:
    """A value that changes when the store is written; SQLite first appends to its write-ahead log."""
    return tuple(_file_stamp(directory / name) for name in (STORE, f"{STORE}-wal"))


def _file_stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
