"""What a sandboxed process can still do, tested in a real process; skipped if the kernel has no sandbox."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgeprof.cli.options import _require_sandbox
from edgeprof.errors import UnavailableError
from edgeprof.worker import sandbox, syscalls

REASON = sandbox.why_not()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(REASON is not None, reason=f"this kernel cannot confine a process: {REASON}"),
]

ATTEMPTS = """
import ctypes, errno, fcntl, json, os, platform, resource, signal, socket, struct, subprocess, sys
from edgeprof.worker import sandbox, syscalls
inside, outside, landlock, listener = sys.argv[1:4] + [int(sys.argv[4])]
if landlock:
    sandbox.landlock_version = lambda: int(landlock)
told = sandbox.enter([inside])
kept = outside + "/kept"
libc = ctypes.CDLL(None, use_errno=True)

def call(numbers, *arguments):
    outcome = libc.syscall(numbers[list(syscalls.MACHINES).index(platform.machine())], *arguments)
    if outcome < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return outcome

def clone(numbers, *arguments):
    child = call(numbers, *arguments)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)

def datagram(connect):
    with socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0] as pair:
        if connect:
            pair.connect(outside + "/inbox")
        pair.sendto(b"x", *([] if connect else [outside + "/inbox"]))

def let_the_kernel_signal(owner):
    reading, writing = os.pipe()
    fcntl.fcntl(reading, fcntl.F_SETOWN, owner)

def set_attributes():
    fcntl.ioctl(os.open(kept, os.O_RDONLY), 0x40086602, struct.pack("l", 0x40))

def request(number):
    try:
        fcntl.ioctl(os.open(kept, os.O_RDONLY), number, bytes(128))
    except OSError as error:
        if error.errno == errno.EPERM:  # from the sandbox; the file system may not know the request
            raise

def run(*words, **options):
    subprocess.run(words, check=True, stderr=-3, **options)

rules = {rule.name: rule.numbers for rule in syscalls.BY_ARGUMENT}
clone3 = (ctypes.c_uint64 * 8)(0x10000000, 0, 0, 0, signal.SIGCHLD, 0, 0, 0)
attempts = {
    "write inside": lambda: open(inside + "/a", "w").write("x"),
    "rename inside": lambda: os.rename(inside + "/a", inside + "/b"),
    "read outside": lambda: open(kept).read(),
    "write to null": lambda: open("/dev/null", "w").write("x"),
    "run a program": lambda: run("true"),
    "pair of sockets": lambda: socket.socketpair(),
    "own limits": lambda: resource.prlimit(os.getpid(), resource.RLIMIT_CORE, (0, 0)),
    "make outside": lambda: open(outside + "/new", "w"),
    "append outside": lambda: open(kept, "a"),
    "truncate by name": lambda: os.truncate(kept, 0),
    "truncate while reading": lambda: os.open(kept, os.O_RDONLY | os.O_TRUNC),
    "truncate in the mode of ioctl": lambda: os.open(kept, 3 | os.O_TRUNC),
    "remove outside": lambda: os.unlink(kept),
    "rename out": lambda: os.rename(inside + "/b", outside + "/b"),
    "link in": lambda: os.link(kept, inside + "/l"),
    "change a mode": lambda: os.chmod(kept, 0o777),
    "change a time": lambda: os.utime(kept),
    "change attributes": set_attributes,
    "make a file unchangeable (fs-verity)": lambda: request(0x40806685),
    "encrypt a folder": lambda: request(0x800C6613),
    "make a subvolume": lambda: request(0x5000940E),
    "program writes": lambda: run("sh", "-c", "echo > " + outside + "/n"),
    "internet": lambda: socket.socket(),
    "internet 6, datagrams": lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM),
    "unix socket": lambda: socket.socket(socket.AF_UNIX),
    "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "datagram by a pair of sockets": lambda: datagram(False),
    "connection of a pair of sockets": lambda: datagram(True),
    "pair of sockets of TIPC": lambda: socket.socketpair(socket.AF_TIPC, socket.SOCK_STREAM),
    "shared memory": lambda: call(syscalls.REFUSED["shmget"], 0x65646765, 4096, 0o1600),
    "message queue": lambda: call(syscalls.REFUSED["mq_open"], b"edgeprof", os.O_CREAT | os.O_RDWR, 0o600, None),
    "signal to the parent": lambda: os.kill(listener, 0),
    "signal by way of the kernel": lambda: let_the_kernel_signal(listener),
    "limits of the parent": lambda: resource.prlimit(listener, resource.RLIMIT_CORE, (0, 0)),
    "session of its own": lambda: run("true", start_new_session=True),
    "memory of the parent": lambda: open("/proc/%d/mem" % listener, "r+b"),
    "reading the parent's memory": lambda: open("/proc/%d/mem" % listener, "rb"),
    "environment of the parent": lambda: open("/proc/%d/environ" % listener).read(),
    "namespaces": lambda: clone(rules["clone"], 0x10000000 | signal.SIGCHLD, 0, 0, 0, 0),
    "namespaces by clone3": lambda: clone(syscalls.UNKNOWN["clone3"], ctypes.byref(clone3), 64),
    "typing on a terminal": lambda: fcntl.ioctl(os.open("/dev/ptmx", os.O_RDONLY), 0x5412, b"x"),
    "another user": lambda: os.setuid(os.getuid() + 1),
}
outcome = {}
for name, attempt in attempts.items():
    try:
        attempt()
        outcome[name] = True
    except (OSError, subprocess.CalledProcessError):
        outcome[name] = False
