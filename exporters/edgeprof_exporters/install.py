"""``edgeprof exporter install``: the unit, the user, the rules; shown before anything is written."""

from __future__ import annotations

import grp
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from edgeprof.errors import EdgeprofError, InputError, UnavailableError

_FILES = Path(__file__).parent / "files"
#: Groups that own the devices of sensors; a unit that names one that does not exist does not start (216/GROUP).
_DEVICE_GROUPS = ("i2c", "video", "render", "dialout")


@dataclass
class Plan:
    """What an installation does, in order.

    Attributes:
        files: Path → content.
        kept: Files that are there already and stay as they are: the user's settings.
        commands: What is run afterwards.
        needs_root: Whether only root can.
    """

    files: dict[Path, str] = field(default_factory=dict)
    kept: list[Path] = field(default_factory=list)
    commands: list[list[str]] = field(default_factory=list)
    needs_root: bool = False


def plan(where: str, root: Path = Path("/")) -> Plan:
    """The plan for the machine (``system``) or for this user (``user``).

    Args:
        where: One of the two.
        root: Where the files go; anything but ``/`` runs no commands.

    Raises:
        UnavailableError: the program cannot be found.
    """
    return _for_user(root) if where == "user" else _for_system(root)


def _for_system(root: Path) -> Plan:
    made = Plan(needs_root=root == Path("/"))
    unit = root / "etc/systemd/system/edgeprof-exporter.service"
    made.files[unit] = _text("edgeprof-exporter.service").replace("@EDGEPROF@", _program())
    groups = [name for name in _DEVICE_GROUPS if _has_group(name)]
    if groups:
        made.files[unit.parent / "edgeprof-exporter.service.d/groups.conf"] = (
            f"# The groups of this device that own what sensors are read from.\n[Service]\n"
            f"SupplementaryGroups={' '.join(groups)}\n"
        )
    made.files[root / "etc/sysusers.d/edgeprof.conf"] = _text("sysusers.conf")
    made.files[root / "etc/udev/rules.d/70-edgeprof.rules"] = _text("udev.rules")
    _settings(made, root / "etc/edgeprof/exporter.yml")
    if root == Path("/"):
        made.commands = [
            ["systemd-sysusers", "/etc/sysusers.d/edgeprof.conf"],
            ["udevadm", "control", "--reload"],
            ["udevadm", "trigger", "--subsystem-match=powercap", "--action=add"],
            ["systemctl", "daemon-reload"],
            ["systemctl", "enable", "--now", "edgeprof-exporter.service"],
        ]
    return made


def _for_user(root: Path) -> Plan:
    made = Plan()
    given = os.environ.get("XDG_CONFIG_HOME")
    config = Path(given) if given else Path.home() / ".config"
    below = config if root == Path("/") else root / config.relative_to("/")
    unit = below / "systemd/user/edgeprof-exporter.service"
    made.files[unit] = _text("edgeprof-exporter-user.service").replace("@EDGEPROF@", _program())
    _settings(made, below / "edgeprof/exporter.yml")
    if root == Path("/"):
        made.commands = [
            ["systemctl", "--user", "daemon-reload"],
            ["systemctl", "--user", "enable", "--now", "edgeprof-exporter.service"],
        ]
    return made


def shown(plan: Plan) -> str:
    """The plan as a person reads it: every file in full, every command."""
    parts = [f"# {path}\n{content.rstrip()}\n" for path, content in plan.files.items()]
    parts += [f"# {path}\n# is there already and stays as it is\n" for path in plan.kept]
    if plan.commands:
        parts.append("# then\n" + "".join(f"{' '.join(argv)}\n" for argv in plan.commands))
    return "\n".join(parts)


def carry_out(plan: Plan) -> list[str]:
    """Write and run; one line for each thing done.

    Raises:
        UnavailableError: root is needed.
        InputError: a file cannot be written.
        EdgeprofError: a command failed; what comes after it was not run.
    """
    if plan.needs_root and os.geteuid() != 0:
        raise UnavailableError(
            "install --system needs root", remedy="sudo edgeprof exporter install --system, or install --user"
        )
    said = []
    for path, content in plan.files.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
            path.chmod(0o644)
        except OSError as error:
            raise InputError(f"{path} cannot be written: {error.strerror}") from None
        said.append(f"written: {path}")
    said += [f"kept: {path}" for path in plan.kept]
    for argv in plan.commands:
        try:
            subprocess.run(argv, check=True, capture_output=True, text=True)
        except FileNotFoundError:
            raise UnavailableError(f"{argv[0]} is not here; is this a system with systemd?") from None
        except subprocess.CalledProcessError as error:
            why = (error.stderr or error.stdout or "").strip() or f"exit status {error.returncode}"
            raise EdgeprofError(f"{' '.join(argv)} failed: {why}", remedy=f"Run it by hand: {' '.join(argv)}") from None
        said.append(f"run: {' '.join(argv)}")
    return said


def _settings(made: Plan, path: Path) -> None:
    """Example settings where there are none: what a person has changed is never overwritten."""
    if path.exists():
        made.kept.append(path)
    else:
        made.files[path] = _text("exporter.yml")


def _program() -> str:
    """The ``edgeprof`` of this Python, else the one on PATH.

    Raises:
        UnavailableError: there is neither.
    """
    beside = Path(sys.executable).parent / "edgeprof"
    found = str(beside) if beside.exists() else shutil.which("edgeprof")
    if found is None:
        raise UnavailableError("the program edgeprof is not on PATH", remedy="pip install 'edgeprof[exporter]'")
    return found


def _text(name: str) -> str:
    return (_FILES / name).read_text(encoding="utf-8")


def _has_group(name: str) -> bool:
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True
