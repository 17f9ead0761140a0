"""``edgeprof doctor --fix-udev``: let one group read energy counters that otherwise only root may read."""

from __future__ import annotations

import grp
import itertools
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from edgeprof.errors import EdgeprofError, InputError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: The group that may read the counters; the rules of the plugins name it.
GROUP = "edgeprof"

RULES = Path("etc/udev/rules.d/70-edgeprof.rules")

_HEADER = "# Written by edgeprof doctor --fix-udev. Energy counters leak secrets of other processes (CVE-2020-8694):\n"
_HEADER += "# they are opened to the group edgeprof, never to everybody.\n"


def text(rules: Mapping[str, str]) -> str:
    """The text of the rules file.

    Args:
        rules: Plugin → its rule.

    Raises:
        InputError: a plugin's rule would open a file to everybody.
    """
    for name, rule in rules.items():
        if _opens_to_all(rule):
            raise InputError(
                f"the udev rule of the plugin {name} lets everybody read",
                remedy="Report it to the authors of the plugin; nothing was installed.",
            )
    return _HEADER + "".join(rule.rstrip("\n") + "\n" for rule in rules.values())


def steps(user: str | None) -> list[list[str]]:
    """The commands to run beside writing the file, in order.

    Args:
        user: User who joins the group; None: nobody.
    """
    commands = [] if _group_exists() else [["groupadd", "--system", GROUP]]
    if user:
        commands.append(["usermod", "-aG", GROUP, user])
    return [
        *commands,
        ["udevadm", "control", "--reload"],
        ["udevadm", "trigger", "--subsystem-match=powercap", "--action=add"],
    ]


def install(content: str, commands: Iterable[list[str]], root: Path = Path("/")) -> None:
    """Write the rules and run the commands.

    Raises:
        UnavailableError: this process is not root, or the file cannot be written.
        EdgeprofError: a command failed; the remedy is the command.
    """
    if os.geteuid() != 0:
        raise UnavailableError("--fix-udev needs root", remedy="sudo edgeprof doctor --fix-udev")
    path = root / RULES
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        path.chmod(0o644)
        for argv in commands:
            subprocess.run(argv, check=True, capture_output=True, text=True)
    except OSError as error:
        raise UnavailableError(f"{error.filename or path} cannot be used: {error.strerror}") from None
    except subprocess.CalledProcessError as error:
        message = (error.stderr or error.stdout or "").strip() or f"exit status {error.returncode}"
        raise EdgeprofError(
            f"{' '.join(error.cmd)} failed: {message}", remedy=f"Run it by hand: {' '.join(error.cmd)}"
        ) from None


def _opens_to_all(rule: str) -> bool:
    """Whether a mode in the rule has a bit for others: MODE="0664", chmod 0444, chmod o+r, chmod a+r."""
    words = rule.replace('"', " ").replace("'", " ").replace("=", " ").split()
    for word, following in itertools.pairwise(words):
        if word in ("MODE", "chmod"):
            if following.isdigit():
                if int(following[-1]) != 0:
                    return True
            elif following[:1] in "oa+" or "o+" in following or "a+" in following:
                return True
    return False


def _group_exists() -> bool:
    try:
        grp.getgrnam(GROUP)
    except KeyError:
        return False
    return True
