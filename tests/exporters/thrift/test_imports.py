"""What the daemon's process never loads, whichever module of the core asks for it."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("prometheus_client", reason="pip install 'edgeprof[exporter]'")

_CODE = """
import sys
from edgeprof_exporters.thrift.light import import_client
import_client()
import edgeprof_exporters.daemon, edgeprof_exporters.main
from edgeprof.plugins import sensor_points
for plugin in sensor_points():
    if plugin.value.startswith("edgeprof_plugins.sensors."): plugin.load()
print(*sorted(sys.modules))
"""


def test_the_daemon_loads_no_library_that_is_large_and_that_it_does_not_need() -> None:
    # Which plugins there are is asked in another process, as when the daemon is started.
    code = _CODE.replace("in sensor_points():", "in []:")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "edgeprof.sensing.sampler" in loaded
    assert not loaded & {"numpy", "msgspec", "sqlite3", "click", "subprocess", "importlib.metadata", "ssl", "yaml"}


def test_no_sensor_of_ours_loads_one_either() -> None:
    done = subprocess.run([sys.executable, "-c", _CODE], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "edgeprof_plugins.sensors.ina3221" in loaded
    assert not loaded & {"numpy", "msgspec", "sqlite3", "click", "ssl", "yaml"}
