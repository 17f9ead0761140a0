"""``edgeprof sweep``: a whole study from one file, and which variant to ship."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeprof.cli.options import json_option, no_color_option, resolve_roots, root_options

if TYPE_CHECKING:
    from edgeprof.reporters.terminal import Style
    from edgeprof.study import Outcome


@click.command("sweep", no_args_is_help=True)
@click.argument("recipe", metavar="RECIPE.toml", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "-o", "--output", "directory", type=click.Path(file_okay=False), metavar="DIR", help="Where its files go."
)
@click.option("--prune-hopeless", is_flag=True, help="Do not measure variants that cheap looks call hopeless.")
@click.option("--plan", "plan_only", is_flag=True, help="Show the variants and the limits, and stop.")
@click.option("--strict", is_flag=True, help="Exit 1 if no variant keeps the budgets.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@root_options
@json_option
@no_color_option
def command(recipe: Path, **flags: Any) -> int:
    """Run a study: make every variant of RECIPE.toml, measure each beside its baseline, hold them to the budgets.

    A study that was killed or interrupted goes on where it stopped: what was made and measured under the same
    conditions is not repeated. It ends with the table, the Pareto front, which budgets broke, and the variant to ship.
    """
    import json

    from edgeprof.cli.progress import Bar
    from edgeprof.plugins import PluginHost
    from edgeprof.study import default_directory, sweep
    from edgeprof.study_file import load

    study = load(recipe)
    if flags["plan_only"]:
        _, told = study.product.limits(study.limits) if study.product else (study.limits, [])
        click.echo("\n".join([*study.chains, *told]))
        return 0
    outcome = sweep(
        study,
        Path(flags["directory"]) if flags["directory"] else default_directory(recipe),
        PluginHost.from_environment(),
        resolve_roots(flags["sysfs_root"], flags["procfs_root"]),
        Bar(sys.stderr, quiet=flags["quiet"]),
        prune_hopeless=flags["prune_hopeless"],
        say=(lambda _: None) if flags["quiet"] else (lambda text: click.echo(text, err=True)),
    )
    if flags["as_json"]:
        click.echo(json.dumps(outcome.as_json(), indent=2))
    else:
        from edgeprof.reporters.terminal import Style

        click.echo(_text(outcome, Style.of(sys.stdout, no_color=flags["no_color"])))
    if outcome.result.interrupted:
        return 130
    if any(variant.status == "failed" for variant in outcome.result.variants):
        return 3
    return 1 if flags["strict"] and outcome.recommendation.variant is None else 0


def _text(outcome: Outcome, style: Style) -> str:
    from edgeprof.cli.gate import sentence
    from edgeprof.reporters import console

    lines = [console.render(outcome.result, style, saved=False).rstrip(), ""]
    broken = [check for check in outcome.checks if not check.passed]
    for line in outcome.told:
        lines += style.wrap("required", line)
    for check in broken:
        lines += style.wrap("broken", sentence(check))
    if outcome.checks and not broken:
        lines.append("  every variant keeps every budget")
    for name, why in outcome.skipped.items():
        lines += style.wrap("not measured", f"{name}: {why}")
    measured = {variant.name for variant in outcome.result.variants}
    for name, told in outcome.headlines.items():
        if name in measured:
            lines += style.wrap("why", f"{name}: {told}")
    lines.append("")
    chosen = outcome.recommendation
    head = f"ship {chosen.variant}: " if chosen.variant else ""
    lines += [style.paint(line, "bold") for line in style.wrap("", head + chosen.reason, indent=0)]
    return "\n".join(lines)
