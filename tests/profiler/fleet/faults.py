"""Twelve virtual boards behind twelve SSH servers, and one fault after another: ``make test-fleet``.

Each round measures the same model again on every board, breaks something at the worst moment, repeats the command as a
user would, and then checks that every job has exactly one stored result, and that no board ran two measurements at the
same time. It prints a table, and its exit status is 1 if a count is wrong. It takes some minutes, so it is not part of
the test suite. With ``--cluster`` the boards are held by a host, and the scheduler and the host are killed too.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from edgeprof.results.store import Store
from tests import models
from tests.profiler.fleet.boards import SHORT, Boards
from tests.profiler.fleet.services import Site, cluster
from tests.profiler.fleet.sshd import require_sshd, serve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KINDS = ("jetson-orin-nano", "jetson-agx-orin", "raspberry-pi-5", "jetson-nano", "x86-rapl")


class Lab:
    """The boards, their servers, and the desk."""

    def __init__(self, folder: Path, boards: Boards, config: Path, site: Site | None = None) -> None:
        self.folder, self.boards, self.config, self.site = folder, boards, config, site
        self.inventory = boards.inventory(folder / "inventory.toml") if site is None else site.desk
        self.model = models.onnx_affine(folder / "affine.onnx")

    def command(self, desk: str, repeat: int, *more: str) -> tuple[list[str], dict[str, str]]:
        words = ["fleet", "bench", str(self.model), *SHORT, "--repeat", str(repeat), "-q", *more]
        environment = {
            **os.environ,
            "EDGEPROF_SSH": f"ssh -F {self.config}",
            "EDGEPROF_INVENTORY": str(self.inventory),
            "EDGEPROF_DATA_DIR": str(self.folder / desk),
        }
        return [sys.executable, "-m", "edgeprof", *words], environment

    def start(self, desk: str, repeat: int, *more: str, limit_file_size: bool = False) -> subprocess.Popen[str]:
        argv, environment = self.command(desk, repeat, *more)
        if limit_file_size:  # stands for a full disk
            argv = ["sh", "-c", 'ulimit -f 0; exec "$@"', "sh", *argv]
        return subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def run(self, desk: str, repeat: int, *more: str, limit_file_size: bool = False) -> tuple[int, str]:
        process = self.start(desk, repeat, *more, limit_file_size=limit_file_size)
        text, _ = process.communicate(timeout=600)
        return process.returncode, text

    def results(self, desk: str) -> int:
        return len(Store(self.folder / desk / "fleet").jobs())

    def started(self, name: str) -> list[dict[str, object]]:
        path = self.boards.folder / name / "data/door/started.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def benches(self) -> list[psutil.Process]:
        """Return the benchmarks that run on the boards now."""
        found = []
        for name in self.boards.names:
            with contextlib.suppress(OSError, ValueError, psutil.Error):
                noted = json.loads((self.boards.folder / name / "data/door/running.json").read_text())
                process = psutil.Process(noted["pid"])
                if "bench" in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def wait_for_benches(self, count: int) -> list[psutil.Process]:
        deadline = time.monotonic() + 120
        while len(found := self.benches()) < count:
            assert time.monotonic() < deadline, f"only {len(found)} benchmarks have begun"
            time.sleep(0.05)
        return found


def descendants(process: subprocess.Popen[str] | psutil.Process, name: str) -> list[psutil.Process]:
    return [child for child in psutil.Process(process.pid).children(recursive=True) if child.name() == name]


def kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.send_signal(signal.SIGKILL)


# --- the faults: each leaves its desk's job measured, or leaves it to a repetition ------------------------------------


def nothing(lab: Lab, repeat: int) -> None:
    lab.run("desk", repeat)


def desk_is_killed(lab: Lab, repeat: int) -> None:
    process = lab.start("desk", repeat)
    lab.wait_for_benches(3)
    kill([psutil.Process(process.pid)])
    process.communicate()


def ssh_clients_are_killed(lab: Lab, repeat: int) -> None:
    process = lab.start("desk", repeat)
    lab.wait_for_benches(3)
    kill(descendants(process if lab.site is None else lab.site.host.process, "ssh"))
    process.communicate(timeout=600)


def server_sessions_are_killed(lab: Lab, repeat: int) -> None:
    process = lab.start("desk", repeat)
    for bench in lab.wait_for_benches(3):
        kill([parent for parent in bench.parents() if "sshd" in parent.name()][:1])
    process.communicate(timeout=600)


def benches_are_killed(lab: Lab, repeat: int) -> None:
    process = lab.start("desk", repeat)
    kill(lab.wait_for_benches(3))
    process.communicate(timeout=600)


def boards_lose_power(lab: Lab, repeat: int) -> None:
    """The benchmark and its server's session end at the same moment, as in a reboot."""
    process = lab.start("desk", repeat)
    for bench in lab.wait_for_benches(3):
        kill([bench, *[parent for parent in bench.parents() if "sshd" in parent.name()][:1]])
    process.communicate(timeout=600)


def desk_is_interrupted(lab: Lab, repeat: int) -> None:
    process = lab.start("desk", repeat)
    lab.wait_for_benches(3)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=600)


def two_desks_ask(lab: Lab, repeat: int) -> None:
    first, second = lab.start("desk", repeat), lab.start("other", repeat)
    first.communicate(timeout=600)
    second.communicate(timeout=600)
    assert lab.results("other") >= len(lab.boards.names)


