"""Readers of what owners of devices, other machines and microcontrollers send, and the exporter's."""

from __future__ import annotations

import functools
import importlib.util
import os
from typing import TYPE_CHECKING, Any

from edgeprof.errors import EdgeprofError
from edgeprof.worker.runtime import LoadError
from tests.fuzzing import mutations
from tests.fuzzing.harness import Reader

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

USUAL = (EdgeprofError,)

REQUIREMENTS = b"""[product]
rate = 15
duty = 0.25
sleep_w = 0.4
latency_p99 = "100ms"
memory = "512MiB"
battery_wh = 50
derate = 0.8
hours = 24
[reliability]
sustained = "30min"
[devices.orin]
board = "NVIDIA Jetson Orin Nano"
price = 249
"""
INVENTORY = b"""port = 9942
[labels]
room = "lab"
[[devices]]
name = "nano-1"
address = "10.0.0.7:28283"
ssh = "edge@nano-1"
kind = "jetson"
rest = "10s"
start_below = "50C"
labels = { shelf = "2" }
"""
DOOR = b'allow_code = false\nworker_python = "/usr/bin/python3"\nmax_bytes = "8GiB"\nsign_key = "/etc/edgeprof/key"\n'
BOARD = b"""[case]
name = "A case"
match = ["acme,*"]
bus = 6
totals = [{ rails = ["VDD_IN"], covers = "module", excludes = "the carrier" }]
rails.VDD_IN = { labels = ["IN"], at = "40.1", scope = "module", shunt_uohm = 5000 }
rails.VDD_GPU = { labels = ["GPU"], at = "40.2", scope = "gpu", inside = "VDD_IN", shunt_uohm = 5000 }
"""
FILE = b'{"name":"m.onnx","sha256":"' + b"0" * 64 + b'"}'
REQUESTS = (
    b'{"op":"hello"}',
    b'{"op":"put","sha256":"' + b"0" * 64 + b'","size":5}',
    b'{"op":"bench","models":[[' + FILE + b']],"flags":{"windows":["3"]},"expected":{"board":"b"},"wait_s":3.5}',
    b'{"op":"fetch","key":"' + b"0" * 64 + b'"}',
)
TRANSCRIPT = b"""m-ready
m-name-dut-[demo]
m-ready
m-profile-[ULPMark for tinyML Firmware V0.0.1]
m-profile-[demo]
m-ready
m-warmup-start-1
m-warmup-done
m-infer-start-10
m-lap-us-1000
m-lap-us-51000
m-infer-done
m-results-[0.1,0.7,0.2]
m-ready
"""


def _requirements(path: Path) -> object:
    from edgeprof.verdicts import requirements

    return requirements.load(path)


def _inventory(path: Path) -> object:
    from edgeprof.fleet import inventory

    return inventory.load(path)


def _door(path: Path) -> object:
    from edgeprof.fleet.permissions import Permissions

    return Permissions.read(path)


def _boards(path: Path) -> object:
    from edgeprof.sensing.board.files import load_boards

    boards = path.with_suffix("") / "boards.d"
    boards.mkdir(parents=True, exist_ok=True)
    (boards / "case.toml").write_bytes(path.read_bytes())
    return load_boards(boards.parent)


def _request(path: Path) -> object:
    from edgeprof.fleet import protocol

    return protocol.parse_request(path.read_bytes())


def _messages(path: Path) -> None:
    from edgeprof.fleet import framing, protocol

    reading = os.open(path, os.O_RDONLY)
    try:
        wire = framing.Wire(reading, -1)
        while (message := wire.read(timeout_s=1.0)) is not None:
            protocol.parse_request(message)
    finally:
        os.close(reading)


class _Port:
    """A serial port at which a device has said all that it will say."""

    path, baud, damaged, unfinished = "/dev/ttyFUZZ", 115200, 0, ""

    def __init__(self, said: bytes) -> None:
        from edgeprof_plugins.runtimes.mcu.port import Line

        self._lines = [Line(text, at * 0.01) for at, text in enumerate(said.decode("latin-1").split("\n"))]

    def write(self, data: bytes, limit_s: float = 5.0) -> None:
        pass

    def drain(self, quiet_s: float, limit_s: float = 10.0) -> bool:
        return True

    def read_line(self, deadline_s: float) -> Any:
        return self._lines.pop(0) if self._lines else None

    def report_delay_s(self, characters: int) -> float:
        return 0.001

    def close(self) -> None:
        pass


def _microcontroller(path: Path) -> object:
    from edgeprof_plugins.runtimes.mcu.protocol import Device

    device = Device(_Port(path.read_bytes().partition(b"\n")[2]))  # type: ignore[arg-type]
    device.profile()
    return device.infer(10, 1, 5.0)


def _exporters(name: str, path: Path) -> None:
    from tests.exporters.fuzzing import TARGETS

    TARGETS[name][0](path.read_bytes())


def _exporters_seeds(name: str) -> Sequence[bytes]:
    if importlib.util.find_spec("prometheus_client") is None:
        return []
    from tests.exporters.fuzzing import TARGETS

    return TARGETS[name][1]()


def _as_list(*seeds: bytes) -> Callable[[], Sequence[bytes]]:
    return lambda: list(seeds)


#: Of the exporter: name there → how what it reads is damaged.
EXPORTERS = {
    "datagram": mutations.of_bytes,
    "control": mutations.of_json,
    "head": mutations.of_bytes,
    "web-config": mutations.of_lines,
    "settings": mutations.of_lines,
    "meter": mutations.of_lines,
    "state": mutations.of_json,
}

READERS = [
    Reader("requirements toml", ".toml", _as_list(REQUIREMENTS), mutations.of_toml, _requirements, USUAL),
    Reader("inventory toml", ".toml", _as_list(INVENTORY), mutations.of_toml, _inventory, USUAL),
    Reader("door toml", ".toml", _as_list(DOOR), mutations.of_toml, _door, USUAL),
    Reader("board toml", ".toml", _as_list(BOARD), mutations.of_toml, _boards, USUAL),
    Reader("door request", ".json", _as_list(*REQUESTS), mutations.of_json, _request, USUAL),
    Reader("door messages", ".bin", lambda: [len(one).to_bytes(4, "big") + one for one in REQUESTS],
           mutations.of_bytes, _messages, USUAL),
    Reader("microcontroller", ".txt", _as_list(TRANSCRIPT), mutations.of_lines, _microcontroller, (LoadError,)),
    *(
        Reader(f"exporter {name}", ".bin", functools.partial(_exporters_seeds, name), mutate,
               functools.partial(_exporters, name), ())
        for name, mutate in EXPORTERS.items()
    ),
]  # fmt: skip
