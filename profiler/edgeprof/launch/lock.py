"""One measurement at a time on one device.

Two measurements that run together measure each other. Every verb that measures takes the device's lock first: an
exclusive ``flock`` of a file in /run/lock, one for each sysfs root, so that a virtual board and the machine itself do
not exclude each other. The kernel releases the lock when its holder dies, however that happens. The file says who
measures, since when, and what.

A process that a holder starts may measure: the holder puts a token into the environment (:data:`TOKEN`), and the file
holds the same token. The descriptor is inheritable as well, so that the lock stays held across ``exec``.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shlex
import stat
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeprof.errors import BusyError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from edgeprof.roots import Roots

#: The folder of the lock files, where it is not /run/lock: for tests, and for a device without a writable /run.
FOLDER = "EDGEPROF_LOCK_DIR"
#: What a holder's children find in their environment.
TOKEN = "_EDGEPROF_DEVICE_LOCK"  # noqa: S105 - names a variable; what it holds is no secret
#: A text of this many bytes is no lock file of ours.
_LONGEST = 4096


class Holder(NamedTuple):
    """Who measures.

    Attributes:
        pid: Process ID of the holder.
        user: Login name of the holder.
        since_s: Seconds since the epoch.
        what: What is measured, as ``bench model.onnx``.
    """

    pid: int
    user: str
    since_s: float
    what: str

    def __str__(self) -> str:
        since = time.strftime(
            "%H:%M" if time.time() - self.since_s < 86400 else "%Y-%m-%d %H:%M", time.localtime(self.since_s)
        )
        return f"{self.user} (process {self.pid}) since {since}: {self.what}"


def lock_path(roots: Roots, environ: Mapping[str, str] | None = None) -> Path:
    """The lock file of a device: one for each sysfs root, by the root's real path."""
    environ = os.environ if environ is None else environ
    folder = environ.get(FOLDER) or next(
        (name for name in ("/run/lock", "/var/lock") if os.access(name, os.W_OK | os.X_OK)), None
    )
    if folder is None:
        import tempfile  # noqa: PLC0415 - a door answers sooner without it

        folder = tempfile.gettempdir()
    real = os.path.realpath(roots.sysfs)
    suffix = "" if real == "/sys" else "-" + hashlib.sha256(os.fsencode(real)).hexdigest()[:12]
    return Path(folder) / f"edgeprof-device{suffix}.lock"


