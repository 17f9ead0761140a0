"""``edgeprof gate``: check a result against limits, for continuous integration."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeprof.cli.options import json_option, no_color_option

if TYPE_CHECKING:
    from edgeprof.reporters.terminal import Style
    from edgeprof.results.schema import Result
    from edgeprof.verdicts.across import Across
    from edgeprof.verdicts.gate import Check, Limits

SCHEMA = "edgeprof.gate/1"


@click.command("gate", no_args_is_help=True)
@click.argument("result")
@click.option(
    "--max-j",
    metavar="JOULES",
    help="Most gross joules per unit of the workload (inference, request …), as 6mJ or 0.006.",
)
@click.option("--max-p99", metavar="SECONDS", help="Largest p99 latency (upper bound of 99 % confidence), as 5ms.")
@click.option(
    "--max-accuracy-drop", metavar="SHARE", help="Largest drop below the baseline, as 1% (one point) or 0.01."
)
@click.option("--max-rss", metavar="BYTES", help="Largest peak memory, as 64MiB.")
@click.option("--max-size", metavar="BYTES", help="Largest model file, as 300KiB.")
@click.option("--baseline", metavar="RESULT", help="Result that regressions and drops are measured from.")
@click.option("--max-regression", metavar="SHARE", help="Largest rise of energy and latency over the baseline, as 5%.")
@click.option("--variant", "variants", multiple=True, metavar="NAME", help="Check only this variant; repeatable.")
@click.option("--workload", metavar="NAME", help="Check this workload, in its unit (default: the main one).")
@click.option("--min-effect", metavar="SHARE", help="Let a regression up to this pass, however certain it is, as 1%.")
@click.option(
    "--unsure",
    type=click.Choice(["pass", "fail"]),
    help="Verdict on a figure whose interval contains its limit.  [default: pass; with --strict: fail]",
)
@click.option("--strict", is_flag=True, help="Pass only what is proven to be within its limit; refuse estimates.")
@click.option("--junit", metavar="FILE", help="Also write the checks as JUnit XML, for a CI's test report.")
@json_option
@no_color_option
def command(result: str, **flags: Any) -> int:
    """Check a result against limits: exit 0 if it passes, 1 if it fails.

    RESULT is a result file or a stored result. A limit fails if the value is beyond it. A regression fails if the
    whole 95 % interval of its ratio is beyond the limit, so that noise alone fails nothing. If the interval contains
    the limit, the check is unsure, and --unsure says whether it passes. A missing number fails.

    In GitHub Actions, checks that fail or are unsure become annotations, and the summary gets a table of all checks.
    """
    from edgeprof.cli.delivery import Delivery
    from edgeprof.errors import InputError, unknown
    from edgeprof.reporters import ci
    from edgeprof.reporters.terminal import Style
    from edgeprof.results import files
    from edgeprof.verdicts.across import across
    from edgeprof.verdicts.gate import check, of_workload

    limits = _parse_limits(flags)
    if limits.max_regression is not None and not flags["baseline"]:
        raise InputError(
            "--max-regression needs a --baseline", remedy="Give the result to compare with: --baseline RESULT"
        )
    gated = files.read_one(result)
    names = [v.name for v in gated.variants]
    for name in flags["variants"]:
        if name not in names:
            raise unknown("variant", name, names)
    baseline = files.read_one(flags["baseline"]) if flags["baseline"] else None
    if flags["workload"]:
        gated = of_workload(gated, flags["workload"])
        baseline = baseline and of_workload(baseline, flags["workload"])
    against = across(baseline, gated, repeats=files.repeats([baseline, gated])) if baseline else None
    unsure = flags["unsure"] or ("fail" if flags["strict"] else "pass")
    checks = check(
        gated,
        limits,
        against=against,
        strict=flags["strict"],
        unsure_passes=unsure == "pass",
        names=flags["variants"],
    )
    passed = all(c.passed for c in checks)
    with Delivery() as delivery:
        if flags["junit"]:
            with delivery.step():
                files.write(Path(flags["junit"]), ci.junit(gated.id, checks))
        if flags["as_json"]:
            click.echo(json.dumps(_as_json(gated, checks, unsure, against, passed=passed), indent=2))
        else:
            style = Style.of(sys.stdout, no_color=flags["no_color"])
            lines = _check_lines(checks, unsure, style)
            if against is not None and against.pairs and limits.max_regression is not None:
                lines += ["", *style.wrap("", against.between.sentence())]
            click.echo("\n".join(lines))
            if os.environ.get("GITHUB_ACTIONS") == "true":
                click.echo("".join(ci.github_annotations(checks)), nl=False)
        if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
            with delivery.step():
                files.append(Path(summary), ci.summary(gated.id, checks, unsure))
    return 0 if passed else 1


def _parse_limits(flags: dict[str, Any]) -> Limits:
    """Parse the limits into base units (J, s, bytes, shares).

    Raises:
        InputError: no limit was given, or one cannot be parsed.
    """
    from edgeprof import units
    from edgeprof.errors import InputError
    from edgeprof.verdicts.gate import Limits

    def read(flag: str, unit: str, example: str) -> float | None:
        text = flags[flag.strip("-").replace("-", "_")]
        if text is None:
            return None
        try:
            value = units.parse(text, unit) if unit else units.parse_ratio(text)
        except ValueError as error:
            raise InputError(f"{flag}: {error}", remedy=f"Write it as {flag} {example}") from None
        if not 0 <= value < float("inf"):
            raise InputError(f"{flag} {text} is not a limit", remedy=f"Write it as {flag} {example}")
        return value

    limits = Limits(
        max_j=read("--max-j", "J", "6mJ"),
        max_p99_s=read("--max-p99", "s", "5ms"),
        max_accuracy_drop=read("--max-accuracy-drop", "", "1%"),
        max_rss_bytes=read("--max-rss", "B", "64MiB"),
        max_size_bytes=read("--max-size", "B", "300KiB"),
        max_regression=read("--max-regression", "", "5%"),
        min_effect=read("--min-effect", "", "1%") or 0.0,
    )
    if limits.is_empty:
        raise InputError("no limit was given to check the result against", remedy="Give at least one, as --max-p99 5ms")
    return limits


def _check_lines(checks: list[Check], unsure: str, style: Style) -> list[str]:
    """Format the checks, failures first, then how unsure checks were judged, and a summary of several checks."""
    from edgeprof.reporters.limits import sentence

    lines = []
    for c in sorted(checks, key=lambda c: (c.passed, not c.unsure)):
        word, color = ("FAIL", "red") if not c.passed else ("pass", "yellow" if c.unsure else "green")
        wrapped = style.wrap(word, sentence(c))
        lines += [wrapped[0].replace(word, style.paint(word, color, "bold"), 1), *wrapped[1:]]
    if doubtful := sum(c.is_open for c in checks):
        word = "check is" if doubtful == 1 else "checks are"
        lines += ["", f"  {doubtful} {word} unsure: --unsure {unsure}"]
    failed = sum(not c.passed for c in checks)
    if len(checks) > 1:
        lines += ["", f"  {failed} of {len(checks)} checks failed" if failed else f"  all {len(checks)} checks passed"]
    return lines


def _as_json(
    gated: Result, checks: list[Check], unsure: str, against: Across | None, *, passed: bool
) -> dict[str, Any]:
    document: dict[str, Any] = {"schema": SCHEMA, "result": gated.id, "passed": passed, "unsure": unsure}
    document["checks"] = [asdict(c) for c in checks]
    if against is not None:
        document["between_runs"] = against.between.as_json()
    return document
