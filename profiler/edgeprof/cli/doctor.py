"""``edgeprof doctor``: show what works, what does not and why, and the exact command that repairs it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeprof.cli.options import json_option, output_files, resolve_roots, root_options
from edgeprof.cli.verbs import RESERVED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeprof.cli.doctor_checks import Check
    from edgeprof.plugins import PluginHost


@click.command()
@click.option("--fix-udev", is_flag=True, help="Let the group edgeprof read energy counters (shown first; needs root).")
@click.option(
    "--bundle",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write FILE (.tar.gz) for a bug report, without names, serial numbers and addresses (shown first).",
)
@click.option("-y", "--yes", is_flag=True, help="With --fix-udev and --bundle: do not ask.")
@click.option("--strict", is_flag=True, help="Exit with status 1 if anything failed.")
@click.option("--prove", is_flag=True, help="Load all cores in a known pattern, and judge how the sensors follow it.")
@click.option("--against", metavar="METER", help="With --prove: also compare the total with this meter.")
@click.option("--quick", is_flag=True, help="With --prove: less than a minute, with wider intervals.")
@click.option("--rail", metavar="NAME", help="With --prove: the rail to quote as the total.")
@click.option("--sensor", "sensors", multiple=True, metavar="NAME[:ADDRESS]", help="Only these sources; repeatable.")
@click.option("--model", metavar="FILE", help="Also run this model on every runtime that takes its format.")
@click.option(
    "--input", "inputs", multiple=True, metavar="NAME=SHAPE[:DTYPE]", help="Shape of an input that --model leaves open."
)
@output_files("With --prove: also write the verdicts to FILE, a page (.html) or JSON (.json); repeatable.")
@root_options
@json_option
def command(
    fix_udev: bool,
    bundle: Path | None,
    yes: bool,
    strict: bool,
    prove: bool,
    against: str | None,
    quick: bool,
    rail: str | None,
    sensors: tuple[str, ...],
    model: str | None,
    inputs: tuple[str, ...],
    output: tuple[Path, ...],
    sysfs_root: str | None,
    procfs_root: str | None,
    as_json: bool,
) -> None:
    """Show what works on this machine, what does not and why, and the command that repairs it.

    Statuses: ok; warn (it works, but figures are less accurate); absent (it is not here, and edgeprof works without
    it); fail (it should work, but does not).

    With --prove, edgeprof finds out in two minutes whether this board's joules can be trusted. Verdicts: pass; fail;
    ? (it cannot be decided, with the time that would decide it). The exit status is 1 if a check failed.

    With --bundle, edgeprof collects the sensors' files, the versions and what was refused, for a bug report. The
    archive unpacks to a tree that --sysfs-root reads.
    """
    from edgeprof.cli.doctor_checks import OwnModel, examine
    from edgeprof.errors import InputError
    from edgeprof.plugins import PluginHost

    host = PluginHost.from_environment()
    if prove:
        from edgeprof.cli import doctor_prove

        roots = resolve_roots(sysfs_root, procfs_root)
        asked = doctor_prove.Asked(rail=rail, sensors=sensors, against=against, quick=quick)
        if not doctor_prove.run(host, roots, asked, outputs=output, as_json=as_json):
            raise click.exceptions.Exit(1)
        return
    if inputs and model is None:
        raise InputError("--input goes with --model", remedy="edgeprof doctor --model FILE --input …")
    if against or quick or rail or output:
        raise InputError("--against, --quick, --rail and -o go with --prove", remedy="edgeprof doctor --prove")
    if bundle is not None:
        from edgeprof.cli import doctor_bundle

        doctor_bundle.run(host, resolve_roots(sysfs_root, procfs_root), bundle, yes=yes)
        return
    host.commands(reserved=RESERVED)  # so that a plugin that fails there is reported too
    if fix_udev:
        _fix_udev(host, yes)
        return
    own_model = None
    if model is not None:
        from edgeprof.benchmark.request import input_shapes

        own_model = OwnModel(model, *input_shapes(inputs))
    checks = examine(host, resolve_roots(sysfs_root, procfs_root), sensors, own_model)
    if as_json:
        import json

        click.echo(json.dumps({"checks": [check._asdict() for check in checks]}, indent=2))
    else:
        _print(checks)
    if strict and any(check.status == "fail" for check in checks):
        raise click.exceptions.Exit(1)


def _print(checks: Sequence[Check]) -> None:
    """A check, as wide as the terminal, and below it what mends it."""
    from edgeprof.reporters.terminal import Style

    style = Style.of(sys.stdout, no_color=True)
    width = max(len(check.name) for check in checks)
    for check in checks:
        lines = style.wrap(f"{check.status:<6} {check.name:<{width}}", check.detail)
        lines += style.remedy(check.remedy, indent=9) if check.remedy else []
        click.echo("\n".join(lines))


def _fix_udev(host: PluginHost, yes: bool) -> None:
    from edgeprof.cli import udev
    from edgeprof.errors import UnavailableError

    rules = host.udev_rules()
    if not rules:
        raise UnavailableError("no plugin here has a udev rule", remedy="edgeprof plugins list")
    content = udev.text(rules)
    user = os.environ.get("SUDO_USER")
    commands = udev.steps(user)
    click.echo(f"This writes /{udev.RULES}:\n")
    click.echo("".join(f"    {line}\n" for line in content.splitlines()))
    click.echo("and runs:\n")
    click.echo("".join(f"    {' '.join(argv)}\n" for argv in commands))
    if os.geteuid() == 0 and not yes and not click.confirm("Do it?"):
        click.echo("nothing was changed")
        return
    udev.install(content, commands)
    click.echo("done" + (f"; {user} can read them after the next login" if user else ""))
