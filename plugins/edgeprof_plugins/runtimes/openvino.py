"""OpenVINO for models in its own format (.xml with a .bin), .onnx and .tflite, on Intel's CPUs, GPUs and NPUs.

Devices: ``cpu``, ``gpu``, ``gpu:1``, ``npu``, ``myriad`` (the Neural Compute Stick, supported up to release 2022.3),
and combinations in OpenVINO's notation: ``AUTO``, ``HETERO:GPU,CPU``.
Options: ``hint`` (latency, throughput, cumulative_throughput or none; the default is latency), ``streams``,
``requests`` (number of requests in the queue of the scenario offline), ``precision`` (f32, f16, bf16: the precision in
which the device computes), ``static`` (1: open sizes are fixed when the model is loaded), and ``property.NAME`` for any
other property.
"""

import functools
import os
import re
import time
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np

from edgeprof import hookimpl
from edgeprof.worker.inputs import resolve_shapes
from edgeprof.worker.runtime import (
    ANY_SHAPE,
    Availability,
    LoadError,
    LoadOptions,
    OperatorProfile,
    OperatorTime,
    Runtime,
    Session,
    TensorSpec,
    install_command,
    library_version,
)
from edgeprof.worker.tensors import unique_names

REMEDY = install_command("openvino", "openvino")
OPTIONS = ("hint", "streams", "requests", "precision", "static", "property.NAME")
HINTS = ("latency", "throughput", "cumulative_throughput", "none")
PRECISIONS = ("f32", "f16", "bf16")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
#: OpenVINO's element types → numpy names; other types cannot be fed as arrays.
DTYPES = dict(
    {name.replace("uint", "u").replace("int", "i"): name for name in INTEGERS},
    f64="float64",
    f32="float32",
    f16="float16",
    bf16="bfloat16",
    boolean="bool",
)
#: Devices that combine others; they are not in OpenVINO's list of devices.
COMBINATIONS = ("AUTO", "HETERO", "MULTI", "BATCH")
#: Devices that take only models with fixed sizes.
STATIC_ONLY = ("NPU", "MYRIAD")
#: Fact → the property of a compiled model that gives it.
PROPERTIES = {
    "threads": "INFERENCE_NUM_THREADS",
    "streams": "NUM_STREAMS",
    "requests": "OPTIMAL_NUMBER_OF_INFER_REQUESTS",
    "precision": "INFERENCE_PRECISION_HINT",
    "executed on": "EXECUTION_DEVICES",
}
_WARM_UP = 9
#: Pattern of OpenVINO's message, its meaning, and the remedy.
KNOWN_ERRORS = (
    (
        r"Empty weights data|bin file cannot be found|are inconsistent|Incorrect weights|weights.*(?:out of|exceed)",
        "{name} does not fit the weights in the .bin file beside it",
        "Copy the .bin that was written with it into its folder, under the same name.",
    ),
    (
        r"No translator found|No conversion rule|by the conversion|Cannot create \w+ layer|OpConversionFailure",
        "{name} has an operator that OpenVINO does not know: {text}",
        "Use a newer OpenVINO (pip install -U openvino), or another runtime.",
    ),
    (
        r"libOpenCL|clGetPlatformIDs|level.zero|libze_",
        "OpenVINO finds no driver for this device: {text}",
        "Install Intel's compute runtime for the GPU, or its NPU driver; --device cpu needs neither.",
    ),
    (
        r"mismatch|at offset \d+|PROTOBUF|arsing failed|Unable to read the|ModelProto|model identifier|Invalid model",
        "{name} is no whole model that OpenVINO can read: {text}",
        "Download or convert it again.",
    ),
)


#: y = max(x, 0), float32 [1, 2]; without weights it needs no .bin.
_RELU = b"""<?xml version="1.0"?>
<net name="relu" version="11"><layers>
<layer id="0" name="x" type="Parameter" version="opset1"><data shape="1,2" element_type="f32"/>
<output><port id="0" precision="FP32" names="x"><dim>1</dim><dim>2</dim></port></output></layer>
<layer id="1" name="y" type="ReLU" version="opset1"><input><port id="0"><dim>1</dim><dim>2</dim></port></input>
<output><port id="1" precision="FP32" names="y"><dim>1</dim><dim>2</dim></port></output></layer>
<layer id="2" name="y/result" type="Result" version="opset1">
<input><port id="0"><dim>1</dim><dim>2</dim></port></input></layer>
</layers><edges><edge from-layer="0" from-port="0" to-layer="1" to-port="0"/>
<edge from-layer="1" from-port="1" to-layer="2" to-port="0"/></edges></net>
"""


