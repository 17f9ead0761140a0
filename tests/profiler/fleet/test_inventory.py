"""The inventory: what a fleet reads from it, which devices ``--on`` selects, and what is refused."""

from __future__ import annotations

import json

import pytest

from edgeprof.errors import InputError
from edgeprof.fleet import inventory

TWO = '[[devices]]\nname = "a"\nkind = "pi5"\naddress = "192.0.2.1"\n[[devices]]\nname = "b"\nssh = "bench@b.example"\n'


@pytest.fixture
def path(tmp_path):
    return tmp_path / "inventory.toml"


def write(path, text):
    path.write_text(text)
    return inventory.load(path)


def test_a_device_is_reached_at_its_address_unless_ssh_is_told_otherwise(path) -> None:
    a, b = write(path, TWO)
    assert (a.ssh, a.address) == ("192.0.2.1", "192.0.2.1:28283")
    assert (b.ssh, b.host) == ("bench@b.example", "b")


def test_rest_and_temperature_are_quantities_with_units(path) -> None:
    (device,) = write(path, '[[devices]]\nname = "a"\nrest = "2000ms"\nstart_below = "45°C"\npower_mode = "15W"\n')
    assert (device.rest_s, device.start_below_c, device.power_mode) == (2.0, 45.0, "15W")


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("rest = 60", "rest = 60 does not fit"),
        ('rest = "-1s"', "rest = '-1s' does not fit"),
        ('rest = "2h"', "rest = '2h' does not fit"),
        ('start_below = "300C"', "start_below = '300C' does not fit"),
        ('ssh = "-oProxyCommand=true"', "is nothing that ssh could reach"),
        ('ssh = "a b"', "is nothing that ssh could reach"),
        ("kind = 5", "kind should be a text"),
        ('power_mode = ""', "power_mode should be a text"),
        ('power_mod = "15W"', "nothing is called power_mod"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence_with_the_devices_name(path, line, part) -> None:
    with pytest.raises(InputError) as caught:
        write(path, f'[[devices]]\nname = "nano-1"\n{line}\n')
    assert part in caught.value.message
    assert "nano-1" in caught.value.message
    assert "inventory.toml" in caught.value.message


@pytest.mark.parametrize("name", ["a\nb", "\x1b[2J", "nano-1,nano-2", " nano", "n" * 101, "a\u202eb"])
def test_a_name_that_no_row_or_option_could_hold_is_refused(path, name) -> None:
    with pytest.raises(InputError, match="cannot be used"):
        inventory.parse_device(name, "192.0.2.1")
    with pytest.raises(InputError, match=r"device 3 has the name .*, which cannot be used") as caught:
        write(path, f"{TWO}[[devices]]\nname = {json.dumps(name)}\n")
    assert "\n" not in caught.value.message


def test_on_means_names_and_kinds_in_the_inventorys_order(path) -> None:
    devices = write(path, TWO)
    assert [d.name for d in inventory.choose(devices, ["b,a"], path)] == ["a", "b"]
    assert [d.name for d in inventory.choose(devices, ["kind:pi5"], path)] == ["a"]
    assert [d.name for d in inventory.choose(devices, [], path)] == ["a", "b"]
    with pytest.raises(InputError, match="nano"):
        inventory.choose(devices, ["nano"], path)


def test_two_devices_behind_one_ssh_destination_are_refused(path) -> None:
    devices = write(path, f'{TWO}[[devices]]\nname = "c"\nssh = "bench@b.example"\n')
    assert [d.name for d in inventory.choose(devices, ["a,b"], path)] == ["a", "b"]
    with pytest.raises(InputError, match="b and c are both reached by ssh"):
        inventory.choose(devices, [], path)


def test_two_names_for_one_machine_are_refused(path) -> None:
    with pytest.raises(InputError, match="two devices have the machine cafe"):
        write(path, '[[devices]]\nname = "a"\nmachine = "cafe"\n[[devices]]\nname = "b"\nmachine = "cafe"\n')


def test_a_device_is_added_behind_what_stands_in_the_inventory(path) -> None:
    path.write_text("# mine\n" + TWO)
    device = inventory.parse_device("c", "c.example:9999", "bench@c", kind="nano", power_mode='1"5')
    inventory.add(path, device)
    assert path.read_text().startswith("# mine\n" + TWO)
    assert inventory.load(path)[-1] == device
    with pytest.raises(InputError, match="two devices have the name c"):
        inventory.add(path, device)
    assert len(inventory.load(path)) == 3


def test_the_first_device_makes_the_inventory(path) -> None:
    device = inventory.parse_device("c", "[2001:db8::2]")
    inventory.add(path, device)
    assert inventory.load(path) == [device]
    assert device.ssh == "2001:db8::2"
