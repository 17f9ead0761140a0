"""ncnn: a .param file (text) with its .bin beside it, on the CPU or, by Vulkan, on a GPU.

The file rarely contains shapes: give them with ``--input NAME=1x3x352x352``. ncnn has no batch; edgeprof shows its
blobs with a first dimension of 1, so that the same data fit a model and the one that it was converted from.
Devices: ``cpu``, ``vulkan``, ``vulkan:1``.
Options: ``fp16`` and ``bf16`` (0 or 1: storage and arithmetic of 16 bits, if the processor has it), ``powersave`` (0:
all cores, 1: little ones, 2: big ones).
"""

import os
import tempfile
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np

from edgeprof import hookimpl
from edgeprof.worker.inputs import refuse_unknown
from edgeprof.worker.runtime import (
    ANY_SHAPE,
    Availability,
    Dim,
    LoadError,
    LoadOptions,
    Runtime,
    Session,
    TensorSpec,
    install_command,
    library_version,
)

REMEDY = install_command("ncnn", "ncnn")
OPTIONS = ("fp16", "bf16", "powersave")
MAGIC = "7767517"
#: Largest .param file (bytes); it has one line for each layer.
LIMIT = 64 << 20


class Ncnn(Runtime):
    name = "ncnn"
    formats = ("ncnn",)
    libraries = ("ncnn",)
    smallest_model = b"7767517\n2 2\nInput x 0 1 x 0=2\nReLU y 1 1 x y\n"  # y = max(x, 0) of two numbers
    smallest_beside = {".bin": b""}  # it has no weights

    def availability(self) -> Availability:
        version = library_version("ncnn")
        return Availability(version, None if version else "ncnn is not installed", None if version else REMEDY)

    def devices(self) -> List[str]:
        ncnn = _library()
        count = ncnn.get_gpu_count() if hasattr(ncnn, "get_gpu_count") else 0
        return ["cpu"] + ["vulkan:{}".format(number) if number else "vulkan" for number in range(count)]

    def load(self, path: str, options: LoadOptions) -> Session:
        ncnn = _library()
        weights = os.path.splitext(path)[0] + ".bin"
        for file in (path, weights):
            if not os.path.isfile(file):
                raise LoadError(
                    "{} does not exist".format(file), "An ncnn model is a .param and a .bin with the same name."
                )
        layers = _layers(path)
        facts = _settings(options)
        net = self._net(ncnn, options)
        if net.load_param(path) != 0:
            raise LoadError(
                "{} is not an ncnn network that this release can read".format(os.path.basename(path)),
                "Convert it again (pnnx), or use a newer ncnn.",
            )
        self._load_weights(ncnn, net, path, weights, options)
        return NcnnSession(ncnn, net, layers, options, facts)

    def _net(self, ncnn: Any, options: LoadOptions) -> Any:
        kind, _, index = options.device.partition(":")
        net = ncnn.Net()
        if kind == "vulkan":
            count = ncnn.get_gpu_count() if hasattr(ncnn, "get_gpu_count") else 0
            if int(index or 0) >= count:
                raise LoadError("ncnn finds {} Vulkan device(s) here".format(count), "Leave --device out for the CPU.")
            net.opt.use_vulkan_compute = True
            net.set_vulkan_device(int(index or 0))
        elif options.device != "cpu":
            raise LoadError("ncnn has no device {!r}".format(options.device), "It has cpu and vulkan[:N].")
        if options.threads:
            net.opt.num_threads = options.threads
        if "fp16" in options.options:
            for name in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic"):
                setattr(net.opt, name, options.options["fp16"] == "1")
        if "bf16" in options.options:
            net.opt.use_bf16_storage = options.options["bf16"] == "1"
        if "powersave" in options.options:
            ncnn.set_cpu_powersave(int(options.options["powersave"]))
        return net

    def _load_weights(self, ncnn: Any, net: Any, path: str, weights: str, options: LoadOptions) -> None:
        """Load the .bin, and check that its size fits the network: ncnn silently accepts weights of another model.

        Raises:
            LoadError: the .bin does not belong to the .param.
        """
        wrong = LoadError(
            "{} is not the .bin of {}".format(os.path.basename(weights), os.path.basename(path)),
            "Copy the .bin that was converted with it beside it, under its name.",
        )
        if net.load_model(weights) != 0:
            raise wrong
        shorter = self._net(ncnn, options)
        shorter.load_param(path)
        with open(weights, "rb") as file:
            content = file.read()
        with tempfile.NamedTemporaryFile(suffix=".bin") as cut:
            cut.write(content[:-4])
            cut.flush()
            if content and shorter.load_model(cut.name) == 0:
                raise wrong
        shorter.clear()


