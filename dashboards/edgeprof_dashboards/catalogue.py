"""The dashboards that are shipped, as Grafana reads them."""

from __future__ import annotations

from pathlib import Path

#: All that ``edgeprof dashboards export`` writes, as it lies here.
FILES = Path(__file__).parent / "files"
GRAFANA = FILES / "grafana" / "dashboards"
#: The part of a dashboard's uid that all of edgeprof's have.
PREFIX = "edgeprof-"


def shipped_dashboards() -> dict[str, Path]:
    """Name → file of each dashboard, as ``device``."""
    return {path.stem.removeprefix(PREFIX): path for path in sorted(GRAFANA.glob(f"{PREFIX}*.json"))}