class OpenVino(Runtime):
    name = "openvino"
    formats = ("openvino", "onnx", "tflite")
    libraries = ("openvino",)
    smallest_model = _RELU
    costly_options = (("precision", "bf16", "computing in bf16"), ("precision", "f32", "computing in float32"))

    def availability(self) -> Availability:
        version = library_version("openvino", "openvino", "openvino-nightly")
        return Availability(version, None if version else "OpenVINO is not installed", None if version else REMEDY)

    def devices(self) -> List[str]:
        names = [_short(name) for name in _library().Core().available_devices]
        return sorted(names, key=lambda name: (name != "cpu", name))

    def load(self, path: str, options: LoadOptions) -> Session:
        library = _library()
        if not os.path.isfile(path):
            raise LoadError("{} does not exist".format(path))
        core = library.Core()
        device = _device(core, options.device)
        properties = _properties(options, device)
        try:
            model = core.read_model(path)
            _fix_sizes(library, model, options, device)
        except LoadError:
            raise
        except Exception as error:
            raise _load_error(path, error) from None

        def compiled(**more: Any) -> Any:
            try:
                return core.compile_model(model, device, dict(properties, **more))
            except Exception as error:
                raise _compile_error(path, device, error) from None

        return OpenVinoSession(library, core, compiled, options)


class OpenVinoSession(Session):
    """A session with one compiled model and one request.

    Args:
        library: The module openvino.
        core: The Core object, which gives the properties of devices.
        compiled: Compiles the model, with additional properties.
        options: As given to ``Runtime.load``.
    """

    def __init__(self, library: Any, core: Any, compiled: Callable[..., Any], options: LoadOptions) -> None:
        self._library, self._compiled = library, compiled
        self._model = compiled()
        self._request = self._model.create_infer_request()
        self._queue: Any = None
        self._queue_size = int(options.options.get("requests", "0"))
        self.inputs = _specs(self._model.inputs, "input")
        self.outputs = _specs(self._model.outputs, "output")
        self.version = str(library.get_version()).split("-")[0]
        self.facts = _facts(core, self._model, self.inputs)
        wanted = options.options.get("precision")
        if wanted is not None and not self.facts.get("precision", wanted).startswith(wanted):
            raise LoadError(
                "this device computes in {} where precision={} was asked for".format(self.facts["precision"], wanted),
                "It can compute in {}.".format(self.facts.get("capabilities", "what OpenVINO chooses")),
            )

    def run(self, feeds: Dict[str, Any]) -> Dict[str, Any]:
        self._set(self._request, feeds)
        self._request.infer()
        return {
            spec.name: np.array(self._request.get_output_tensor(number).data).astype(_plain(spec.dtype), copy=False)
            for number, spec in enumerate(self.outputs)
        }

    def reset(self) -> Optional[str]:
        try:
            for state in self._request.query_state():
                state.reset()
        except Exception as error:
            return "OpenVINO cannot reset the state of a model on this device: {}".format(
                str(error).strip().partition("\n")[0]
            )
        return None

    def bind(self, feeds: Dict[str, Any]) -> Callable[[], Any]:
        """Set the tensors once, sharing the memory of the arrays; a call leaves its outputs in OpenVINO's tensors."""
        self._set(self._request, feeds)
        return _inference(self._request)

    def bind_queued(self, feeds: Dict[str, Any]) -> Optional[Callable[[], Any]]:
        """Create enough requests to keep the device busy; a call waits for an idle request and starts it."""
        self._queue = self._library.AsyncInferQueue(self._model, self._queue_size)
        for request in self._queue:
            self._set(request, feeds)
        self.facts["queue"] = "{} requests".format(len(self._queue))
        start: Callable[[], Any] = self._queue.start_async
        return start

    def synchronize(self) -> None:
        if self._queue is not None:
            self._queue.wait_all()

    def profile_operators(self, feeds: Dict[str, Any], calls: int) -> Optional[OperatorProfile]:
        """Profile with OpenVINO's performance counters, which are enabled when a model is compiled."""
        request = self._compiled(PERF_COUNT=True).create_infer_request()
        self._set(request, feeds)
        call = _inference(request)
        is_cumulative = self.facts.get("executed on") == "CPU"
        for _ in range(_WARM_UP):
            call()
        before = _counters(request)
        sums: Dict[Tuple[str, str], float] = {}
        wall_s = 0.0
        for _ in range(calls):
            begin = time.monotonic()
            call()
            wall_s += time.monotonic() - begin
            if not is_cumulative:
                for key, seconds in _counters(request).items():
                    sums[key] = sums.get(key, 0.0) + seconds
        if is_cumulative:  # the CPU's counters are means over all inferences since the model was compiled
            warm = _WARM_UP + 1  # ``_inference`` runs one inference
            for key, seconds in _counters(request).items():
                sums[key] = max(0.0, seconds * (warm + calls) - before.get(key, 0.0) * warm)
        operators = [OperatorTime(name, kind, seconds / calls) for (name, kind), seconds in sums.items()]
        return OperatorProfile(operators, wall_s / calls)

    def close(self) -> None:
        self.synchronize()
        self._queue = self._request = self._model = self._compiled = None  # type: ignore[assignment]

    def _set(self, request: Any, feeds: Dict[str, Any]) -> None:
        for number, spec in enumerate(self.inputs):
            request.set_input_tensor(number, self._tensor(feeds[spec.name], spec.dtype))

    def _tensor(self, array: Any, dtype: str) -> Any:
        if dtype != "bfloat16":
            return self._library.Tensor(np.ascontiguousarray(array).reshape(np.shape(array)), shared_memory=True)
        tensor = self._library.Tensor(self._library.Type.bf16, list(np.shape(array)))
        bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
        # Round to nearest, ties to even, as hardware does.
        tensor.data[:] = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16).view(tensor.data.dtype)
        return tensor


