"""``edgeprof compress``: write compressed variants of a model, with a manifest of how each was made."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeprof.cli.options import json_option, loading_options, no_color_option, pairs, safety_options
from edgeprof.cli.prose import say

if TYPE_CHECKING:
    from collections.abc import Mapping


@click.command("compress", no_args_is_help=True)
@click.argument("model", metavar="MODEL")
@click.option(
    "--with",
    "chains",
    multiple=True,
    metavar="COMPRESSOR[:k=v,...][+...]",
    help="One variant, whose steps are joined by +; repeatable.",
)
@click.option(
    "-o", "--output", "directory", type=click.Path(file_okay=False), metavar="DIR", help="Folder for the variants."
)
@click.option("--dataset", metavar="SPEC", help="Data to calibrate with: a file, a folder, or a dataset .toml.")
@click.option("--preprocess", multiple=True, metavar="KEY=VALUE", help="Declared preprocessing of the dataset.")
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="NAME=SHAPE[:DTYPE]",
    help="Shape of an input that the model leaves open.",
)
@click.option(
    "--input-data",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE.npz",
    help="Real inputs, one array per input name.",
)
@loading_options
@click.option(
    "--target",
    metavar="CPU|BOARD",
    help="Device to make them for: a board, a processor, or a copy of its /proc/cpuinfo (default: this machine).",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of all random choices.")
@click.option(
    "--timeout",
    "timeout_s",
    type=float,
    default=120.0,
    show_default=True,
    metavar="S",
    help="Seconds that loading a variant may take.",
)
@click.option("--again", is_flag=True, help="Make variants again that exist already.")
@click.option("--list", "as_list", is_flag=True, help="List the compressors that take MODEL, and their parameters.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@safety_options
@json_option
@no_color_option
def command(model: str, **flags: Any) -> int:
    """Make compressed variants of MODEL.

    Each --with is one variant. DIR receives its file, and a manifest with the steps, their parameters, checksums, what
    each step really changed, and the size before and after zipping. Every variant is loaded and run once; it is marked
    failed if it does not load or answers NaN. A run that was killed continues where it stopped.
    """
    import json

    from edgeprof.artifact import recognise
    from edgeprof.benchmark.request import input_shapes
    from edgeprof.cli.compress_progress import Reports
    from edgeprof.compression.conductor import compress, manifest_path
    from edgeprof.compression.progress import shown_by
    from edgeprof.compression.target import find_target
    from edgeprof.errors import InputError
    from edgeprof.launch.choose import own_formats
    from edgeprof.plugins import PluginHost
    from edgeprof.roots import Roots

    device = find_target(flags["target"], Roots.resolve())
    shapes, dtypes = input_shapes(flags["inputs"])
    host = PluginHost.from_environment()
    source = recognise(model, own_formats(host))
    if flags["as_list"]:
        click.echo(_compressors_listing(host, source.format, as_json=flags["as_json"]))
        return 0
    if not flags["chains"]:
        raise InputError("no --with was given", remedy=f"edgeprof compress {model} --list shows the compressors.")
    if not flags["directory"]:
        raise InputError("no folder was given for the variants", remedy="Add -o DIR.")
    data = None
    if flags["dataset"]:
        from edgeprof.evaluation.load import load_dataset

        data = load_dataset(flags["dataset"], host, pairs("--preprocess", flags["preprocess"]))
    directory = Path(flags["directory"])
    with Reports(sys.stderr, quiet=flags["quiet"]) as reports, shown_by(reports):
        manifest = compress(
            source,
            flags["chains"],
            host,
            directory,
            data,
            seed=flags["seed"],
            shapes=shapes,
            dtypes=dtypes,
            input_data=flags["input_data"],
            loading_device=flags["device"],
            options=pairs("--option", flags["options"]),
            timeout_s=flags["timeout_s"],
            fresh=flags["again"],
            device=device,
            note=(lambda _: None) if flags["quiet"] else (lambda text: say(text, err=True)),
        )
    if flags["as_json"]:
        click.echo(json.dumps(manifest, indent=2))
    else:
        click.echo(_variant_table(manifest, no_color=flags["no_color"]))
        if any("target" in step for entry in manifest["variants"] for step in entry["recipe"]):
            click.echo(f"\n  made for {_target_text(manifest['target'])}")
        click.echo(f"\n  written to {manifest_path(source, directory)}")
    return 3 if any(entry["status"] == "failed" for entry in manifest["variants"]) else 0


def _variant_table(manifest: Mapping[str, Any], *, no_color: bool) -> str:
    from edgeprof import units
    from edgeprof.reporters.terminal import Column, Style, table

    style = Style.of(sys.stdout, no_color=no_color)
    source = manifest["source"]
    models = [source, *(entry["model"] for entry in manifest["variants"])]
    names = ["as it is", *(entry["name"] for entry in manifest["variants"])]

    def sizes(key: str) -> list[tuple[str, str]]:
        return [("", "–" if m is None or m[key] is None else units.size(m[key])) for m in models]

    def ratios(key: str) -> list[tuple[str, str]]:
        return [
            ("", "–" if m is None or None in (m[key], source[key]) else f"{source[key] / m[key]:.2f} ×") for m in models
        ]

    columns = [
        Column("size", sizes("size_bytes")),
        Column("smaller", ratios("size_bytes")),
        Column("zipped", sizes("size_compressed_bytes")),
        Column("smaller", ratios("size_compressed_bytes")),
        Column(
            "took",
            [("", ""), *(("", f"{e['seconds']:.1f} s" if "seconds" in e else "–") for e in _usable_variants(manifest))],
        ),
    ]
    marks = ["", *("" if e["status"] == "ok" else "failed" for e in manifest["variants"])]
    lines = table(style, names, columns, marks)
    for entry in manifest["variants"]:
        for sentence in _step_changes(entry):
            lines += style.wrap(entry["name"], sentence)
        for reason in entry["reasons"]:
            text = reason["message"] + (f" → {reason['remedy']}" if reason["remedy"] else "")
            lines += style.wrap(entry["name"], text)
    return "\n".join(lines)


def _target_text(target: Mapping[str, Any]) -> str:
    kernel = {None: "8-bit dot products unknown", "": "no 8-bit dot product"}
    return f"{target['name']} ({target['architecture']}, {kernel.get(target['dot_product'], target['dot_product'])})"


def _step_changes(entry: Mapping[str, Any]) -> list[str]:
    """Say what each step changed in its input model, and what it left unchanged and why."""
    from edgeprof.compression.share import describe, reasons

    sentences = []
    for step in entry["recipe"]:
        account = step["facts"].get("coverage")
        if account is not None:
            why = reasons(account)
            who = f"{step['compressor']} " if len(entry["recipe"]) > 1 else ""
            text = f"{who}changed {describe(account)}"
            sentences.append(f"{text}; left: {why}" if why else text)
    return sentences


def _usable_variants(manifest: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [{} if entry["reused"] else entry for entry in manifest["variants"]]


def _compressors_listing(host: Any, model_format: str, *, as_json: bool) -> str:
    """List the compressors that take a format, each with its parameters."""
    import dataclasses
    import json

    compressors = {name: factory() for name, factory in sorted(host.of("compressors").items())}
    fitting = {
        name: compressor.for_format(model_format)
        for name, compressor in compressors.items()
        if model_format in compressor.takes
    }
    if as_json:
        rows = [
            {
                "name": name,
                "gives": compressor.gives or model_format,
                "needs_data": compressor.needs_data,
                "parameters": [dataclasses.asdict(p) for p in compressor.parameters],
            }
            for name, compressor in fitting.items()
        ]
        return json.dumps({"format": model_format, "compressors": rows}, indent=2)
    lines = []
    for name, compressor in fitting.items():
        needs = "" if compressor.needs_data == "no" else f"  (needs --dataset for {compressor.needs_data})"
        lines.append(f"{name}{needs}")
        for p in compressor.parameters:
            allowed = "|".join(p.choices) or _range_text(p.minimum, p.maximum)
            default = "" if p.default in (None, "") else f", default {p.default}"
            lines.append(f"    {p.name}={p.type}{f' {allowed}' if allowed else ''}{default}: {p.help}")
    return "\n".join(lines) or f"nothing installed takes {model_format}"


def _range_text(low: float | None, high: float | None) -> str:
    return "" if low is None and high is None else f"{'' if low is None else low}..{'' if high is None else high}"
