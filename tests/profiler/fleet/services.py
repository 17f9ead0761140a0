"""The processes of a fleet's cluster on the loopback: a scheduler, and a host that holds boards."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self

    from tests.profiler.fleet.boards import Boards

DOCS = Path(__file__).parents[3] / "docs/fleet.md"


def make_certificates(folder: Path) -> Path:
    """Run the commands of docs/fleet.md, and return the folder with the folders server, lab-host and desk."""
    recipe = re.search(r"<!-- recipe: tls -->\n```sh\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)
    assert recipe is not None
    folder.mkdir()
    subprocess.run(["sh", "-euc", recipe[1]], cwd=folder, check=True, capture_output=True)
    return folder


#: Starts a program again whenever it ends, as ``Restart=always`` of systemd does.
RESTARTING = 'while :; do "$@"; sleep 0.1; done'


class Service:
    """A process of the cluster, which says on stderr when it is ready and is started again when it ends.

    Args:
        words: The arguments of ``edgeprof fleet``.
    """

    def __init__(self, *words: str) -> None:
        argv = ["sh", "-c", RESTARTING, "sh", sys.executable, "-m", "edgeprof", "fleet", *words]
        self._shell = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, start_new_session=True)
        self.first_line = self._until_ready()
        self._reader = threading.Thread(target=self._errors.read, daemon=True)
        self._reader.start()

    @property
    def _errors(self) -> IO[str]:
        assert self._shell.stderr is not None
        return self._shell.stderr

    def _until_ready(self) -> str:
        return next((line for line in self._errors if re.match("listening|registered|edgeprof:", line)), "")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.killpg(self._shell.pid, signal.SIGTERM)
        self._shell.wait(30)
        self._reader.join(30)  # the program has ended when nobody can write to its stderr
        self._errors.close()

    @property
    def process(self) -> psutil.Process:
        """The program that runs now."""
        return psutil.Process(self._shell.pid).children()[0]

    def kill(self) -> None:
        """End the program without a warning."""
        self.process.kill()

    def listens_at(self) -> list[tuple[str, int]]:
        connections = self.process.net_connections("tcp")
        return [connection.laddr[:2] for connection in connections if connection.status == psutil.CONN_LISTEN]


@dataclass
class Site:
    """A running cluster.

    Attributes:
        scheduler: The scheduler.
        host: The host.
        port: The scheduler's port.
        certificates: The folder of the certificates.
        desk: The inventory for the desk.
    """

    scheduler: Service
    host: Service
    port: int
    certificates: Path
    desk: Path

    def wait_until_it_listens(self, seconds: float = 60.0) -> None:
        """Wait for a scheduler that was killed and is started again, which takes seconds."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 5).close()
            except OSError:  # noqa: PERF203 - it waits
                assert time.monotonic() < deadline, f"nothing listens at port {self.port}"
                time.sleep(0.1)
            else:
                return


@contextlib.contextmanager
def cluster(folder: Path, boards: Boards, *held: str) -> Iterator[Site]:
    """Run a scheduler, and a host that is started with the arguments ``held``."""
    certificates = make_certificates(folder / "tls")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    inventories = {}
    for name in ("desk", "lab-host"):
        engine = f'[engine]\nscheduler = "tls://127.0.0.1:{port}"\ncertificates = "tls/{name}"\ncompress = true\n'
        inventories[name] = boards.inventory(folder / f"{name}.toml", engine)
    with contextlib.ExitStack() as stack:
        at = ("--listen", f"127.0.0.1:{port}", "--certificates", str(certificates / "server"), "--dashboard-port", "0")
        scheduler = stack.enter_context(Service("scheduler", *at))
        host = stack.enter_context(Service("host", "--inventory", str(inventories["lab-host"]), *held))
        yield Site(scheduler, host, port, certificates, inventories["desk"])