def _counters(request: Any) -> Dict[Tuple[str, str], float]:
    """Seconds of each node by its name and type, without nodes that were fused into others."""
    return {
        (str(info.node_name), str(info.node_type)): info.real_time.total_seconds()
        for info in request.get_profiling_info()
        if "NOT_RUN" not in str(info.status)
    }


def _inference(request: Any) -> Callable[[], Any]:
    """A function that runs one inference, without copying its outputs where this release supports that."""
    try:
        request.infer(share_outputs=True)
    except TypeError:  # before 2023.2
        infer: Callable[[], Any] = request.infer
        return infer
    return functools.partial(request.infer, None, False, share_outputs=True)


def _library() -> Any:
    try:
        import openvino

        if not hasattr(openvino, "Core"):  # before 2023.1
            import openvino.runtime as openvino
    except Exception as error:
        raise LoadError("OpenVINO cannot be imported: {}".format(error), REMEDY) from None
    return openvino


def _short(name: str) -> str:
    """The device name as edgeprof writes it: ``gpu:1`` for ``GPU.1``."""
    return name.lower().replace(".", ":")


def _device(core: Any, wanted: str) -> str:
    """OpenVINO's name of an available device, or a combination in OpenVINO's notation."""
    base = wanted.partition(":")[0].upper()
    name = wanted if base in COMBINATIONS else wanted.upper().replace(":", ".")
    here = [str(device) for device in core.available_devices]
    if base in COMBINATIONS or name in here or any(device.startswith(name + ".") for device in here):
        return name
    hint = ""
    if base == "MYRIAD":
        hint = " The Neural Compute Stick needs OpenVINO 2022.3 or older (pip install 'openvino<2023')."
    elif base in ("GPU", "NPU"):
        hint = " A GPU or NPU of Intel's needs its driver (compute runtime, NPU driver)."
    raise LoadError(
        "OpenVINO finds no device {!r} here".format(wanted),
        "It has {}.{}".format(", ".join(_short(device) for device in here) or "none", hint),
    )


def _properties(options: LoadOptions, device: str) -> Dict[str, Any]:
    """The properties to compile with.

    Raises:
        LoadError: an option does not exist, or does not take the given value.
    """
    given = dict(options.options)
    properties: Dict[str, Any] = {}
    hint = given.pop("hint", "latency")
    if hint not in HINTS:
        raise LoadError("hint={} is none of OpenVINO's".format(hint), "It is one of {}.".format(", ".join(HINTS)))
    if hint != "none":
        properties["PERFORMANCE_HINT"] = hint.upper()
    if options.threads and "CPU" in device.upper():
        properties["INFERENCE_NUM_THREADS"] = options.threads
    precision = given.pop("precision", None)
    if precision is not None:
        if precision not in PRECISIONS:
            raise LoadError(
                "OpenVINO computes in no precision {!r}".format(precision), "Choose of " + ", ".join(PRECISIONS) + "."
            )
        properties["INFERENCE_PRECISION_HINT"] = precision
    for key, value in given.items():
        if key == "streams" and value.isdigit():
            properties["NUM_STREAMS"] = int(value)
        elif key.startswith("property."):
            properties[key[len("property.") :]] = value
        elif not (key == "requests" and value.isdigit()) and not (key == "static" and value in ("0", "1")):
            raise LoadError(
                "OpenVINO has no option {}={}".format(key, value), "It takes {}.".format(", ".join(OPTIONS))
            )
    return properties


