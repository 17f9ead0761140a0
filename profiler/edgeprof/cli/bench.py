"""``edgeprof bench``: parse the flags, run the benchmark, print and store its result, and exit."""

from __future__ import annotations

import contextlib
import itertools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeprof.cli.options import (
    counts,
    json_option,
    no_color_option,
    numbers,
    output_option,
    pairs,
    resolve_roots,
    root_options,
    safety_options,
    typed_command,
)
from edgeprof.cli.prose import say

if TYPE_CHECKING:
    from edgeprof.benchmark.request import ModelRequest
    from edgeprof.evaluation.dataset import Dataset
    from edgeprof.evaluation.metric import Metric
    from edgeprof.plugins import PluginHost
    from edgeprof.results.schema import Result


class _Bench(click.Command):
    """A command in which ``--profile-ops`` and ``--isolate-ops`` may stand without a number.

    click would otherwise take the model that follows the flag as its value.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--profile-ops" in args or "--isolate-ops" in args:
            # Not imported for every --help: what profiles operators brings numpy with it.
            from edgeprof.benchmark import isolated, operators

            defaults = {"--profile-ops": operators.KEPT, "--isolate-ops": isolated.KEPT}
            args = [f"{arg}={defaults[arg]}" if arg in defaults else arg for arg in args]
        return super().parse_args(ctx, args)


@click.command("bench", cls=_Bench, no_args_is_help=True)
@click.argument("models", nargs=-1, required=True, metavar="MODEL [MODEL...]")
@click.option("--runtime", metavar="NAME", help="Runtime that loads the model (default: chosen by the file's content).")
@click.option(
    "--device", metavar="DEVICE", help="cpu, cuda[:N], or another name that the runtime knows (default: the runtime's)."
)
@click.option("--threads", metavar="N[:M]", help="Threads of the runtime (default: its own); M: threads for prompts.")
@click.option(
    "--batch", default="1", show_default=True, metavar="N", help="Samples per inference, or simultaneous requests."
)
@click.option(
    "--scenario",
    default="single-stream",
    show_default=True,
    metavar="NAME",
    help="single-stream, multi-stream, offline, server or periodic.",
)
@click.option("--rate", metavar="HZ[,HZ…]", help="Requests per second of server and periodic; each of a list in turns.")
@click.option(
    "--streams", metavar="N[,N…]", help="Concurrent streams of multi-stream (default 8); cameras of periodic, in turns."
)
@click.option("--queue", type=int, default=0, metavar="N", help="Frames of periodic that may wait (default 0).")
@click.option("--preset", default="default", show_default=True, metavar="NAME", help="quick, default, rigorous, …")
@click.option("--quick", is_flag=True, help="Short for --preset quick.")
@click.option("--windows", type=int, metavar="K", help="Windows per variant, instead of the preset's.")
@click.option("--window", "window_s", type=float, metavar="S", help="Length of one window in seconds.")
@click.option("--warmup", "warmup_s", type=float, metavar="S", help="Shortest warm-up in seconds.")
@click.option("--idle", "idle_s", type=float, metavar="S", help="Seconds of idle measured before and after.")
@click.option(
    "--with", "chains", multiple=True, metavar="COMPRESSOR[:k=v][+...]", help="Also measure this compressed variant."
)
@click.option(
    "--dataset",
    metavar="SPEC",
    help="Labelled data to judge accuracy, or data to calibrate --with: a file, a folder or a .toml.",
)
@click.option("--metric", default="top1", show_default=True, metavar="NAME", help="Metric that judges accuracy.")
@click.option("--preprocess", multiple=True, metavar="KEY=VALUE", help="Declared preprocessing of the dataset.")
@click.option(
    "--input", "inputs", multiple=True, metavar="NAME=SHAPE[:DTYPE]", help="Shape of an input, as x=1x3x32x32."
)
@click.option("--input-data", metavar="FILE.npz", help="Real inputs, one array per input name.")
@click.option("--prompt", metavar="N[,N…]", help="Language model: tokens of the prompt (default 512); a row for each.")
@click.option("--generate", metavar="N", help="Language model: tokens to generate (default 128).")
@click.option(
    "--depth", metavar="N[,N…]", help="Language model: tokens cached before the prompt (default 0); a row for each."
)
@click.option("--context", metavar="N", help="Language model: size of the cache in tokens (default: as needed).")
@click.option(
    "--kv", metavar="TYPE", help="Language model: type of the cache, as f16 or q8_0 (default: the runtime's)."
)
@click.option(
    "--text", metavar="FILE", help="Language model: measure perplexity on this text, paired with the first model's."
)
@click.option(
    "--text-chunks",
    type=click.IntRange(0),
    metavar="N",
    help="Pieces of 512 tokens taken from --text (default 6; 0: all).",
)
@click.option(
    "--random-weights", is_flag=True, help="Fill a bare config.json with random weights; the result is marked as such."
)
@click.option(
    "--frames", metavar="SOURCE", help="Pipeline: source of frames, as a video, a folder, /dev/video0 or rtsp://…."
)
@click.option("--model", "server_model", metavar="NAME", help="Name of the model, where MODEL is the URL of a server.")
@click.option(
    "--profile-ops",
    type=click.IntRange(1, 1000),
    metavar="[=N]",
    help="Afterwards, show the N operators that take the most time (default 10).",
)
@click.option(
    "--isolate-ops",
    type=click.IntRange(1, 100),
    metavar="[=N]",
    help="Afterwards, also measure the N longest operators alone, in turns with the model (default 3).",
)
@click.option(
    "--option", "options", multiple=True, metavar="KEY=VALUE", help="Any other option that the runtime documents."
)
@click.option(
    "--sample-rate",
    "sample_rate_hz",
    type=float,
    metavar="HZ",
    help="Rate of sampling (default: as each sensor updates).",
)
@click.option("--sensor", "sensors", multiple=True, metavar="NAME", help="Only these sensors (default: all that work).")
@click.option("--rail", metavar="NAME", help="Take this rail as the total.")
@click.option("--fast-sensor", is_flag=True, help="As root: let INA3221 sensors average less during this run.")
@click.option("--power-modes", metavar="all|A,B", help="As root: measure in each of these power modes or governors.")
@click.option(
    "--estimate-power",
    "estimate_power_w",
    type=float,
    metavar="WATTS",
    help="Estimate joules from the watts of one busy core, if no sensor works.",
)
@click.option("--worker-python", metavar="PATH", help="Run the model under this Python (3.6 or later).")
@click.option("--no-isolation", is_flag=True, help="Run the model in this process: a crash takes everything down.")
@click.option(
    "--timeout",
    "timeout_s",
    type=float,
    default=120.0,
    show_default=True,
    metavar="S",
    help="Seconds that one step of the worker may take.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of random inputs, arrivals and compressors.")
@click.option("--strict", is_flag=True, help="Exit 1 if joules are estimated or anything is degraded.")
@click.option(
    "--name", "names", multiple=True, metavar="NAME", help="Name of a model; repeat it for each model, in order."
)
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@safety_options
@root_options
@output_option
@json_option
@no_color_option
def command(models: tuple[str, ...], **flags: Any) -> int:
    from edgeprof.benchmark.conductor import bench
    from edgeprof.benchmark.variants import model_requests
    from edgeprof.cli.compress_progress import Reports
    from edgeprof.cli.progress import Bar
    from edgeprof.cli.signals import ending_like_ctrl_c
    from edgeprof.compression.progress import shown_by
    from edgeprof.compression.scratch import scratch
    from edgeprof.errors import InputError
    from edgeprof.plugins import PluginHost
    from edgeprof.reporters import registry

    _check_ranges(flags)
    host = PluginHost.from_environment()
    for path in flags["output"]:
        registry.check(path, host)
    if flags["input_data"] and not Path(flags["input_data"]).is_file():
        raise InputError(
            f"--input-data {flags['input_data']} is not a file", remedy="Give an .npz, one array per input."
        )
    dataset, metric = _load_data(host, flags)
    judged = dataset if metric is not None else None
    with ending_like_ctrl_c(), scratch("variants") as folder:
        roots = resolve_roots(flags["sysfs_root"], flags["procfs_root"])
        with Reports(sys.stderr, quiet=flags["quiet"]) as reports, shown_by(reports):
            requests = model_requests(
                models,
                host,
                folder,
                dataset,
                names=flags["names"],
                chains=flags["chains"],
                seed=flags["seed"],
                timeout_s=flags["timeout_s"],
                isolated=not flags["no_isolation"],
            )
        request = _make_request(requests, flags, judged, metric)
        progress = Bar(sys.stderr, quiet=flags["quiet"])
        if flags["power_modes"] is not None:
            from edgeprof.cli.power_modes import bench_modes

            return bench_modes(request, host, roots, progress, flags["power_modes"], flags)
        with contextlib.redirect_stdout(sys.stderr):  # of what runs in this process; stdout belongs to --json
            result = bench(request, host, roots, progress)
        result.command = typed_command()
        if len(result.variants) > 1:
            from edgeprof.diagnosis.evidence import annotate

            annotate(result, resolve_roots(flags["sysfs_root"], flags["procfs_root"]), host)
    return _deliver_result(result, host, flags)


command.help = """Measure latency, throughput, joules, power, memory, temperature, size and accuracy of MODEL(s).

