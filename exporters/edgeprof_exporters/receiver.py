"""The socket that applications report their inferences to: datagrams, read as they come, answered never."""

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

#: What the kernel keeps for us (bytes): some hundred messages while the machine is busy; what comes on top is lost.
_BUFFER = 1 << 20
#: The part of a core that reading reports may take, and how much of it (s) at once: a flood waits, and is then lost in
#: the kernel's queue, rather than the samples.
_SHARE, _BURST_S = 0.25, 0.05


def bind(path: Path, kind: socket.SocketKind, group: str) -> socket.socket:
    """Create a unix socket that only its owner and one group may use.

    A socket that a dead daemon left is taken over; one that somebody listens on is not.

    Args:
        path: Where.
        kind: Datagram or stream.
        group: Its name; empty leaves the process's own.

    Raises:
        InputError: no such group, or something else lies there.
        UnavailableError: it cannot be made.
    """
    gid = group_id(group) if group else None
    try:
        status = os.lstat(path)
    except OSError:
        pass
    else:
        if not stat.S_ISSOCK(status.st_mode):
            raise InputError(f"{path} is there and no socket", remedy="Remove it, or choose another path.")
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
            f"the socket {path} cannot be made: {error.strerror or error}",
            remedy="Make its directory, or choose another path.",
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
        InputError: there is none of that name.
    """
    import grp  # noqa: PLC0415

    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise InputError(f"there is no group named {group!r}", remedy=f"sudo groupadd --system {group}") from None


def unbind(sock: socket.socket, path: Path, how: int, reader: threading.Thread) -> None:
    """Undo ``bind``: remove the socket's file, wake its reader, wait until that has ended, then close the socket."""
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
        """Read what was sent so far, then close. Safe to call twice."""
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