def _fix_sizes(library: Any, model: Any, options: LoadOptions, device: str) -> None:
    """Fix open sizes where that was requested or the device requires it, and apply the shapes of --input."""
    specs = _specs(model.inputs, "input")
    wanted = {name: shape for name, shape in options.shapes.items() if any(spec.name == name for spec in specs)}
    is_static = device.partition(".")[0] in STATIC_ONLY or options.options.get("static") == "1"
    if is_static or len(wanted) < len(options.shapes):  # resolve_shapes rejects a name that is not an input
        wanted = resolve_shapes(specs, options.shapes, options.batch)
    ports = {spec.name: port for spec, port in zip(specs, model.inputs)}
    open_ones = {spec.name for spec in specs if any(not isinstance(size, int) for size in spec.shape)}
    shapes = {ports[name]: library.PartialShape(list(shape)) for name, shape in wanted.items() if name in open_ones}
    if shapes:
        model.reshape(shapes)


def _specs(ports: Sequence[Any], kind: str) -> Tuple[TensorSpec, ...]:
    names = unique_names([_name(port) for port in ports], kind)
    specs = []
    for name, port in zip(names, ports):
        element = str(port.get_element_type().get_type_name())
        if element not in DTYPES:
            raise LoadError(
                "the {} {} is {}, which cannot be fed as an array".format(kind, name, element),
                "Use another runtime for this model.",
            )
        shape = port.get_partial_shape()
        sizes = ANY_SHAPE
        if not shape.rank.is_dynamic:
            sizes = tuple(None if size.is_dynamic else int(size.get_length()) for size in shape)
        specs.append(TensorSpec(name, sizes, DTYPES[element], None))
    return tuple(specs)


def _name(port: Any) -> str:
    try:
        return str(port.get_any_name())
    except RuntimeError:  # the port has no name
        return ""


def _plain(dtype: str) -> str:
    return "float32" if dtype == "bfloat16" else dtype


def _facts(core: Any, model: Any, inputs: Sequence[TensorSpec]) -> Dict[str, str]:
    """The settings in effect: threads, streams, the precision of the arithmetic, the full name of the device."""
    facts = {fact: _asked(model.get_property, key) for fact, key in PROPERTIES.items()}
    devices = [name for name in facts["executed on"].split(", ") if name]
    first = devices[0].strip("()") if devices else "CPU"
    facts["device"] = _asked(functools.partial(core.get_property, first), "FULL_DEVICE_NAME")
    facts["capabilities"] = _asked(functools.partial(core.get_property, first), "OPTIMIZATION_CAPABILITIES")
    is_open = any(not isinstance(size, int) for spec in inputs for size in spec.shape)
    if facts["precision"] == "bf16" and "BF16" not in facts["capabilities"]:
        facts["precision"] = "bf16, without units for it: it is emulated"
    facts["shapes"] = "open, as the file leaves them" if is_open else "fixed"
    facts["timed"] = "infer(); tensors are set once, before the windows"
    return {fact: text for fact, text in facts.items() if text}


def _asked(get_property: Callable[[str], Any], name: str) -> str:
    """A property as text; "" where this device or release does not have it."""
    try:
        value = get_property(name)
    except Exception:
        return ""
    if isinstance(value, (list, tuple, set)):
        return ", ".join(str(item) for item in value)
    return str(value.get_type_name() if hasattr(value, "get_type_name") else value)


def _compile_error(path: str, device: str, error: Exception) -> LoadError:
    text = _reason(error)
    unsupported = re.search(r"Unsupported property (\S+)|Option not found.*?(\w+)|Can't set property (\w+)", str(error))
    if unsupported:
        name = next(group for group in unsupported.groups() if group)
        return LoadError(
            "{} has no property {}".format(device, name), "See OpenVINO's documentation of the device's properties."
        )
    known = _known_error(path, error)
    return known or LoadError("OpenVINO does not compile {} for {}: {}".format(os.path.basename(path), device, text))


def _load_error(path: str, error: Exception) -> LoadError:
    return _known_error(path, error) or LoadError(
        "OpenVINO does not load {}: {}".format(os.path.basename(path), _reason(error))
    )


def _known_error(path: str, error: Exception) -> Optional[LoadError]:
    for pattern, sentence, remedy in KNOWN_ERRORS:
        if re.search(pattern, str(error)):
            return LoadError(sentence.format(name=os.path.basename(path), text=_reason(error)), remedy)
    return None


def _reason(error: Exception) -> str:
    """The message of an error without the locations in OpenVINO's source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if not re.match(r"(Exception from |Check '|[\w./]+\.(cpp|hpp):\d+)", line)]
    text = (telling or lines or [type(error).__name__])[-1]
    return re.sub(r"^.*?\.(?:cpp|hpp):\d+[:.]?\s*", "", text).rstrip(".")[:300]


@hookimpl
def register_runtimes(register: Callable[..., None]) -> None:
    register("openvino", OpenVino)
