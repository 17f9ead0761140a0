"""``edgeprof report``: write results as one HTML page that needs no network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeprof.cli.options import json_option, output_option

if TYPE_CHECKING:
    from edgeprof.results.schema import Result

SCHEMA = "edgeprof.report/1"


@click.command("report", no_args_is_help=True)
@click.argument("results", nargs=-1, required=True, metavar="RESULT...")
@output_option
@click.option(
    "--to",
    "targets",
    multiple=True,
    metavar="NAME:TARGET",
    help="Send the results to TARGET by a plugin's exporter NAME, as textfile:DIR.",
)
@click.option("-q", "--quiet", is_flag=True, help="Print only errors.")
@json_option
def command(
    results: tuple[str, ...], output: tuple[Path, ...], targets: tuple[str, ...], *, quiet: bool, as_json: bool
) -> None:
    """Write one self-contained page: Pareto plot, table, power traces, latency, uncertainty, context.

    RESULT is a result file (.json, or .jsonl with several results) or a stored result: an id, its last part, "last".
    Without -o and --to the page is edgeprof-<id>.html; another suffix (.md .csv .json .jsonl) gives another format.
    """
    from edgeprof.errors import InputError
    from edgeprof.reporters import registry
    from edgeprof.results import files

    all_results = [result for reference in results for result in files.read(reference)]
    ids = [result.id for result in all_results]
    if len(set(ids)) < len(ids):
        twice = next(name for name in ids if ids.count(name) > 1)
        raise InputError(f"{twice} was given twice", remedy="Name each result once.")
    paths = output or (() if targets else (Path(f"edgeprof-{all_results[0].id}.html"),))
    for target in targets:
        _send_to(all_results, target)
    for path in paths:
        registry.write(all_results, path)
    variants = sum(len(result.variants) for result in all_results)
    if as_json:
        written = [str(path) for path in paths]
        document = {"schema": SCHEMA, "output": written[0] if written else None, "outputs": written, "results": ids}
        click.echo(json.dumps(document, indent=2))
    elif not quiet:
        places = ", ".join([*map(str, paths), *targets])
        click.echo(f"wrote {places}: {_count_text(variants, 'variant')} of {_count_text(len(all_results), 'result')}")


def _send_to(results: list[Result], target: str) -> None:
    """Send the results by a plugin's exporter.

    Raises:
        InputError: no exporter has that name.
        EdgeprofError: the exporter failed.
    """
    from edgeprof.errors import EdgeprofError, unknown
    from edgeprof.plugins import PluginHost

    name, _, where = target.partition(":")
    exporters = PluginHost.from_environment().of("exporters")
    if name not in exporters:
        raise unknown("exporter", name, exporters)
    try:
        exporters[name](results, where)
    except EdgeprofError:
        raise
    except Exception as error:
        raise EdgeprofError(f"the exporter {name} failed: {type(error).__name__}: {error}") from error


def _count_text(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
