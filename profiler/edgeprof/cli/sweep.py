"""``edgeprof sweep``: run a whole study from one file, and recommend a variant to ship."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeprof.cli.options import json_option, no_color_option, output_option, resolve_roots, root_options
from edgeprof.cli.prose import say

if TYPE_CHECKING:
    from edgeprof.plugins import PluginHost
    from edgeprof.reporters.terminal import Style
    from edgeprof.study.outcome import Outcome
    from edgeprof.study.recipe import StudyFile


@click.command("sweep", no_args_is_help=True)
@click.argument("recipe", metavar="RECIPE.toml", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--dir", "directory", metavar="DIR", help="Folder for variants and results (default: RECIPE.study).")
@click.option("--prune-hopeless", is_flag=True, help="Do not measure variants that quick checks rule out.")
@click.option("--plan", "plan_only", is_flag=True, help="Check the file, show the variants and the limits, and stop.")
@click.option("--strict", is_flag=True, help="Exit 1 if no variant meets the budgets.")
@click.option("--target", metavar="CPU|BOARD", help="Make variants for a device other than this machine.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@root_options
@output_option
@json_option
@no_color_option
def command(recipe: Path, **flags: Any) -> int:
    """Run a study: make every variant of RECIPE.toml, measure it beside its baseline, and check it against the budgets.

    A study that was killed or interrupted continues where it stopped: what was made or measured under the same
    conditions is not repeated. At the end it shows the table, the Pareto front, the budgets that were broken, and the
    variant to ship.
    """
    from edgeprof.cli.compress_progress import Reports
    from edgeprof.cli.progress import Bar
    from edgeprof.cli.signals import ending_like_ctrl_c
    from edgeprof.compression.progress import shown_by
    from edgeprof.compression.target import find_target
    from edgeprof.plugins import PluginHost
    from edgeprof.reporters import registry
    from edgeprof.study.conductor import default_directory, prepare, sweep
    from edgeprof.study.recipe import load

    studies = load(recipe)
    host = PluginHost.from_environment()
    outputs = flags["output"]
    for path in outputs:
        registry.check(path, host)
    outcomes = []
    roots = resolve_roots(flags["sysfs_root"], flags["procfs_root"])
    with ending_like_ctrl_c(), Reports(sys.stderr, quiet=flags["quiet"]) as reports, shown_by(reports):
        prepared = prepare(
            studies,
            Path(flags["directory"]) if flags["directory"] else default_directory(recipe),
            host,
            roots,
            target=find_target(flags["target"], roots),
            progress=Bar(sys.stderr, quiet=flags["quiet"]),
            say=(lambda _: None) if flags["quiet"] else (lambda text: say(text, err=True)),
        )
        if flags["plan_only"]:
            click.echo(_plan_text(studies))
            return 0
        for outcome in sweep(prepared, prune_hopeless=flags["prune_hopeless"]):
            outcomes.append(outcome)
            if not flags["as_json"]:
                _show_plan(outcome, several=len(studies) > 1, no_color=flags["no_color"])
    return _deliver_outcomes(
        outcomes, outputs, host, several=len(studies) > 1, as_json=flags["as_json"], strict=flags["strict"]
    )


def _plan_text(studies: list[StudyFile]) -> str:
    """Format every variant of every model, and the limits."""
    lines = []
    for study in studies:
        recipes = [f"baseline = {study.baseline}", *study.chains] if study.baseline else study.chains
        recipes = [*recipes, *([str(study.search)] if study.search else [])]
        lines += [f"{study.model} {chain}" for chain in recipes] if len(studies) > 1 else recipes
    first = studies[0]
    return "\n".join([*lines, *(first.product.limits(first.limits)[1] if first.product else [])])


def _show_plan(outcome: Outcome, *, several: bool, no_color: bool) -> None:
    from edgeprof.reporters.terminal import Style

    style = Style.of(sys.stdout, no_color=no_color)
    heading = style.wrap("", outcome.model, indent=0) if several else []
    click.echo("\n".join([*(style.paint(line, "bold") for line in heading), _outcome_text(outcome, style)]))


def _deliver_outcomes(
    outcomes: list[Outcome], outputs: tuple[Path, ...], host: PluginHost, *, several: bool, as_json: bool, strict: bool
) -> int:
    """Store, write and print the outcomes, and return the exit code."""
    import json

    from edgeprof.cli.delivery import Delivery
    from edgeprof.reporters import registry
    from edgeprof.results.store import Store

    with Delivery() as delivery:
        for outcome in outcomes:
            if outcome.fresh:
                with delivery.step():
                    Store().save(outcome.result)
        for path in outputs:
            with delivery.step():
                registry.write([outcome.whole() for outcome in outcomes], path, host)
        if as_json:
            documents = [outcome.as_json() for outcome in outcomes]
            whole = {"schema": "edgeprof.studies/1", "studies": documents} if several else documents[0]
            click.echo(json.dumps(whole, indent=2).encode())  # JSON is UTF-8, whatever the terminal is
    if any(outcome.result.interrupted for outcome in outcomes):
        return 130
    if any(variant.status == "failed" for outcome in outcomes for variant in outcome.result.variants):
        return 3
    return 1 if strict and any(outcome.recommendation.variant is None for outcome in outcomes) else 0


def _outcome_text(outcome: Outcome, style: Style) -> str:
    from edgeprof.reporters import console
    from edgeprof.reporters.answer import headline
    from edgeprof.reporters.limits import sentence

    result = outcome.result
    lines = [console.render(result, style, saved=False).rstrip(), ""]
    broken = outcome.broken()
    for line in outcome.requirements:
        lines += style.wrap("required", line)
    for check in broken:
        lines += style.wrap("broken", sentence(check))
    if outcome.checks and not broken:
        lines.append("  every variant that was measured meets every budget")
    for name, why in outcome.skipped.items():
        lines += style.wrap("not measured", f"{name}: {why}")
    if result.interrupted:
        lines += style.wrap("", "interrupted: the same command continues from here")
    result_path = outcome.directory / "result.json"
    lines += ["", *style.wrap("", f"written to {result_path} (edgeprof report {result_path} -o report.html)"), ""]
    lines += [style.paint(line, "bold") for line in style.wrap("", headline(result), indent=0) if line]
    lines += style.wrap("", outcome.verdict(), indent=0)
    return "\n".join(lines)
