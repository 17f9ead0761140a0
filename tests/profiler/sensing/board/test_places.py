"""A board's total depends on the chips' places, not on the order of discovery, foreign chips or equal labels."""

from __future__ import annotations

import fnmatch
import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprof.plugins import PluginHost
from edgeprof.roots import Roots
from edgeprof.sensing.board.identity import identify_board, matches
from edgeprof.sensing.discover import discover
from edgeprof.sensing.glance import glance
from edgeprof.simulation.board_specs import BOARDS
from edgeprof.simulation.layouts import build
from edgeprof.simulation.tree import add_hwmon, set_power

if TYPE_CHECKING:
    from pathlib import Path

    from edgeprof.simulation.tree import Layout

HOST = PluginHost()
JETSONS = [name for name, spec in BOARDS.items() if name.startswith("jetson") and spec.total]


def ina3221(rng: random.Random, labels: list[str | None]) -> dict[str, object]:
    """Return the files of a breakout board with these labels, or without labels."""
    files: dict[str, object] = {"samples": 1, "update_interval": 7}
    for number, label in enumerate(labels, 1):
        files |= {f"in{number}_input": rng.randrange(3000, 20000), f"curr{number}_input": rng.randrange(0, 900)}
        files |= {f"in{number}_enable": 1, f"shunt{number}_resistor": 100_000}
        files |= {} if label is None else {f"in{number}_label": label}
    return files


def add_foreign_chips(layout: Layout, rng: random.Random) -> None:
    """Add chips on a header's bus, also at the board's own addresses, without labels or with those of its rails."""
    rails = [rng.choice([*layout.rails, "AUX"]) for _ in range(3)]
    bus = rng.choice([9, 10, 11])
    address = rng.choice(["0040", "0041", "0042", "004f"])
    labels: list[str | None] = list(rng.choice([[None] * 3, rails]))
    add_hwmon(layout, "ina3221", ina3221(rng, labels), device=f"platform/other.i2c/i2c-{bus}/{bus}-{address}")
    one = {"power1_input": rng.randrange(1_000_000, 30_000_000), "shunt_resistor": 2000}
    label = rng.choice([{}, {"label": rng.choice(list(layout.rails))}])
    add_hwmon(layout, rng.choice(["ina226", "ina238"]), {**one, **label}, device=f"platform/x.i2c/i2c-{bus}/{bus}-0045")


def shuffle_numbers(layout: Layout, rng: random.Random) -> None:
    """Give the hwmon chips other numbers, as another boot may do."""
    links = sorted((layout.directory / "class/hwmon").iterdir())
    targets = [link.readlink() for link in links]
    rng.shuffle(targets)
    for link, target in zip(links, targets, strict=True):
        link.unlink()
        link.symlink_to(target)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("board", JETSONS)
def test_foreign_chips_in_any_order_leave_the_total_what_it_is(board: str, seed: int, tmp_path: Path) -> None:
    rng = random.Random(f"{board} {seed}")
    layout = build(board, tmp_path / "sys")
    shown = {name: set_power(layout, name, rail.busy_w) for name, rail in layout.rails.items()}
    for _ in range(rng.randrange(1, 4)):
        add_foreign_chips(layout, rng)
    shuffle_numbers(layout, rng)
    found = discover(HOST, Roots.resolve(layout.directory, environ={}))
    watts, reason = glance(found.sensors, found.topology.by_key(), seconds=0).total(found.topology.headline)
    assert reason is None
    assert watts == pytest.approx(sum(shown[name] for name in layout.totals), rel=1e-6)
    keys = [channel.key for channel in found.topology.channels]
    assert len(keys) == len(set(keys))
    values = glance(found.sensors, found.topology.by_key(), seconds=0)
    containers = found.topology.containers
    added = sum(values.watts(c) or 0.0 for c in found.topology.parts if containers.get(c.key, "") is None)
    others = sum(shown[name] for name in shown if name not in layout.totals)
    assert added <= (watts or 0.0) + others + 1e-6


