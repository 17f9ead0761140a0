"""The store: every result measured on this device, in one SQLite file under ``EDGEPROF_DATA_DIR``.

The store uses write-ahead logging and one transaction per result: a crash leaves only whole results, and a daemon may
read while a benchmark writes. A failure raises StoreError; a caller that holds a result reports it as a warning and
continues.
"""

from __future__ import annotations

import contextlib
import sqlite3
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import msgspec

from edgeprof.errors import EdgeprofError, InputError
from edgeprof.results import document
from edgeprof.results.ids import resolve_id, tail_of
from edgeprof.results.migrations import MIGRATIONS
from edgeprof.results.place import data_dir, make_private
from edgeprof.results.rows import insert_result

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from edgeprof.results.schema import Result, Variant

__all__ = ["BUSY_TIMEOUT_S", "FILE", "Entry", "Newest", "Store", "StoreError", "data_dir"]

FILE = "results.sqlite3"
#: Seconds to wait for another writer; writing a result takes milliseconds.
BUSY_TIMEOUT_S = 10.0
#: The first versions of the tables with a fleet's jobs, and with names and tags of results.
_VERSION_WITH_JOBS, _VERSION_WITH_NAMES = 2, 3


def _decode(text: object, source: str) -> Result:
    """Read a stored result; a damaged store may have a number or nothing in the place of its text.

    Raises:
        InputError: See ``document.from_json``.
    """
    return document.from_json(text if isinstance(text, str | bytes) else "", source=source)


class StoreError(EdgeprofError):
    """Raised if the store cannot be read or written.

    A measured result is still in memory then: the caller warns, prints it and continues.
    """


@dataclass(frozen=True)
class Entry:
    """One variant of one stored result, as history lists it: energies in J per ``unit``, the latency of a call in s.

    ``name`` is the name that the user gave the run, or empty; ``tags`` are sorted.
    """

    id: str
    created: str
    board: str
    scenario: str
    interrupted: bool
    model: str
    variant: str
    runtime: str
    device: str
    status: str
    provenance: str
    energy_j: float | None
    energy_u_j: float | None
    latency_p50_s: float | None
    accuracy: float | None
    name: str = ""
    tags: tuple[str, ...] = ()
    unit: str = "inference"


@dataclass(frozen=True)
class Newest:
    """The newest result of one model × variant × runtime × scenario."""

    result: Result
    variant: Variant


