"""``edgeprof bench --power-modes``: measure in several power modes; each mode becomes a result of its own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from edgeprof.cli.prose import say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeprof.benchmark.power_modes import Swept
    from edgeprof.benchmark.progress import Progress
    from edgeprof.benchmark.request import BenchRequest
    from edgeprof.plugins import PluginHost
    from edgeprof.roots import Roots

SCHEMA = "edgeprof.sweep/1"


def bench_modes(
    request: BenchRequest,
    host: PluginHost,
    roots: Roots,
    progress: Progress,
    names: str,
    flags: dict[str, Any],
) -> int:
    """Measure in every mode, store and print the results, and return the largest of their exit codes."""
    from edgeprof.benchmark.power_modes import sweep
    from edgeprof.cli.delivery import Delivery
    from edgeprof.cli.exit_codes import exit_code
    from edgeprof.cli.options import typed_command
    from edgeprof.reporters import registry
    from edgeprof.results.store import Store

    swept = sweep(request, host, roots, progress, [name.strip() for name in names.split(",") if name.strip()])
    results = [mode_run.result for mode_run in swept if mode_run.result is not None]
    with Delivery() as delivery:
        for result in results:
            result.command = typed_command()
            with delivery.step():
                Store().save(result)
        for path in flags["output"] if results else ():
            with delivery.step():
                registry.write(results, path, host)
        if flags["as_json"]:
            click.echo(json.dumps(_outcome_document(swept), indent=2))
        else:
            say(*table(swept))
    return max((exit_code(result, strict=flags["strict"]) for result in results), default=3)


def table(swept: Sequence[Swept]) -> list[str]:
    """Format a row for each mode and variant, with joules, latency and power."""
    from edgeprof import units

    rows = [["mode", "variant", "energy", "net", "latency", "power", ""]]
    for mode_run in swept:
        if mode_run.result is None:
            rows.append([mode_run.mode.name, "", "", "", "", "", f"passed over: {mode_run.reason}"])
            continue
        for variant in mode_run.result.variants:
            energy, latency, power = variant.energy_j_per_inference, variant.latency_s, variant.power_w
            gross = energy.gross if energy else None
            rows.append(
                [
                    mode_run.mode.name,
                    variant.name,
                    units.plus_minus(gross.value, gross.expanded_uncertainty, "J") if gross else "–",
                    units.quantity(energy.net.value if energy else None, "J"),
                    units.quantity(latency.p50 if latency else None, "s"),
                    units.quantity(power.mean if power else None, "W"),
                    "" if variant.status == "ok" else variant.status,
                ]
            )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]  # fmt: skip


def _outcome_document(swept: Sequence[Swept]) -> dict[str, Any]:
    import msgspec

    return {
        "schema": SCHEMA,
        "modes": [
            {"mode": mode_run.mode.name, "reason": mode_run.reason, "result": msgspec.to_builtins(mode_run.result)}
            for mode_run in swept
        ],
    }
