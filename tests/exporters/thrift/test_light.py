"""What the daemon does without: prometheus-client's server."""

from __future__ import annotations

import subprocess
import sys
import tempfile

import pytest

pytest.importorskip("prometheus_client", reason="pip install 'edgeprof[exporter]'")


_CODE = """
import sys
import tempfile
from edgeprof_exporters.thrift import light
light._LEFT_OUT += tuple(sys.argv[1:])
light.import_client()
loaded = set(sys.modules) & {"ssl", "_ssl", "http.client", "email", "urllib.request"}
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.exposition import choose_encoder
registry = CollectorRegistry()
Gauge("x_watts", "X.", registry=registry).set(2.5)
assert b"x_watts 2.5" in choose_encoder("")[0](registry)
import http.server, ssl, urllib.request
assert ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).verify_mode == ssl.CERT_REQUIRED
assert urllib.request.Request("http://a/").host == "a"
print(*sorted(loaded))
"""


def loaded(*more: str) -> list[str]:
    """What was imported beside prometheus-client, with these modules left out too."""
    done = subprocess.run([sys.executable, "-c", _CODE, *more], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_the_library_works_without_its_server_and_the_real_modules_are_there_for_others() -> None:
    assert loaded() == []


def test_a_release_that_needs_what_was_left_out_is_imported_whole() -> None:
    assert "ssl" in loaded("prometheus_client.registry")


def test_what_stood_in_says_so_where_somebody_uses_it() -> None:
    code = (
        "from edgeprof_exporters.thrift import light; light.import_client(); import prometheus_client as p\n"
        "try: p.start_http_server(0)\nexcept RuntimeError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "left out of the exporter's process" in done.stdout


def test_yaml_is_gone_when_a_file_has_been_read_and_there_again_for_the_next() -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom edgeprof_exporters.configuration import read_mapping\n"
        "for _ in 1, 2:\n    assert read_mapping(Path(sys.argv[1])) == {'web': {'max_requests': 3}}\n"
        "    assert not {name for name in sys.modules if 'yaml' in name}\n"
        "import yaml\nassert read_mapping(Path(sys.argv[1]))\n"
        "assert sys.modules['yaml'] is yaml\n"
    )
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
        file.write("web: {max_requests: 3}\n")
        file.flush()
        subprocess.run([sys.executable, "-c", code, file.name], check=True)
