"""The oldest Python that the worker's files run on: 3.6, that of a Jetson Nano (JetPack 4). Checked by vermin.

Runs in ``make lint`` and in tests/test_packaging.py. Exit status 0 if the floor holds.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def files() -> list[str]:
    """The files that run in a worker: the runtimes, and what has no future annotations (Python 3.7) in workload/."""
    workload = sorted((ROOT / "profiler/edgeprof/workload").glob("[!_]*.py"))
    worker = [path for path in workload if "from __future__ import annotations" not in path.read_text("utf-8")]
    runtimes = sorted((ROOT / "plugins/edgeprof_plugins/runtimes").glob("[!_]*.py"))
    # What applications import, or copy beside them, to report their inferences; and the plans that TensorRT reads.
    others = [ROOT / "profiler/edgeprof/tracking.py", ROOT / "profiler/edgeprof/planfile.py"]
    return [str(path) for path in [*worker, *runtimes, *others]]


def main() -> int:
    # --eval-annotations: these files have no future annotations, so theirs are evaluated at import
    run = [sys.executable, "-c", "import sys, vermin; sys.exit(vermin.main())"]  # vermin has no __main__
    command = [*run, "-t=3.6-", "--no-tips", "--eval-annotations", "--violations", *files()]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
