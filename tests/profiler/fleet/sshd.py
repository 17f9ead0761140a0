"""A real SSH server on loopback, with one key for each virtual board, whose forced command is that board's door."""

from __future__ import annotations

import contextlib
import getpass
import os
import pwd
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.profiler.fleet.boards import Boards

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"


def require_sshd() -> None:
    """Skip where there is no SSH server that this user can start."""
    if not Path(SSHD).exists() or not shutil.which("ssh-keygen"):
        pytest.skip("no sshd: apt-get install openssh-server")
    if os.geteuid() == 0:
        try:
            pwd.getpwnam("sshd")
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        except (KeyError, OSError):
            pytest.skip("sshd needs a user named sshd and a folder /run/sshd: apt-get install openssh-server")


def make_key(path: Path) -> str:
    """Make a key, and return its public line."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path.with_name(f"{path.name}.pub").read_text().strip()


@contextlib.contextmanager
def serve(
    folder: Path, boards: Boards, *more: str, names: list[str] | None = None, within: tuple[str, ...] = ()
) -> Iterator[Path]:
    """Run a server, and yield the path of an ssh configuration that reaches the boards by their names.

    ``within`` is put before the server's command, for example ``ip netns exec NAME``, where the loopback is unused.
    """
    names = boards.names if names is None else names
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    host_key = make_key(folder / "host")
    lines = [
        f'restrict,command="{boards.folder / name / "door.sh"}" {make_key(folder / f"id_{name}")}' for name in names
    ]
    (folder / "authorized_keys").write_text("\n".join(lines) + "\n")
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}\n")
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\nUsePAM no\nStrictModes no\n"
        f"AuthorizedKeysFile {folder}/authorized_keys\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        "MaxStartups 100\n" + "".join(f"{line}\n" for line in more)
    )
    blocks = [
        f"Host {name}\n  HostName 127.0.0.1\n  Port {port}\n  User {getpass.getuser()}\n  IdentitiesOnly yes\n"
        f"  IdentityFile {folder}/id_{name}\n  UserKnownHostsFile {folder}/known_hosts\n"
        "  GlobalKnownHostsFile /dev/null\n"
        for name in names
    ]
    (folder / "config").write_text("\n".join(blocks))
    with (folder / "sshd.log").open("wb") as log:
        server = subprocess.Popen([*within, SSHD, "-D", "-e", "-f", folder / "sshd_config"], stdout=log, stderr=log)
        try:
            if not within:
                wait_for(port, server)
            yield folder / "config"
        finally:
            server.terminate()
            server.wait(10)


def wait_for(port: int, server: subprocess.Popen[bytes], host: str = "127.0.0.1") -> None:
    """Wait until something listens there."""
    deadline = time.monotonic() + 10
    while not _listens(host, port):
        assert server.poll() is None, "sshd does not start"
        assert time.monotonic() < deadline, "sshd does not listen"
        time.sleep(0.02)  # the server does not report when it is ready


def _listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), 1).close()
    except OSError:
        return False
    return True