MODEL is a file (.onnx, .tflite, .pt, .engine, .gguf …; its content decides), package.module:function, app.py:pipeline,
the URL of a server of language models, or mcu:PORT for a microcontroller. Several models take turns, window by window,
and are compared with the first. If one cannot be measured, the others still are (exit 3).
"""


def _check_ranges(flags: dict[str, Any]) -> None:
    """Check the flags that a plan checks too late or not at all.

    Raises:
        InputError: a flag is out of range, or contradicts another one.
    """
    from edgeprof.errors import InputError, require_range
    from edgeprof.worker import sandbox

    if flags["no_isolation"] and sandbox.is_asked_for():
        raise InputError("--sandbox needs a worker process, and --no-isolation forbids it", remedy="Leave one out.")
    require_range("--estimate-power", flags["estimate_power_w"], 1e-3, 1e4)
    require_range("--timeout", flags["timeout_s"], 0.1, 1e6)


def _make_request(
    requests: list[ModelRequest], flags: dict[str, Any], dataset: Dataset | None, metric: Metric | None
) -> Any:
    from edgeprof.benchmark.language_request import language_request
    from edgeprof.benchmark.request import BenchRequest, input_shapes

    shapes, dtypes = input_shapes(flags["inputs"])
    threads, prefill_threads = _parse_threads(flags["threads"])
    same = (
        "runtime device scenario queue windows window_s warmup_s idle_s sample_rate_hz rail "
        "estimate_power_w worker_python timeout_s strict seed fast_sensor server_model frames profile_ops"
    )
    return BenchRequest(
        models=requests,
        preset="quick" if flags["quick"] else flags["preset"],
        sensors=flags["sensors"] or None,
        shapes=shapes,
        dtypes=dtypes,
        input_data=Path(flags["input_data"]) if flags["input_data"] else None,
        dataset=dataset,
        metric=metric,
        options=pairs("--option", flags["options"]),
        **language_request(
            {
                name: flags[name] and counts(f"--{name}", flags[name])
                for name in ("prompt", "generate", "depth", "context")
            },
            counts("--batch", flags["batch"]),
            prefill_threads=prefill_threads,
            **{name: flags[name] for name in ("kv", "text", "text_chunks", "random_weights")},
        ),
        threads=threads,
        isolated=not flags["no_isolation"],
        isolate_ops=flags["isolate_ops"] or 0,
        **_parse_loads(flags["scenario"], flags["rate"], flags["streams"]),
        **{name: flags[name] for name in same.split()},
    )


def _parse_loads(scenario: str, rate: str | None, streams: str | None) -> dict[str, Any]:
    """``--rate`` and ``--streams`` as fields of a request: the first load, and each further combination.

    Raises:
        InputError: one of them is not written so, or is a list in a scenario that knows no further loads.
    """
    from edgeprof.errors import InputError

    rates: list[float | None] = [None] if rate is None else [*numbers("--rate", rate)]
    counted: list[int | None] = [None] if streams is None else [*counts("--streams", streams)]
    every = list(dict.fromkeys(itertools.product(rates, counted)))
    if len(every) > 1 and scenario not in {"server", "periodic"}:
        raise InputError(
            f"--rate and --streams take a list in the scenarios server and periodic, and this is {scenario}",
            remedy="Add --scenario periodic, or give one number.",
        )
    further = [(value, count or 1) for value, count in every[1:] if value is not None]
    if len(further) < len(every) - 1:
        raise InputError(f"the scenario {scenario} needs a rate", remedy="Add --rate HZ.")
    return {"rate_hz": every[0][0], "streams": every[0][1], "further": further}


def _parse_threads(text: str | None) -> tuple[int | None, int | None]:
    """Parse ``N`` or ``N:M``: threads in general and threads for prompts, None for each that is not given.

    Raises:
        InputError: the text has another form.
    """
    from edgeprof.errors import InputError

    if text is None:
        return None, None
    parts = text.split(":")
    if len(parts) > 2 or not all(part.isascii() and part.isdigit() and 0 < int(part[:9]) < 10_000 for part in parts):
        raise InputError(
            f"--threads {text} is not a number of threads",
            remedy="Write --threads 4, or for a language model --threads 2:4, where 4 is for prompts.",
        )
    return int(parts[0]), int(parts[1]) if len(parts) == 2 else None


def _load_data(host: PluginHost, flags: dict[str, Any]) -> tuple[Dataset | None, Metric | None]:
    """Load the dataset and its metric; without labels the dataset only calibrates, and the metric is None."""
    if not flags["dataset"]:
        return None, None
    from edgeprof.evaluation.labels import are_absent
    from edgeprof.evaluation.load import load_dataset, load_metric

    dataset = load_dataset(flags["dataset"], host, pairs("--preprocess", flags["preprocess"]))
    if flags["chains"] and are_absent(dataset.labels):
        say(f"{dataset.name} has no labels: it calibrates the variants, but accuracy is not judged", err=True)
        return dataset, None
    return dataset, load_metric(flags["metric"], host)


def _deliver_result(result: Result, host: PluginHost, flags: dict[str, Any]) -> int:
    """Store, write and print the result, and return the exit code; a step that fails does not stop the others."""
    from edgeprof.cli.delivery import Delivery
    from edgeprof.cli.exit_codes import exit_code
    from edgeprof.reporters import console, registry, terminal
    from edgeprof.results.document import to_json
    from edgeprof.results.store import Store

    with Delivery() as delivery:
        saved = delivery.attempt(lambda: Store().save(result))
        for path in flags["output"]:
            with delivery.step():
                registry.write([result], path, host)
        if flags["as_json"]:
            click.echo(to_json(result).encode())  # JSON is UTF-8, whatever the terminal is
        else:
            style = terminal.Style.of(sys.stdout, no_color=flags["no_color"])
            click.echo(console.render(result, style, heading=flags["quiet"], saved=saved), nl=False)
    return exit_code(result, strict=flags["strict"])
