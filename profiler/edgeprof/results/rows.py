"""The rows of a result in the store's tables: the result itself as JSON, and the columns that serve to find it."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING

from edgeprof.results import document, schema

if TYPE_CHECKING:
    import sqlite3

    from edgeprof.results.schema import Result, Variant


def insert_result(db: sqlite3.Connection, result: Result) -> None:
    """Insert a result and its variants; the result's id must not be in use."""
    utc = _utc_text(result.created)
    db.execute(
        "INSERT INTO results VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            result.id,
            result.created,
            utc,
            result.edgeprof,
            result.host.fingerprint,
            result.host.board,
            result.host.hostname,
            result.protocol.scenario,
            result.protocol.preset,
            int(result.interrupted),
            document.to_json(result, indent=0),
        ),
    )
    db.executemany(
        f"INSERT INTO variants VALUES ({', '.join('?' * 17)})",  # noqa: S608 - question marks only
        [
            (result.id, position, utc, *_model_columns(result, variant))
            for position, variant in enumerate(result.variants)
        ],
    )


def _utc_text(created: str) -> str:
    """Return a time as sortable text in UTC; a text that cannot be parsed is returned unchanged."""
    try:
        moment = datetime.fromisoformat(created.replace("Z", "+00:00"))
    except ValueError:
        return created
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _model_columns(result: Result, variant: Variant) -> tuple[object, ...]:
    """Return a variant's columns from ``model`` to ``size_bytes``."""
    energy, runtime, latency = variant.energy_j_per_inference, variant.runtime, variant.latency_s
    return (
        schema.model_name(variant.model),
        variant.model.sha256,
        variant.name,
        runtime.name if runtime else "",
        runtime.device if runtime else "",
        result.protocol.scenario,
        variant.status,
        energy.provenance if energy else "none",
        energy.gross.value if energy else None,
        energy.gross.expanded_uncertainty if energy else None,
        energy.net.value if energy else None,
        latency.p50 if latency else None,
        variant.accuracy.value if variant.accuracy else None,
        variant.model.size_bytes,
    )
