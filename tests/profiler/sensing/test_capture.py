"""The bundle of a bug report is sufficient to find the device's sensors again, and identifies nobody."""

from __future__ import annotations

import io
import tarfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeprof.plugins import PluginHost
from edgeprof.roots import BUNDLE_MARKER, SIMULATION_MARKER, Roots
from edgeprof.sensing.capture import FOLDER, Tree, capture_tree, opened_paths
from edgeprof.sensing.device.host import describe_host
from edgeprof.sensing.discover import Discovery, discover
from edgeprof.sensing.glance import glance
from edgeprof.sensing.redaction import Redactor, secrets_of
from edgeprof.simulation.board_specs import BOARDS
from edgeprof.simulation.layouts import build

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def host() -> PluginHost:
    return PluginHost.from_environment({})


def bundled(host: PluginHost, roots: Roots) -> Tree:
    with opened_paths() as paths:
        describe_host(roots)
        discovery = discover(host, roots)
        glance(discovery.sensors, discovery.topology.by_key())
    tree = capture_tree(roots, [*paths, str(roots.sysfs / SIMULATION_MARKER)])
    return tree.redacted(Redactor(secrets_of(roots)))


def unpacked(tree: Tree, directory: Path) -> Roots:
    with tarfile.open(fileobj=io.BytesIO(tree.archive())) as archive:
        archive.extractall(directory)  # its own; Debian's Python 3.11.2 has no filter yet
    return Roots.resolve(directory / FOLDER, environ={})


def facts(found: Discovery) -> list[tuple[object, ...]]:
    seen = glance(found.sensors, found.topology.by_key())
    return [
        (c.key, c.available, c.scope, c.role, c.parent, None if c.kind == "counter" else seen.values.get(c.key))
        for c in found.topology.channels
        if c.sensor != "system"  # load and memory are those of the machine that runs the test
    ]


#: The others take a second each, and differ little in what a bundle holds.
QUICK = {"jetson-orin-nano", "x86-rapl"}


@pytest.mark.parametrize(
    "board", [pytest.param(board, marks=[] if board in QUICK else pytest.mark.slow) for board in sorted(BOARDS)]
)
def test_a_bundle_of_a_board_shows_the_same_channels_and_the_same_total(
    board: str, tmp_path: Path, host: PluginHost
) -> None:
    build(board, tmp_path / "board")
    roots = Roots.resolve(tmp_path / "board", environ={})
    again = unpacked(bundled(host, roots), tmp_path)
    here, there = discover(host, roots), discover(host, again)
    assert facts(there) == facts(here)
    assert there.topology.board.id == here.topology.board.id
    totals = [(t.headline.covers, [c.name for c in t.headline.channels]) for t in (here.topology, there.topology)]
    assert totals[0] == totals[1]


def test_a_file_that_cannot_be_read_is_told_and_stays_unreadable(tmp_path: Path, host: PluginHost) -> None:
    layout = build("jetson-agx-orin", tmp_path / "board")
    current = layout.rails["VDD_CPU_CV"].current
    assert current is not None
    (current.parent / "broken_input").symlink_to("/proc/self/mem")
    tree = Tree(unreadable={"class/hwmon/x": "Permission denied"})
    with tarfile.open(fileobj=io.BytesIO(tree.archive())) as archive:
        assert archive.getmember(f"{FOLDER}/class/hwmon/x").mode == 0
    assert not any("broken_input" in path for path in bundled(host, Roots.resolve(layout.directory, environ={})).files)


def test_nothing_of_processes_networks_and_mounts_is_taken(tmp_path: Path) -> None:
    names = ("1/status", "self/environ", "net/arp", "mounts", "cmdline", "stat")
    for name in names:
        (tmp_path / "proc" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "proc" / name).write_text("x")
    tree = capture_tree(Roots.resolve(tmp_path, environ={}), [str(tmp_path / "proc" / name) for name in names])
    assert list(tree.files) == ["proc/stat"]


def test_of_a_running_machine_s_etc_only_what_is_named_is_taken() -> None:
    tree = capture_tree(Roots(), ["/etc/passwd", "/etc/hostname", __file__, "/root/.ssh/id_rsa"])
    assert tree == Tree()


def test_links_that_turn_in_circles_or_lead_out_end(tmp_path: Path) -> None:
    chips = tmp_path / "class/hwmon"
    chips.mkdir(parents=True)
    (chips / "a").symlink_to("b")
    (chips / "b").symlink_to("a")
    (chips / "out").symlink_to("/etc/passwd")
    roots = Roots.resolve(tmp_path, environ={})
    assert capture_tree(roots, [str(chips / "a"), str(chips)]).files == {}


