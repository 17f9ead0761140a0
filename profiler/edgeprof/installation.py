"""How a package is added to the environment that edgeprof runs in: the one command that a remedy may name.

edgeprof lives in a checkout's or another virtual environment, in one of pipx or of ``uv tool``, or in the system's own
Python. A remedy says ``pip install 'edgeprof[onnx]'``, and ``mended_here`` rewrites it to what works where it is
printed. An extra is replaced by its requirements, so that the command needs no source of edgeprof itself.
"""

from __future__ import annotations

import functools
import json
import platform
import re
import shlex
import sys
import sysconfig
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

#: ``pip install`` of this environment: what follows another interpreter (``python3 -m pip``, ``bin/pip``) is its own.
_COMMAND = re.compile(
    r"(?<!-m )(?<![\w/])pip install (?P<newest>(?:-U|--upgrade) )?(?P<package>'[^']+'|[\w.\[\],-]+\w\]?)"
)
_EXTRA = re.compile(r"edgeprof\[([\w,.-]+)\]")
_NAME = re.compile(r"[\w.-]+")
#: Packages of which no wheel exists for a machine, and no source that pip could build, with what there is instead.
_NOWHERE = {
    (
        "onnxruntime-gpu",
        "aarch64",
    ): "onnxruntime-gpu has no wheel for aarch64. On a Jetson, use TensorRT of the system's "
    "Python: --worker-python /usr/bin/python3",
    ("onnxruntime-openvino", "aarch64"): "onnxruntime-openvino has no wheel for aarch64",
    **{
        (package, "armv7l"): f"{package} has no wheel for 32-bit Arm; a 64-bit system on the same board has one"
        for package in ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "ai-edge-litert", "torch")
    },
}
#: The glibc that the libraries in a wheel of ai-edge-litert for aarch64 need, whatever the wheel's name says.
_LITERT_NEWEST, _LITERT_OLDEST = (2, 34), (2, 30)


def mended_here(remedy: str) -> str:
    """``remedy`` with each ``pip install`` of this environment as the command that works in it."""
    return _COMMAND.sub(_replaced_command, remedy) if "pip install " in remedy else remedy


def _replaced_command(command: re.Match[str]) -> str:
    package = command["package"].strip("'")
    if _NAME.match(package).group() == "edgeprof" and not _EXTRA.match(package):  # type: ignore[union-attr]
        return "install a newer edgeprof, as docs/install.md says"
    return install_command([package], newest=bool(command["newest"]))


def install_command(packages: Sequence[str], *, newest: bool = False) -> str:
    """The command that adds packages to this environment, or a sentence that says that there are none for this machine.

    Args:
        packages: Requirements as pip takes them; ``edgeprof[EXTRA]`` stands for what the extra needs.
        newest: Whether what is there shall be replaced by the newest.
    """
    wanted = [fitting(requirement) for package in packages for requirement in _expanded_requirements(package)]
    missing = [reason for _, reason in wanted if reason is not None]
    if missing:
        return "; ".join(missing)
    return _command_for(environment_kind(), [requirement for requirement, _ in wanted], newest=newest)


def mended_for(remedy: str, python: str) -> str:
    """``remedy`` with each ``pip install`` as the one of another interpreter, the ``--worker-python``."""
    return _COMMAND.sub(lambda command: f"{shlex.quote(python)} -m {command[0]}", remedy)


def own_requirement(extra: str) -> str:
    """``edgeprof[EXTRA]`` from where this edgeprof was installed: a checkout, a wheel, or an index."""
    try:
        distribution = metadata.distribution("edgeprof")
        origin = json.loads(distribution.read_text("direct_url.json") or "{}").get("url")
    except (metadata.PackageNotFoundError, ValueError, AttributeError):
        return f"edgeprof[{extra}]"
    return f"edgeprof[{extra}] @ {origin}" if origin else f"edgeprof[{extra}]=={distribution.version}"


def environment_kind() -> str:
    """``uv-tool``, ``pipx``, ``system`` (where pip is told to keep out), ``bare`` (no pip in it) or ``pip``."""
    prefix = Path(sys.prefix)
    if (prefix / "uv-receipt.toml").exists():
        return "uv-tool"
    if (prefix / "pipx_metadata.json").exists():
        return "pipx"
    if sys.prefix == sys.base_prefix and (Path(sysconfig.get_path("stdlib")) / "EXTERNALLY-MANAGED").exists():
        return "system"
    return "pip" if find_spec("pip") else "bare"


def _command_for(kind: str, requirements: Sequence[str], *, newest: bool) -> str:
    words = " ".join(shlex.quote(requirement) for requirement in requirements)
    python, upgrade = shlex.quote(sys.executable), "--upgrade " if newest else ""
    if kind == "pipx":
        return f"pipx inject {'--force ' if newest else ''}edgeprof {words}"
    if kind in {"uv-tool", "bare"}:
        return f"uv pip install --python {python} {upgrade}{words}"
    if kind == "system":
        # The system's pip refuses; an environment that sees the system's packages holds the rest.
        folder = "~/.local/share/edgeprof-venv"
        return (
            f"{python} -m venv --system-site-packages {folder} && {folder}/bin/python -m pip install {upgrade}{words}"
            f", then run edgeprof as {folder}/bin/python -m edgeprof"
        )
    return f"{python} -m pip install {upgrade}{words}"


def _expanded_requirements(package: str) -> list[str]:
    """The requirements of an extra of edgeprof; any other requirement as it is."""
    extras = _EXTRA.fullmatch(package)
    if extras is None:
        return [package]
    return [requirement for extra in extras[1].split(",") for requirement in _extra_requirements(extra)] or [package]


@functools.cache
def _extra_requirements(name: str) -> tuple[str, ...]:
    """What ``edgeprof[name]`` requires beyond edgeprof, by the installed metadata; empty where it is unknown."""
    try:
        requirements = metadata.requires("edgeprof") or []
    except metadata.PackageNotFoundError:
        return ()
    needed: list[str] = []
    for line in requirements:
        requirement, _, marker = line.partition(";")
        if re.search(rf"extra == ['\"]{re.escape(name)}['\"]", marker):
            nested = _EXTRA.fullmatch(requirement.strip().replace(" ", ""))
            needed += (
                [r for e in nested[1].split(",") for r in _extra_requirements(e)] if nested else [requirement.strip()]
            )
    return tuple(dict.fromkeys(needed))


def fitting(requirement: str) -> tuple[str, str | None]:
    """A requirement as this machine can have it, and why it cannot where it cannot."""
    name = _NAME.match(requirement)
    package, machine = name.group() if name else requirement, platform.machine()
    reason = _NOWHERE.get((package, machine))
    if reason is None and package == "ai-edge-litert" and machine == "aarch64":
        return _fitting_litert(requirement, glibc())
    return requirement, reason


def _fitting_litert(requirement: str, libc: tuple[int, ...] | None) -> tuple[str, str | None]:
    if libc is None or libc >= _LITERT_NEWEST:
        return requirement, None
    if libc >= _LITERT_OLDEST:
        return "ai-edge-litert>=1.0,<2.1.1", None
    version = ".".join(map(str, libc))
    return (
        requirement,
        f"no ai-edge-litert loads with glibc {version}; convert the model to ONNX, or use a newer system",
    )


def glibc() -> tuple[int, ...] | None:
    """The version of the C library, as ``(2, 31)``; None where it is not glibc."""
    name, version = platform.libc_ver()
    return tuple(int(part) for part in version.split(".")[:2]) if name == "glibc" and version else None
