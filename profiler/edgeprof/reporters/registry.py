"""Which reporter writes which file: by suffix, ours first, then those that plugins registered."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from edgeprof.errors import EdgeprofError, InputError
from edgeprof.plugins import PluginHost
from edgeprof.results import files

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from edgeprof.results.schema import Result

#: suffix → module of this package with ``render(results) -> str``; imported when a file of its kind is written.
MODULES = {
    ".csv": "csv_rows",
    ".html": "html_page",
    ".json": "json_text",
    ".jsonl": "jsonl",
    ".md": "markdown",
}


def check(path: Path, host: PluginHost | None = None) -> None:
    """Check before anything is measured that a file can be written and that its suffix is known.

    Raises:
        InputError: see above; the remedy names the suffixes that are known.
    """
    if path.suffix not in MODULES:
        host = host or PluginHost.from_environment()
        if path.suffix not in host.of("reporters"):
            known = " ".join(sorted({*MODULES, *host.of("reporters")}))
            raise InputError(
                f"-o {path}: there is no reporter for {path.suffix or 'a file without a suffix'}",
                remedy=f"Let its name end in one of {known}",
            )
    files.check_writable(path)


def write(results: Sequence[Result], path: Path, host: PluginHost | None = None) -> None:
    """Write results in the format of the suffix, whole or not at all; .jsonl is appended to.

    Raises:
        InputError: see ``check``; or the format holds one result only.
        EdgeprofError: a plugin's reporter failed.
    """
    if path.suffix not in MODULES:
        host = host or PluginHost.from_environment()
    check(path, host)
    text = render(results, path.suffix, host)
    if path.suffix == ".jsonl":
        files.append(path, text)
    else:
        files.write(path, text)


def render(results: Sequence[Result], suffix: str, host: PluginHost | None = None) -> str:
    """The text of a file with that suffix, which must be known (``check``)."""
    if suffix in MODULES:
        module = importlib.import_module(f"edgeprof.reporters.{MODULES[suffix]}")
        return str(module.render(results))
    function = (host or PluginHost.from_environment()).get("reporters", suffix)
    try:
        return "".join(str(function(result)) for result in results)
    except EdgeprofError:
        raise
    except Exception as error:
        raise EdgeprofError(
            f"the reporter for {suffix} failed: {type(error).__name__}: {error}",
            remedy="It comes from a plugin (edgeprof plugins list); -o result.json needs none.",
        ) from error
