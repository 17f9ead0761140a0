"""Generate the JSON of all dashboards from their definitions: python tools/dashboards/build.py."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from edgeprof_boards.all_boards import write_all

if __name__ == "__main__":
    write_all()
