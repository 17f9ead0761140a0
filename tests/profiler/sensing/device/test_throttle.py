"""What slows a device down now, from files that stay open."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgeprof.roots import Roots
from edgeprof.sensing.device.throttle import Causes, read_counters

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def thermal(tmp_path: Path) -> Path:
    """Two processors and a fan as cooling devices, none of which is active."""
    for number, kind in enumerate(["Processor", "Processor", "pwm-fan"]):
        device = tmp_path / f"class/thermal/cooling_device{number}"
        device.mkdir(parents=True)
        (device / "type").write_text(f"{kind}\n")
        (device / "cur_state").write_text("0\n")
    return tmp_path


def test_a_processor_that_is_held_down_is_seen_beside_one_that_is_not(thermal: Path) -> None:
    causes = Causes(Roots(sysfs=thermal))
    assert causes.read() == []
    (thermal / "class/thermal/cooling_device2/cur_state").write_text("3\n")  # a fan slows nothing
    assert causes.read() == []
    (thermal / "class/thermal/cooling_device0/cur_state").write_text("3\n")
    assert causes.read() == ["Processor is held down by heat"]
    assert read_counters(Roots(sysfs=thermal)).states == {"Processor is held down by heat": 3}
    (thermal / "class/thermal/cooling_device0/cur_state").write_text("broken\n")
    assert causes.read() == []
    causes.close()


def test_the_firmware_of_a_raspberry_pi_is_asked_again(tmp_path: Path) -> None:
    node = tmp_path / "devices/platform/soc/soc:firmware/get_throttled"
    node.parent.mkdir(parents=True)
    node.write_text("0\n")
    causes = Causes(Roots(sysfs=tmp_path))
    assert causes.read() == []
    node.write_text("50005\n")
    assert causes.read() == ["under-voltage", "throttled"]
    causes.close()
