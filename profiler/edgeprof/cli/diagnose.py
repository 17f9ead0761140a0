"""``edgeprof diagnose``: explain why a variant is, or will be, no faster, no smaller or no longer accurate."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeprof.cli.options import (
    json_option,
    loading_options,
    no_color_option,
    pairs,
    resolve_roots,
    root_options,
    safety_options,
)
from edgeprof.cli.prose import say

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgeprof.diagnosis.evidence import Diagnosis


@click.command("diagnose", no_args_is_help=True)
@click.argument("model", metavar="MODEL")
@click.option("--baseline", metavar="MODEL", help="The model that MODEL was made from, to compare and time.")
@click.option("--with", "chain", metavar="CHAIN", help="Make this variant of MODEL and predict, without timing it.")
@click.option("--runtime", metavar="NAME", help="Runtime that runs it (default: chosen by the file's content).")
@click.option("--frames", metavar="SOURCE", help="Frames of a pipeline, whose stages are timed (2 s).")
@click.option("--dataset", metavar="SPEC", help="Samples for agreement, ranges and signal to noise.")
@click.option("--preprocess", multiple=True, metavar="KEY=VALUE", help="Declared preprocessing of the dataset.")
@click.option(
    "--input", "inputs", multiple=True, metavar="NAME=SHAPE[:DTYPE]", help="Shape of an input, as x=1x3x32x32."
)
@click.option("--input-data", metavar="FILE.npz", help="Real inputs, one array per input name.")
@loading_options
@click.option(
    "--measure", "measure_s", type=click.FloatRange(0, 60), metavar="S", help="Time each model for S seconds."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the random choices of --with.")
@click.option(
    "--timeout",
    "timeout_s",
    type=float,
    default=120.0,
    show_default=True,
    metavar="S",
    help="Seconds that one step of the worker may take.",
)
@click.option("--strict", is_flag=True, help="Exit 1 if a check fails.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@safety_options
@root_options
@json_option
@no_color_option
def command(model: str, **flags: Any) -> int:
    """Say, with numbers, why MODEL is (or will be) no faster, no smaller, no cheaper, or no longer accurate.

    With --baseline it explains what runs in integers, which zeros help, where precision is lost, whether the answers
    agree, and how much faster MODEL is (2 s of timing unless --measure says otherwise). With --with it predicts: the
    variant is made, examined and deleted; nothing is timed.

    Each next step that is a method is printed as the command that tries it.

    Of a pipeline (app.py:pipeline --frames clip.mp4) it names the stage that holds the frame rate back.

    If a model leaves the sizes of its inputs open, give them by --input, --input-data or the samples of --dataset.
    """
    import json

    from edgeprof.artifact import recognise
    from edgeprof.benchmark.request import input_shapes, require_pipeline
    from edgeprof.compression.recipe import recipe_beside
    from edgeprof.compression.scratch import scratch
    from edgeprof.compression.variant import make_variant, parse_chain
    from edgeprof.diagnosis.advice import Methods
    from edgeprof.diagnosis.evidence import explain
    from edgeprof.diagnosis.inputs import Inputs
    from edgeprof.errors import InputError
    from edgeprof.launch.choose import named_runtime, own_formats
    from edgeprof.plugins import PluginHost

    host = PluginHost.from_environment()
    if flags["chain"] and flags["baseline"]:
        raise InputError("--with makes a variant of MODEL, which is then the baseline", remedy="Leave out --baseline.")
    shapes, dtypes = input_shapes(flags["inputs"])
    input_data = Path(flags["input_data"]) if flags["input_data"] else None
    if input_data is not None and not input_data.is_file():
        raise InputError(f"--input-data {input_data} is not a file", remedy="Give an .npz, one array per input.")
    formats = own_formats(host)
    given = recognise(model, formats)
    if flags["frames"] is not None:
        require_pipeline(given)
    data = None
    if flags["dataset"]:
        from edgeprof.evaluation.load import load_dataset

        data = load_dataset(flags["dataset"], host, pairs("--preprocess", flags["preprocess"]))
    baseline = recognise(flags["baseline"], formats) if flags["baseline"] else None
    measure_s = flags["measure_s"]
    with scratch("diagnose") as folder:
        if flags["chain"]:
            variant, recipe = make_variant(
                given, parse_chain(flags["chain"]), host.of("compressors"), folder, data, seed=flags["seed"],
                least_share=0.0,  # a method that changes next to nothing is to be explained here, not refused
            )  # fmt: skip
            baseline = given
        else:
            variant, recipe = given, recipe_beside(given)
        source = flags["baseline"] or model
        if measure_s is None:
            measure_s = 2.0 if flags["baseline"] or flags["frames"] else 0.0
        diagnosis = explain(
            variant,
            host,
            resolve_roots(flags["sysfs_root"], flags["procfs_root"]),
            baseline=baseline,
            data=data,
            recipe=recipe,
            measure_s=measure_s,
            timeout_s=flags["timeout_s"],
            named=named_runtime(host, flags["runtime"]) if flags["runtime"] else None,
            inputs=Inputs(
                shapes,
                dtypes,
                input_data,
                frames=flags["frames"],
                device=flags["device"],
                options=pairs("--option", flags["options"]),
            ),
            note=(lambda _: None) if flags["quiet"] else (lambda text: say(text, err=True)),
        )
    methods = Methods.of(host, (baseline or given).format)
    commands = {
        finding.chain: _command(source, finding.chain, flags, needs_data=methods.need_data(finding.chain))
        for finding in diagnosis.findings
        if finding.chain is not None
    }
    if flags["as_json"]:
        document = _diagnosis_as_json(diagnosis, model, flags["chain"], flags["baseline"], commands)
        click.echo(json.dumps(document, indent=2))
    else:
        click.echo(_diagnosis_text(diagnosis, commands, no_color=flags["no_color"]))
    return 1 if flags["strict"] and any(finding.status == "fail" for finding in diagnosis.findings) else 0


def _command(source: str, chain: str, flags: Mapping[str, Any], *, needs_data: bool) -> list[str]:
    """The command that tries an advised chain on the model that the variant came from, with the same data and sizes."""
    words = ["edgeprof", "diagnose", source, "--with", chain]
    if flags["dataset"]:
        words += ["--dataset", flags["dataset"]]
    elif needs_data:
        words += ["--dataset", "SPEC"]
    for option, name in (("--preprocess", "preprocess"), ("--input", "inputs"), ("--option", "options")):
        words += [word for value in flags[name] for word in (option, value)]
    words += ["--device", flags["device"]] if flags["device"] else []
    return words + (["--input-data", flags["input_data"]] if flags["input_data"] else [])


def _diagnosis_as_json(
    diagnosis: Diagnosis, model: str, chain: str | None, baseline: str | None, commands: Mapping[str, list[str]]
) -> dict[str, Any]:
    return {
        "schema": "edgeprof.diagnosis/1",
        "model": model,
        "with": chain,
        "baseline": baseline,
        "predicted_speed_up": diagnosis.predicted,
        "measured_speed_up": diagnosis.measured,
        "findings": [
            {**dataclasses.asdict(finding), "command": commands.get(finding.chain or "")}
            for finding in diagnosis.findings
        ],
        "facts": diagnosis.facts,
        "notes": diagnosis.notes,
        "assumed": diagnosis.assumed,
    }


def _diagnosis_text(diagnosis: Diagnosis, commands: Mapping[str, list[str]], *, no_color: bool) -> str:
    from edgeprof.reporters.terminal import Style

    style = Style.of(sys.stdout, no_color=no_color)
    lines = style.wrap("", _first_line(diagnosis), indent=0)
    lines = [style.paint(line, "bold") for line in lines]
    speeds = []
    if diagnosis.predicted is not None:
        speeds.append(f"predicted at most {diagnosis.predicted:.2f} × as fast (arithmetic alone)")
    if diagnosis.measured is not None:
        speeds.append(f"measured {diagnosis.measured:.2f} × as fast")
    if speeds:
        lines.append(style.text("  " + " · ".join(speeds)))
    width = max((len(finding.check) for finding in diagnosis.findings), default=0) + 9
    colors = {"fail": "red", "warn": "yellow", "unknown": "cyan", "ok": "green"}
    for finding in diagnosis.findings:
        text = (
            finding.sentence
            + _threshold_text(finding.number, finding.threshold, finding.unit)
            + (f" → {finding.fix}" if finding.fix else "")
        )
        wrapped = style.wrap(f"{finding.status:<7}  {finding.check}", text, label_width=width)
        lines += [
            wrapped[0].replace(finding.status, style.paint(finding.status, colors[finding.status]), 1),
            *wrapped[1:],
        ]
    lines += [f"  try: {shlex.join(words)}" for words in commands.values()]  # never wrapped: it is to be copied
    lines += [line for text in diagnosis.assumed for line in style.wrap("", f"assumed: {text}")]
    lines += [line for note in diagnosis.notes for line in style.wrap("", f"not known: {note}")]
    return "\n".join(lines)


def _first_line(diagnosis: Diagnosis) -> str:
    """The most severe finding; without one, whether anything could be examined at all."""
    from edgeprof.diagnosis.checks import headline

    first = headline(diagnosis.findings)
    if first is not None:
        return first.sentence
    if not diagnosis.findings:
        return "no diagnosis: nothing of the model could be examined"
    return "nothing was found that would slow it down" + (", as far as it could be examined" if diagnosis.notes else "")


def _threshold_text(number: float | None, threshold: float | None, unit: str) -> str:
    """A number and the threshold that it is judged by, as ``(0.0043 against 0.05)``; empty without either."""
    if number is None or threshold is None:
        return ""
    unit_text = "" if unit == "ratio" else f" {unit}"
    return f" ({number:.3g}{unit_text} against {threshold:.3g})"
