"""The socket to which applications report their inferences: it receives datagrams and never answers."""

from __future__ import annotations

import logging
import os
import socket
import stat
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from edgeprof.errors import InputError, UnavailableError
from edgeprof_exporters.logs import event
from edgeprof_exporters.messages import MOST_BYTES, parse
from edgeprof_exporters.quotas import Budget

if TYPE_CHECKING:
    from pathlib import Path

    from edgeprof_exporters.inferences import Inferences

#: Size of the kernel's buffer (bytes): it holds some hundred messages while the machine is busy; further ones are lost.
_BUFFER = 1 << 20
#: Share of a core that reading messages may use, and processor time that it may use at once (s). A flood then waits and
#: is lost in the kernel's queue, instead of costing samples.
_SHARE, _BURST_S = 0.25, 0.05


def bind(path: Path, kind: socket.SocketKind, group: str) -> socket.socket:
    """Create a unix socket that only its owner and one group may use.

    The socket of a dead daemon is replaced; a socket on which a process listens is not.

    Args:
        path: Path of the socket.
        kind: Datagram or stream.
        group: Name of the group; empty: the process's own group.

    Raises:
        InputError: the group does not exist, or the path is not a socket.
        UnavailableError: the socket cannot be created.
    """
    gid = group_id(group) if group else None
    try:
        status = os.lstat(path)
    except OSError:
        pass
    else:
        if not stat.S_ISSOCK(status.st_mode):
            raise InputError(f"{path} exists and is not a socket", remedy="Remove it, or choose another path.")
        with socket.socket(socket.AF_UNIX, kind) as probe:
            try:
                probe.connect(os.fspath(path))
            except OSError:
                with suppress(OSError):
                    path.unlink()
            else:
                raise UnavailableError(f"another daemon listens on {path}", remedy="Stop it, or choose another path.")
    sock = socket.socket(socket.AF_UNIX, kind | socket.SOCK_CLOEXEC)
    before = os.umask(0o177)  # nobody may connect between bind and chown
    try:
        sock.bind(os.fspath(path))
    except OSError as error:
        sock.close()
        raise UnavailableError(
            f"the socket {path} cannot be created: {error.strerror or error}",
            remedy="Create its directory, or choose another path.",
        ) from None
    finally:
        os.umask(before)
    try:
        if gid is not None and path.stat().st_gid != gid:
            os.chown(path, -1, gid)
        os.chmod(path, 0o660)  # noqa: PTH101
    except OSError as error:
        sock.close()
        raise UnavailableError(
            f"the group {group or 'of this process'} cannot be given {path}: {error.strerror}",
            remedy="Run the daemon as root or as a member of that group.",
        ) from None
    return sock


def group_id(group: str) -> int:
    """The number of a group.

    Raises:
        InputError: no group has that name.
    """
    import grp  # noqa: PLC0415

    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise InputError(f"there is no group named {group!r}", remedy=f"sudo groupadd --system {group}") from None


def unbind(sock: socket.socket, path: Path, how: int, reader: threading.Thread) -> None:
    """Undo ``bind``: remove the socket's file, wake its reader, wait for its end, and close the socket."""
    with suppress(OSError):
        path.unlink()
    with suppress(OSError):
        sock.shutdown(how)
    if reader.ident is not None:
        reader.join(0.5)
    sock.close()


class Receiver:
    """Reads datagrams in a thread of its own.

    Raises:
        InputError, UnavailableError: see ``bind``.
    """

    def __init__(self, path: Path, inferences: Inferences, group: str) -> None:
        self.path = path
        self._inferences = inferences
        self._sock = bind(path, socket.SOCK_DGRAM, group)
        with suppress(OSError):
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="edgeprof track", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Read what was sent so far, and close the socket. Calling it twice is safe."""
        if self._stopping:
            return
        self._stopping = True
        unbind(self._sock, self.path, socket.SHUT_RD, self._thread)

    def _run(self) -> None:
        receive, take = self._sock.recv, self._inferences.take
        budget = Budget(_SHARE, _BURST_S)
        while True:
            budget.rest()
            try:
                data = receive(MOST_BYTES + 1)
            except OSError as error:
                if not self._stopping:
                    event(logging.ERROR, "the track socket failed", error=str(error))
                return
            if not data and self._stopping:
                return
            take(parse(data, time.monotonic()))
