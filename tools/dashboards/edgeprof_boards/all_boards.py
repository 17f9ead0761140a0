"""All dashboards, and their committed JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from edgeprof_boards import benchmark, device, fleet, inference
from edgeprof_dashboards.catalogue import GRAFANA

if TYPE_CHECKING:
    from pathlib import Path

    from edgeprof_boards.dashboard import Dashboard

DASHBOARDS: tuple[Dashboard, ...] = (device.DASHBOARD, inference.DASHBOARD, benchmark.DASHBOARD, fleet.DASHBOARD)


def json_of(dashboard: Dashboard) -> str:
    """Return a dashboard's JSON as it is committed."""
    return json.dumps(dashboard.render(), indent=2, ensure_ascii=False) + "\n"


def path_of(dashboard: Dashboard) -> Path:
    """Return the path of a dashboard's committed JSON."""
    return GRAFANA / f"{dashboard.uid}.json"


def write_all() -> None:
    """Write the JSON of all dashboards."""
    GRAFANA.mkdir(parents=True, exist_ok=True)
    for dashboard in DASHBOARDS:
        path_of(dashboard).write_text(json_of(dashboard), encoding="utf-8")
