"""The total of each board, its parts, and what is refused."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgeprof.errors import InputError, UnavailableError
from edgeprof.plugins import PluginHost
from edgeprof.roots import Roots
from edgeprof.sensing.board.blocks import BUILTIN, BUILTIN_JSON, read_blocks
from edgeprof.sensing.board.files import load_boards
from edgeprof.sensing.board.topology import arrange, identify_board
from edgeprof.sensing.discover import discover
from edgeprof.sensing.glance import glance
from edgeprof.sensing.sensor import Channel
from edgeprof.simulation.board_specs import BOARDS, PMIC_RAILS
from edgeprof.simulation.layouts import build
from edgeprof.simulation.tree import set_power

if TYPE_CHECKING:
    from edgeprof.sensing.board.topology import Topology
    from edgeprof.sensing.discover import Discovery

HOST = PluginHost()

#: board → id, total, what it covers, parts (name → inside which).
EXPECTED = {
    "jetson-nano": ("jetson-nano", ["POM_5V_IN"], "module", {"POM_5V_GPU": "POM_5V_IN", "POM_5V_CPU": "POM_5V_IN"}),
    "jetson-tx2": (
        "jetson-tx2",
        ["VDD_IN"],
        "module",
        {
            "VDD_SYS_GPU": "VDD_IN",
            "VDD_SYS_SOC": "VDD_IN",
            "VDD_4V0_WIFI": "VDD_IN",
            "VDD_SYS_CPU": "VDD_IN",
            "VDD_SYS_DDR": "VDD_IN",
            "VDD_MUX": None,
            "VDD_5V0_IO_SYS": None,
            "VDD_3V3_SYS": None,
        },
    ),
    "jetson-tx2-nx": ("jetson-tx2-nx", ["VDD_IN"], "module", {"VDD_CPU_GPU": "VDD_IN", "VDD_SOC": "VDD_IN"}),
    "jetson-xavier-nx": ("jetson-xavier-nx", ["VDD_IN"], "module", {"VDD_CPU_GPU_CV": "VDD_IN", "VDD_SOC": "VDD_IN"}),
    "jetson-agx-xavier": ("jetson-agx-xavier", ["GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"], "module", {}),
    "jetson-orin-nano": ("jetson-orin-nano", ["VDD_IN"], "module", {"VDD_CPU_GPU_CV": "VDD_IN", "VDD_SOC": "VDD_IN"}),
    "jetson-orin-nx": ("jetson-orin-nx", ["VDD_IN"], "module", {"VDD_CPU_GPU_CV": "VDD_IN", "VDD_SOC": "VDD_IN"}),
    "jetson-agx-orin": (
        "jetson-agx-orin",
        ["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"],
        "module",
        {"VDDQ_VDD2_1V8AO": "VIN_SYS_5V0"},
    ),
    "jetson-thor": (
        "jetson-thor",
        ["VIN"],
        "board",
        {"VDD_GPU": "VIN", "VDD_CPU_SOC_MSS": "VIN", "VIN_SYS_5V0": "VIN"},
    ),
    "raspberry-pi-5": ("raspberry-pi-5", list(PMIC_RAILS), "pmic", {}),
    "x86-rapl": (
        "unknown",
        ["package-0", "dram-0"],
        "package + memory",
        {"core-0": "package-0", "uncore-0": "package-0"},
    ),
    "jetson-nano-2gb": ("jetson-nano-2gb", [], None, {}),
    "raspberry-pi-4": ("raspberry-pi", [], None, {}),
    "generic-unknown": ("unknown", [], None, {}),
    "unknown-carrier": ("unknown", [], None, {"MAIN_12V": None, "CORE_5V": None, "RADIO_3V3": None}),
}


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's configuration directory, empty."""
    monkeypatch.setenv("EDGEPROF_CONFIG", str(tmp_path / "config"))
    return tmp_path / "config"


def find(board: str, tmp_path: Path, rail: str | None = None, **oddities: object) -> Discovery:
    layout = build(board, tmp_path / "sys", **oddities)
    return discover(HOST, Roots.resolve(layout.directory, environ={}), rail=rail)


def names(topology: Topology) -> list[str]:
    return [channel.name for channel in topology.headline.channels]


def test_every_virtual_board_has_its_expectation() -> None:
    assert set(EXPECTED) == set(BOARDS)


