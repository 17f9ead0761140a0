"""The trees show the values that the real parts would show."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgeprof.errors import InputError
from edgeprof.simulation.board_specs import BOARDS
from edgeprof.simulation.layouts import build
from edgeprof.simulation.tree import add_hwmon, set_energy, set_power

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("board", list(BOARDS))
def test_every_board_is_built_and_can_be_copied(board: str, tmp_path: Path) -> None:
    layout = build(board, tmp_path / "tree")
    (tmp_path / "tree").rename(tmp_path / "moved")
    broken = [path for path in (tmp_path / "moved").rglob("*") if path.is_symlink() and not path.exists()]
    assert broken == []
    assert set(layout.totals) <= set(layout.rails)


def test_building_twice_gives_the_same_tree(tmp_path: Path) -> None:
    build("jetson-agx-orin", tmp_path)
    before = {path.relative_to(tmp_path) for path in tmp_path.rglob("*")}
    build("jetson-agx-orin", tmp_path)
    assert {path.relative_to(tmp_path) for path in tmp_path.rglob("*")} == before


def test_an_unknown_board_offers_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        build("jetson-orin", tmp_path)
    assert "jetson-orin-" in str(caught.value.remedy)


def test_an_unknown_oddity_is_named(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="disable_everything"):
        build("jetson-nano", tmp_path, disable_everything=True)


def test_current_comes_in_steps_of_40_microvolts_over_the_shunt(tmp_path: Path) -> None:
    layout = build("jetson-agx-orin", tmp_path)
    assert set_power(layout, "VDD_GPU_SOC", 0.25) == pytest.approx(0.380)  # 20 mA at 19 V, rounded up
    assert set_power(layout, "VDD_GPU_SOC", 0.15) == 0
    assert set_power(layout, "VDD_GPU_SOC", -0.3) == pytest.approx(-0.380)


def test_the_shunt_register_clips(tmp_path: Path) -> None:
    layout = build("jetson-agx-orin", tmp_path)
    assert set_power(layout, "VDD_GPU_SOC", 1e6) == pytest.approx(19.0 * 81.9)  # 4095 steps on 2 mΩ


def test_jetpack_4_shows_the_same_in_all_its_files(tmp_path: Path) -> None:
    layout = build("jetson-nano", tmp_path)
    shown = set_power(layout, "POM_5V_IN", 7.33)
    files = layout.rails["POM_5V_IN"]
    assert files.pair is not None
    assert files.power is not None
    millivolts, milliamperes = map(int, files.pair.read_text().split())
    assert millivolts * milliamperes == pytest.approx(shown * 1e6)
    assert int(files.power.read_text()) == int(shown * 1e3)


def test_a_rapl_counter_wraps_at_its_range(tmp_path: Path) -> None:
    layout = build("x86-rapl", tmp_path)
    files = layout.rails["package-0"]
    assert files.energy is not None
    assert files.wrap_j is not None
    set_energy(layout, "package-0", files.wrap_j + 2.0)
    assert int(files.energy.read_text()) == pytest.approx(2_000_000, abs=1)
    with pytest.raises(ValueError, match="energy counter"):
        set_power(layout, "package-0", 1.0)
    with pytest.raises(ValueError, match="no energy counter"):
        set_energy(build("jetson-nano", tmp_path / "nano"), "POM_5V_IN", 1.0)


def test_hwmon_chips_are_numbered_as_they_are_added(tmp_path: Path) -> None:
    layout = build("generic-unknown", tmp_path)
    first = add_hwmon(layout, "a", {"temp1_input": 1})
    second = add_hwmon(layout, "b", {"temp1_input": 1}, device="other")
    assert [first.name, second.name] == ["hwmon0", "hwmon1"]
    assert (tmp_path / "class/hwmon/hwmon1/name").read_text() == "b\n"
