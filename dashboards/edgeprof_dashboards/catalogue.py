"""The dashboards that are shipped, and their committed JSON: ``python -m edgeprof_dashboards.catalogue`` writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from edgeprof_dashboards.definitions import benchmark, device, fleet, inference

if TYPE_CHECKING:
    from edgeprof_dashboards.model import Dashboard

#: All that ``edgeprof dashboards export`` writes, as it lies here.
FILES = Path(__file__).parent / "files"
GRAFANA = FILES / "grafana" / "dashboards"

DASHBOARDS: tuple[Dashboard, ...] = (
    device.DASHBOARD,
    inference.DASHBOARD,
    benchmark.DASHBOARD,
    fleet.DASHBOARD,
)


def text_of(dashboard: Dashboard) -> str:
    """Its JSON as it is committed."""
    return json.dumps(dashboard.render(), indent=2, ensure_ascii=False) + "\n"


def path_of(dashboard: Dashboard) -> Path:
    return GRAFANA / f"{dashboard.uid}.json"


def write() -> None:
    """Write the JSON of all dashboards anew."""
    GRAFANA.mkdir(parents=True, exist_ok=True)
    for dashboard in DASHBOARDS:
        path_of(dashboard).write_text(text_of(dashboard), encoding="utf-8")


if __name__ == "__main__":
    write()