class Store:
    """The store of one data directory. The file is opened or created only when a method needs it.

    Args:
        directory: The directory of the file; ``data_dir()`` by default.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = data_dir() if directory is None else directory
        self.path = self.directory / FILE

    def save(self, result: Result) -> None:
        """Store a result; a result that is saved again, with more variants, replaces the one with its id.

        Raises:
            StoreError: The result could not be stored; the object itself is unchanged.
        """
        with self._writing() as db:
            taken = db.execute("SELECT created FROM results WHERE id = ?", (result.id,)).fetchone()
            if taken and taken[0] != result.created:
                raise StoreError(
                    f"the store {self.path} already holds another result named {result.id}",
                    remedy="Write this one to a file: -o result.json",
                )
            db.execute("DELETE FROM results WHERE id = ?", (result.id,))
            insert_result(db, result)

    def save_job(self, result: Result, key: str, device: str) -> Result:
        """Store the result of a fleet's job, unless the job has one: a result that arrives twice is stored once.

        Results of two devices may have the same id, because an id is unique on its device only; the id of the later
        one is then extended by the beginning of its job's key.

        Args:
            result: The result.
            key: The job's key.
            device: The device's name in the inventory.

        Returns:
            The stored result.

        Raises:
            StoreError: The result could not be stored.
        """
        with self._writing() as db:
            stored = db.execute(
                "SELECT json FROM results JOIN jobs ON jobs.result_id = results.id WHERE jobs.key = ?", (key,)
            ).fetchone()
            if stored:
                return _decode(stored[0], f"the stored result of job {key[:12]}")
            if db.execute("SELECT 1 FROM results WHERE id = ?", (result.id,)).fetchone():
                result = msgspec.structs.replace(result, id=f"{result.id}{key[:6]}")
            insert_result(db, result)
            received = datetime.now(timezone.utc).isoformat(timespec="seconds")
            db.execute("INSERT INTO jobs VALUES (?, ?, ?, ?)", (key, device, result.id, received))
        return result

    def jobs(self) -> list[tuple[str, Result]]:
        """Return the results of a fleet's jobs, each after the name of its device, newest first."""
        with self._reading() as db:
            if db is None or self._version(db) < _VERSION_WITH_JOBS:
                return []
            stored = db.execute(
                """SELECT jobs.device, results.id, results.json FROM jobs JOIN results ON jobs.result_id = results.id
                   ORDER BY created_utc DESC, results.rowid DESC"""
            ).fetchall()
        return [(device, _decode(text, f"stored result {result_id}")) for device, result_id, text in stored]

    def job_keys(self) -> set[str]:
        """Return the keys of all jobs that have a result in this store."""
        with self._reading() as db:
            if db is None or self._version(db) < _VERSION_WITH_JOBS:
                return set()
            return {row[0] for row in db.execute("SELECT key FROM jobs")}

    def find(self, reference: str) -> Result:
        """Find a stored result by its name or id, the id's beginning or last part (``k3f``), ``last`` or ``last~1``.

        Raises:
            InputError: No result or several results match; the remedy lists candidates.
            StoreError: The store cannot be read.
        """
        with self._reading() as db:
            if db is None:
                raise self._not_found(reference, [])
            chosen = self._chosen(db, reference)
            (text,) = db.execute("SELECT json FROM results WHERE id = ?", (chosen,)).fetchone() or (None,)
        return _decode(text, f"stored result {chosen}")

    def history(
        self, *, limit: int | None = 20, model: str | None = None, tag: str | None = None, failed: bool | None = None
    ) -> list[Entry]:
        """List the variants of the last ``limit`` results, newest result first; the list is empty without a store.

        Args:
            limit: How many results (not variants); None for all.
            model: Only results that hold a model of this name.
            tag: Only results with this tag.
            failed: Only results in which nothing could be measured (True), or only the others (False).
        """
        with self._reading() as db:
            if db is None:
                return []
            names, tags = self._labels(db)
            rows = db.execute(
                """SELECT r.id, r.created, r.board, r.scenario, r.interrupted, v.model, v.variant, v.runtime, v.device,
                          v.status, v.provenance, v.energy_j, v.energy_u_j, v.latency_p50_s, v.accuracy,
                          CASE json_valid(r.json) WHEN 1 THEN COALESCE(
                              json_extract(r.json, '$.variants[' || v.position || '].workloads[0].unit'), 'inference'
                          ) ELSE 'inference' END
                   FROM (SELECT *, rowid AS row FROM results
                         WHERE (:model IS NULL OR id IN (SELECT result_id FROM variants WHERE model = :model))
                           AND (:failed IS NULL OR :failed = NOT EXISTS
                                (SELECT 1 FROM variants WHERE result_id = id AND status <> 'failed'))
                           AND (:tagged IS NULL OR instr(:tagged, '|' || id || '|'))
                         ORDER BY created_utc DESC, rowid DESC LIMIT :limit) AS r
                   JOIN variants AS v ON v.result_id = r.id
                   WHERE :model IS NULL OR v.model = :model
                   ORDER BY r.created_utc DESC, r.row DESC, v.position""",
                {
                    "model": model,
                    "limit": -1 if limit is None else limit,
                    "failed": None if failed is None else int(failed),
                    "tagged": None if tag is None else f"|{'|'.join(key for key in tags if tag in tags[key])}|",
                },
            ).fetchall()
        return [
            Entry(  # type: ignore[call-arg] # a row's length is not in its type
                *row[:4], bool(row[4]), *row[5:15], names.get(row[0], ""), tags.get(row[0], ()), row[15]
            )
            for row in rows
        ]

    def label(
        self, reference: str, *, name: str | None = None, tags: Sequence[str] = (), untag: Sequence[str] = ()
    ) -> str:
        """Name a stored result (an empty name removes its name), add tags and remove tags; return its id.

        Raises:
            InputError: There is no such result, or the name means another result.
            StoreError: The store cannot be written.
        """
        with self._writing() as db:
            chosen = self._chosen(db, reference)
            if name is not None:
                taken = db.execute("SELECT result_id FROM names WHERE name = ?", (name,)).fetchone()
                if name and (
                    (taken and taken[0] != chosen) or name.startswith("last") or resolve_id(name, self._ids(db))
                ):
                    raise InputError(
                        f"{name!r} means a stored result already", remedy=f"See which: edgeprof history {name}"
                    )
                db.execute("DELETE FROM names WHERE result_id = ?", (chosen,))
                if name:
                    db.execute("INSERT INTO names VALUES (?, ?)", (chosen, name))
            db.executemany("INSERT OR IGNORE INTO tags VALUES (?, ?)", [(chosen, tag) for tag in tags])
            db.executemany("DELETE FROM tags WHERE result_id = ? AND tag = ?", [(chosen, tag) for tag in untag])
        return chosen

    def delete(self, reference: str) -> str:
        """Delete a stored result and return its id.

        Raises:
            InputError: There is no such result.
            StoreError: The store cannot be written.
        """
        with self._writing() as db:
            chosen = self._chosen(db, reference)
            db.execute("DELETE FROM results WHERE id = ?", (chosen,))  # its variants go with it
            for table in ("names", "tags"):
                db.execute(f"DELETE FROM {table} WHERE result_id = ?", (chosen,))  # noqa: S608 - our own tables
        return chosen

    def move(self, reference: str, directory: Path) -> str:
        """Move a stored result, with its name and tags, to the store of another data directory; return its id.

        The result is deleted in this store only after the other one has stored it.

        Raises:
            InputError: There is no such result, or the directory is this store's own.
            StoreError: One of the stores cannot be written, or the other one holds another result with this id.
        """
        other = Store(directory)
        if other.path.resolve() == self.path.resolve():
            raise InputError(f"{directory} is where the runs lie already", remedy="Give another data directory.")
        result = self.find(reference)
        with self._reading() as db:
            names, tags = self._labels(db) if db is not None else ({}, {})
        other.save(result)
        other.label(result.id, name=names.get(result.id), tags=tags.get(result.id, ()))
        return self.delete(result.id)

    def all(self) -> list[Result]:
        """Return every stored result, newest first; the list is empty without a store.

        Raises:
            StoreError: The store cannot be read.
        """
        with self._reading() as db:
            if db is None:
                return []
            stored = db.execute("SELECT id, json FROM results ORDER BY created_utc DESC, rowid DESC").fetchall()
        return [_decode(text, f"stored result {key}") for key, text in stored]

    def models(self) -> list[str]:
        """Return the names of all models that have a result."""
        with self._reading() as db:
            if db is None:
                return []
            return [row[0] for row in db.execute("SELECT DISTINCT model FROM variants ORDER BY model")]

    def newest(self) -> list[Newest]:
        """Return the newest of each model × variant × runtime × scenario, failed ones included, for the exporter."""
        with self._reading() as db:
            if db is None:
                return []
            # SQLite takes the bare columns from the row that has the maximum (its documentation, "Bare columns in an
            # aggregate query").
            newest_rows = db.execute(
                """SELECT result_id, position, MAX(created_utc || result_id) FROM variants
                   GROUP BY model, variant, runtime, scenario ORDER BY model, variant, runtime, scenario"""
            ).fetchall()
            results = {
                key: _decode(text, f"stored result {key}")
                for key in {row[0] for row in newest_rows}
                for (text,) in db.execute("SELECT json FROM results WHERE id = ?", (key,))
            }
        return [  # in a damaged store, a row may name a result or a variant that does not exist
            Newest(results[key], results[key].variants[position])
            for key, position, _ in newest_rows
            if key in results and position in range(len(results[key].variants))
        ]

    def _chosen(self, db: sqlite3.Connection, reference: str) -> str:
        """Return the id of the result that a reference means.

        Raises:
            InputError: No result or several results match.
        """
        names, _ = self._labels(db)
        named = next((key for key, name in names.items() if name == reference), None)
        known = self._ids(db)
        chosen = named if named in known else resolve_id(reference, known)
        if chosen is None:
            raise self._not_found(reference, known)
        return chosen

    def _ids(self, db: sqlite3.Connection) -> list[str]:
        """Return the ids of all results, newest first."""
        return [row[0] for row in db.execute("SELECT id FROM results ORDER BY created_utc DESC, rowid DESC")]

    def _labels(self, db: sqlite3.Connection) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
        """Return the mappings id → name and id → tags; both are empty in a store of an earlier edgeprof."""
        if self._version(db) < _VERSION_WITH_NAMES:
            return {}, {}
        tags: dict[str, tuple[str, ...]] = {}
        for key, tag in db.execute("SELECT result_id, tag FROM tags ORDER BY tag"):
            tags[key] = (*tags.get(key, ()), tag)
        return dict(db.execute("SELECT result_id, name FROM names").fetchall()), tags

    def _not_found(self, reference: str, known: list[str]) -> InputError:
        near = [
            name for name in known if reference and (name.startswith(reference) or tail_of(name).startswith(reference))
        ]
        if near:
            return InputError(
                f"{reference!r} fits {len(near)} stored results",
                remedy=f"Say which: {', '.join(near[:5])}{' …' if len(near) > 5 else ''}",
            )
        if not known:
            return InputError(
                f"there is no result {reference!r}: nothing is stored in {self.directory}",
                remedy="Measure something first: edgeprof bench MODEL",
            )
        return InputError(
            f"no stored result is named {reference!r}",
            remedy=f"The newest: {', '.join(known[:3])}; edgeprof history lists all.",
        )

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        try:
            make_private(self.directory, FILE)
        except OSError as error:
            raise StoreError(
                f"results cannot be kept in {self.directory}: {error.strerror}", remedy=_ELSEWHERE
            ) from None
        with self._translate_errors("kept"), contextlib.closing(self._connect(f"file:{_quote_path(self.path)}")) as db:
            db.execute("PRAGMA journal_mode = WAL")  # SQLite keeps its default where the file system has no WAL
            db.execute("BEGIN IMMEDIATE")
            try:
                self._migrate(db)
                yield db
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection | None]:
        """Yield a connection for reading; None if nothing was ever stored."""
        if not self.path.exists():
            yield None
            return
        with self._translate_errors("read"), contextlib.closing(self._open_for_reading()) as db:
            yield db if self._version(db) else None

    def _open_for_reading(self) -> sqlite3.Connection:
        """Open the store read-only; on a read-only file system, which allows no lock file, open it as immutable."""
        name = f"file:{_quote_path(self.path)}"
        db = self._connect(f"{name}?mode=ro")
        try:
            db.execute("SELECT COUNT(*) FROM sqlite_master")
        except sqlite3.OperationalError:
            db.close()
            db = self._connect(f"{name}?mode=ro&immutable=1")
        return db

    def _connect(self, uri: str) -> sqlite3.Connection:
        db = sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        db.execute("PRAGMA foreign_keys = ON")
        return db

    def _version(self, db: sqlite3.Connection) -> int:
        if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'schema_version'").fetchone():
            return 0
        (version,) = db.execute("SELECT COALESCE(MAX(version), 0) FROM schema_version").fetchone()
        if version > len(MIGRATIONS):
            raise StoreError(
                f"the store {self.path} was written by a newer edgeprof (version {version}; known: {len(MIGRATIONS)})",
                remedy="Update edgeprof, or set EDGEPROF_DATA_DIR to another directory.",
            )
        return int(version)

    def _migrate(self, db: sqlite3.Connection) -> None:
        db.execute("CREATE TABLE IF NOT EXISTS schema_version (version INTEGER PRIMARY KEY, applied TEXT NOT NULL)")
        for version in range(self._version(db) + 1, len(MIGRATIONS) + 1):
            for statement in MIGRATIONS[version - 1]:
                db.execute(statement)
            now = datetime.now(timezone.utc).isoformat(timespec="seconds")
            db.execute("INSERT INTO schema_version VALUES (?, ?)", (version, now))

    @contextlib.contextmanager
    def _translate_errors(self, done: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, UnicodeError) as error:  # UnicodeError: a damaged file may hold invalid UTF-8
            text = str(error) if isinstance(error, sqlite3.Error) else "it is malformed"
            remedy = _ELSEWHERE
            if "full" in text:
                remedy = "Free some space, or set EDGEPROF_DATA_DIR to a directory on another disk."
            elif "locked" in text or "busy" in text:
                remedy = "Another process holds it; try again when that is done."
            elif "malformed" in text or "not a database" in text:
                remedy = f"Move {self.path} away: a new one is begun."
            raise StoreError(f"results cannot be {done} in {self.path}: {text}", remedy=remedy) from None


_ELSEWHERE = "Set EDGEPROF_DATA_DIR to a directory that you can write, or write results with -o FILE."


def _quote_path(path: Path) -> str:
    from urllib.parse import quote  # noqa: PLC0415 - only a store that is used needs it

    return quote(str(path.absolute()))