@pytest.mark.parametrize("board", list(EXPECTED))
def test_total_and_parts_of_every_board(board: str, tmp_path: Path) -> None:
    found = find(board, tmp_path)
    identity, total, covers, parts = EXPECTED[board]
    assert found.failures == []
    assert found.topology.board.id == identity
    assert names(found.topology) == total
    assert found.topology.headline.covers == covers
    assert {part.name: part.parent for part in found.topology.parts} == parts
    if not total:
        assert found.topology.headline.reason


@pytest.mark.parametrize("board", [name for name, spec in BOARDS.items() if spec.total])
def test_the_total_is_the_sum_of_what_the_board_really_takes(board: str, tmp_path: Path) -> None:
    layout = build(board, tmp_path / "sys")
    shown = {name: set_power(layout, name, rail.busy_w) for name, rail in layout.rails.items()}
    found = discover(HOST, Roots.resolve(layout.directory, environ={}))
    watts, reason = glance(found.sensors, found.topology.by_key(), seconds=0).total(found.topology.headline)
    assert reason is None
    assert watts == pytest.approx(sum(shown[name] for name in layout.totals), rel=1e-6)


@pytest.mark.parametrize("lost", ["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"])
def test_a_sum_with_a_part_missing_is_unavailable_and_not_smaller(lost: str, tmp_path: Path) -> None:
    headline = find("jetson-agx-orin", tmp_path, unreadable=[lost]).topology.headline
    assert headline.channels == ()
    assert headline.reason is not None
    assert headline.reason.startswith(f"{lost} of NVIDIA Jetson AGX Orin cannot be read")
    assert "there is no total" in headline.reason


def test_a_lost_part_that_is_not_in_the_sum_does_no_harm(tmp_path: Path) -> None:
    found = find("jetson-agx-orin", tmp_path, unreadable=["VDDQ_VDD2_1V8AO"])
    assert len(found.topology.headline.channels) == 3


def test_a_known_board_without_its_driver_says_which_rail_is_missing(tmp_path: Path) -> None:
    found = find("jetson-orin-nano", tmp_path, no_input=["VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"])
    assert found.topology.headline.reason == "VDD_IN of NVIDIA Jetson Orin Nano cannot be read: in1_input is missing"


def test_thor_on_a_carrier_without_input_monitor_falls_back_to_the_module_and_says_so(tmp_path: Path) -> None:
    headline = find("jetson-thor", tmp_path, unreadable=["VIN"]).topology.headline
    assert [c.name for c in headline.channels] == ["VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0"]
    assert headline.covers == "module"
    assert "not the usual total: VIN" in str(headline.note)


def test_a_second_chip_on_the_carrier_is_listed_and_not_added(tmp_path: Path) -> None:
    found = find("jetson-orin-nano", tmp_path, second_chip=True)
    assert names(found.topology) == ["VDD_IN"]
    assert {"AUX_A", "AUX_B"} <= {part.name for part in found.topology.parts}


def test_a_parent_is_called_as_this_boards_label_says(tmp_path: Path) -> None:
    layout = build("jetson-nano", tmp_path / "sys")
    (layout.rails["POM_5V_IN"].directory / "rail_name_0").write_text("VDD_IN\n")
    topology = discover(HOST, Roots.resolve(layout.directory, environ={})).topology
    assert names(topology) == ["VDD_IN"]
    assert {part.parent for part in topology.parts} == {"VDD_IN"}


def test_no_rail_shows_more_than_the_board_can_take(tmp_path: Path) -> None:
    layout = build("jetson-orin-nano", tmp_path / "sys")
    assert layout.rails["VDD_IN"].current is not None
    layout.rails["VDD_IN"].current.write_text("30000\n")  # 150 W
    found = discover(HOST, Roots.resolve(layout.directory, environ={}))
    (refused,) = [c for c in found.unavailable if c.name == "VDD_IN" and c.quantity == "power"]
    assert refused.reason == "it reads 150 W, outside -60 to 60"
    assert found.topology.headline.channels == ()


# --rail


def test_rail_takes_another_rail_as_the_headline(tmp_path: Path) -> None:
    headline = find("jetson-orin-nano", tmp_path, rail="VDD_CPU_GPU_CV").topology.headline
    assert headline.rail == "VDD_CPU_GPU_CV"
    assert headline.covers == "soc"


def test_rail_takes_a_named_total_of_the_board(tmp_path: Path) -> None:
    headline = find("jetson-tx2", tmp_path, rail="kit").topology.headline
    assert (headline.rail, headline.covers) == ("VDD_IN + VDD_MUX", "board")


