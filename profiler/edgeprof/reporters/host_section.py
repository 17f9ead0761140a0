"""The end of a report: where and how the results were measured, in enough detail to repeat them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprof import units
from edgeprof.reporters import view
from edgeprof.reporters.charts.svg import escape

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgeprof.results.schema import Result, SensorUse, Variant


def section(results: Sequence[Result]) -> str:
    """Write the host, protocol, sensors and files of every result."""
    blocks = "".join(_context_block(result, several=len(results) > 1) for result in results)
    lead = "The conditions that must agree for two results to be compared, and the cost of measuring itself."
    return f'<section><h2>Context</h2><p class="lead">{escape(lead)}</p>{blocks}</section>'


def _context_block(result: Result, *, several: bool) -> str:
    title = f"<h3>{escape(result.id)}</h3>" if several else ""
    facts = f'<div class="two">{_facts_list(_host_facts(result))}{_facts_list(_protocol_facts(result))}</div>'
    return f"{title}{facts}{_sensors_block(result.sensors)}{_files_block(result.variants)}"


def _host_facts(result: Result) -> dict[str, str | None]:
    host = result.host
    return {
        "board": host.board,
        "host": host.hostname,
        "processor": f"{host.cores} × {host.cpu} ({host.arch})",
        "memory": units.size(host.memory_bytes),
        "system": f"{host.os}, kernel {host.kernel}",
        "power mode": host.power_mode,
        "governor": host.governor,
        "fingerprint": host.fingerprint,
        **{key.replace("_", " "): value for key, value in host.context.items()},
    }


def _protocol_facts(result: Result) -> dict[str, str | None]:
    p, cost = result.protocol, result.self_cost
    cpu = f"{units.significant(100 * cost.cpu_ratio, 2)} % of a core" if cost and cost.cpu_ratio is not None else None
    return {
        "measured": result.created,
        "scenario": p.scenario + (f" at {units.significant(p.rate_hz)} Hz" if p.rate_hz else ""),
        "windows": f"{p.windows} × {units.significant(p.window_s)} s, {p.interleave}, preset {p.preset}",
        "idle": f"{units.significant(p.idle_s)} s before and after, model loaded",
        "warm-up": f"at least {units.significant(p.warmup_s)} s, until steady",
        "inputs": f"{p.inputs}, seed {p.seed}" if p.inputs == "random" else p.inputs,
        "sampling": f"{units.significant(p.sample_rate_hz)} Hz",
        "cost of measuring": cpu,
    }


def _facts_list(facts: Mapping[str, str | None]) -> str:
    cells = "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in facts.items() if value)
    return f'<dl class="facts">{cells}</dl>'


def _sensors_block(sensors: Sequence[SensorUse]) -> str:
    heads: tuple[str, ...] = (
        "channel",
        "sensor",
        "reads",
        "covers",
        "provenance",
        "step",
        "new value every",
        "filter",
        "rate",
        "missed",
    )
    rows = [_sensor_row(sensor) for sensor in sensors]
    if any(sensor.proved for sensor in sensors):
        heads = (*heads, "proved")
        rows = [(*row, _proof_text(sensor)) for row, sensor in zip(rows, sensors, strict=True)]
    return _table_html("Sensors", heads, rows)


def _proof_text(s: SensorUse) -> str:
    """The verdict of the newest ``doctor --prove`` on a channel, and its date."""
    if s.proved is None:
        return "–"
    verdict = s.proved.get("verdict", "").replace("_", " ")
    return f"{verdict}, {s.proved.get('date', '')[:10]}"


def _sensor_row(s: SensorUse) -> tuple[str, ...]:
    every = units.quantity(s.update_interval_s, "s") if s.update_interval_s is not None else "–"
    tau, length = _filter_seconds(s, "tau_s"), _filter_seconds(s, "length_s")
    kind = str((s.filter or {}).get("kind") or "–")
    smooth = f"tau {units.quantity(tau, 's')}" if tau else f"mean of {units.quantity(length, 's')}" if length else kind
    role = f"{s.scope}{f', {s.role}' if s.role else ''}{f' of {s.parent}' if s.parent else ''}"
    rate = f"{units.significant(s.rate_hz)} Hz" if s.rate_hz is not None else "–"
    step = units.quantity(s.resolution, s.unit, 2) if s.unit not in ("1", "°C") else _resolution_text(s)
    missed = f"{s.missed} of {s.samples + s.missed}"
    return (s.channel, s.sensor, s.quantity, role, s.provenance, step, every, smooth, rate, missed)


def _filter_seconds(s: SensorUse, key: str) -> float | None:
    """A time constant or length of the filter (s); None if it is no number, as a foreign file may hold anything."""
    value = (s.filter or {}).get(key)
    return value if isinstance(value, int | float) else None


def _resolution_text(s: SensorUse) -> str:
    if s.resolution is None:
        return "–"
    return f"{units.significant(s.resolution, 2)} {'' if s.unit == '1' else s.unit}".rstrip()


def _files_block(variants: Sequence[Variant]) -> str:
    heads = ("variant", "file", "format", "size", "deflated", "runtime", "threads", "load", "sha256")
    return _table_html("Models", heads, [_file_row(variant) for variant in variants])


def _file_row(v: Variant) -> tuple[str, ...]:
    runtime = v.runtime
    return (
        v.name,
        v.model.path,
        v.model.format,
        units.size(v.model.size_bytes),
        units.size(v.model.size_compressed_bytes),
        view.runtime_text(v) or "–",
        str(runtime.threads) if runtime and runtime.threads else "–",
        units.quantity(runtime.load_s, "s") if runtime and runtime.load_s is not None else "–",
        f"{v.model.sha256[:12]}…" if v.model.sha256 and len(v.model.sha256) > 12 else v.model.sha256 or "–",
    )


def _table_html(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return f"<h3>{escape(title)}</h3>{words_table(title, heads, rows)}" if rows else ""


def words_table(name: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table of texts, which a keyboard can scroll and a telephone shows row by row.

    Args:
        name: Description of the table for people who cannot see it.
        heads: Titles of the columns.
        rows: The rows, each with one text for each column.
    """
    head = "".join(f'<th scope="col" role="columnheader" class="words">{escape(h)}</th>' for h in heads)
    body = "".join(f'<tr role="row">{_cells(heads, row)}</tr>' for row in rows)
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(name)}"><table role="table">'
        f'<thead role="rowgroup"><tr role="row">{head}</tr></thead><tbody role="rowgroup">{body}</tbody></table></div>'
    )


def _cells(heads: Sequence[str], row: Sequence[str]) -> str:
    first = f'<th scope="row" role="rowheader" class="words">{escape(row[0])}</th>'
    return first + "".join(
        f'<td role="cell" class="words" data-label="{escape(head)}">{escape(cell)}</td>'
        for head, cell in zip(heads[1:], row[1:], strict=True)
    )
