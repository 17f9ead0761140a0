"""One inventory of devices, and what Prometheus is told of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from edgeprof.errors import InputError
from edgeprof_dashboards import inventory
from edgeprof_dashboards.catalogue import FILES
from tests.dashboards.tools import edgeprof, promtool

if TYPE_CHECKING:
    from pathlib import Path


def load(tmp_path: Path, text: str) -> list[inventory.Device]:
    path = tmp_path / "inventory.toml"
    path.write_text(text, "utf-8")
    return inventory.load(path)


def test_devices_get_the_shared_labels_the_default_port_and_their_own(tmp_path) -> None:
    devices = load(
        tmp_path,
        'port = 9999\n[labels]\nsite = "hall"\nline = "1"\n'
        '[[devices]]\nname = "a"\naddress = "192.0.2.1"\n'
        '[[devices]]\nname = "b"\naddress = "[2001:db8::2]:28283"\nlabels = { line = "2" }\n'
        '[[devices]]\nname = "c.example"\n',
    )
    assert [(d.name, d.address, d.labels) for d in devices] == [
        ("a", "192.0.2.1:9999", {"site": "hall", "line": "1"}),
        ("b", "[2001:db8::2]:28283", {"site": "hall", "line": "2"}),
        ("c.example", "c.example:9999", {"site": "hall", "line": "1"}),
    ]


def test_the_shipped_targets_are_those_of_the_shipped_inventory() -> None:
    devices = inventory.load(FILES / "inventory.toml")
    assert (FILES / "prometheus/targets/edgeprof.json").read_text("utf-8") == inventory.targets(devices)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "names no devices"),
        ("devices = 3", "names no devices"),
        ("[[devices]]", "device 1 has no name"),
        ("[[devices", "cannot be read as an inventory"),
        ('[[devices]]\nname = "a"\nadress = "x"', "nothing is called adress"),
        ('prot = 1\n[[devices]]\nname = "a"', "nothing is called prot"),
        ('[[devices]]\nname = "a"\naddress = "http://x:1/"', "'http://x:1/', which is none"),
        ('[[devices]]\nname = "a"\naddress = "x:99999"', "99999 is no port"),
        ('port = "1"\n[[devices]]\nname = "a"', "'1' is no port"),
        ('port = true\n[[devices]]\nname = "a"', "True is no port"),
        ('[[devices]]\nname = "a"\n[[devices]]\nname = "a"\naddress = "b"', "two devices have the name a"),
        (
            '[[devices]]\nname = "a"\naddress = "x"\n[[devices]]\nname = "b"\naddress = "x"',
            "two devices have the address",
        ),
        ('[[devices]]\nname = "a"\nlabels = { instance = "b" }', "the label instance is given"),
        ('[[devices]]\nname = "a"\nlabels = { "my-site" = "b" }', "'my-site' is no label name"),
        ('[[devices]]\nname = "a"\nlabels = { __x = "b" }', "'__x' is no label name"),
        ('[[devices]]\nname = "a"\nlabels = { line = 2 }', "the label line should be a text"),
        ('[[devices]]\nname = "a"\nlabels = 2', "labels should be a table"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence_with_the_files_name(tmp_path, text, part) -> None:
    with pytest.raises(InputError) as caught:
        load(tmp_path, text)
    assert part in caught.value.message
    assert "inventory.toml" in caught.value.message
    assert "\n" not in caught.value.message


def test_the_nearest_name_is_offered(tmp_path) -> None:
    with pytest.raises(InputError) as caught:
        load(tmp_path, '[[devices]]\nname = "a"\nadress = "x"')
    assert (caught.value.remedy or "").startswith("Did you mean address?")


def test_the_file_is_replaced_at_once_and_readable_by_prometheus(tmp_path) -> None:
    """Prometheus watches the directory: nothing but the finished file may ever have the name, and nothing is left."""
    path = tmp_path / "targets" / "edgeprof.json"
    inventory.write(path, "[]\n")
    before = path.stat().st_ino
    inventory.write(path, "[ ]\n")
    assert path.stat().st_ino != before
    assert path.stat().st_mode & 0o777 == 0o644
    assert [p.name for p in path.parent.iterdir()] == ["edgeprof.json"]


def test_the_command_prints_what_prometheus_accepts(tmp_path) -> None:
    path = tmp_path / "devices.toml"
    path.write_text('[[devices]]\nname = "a"\naddress = "192.0.2.1"\n')
    done = edgeprof("dashboards", "targets", str(path))
    assert json.loads(done.stdout) == [{"targets": ["192.0.2.1:28283"], "labels": {"instance": "a"}}]
    (tmp_path / "targets.json").write_text(done.stdout)
    config = "scrape_configs: [{job_name: edgeprof, file_sd_configs: [{files: [targets.json]}]}]\n"
    (tmp_path / "prometheus.yml").write_text(config)
    assert "WARNING" not in promtool("check", "config", "prometheus.yml", cwd=tmp_path)
    assert "Traceback" not in edgeprof("dashboards", "targets", str(tmp_path / "none"), code=2).stderr
