"""Ask the running daemon (``edgeprof exporter``) over its control socket: one line of JSON, answered by another."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from edgeprof.errors import UnavailableError

#: How long to wait for an answer (s).
SILENCE_S = 10.0


def usual_path() -> Path:
    """The path of the control socket of this user's or the machine's daemon.

    Raises:
        UnavailableError: there is no such socket.
    """
    places = [Path("/run/edgeprof")]
    if os.environ.get("XDG_RUNTIME_DIR"):
        places.insert(0, Path(os.environ["XDG_RUNTIME_DIR"]) / "edgeprof")
    for place in places:
        if (place / "control.sock").exists():
            return place / "control.sock"
    raise UnavailableError(
        f"no daemon has a control socket in {' or '.join(map(str, places))}",
        remedy="Is it running? systemctl status edgeprof-exporter",
    )


def ask(path: Path, command: str, timeout_s: float = SILENCE_S) -> Any:
    """Send a command to the daemon behind a control socket, and return its answer.

    Raises:
        UnavailableError: no daemon answers, or it refuses the command.
    """
    import socket  # noqa: PLC0415 - most machines run no daemon

    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(timeout_s)
            sock.connect(os.fspath(path))
            sock.sendall(json.dumps({"command": command}).encode() + b"\n")
            with sock.makefile("rb") as answers:
                answer = json.loads(answers.readline() or b"{}")
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else None
        raise UnavailableError(f"the daemon behind {path} does not answer: {why or error}") from None
    if "ok" not in answer:
        raise UnavailableError(f"the daemon refuses: {answer.get('error', 'it hung up')}")
    return answer["ok"]
