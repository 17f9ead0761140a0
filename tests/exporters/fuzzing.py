"""What bytes from outside reach, each as a function that holds whatever it is given.

The tests give each ``mutated`` inputs; ``python -m tests.exporters.fuzz`` has atheris look for worse ones.
"""

from __future__ import annotations

import contextlib
import json
import random
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import yaml  # noqa: F401 - the exporter imports it for one file and removes it, which takes longer than the file

from edgeprof.energy.online.running_sum import History
from edgeprof.errors import EdgeprofError
from edgeprof.results import document
from edgeprof.results.store import Newest
from edgeprof.sensing.meter import lines as meter_lines
from edgeprof_exporters import configuration as settings
from edgeprof_exporters import control, messages, state, webconfig
from edgeprof_exporters import results_reader as bench_reader
from edgeprof_exporters.engine import Engine
from edgeprof_exporters.exposition import families
from edgeprof_exporters.http_request import BadRequestError, parse_head
from edgeprof_exporters.inferences import Inferences
from edgeprof_exporters.throttling import Throttling

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_DIRECTORY = tempfile.TemporaryDirectory(prefix="edgeprof-fuzz-")
_FILE = Path(_DIRECTORY.name, "file.yml")
_ODD = (b"\0", b"\xff", b"\xed\xa0\x80", b"\t", b"\r\n", b"9" * 400, b"-1", b"1e999", b"NaN", b"Infinity", b"[" * 99,
        b"null", b"\\ud800", b"{}", b'""', b"%", b"__class__", b"2001-99-99", b"0x_", b"&a [*a]", b".inf")  # fmt: skip


def datagram(data: bytes) -> None:
    message = messages.parse(data, 1000.0)
    if message is not None:
        assert message.start <= message.end <= 1001
        assert all(label.isprintable() and len(label) <= 100 for label in message[3:])


class _Lines(control.Control):
    """Answers without a socket."""

    def __init__(self) -> None:
        self._commands = {"status": lambda: {"a": 1}}


def control_line(data: bytes) -> None:
    answer = _Lines().answer(data)
    assert set(answer) == {"error"} or answer == {"ok": {"a": 1}}
    json.dumps(answer).encode()


def head(data: bytes) -> None:
    with contextlib.suppress(BadRequestError):
        request = parse_head(data)
        assert request.path.startswith("/")
        assert not any("\n" in value or "\r" in value for value in request.headers.values())


def web_config(data: bytes) -> None:
    _FILE.write_bytes(data)
    with contextlib.suppress(EdgeprofError):
        rules = webconfig.read(_FILE)
        assert rules.limit is None or rules.limit.interval_s > 0
        "".join(f"{name}: {value}" for name, value in rules.headers.items()).encode("latin-1")


def settings_file(data: bytes) -> None:
    _FILE.write_bytes(data)
    with contextlib.suppress(EdgeprofError):
        settings.load({}, {}, _FILE)


def meter_line(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    with contextlib.suppress(meter_lines.LineError):
        meter_lines.parse_header(text, meter_lines.Facts())
    with contextlib.suppress(meter_lines.LineError):
        meter_lines.parse_line(text)


def state_file(data: bytes) -> None:
    kept = state._content(data, _FILE)
    if kept is None:
        return
    engine, inferences, throttling = Engine(), Inferences(History()), Throttling(None)
    try:
        engine.resume(kept["state"]["engine"], 1000.0)
        inferences.resume(kept["state"]["inferences"])
        throttling.resume(kept["state"]["throttling"])
    except state.NOT_OURS:
        return
    json.dumps([engine.state(), inferences.state(), throttling.seen()]).encode()
    for key in (*inferences.tallies, *((cause,) for cause in throttling.seen()[0])):
        "".join(key).encode()


def result(data: bytes) -> None:
    with contextlib.suppress(EdgeprofError):
        found = document.from_json(data)
        rows = bench_reader.rows([Newest(found, variant) for variant in found.variants])
        for family in families(json.loads(json.dumps(rows))):
            str(family).encode()


def _state() -> bytes:
    inferences = Inferences(History())
    inferences.take(messages.Message(1.0, 2.0, 3, "yolo", "int8", "ort"))
    kept = {"joules": 5.0, "gap_s": 0.5, "time": 900.0, "value": 6.0, "edge": [6.0, 0.5]}
    engine = {
        "meters": {"ina3221\tVDD_IN\tpower": kept},
        "total": {"joules": 1.0, "gap_s": 0.0},
        "headline": ["VDD_IN"],
    }
    content = {"engine": engine, "inferences": inferences.state(), "throttling": {"heat": 3}}
    top = {"schema": state._SCHEMA, "boot": "x", "clean": True, "monotonic": 1.0, "state": content}
    return json.dumps(top).encode()


def _result() -> bytes:
    from tests.profiler.results import samples

    made = samples.study()
    made.traces = []
    return document.to_json(made).encode()


_WEB = b"""tls_server_config:
  cert_file: a.crt
  key_file: a.key
  client_auth_type: RequireAndVerifyClientCert
  client_ca_file: ca.crt
  client_allowed_sans: [prometheus.example]
  min_version: TLS12
  cipher_suites: [TLS_AES_128_GCM_SHA256]
  curve_preferences: [X25519]
http_server_config: {http2: false, headers: {X-Frame-Options: deny}}
basic_auth_users: {}
rate_limit: {interval: 1s, burst: 20}
"""

#: Name → the function and what is right, to begin from.
TARGETS: dict[str, tuple[Callable[[bytes], None], Callable[[], list[bytes]]]] = {
    "datagram": (datagram, lambda: [b"EP1 999000000000 999500000000 2\tyolo\tint8\tort"]),
    "control": (control_line, lambda: [b'{"command": "status"}']),
    "head": (head, lambda: [b"GET /metrics?collect[]=power HTTP/1.1\r\nHost: x\r\nAccept: */*\r\nConnection: close"]),
    "web-config": (web_config, lambda: [_WEB, _WEB.partition(b"http_")[2], b"rate_limit: {interval: 1h1s, burst: 2}"]),
    "settings": (settings_file, lambda: [b"web: {max_requests: 7, listen_address: [':1']}\nsampling: {rate_hz: 5}"]),
    "meter": (meter_line, lambda: [b"t=1.5 W=12.34 V=12.01,A=1.027 ch=a", b"#edgeprof name=a gain=0.5% step=0.001"]),
    "state": (state_file, lambda: [_state()]),
    "result": (result, lambda: [_result()]),
}


def mutated(seeds: list[bytes], count: int, seed: int = 0) -> Iterator[bytes]:
    """So many inputs, each a right one with some bytes changed, cut out, doubled, or replaced by something odd."""
    dice = random.Random(seed)
    for _ in range(count):
        data = dice.choice(seeds)
        for _ in range(dice.choice((1, 1, 2, 4))):
            start = dice.randrange(len(data) + 1)
            end = min(len(data), start + dice.choice((0, 1, 1, 4, 12)))
            new = dice.choice((b"", dice.randbytes(1), data[start:end] * 2, dice.choice(_ODD)))
            data = data[:start] + new + data[end:]
        yield data