def test_rail_makes_an_unknown_board_measurable(tmp_path: Path) -> None:
    headline = find("unknown-carrier", tmp_path, rail="MAIN_12V").topology.headline
    assert (headline.rail, headline.covers) == ("MAIN_12V", "unknown")


def test_a_rail_that_does_not_exist_lists_what_does(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        find("jetson-orin-nano", tmp_path, rail="VDD_INN")
    assert caught.value.message == "no rail is named 'VDD_INN'"
    assert str(caught.value.remedy).startswith("Did you mean VDD_IN?")
    assert "VDD_CPU_GPU_CV" in str(caught.value.remedy)


def test_a_rail_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="VDD_SOC cannot be read: disabled by the board"):
        find("jetson-orin-nano", tmp_path, rail="VDD_SOC", disabled=["VDD_SOC"])


# machines without a block of their own


def test_psys_is_the_whole_and_nothing_is_added_to_it(tmp_path: Path) -> None:
    found = find("x86-rapl", tmp_path, rapl=("psys", "package", "core", "dram"))
    assert names(found.topology) == ["psys"]
    assert found.topology.headline.covers == "board"


def test_two_packages_are_both_added(tmp_path: Path) -> None:
    found = find("x86-rapl", tmp_path, packages=2)
    assert names(found.topology) == ["package-0", "package-1", "dram-0", "dram-1"]


def test_without_dram_zones_memory_is_said_to_be_outside(tmp_path: Path) -> None:
    headline = find("x86-rapl", tmp_path, rapl=("package", "core")).topology.headline
    assert headline.covers == "package"
    assert str(headline.excludes).startswith("memory, ")


def test_a_package_that_cannot_be_read_makes_the_sum_unavailable(tmp_path: Path) -> None:
    headline = find("x86-rapl", tmp_path, packages=2, unreadable=["package-1"]).topology.headline
    assert headline.channels == ()
    assert str(headline.reason).startswith("package-1 cannot be read")


def gpu(name: str = "gpu0") -> list[Channel]:
    counter = Channel("nvml", name, "energy", kind="counter", scope="gpu", role="part", provenance="counter")
    return [counter, Channel("nvml", name, "power", scope="gpu", role="part")]


def package(**facts: object) -> Channel:
    fixed = {"kind": "counter", "scope": "package", "role": "part", "provenance": "counter"}
    return Channel("rapl", "package-0", "energy", **{**fixed, **facts})  # type: ignore[arg-type]


def test_a_discrete_gpu_is_added_once_by_its_counter(tmp_path: Path) -> None:
    board = identify_board(Roots(sysfs=tmp_path, procfs=tmp_path, root=tmp_path))
    headline = arrange(board, [package(), *gpu("gpu0"), *gpu("gpu1")]).headline
    assert [c.key for c in headline.channels] == [
        ("rapl", "package-0", "energy"),
        ("nvml", "gpu0", "energy"),
        ("nvml", "gpu1", "energy"),
    ]
    assert headline.covers == "package + gpu"


def test_a_gpu_beside_a_locked_processor_is_quoted_alone_and_says_what_is_missing(tmp_path: Path) -> None:
    board = identify_board(Roots(sysfs=tmp_path, procfs=tmp_path, root=tmp_path))
    headline = arrange(board, [package(available=False, reason="is readable by root only"), *gpu()]).headline
    assert [c.name for c in headline.channels] == ["gpu0"]
    assert headline.covers == "gpu"
    assert "package-0 is readable by root only" in str(headline.note)


def test_power_is_taken_where_the_counter_does_not_work(tmp_path: Path) -> None:
    board = identify_board(Roots(sysfs=tmp_path, procfs=tmp_path, root=tmp_path))
    counter, power = gpu()
    dead = Channel("nvml", "gpu0", "energy", kind="counter", scope="gpu", role="part", available=False, reason="no")
    assert counter.key == dead.key
    headline = arrange(board, [package(), dead, power]).headline
    assert [c.quantity for c in headline.channels] == ["energy", "power"]


# the user's own files


MINE = """
[edge-box]
name = "Acme Edge Box"
match = ["acme,edge-box-*"]
totals = [{ rails = ["MAIN_12V"], covers = "board", excludes = "the display" }]
rails.MAIN_12V = { scope = "board" }
rails.CORE_5V = { scope = "soc", inside = "MAIN_12V" }
"""


