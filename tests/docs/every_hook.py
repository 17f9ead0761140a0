"""One small plugin for each hook, each complete in itself: docs/plugins.md shows them, test_every_hook.py runs them."""

# region: sensors
import math

from edgeprof import hookimpl
from edgeprof.sensing.sensor import Channel, Sensor


class Battery(Sensor):
    """What a laptop's battery gives, in microwatts: a file that exists once per battery."""

    name = "battery"

    def __init__(self, path):
        self._path = path
        self._file = None
        self._channels = (
            Channel(
                sensor="battery",
                name="BAT0",
                quantity="power",
                scope="board",  # everything behind the battery
                role="total",
                resolution=1e-6,  # one microwatt, in the unit of the reading
                update_interval_s=1.0,  # the controller has something new once a second
                plausible=(0.0, 200.0),
                location=str(path),
            ),
        )

    @property
    def channels(self):
        return self._channels

    def open(self):
        self._file = self._path.open("rb", buffering=0)

    def read(self, values, times):
        try:
            self._file.seek(0)
            values[0] = int(self._file.read(32)) * 1e-6  # from here on it is watts
        except (OSError, ValueError):
            values[0] = math.nan  # a reading that failed; never 0, never an exception

    def close(self):
        if self._file is not None:
            self._file.close()


def batteries(roots):
    return [Battery(path) for path in (roots.sysfs / "class/power_supply").glob("BAT*/power_now")]


@hookimpl
def register_sensors(register):
    register("battery", batteries)


# endregion


# region: runtimes
from edgeprof import hookimpl
from edgeprof.worker.graph import Graph, Layer
from edgeprof.worker.runtime import Availability, LoadError, Runtime, Session, TensorSpec


class Scale(Runtime):
    """Models that are one number in a text file: they multiply by it."""

    name = "scale"
    formats = ("scale",)
    own_formats = {"scale": (0, b"scale ")}  # a file that begins so is ours

    def availability(self):
        return Availability(version="1.0", reason=None, remedy=None)

    def devices(self):
        return ["cpu"]

    def load(self, path, options):
        import numpy as np  # what is heavy is imported here: the parent only wants the metadata above

        with open(path) as file:
            words = file.read().split()
        if len(words) != 2:
            raise LoadError(f"{path} is not a scale model", "Its content is: scale NUMBER")
        return Scaled(np.float32(words[1]))

    def inspect_with_inputs(self, path, inputs):
        given = inputs.get("x", inputs.get(""))  # an array or a shape; "" is the only input of a dataset without names
        shape = getattr(given, "shape", given)
        macs = None if shape is None else shape[1]  # of one sample; None: not known while the length is open
        layer = Layer("scale", "Mul", macs, precision="float32", stored="float32", channels=1)
        return Graph([layer], nodes=1, inputs={"x": (None, None)}, note="" if shape else "give x with --input")


class Scaled(Session):
    inputs = (TensorSpec("x", ("batch", "length"), "float32", None),)
    outputs = (TensorSpec("y", ("batch", "length"), "float32", None),)

    def __init__(self, factor):
        self.factor = factor

    def run(self, feeds):
        return {"y": feeds["x"] * self.factor}


@hookimpl
def register_runtimes(register):
    register("scale", Scale)


# endregion


# region: compressors
from edgeprof import hookimpl
from edgeprof.compression.compressor import Compressor, Parameter


class Round(Compressor):
    """Fewer digits in a scale model."""

    name = "round"
    version = "1.0"
    takes = ("scale",)
    parameters = (Parameter("digits", "int", default=1, minimum=0, maximum=9, help="decimals that are kept"),)

    def apply(self, source, target, parameters, data, *, seed=0):
        factor = float(source.read_text().split()[1])
        target.write_text(f"scale {round(factor, parameters['digits'])}\n")
        return {"was": factor}  # provenance: kept with the variant


@hookimpl
def register_compressors(register):
    register("round", Round)


# endregion


# region: metrics
import numpy as np

from edgeprof import hookimpl
from edgeprof.errors import InputError
from edgeprof.evaluation.metric import Metric, Score


class Closeness(Metric):
    """1 minus the mean absolute error."""

    name = "closeness"

    def score(self, outputs, labels):
        (values,) = outputs.values()
        if values.shape != labels.shape:
            raise InputError(f"outputs are {values.shape}, labels {labels.shape}")
        return Score(value=1 - float(np.abs(values - labels).mean()), ci95=None, samples=len(labels))


@hookimpl
def register_metrics(register):
    register("closeness", Closeness)


# endregion


# region: datasets
from pathlib import Path

import numpy as np

from edgeprof import hookimpl
from edgeprof.evaluation.dataset import Dataset


class Lines(Dataset):
    """A text file with a number in each line, which is input and label at once."""

    preprocessing = "none"

    def __init__(self, path):
        self.name = path.name
        self._values = np.loadtxt(path, dtype=np.float32, ndmin=2)

    def __len__(self):
        return len(self._values)

    @property
    def labels(self):
        return self._values

    def batches(self, size):
        for start in range(0, len(self), size):
            yield {"": self._values[start : start + size]}  # "" is the input of a model that has one


def lines(spec, options):
    """``spec`` is a path, ``options`` what --preprocess and a dataset's .toml declare."""
    return Lines(Path(spec))


lines.recognises = lambda path: path.suffix == ".lines"  # so that --dataset FILE needs no format


@hookimpl
def register_datasets(register):
    register("lines", lines)


# endregion


# region: reporters
from edgeprof import hookimpl


def as_yaml(result):
    """The gist of a result for -o result.yaml."""
    lines = [f"id: {result.id}", "variants:"]
    for variant in result.variants:
        lines += [f"  - name: {variant.name}", f"    status: {variant.status}"]
    return "\n".join(lines) + "\n"


@hookimpl
def register_reporters(register):
    register(".yaml", as_yaml)


# endregion


# region: exporters
from pathlib import Path

from edgeprof import hookimpl


def to_folder(results, target):
    """One file per result in the folder ``target``."""
    for result in results:
        (Path(target) / f"{result.id}.txt").write_text(f"{len(result.variants)} variants\n")


@hookimpl
def register_exporters(register):
    register("folder", to_folder)


# endregion


# region: searches
from edgeprof import hookimpl
from edgeprof.study.search import Searcher


class Ends(Searcher):
    """The first value of each parameter, then the last."""

    name = "ends"

    def require(self):
        """Nothing is needed."""

    def search(self, space, database, seed, judge):
        judged = list(self.chains(database)) if database.exists() else []
        for end in (0, -1):
            values = {
                name: choice[end] if isinstance(choice, list) else choice[:2][end]
                for name, choice in space.choices.items()
            }
            chain = space.chain(values)
            if chain not in judged:
                judge(chain)  # accuracy, cost, bytes, budgets broken; None where it could not be measured
                judged.append(chain)
        database.write_text("\n".join(judged))

    def chains(self, database):
        yield from database.read_text().splitlines()


@hookimpl
def register_searches(register):
    register("ends", Ends)


# endregion

# region: commands
import click

from edgeprof import hookimpl


@click.command()
@click.argument("name")
def greet(name):
    """Say hello to NAME."""
    click.echo(f"hello, {name}")


@hookimpl
def register_commands(cli):
    cli.add_command(greet)


# endregion
