"""The directories of a user's files, by the XDG Base Directory Specification 0.8.

platformdirs gives the same, but its imports would be a tenth of the memory of ``edgeprof top``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def config_directory(environ: Mapping[str, str] | None = None) -> Path:
    """The directory of the user's own files: EDGEPROF_CONFIG, or else the user's directory for configuration."""
    environ = os.environ if environ is None else environ
    given = environ.get("EDGEPROF_CONFIG")
    return Path(given) if given else user_config(environ)


def user_config(environ: Mapping[str, str]) -> Path:
    """The directory of edgeprof's configuration."""
    return _directory(environ, "XDG_CONFIG_HOME", ".config")


def user_data(environ: Mapping[str, str]) -> Path:
    """The directory of edgeprof's data."""
    return _directory(environ, "XDG_DATA_HOME", ".local/share")


def _directory(environ: Mapping[str, str], variable: str, default: str) -> Path:
    given = Path(environ.get(variable, ""))
    # The specification says to ignore a relative path.
    return (given if given.is_absolute() else Path("~").expanduser() / default) / "edgeprof"
