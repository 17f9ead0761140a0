"""The device's side of the connection: it answers a few kinds of requests, and becomes the requested benchmark.

A door runs only while a host is connected. A request names files by their hashes and flags by their names, and only
listed flags are allowed. A benchmark replaces the door's process (``execve``) and inherits the device's lock, so that
nothing of the fleet except the SSH session is left on the device while it measures.

A slow board spends more time on Python's imports than on an answer. So ``hello`` and ``status`` are recognised by their
bytes, and only other requests import msgspec and the modules of jobs.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprof import __version__
from edgeprof.errors import EdgeprofError, InputError
from edgeprof.fleet import device, framing
from edgeprof.fleet.framing import Wire
from edgeprof.fleet.permissions import Permissions
from edgeprof.fleet.spool import Spool
from edgeprof.launch import lock
from edgeprof.results.place import data_dir

if TYPE_CHECKING:
    from edgeprof.roots import Roots

#: The file in which a device's owner says what a fleet may do.
CONFIGURATION = Path("/etc/edgeprof/door.toml")
#: Commands that a fleet's host asks sshd to run; the forced command runs in place of whatever was asked for.
ASKED = ("", "edgeprof door")
#: The two requests without contents, as a host writes them.
HELLO, STATUS = b'{"op":"hello"}', b'{"op":"status"}'


class Door:
    """The requests of one connection.

    Args:
        wire: The connection.
        roots: The places of /sys, /proc and /dev.
        permissions: The permissions that the device's owner grants.
    """

    def __init__(self, wire: Wire, roots: Roots, permissions: Permissions) -> None:
        self.wire, self.roots, self.permissions = wire, roots, permissions
        self.spool = Spool(data_dir() / "door", permissions.max_bytes)

    def serve(self) -> int:
        """Answer requests until the host closes the connection, one is refused, or one becomes a benchmark.

        Returns:
            The exit status.
        """
        try:
            while (text := self.wire.read()) is not None:
                self._answer(text)
        except EdgeprofError as error:
            with contextlib.suppress(OSError):  # the host may have disconnected
                self.wire.say({"error": error.message, "remedy": error.remedy, "exit": error.exit_code})
            return error.exit_code
        except OSError as error:  # the host has disconnected
            return 0 if isinstance(error, BrokenPipeError) else 2
        return 0

    def _answer(self, text: bytes) -> None:
        if text == HELLO:
            self.wire.say(self._description())
        elif text == STATUS:
            self.wire.say(self._state())
        else:
            from edgeprof.fleet import protocol  # noqa: PLC0415 - hello and status are answered without it
            from edgeprof.fleet.device_jobs import DeviceJobs  # noqa: PLC0415 - the same

            request = protocol.parse_request(text)
            if isinstance(request, protocol.Hello):
                self.wire.say(self._description())
            elif isinstance(request, protocol.Status):
                self.wire.say(self._state())
            else:
                DeviceJobs(self.wire, self.roots, self.permissions, self.spool).answer(request)

    def _description(self) -> dict[str, Any]:
        return {
            "protocol": framing.VERSION,
            "edgeprof": __version__,
            **device.describe(self.roots),
            "allow_code": self.permissions.allow_code,
            "time_s": time.time(),
        }

    def _state(self) -> dict[str, Any]:
        holder = lock.holder(self.roots)
        return {
            **self._description(),
            "measuring": None if holder is None else str(holder),
            "running": self.spool.running_key(holder),
            "temperature_c": device.hottest_c(self.roots),
            "free_bytes": device.free_bytes(self.spool.directory),
            "jobs": self._newest_jobs(),
        }

    def _newest_jobs(self) -> list[tuple[str, int, float]]:
        done = [(job.key, job.size_bytes, job.ended_s) for job in self.spool.jobs() if job.is_done]
        return sorted(done, key=lambda job: job[2])[-framing.MOST_JOBS :]


def open_door(roots: Roots, config: Path | None = None, **more: Any) -> int:
    """Serve the host at stdin and stdout.

    Args:
        roots: The places of /sys, /proc and /dev.
        config: The file with the owner's permissions; None: ``CONFIGURATION``, if it exists.
        more: Permissions beyond those in the file.

    Returns:
        The exit status.

    Raises:
        InputError: The host asked sshd for another program, or the owner's file cannot be used.
    """
    asked = os.environ.get("SSH_ORIGINAL_COMMAND", "").strip()
    if asked not in ASKED:
        raise InputError(
            f"this key opens the door of a fleet and runs nothing else; {asked[:200]!r} was asked for",
            remedy="Log in with a key of your own to work on this device.",
        )
    if config is None and CONFIGURATION.exists():
        config = CONFIGURATION
    permissions = Permissions() if config is None else Permissions.read(config)
    return Door(Wire(0, 1), roots, permissions._replace(**more)).serve()
