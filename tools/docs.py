"""Generate parts of docs/: python tools/docs.py writes them; with --check it only compares.

- docs/cli-reference.md is the --help of every command.
- docs/result-1.schema.json is the JSON Schema of a result file, from edgeprof.results.schema.
- A code block that follows ``<!-- region NAME of FILE -->`` is that region of that file, which a test runs.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import sys
import textwrap
from pathlib import Path

import click
import msgspec

from edgeprof.cli import main as cli
from edgeprof.cli.verbs import VERBS
from edgeprof.results import schema

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"

_BLOCK = re.compile(
    r"(?P<head><!-- region (?P<name>\S+) of (?P<file>\S+) -->\n```(?P<kind>\w*)\n)(?P<code>.*?)(?P<end>```\n)",
    re.DOTALL,
)

_INTRODUCTION = """\
# Command line reference

Written by `make docs` from `--help`; a test keeps it true.

Exit codes: 0 done; 1 a gate or `--strict` failed; 2 bad usage or bad input (the message names the file, what is wrong
and what to do); 3 at least one variant could not be measured (the others are still reported); 75 another
measurement is running on this device (the message says whose, since when, and of what); 78 the device is another board,
or in another power mode, than a fleet's inventory says; 130 interrupted.
"""


def region(file: str, name: str) -> str:
    """Return the lines between ``# region: name`` and ``# endregion``, without comments for linters.

    Raises:
        ValueError: the file has no such region.
    """
    text = (ROOT / file).read_text("utf-8")
    match = re.search(rf"^ *# region: {re.escape(name)}\n(.*?)^ *# endregion$", text, re.DOTALL | re.MULTILINE)
    if match is None:
        raise ValueError(f"{file} has no region {name}")
    return textwrap.dedent(re.sub(r"  # noqa.*$", "", match[1], flags=re.MULTILINE)).strip("\n") + "\n"


def with_regions(text: str) -> str:
    """Return a document with the content of its marked blocks replaced from their files."""

    def block(match: re.Match[str]) -> str:
        return match["head"] + region(match["file"], match["name"]) + match["end"]

    return _BLOCK.sub(block, text)


def cli_reference() -> str:
    """Return the text of docs/cli-reference.md."""
    parts = [_INTRODUCTION]
    for argv in [[], *([verb] for verb in VERBS)]:
        parts.append(_help_section(argv))
        parts += [_help_section([*argv, name]) for name in _list_subcommands(argv)]
    return "\n".join(parts)


def result_schema() -> str:
    """Return the JSON Schema (2020-12) of a result file, in the version of ``schema.SCHEMA``."""
    (components,) = msgspec.json.schema_components([schema.Result], ref_template="#/$defs/{name}")[1:]
    definition = components["Result"]
    definition["properties"]["schema"] = {"const": schema.SCHEMA}
    definition["required"] = [*definition["required"], "schema"]
    whole = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": schema.SCHEMA,
        "$ref": "#/$defs/Result",
        "$defs": components,
    }
    return json.dumps(whole, indent=2, sort_keys=False) + "\n"


def result_schema_path() -> Path:
    """Return the schema's path, named after the format: ``result-1.schema.json`` for ``edgeprof.result/1``."""
    name, _, version = schema.SCHEMA.rpartition("/")
    return DOCS / f"{name.removeprefix('edgeprof.')}-{version}.schema.json"


def _list_subcommands(argv: list[str]) -> list[str]:
    if not argv:
        return []
    command = cli.cli.get_command(click.Context(cli.cli), argv[0])
    return sorted(command.commands) if isinstance(command, click.Group) else []


def _help_section(argv: list[str]) -> str:
    os.environ["COLUMNS"] = "100"
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        cli.run([*argv, "--help"])
    return f"{'#' * (len(argv) + 2)} {' '.join(['edgeprof', *argv])}\n\n```\n{out.getvalue().rstrip()}\n```\n"


def wanted() -> dict[Path, str]:
    """Return each document that is generated, wholly or in part, and the text that it should have."""
    documents = {path: with_regions(path.read_text("utf-8")) for path in sorted(DOCS.glob("*.md"))}
    documents[DOCS / "cli-reference.md"] = cli_reference()
    documents[result_schema_path()] = result_schema()
    return documents


def main() -> int:
    stale = [path for path, text in wanted().items() if not path.exists() or path.read_text("utf-8") != text]
    if "--check" in sys.argv:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is out of date; run: make docs", file=sys.stderr)
        return bool(stale)
    for path, text in wanted().items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