def test_a_users_file_makes_an_unknown_board_known(tmp_path: Path, config: Path) -> None:
    (config / "boards.d").mkdir(parents=True)
    (config / "boards.d/edge-box.toml").write_text(MINE)
    found = find("unknown-carrier", tmp_path)
    assert found.topology.board.name == "Acme Edge Box"
    assert names(found.topology) == ["MAIN_12V"]
    assert {part.name: part.parent for part in found.topology.parts} == {"CORE_5V": "MAIN_12V", "RADIO_3V3": None}


def test_a_users_block_overrides_the_packages_key_by_key(tmp_path: Path, config: Path) -> None:
    (config / "boards.d").mkdir(parents=True)
    (config / "boards.d/mine.toml").write_text(
        '[jetson-orin-nano]\nrails.VDD_IN = { labels = ["MAIN"], scope = "board" }\n'
    )
    layout = build("jetson-orin-nano", tmp_path / "sys")
    (layout.rails["VDD_IN"].directory / "in1_label").write_text("MAIN\n")
    topology = discover(HOST, Roots.resolve(layout.directory, environ={})).topology
    assert names(topology) == ["MAIN"]
    assert topology.board.limit_w == 60  # untouched


@pytest.mark.parametrize(
    ("text", "line", "says", "remedy"),
    [
        ("[b]\nname = 'B'\nmach = ['x']\n", 3, "unknown key 'mach'", "Allowed keys: name, match"),
        ("[b]\nrails.A = { scop = 'cpu' }\n", 2, "unknown key 'scop'", "Allowed keys: labels, at, scope"),
        ("[b]\nrails.A = { scope = 'cpus' }\n", 2, "unknown scope 'cpus'", "Allowed: wall, board"),
        ("[b]\nrails.A = { inside = 'Z' }\n", 2, "inside 'Z', which is no rail", "Known: A"),
        ("[b]\n\nrails.A = { at = '0x40' }\n", 3, "no address and channel", "As at ="),
        (
            "[b]\nrails.A = {}\ntotals = [{ rails = ['AA'], covers = 'board' }]\n",
            3,
            "rail 'AA' is no rail",
            "Did you mean A",
        ),
        ("[b]\nrails.A = {}\ntotals = [{ rails = ['A'] }]\n", 3, "needs rails and covers", "covers"),
        (
            "[b]\nrails.A = {}\nrails.B = { inside = 'A' }\ntotals = [{ rails = ['A', 'B'], covers = 'board' }]\n",
            4,
            "counted twice",
            None,
        ),
        ("[b]\nlimit_w = 'much'\n", 2, "limit_w must be a number", None),
        ("[b]\nmatch = 'x'\n", 2, "match must be a list", None),
        ("name = 'B'\n", 1, "outside of a block", "Begin with a line like"),
    ],
)
def test_a_malformed_board_file_names_the_file_the_line_and_what_is_allowed(
    tmp_path: Path, text: str, line: int, says: str, remedy: str | None
) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        load_boards(tmp_path)
    assert f"{path}, line {line}," in caught.value.message
    assert says in caught.value.message
    assert remedy is None or remedy in str(caught.value.remedy)


def test_the_example_in_the_documentation_is_a_board_file(tmp_path: Path, config: Path) -> None:
    text = (Path(__file__).parents[4] / "docs/boards.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    (config / "boards.d").mkdir(parents=True)
    (config / "boards.d/acme.toml").write_text(example)
    topology = find("unknown-carrier", tmp_path).topology
    assert names(topology) == ["MAIN_12V"]
    assert topology.headline.covers == "board"


def test_a_board_file_that_is_no_toml_names_the_file_and_the_place(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("[b]\nname = \n")
    with pytest.raises(InputError, match=r"bad\.toml is not TOML: .*line 2"):
        load_boards(tmp_path)


def test_the_table_as_json_is_the_same_table() -> None:
    """``EDGEPROF_WRITE_GOLDEN=1 pytest tests/profiler/sensing/board`` writes it after a change of boards.toml."""
    table = {name: block.facts for name, block in read_blocks(BUILTIN).items()}
    text = json.dumps(table, ensure_ascii=False, indent=1) + "\n"
    if os.environ.get("EDGEPROF_WRITE_GOLDEN"):
        BUILTIN_JSON.write_text(text, encoding="utf-8")
    assert BUILTIN_JSON.read_text(encoding="utf-8") == text


def test_every_fact_of_the_packages_own_file_has_its_source(tmp_path: Path) -> None:
    boards = load_boards(tmp_path)
    assert len(boards) > 10
    assert [board.id for board in boards if not board.source] == []
    assert [board.id for board in boards if not board.totals and not board.no_sensor] == []