@pytest.mark.parametrize("board", JETSONS)
def test_without_labels_the_boards_own_chip_is_known_by_its_place(board: str, tmp_path: Path) -> None:
    rng = random.Random(board)
    if any(chip.part == "ina3221x" for chip in BOARDS[board].chips):
        pytest.skip("the driver of JetPack 4 always gives names")
    layout = build(board, tmp_path / "sys", no_label=[name for name in BOARDS[board].total if name != "VIN"])
    add_hwmon(layout, "ina3221", ina3221(rng, [None] * 3), device="platform/other.i2c/i2c-11/11-0040")
    shuffle_numbers(layout, rng)
    headline = discover(HOST, Roots.resolve(layout.directory, environ={})).topology.headline
    assert [c.name for c in headline.channels] == list(layout.totals)


@pytest.mark.parametrize(
    ("compatible", "board"),
    [
        ("nvidia,p3449-0000+p3668-0000", "jetson-xavier-nx"),
        ("nvidia,p3449-0000+p3668-0003", "jetson-xavier-nx"),
        ("nvidia,p3509-0000+p3668-0001", "jetson-xavier-nx"),
        ("nvidia,p3509-0000+p3767-0000", "jetson-orin-nx"),
        ("nvidia,p3768-0000+p3767-0001", "jetson-orin-nx"),
        ("nvidia,p3509-0000+p3767-0005-super", "jetson-orin-nano"),
        ("nvidia,p3768-0000+p3767-0003", "jetson-orin-nano"),
        ("nvidia,p3768-0000+p3767-0004", "jetson-orin-nano"),
        ("nvidia,p3737-0000+p3701-0000", "jetson-agx-orin"),
        ("nvidia,p3737-0000+p3701-0008", "jetson-agx-orin"),
        ("nvidia,p3740-0002+p3701-0008", "jetson-agx-orin"),
        ("nvidia,p3971-0080+p3834-0008", "jetson-thor"),
        ("nvidia,p4071-0000+p3834-0008", "jetson-thor"),
        ("nvidia,e3900-0000+p2888-0004", "jetson-agx-xavier"),
        ("nvidia,p2972-0006", "jetson-agx-xavier"),
        ("nvidia,galen-industrial", "jetson-agx-xavier"),
        ("nvidia,jetson-xavier-industrial", "jetson-agx-xavier"),
        ("nvidia,p3509-0000+p3636-0001", "jetson-tx2-nx"),
        ("nvidia,p2771-0888", "jetson-tx2"),
        ("nvidia,p3489-0000", "jetson-tx2"),
        ("nvidia,lightning", "jetson-tx2"),
        ("nvidia,quill", "jetson-tx2"),
        ("nvidia,storm", "jetson-tx2"),
        ("nvidia,p2371-2180", "jetson-tx1"),
        ("nvidia,jetson-cv", "jetson-tx1"),
        ("nvidia,p3450-0002", "jetson-nano"),
        ("nvidia,p3449-0000-a02+p3448-0000-a02", "jetson-nano"),
        ("nvidia,p3542-0000+p3448-0003", "jetson-nano-2gb"),
        ("raspberrypi,5-compute-module", "raspberry-pi-5"),
        ("raspberrypi,4-compute-module", "raspberry-pi"),
        ("nvidia,p9999-0000+p9998-0000", "unknown"),
    ],
)
def test_every_string_of_nvidias_tables_is_its_board(compatible: str, board: str, tmp_path: Path) -> None:
    (tmp_path / "firmware/devicetree/base").mkdir(parents=True)
    (tmp_path / "firmware/devicetree/base/compatible").write_bytes(compatible.encode() + b"\0nvidia,tegra\0")
    assert identify_board(Roots(sysfs=tmp_path, procfs=tmp_path, root=tmp_path)).id == board


@given(st.text("ab,-[]", max_size=6), st.text("ab,-*?[]!", max_size=6))
def test_a_pattern_matches_as_in_a_shell(name: str, pattern: str) -> None:
    assert matches(name, pattern) is fnmatch.fnmatchcase(name, pattern)


@given(st.text("ab"), st.text("ab"), st.text("ab"))
def test_a_pattern_with_a_star_matches_whatever_is_in_its_place(start: str, middle: str, end: str) -> None:
    assert matches(start + middle + end, f"{start}*{end}")
