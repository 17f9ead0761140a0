"""The control socket: permitted users ask the daemon for its status or a reload. Requests and answers are JSON lines.

Only root, the daemon's own user and members of one group are answered; the kernel tells who they are (SO_PEERCRED).
Nothing but JSON of limited length is parsed.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import struct
import threading
from typing import TYPE_CHECKING, Any

from edgeprof_exporters.logs import event
from edgeprof_exporters.receiver import bind, group_id, unbind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

#: Longest line (bytes), longest silence (s), most simultaneous callers, and most lines of one caller.
MOST_LINE, SILENCE_S, MOST_CALLERS, MOST_LINES = 4096, 10.0, 8, 1000
#: Time for which the request of a refused caller is awaited before it is discarded (s).
_REFUSAL_S = 1.0


class Control:
    """Answers requests on the socket until ``stop``.

    Args:
        path: Path of the socket.
        group: Group whose members may ask; empty: only root and the daemon's own user may.
        commands: Name of a command → the function that returns its answer.
    """

    def __init__(self, path: Path, group: str, commands: Mapping[str, Callable[[], Any]]) -> None:
        self.path = path
        self._gid = group_id(group) if group else None
        self._commands = commands
        self._sock = bind(path, socket.SOCK_STREAM, group)
        self._sock.listen(16)
        self._stopping = False
        self._callers = threading.BoundedSemaphore(MOST_CALLERS)
        self._thread = threading.Thread(target=self._accept, name="edgeprof control", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Close the socket. Calling it twice is safe."""
        if self._stopping:
            return
        self._stopping = True
        unbind(self._sock, self.path, socket.SHUT_RDWR, self._thread)

    def _accept(self) -> None:
        while True:
            try:
                caller, _ = self._sock.accept()
            except OSError:
                if self._stopping:
                    return
                threading.Event().wait(0.05)
                continue
            if not self._callers.acquire(blocking=False):
                caller.close()
                continue
            try:
                threading.Thread(target=self._serve, args=(caller,), name="edgeprof caller", daemon=True).start()
            except RuntimeError:
                self._callers.release()
                caller.close()

    def _serve(self, caller: socket.socket) -> None:
        try:
            with caller:
                caller.settimeout(SILENCE_S)
                pid, uid, gid = struct.unpack("3i", caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
                if not self.permits(uid, gid):
                    event(logging.WARNING, "a caller on the control socket was refused", uid=uid, pid=pid)
                    # Its request is read first: otherwise the caller would get a broken pipe instead of the answer.
                    caller.settimeout(_REFUSAL_S)
                    with contextlib.suppress(OSError):
                        caller.recv(MOST_LINE)
                    _send_answer(caller, {"error": "not permitted"})
                    return
                self._talk(caller)
        except OSError:
            pass
        finally:
            self._callers.release()

    def permits(self, uid: int, gid: int) -> bool:
        """Whether a caller with this user and primary group may ask."""
        if uid in {0, os.geteuid()}:
            return True
        return self._gid is not None and (gid == self._gid or self._gid in _groups_of_user(uid, gid))

    def _talk(self, caller: socket.socket) -> None:
        buffer = b""
        for _ in range(MOST_LINES):
            while b"\n" not in buffer:
                if len(buffer) > MOST_LINE:
                    _send_answer(caller, {"error": f"a line is longer than {MOST_LINE} bytes"})
                    return
                data = caller.recv(1024)
                if not data:
                    return
                buffer += data
            line, _, buffer = buffer.partition(b"\n")
            _send_answer(caller, self.answer(line))

    def answer(self, line: bytes) -> dict[str, Any]:
        """The answer to one line: ``{"ok": …}`` or ``{"error": …}``."""
        if len(line) > MOST_LINE:
            return {"error": f"a line is longer than {MOST_LINE} bytes"}
        try:
            asked = json.loads(line)
        except (ValueError, RecursionError):
            return {"error": "not JSON"}
        command = asked.get("command") if isinstance(asked, dict) else None
        if not isinstance(command, str) or command not in self._commands:
            return {"error": f"a command is one of {', '.join(self._commands)}"}
        try:
            return {"ok": self._commands[command]()}
        except Exception as error:
            logging.getLogger("edgeprof.exporter").exception("a command failed", extra={"fields": {"command": command}})
            return {"error": f"{type(error).__name__}: {error}"}


def _groups_of_user(uid: int, gid: int) -> list[int]:
    """All groups of a user; for a socket's peer the kernel reports only the primary group."""
    import pwd  # noqa: PLC0415

    try:
        return os.getgrouplist(pwd.getpwuid(uid).pw_name, gid)
    except (KeyError, OSError):
        return [gid]


def _send_answer(caller: socket.socket, answer: dict[str, Any]) -> None:
    caller.sendall(json.dumps(answer).encode() + b"\n")
