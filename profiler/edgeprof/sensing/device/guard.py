"""Restore what a run has changed on the device, in a process of its own that outlives the run.

It is started by path::

    python -I guard.py JOURNAL

It waits for the lock of the journal, which the run holds as long as it lives. If the journal still exists then, the run
was killed before it could restore the settings, and this process restores them. Standard library only; nothing else of
edgeprof.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

#: How long a command that restores something may take (s).
COMMAND_S = 60.0


def undo(journal: Path, boot: str | None) -> list[str]:
    """Undo all changes in a journal, the last one first, and delete it; the caller holds its lock.

    Args:
        journal: The file of the journal.
        boot: The id of the present boot: kernel files that were changed before it have been reset by the boot.

    Returns:
        A sentence for each change that could not be undone; the journal then keeps these changes.
    """
    try:
        content = json.loads(journal.read_text(encoding="utf-8"))
        changes = list(content["changes"])
    except (OSError, ValueError, KeyError, TypeError):
        with suppress(OSError):
            journal.unlink()  # incomplete: nothing was changed yet, as the journal is written completely before that
        return []
    same_boot = boot is None or content.get("boot") in {None, boot}
    failed = []
    for change in reversed(changes):
        if "file" in change and not same_boot:
            continue
        problem = _undo_change(change)
        if problem is not None:
            failed.append((change, problem))
    # Limits that depend on one another (a minimum above the new maximum) can be undone in a second pass.
    failed = [(change, problem) for change, _ in reversed(failed) if (problem := _undo_change(change)) is not None]
    with suppress(OSError):
        if failed:
            text = json.dumps({**content, "changes": [change for change, _ in failed]})
            journal.write_text(text, encoding="utf-8")
        else:
            journal.unlink()
    return [problem for _, problem in failed]


def _undo_change(change: dict[str, Any]) -> str | None:
    if "file" in change:
        path, value = Path(change["file"]), str(change["value"])
        try:
            if path.read_text(encoding="utf-8").strip() != value:
                path.write_text(value, encoding="utf-8")
        except OSError as error:
            return f"{path} could not be set back to {value}: {error.strerror}"
        return None
    argv = change["command"]
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=COMMAND_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{' '.join(argv)} failed: {error}"
    return f"{' '.join(argv)} ended with status {done.returncode}" if done.returncode else None


def boot_id() -> str | None:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None


def main(journal: str) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    try:
        descriptor = os.open(journal, os.O_RDWR)
    except OSError:
        return  # the run is over already
    print("ready", flush=True)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    if Path(journal).exists():
        undo(Path(journal), boot_id())


if __name__ == "__main__":
    main(sys.argv[1])
