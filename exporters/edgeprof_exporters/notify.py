"""Messages to systemd (sd_notify), and the sockets that it passes, both by environment variables."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_FIRST_FD = 3


class Notifier:
    """Sends lines to ``NOTIFY_SOCKET``; without one it sends nothing. Source: sd_notify(3)."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        watchdog = environ.get("WATCHDOG_USEC", "")
        pid = environ.get("WATCHDOG_PID", "")
        mine = not pid or pid == str(os.getpid())
        #: Interval of watchdog messages (s), half of systemd's timeout; None without a watchdog.
        self.watchdog_s = int(watchdog) * 1e-6 / 2 if watchdog.isdecimal() and int(watchdog) and mine else None

    def send(self, *lines: str) -> bool:
        """Send lines as one datagram; return whether it was sent."""
        if not self._address:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.sendto("\n".join(lines).encode(), self._address)
        except OSError:
            return False
        return True


def inherited_sockets(environ: Mapping[str, str] | None = None) -> list[socket.socket]:
    """The listening sockets that systemd passes (sd_listen_fds(3)); the list may be empty."""
    environ = os.environ if environ is None else environ
    count = environ.get("LISTEN_FDS", "")
    if environ.get("LISTEN_PID") != str(os.getpid()) or not count.isdecimal():
        return []
    sockets = []
    for descriptor in range(_FIRST_FD, _FIRST_FD + int(count)):
        os.set_inheritable(descriptor, False)
        sockets.append(socket.socket(fileno=descriptor))
    return sockets
