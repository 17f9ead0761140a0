"""A device behind NAT, in network namespaces: it keeps a tunnel to the desk open, and its network is cut."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import shutil
import subprocess
import threading
from types import SimpleNamespace

import pytest

from edgeprof.fleet import inventory, task
from edgeprof.fleet.link import Link, LinkError
from edgeprof.fleet.task import Job, Watch
from tests import models
from tests.profiler.fleet.boards import SHORT, Boards
from tests.profiler.fleet.sshd import SSHD, make_key, require_sshd, serve, wait_for

#: The desk and the gateway share one network; the desk has no route to the network behind the gateway.
DESK, GATEWAY_OUTSIDE, GATEWAY_INSIDE, DEVICE = "198.51.100.1", "198.51.100.2", "192.0.2.1", "192.0.2.2"


def run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(words)}: {done.stderr.strip()}")


@contextlib.contextmanager
def nat():
    """Two namespaces: the device's, and its gateway's, which hides it; the desk is this one."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    if not (shutil.which("ip") and shutil.which("iptables")):
        pytest.skip("no ip or iptables: apt-get install iproute2 iptables")
    name = f"ep{os.getpid()}"
    gateway, device = f"{name}g", f"{name}d"
    with contextlib.ExitStack() as stack:
        try:
            for namespace in (gateway, device):
                run("ip", "netns", "add", namespace)
                stack.callback(subprocess.run, ["ip", "netns", "del", namespace], check=False)
                run("ip", "-n", namespace, "link", "set", "lo", "up")
            for ours, namespace, theirs, peer in ((f"{name}o", gateway, "out", None), ("in", gateway, "eth", device)):
                where = ("-n", namespace) if peer else ()
                run(
                    "ip",
                    *where,
                    "link",
                    "add",
                    ours,
                    "type",
                    "veth",
                    "peer",
                    "name",
                    theirs,
                    "netns",
                    peer or namespace,
                )
            addresses = (
                ((), DESK, f"{name}o"),
                (("-n", gateway), GATEWAY_OUTSIDE, "out"),
                (("-n", gateway), GATEWAY_INSIDE, "in"),
                (("-n", device), DEVICE, "eth"),
            )
            for where, address, link in addresses:
                run("ip", *where, "address", "add", f"{address}/24", "dev", link)
                run("ip", *where, "link", "set", link, "up")
            run("ip", "-n", device, "route", "add", "default", "via", GATEWAY_INSIDE)
            within = ("ip", "netns", "exec", gateway)
            run(*within, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
            run(*within, "iptables", "-t", "nat", "-A", "POSTROUTING", "-o", "out", "-j", "MASQUERADE")
        except OSError as error:
            pytest.skip(f"no network namespaces with NAT here: {error}")
        yield SimpleNamespace(gateway=gateway, within=("ip", "netns", "exec", device))


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A board behind NAT whose tunnel to the desk is reopened whenever it breaks, as systemd would do."""
    require_sshd()
    pytest.importorskip("onnxruntime")
    boards = Boards(tmp_path / "boards")
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(nat())
        boards.add("nano-1", "jetson-orin-nano", stack)
        place, desk = tmp_path / "device", tmp_path / "desk"
        place.mkdir()
        desk.mkdir()
        config = stack.enter_context(serve(place, boards, within=network.within))
        port = next(line.split()[1] for line in (place / "sshd_config").read_text().splitlines() if "Port" in line)
        host_key = make_key(desk / "host")
        tunnel = make_key(desk / "tunnel")
        (desk / "keys").write_text(f'restrict,port-forwarding,permitlisten="127.0.0.1:{port}" {tunnel}\n')
        (desk / "known").write_text(f"[{DESK}]:{port} {host_key}\n")
        (desk / "sshd_config").write_text(
            f"Port {port}\nListenAddress {DESK}\nHostKey {desk}/host\nPidFile none\nUsePAM no\nStrictModes no\n"
            f"AuthorizedKeysFile {desk}/keys\nClientAliveInterval 1\nClientAliveCountMax 2\n"
        )
        server = subprocess.Popen([SSHD, "-D", "-e", "-f", desk / "sshd_config"], stderr=subprocess.DEVNULL)
        stack.callback(server.wait)
        stack.callback(server.terminate)
        wait_for(int(port), server, DESK)
        options = (
            f"-F none -N -p {port} -i {desk}/tunnel -o UserKnownHostsFile={desk}/known -o BatchMode=yes "
            "-o ServerAliveInterval=1 -o ServerAliveCountMax=2 -o ConnectTimeout=2 -o ExitOnForwardFailure=yes"
        )
        forward = f"-R 127.0.0.1:{port}:127.0.0.1:{port} {getpass.getuser()}@{DESK}"
        loop = f"trap 'kill $!; exit' TERM; while :; do ssh {options} {forward} & wait $!; sleep 0.2; done"
        holder = subprocess.Popen([*network.within, "sh", "-c", loop], stderr=subprocess.DEVNULL)
        stack.callback(holder.wait)
        stack.callback(holder.terminate)
        wait_for(int(port), holder)
        monkeypatch.setenv("EDGEPROF_SSH", f"ssh -F {config} -o ConnectTimeout=2 -o ServerAliveInterval=1")
        monkeypatch.setenv("EDGEPROF_DATA_DIR", str(tmp_path / "data"))
        monkeypatch.setattr(task, "PAUSES_S", (0.5,) * 60)
        yield SimpleNamespace(boards=boards, folder=tmp_path, network=network)


def test_a_device_behind_nat_is_measured_once_although_its_network_is_pulled(site) -> None:
    with pytest.raises(LinkError), Link(inventory.parse_device("hidden", DEVICE)) as link:  # the desk has no route
        link.hello()
    device = inventory.parse_device("nano-1", "nano-1")
    with Link(device) as link:
        assert link.hello().board == "NVIDIA Jetson Orin Nano"
    flags = {SHORT[n].lstrip("-"): [SHORT[n + 1]] for n in range(0, len(SHORT), 2)}
    job = Job.of([str(models.onnx_affine(site.folder / "m.onnx"))], {**flags, "window": ["2"]})
    pulled, gateway = threading.Event(), site.network.gateway

    def say(text: str) -> None:
        if text == "measuring" and not pulled.is_set():
            run("ip", "-n", gateway, "link", "set", "in", "down")
            pulled.set()
        elif pulled.is_set():  # the link broke: the cable is plugged in again
            run("ip", "-n", gateway, "link", "set", "in", "up")

    measured = task.measure(device, job, Watch(say))
    assert pulled.is_set()
    assert measured.result.variants[0].status in {"ok", "degraded"}
    started = site.boards.folder / "nano-1/data/door/started.jsonl"
    assert [json.loads(line)["key"] for line in started.read_text().splitlines()] == [measured.key]
    assert task.measure(device, job, Watch()).was_there