WORDS = st.from_regex(r"\A[a-z][a-z0-9]{4,11}\Z")
SERIALS = st.from_regex(r"\A[A-Z0-9]{9,14}\Z").filter(lambda text: not text.isdecimal())
MACS = st.lists(st.integers(0, 255), min_size=6, max_size=6).map(lambda b: ":".join(f"{x:02x}" for x in b))


@pytest.mark.slow
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(hostname=WORDS, user=WORDS, serial=SERIALS, battery=SERIALS, mac=MACS, nic=MACS)
def test_no_name_serial_number_or_address_of_a_device_survives(
    tmp_path_factory: pytest.TempPathFactory,
    host: PluginHost,
    hostname: str,
    user: str,
    serial: str,
    battery: str,
    mac: str,
    nic: str,
) -> None:
    top = tmp_path_factory.mktemp("named")
    build("jetson-orin-nano", top / "board")
    planted = {
        "root/etc/hostname": f"{hostname}\n",
        "proc/sys/kernel/hostname": f"{hostname}.example.org\n",
        "root/etc/passwd": f"root:x:0:0:root:/root:/bin/sh\n{user}:x:1000:1000:,,,:/home/{user}:/bin/bash\n",
        "root/etc/os-release": f'PRETTY_NAME="Built by {user}@{hostname} for {user.upper()}"\n',
        "firmware/devicetree/base/serial-number": f"{serial}\0",
        "class/net/eth0/address": f"{nic}\n",
        f"class/power_supply/hid-{mac}-battery/type": "Battery\n",
        f"class/power_supply/hid-{mac}-battery/serial_number": f"{battery}\n",
        f"class/power_supply/hid-{mac}-battery/uevent": f"POWER_SUPPLY_SERIAL_NUMBER={battery}\nA={serial}\nB={nic}\n",
        f"class/power_supply/hid-{mac}-battery/model_name": f"{user}'s pen {mac.upper()} at 192.168.7.9 fe80::1:2\n",
    }
    for name, text in planted.items():
        (top / "board" / name).parent.mkdir(parents=True, exist_ok=True)
        (top / "board" / name).write_text(text)
    roots = Roots.resolve(top / "board", environ={})
    with opened_paths() as paths:
        discover(host, roots)
        for name in planted:
            (top / "board" / name).read_bytes()
    tree = capture_tree(roots, paths).redacted(Redactor(secrets_of(roots)))
    assert any(path.endswith("-battery/uevent") for path in tree.files)
    everything = "\n".join([*tree.files, *tree.links, *tree.links.values(), *tree.directories]).encode()
    everything = (everything + b"\n".join(tree.files.values())).lower()
    for secret in (hostname, user, serial, battery, mac, nic, "192.168.7.9", "fe80::1:2"):
        assert secret.lower().encode() not in everything


@pytest.mark.parametrize(
    "text",
    [
        "4092\n",
        "VDD_IN",
        "NVIDIA Jetson Orin Nano Developer Kit",
        "0000:01:00.0",
        "12:30:45",
        "in0_max temp1_crit",
        "std::string",
        "# R36 (release), REVISION: 4.3, GCID: 38968081",
    ],
)
def test_what_names_nobody_is_left_as_it_is(text: str) -> None:
    assert Redactor({"nvidia": "name", "anna": "name", "40929999": "serial"}).text(text) == text


def test_one_text_has_one_placeholder_and_a_user_called_max_breaks_no_file_name() -> None:
    redactor = Redactor({"max": "name", "SN12345": "serial"}, versions=["10.3.0.26"])
    assert redactor.path("class/hwmon/temp1_max") == "class/hwmon/temp1_max"
    assert redactor.text("max has SN12345, xSN12345x and TensorRT 10.3.0.26") == (
        "name1 has serial1, xserial1x and TensorRT 10.3.0.26"
    )
    assert redactor.counts == {"name": 1, "serial": 1}


def test_a_bundle_is_no_measurement_of_the_machine_that_reads_it(tmp_path: Path) -> None:
    assert not Roots.resolve(tmp_path, environ={}).is_simulated
    (tmp_path / BUNDLE_MARKER).write_text("{}")
    assert Roots.resolve(tmp_path, environ={}).is_simulated
