"""``edgeprof compare A B``: whether A and B may be compared, and whether B is better, by how much and how surely."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from edgeprof.cli.options import json_option, no_color_option

if TYPE_CHECKING:
    from edgeprof.reporters.terminal import Style
    from edgeprof.results.schema import Accuracy, Difference, Result
    from edgeprof.verdicts.across import Across, Pair

SCHEMA = "edgeprof.comparison/1"


@click.command("compare", no_args_is_help=True)
@click.argument("baseline", metavar="A")
@click.argument("branch", metavar="B")
@click.option("--strict", is_flag=True, help="Exit 1 where something is worse or cannot be compared.")
@click.option("--force", is_flag=True, help="Compare even if the contexts differ; the differences are listed.")
@json_option
@no_color_option
def command(baseline: str, branch: str, *, strict: bool, force: bool, as_json: bool, no_color: bool) -> int:
    """Show the ratios of B over A with 95 % intervals, and a verdict.

    A and B are result files or stored results (an id, its last part, "last", "last~1"). A ratio below 1 is better; A
    and B are tied where the interval contains 1 or lies within 1 % of it. Verdicts rest on energy, or on latency where
    no energy was measured. Results of different boards, power modes, calibrations or protocols are not comparable, and
    the reason is printed; --force compares them nevertheless.
    """
    from edgeprof.reporters.terminal import Style
    from edgeprof.results import files
    from edgeprof.verdicts.across import across

    a, b = files.read_one(baseline), files.read_one(branch)
    comparison = across(a, b, force=force, repeats=files.repeats([a, b]))
    if as_json:
        click.echo(json.dumps(_as_json(a, b, comparison), indent=2))
    else:
        click.echo("\n".join(_comparison_lines(a, b, comparison, Style.of(sys.stdout, no_color=no_color), force=force)))
    bad = not comparison.pairs or any(p.comparison.verdict in ("worse", "not_comparable") for p in comparison.pairs)
    return 1 if strict and bad else 0


def _comparison_lines(a: Result, b: Result, comparison: Across, style: Style, *, force: bool) -> list[str]:
    from edgeprof.reporters.names import short_names

    lines = []
    short = short_names(pair.label for pair in comparison.pairs)
    wide = max(map(len, short.values()), default=0)
    for pair in comparison.pairs:
        # The contexts are listed once, below; repeated for every variant they would hide the rest.
        text = "not comparable" if comparison.forbidden and not force else _verdict_sentence(pair)
        lines += style.wrap(short[pair.label], text, label_width=wide)
    if not comparison.pairs:
        lines += style.wrap("", f"{a.id} and {b.id} have no variant in common; nothing was compared.")
    for only, of in ((comparison.only_baseline, a.id), (comparison.only_branch, b.id)):
        if only:
            lines += style.wrap("", f"only in {of}: {', '.join(only)}")
    if lines:
        lines.append("")
    if comparison.pairs and a.id != b.id:
        lines += style.wrap("", comparison.between.sentence())
    return lines + [line for text in _context_lines(comparison, force=force) for line in style.wrap("", text)]


def _context_lines(comparison: Across, *, force: bool) -> list[str]:
    noted = [f"{d.name} {d.a} → {d.b}" for d in comparison.differences if not d.forbids]
    forbidden = [f"{d.name} {d.a} → {d.b}" for d in comparison.forbidden]
    if forbidden:
        mend = "Measure both on one device in one mode to compare them, or --force it."
        if force:
            mend = "Compared all the same (--force): the ratios hold for the two contexts and not for the models alone."
        first = f"contexts differ: {', '.join(forbidden)}. {mend}"
        return [first, *([f"also: {', '.join(noted)}"] if noted else [])]
    return [f"contexts agree; noted: {', '.join(noted)}" if noted else "contexts agree"]


def _verdict_sentence(pair: Pair) -> str:
    from edgeprof.reporters import view
    from edgeprof.results import schema

    comparison = pair.comparison
    if comparison.verdict == "not_comparable":
        return f"not comparable: {comparison.reason or 'no common measurement'}"
    parts = []
    for word, ratio in (("energy", comparison.energy_ratio), ("latency", comparison.latency_ratio)):
        if ratio is not None:
            parts.append(f"{word} {view.ratio_text(ratio)} {schema.sense(ratio)}")
    energy = pair.variant.energy_j_per_inference
    if comparison.energy_ratio is None:
        parts.insert(0, "energy not compared")
    elif energy and energy.provenance not in view.REAL:
        parts[0] += f" ({energy.provenance})"
    if comparison.accuracy_difference is not None and pair.variant.accuracy is not None:
        parts.append(_accuracy_text(comparison.accuracy_difference, pair.variant.accuracy))
    parts += view.workload_ratios(comparison)
    return " · ".join(parts)


def _accuracy_text(difference: Difference, accuracy: Accuracy) -> str:
    from edgeprof.reporters import view

    scale, unit = (100, " pt") if accuracy.is_ratio else (1, "")
    low, high = difference.ci95 or (float("-inf"), float("inf"))
    up, down = ("better", "worse") if accuracy.higher_is_better else ("worse", "better")
    word = up if low > 0 else down if high < 0 else "tied"
    text = f"{view.accuracy_name(accuracy)} {difference.value * scale:+.1f}{unit}".replace("-", "−")
    return f"{text} ({low * scale:+.1f} to {high * scale:+.1f}) {word}".replace("-", "−") if difference.ci95 else text


def _as_json(a: Result, b: Result, comparison: Across) -> dict[str, Any]:
    import msgspec

    from edgeprof.results import schema

    return {
        "schema": SCHEMA,
        "baseline": a.id,
        "branch": b.id,
        "comparable": not comparison.forbidden,
        "differences": [
            {"name": d.name, "baseline": d.a, "branch": d.b, "forbids": d.forbids} for d in comparison.differences
        ],
        "comparisons": [
            {
                "model": schema.model_name(pair.variant.model),
                **msgspec.to_builtins(pair.comparison),
                "provenance": pair.variant.energy_j_per_inference.provenance
                if pair.variant.energy_j_per_inference
                else "none",
            }
            for pair in comparison.pairs
        ],
        "between_runs": comparison.between.as_json(),
        "only_baseline": comparison.only_baseline,
        "only_branch": comparison.only_branch,
    }
