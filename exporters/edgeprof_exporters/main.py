"""The start of the daemon's own process, whose memory does not contain click or other parts of the command line.

``edgeprof exporter`` checks the settings, finds the plugins, and then replaces itself by this program (execve: it keeps
its process id and its sockets).
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprof.cli import streams
from edgeprof.cli.relay import relayed
from edgeprof.entry_points import EntryPoint
from edgeprof.errors import EdgeprofError
from edgeprof.plugins import sensor_points
from edgeprof_exporters import configuration as table
from edgeprof_exporters.logs import setup
from edgeprof_exporters.thrift.light import import_client

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The program for ``python -c``; it removes the current directory from the path, from which nothing must be imported.
_CODE = (
    "import sys; sys.path[:1] == [''] and sys.path.pop(0); from edgeprof_exporters.main import main; sys.exit(main())"
)
#: Environment variable with the daemon's flags; as arguments they would clutter every list of processes.
_GIVEN = "_EDGEPROF_EXPORTER"
_PR_SET_NAME = 15


def become(flags: Mapping[str, Any], path: Path | None) -> None:
    """Replace this process by the daemon; this function does not return."""
    import subprocess  # noqa: PLC0415 - the daemon itself goes on without

    sys.stdout.flush()
    sys.stderr.flush()
    given = json.dumps(
        {
            "flags": {k: v for k, v in flags.items() if v not in (None, ())},
            "path": path and str(path),
            # The daemon has no room for the libraries of other plugins, numpy among them.
            "plugins": sensor_points(),
        }
    )
    same = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # noqa: SLF001 - as multiprocessing does
    # The last two words have no effect, but let pgrep -f and people find the daemon by its name.
    argv = [sys.executable, *same, "-c", _CODE, "edgeprof", "exporter"]
    os.execve(sys.executable, argv, {**os.environ, _GIVEN: given})  # noqa: S606 - no shell is wanted


def main() -> int:
    """Run the daemon with the flags, the file and the plugins that ``become`` passed, and return the exit code."""
    streams.mend()  # this is another process than that of the command line
    # Under systemd no terminal could obey what a library prints, and the process that relays it would take memory.
    with relayed() if os.isatty(1) or os.isatty(2) else nullcontext():
        return _run_daemon()


def _run_daemon() -> int:
    asked = json.loads(os.environ.pop(_GIVEN))
    path = Path(asked["path"]) if asked["path"] else None
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_NAME, b"edgeprof", 0, 0, 0)
    try:
        settings, _ = table.load(asked["flags"], path=path)
        setup(settings.log_level, settings.log_format)
        import_client()
        from edgeprof_exporters.daemon import Daemon  # noqa: PLC0415 - the log must be there for what it says

        plugins = [EntryPoint(*fields) for fields in asked["plugins"]]
        return Daemon(settings, lambda: table.load(asked["flags"], path=path)[0], plugins).run()
    except EdgeprofError as error:
        sys.stderr.write(f"edgeprof: {error.message}\n" + (f"  {error.remedy}\n" if error.remedy else ""))
        return error.exit_code
