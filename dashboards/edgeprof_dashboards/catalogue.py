"""The JSON files of the dashboards that edgeprof ships."""

from __future__ import annotations

from pathlib import Path

#: The files that ``edgeprof dashboards export`` copies.
FILES = Path(__file__).parent / "files"
GRAFANA = FILES / "grafana" / "dashboards"
#: The prefix of the uid of each of edgeprof's dashboards.
PREFIX = "edgeprof-"


def shipped_dashboards() -> dict[str, Path]:
    """Return each dashboard's name (such as ``device``) → its file."""
    return {path.stem.removeprefix(PREFIX): path for path in sorted(GRAFANA.glob(f"{PREFIX}*.json"))}
