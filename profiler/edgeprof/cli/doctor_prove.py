"""``edgeprof doctor --prove``: play the load pattern, print each verdict, and say how far the joules can be trusted."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import click

from edgeprof.cli.prose import say
from edgeprof.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from edgeprof.calibration.proof import Check
    from edgeprof.calibration.prove import Proof
    from edgeprof.plugins import PluginHost
    from edgeprof.roots import Roots

_OUTPUTS = {".html", ".json"}
_WORDS = {"passed": "pass", "failed": "fail", "cannot_tell": "?"}


class Asked(NamedTuple):
    """The flags of a proof.

    Attributes:
        rail: ``--rail``.
        sensors: ``--sensor``.
        against: ``--against``.
        quick: ``--quick``.
    """

    rail: str | None
    sensors: Sequence[str]
    against: str | None
    quick: bool


def run(host: PluginHost, roots: Roots, asked: Asked, *, outputs: Sequence[Path], as_json: bool) -> bool:
    """Run the proof, print it and write it to ``outputs``; return whether no check failed.

    Raises:
        BusyError: another measurement runs on this device.
        InputError: one of ``outputs`` does not end in .html or .json, or cannot be written.
    """
    from edgeprof.calibration.prove import prove
    from edgeprof.launch.lock import measuring

    for output in outputs:
        if output.suffix not in _OUTPUTS:
            raise InputError(f"{output.name} does not end in .html or .json", remedy="Name it FILE.html or FILE.json.")
    with measuring(roots, "doctor --prove"):
        proof = prove(
            host,
            roots,
            rail=asked.rail,
            sensors=list(asked.sensors) or None,
            against=asked.against,
            quick=asked.quick,
            say=lambda text: say(text, err=True),
        )
    document = json.dumps(proof.to_dict(), indent=2)
    if as_json:
        click.echo(document)
    else:
        say(*lines(proof))
    for output in outputs:
        _write(proof, document, output)
    return proof.verdict != "failed"


def _write(proof: Proof, document: str, output: Path) -> None:
    """Write the proof as a page, or as its JSON document.

    Raises:
        InputError: the file cannot be written.
    """
    import msgspec

    from edgeprof.reporters.html_page import proof_page
    from edgeprof.results import files, schema

    text = document + "\n" if output.suffix == ".json" else proof_page(msgspec.convert(proof.to_dict(), schema.Proof))
    files.write(output, text)
    click.echo(f"wrote {output}", err=True)


def lines(proof: Proof) -> Iterator[str]:
    """Format the verdicts: one line for each check of the headline; other channels that passed share one line."""
    import msgspec

    from edgeprof.reporters.proof_section import summary
    from edgeprof.results import schema

    headline = (proof.rail or "").split(" + ")
    shown = headline if len(headline) == 1 else []
    by_subject: dict[str, list[Check]] = {}
    for check in proof.checks:
        by_subject.setdefault(check.subject, []).append(check)
    quiet: list[str] = []
    untold: dict[str, list[Check]] = {}
    for subject, checks in by_subject.items():
        is_short = subject not in shown and all(check.name in _SENSORS for check in checks)
        if is_short and all(check.verdict == "passed" for check in checks):
            quiet.append(f"{subject} ({_range(checks[0])})")
            continue
        for check in checks:
            if not is_short or check.verdict == "failed":
                yield from _lines(check)
            elif check.verdict == "cannot_tell":
                untold.setdefault(check.name, []).append(check)
    for same in untold.values():
        yield from _lines(replace(same[0], subject=", ".join(check.subject for check in same)))
    if quiet:
        yield f"  pass   also as stated: {', '.join(quiet)}"
    yield f"  {summary(msgspec.convert(proof.to_dict(), schema.Proof))}"


#: Checks of one channel alone.
_SENSORS = {"answers", "refresh", "resolution", "filter", "aliasing", "delay"}


def _range(answers: Check) -> str:
    return answers.detail.rpartition(": ")[2]


def _lines(check: Check) -> Iterator[str]:
    from edgeprof.units import duration

    text = f"  {_WORDS[check.verdict]:<6} {check.subject}: {check.detail}"
    if check.needs_s is not None:
        text += f" (about {duration(check.needs_s)} would tell)"
    yield text
    if check.remedy and check.verdict != "passed":
        yield f"         → {check.remedy}"
