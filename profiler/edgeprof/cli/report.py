"""``edgeprof report``: results as one page that needs no network."""

from __future__ import annotations

import json
from pathlib import Path

import click

from edgeprof.cli.options import json_option, output_option

SCHEMA = "edgeprof.report/1"


@click.command("report", no_args_is_help=True)
@click.argument("results", nargs=-1, required=True, metavar="RESULT...")
@output_option
@click.option("-q", "--quiet", is_flag=True, help="Say nothing where all is well.")
@json_option
def command(results: tuple[str, ...], output: tuple[Path, ...], *, quiet: bool, as_json: bool) -> None:
    """One self-contained page: Pareto plot, table, power traces, latency, uncertainty, context.

    RESULT is a result file (.json, or .jsonl with many) or a stored result: an id, its last part, "last". Without -o
    the page is edgeprof-<id>.html; another suffix (.md .csv .json .jsonl) gives another format.
    """
    from edgeprof.errors import InputError
    from edgeprof.reporters import registry
    from edgeprof.results import files

    all_results = [result for reference in results for result in files.read(reference)]
    ids = [result.id for result in all_results]
    if len(set(ids)) < len(ids):
        twice = next(name for name in ids if ids.count(name) > 1)
        raise InputError(f"{twice} was given twice", remedy="Name each result once.")
    paths = output or (Path(f"edgeprof-{all_results[0].id}.html"),)
    for path in paths:
        registry.write(all_results, path)
    variants = sum(len(result.variants) for result in all_results)
    if as_json:
        click.echo(
            json.dumps(
                {"schema": SCHEMA, "output": str(paths[0]), "outputs": [str(path) for path in paths], "results": ids},
                indent=2,
            )
        )
    elif not quiet:
        click.echo(
            f"wrote {', '.join(map(str, paths))}: {_count(variants, 'variant')} of {_count(len(all_results), 'result')}"
        )


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