class _Held:
    """A lock that this process, or the process that it was forked from, holds.

    Attributes:
        descriptor: The descriptor of the locked file.
        pid: The process that took the lock.
        inherited: The token that was in the environment before.
        count: How many measurements use the lock: a study holds it around its benchmarks.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.pid = os.getpid()
        self.inherited = os.environ.get(TOKEN)
        self.count = 0


_held: dict[Path, _Held] = {}
_guard = threading.Lock()


@contextlib.contextmanager
def measuring(roots: Roots, what: str) -> Iterator[None]:
    """Hold the device's lock while something is measured on it.

    Measurements of one process may be nested and may overlap in any order; the last that ends releases the lock.

    Args:
        roots: Where /sys is; each sysfs root has a lock of its own.
        what: What is measured, for those who are told to wait.

    Raises:
        BusyError: another measurement runs on this device.
    """
    path = lock_path(roots)
    with _guard:
        held = _held.get(path) or _hold_lock(path, what)
        if held is not None:
            held.count += 1
    try:
        yield
    finally:
        if held is not None:
            with _guard:
                held.count -= 1
                if held.count == 0:
                    _release_lock(path, held)


def _hold_lock(path: Path, what: str) -> _Held | None:
    """Take the lock for this process; None if an ancestor of this process holds it already."""
    descriptor = _lock_file(path)
    if descriptor is None:
        return None
    held = _held[path] = _Held(descriptor)
    token = os.environ[TOKEN] = os.urandom(16).hex()
    _write_holder(
        descriptor, {"pid": held.pid, "user": _user_name(), "since": time.time(), "what": what, "token": token}
    )
    return held


def _release_lock(path: Path, held: _Held) -> None:
    del _held[path]
    if held.inherited is None:
        os.environ.pop(TOKEN, None)
    else:
        os.environ[TOKEN] = held.inherited
    if held.pid == os.getpid():  # not in a fork, whose parent goes on measuring
        with contextlib.suppress(OSError):
            os.ftruncate(held.descriptor, 0)
            # Closing is not enough: a fork of this process has the same open file, and may live on.
            fcntl.flock(held.descriptor, fcntl.LOCK_UN)
    os.close(held.descriptor)


def holder(roots: Roots) -> Holder | None:
    """Return who measures on this device now, other than this process and its ancestors; None if no one does."""
    path = lock_path(roots)
    with _guard:
        if path in _held:
            return None
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        if _try_flock(descriptor, fcntl.LOCK_SH):
            return None
        text = _read_holder(descriptor)
        return None if _is_ours(text) else _holder_of(text)
    finally:
        os.close(descriptor)


def wait_until_free(roots: Roots, seconds: float) -> None:
    """Sleep until nobody measures on this device, or for ``seconds``; the kernel wakes the main thread, nothing polls.

    Raises:
        BusyError: somebody still measures after that time.
    """
    path = lock_path(roots)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        if not _try_flock(descriptor, fcntl.LOCK_SH):
            with _alarm_after(max(seconds, 1e-3)):
                fcntl.flock(descriptor, fcntl.LOCK_SH)
    except TimeoutError:
        raise BusyError(
            f"another measurement is running on this device: {_holder_of(_read_holder(descriptor))}",
            remedy="Wait for its end, then start this one again.",
        ) from None
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _alarm_after(seconds: float) -> Iterator[None]:
    """Interrupt the main thread's system call by TimeoutError after ``seconds``."""
    import signal  # noqa: PLC0415 - a door answers sooner without it

    def end(_number: int, _frame: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _lock_file(path: Path) -> int | None:
    """Lock the file and return its descriptor; None if an ancestor of this process holds the lock.

    Raises:
        BusyError: another process holds it.
    """
    try:
        descriptor = _open_lock_file(path)
    except OSError as error:
        raise BusyError(
            f"the lock file {path}, which keeps two measurements apart, cannot be opened: {error.strerror}",
            remedy=_open_remedy(path, error),
        ) from error
    if _try_flock(descriptor, fcntl.LOCK_EX):
        os.set_inheritable(descriptor, True)
        return descriptor
    text = _read_holder(descriptor)
    os.close(descriptor)
    if _is_ours(text):
        return None
    raise BusyError(
        f"another measurement is running on this device: {_holder_of(text)}",
        remedy="Two measurements at a time would measure each other: wait for its end, then start this one again.",
    )


def _open_remedy(path: Path, error: OSError) -> str:
    another = f"name another folder for lock files: {FOLDER}=/some/folder"
    if isinstance(error, FileNotFoundError):
        return f"Make its folder (mkdir -p {shlex.quote(str(path.parent))}), or {another}"
    return f"Remove it, or {another}"


def _open_lock_file(path: Path) -> int:
    """Open the file, or create it for everybody.

    The file is opened without O_CREAT first: the kernel refuses O_CREAT for another user's file in a folder such as
    /run/lock (fs.protected_regular), even to root.
    """
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        try:
            descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666)
            os.fchmod(descriptor, 0o666)  # whatever the umask: other users wait for the same lock
        except FileExistsError:
            descriptor = os.open(path, flags)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a regular file")
    return descriptor


def _try_flock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write_holder(descriptor: int, text: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # a full /run costs the name of the holder, not the lock
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(text).encode("utf-8", "backslashreplace")[:_LONGEST], 0)


def _read_holder(descriptor: int) -> dict[str, Any]:
    try:
        text = json.loads(os.pread(descriptor, _LONGEST, 0))
    except (OSError, ValueError, RecursionError):  # its holder has just taken it, or had no room to write
        return {}
    return text if isinstance(text, dict) else {}


def _is_ours(text: Mapping[str, Any]) -> bool:
    token = os.environ.get(TOKEN)
    return token is not None and text.get("token") == token


def _holder_of(text: Mapping[str, Any]) -> Holder:
    pid, since = text.get("pid"), text.get("since")
    return Holder(
        pid=pid if isinstance(pid, int) else 0,
        user=str(text.get("user", "somebody"))[:64],
        since_s=float(since) if isinstance(since, int | float) else time.time(),
        what=str(text.get("what", "a measurement"))[:200],
    )


def _user_name() -> str:
    import getpass  # noqa: PLC0415 - a door answers sooner without it

    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        return str(os.getuid())
