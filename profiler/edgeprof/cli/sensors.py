"""``edgeprof sensors``: show every channel with its value, what it covers, its resolution and its refresh."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from edgeprof.cli.options import json_option, resolve_roots, root_options
from edgeprof.cli.prose import say

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgeprof.roots import Roots
    from edgeprof.sensing.characteristic import Characteristic
    from edgeprof.sensing.discover import Discovery
    from edgeprof.sensing.glance import Glance
    from edgeprof.sensing.sensor import Channel, Sensor
    from edgeprof.sensing.trace import Key

SCHEMA = "edgeprof.sensors/1"
#: Time for which each source's refresh and resolution are observed, once per boot (s).
_WATCH_S = 1.0
#: Quantities that need no label, since their unit identifies them.
_PLAIN = {"temperature", "memory", "frequency"}
#: Longest note of a board that is shown in the first line (characters).
_SHORT = 60


@click.command()
@click.option("--sensor", "sources", multiple=True, metavar="NAME", help="Only this source; repeatable.")
@click.option("--rail", metavar="NAME", help="Take this rail as the total.")
@click.option("--strict", is_flag=True, help="Exit with status 1 if nothing measures a total.")
@click.option(
    "-v", "--verbose", is_flag=True, help="Show also voltages and currents, and the location of each channel."
)
@root_options
@json_option
def command(
    sources: tuple[str, ...],
    rail: str | None,
    strict: bool,
    verbose: bool,
    sysfs_root: str | None,
    procfs_root: str | None,
    as_json: bool,
) -> None:
    """Show every channel: its value now, what it covers, its step, its refresh, and whether it is measured.

    Channels that exist but cannot be read are listed at the end, with the reason and a remedy.
    """
    from edgeprof.errors import GateError
    from edgeprof.plugins import PluginHost, sensor_points
    from edgeprof.sensing.discover import discover
    from edgeprof.sensing.glance import glance

    roots = resolve_roots(sysfs_root, procfs_root)
    discovery = discover(
        PluginHost.from_environment(points=sensor_points()), roots, sources, rail, study=_refresh_watcher(roots)
    )
    seen = glance(discovery.sensors, discovery.topology.by_key())
    if as_json:
        import json

        click.echo(json.dumps(document(discovery, seen), indent=2))
    else:
        say(*table(discovery, seen, verbose=verbose))
    if strict and not discovery.topology.headline.channels:
        raise GateError(f"no total: {discovery.topology.headline.reason}", remedy=discovery.topology.headline.remedy)


def _refresh_watcher(roots: Roots) -> Callable[[Sequence[Sensor]], dict[Key, Characteristic]] | None:
    """Return a function that observes refresh and step; None for a captured tree, whose values never change."""
    if roots.is_captured or not (roots.is_live or roots.is_simulated):
        return None

    def watch(sensors: Sequence[Sensor]) -> dict[Key, Characteristic]:
        from concurrent.futures import ThreadPoolExecutor

        from edgeprof.sensing.boot import BootCache
        from edgeprof.sensing.characterize import characterise

        cache = BootCache(roots)
        watched = [s for s in sensors if any(c.tells_joules for c in s.channels)]
        if not watched:
            return {}
        if any(cache.get(sensor) is None for sensor in watched):
            click.echo(f"watching {len(watched)} power sources for {_WATCH_S:g} s …", err=True)
        with ThreadPoolExecutor(max_workers=len(watched)) as pool:
            facts = list(pool.map(lambda sensor: characterise(sensor, _WATCH_S, cache=cache), watched))
        return {key: fact for each in facts for key, fact in each.items()}

    return watch


def document(discovery: Discovery, seen: Glance) -> dict[str, Any]:
    """``edgeprof.sensors/1`` (contract §2)."""
    headline = discovery.topology.headline
    watts, reason = seen.total(headline)
    return {
        "schema": SCHEMA,
        "board": discovery.topology.board.name,
        "headline": {
            "channels": [channel.name for channel in headline.channels],
            "covers": headline.covers,
            "power_w": watts,
            "reason": reason,
            "remedy": headline.remedy,
            "excludes": headline.excludes,
            "note": headline.note,
        },
        "channels": [_channel_json(channel, seen) for channel in discovery.topology.channels],
        "failures": [failure._asdict() for failure in discovery.failures],
    }


def _channel_json(channel: Channel, seen: Glance) -> dict[str, Any]:
    from dataclasses import asdict

    filtering = {"kind": channel.filter.kind, "tau_s": channel.filter.tau_s, "length_s": channel.filter.length_s}
    value = seen.values.get(channel.key)
    return {
        "sensor": channel.sensor,
        "channel": channel.name,
        "quantity": channel.quantity,
        "unit": channel.unit,
        "kind": channel.kind,
        "scope": channel.scope,
        "role": channel.role,
        "parent": channel.parent,
        "provenance": channel.provenance,
        "resolution": channel.resolution,
        "update_interval_s": channel.update_interval_s,
        "rate_hz": None,
        "samples": 0 if value is None else 2,
        "missed": 0,
        "max_gap_s": None,
        "value": value,
        "power_w": seen.watts(channel) if channel.tells_joules else None,
        "filter": {name: fact for name, fact in filtering.items() if fact is not None},
        "available": channel.available,
        "reason": channel.reason,
        "remedy": channel.remedy,
        "calibration": None if channel.calibration is None else asdict(channel.calibration),
        "location": channel.location,
        "note": channel.note or None,
    }


def table(discovery: Discovery, seen: Glance, *, verbose: bool = False) -> list[str]:
    """Format the channels for a person: the total, its parts, the other channels, and those that cannot be read."""
    from edgeprof.units import quantity

    board, headline = discovery.topology.board, discovery.topology.headline
    watts, reason = seen.total(headline)
    board_note = f" ({board.note})" if board.note and len(board.note) < _SHORT and len(headline.channels) > 1 else ""
    if headline.channels:
        value = quantity(watts, "W") if watts is not None else f"– ({reason})"
        lines = [f"{board.name} · total = {_joined_names(headline.channels)}{board_note}  {value}"]
        lines.append(f"  covers the {headline.covers}" + (f"; not {headline.excludes}" if headline.excludes else ""))
        if headline.note and not board_note:
            lines.append(f"  {headline.note}")
        if any(channel.provenance == "simulated" for channel in headline.channels):
            lines.append("  simulated: values of a virtual board, not a measurement")
    else:
        lines = [f"{board.name} · no total: {reason}"]
        if headline.remedy:
            lines.append(f"  → {headline.remedy}")
    rows = [row for channel in _shown_channels(discovery, verbose) if (row := _channel_row(channel, discovery, seen))]
    lines += ["", *_align_columns(rows)] if rows else []
    if verbose:
        lines += [
            "",
            *(f"  {c.sensor} {c.name}: {c.location}{_text_or_dash(c.note)}" for c in discovery.topology.channels),
        ]
    missing = _missing_lines(discovery)
    return [*lines, "", *missing] if missing else lines


def _joined_names(channels: tuple[Channel, ...]) -> str:
    names = [channel.name for channel in channels]
    return " + ".join(names) if len(names) <= 6 else f"{' + '.join(names[:2])} + … + {names[-1]} ({len(names)} rails)"


def _text_or_dash(text: str) -> str:
    return f" – {text}" if text else ""


def _shown_channels(discovery: Discovery, verbose: bool) -> list[Channel]:
    order = [
        "power",
        "energy",
        "voltage",
        "current",
        "temperature",
        "utilization",
        "frequency",
        "memory",
        "fan",
        "count",
    ]
    channels = [c for c in discovery.topology.channels if c.available]
    if not verbose:
        channels = [c for c in channels if c.quantity not in {"voltage", "current"}]
    powers = {(c.sensor, c.name) for c in channels if c.quantity == "energy"}
    # A counter is shown by its watts; a power channel of the same source and rail would only repeat them.
    channels = [c for c in channels if verbose or c.quantity != "power" or (c.sensor, c.name) not in powers]
    top = {channel.key for channel in discovery.topology.headline.channels}
    return sorted(channels, key=lambda c: (c.key not in top, order.index(c.quantity)))


def _channel_row(channel: Channel, discovery: Discovery, seen: Glance) -> list[str]:
    source = channel.sensor
    if channel.location.startswith("i2c "):
        source += f"@{channel.location.split()[1].rsplit('-00', 1)[-1]}"
    power = channel.tells_joules
    return [
        source,
        channel.name,
        _value_text(channel, seen),
        channel.scope if channel.scope != "unknown" else "",
        _role_text(channel, discovery) if power else channel.quantity if channel.quantity not in _PLAIN else "",
        channel.provenance if power else "",
        _resolution_text(channel) if power else channel.note,
    ]


def _value_text(channel: Channel, seen: Glance) -> str:
    from edgeprof.units import quantity, significant, size

    value = seen.values.get(channel.key)
    if channel.quantity == "energy":
        return quantity(seen.watts(channel), "W")
    if value is None:
        return "–"
    special = {
        "temperature": f"{value:.1f} °C",
        "utilization": f"{significant(100 * value, 2)} %",
        "fan": f"{significant(100 * value, 2)} %",
        "memory": size(int(value)),
        "count": f"{value:.0f}",
    }
    return special.get(channel.quantity) or quantity(value, channel.unit)


def _role_text(channel: Channel, discovery: Discovery) -> str:
    chosen = discovery.topology.headline.channels
    if channel.key in {c.key for c in chosen}:
        return "total" if len(chosen) == 1 else "part of total"
    return f"inside {channel.parent}, not added" if channel.parent else "not in the total"


def _resolution_text(channel: Channel) -> str:
    from edgeprof.units import quantity

    words = []
    if channel.resolution:
        words.append(f"step {quantity(channel.resolution, channel.unit, 2)}")
    if channel.update_interval_s:
        words.append(f"every {quantity(channel.update_interval_s, 's', 2)}")
    if channel.filter.kind == "exponential" and channel.filter.tau_s:
        words.append(f"filter {quantity(channel.filter.tau_s, 's', 2)}")
    if channel.filter.kind == "block" and channel.filter.length_s:
        words.append(f"average of {quantity(channel.filter.length_s, 's', 2)}")
    if channel.calibration is not None:
        words.append(f"calibrated {channel.calibration.date[:10]} against {channel.calibration.against}")
    return ", ".join(words)


def _align_columns(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if i == 2 else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  " + "  ".join(cell for cell, width in zip(cells, widths, strict=True) if width).rstrip())
    return lines


def _missing_lines(discovery: Discovery) -> list[str]:
    """Format one line for each reason with its channels, and one for the remedy."""
    grouped: dict[tuple[str, str, str | None], list[str]] = {}
    for channel in discovery.unavailable:
        key = channel.sensor, channel.reason or "it cannot be read", channel.remedy
        grouped.setdefault(key, []).append(channel.name)
    lines = []
    for (source, reason, remedy), names in grouped.items():
        lines.append(f"  {source}  {', '.join(dict.fromkeys(names))}: {reason}")
        lines += [f"    → {remedy}"] if remedy else []
    for failure in discovery.failures:
        lines.append(f"  {failure.source}: {failure.reason}")
        lines += [f"    → {failure.remedy}"] if failure.remedy else []
    return lines