class NcnnSession(Session):
    """One network; each inference makes an extractor, as an application does.

    Args:
        ncnn: The module.
        net: The loaded network.
        layers: Type, inputs, outputs and parameters of each layer.
        options: As given to ``Runtime.load``.
        facts: Facts about the options.
    """

    def __init__(
        self, ncnn: Any, net: Any, layers: Sequence["Layer"], options: LoadOptions, facts: Dict[str, str]
    ) -> None:
        self._ncnn, self._net = ncnn, net
        self.inputs = tuple(
            TensorSpec(name, _shape(layer, options.shapes.get(name)), "float32", None)
            for layer in layers
            if layer[0] == "Input"
            for name in layer[2]
        )
        refuse_unknown(self.inputs, dict(options.shapes), "--input")
        if options.batch != 1:
            raise LoadError("ncnn computes one sample at a time", "Leave --batch out.")
        self.outputs = tuple(TensorSpec(str(name), ANY_SHAPE, "float32", None) for name in net.output_names())
        self.version = str(getattr(ncnn, "__version__", "")) or None
        self.facts = dict(
            facts,
            threads=str(net.opt.num_threads),
            fp16="yes" if net.opt.use_fp16_arithmetic else "no",
            vulkan="yes" if net.opt.use_vulkan_compute else "no",
            timed="an extractor, its inputs and all its outputs; blobs of inputs are made once, before the windows",
        )

    def run(self, feeds: Dict[str, Any]) -> Dict[str, Any]:
        values = self._extracted(self._blobs(feeds))
        return {spec.name: np.array(value)[np.newaxis] for spec, value in zip(self.outputs, values)}

    def bind(self, feeds: Dict[str, Any]) -> Callable[[], Any]:
        blobs = self._blobs(feeds)
        return lambda: self._extracted(blobs)

    def close(self) -> None:
        if self._net is not None:
            self._net.clear()
        self._net = None

    def _blobs(self, feeds: Dict[str, Any]) -> List[Tuple[str, Any]]:
        blobs = []
        for spec in self.inputs:
            array = np.ascontiguousarray(feeds[spec.name], np.float32)
            if array.ndim < 2 or array.shape[0] != 1:
                raise LoadError(
                    "ncnn computes one sample at a time, and {} has the shape {}".format(spec.name, list(array.shape)),
                    "Give its shape with a first dimension of 1, as --input {}=1x3x224x224.".format(spec.name),
                )
            blobs.append(
                (spec.name, self._ncnn.Mat(array[0]).clone())
            )  # clone, since ncnn pads only memory that it owns
        return blobs

    def _extracted(self, blobs: Sequence[Tuple[str, Any]]) -> List[Any]:
        extractor = self._net.create_extractor()
        for name, blob in blobs:
            extractor.input(name, blob)
        values = []
        for spec in self.outputs:
            status, value = extractor.extract(spec.name)
            if status != 0:
                raise LoadError(
                    "ncnn cannot compute {} from these inputs (status {})".format(spec.name, status),
                    "Its layers may want another shape: --input NAME=1xCxHxW.",
                )
            values.append(value)
        return values


#: Type, inputs, outputs and parameters of a layer.
Layer = Tuple[str, List[str], List[str], Dict[str, str]]


def _layers(path: str) -> List[Layer]:
    """Read the layers of a .param file.

    Raises:
        LoadError: the file has another format, or ends before its last layer.
    """
    name = os.path.basename(path)
    if os.path.getsize(path) > LIMIT:
        raise LoadError("{} is too long for an ncnn network".format(name))
    with open(path, encoding="utf-8", errors="replace") as file:
        lines = [line.split() for line in file.read().splitlines() if line.strip()]
    damaged = LoadError("{} is not a complete ncnn network".format(name), "Download or convert it again.")
    try:
        if lines[0] != [MAGIC] or int(lines[1][0]) != len(lines) - 2:
            raise damaged
        return [_layer(words) for words in lines[2:]]
    except (IndexError, ValueError):
        raise damaged from None


def _layer(words: Sequence[str]) -> Layer:
    taken, outputs_made = int(words[2]), int(words[3])
    names, rest = words[4 : 4 + taken + outputs_made], words[4 + taken + outputs_made :]
    if len(names) < taken + outputs_made:
        raise ValueError("names are missing")
    parameters = dict(word.split("=", 1) for word in rest if "=" in word)
    return words[0], list(names[:taken]), list(names[taken:]), parameters


def _shape(layer: Layer, given: Optional[Tuple[int, ...]]) -> Tuple[Dim, ...]:
    """The shape of an Input layer, with a first dimension of 1.

    It comes from ``--input``, else from the file (parameter 0: width, 1: height, 11: depth, 2: channels).
    """
    if given is not None:
        return tuple(given)
    parameters = layer[3]
    sizes = [int(parameters.get(key, "0")) for key in ("2", "11", "1", "0")]
    known = tuple(size for size in sizes if size > 0)
    return (1, *known) if known else ANY_SHAPE


def _settings(options: LoadOptions) -> Dict[str, str]:
    for key, value in options.options.items():
        if key not in OPTIONS or value not in ("0", "1", "2"):
            raise LoadError("ncnn has no option {}={}".format(key, value), "It takes {}.".format(", ".join(OPTIONS)))
    return dict(options.options)


def _library() -> Any:
    try:
        import ncnn
    except Exception as error:
        raise LoadError("ncnn cannot be imported: {}".format(error), REMEDY) from None
    return ncnn


@hookimpl
def register_runtimes(register: Callable[..., None]) -> None:
    register("ncnn", Ncnn)
