"""Conclusions from the first readings of all channels: mirrors, counters that stand still, totals below their parts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from edgeprof.sensing.board.files import Board
from edgeprof.sensing.board.topology import arrange
from edgeprof.sensing.sensor import Channel

if TYPE_CHECKING:
    from edgeprof.sensing.board.topology import Topology

PC = Board("unknown", "a PC", model="a PC")


def counter(name: str, scope: str, **facts: object) -> Channel:
    fixed: dict[str, object] = {"role": "part", "update_interval_s": 1e-3, "wrap": 262_143.0}
    return Channel("rapl", name, "energy", kind="counter", scope=scope, **{**fixed, **facts})  # type: ignore[arg-type]


def psys(name: str = "psys") -> Channel:
    return counter(name, "board", role="total", additive=False)


def gauge(name: str, **facts: object) -> Channel:
    return Channel("hwmon", name, "power", **facts)  # type: ignore[arg-type]


def looked(powers: dict[Channel, float], starts: dict[str, float] | None = None) -> Topology:
    """Return the topology after four readings of counters and gauges with these powers (W)."""
    times = [0.0, 0.1, 0.2, 0.3]
    starts = starts or {}
    looks = {
        channel.key: [
            (t, starts.get(channel.name, 1000.0 + 7 * index) + watts * t if channel.kind == "counter" else watts)
            for t in times
        ]
        for index, (channel, watts) in enumerate(powers.items())
    }
    return arrange(PC, list(powers), looks=looks)


PACKAGES = {counter("package-0", "package"): 45.0, counter("package-1", "package"): 40.0}


@pytest.mark.parametrize(
    ("platforms", "total"),
    [
        ({psys(): 130.0}, ["psys"]),
        ({psys(): 60.0, psys("psys-1"): 55.0}, ["psys", "psys-1"]),  # one for each socket
        ({psys(): 130.0, psys("psys-1"): 0.0}, ["psys"]),  # the second is dead
        ({psys(): 130.0, psys("psys-1"): 128.0}, ["psys"]),  # each covers everything; perhaps they overlap
        ({psys(): 30.0}, ["package-0", "package-1"]),  # below its own parts
        ({psys(): 0.0}, ["package-0", "package-1"]),  # stands still
        ({psys(): 20.0, psys("psys-1"): 20.0}, ["package-0", "package-1"]),
    ],
)
def test_of_platforms_counters_those_are_taken_that_add_up(platforms: dict[Channel, float], total: list[str]) -> None:
    topology = looked({**platforms, **PACKAGES})
    assert [c.name for c in topology.headline.channels] == total
    assert all(c.reason for c in topology.channels if not c.available)


def test_equal_platforms_counters_are_one() -> None:
    both = {psys(): 130.0, psys("psys-1"): 130.0}
    topology = looked({**both, **PACKAGES}, {"psys": 500.0, "psys-1": 500.0})
    assert topology.headline.rail == "psys"


def test_sockets_that_draw_the_same_by_chance_are_two() -> None:
    topology = looked({counter("package-0", "package"): 45.0, counter("package-1", "package"): 45.0})
    assert topology.headline.rail == "package-0 + package-1"


def test_a_memory_that_stands_still_is_left_out_and_said_so_and_a_package_is_not() -> None:
    memory = looked({counter("package-0", "package"): 45.0, counter("dram-0", "memory"): 0.0}).headline
    assert memory.rail == "package-0"
    assert str(memory.excludes).startswith("memory, ")
    socket = looked({counter("package-0", "package"): 45.0, counter("package-1", "package"): 0.0}).headline
    assert socket.channels == ()
    assert "package-1 cannot be read: it stands still while package-0 rises" in str(socket.reason)


def test_a_card_that_sleeps_is_no_fault() -> None:
    card = counter("card", "gpu", additive=True)
    assert looked({counter("package-0", "package"): 45.0, card: 0.0}).headline.rail == "package-0 + card"


def test_where_nothing_moves_nothing_is_proven() -> None:
    topology = looked({psys(): 0.0, **dict.fromkeys(PACKAGES, 0.0)})
    assert topology.headline.rail == "psys"


def test_a_board_meter_below_the_processors_counter_is_refused_with_both_figures() -> None:
    meter = gauge("power_meter", scope="board", role="total")
    topology = looked({meter: 12.0, counter("package-0", "package"): 45.0})
    assert topology.headline.rail == "package-0"
    (refused,) = [c for c in topology.channels if not c.available]
    assert refused.reason == "it shows 12 W while package-0 inside of it shows 45 W"


def test_a_second_source_of_the_same_sockets_is_not_added() -> None:
    driver = Channel("hwmon", "Esocket0", "energy", kind="counter", scope="package", chip="cpu 0", additive=True)
    package = replace(counter("package-0", "package"), chip="cpu 0")
    topology = looked({driver: 45.0, package: 45.0, counter("dram-0", "memory"): 3.0})
    assert len(topology.headline.channels) == 2
    added = [key for key, container in topology.containers.items() if container is None]
    assert len(added) == 2


def test_a_third_partys_card_that_says_nothing_but_its_scope_is_in_the_total() -> None:
    card = Channel("acme", "npu", "power", scope="accelerator", role="part")
    headline = looked({counter("package-0", "package"): 45.0, card: 10.0}).headline
    assert (headline.rail, headline.covers) == ("package-0 + npu", "package + accelerator")


def test_a_card_without_power_is_named_in_what_the_total_leaves_out() -> None:
    card = gauge(
        "nouveau 0000:01:00.0", scope="gpu", additive=False, available=False, reason="its driver does not report power"
    )
    excludes = looked({counter("package-0", "package"): 45.0, card: 0.0}).headline.excludes
    assert "the graphics card nouveau 0000:01:00.0 (its driver does not report power)" in str(excludes)


def test_of_two_supplies_neither_is_taken_for_the_machine() -> None:
    supplies = {gauge(f"psu@{n} power total", scope="board", role="total", chip=f"psu.{n}"): 120.0 for n in (1, 2)}
    alone = looked(supplies)
    assert alone.headline.channels == ()
    assert "--rail" in str(alone.headline.remedy)
    assert looked({**supplies, counter("package-0", "package"): 45.0}).headline.rail == "package-0"
