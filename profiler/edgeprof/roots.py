"""The places of /sys, /proc and /dev, named only here, so that a captured or simulated tree can be read instead."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from edgeprof.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

#: A file of this name at the top of a tree says that the tree is a virtual board (see edgeprof.simulation); its
#: readings are then ``simulated``, never ``measured``.
SIMULATION_MARKER = "edgeprof-simulation.json"
#: A file of this name says that ``edgeprof doctor --bundle`` captured the tree: its values do not change, and joules
#: that are computed from it were not measured.
BUNDLE_MARKER = "edgeprof-bundle.json"


class Roots(NamedTuple):
    """The roots of the trees that sensors read.

    Attributes:
        sysfs: /sys, or a tree that looks like it.
        procfs: /proc, or a tree that looks like it.
        dev: /dev.
        root: The directory that contains /etc and /var (nvpmodel, the release files).
    """

    sysfs: Path = Path("/sys")
    procfs: Path = Path("/proc")
    dev: Path = Path("/dev")
    root: Path = Path("/")

    @property
    def is_live(self) -> bool:
        """Whether this is the machine itself and not a captured or simulated tree."""
        return self.sysfs == Path("/sys")

    @property
    def is_simulated(self) -> bool:
        """Whether readings come from a virtual board or a bundle, and not from the device that runs a model."""
        return self.is_captured or (self.sysfs / SIMULATION_MARKER).exists()

    @property
    def is_captured(self) -> bool:
        """Whether the tree is a bundle, whose values do not change."""
        return (self.sysfs / BUNDLE_MARKER).exists()

    @classmethod
    def resolve(
        cls,
        sysfs: str | os.PathLike[str] | None = None,
        procfs: str | os.PathLike[str] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> Roots:
        """Find the roots: from the flags, else EDGEPROF_SYSFS_ROOT and EDGEPROF_PROCFS_ROOT, else those of the machine.

        If only a sysfs root is given, ``<sysfs>/proc`` is the procfs root if it exists. /etc, /var and /dev then come
        only from ``<sysfs>/root``, since the power mode of this machine says nothing about that board.

        Raises:
            InputError: a root is not a directory.
        """
        environ = os.environ if environ is None else environ
        sysfs = sysfs or environ.get("EDGEPROF_SYSFS_ROOT") or "/sys"
        procfs = procfs or environ.get("EDGEPROF_PROCFS_ROOT")
        if not procfs:
            inside = Path(sysfs) / "proc"
            procfs = inside if Path(sysfs) != Path("/sys") and inside.is_dir() else "/proc"
        for flag, path in (("--sysfs-root", sysfs), ("--procfs-root", procfs)):
            if os.fspath(path).endswith((".tar.gz", ".tgz")) and Path(path).is_file():
                raise InputError(
                    f"{flag} {os.fspath(path)} is an archive, and a directory is needed",
                    remedy=f"tar xf {os.fspath(path)}; then {flag} edgeprof-bundle",
                )
            if not Path(path).is_dir():
                raise InputError(
                    f"{flag} {os.fspath(path)} is not a directory",
                    remedy="Give the top of a captured tree, or start one: edgeprof simulate jetson-orin-nano --dir D",
                )
        if Path(sysfs) == Path("/sys"):
            return cls(procfs=Path(procfs))
        root = Path(sysfs) / "root"
        return cls(sysfs=Path(sysfs), procfs=Path(procfs), dev=root / "dev", root=root)
