"""``edgeprof exporter install``: write the systemd unit, the user and the udev rules."""

from __future__ import annotations

import grp
import os
import shlex
import shutil
import stat
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from edgeprof.errors import EdgeprofError, InputError, UnavailableError
from edgeprof.installation import own_requirement

_FILES = Path(__file__).parent / "files"
#: Groups that own the devices of sensors; a unit that names a missing group does not start (216/GROUP).
_DEVICE_GROUPS = ("video", "render", "dialout")


@dataclass
class Plan:
    """The steps of an installation, in order.

    Attributes:
        files: Path → content of each file that is written.
        existing: Files with the user's settings, which exist already and are not changed.
        commands: Commands that are run afterwards.
        needs_root: Whether only root can carry it out.
        runs: Files that the service's own user must be able to reach.
    """

    files: dict[Path, str] = field(default_factory=dict)
    existing: list[Path] = field(default_factory=list)
    commands: list[list[str]] = field(default_factory=list)
    needs_root: bool = False
    runs: list[Path] = field(default_factory=list)


def plan(where: str, root: Path = Path("/")) -> Plan:
    """Make the plan for the machine (``system``) or for this user (``user``).

    Args:
        where: ``system`` or ``user``.
        root: Folder below which the files are written; commands are run only if it is ``/``.

    Raises:
        UnavailableError: the program cannot be found.
    """
    return _for_user(root) if where == "user" else _for_system(root)


def _for_system(root: Path) -> Plan:
    plan = Plan(needs_root=root == Path("/"))
    program = _program_path()
    unit = root / "etc/systemd/system/edgeprof-exporter.service"
    plan.files[unit] = _packaged_text("edgeprof-exporter.service").replace("@EDGEPROF@", program)
    groups = ["i2c", *(name for name in _DEVICE_GROUPS if _has_group(name, root))]
    plan.files[unit.parent / "edgeprof-exporter.service.d/groups.conf"] = (
        f"# The groups of this device that own what sensors are read from; sysusers.d makes i2c.\n[Service]\n"
        f"SupplementaryGroups={' '.join(groups)}\n"
    )
    plan.files[root / "etc/sysusers.d/edgeprof.conf"] = _packaged_text("sysusers.conf")
    plan.files[root / "etc/udev/rules.d/70-edgeprof.rules"] = _packaged_text("udev.rules")
    _add_settings(plan, root / "etc/edgeprof/exporter.yml")
    if root == Path("/"):
        plan.runs = [Path(program), Path(sys.executable), Path(__file__)]
        plan.commands = [
            ["systemd-sysusers", "/etc/sysusers.d/edgeprof.conf"],
            ["udevadm", "control", "--reload"],
            ["udevadm", "trigger", "--action=add", "--subsystem-match=powercap", "--subsystem-match=i2c-dev"],
            ["udevadm", "settle"],  # the daemon looks for its sensors when it starts
            *_start_commands("systemctl"),
        ]
    return plan


def _for_user(root: Path) -> Plan:
    plan = Plan()
    given = os.environ.get("XDG_CONFIG_HOME")
    config = Path(given) if given else Path.home() / ".config"
    below = config if root == Path("/") else root / config.relative_to("/")
    unit = below / "systemd/user/edgeprof-exporter.service"
    plan.files[unit] = _packaged_text("edgeprof-exporter-user.service").replace("@EDGEPROF@", _program_path())
    _add_settings(plan, below / "edgeprof/exporter.yml")
    if root == Path("/"):
        plan.commands = _start_commands("systemctl", "--user")
    return plan


def _start_commands(*systemctl: str) -> list[list[str]]:
    """The commands that start the daemon; a running one is restarted, since it may be from before an upgrade."""
    unit = "edgeprof-exporter.service"
    return [[*systemctl, "daemon-reload"], [*systemctl, "enable", unit], [*systemctl, "restart", unit]]


def shown(plan: Plan) -> str:
    """Describe a plan for a person: every file in full, and every command."""
    parts = [f"# {path}\n{content.rstrip()}\n" for path, content in plan.files.items()]
    parts += [f"# {path}\n# exists already and is not changed\n" for path in plan.existing]
    if plan.commands:
        parts.append("# then\n" + "".join(f"{' '.join(argv)}\n" for argv in plan.commands))
    return "\n".join(parts)


def carry_out(plan: Plan) -> list[str]:
    """Write the files and run the commands of a plan.

    Returns:
        A line for each step.

    Raises:
        UnavailableError: root is needed, or the service's user could not reach the program.
        InputError: a file cannot be written.
        EdgeprofError: a command failed; the commands after it were not run.
    """
    if plan.needs_root and os.geteuid() != 0:
        raise UnavailableError(
            "install --system needs root", remedy="sudo edgeprof exporter install --system, or install --user"
        )
    for path in plan.runs:
        closed = _first_closed_folder(path)
        if closed is not None:
            raise UnavailableError(
                f"the service's user edgeprof could not run {path}: {closed} is not open to everybody",
                remedy="sudo python3 -m venv /opt/edgeprof; "
                f"sudo /opt/edgeprof/bin/pip install {shlex.quote(own_requirement('exporter'))}; "
                "sudo /opt/edgeprof/bin/edgeprof exporter install --system",
            )
    messages = []
    for path, content in plan.files.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
            path.chmod(0o644)
        except OSError as error:
            raise InputError(f"{path} cannot be written: {error.strerror}") from None
        messages.append(f"written: {path}")
    messages += [f"kept: {path}" for path in plan.existing]
    for argv in plan.commands:
        try:
            subprocess.run(argv, check=True, capture_output=True, text=True)
        except FileNotFoundError:
            raise UnavailableError(f"{argv[0]} is not here; is this a system with systemd?") from None
        except subprocess.CalledProcessError as error:
            why = (error.stderr or error.stdout or "").strip() or f"exit status {error.returncode}"
            raise EdgeprofError(f"{' '.join(argv)} failed: {why}", remedy=f"Run it by hand: {' '.join(argv)}") from None
        messages.append(f"run: {' '.join(argv)}")
    return messages


def _add_settings(plan: Plan, path: Path) -> None:
    """Add example settings to the plan if there are none; existing settings are never overwritten."""
    if path.exists():
        plan.existing.append(path)
    else:
        plan.files[path] = _packaged_text("exporter.yml")


def _program_path() -> str:
    """The path of ``edgeprof`` beside this Python, else on PATH.

    Raises:
        UnavailableError: there is no such program.
    """
    beside = Path(sys.executable).parent / "edgeprof"
    program = str(beside) if beside.exists() else shutil.which("edgeprof")
    if program is None:
        raise UnavailableError("the program edgeprof is not on PATH", remedy="pip install 'edgeprof[exporter]'")
    return program


def _packaged_text(name: str) -> str:
    return (_FILES / name).read_text(encoding="utf-8")


def _first_closed_folder(path: Path) -> Path | None:
    """The file or the folder above it that other users cannot read or enter, links resolved; None if they can."""
    real = path.resolve()
    for part in (real, *real.parents):
        mode = part.stat().st_mode
        wanted = stat.S_IXOTH if stat.S_ISDIR(mode) else stat.S_IROTH
        if not mode & wanted:
            return part
    return None


def _has_group(name: str, root: Path) -> bool:
    """Whether the group exists on the machine, or in the image below ``root``."""
    if root != Path("/"):
        known = root / "etc/group"
        return known.exists() and any(line.startswith(f"{name}:") for line in known.read_text().splitlines())
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True
