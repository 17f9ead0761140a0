"""``edgeprof run -- CMD``: measure energy, power and peak memory of any command, as ``perf stat`` measures cycles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from edgeprof.cli.options import json_option, output_files, resolve_roots, root_options
from edgeprof.cli.prose import say

if TYPE_CHECKING:
    import re
    from collections.abc import Sequence

    from edgeprof.benchmark.command import Outcome
    from edgeprof.energy.figures import Quote


@click.command(
    "run",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    no_args_is_help=True,
)
@click.argument("argv", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- CMD [ARG...]")
@click.option(
    "-r",
    "--repeat",
    type=click.IntRange(1, 1000),
    default=1,
    show_default=True,
    metavar="N",
    help="How many times to run CMD.",
)
@click.option(
    "--idle",
    "idle_s",
    type=click.FloatRange(0, 3600),
    default=2.0,
    show_default=True,
    metavar="S",
    help="Seconds of idle measured before and after.",
)
@click.option(
    "--sample-rate",
    "sample_rate_hz",
    type=click.FloatRange(0.1, 10_000),
    metavar="HZ",
    help="Rate of sampling (default: as each sensor updates).",
)
@click.option("--sensor", "sensors", multiple=True, metavar="NAME", help="Only these sensors (default: all that work).")
@click.option("--rail", metavar="NAME", help="Take this rail as the total.")
@click.option(
    "--estimate-power",
    "estimate_power_w",
    type=float,
    metavar="WATTS",
    help="Estimate joules from the watts of one busy core, if no sensor works.",
)
@click.option("--phases", metavar="REGEX", help="Lines of CMD's output that begin a phase; group 1 is the name.")
@click.option(
    "--uprobe",
    "uprobes",
    multiple=True,
    metavar="[NAME=]LIBRARY:FUNCTION",
    help="Take each call of an exported function as a stage (root).",
)
@output_files("Also write the JSON to FILE; repeatable.")
@root_options
@json_option
def command(argv: tuple[str, ...], **flags: Any) -> int:
    """Measure energy, power and peak memory of a command.

    CMD keeps its stdin, stdout and stderr. The figures go to stderr (with --json to stdout, after the output of CMD),
    and the exit code is that of CMD. -r runs CMD several times, which shows how well the joules repeat. Idle power is
    measured for --idle seconds before and after.
    """
    import json

    from edgeprof.benchmark.command import measure_command
    from edgeprof.cli import streams
    from edgeprof.cli.delivery import Delivery
    from edgeprof.errors import require_range
    from edgeprof.launch.uprobes import find_probe
    from edgeprof.plugins import PluginHost
    from edgeprof.results.files import check_writable, write

    require_range("--estimate-power", flags["estimate_power_w"], 1e-3, 1e4)
    for path in flags["output"]:
        check_writable(path)
    outcome = measure_command(
        argv,
        PluginHost.from_environment(),
        resolve_roots(flags["sysfs_root"], flags["procfs_root"]),
        repeat=flags["repeat"],
        idle_s=flags["idle_s"],
        sample_rate_hz=flags["sample_rate_hz"],
        sensors=flags["sensors"] or None,
        rail=flags["rail"],
        estimate_power_w=flags["estimate_power_w"],
        phases=_phase_pattern(flags["phases"]),
        probes=[find_probe(spec) for spec in flags["uprobes"]],
        outputs=streams.descriptors(),
    )
    text = json.dumps(outcome.as_json(), indent=2)
    with Delivery() as delivery:
        for path in flags["output"]:
            with delivery.step():
                write(path, text + "\n")
        if flags["as_json"]:
            click.echo(text)
        else:
            say(sentence(outcome), err=True)
    return outcome.exit_code


def _phase_pattern(text: str | None) -> re.Pattern[str] | None:
    """Compile the pattern of ``--phases``.

    Raises:
        InputError: the text is not a regular expression.
    """
    import re

    from edgeprof.errors import InputError

    if text is None:
        return None
    try:
        return re.compile(text)
    except re.error as error:
        raise InputError(
            f"--phases {text} is not a regular expression: {error}",
            remedy="Write it as --phases '^(loading|running)'.",
        ) from None


def _phase_lines(phases: Sequence[Quote]) -> list[str]:
    """Format a line for each phase: its time, and its joules or why there are none."""
    from edgeprof import units

    return [
        f"  {quote.key[-1]}: {quote.count} × {units.quantity(quote.seconds / quote.count, 's')} · {quote}"
        for quote in phases
    ]


def sentence(outcome: Outcome) -> str:
    """Format the outcome for a person.

    The first line is ``31.42 ± 0.40 J in 12.03 s · 2.61 W mean, 4.9 W peak · idle 1.52 W → 13.1 J net · …``; lines for
    the rail, the phases, the marked stages and the reasons follow.
    """
    from edgeprof import units
    from edgeprof.reporters.stages_text import marked_stage_lines

    energy, power = outcome.quote.energy, outcome.quote.power
    gross, net = energy.gross, energy.net
    words = []
    if gross.value is not None:
        mark = "~" if energy.provenance == "estimated" else ""
        provenance = "" if energy.provenance in {"counter", "measured"} else f" {energy.provenance}"
        words.append(f"{mark}{units.plus_minus(gross.value, gross.expanded_uncertainty, 'J')}{provenance}")
    spent = f"{units.significant(outcome.duration_s, 4)} s"
    words = [f"{words[0]} in {spent}"] if words else [spent]
    if power.mean is not None and power.max is not None:
        words.append(f"{units.quantity(power.mean, 'W')} mean, {units.quantity(power.max, 'W', 2)} peak")
    if power.idle is not None:
        idle = f"idle {units.quantity(power.idle, 'W')}"
        if net.value is not None:
            idle += f" → {units.plus_minus(net.value, net.expanded_uncertainty, 'J')} net"
        words.append(idle)
    words.append(f"peak RSS {units.size(outcome.peak_rss)}")
    words.append(f"exit {outcome.exit_code}")
    lines = ["  " + " · ".join(words)]
    if energy.rail:
        lines.append(f"  {energy.rail} covers the {energy.covers}")
    lines += _phase_lines(outcome.phases)
    lines += marked_stage_lines(outcome.stages)
    lines += [f"  {r.message}" + (f" → {r.remedy}" if r.remedy else "") for r in outcome.quote.reasons]
    return "\n".join(lines)
