"""Choose the reporter of a file by the end of its name: our own reporters first, then those of plugins."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from edgeprof.errors import EdgeprofError, InputError
from edgeprof.plugins import PluginHost
from edgeprof.results import document, files

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from edgeprof.results.schema import Result

#: Suffix → module of this package with ``render(results) -> str``, which is imported when such a file is written. If a
#: name ends in two of them, the longer suffix counts: ``model.spdx3.json`` is an SPDX document.
MODULES = {
    ".card.md": "model_card",
    ".csv": "csv_rows",
    ".github-benchmark.json": "github_benchmark",
    ".html": "html_page",
    ".json": "json_text",
    ".jsonl": "jsonl",
    ".md": "markdown",
    ".spdx3.json": "spdx",
}


def suffix_of(path: Path) -> str:
    """The suffix that selects a file's reporter: the longest of ours that the name ends in, else its last suffix."""
    fitting = [suffix for suffix in MODULES if path.name.endswith(suffix) and path.name != suffix]
    return max(fitting, key=len, default=path.suffix)


def check(path: Path, host: PluginHost | None = None) -> None:
    """Check, before anything is measured, that a file can be written and that its suffix is known.

    Raises:
        InputError: the file cannot be written, or its suffix is unknown; the remedy names the known suffixes.
    """
    suffix = suffix_of(path)
    if suffix not in MODULES:
        host = host or PluginHost.from_environment()
        if suffix not in host.of("reporters"):
            known = " ".join(sorted({*MODULES, *host.of("reporters")}))
            raise InputError(
                f"-o {path}: there is no reporter for {suffix or 'a file without a suffix'}",
                remedy=f"Let its name end in one of {known}",
            )
    files.check_writable(path)


def write(results: Sequence[Result], path: Path, host: PluginHost | None = None) -> None:
    """Write results in the format of the suffix, completely or not at all; a .jsonl file is appended to.

    Raises:
        InputError: see ``check``; or the format holds only one result.
        EdgeprofError: a plugin's reporter failed.
    """
    suffix = suffix_of(path)
    if suffix not in MODULES:
        host = host or PluginHost.from_environment()
    check(path, host)
    text = render(results, suffix, host)
    if suffix == ".jsonl":
        files.append(path, text)
    else:
        files.write(path, text)


def render(results: Sequence[Result], suffix: str, host: PluginHost | None = None) -> str:
    """Render the text of a file with this suffix, which must be known (``check``)."""
    if suffix in MODULES:
        module = importlib.import_module(f"edgeprof.reporters.{MODULES[suffix]}")
        with document.collector_paused():
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
