"""``edgeprof calibrate``: compare sensors with a meter, measure their filters, list and delete calibrations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from edgeprof.cli.options import json_option, resolve_roots, root_options
from edgeprof.cli.prose import say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeprof.calibration.conductor import Compared, Stepped
    from edgeprof.sensing.corrections import Entry

SCHEMA = "edgeprof.calibration/1"


@click.command("calibrate", no_args_is_help=True)
@click.option(
    "--against",
    metavar="METER|FILE",
    help="Meter to compare with: an address, a name, a sensor, or a CSV (time,watts).",
)
@click.option("--filter", "filters", is_flag=True, help="Measure how the INA3221 averages, by steps of the load.")
@click.option("--list", "listing", is_flag=True, help="List the stored calibrations.")
@click.option("--forget", metavar="NAME", help="Delete the calibration of a channel; all: of every channel.")
@click.option("--rail", metavar="NAME", help="Calibrate this rail instead of the board's total.")
@click.option("--sensor", "sensors", multiple=True, metavar="NAME", help="Calibrate only these sensors (repeatable).")
@click.option("--levels", type=int, default=6, show_default=True, metavar="N", help="Load levels, 5 or more.")
@click.option(
    "--hold",
    "hold_s",
    type=click.FloatRange(0.5, 3600),
    default=5.0,
    show_default=True,
    metavar="S",
    help="Seconds for which each level is held.",
)
@click.option("--no-load", is_flag=True, help="Create no load: change it yourself while the levels are read.")
@click.option("--accuracy", metavar="X%", help="Limit of the meter's relative error, from its data sheet.")
@click.option(
    "--covers", metavar="SCOPE", help="What the meter measures, as wall or board, if it does not say so itself."
)
@root_options
@json_option
def command(**flags: Any) -> None:
    """Compare this device's power sensors with a meter, and correct their readings from then on.

    --against steps the load through its levels while the sensor and the meter are read, fits
    meter = gain × sensor + offset, and stores this line with its covariance. From then on every reading is corrected,
    and the uncertainty of its gain and offset is that of the line. METER is an address that --sensor meter:… takes
    (/dev/ttyUSB0, tcp:HOST:PORT, command:…), a meter of meters.toml, or the name of another sensor. FILE is a CSV that
    the meter's own program writes meanwhile.
    """
    from edgeprof.errors import InputError

    asked = [flags["against"] is not None, flags["filters"], flags["listing"], flags["forget"] is not None]
    if sum(asked) != 1:
        raise InputError("calibrate takes one of --against, --filter, --list, --forget")
    if flags["listing"]:
        _list_entries(as_json=flags["as_json"])
    elif flags["forget"] is not None:
        _forget_entries(flags["forget"])
    else:
        _run_calibration(flags)


def _list_entries(*, as_json: bool) -> None:
    import json
    from dataclasses import asdict

    from edgeprof.sensing.corrections import Calibrations

    calibrations = Calibrations()
    entries = calibrations.entries()
    if as_json:
        document = {"schema": SCHEMA, "file": str(calibrations.path), "entries": [asdict(entry) for entry in entries]}
        click.echo(json.dumps(document, indent=2, default=str))
    elif not entries:
        click.echo("nothing is calibrated on this device")
    else:
        say(*(line for entry in entries for line in described(entry)))


def described(entry: Entry) -> list[str]:
    """Describe the stored calibration of a channel for a person."""
    lines = [entry.name]
    if entry.line is not None:
        line = entry.line
        lines.append(
            f"  gain {line.gain:.4f} ± {2 * line.u_gain:.4f}, offset {line.offset_w:+.3f} ± {2 * line.u_offset_w:.3f} W"
            f" · {line.levels} levels, {line.low_w:.3g} to {line.high_w:.3g} W"
            f" · against {line.against}, {line.date[:10]}"
        )
    if entry.filter is not None:
        measured = entry.filter
        lines.append(
            f"  filter {measured.tau_s:.3g} ± {2 * measured.u_s:.2g} s from {measured.steps} steps"
            f" (declared {measured.declared_s:.3g} s) · {measured.date[:10]}"
        )
    return lines


def _forget_entries(name: str) -> None:
    from edgeprof.errors import unknown
    from edgeprof.sensing.corrections import Calibrations

    calibrations = Calibrations()
    dropped = calibrations.forget(name)
    if not dropped and name != "all":
        raise unknown("calibration", name, [entry.channel for entry in calibrations.entries()])
    for entry in dropped:
        click.echo(f"forgot {entry.name}")


def _run_calibration(flags: dict[str, Any]) -> None:
    import json

    from edgeprof.calibration import conductor as calibrate
    from edgeprof.errors import InputError
    from edgeprof.launch.lock import measuring
    from edgeprof.plugins import PluginHost
    from edgeprof.sensing.board.files import SCOPES
    from edgeprof.units import parse_ratio

    accuracy = None
    if flags["accuracy"] is not None:
        try:
            accuracy = parse_ratio(flags["accuracy"])
        except ValueError as error:
            raise InputError(f"--accuracy: {error}", remedy="Write it as --accuracy 0.5%.") from None
    if flags["covers"] is not None and flags["covers"] not in SCOPES:
        raise InputError(f"--covers {flags['covers']} is unknown", remedy=f"One of {', '.join(SCOPES)}.")
    host, roots = PluginHost.from_environment(), resolve_roots(flags["sysfs_root"], flags["procfs_root"])
    same = {"rail": flags["rail"], "sensors": flags["sensors"] or None, "say": lambda text: say(text, err=True)}
    if flags["filters"]:
        with measuring(roots, "calibrate --filter"):
            responses = calibrate.step_response(host, roots, **same)
        if flags["as_json"]:
            click.echo(json.dumps(_steps_json(responses), indent=2))
        else:
            say(*steps_table(responses))
        for response in responses:
            if response.unstored is not None:
                raise response.unstored
        return
    with measuring(roots, f"calibrate --against {flags['against']}"):
        compared = calibrate.against(
            flags["against"],
            host,
            roots,
            levels=flags["levels"],
            hold_s=flags["hold_s"],
            load=not flags["no_load"],
            accuracy=accuracy,
            covers=flags["covers"],
            **same,
        )
    if flags["as_json"]:
        click.echo(json.dumps(_comparison_as_json(compared), indent=2, default=str))
    else:
        say(*table(compared))
    if compared.unstored is not None:
        raise compared.unstored


def _comparison_as_json(compared: Compared) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "schema": SCHEMA,
        "rail": compared.rail,
        "against": compared.meter,
        "line": asdict(compared.line),
        "levels": [
            {
                **asdict(level),
                "before": _uncorrected_watts(compared, level.sensor_w),
                "after": compared.line.at(level.sensor_w),
            }
            for level in compared.levels
        ],
        "entries": [asdict(entry) for entry in compared.entries],
    }


def _uncorrected_watts(compared: Compared, watts: float) -> float:
    old = compared.before
    return watts if old is None else old.gain * watts + old.offset_w


def table(compared: Compared) -> list[str]:
    """Format the comparison for a person: each level before and after the correction, then the fitted line."""
    line = compared.line
    lines = [f"{compared.rail} against {compared.meter}", "      meter      before              after"]
    for level in sorted(compared.levels, key=lambda level: level.meter_w):
        before, after = _uncorrected_watts(compared, level.sensor_w), line.at(level.sensor_w)
        lines.append(
            f"  {level.meter_w:8.3f} W {before:8.3f} W {_deviation_text(before, level.meter_w)} "
            f"{after:8.3f} W {_deviation_text(after, level.meter_w)}"
        )
    lines.append(
        f"  gain {line.gain:.4f} ± {2 * line.u_gain:.4f}, offset {line.offset_w:+.3f} ± {2 * line.u_offset_w:.3f} W"
    )
    fitted = compared.entries[0].line
    assert fitted is not None
    if line.reduced_chi2 > 4:
        lines.append(
            f"  the levels lie off the line by {line.reduced_chi2**0.5:.1f} times their own scatter:"
            " sensor and meter do not differ by a line alone, and the uncertainty includes it"
        )
    if fitted.meter_limit is None:
        lines.append("  the meter's own error is not included: --accuracy X% includes it")
    if fitted.covers is not None:
        lines.append(f"  from now on the total covers the {fitted.covers}, as the meter does")
    if compared.unstored is None:
        lines.append("  stored; every reading is corrected from now on (edgeprof calibrate --list, --forget NAME)")
    return lines


def _deviation_text(value: float, truth: float) -> str:
    return f"({100 * (value / truth - 1):+6.2f} %)" if truth else "           "


def steps_table(responses: Sequence[Stepped]) -> list[str]:
    """Format the measured filters for a person: one line for each channel, with a warning below it where one is due."""
    lines = []
    for response in responses:
        declared = f"declared {response.channel.filter.tau_s or 0.0:.3g} s"
        if response.fitted is None:
            lines.append(f"{response.channel.name}: the steps were too small to tell ({declared}); nothing is stored")
            continue
        lines.append(
            f"{response.channel.name}: {response.fitted.tau_s:.3g} ± {2 * response.fitted.u_s:.2g} s"
            f" from {response.fitted.steps} steps ({declared})"
        )
        if response.contradiction is not None:
            lines.append(f"  warning: {response.contradiction}")
            used = "" if response.unstored else "the measured time is used from now on; "
            lines.append(f"  → {used}see samples and update_interval of the chip")
    return lines


def _steps_json(responses: Sequence[Stepped]) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "schema": SCHEMA,
        "filters": [
            {
                "channel": response.channel.name,
                "declared_s": response.channel.filter.tau_s,
                "found": None if response.fitted is None else asdict(response.fitted),
                "contradiction": response.contradiction,
            }
            for response in responses
        ],
    }
