"""Entry points are read as importlib.metadata reads them, without importing it."""

from __future__ import annotations

import importlib.metadata
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest

from edgeprof.entry_points import EntryPoint, installed
from edgeprof.plugins import PluginHost, points_of, sensor_points

if TYPE_CHECKING:
    from pathlib import Path

OURS = "# comment\n[console_scripts]\nx = m:run\n\n[edgeprof]\nlamp=lamp_plugin:hooks\n wave = wave_plugin [extra]\n"


def theirs() -> set[tuple[str, str, str, str]]:
    points = importlib.metadata.entry_points(group="edgeprof")
    return {(p.name, p.value, p.dist.name, p.dist.version) for p in points if p.dist}


def test_they_are_those_of_importlib_metadata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two versions of one distribution the first on the path counts."""
    for where, directory in [
        ("a", "lamp_plugin-1.0.dist-info"),
        ("b", "lamp_plugin-0.9.dist-info"),
        ("b", "dev_plugin.egg-info"),
        ("b", "lamp_plugin-0.9.other"),
    ]:
        info = tmp_path / where / directory
        info.mkdir(parents=True)
        name, _, version = directory.rpartition(".")[0].partition("-")
        (info / "entry_points.txt").write_text(OURS.replace("lamp=", f"{name}=").replace("wave =", f"{name}_wave ="))
        head = f"Metadata-Version: 2.1\nName: {name}\n"
        for file in ("METADATA", "PKG-INFO"):
            (info / file).write_text(head + (f"Version: {version}\n" if version else "Version: 3\n"))
    added = [str(tmp_path / name) for name in ("a", "b", "missing")]
    monkeypatch.setattr(sys, "path", [*added, *sys.path])
    importlib.invalidate_caches()
    assert set(installed()) == theirs()
    assert {"lamp_plugin", "dev_plugin", "thermal"} <= {point.name for point in installed()}


def test_a_zip_archive_on_the_path_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not compared with importlib.metadata, which leaves the archive open."""
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.writestr("zip_ped-2.0.dist-info/entry_points.txt", "[edgeprof]\nzipped = zipped\n")
        archive.writestr("zip_ped-2.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: zip-ped\nVersion: 2.0\n\nz: y")
    (tmp_path / "text.zip").write_text("no archive")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "text.zip"), str(tmp_path / "c.zip"), *sys.path])
    assert EntryPoint("zipped", "zipped", "zip-ped", "2.0") in installed()


@pytest.mark.parametrize("value", ["os", "os:path", "os:path.join", "os : path", "os.path:join [an-extra]"])
def test_a_plugin_is_loaded_as_its_entry_point_would_be(value: str) -> None:
    assert EntryPoint("p", value, "d", "1").load() is importlib.metadata.EntryPoint("p", value, "edgeprof").load()


@pytest.mark.parametrize("value", ["", "no.such.module", "os:no_such_name"])
def test_a_plugin_that_cannot_be_loaded_is_named_and_costs_nobody_anything(value: str) -> None:
    host = PluginHost([EntryPoint("p", value, "d", "1.5"), *points_of("thermal")])
    (info,) = (info for info in host.plugins if info.name == "p")
    assert (info.status, info.distribution, info.version) == ("failed", "d", "1.5")
    assert "thermal" in host.of("sensors")


def test_the_daemon_is_told_of_sensors_and_of_nothing_else_of_ours() -> None:
    names = {plugin.name for plugin in sensor_points()}
    assert {"ina3221", "rapl", "nvml", "meter"} <= names
    assert not {"onnxruntime", "exporter", "dashboards", "topk"} & names
