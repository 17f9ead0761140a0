"""Write constraints/tested.txt: the version that was last tested of each distribution that edgeprof[all] installs.

Run it in an environment in which the whole suite has just passed: ``python tools/constraints.py``.
"""

from __future__ import annotations

import importlib.metadata
import platform
import re
import sys
from pathlib import Path

FILE = Path(__file__).parent.parent / "constraints" / "tested.txt"
HEAD = """\
# What edgeprof[all] was tested with: Python {python} on {machine} Linux.
#
#   pip install 'edgeprof[onnx]' -c constraints/tested.txt     (or any other extra)
#
# Nothing newer is known to break; these versions are known to work together. tools/constraints.py writes the file.
"""


def closure(name: str, extras: tuple[str, ...] = ()) -> dict[str, str]:
    """Return distribution → version of all installed dependencies of a distribution, excluding the latter itself."""
    versions: dict[str, str] = {}
    waiting = [(name, extra) for extra in ("", *extras)]
    seen = set(waiting)
    while waiting:
        parent, extra = waiting.pop()
        try:
            distribution = importlib.metadata.distribution(parent)
        except importlib.metadata.PackageNotFoundError:
            continue
        if parent != name:
            versions[parent] = distribution.version.partition("+")[0]
        for line in distribution.requires or ():
            wanted = _wanted(line, extra)
            for more in wanted:
                if more not in seen:
                    seen.add(more)
                    waiting.append(more)
    return versions


def _wanted(line: str, extra: str) -> list[tuple[str, str]]:
    """Return the pairs (distribution, extra) that a requirement adds in this environment, given its parent's extra."""
    requirement, _, marker = line.partition(";")
    given = re.findall(r"extra\s*==\s*['\"]([^'\"]+)['\"]", marker)
    if given and extra not in given:
        return []
    match = re.match(r"\s*([A-Za-z0-9._-]+)\s*(?:\[([^\]]*)\])?", requirement)
    if match is None:
        return []
    name = re.sub(r"[-_.]+", "-", match.group(1)).lower()
    return [(name, extra.strip()) for extra in ("", *(match.group(2) or "").split(",")) if extra.strip() or extra == ""]


def main() -> None:
    pins = closure("edgeprof", ("all",))
    head = HEAD.format(python=".".join(platform.python_version_tuple()[:2]), machine=platform.machine())
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(head + "".join(f"{name}=={pins[name]}\n" for name in sorted(pins) if name != "edgeprof"), "utf-8")
    sys.stdout.write(f"{len(pins)} versions written to {FILE.name}\n")


if __name__ == "__main__":
    main()