def desk_disk_is_full(lab: Lab, repeat: int) -> None:
    code, text = lab.run("desk", repeat, limit_file_size=True)
    assert code != 0, text
    assert "Traceback" not in text, text


def board_disks_are_full(lab: Lab, repeat: int) -> None:
    doors = [lab.boards.folder / name / "door.sh" for name in lab.boards.names[:3]]
    whole = [door.read_text() for door in doors]
    for door, text in zip(doors, whole, strict=True):
        door.write_text(text.replace("exec ", "ulimit -f 0; exec ", 1))
    code, text = lab.run("desk", repeat)
    for door, before in zip(doors, whole, strict=True):
        door.write_text(before)
    assert code == 3, text
    assert "Traceback" not in text, text


def fetch_is_killed(lab: Lab, repeat: int) -> None:
    """The desk is killed after the boards have finished and before it has stored their results."""
    process = lab.start("desk", repeat)
    lab.wait_for_benches(1)
    while lab.benches():
        time.sleep(0.02)
    kill([psutil.Process(process.pid)])
    process.communicate()


def host_is_killed(lab: Lab, repeat: int) -> None:
    assert lab.site is not None
    process = lab.start("desk", repeat)
    lab.wait_for_benches(3)
    lab.site.host.kill()
    process.communicate(timeout=600)


def scheduler_is_killed(lab: Lab, repeat: int) -> None:
    assert lab.site is not None
    process = lab.start("desk", repeat)
    lab.wait_for_benches(3)
    lab.site.scheduler.kill()
    process.communicate(timeout=600)


CLUSTER_FAULTS: tuple[Callable[[Lab, int], None], ...] = (host_is_killed, scheduler_is_killed)
FAULTS: tuple[Callable[[Lab, int], None], ...] = (
    nothing,
    desk_is_killed,
    ssh_clients_are_killed,
    server_sessions_are_killed,
    benches_are_killed,
    boards_lose_power,
    desk_is_interrupted,
    two_desks_ask,
    desk_disk_is_full,
    board_disks_are_full,
    fetch_is_killed,
)


def overlaps(lab: Lab, name: str) -> int:
    """Return how often a measurement began on a board while another one was still running without a result."""
    lines = lab.started(name)
    wrong = 0
    for before, after in itertools.pairwise(lines):
        result = lab.boards.folder / name / f"data/door/jobs/{before['key']}/result.json"
        # A killed or interrupted measurement has no result; the lock was free because its process had ended.
        ended = result.stat().st_mtime if result.exists() and before["key"] != after["key"] else 0.0
        wrong += ended > float(str(after["at"])) + 0.01
    return wrong


@contextlib.contextmanager
def laboratory(count: int, *, has_cluster: bool) -> Iterator[Lab]:
    with tempfile.TemporaryDirectory(prefix="edgeprof-fleet-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        boards = Boards(folder / "boards")
        configs = []
        for number in range(count):
            board = f"board{number:02d}-1"
            kind = KINDS[number % len(KINDS)]
            boards.add(board, kind, stack)
            place = folder / f"sshd-{board}"
            place.mkdir()
            configs.append(stack.enter_context(serve(place, boards, names=[board])).read_text())
        config = folder / "config"
        config.write_text("\n".join(configs))
        site = None
        if has_cluster:
            os.environ["EDGEPROF_SSH"] = f"ssh -F {config}"  # for the host
            site = stack.enter_context(cluster(folder, boards))
        yield Lab(folder, boards, config, site)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--boards", type=int, default=12)
    parser.add_argument("--cluster", action="store_true", help="boards held by a host, behind a scheduler")
    parser.add_argument("--only", help="run the faults whose name holds this word")
    options = parser.parse_args()
    require_sshd()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a script ignores it
    failed = 0
    with laboratory(options.boards, has_cluster=options.cluster) as lab:
        print(f"{options.boards} boards, {options.boards} SSH servers{', one host' if options.cluster else ''}")
        print(f"{'fault':28} {'runs':>5} {'measured':>9} {'results':>8} {'at once':>8} {'s':>6}")
        for repeat, fault in enumerate([*FAULTS, *(CLUSTER_FAULTS if options.cluster else ())], start=1):
            if options.only and options.only not in fault.__name__:
                continue
            failed += not play(lab, fault, repeat)
    return int(failed > 0)


def play(lab: Lab, fault: Callable[[Lab, int], None], repeat: int) -> bool:
    """Play one fault, and return whether every count is right."""
    names = lab.boards.names
    before_results = lab.results("desk")
    before_started = sum(len(lab.started(name)) for name in names)
    began = time.monotonic()
    fault(lab, repeat)
    runs, code, text = 1, 1, ""
    while code != 0 and runs < 5:  # as a user would: the same command again
        code, text = lab.run("desk", repeat)
        runs += 1
    results = lab.results("desk") - before_results
    started = sum(len(lab.started(name)) for name in names) - before_started
    at_once = sum(overlaps(lab, name) for name in names)
    is_right = code == 0 and results == len(names) and at_once == 0
    line = f"{fault.__name__:28} {runs:5} {started:9} {results:8} {at_once:8} {time.monotonic() - began:6.1f}"
    print(line if is_right else f"{line}  WRONG\n{text}", flush=True)
    return is_right


if __name__ == "__main__":
    sys.exit(main())