print(json.dumps([told, outcome]))
"""
ALLOWED = {
    *("write inside", "rename inside", "read outside", "write to null", "run a program", "pair of sockets"),
    "own limits",
}


@pytest.mark.parametrize("landlock", ["", "1", "3", "0"])
def test_a_confined_process_writes_in_its_folder_and_reaches_nobody(tmp_path: Path, landlock: str) -> None:
    if landlock and int(landlock) > sandbox.landlock_version():
        pytest.skip("this kernel's Landlock is older")
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (outside / "kept").write_text("kept")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as inbox:
        inbox.bind(str(outside / "inbox"))
        inbox.setblocking(False)
        done = subprocess.run(
            [sys.executable, "-c", ATTEMPTS, inside, outside, landlock, str(os.getpid())],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        with pytest.raises(BlockingIOError):
            inbox.recv(1)
    if landlock == "0" and "user namespaces are refused" in done.stderr:
        pytest.skip("this kernel refuses user namespaces")
    told, outcome = json.loads(done.stdout or done.stderr)
    assert {name for name, worked in outcome.items() if worked} == ALLOWED
    assert (outside / "kept").read_text() == "kept"
    assert {path.name for path in outside.iterdir()} == {"kept", "inbox"}
    by = {"0": "user namespaces", "": ("Landlock", "user namespaces")}
    assert told.startswith(by.get(landlock, f"Landlock {landlock}"))


@pytest.mark.skipif(not Path("/usr/include/asm-generic/unistd.h").exists(), reason="the kernel's headers are not here")
def test_the_numbers_of_system_calls_are_those_of_the_kernels_headers() -> None:
    calls = {**syscalls.REFUSED, **syscalls.UNKNOWN}
    calls.update((rule.name, rule.numbers) for rule in (*syscalls.BY_ARGUMENT, *syscalls.SIGNALS_BY_ARGUMENT))
    headers = list(Path("/usr/include").glob("x86_64-linux-gnu/asm/unistd_64.h"))
    checked = 0
    for which, header in enumerate([*headers, Path("/usr/include/asm-generic/unistd.h")], 1 - len(headers)):
        defined = re.findall(r"^#define __NR(?:3264)?_(\w+)\s+(\d+)$", header.read_text(), re.MULTILINE)
        for name, number in defined:
            if name in calls:
                assert calls[name][which] == int(number), name
                checked += 1
    assert checked > 60


def test_a_kernel_that_cannot_is_refused_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "why_not", lambda: "this kernel (4.9) has neither")
    with pytest.raises(UnavailableError, match=r"--sandbox cannot be used here: this kernel \(4\.9\) has neither"):
        _require_sandbox()


def test_another_machine_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox.platform, "machine", lambda: "armv7l")
    with pytest.raises(sandbox.SandboxError, match="armv7l"):
        sandbox.enter([])


PROGRAM = """
import socket
tried = []
def model():
    if tried:
        return
    tried.append(1)
    for attempt in (lambda: open({!r}, "w").close(), lambda: socket.create_connection(("127.0.0.1", {}), 5).close()):
        try:
            attempt()
        except OSError:
            pass
"""


@pytest.mark.parametrize("confined", [True, False])
def test_a_bench_in_the_sandbox_lets_its_model_do_nothing_outside(tmp_path: Path, confined: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        program = tmp_path / "app.py"
        program.write_text(PROGRAM.format(str(tmp_path / "written"), server.getsockname()[1]))
        result = _bench(tmp_path, "app.py:model", *(["--sandbox"] if confined else []))
        assert result["variants"][0]["status"] in {"ok", "degraded"}
        facts = result["variants"][0]["runtime"]["facts"]
        assert ("sandbox" in json.dumps(facts)) == confined
        assert (tmp_path / "written").exists() != confined
        if confined:
            with pytest.raises(BlockingIOError):
                server.accept()
        else:
            server.accept()[0].close()
    assert not list(Path(tmp_path / "tmp").glob("edgeprof-sandbox-*"))


def _bench(folder: Path, *words: str) -> dict[str, Any]:
    (folder / "tmp").mkdir()
    quick = ["--windows", "2", "--window", "0.1", "--idle", "0", "--warmup", "0.05", "--timeout", "20", "--json"]
    environment = {**os.environ, "EDGEPROF_DATA_DIR": str(folder / "data"), "TMPDIR": str(folder / "tmp")}
    done = subprocess.run(
        [sys.executable, "-m", "edgeprof", "bench", *words, *quick],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_a_sandbox_without_a_process_of_its_own_is_refused_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("def model(): open('ran', 'w').close()\n")
    words = ["bench", "app.py:model", "--sandbox", "--no-isolation"]
    done = subprocess.run([sys.executable, "-m", "edgeprof", *words], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 2
    assert b"--no-isolation forbids it" in done.stderr
    assert not (tmp_path / "ran").exists()
