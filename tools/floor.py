"""Check with vermin that the worker's files run on Python 3.6, the version of a Jetson Nano (JetPack 4).

The check runs in ``make lint`` and in tests/test_packaging.py. Exit status 0 if the files pass.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def files() -> list[str]:
    """Return the files that run in other interpreters: the worker's, the runtimes', and those that applications use."""
    folders = ("profiler/edgeprof/worker", "profiler/edgeprof/workload", "plugins/edgeprof_plugins/runtimes")
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    imported = [ROOT / "profiler/edgeprof" / name for name in ("tracking.py", "staging.py")]
    return [str(path) for path in [*paths, *imported]]


def main() -> int:
    # --eval-annotations: without "from __future__ import annotations", annotations are evaluated at import
    run = [sys.executable, "-c", "import sys, vermin; sys.exit(vermin.main())"]  # vermin has no __main__
    command = [*run, "-t=3.6-", "--no-tips", "--eval-annotations", "--violations", *files()]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
