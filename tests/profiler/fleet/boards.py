"""Virtual boards that are reached like the devices of a fleet: by ssh, or by a stand-in for ssh that needs no sshd."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgeprof.simulation.layouts import build
from edgeprof.simulation.live import LiveBoard
from edgeprof.simulation.waveform import constant

if TYPE_CHECKING:
    import contextlib
    from pathlib import Path

#: A program that starts the door of the named board in that board's environment, like a forced command of sshd.
STAND_IN = """\
#!/bin/sh
while [ "$1" != "--" ]; do shift; done
if [ ! -f {folder}/"$2"/door.sh ]; then
    echo "ssh: Could not resolve hostname $2: Name or service not known" >&2
    exit 255
fi
exec {folder}/"$2"/door.sh
"""
#: Flags of a bench that takes two seconds.
SHORT = ("--windows", "2", "--window", "0.2", "--idle", "0.2", "--warmup", "0.1", "--timeout", "90")


@dataclass
class Boards:
    """A folder of virtual boards, each with its own sysfs tree, data directory and lock.

    Attributes:
        folder: The folder.
        names: The names of the boards.
    """

    folder: Path
    names: list[str] = field(default_factory=list)

    def add(self, name: str, kind: str, live: contextlib.ExitStack | None = None) -> Path:
        """Make a board and return its sysfs tree; with ``live`` its rails change until that stack is closed."""
        place = self.folder / name
        place.mkdir(parents=True)
        tree = place / "sysfs"
        if live is None:
            build(kind, tree)
        else:
            live.enter_context(LiveBoard(kind, tree, constant(6.0)))
        (tree / "root/etc").mkdir(parents=True, exist_ok=True)
        (tree / "root/etc/machine-id").write_text(f"{name:0<32}\n")
        variables = {
            "EDGEPROF_SYSFS_ROOT": tree,
            "EDGEPROF_DATA_DIR": place / "data",
            "EDGEPROF_LOCK_DIR": place,
            "EDGEPROF_PLUGINS": "onnxruntime,ina3221,pmic,npz,topk",
        }
        exports = "\n".join(f"export {key}={shlex.quote(str(value))}" for key, value in variables.items())
        door = place / "door.sh"
        config = f" --config {shlex.quote(str(place / 'door.toml'))}"
        (place / "door.toml").write_text("")
        door.write_text(f"#!/bin/sh\n{exports}\nexec {shlex.quote(sys.executable)} -m edgeprof door{config}\n")
        door.chmod(0o755)
        self.names.append(name)
        return tree

    def stand_in(self) -> Path:
        """Write a program that stands in for ssh, and return its path."""
        path = self.folder / "ssh"
        path.write_text(STAND_IN.format(folder=shlex.quote(str(self.folder))))
        path.chmod(0o755)
        return path

    def inventory(self, path: Path, *more: str) -> Path:
        """Write an inventory of all boards, with the further text ``more``."""
        blocks = [
            f'[[devices]]\nname = "{name}"\naddress = "{name}.example"\nssh = "{name}"\nkind = "{name[:-2]}"\n'
            for name in self.names
        ]
        path.write_text("\n".join([*blocks, *more]))
        return path
