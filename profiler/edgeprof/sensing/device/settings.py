"""Change a device's settings for a run, and restore them whatever happens.

Each change is written into a journal before it is made. At its end, after Ctrl-C or after an error, the run itself
restores everything. If the run is killed, a small process that waits for this restores everything (``guard``). If that
is killed too, or the power fails, the next start of edgeprof does.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from edgeprof.errors import InputError, UnavailableError
from edgeprof.results.place import data_dir
from edgeprof.sensing.device import guard

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self

FOLDER = "restore"
_ROOT = "Only root may change it: run it with sudo -E, or without the flag."


class Settings:
    """Changes to the device, from ``__enter__`` to ``__exit__``.

    Args:
        directory: Where the journal is; ``restore`` in the data directory by default.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = _journal_directory() if directory is None else directory
        self._journal = self._directory / f"{os.getpid()}-{time.monotonic_ns()}.json"
        self._changes: list[dict[str, Any]] = []
        self._descriptor = -1
        self._guard: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self._journal, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise InputError(
                f"{self._journal} cannot be written: {error.strerror}; nothing was changed",
                remedy="Set EDGEPROF_DATA_DIR to a place of yours.",
            ) from None
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        self._note()
        self._guard = subprocess.Popen(
            [sys.executable, "-I", guard.__file__, str(self._journal)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        assert self._guard.stdout is not None
        self._guard.stdout.readline()  # the guard must be running before anything is changed
        return self

    def remember(self, path: Path) -> str | None:
        """Register a file to be restored to its present content at the end, whoever changes it in between.

        Returns:
            The present content; None if the file cannot be read, in which case it is not registered.
        """
        try:
            value = path.read_text(encoding="utf-8").strip()
        except OSError:
            return None
        self._changes.append({"file": str(path), "value": value})
        self._note()
        return value

    def write(self, path: Path, value: str) -> str:
        """Write a value to a file that is restored at the end.

        Returns:
            The content of the file before.

        Raises:
            UnavailableError: the file cannot be changed; files that were changed before are still restored at the end.
        """
        before = self.remember(path)
        if before is None:
            raise UnavailableError(f"{path} cannot be read")
        try:
            path.write_text(value, encoding="utf-8")
        except OSError as error:
            remedy = _ROOT if isinstance(error, PermissionError) else None
            raise UnavailableError(f"{path} cannot be set to {value}: {error.strerror}", remedy=remedy) from None
        return before

    def command(self, argv: Sequence[str], undo: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run a command that changes a setting; at the end the command ``undo`` is run to restore it.

        Raises:
            UnavailableError: the command cannot be started.
        """
        self._changes.append({"command": list(undo)})
        self._note()
        try:
            return subprocess.run(
                list(argv),
                stdin=subprocess.DEVNULL,  # nvpmodel may ask whether to reboot; without input it does not
                capture_output=True,
                text=True,
                timeout=guard.COMMAND_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UnavailableError(f"{' '.join(argv)} failed: {error}") from None

    def _note(self) -> None:
        text = json.dumps({"pid": os.getpid(), "boot": guard.boot_id(), "changes": self._changes}).encode()
        # A longer text replaces a shorter one in one write, so that after a crash the journal is one of them, complete.
        os.pwrite(self._descriptor, text, 0)
        os.ftruncate(self._descriptor, len(text))
        os.fsync(self._descriptor)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        problems = guard.undo(self._journal, None)
        os.close(self._descriptor)
        if self._guard is not None:
            # The guard has the lock now, tries once more what failed here, and ends.
            with suppress(subprocess.TimeoutExpired):
                self._guard.wait(guard.COMMAND_S)
            assert self._guard.stdout is not None
            self._guard.stdout.close()
        if problems and self._journal.exists() and kind is None:
            raise UnavailableError(
                "; ".join(problems), remedy="Set it by hand; edgeprof tries again at its next start."
            )


def restore_settings(directory: Path | None = None) -> list[str]:
    """Restore settings that are still changed because a run was killed together with its guard.

    Returns:
        What could not be restored, one sentence for each setting.
    """
    problems: list[str] = []
    directory = _journal_directory() if directory is None else directory
    for journal in sorted(directory.glob("*.json")) if directory.is_dir() else []:
        try:
            descriptor = os.open(journal, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue  # it belongs to another user, or was just deleted
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue  # a run that is still alive, or a guard that is restoring
        else:
            problems += guard.undo(journal, guard.boot_id())
        finally:
            os.close(descriptor)
    return problems


def _journal_directory() -> Path:
    return data_dir() / FOLDER
