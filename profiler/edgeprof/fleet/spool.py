"""A device's storage for the fleet: files by their SHA-256, and a folder for each job, named by the job's key.

Everything is below ``EDGEPROF_DATA_DIR/door``, and only this module makes paths: no received name is used as a path.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeprof.errors import EdgeprofError, InputError, StorageError
from edgeprof.fleet.framing import WireError, file_sha256
from edgeprof.worker.replace import replace_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from edgeprof.fleet.protocol import File
    from edgeprof.launch.lock import Holder
    from edgeprof.results.schema import Result

#: An incomplete file is removed after this many seconds.
_STALE_S = 86_400
#: The file of a job whose time is that of the last fetch of its result.
_FETCHED = "fetched"
#: The longest result that a device sends, in bytes.
LARGEST_RESULT = 256 << 20


class Job(NamedTuple):
    """One job that a device knows.

    Attributes:
        key: The job's key.
        is_done: Whether it has a result.
        size_bytes: The length of the result; 0 without a result.
        ended_s: The time at which the result was written, seconds since the epoch; 0 without a result.
    """

    key: str
    is_done: bool
    size_bytes: int = 0
    ended_s: float = 0.0


class Spool:
    """The files and jobs of one device.

    Args:
        directory: The directory for them; created when it is first needed.
        max_bytes: The most bytes of files that are stored for later jobs.
    """

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self.directory, self.max_bytes = directory, max_bytes

    # --- files --------------------------------------------------------------------------------------------------------

    def has_file(self, sha256: str) -> bool:
        """Return whether a file is stored; the call counts as a use, so that the file is the last to be removed."""
        path = self._file(sha256)
        with contextlib.suppress(OSError):
            os.utime(path)
            return True
        return False

    def store_file(self, sha256: str, size: int, parts: Iterable[bytes]) -> None:
        """Store a file that arrives in parts, after the whole file has arrived and its hash was checked.

        Raises:
            WireError: The file arrived damaged.
            StorageError: There is no space for the file.
        """
        if size > self.max_bytes:
            raise StorageError(
                f"a file of {size} bytes is more than this device keeps ({self.max_bytes} bytes)",
                remedy="Its owner may allow more: max_bytes in the door's configuration.",
            )
        with self._writing("files"):
            self._make_room(size)
            temporary = self._file(sha256).with_name(f".{sha256}.{os.getpid()}.part")
            digest = hashlib.sha256()
            try:
                with temporary.open("wb") as file:
                    for part in parts:
                        digest.update(part)
                        file.write(part)
                    file.flush()
                    os.fsync(file.fileno())
                if digest.hexdigest() != sha256:
                    raise WireError(f"a file arrived damaged: its SHA-256 is {digest.hexdigest()}, not {sha256}")
                temporary.replace(self._file(sha256))
            finally:
                temporary.unlink(missing_ok=True)

    def place(self, key: str, number: str, files: Iterable[File]) -> list[Path]:
        """Link files into a folder of a job under their names, after checking their hashes again.

        Raises:
            InputError: A file was never sent to this device, or two files have the same name.
            WireError: A file has changed on this device's disk.
            StorageError: The disk is full.
        """
        folder = self._job(key) / "files" / number
        placed: list[Path] = []
        with self._writing(folder.relative_to(self.directory).as_posix()):
            for file in files:
                if not self.has_file(file.sha256):
                    raise InputError(f"the file {file.name} is not on this device", remedy="Put it there first.")
                if file_sha256(self._file(file.sha256)) != file.sha256:
                    self._file(file.sha256).unlink()
                    raise WireError(f"the file {file.name} has changed on this device's disk", remedy="Put it again.")
                target = folder / file.name
                if target in placed:
                    raise InputError(f"two files of one model are named {file.name}")
                # A running job may be reading the file of this name, which is then the same file.
                if not (target.exists() and target.samefile(self._file(file.sha256))):
                    target.unlink(missing_ok=True)
                    os.link(self._file(file.sha256), target)
                placed.append(target)
        return placed

    def _make_room(self, size: int) -> None:
        """Remove the least recently used files until ``size`` more bytes fit within the limit."""
        files = []
        for path in (self.directory / "files").iterdir():
            status = path.stat()
            if path.name.startswith(".") and time.time() - status.st_mtime > _STALE_S:
                path.unlink(missing_ok=True)
            elif not path.name.startswith("."):
                files.append((status.st_mtime, status.st_size, path))
        total = size + sum(length for _, length, _ in files)
        for _, length, path in sorted(files):
            if total <= self.max_bytes:
                return
            path.unlink(missing_ok=True)
            total -= length

    # --- jobs ---------------------------------------------------------------------------------------------------------

    def result_path(self, key: str) -> Path:
        """Return the path to which the result of a job is written."""
        return self._job(key) / "result.json"

    def result(self, key: str) -> tuple[bytes, Result] | None:
        """Return the text of a job's result, and the result; None if there is no complete result.

        Raises:
            InputError: The text is longer than any result.
        """
        from edgeprof.results import document  # noqa: PLC0415 - hello and status answer without it

        try:
            with self.result_path(key).open("rb") as file:
                text = file.read(LARGEST_RESULT + 1)
        except OSError:
            return None
        if len(text) > LARGEST_RESULT:
            raise InputError(f"the result of job {key[:12]} is longer than any result")
        try:
            return text, document.from_json(text, source=f"the result of job {key[:12]}")
        except EdgeprofError:  # cut off by a full disk or a power loss
            return None

    def is_done(self, key: str) -> bool:
        """Return whether a job has a complete result that was not interrupted."""
        result = self.result(key)
        return result is not None and not result[1].interrupted

    def begin(self, key: str, details: dict[str, Any]) -> None:
        """Record that this process measures a job now; the caller must hold the device's lock.

        Raises:
            StorageError: The disk is full.
        """
        with self._writing("jobs"):
            self._job(key).mkdir(exist_ok=True)
            line = {"key": key, "pid": os.getpid(), "at": time.time(), **details}
            with (self.directory / "started.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            replace_file(self.directory / "running.json", json.dumps(line).encode(), mode=0o600)

    def running(self) -> dict[str, Any]:
        """Return the last started job, with its key and process id; the device's lock shows whether it still runs."""
        try:
            noted = json.loads((self.directory / "running.json").read_bytes())
        except (OSError, ValueError, RecursionError):
            return {}
        return noted if isinstance(noted, dict) else {}

    def running_key(self, holder: Holder | None) -> str | None:
        """Return the key of the running job; None if the device's lock is free or another program holds it."""
        running = self.running()
        return running.get("key") if holder is not None and running.get("pid") == holder.pid else None

    def jobs(self) -> Iterator[Job]:
        """Yield every job that this device knows."""
        folder = self.directory / "jobs"
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            result = path / "result.json"
            if not result.exists():
                yield Job(path.name, is_done=False)
                continue
            status = result.stat()
            yield Job(path.name, is_done=True, size_bytes=status.st_size, ended_s=status.st_mtime)

    def note_fetched(self, key: str) -> None:
        """Record that a complete result was sent; only such results are ever removed."""
        with contextlib.suppress(OSError):  # on a full disk the result is only stored longer
            (self._job(key) / _FETCHED).touch()

    def tidy(self, keep_s: float = math.inf) -> None:
        """Remove the linked files of finished jobs, and results that were last fetched long ago.

        Args:
            keep_s: How long a result is kept after its last fetch, in seconds.
        """
        import shutil  # noqa: PLC0415 - hello and status answer without it

        for job in self.jobs():
            if not job.is_done:
                continue
            shutil.rmtree(self._job(job.key) / "files", ignore_errors=True)
            with contextlib.suppress(OSError):  # it was never fetched
                if time.time() - (self._job(job.key) / _FETCHED).stat().st_mtime > keep_s:
                    shutil.rmtree(self._job(job.key))

    def _job(self, key: str) -> Path:
        return self.directory / "jobs" / key

    def _file(self, sha256: str) -> Path:
        return self.directory / "files" / sha256

    @contextlib.contextmanager
    def _writing(self, folder: str) -> Iterator[None]:
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            (self.directory / folder).mkdir(parents=True, exist_ok=True)
            yield
        except OSError as error:
            raise StorageError(
                f"this device cannot keep files in {self.directory}: {error.strerror}",
                remedy="Free some space on it.",
            ) from None
