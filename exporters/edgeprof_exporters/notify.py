"""What systemd is told (sd_notify), and the sockets that it hands over, both by environment variables."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_FIRST_FD = 3


class Notifier:
    """Sends lines to ``NOTIFY_SOCKET``; silent where there is none. Source: sd_notify(3)."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        watchdog = environ.get("WATCHDOG_USEC", "")
        pid = environ.get("WATCHDOG_PID", "")
        mine = not pid or pid == str(os.getpid())
        #: How often to say that all is well (s): half of what systemd waits; None where nobody asks.
        self.watchdog_s = int(watchdog) * 1e-6 / 2 if watchdog.isdecimal() and int(watchdog) and mine else None

    def send(self, *lines: str) -> bool:
        """Whether it went out."""
        if not self._address:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.sendto("\n".join(lines).encode(), self._address)
        except OSError:
            return False
        return True


def inherited_sockets(environ: Mapping[str, str] | None = None) -> list[socket.socket]:
    """The listening sockets that systemd hands over (sd_listen_fds(3)); none where it hands over none."""
    environ = os.environ if environ is None else environ
    count = environ.get("LISTEN_FDS", "")
    if environ.get("LISTEN_PID") != str(os.getpid()) or not count.isdecimal():
        return []
    sockets = []
    for descriptor in range(_FIRST_FD, _FIRST_FD + int(count)):
        os.set_inheritable(descriptor, False)
        sockets.append(socket.socket(fileno=descriptor))
    return sockets
