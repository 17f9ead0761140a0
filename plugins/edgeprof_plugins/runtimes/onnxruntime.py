"""ONNX Runtime: .onnx and .ort models; its execution providers are the devices.

Devices: ``cpu``, ``cuda``, ``cuda:1``, ``tensorrt``, ``openvino``, ``xnnpack``, ``dml`` … or a provider's own name.
Options: ``graph_optimization`` (disable, basic, extended, all), ``inter_op_threads``, ``spinning`` (0 or 1),
``custom_ops`` (the path of a library), and ``provider.KEY`` for an option of the execution provider.
"""

import functools
import os
import re
import warnings
from typing import Any, Callable, Dict, List, Tuple

import numpy as np

from edgeprof import hookimpl
from edgeprof.workload.runtime import (
    Availability,
    LoadError,
    LoadOptions,
    Runtime,
    Session,
    TensorSpec,
    install_command,
    library_version,
)

REMEDY = install_command("onnx", "onnxruntime")
DISTRIBUTIONS = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-openvino",
    "onnxruntime-directml",
    "onnxruntime-qnn",
    "onnxruntime-rocm",
    "onnxruntime-training",
    "ort-nightly",
)
OPTIONS = ("graph_optimization", "inter_op_threads", "spinning", "custom_ops", "provider.KEY")
OPTIMIZATIONS = {
    "disable": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}
#: What comes after a provider when it cannot take a node; the session's own order of preference.
FALLBACKS = {"TensorrtExecutionProvider": ("CUDAExecutionProvider",)}
#: Providers whose tensors lie in the host's memory, so that outputs can be allocated before.
HOST_MEMORY = ("CPUExecutionProvider", "XnnpackExecutionProvider", "OpenVINOExecutionProvider", "DnnlExecutionProvider")
DTYPES = {"float": "float32", "double": "float64", "string": "object"}


class OnnxRuntime(Runtime):
    name = "onnxruntime"
    formats = ("onnx", "ort")

    def availability(self) -> Availability:
        version = library_version("onnxruntime", *DISTRIBUTIONS)
        return Availability(version, None if version else "onnxruntime is not installed", None if version else REMEDY)

    def devices(self) -> List[str]:
        return _devices(_library())

    def load(self, path: str, options: LoadOptions) -> Session:
        ort = _library()
        if not os.path.isfile(path):
            raise LoadError("{} does not exist".format(path))
        provider, settings = _provider(ort, options)
        session_options = _session_options(ort, options, provider)
        fallbacks = [*FALLBACKS.get(provider, ()), "CPUExecutionProvider"]
        providers: List[Any] = [(provider, settings)]
        providers.extend(name for name in fallbacks if name != provider and name in ort.get_available_providers())
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                session = ort.InferenceSession(path, session_options, providers=providers)
        except Exception as error:
            raise _load_error(path, error) from None
        used = session.get_providers()
        if provider not in used:
            # Where a provider cannot start, ONNX Runtime goes on with the CPU and says so only in its log.
            raise LoadError(
                "{} could not be started, ONNX Runtime would have used {} instead".format(provider, ", ".join(used)),
                "See what it wrote above; the libraries of its device are probably missing or of another version.",
            )
        return OnnxSession(ort, session, session_options, used)


class OnnxSession(Session):
    def __init__(self, ort: Any, session: Any, options: Any, providers: List[str]) -> None:
        self._ort, self._session = ort, session
        self.inputs = tuple(_spec(node) for node in session.get_inputs())
        self.outputs = tuple(_spec(node) for node in session.get_outputs())
        self._names = [spec.name for spec in self.outputs]
        self._host = providers[0] in HOST_MEMORY
        self.facts = {
            "providers": ", ".join(providers),
            "threads": str(options.intra_op_num_threads or "default"),
            "graph_optimization": str(options.graph_optimization_level).rpartition(".")[2],
            "transfers": "none, host memory" if self._host else "inputs and outputs are copied in every inference",
        }

    def run(self, feeds: Dict[str, Any]) -> Dict[str, Any]:
        return {name: _array(value) for name, value in zip(self._names, self._session.run(self._names, feeds))}

    def bind(self, feeds: Dict[str, Any]) -> Callable[[], Any]:
        """Inputs and, where their shapes follow from the inputs', outputs are bound to memory allocated here once.

        On a device with memory of its own, every call copies inputs to it and outputs back, as an application must.
        """
        plain = all(spec.dtype != "object" for spec in tuple(self.inputs) + tuple(self.outputs))
        if not (self._host and plain):
            return functools.partial(self._session.run, self._names, feeds)
        binding = self._session.io_binding()
        for name, array in feeds.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(array).reshape(np.shape(array)))
        known = {dim for spec in self.inputs for dim in spec.shape if isinstance(dim, str)}
        results = self.run(feeds)
        for spec in self.outputs:
            array = results[spec.name]
            if all(isinstance(dim, int) or dim in known for dim in spec.shape) and array.dtype.kind in "biufc":
                value = self._ort.OrtValue.ortvalue_from_shape_and_type(list(array.shape), array.dtype.type, "cpu", 0)
                binding.bind_ortvalue_output(spec.name, value)
            else:  # the shape depends on the data: ONNX Runtime allocates, as it would in an application
                binding.bind_output(spec.name, "cpu")
        return functools.partial(self._session.run_with_iobinding, binding)

    def close(self) -> None:
        self._session = None


def _library() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise LoadError("ONNX Runtime cannot be imported: {}".format(error), REMEDY) from None
    if not hasattr(onnxruntime, "InferenceSession"):
        raise LoadError("the installed onnxruntime is broken: it has no InferenceSession", "Reinstall it: " + REMEDY)
    return onnxruntime


def _short(provider: str) -> str:
    return re.sub("ExecutionProvider$", "", provider).lower()


def _devices(ort: Any) -> List[str]:
    """The short names of the execution providers, "cpu" first; Azure's is no device but a service."""
    names = {_short(name) for name in ort.get_available_providers()} - {"azure"}
    return sorted(names, key=lambda name: (name != "cpu", name))


def _provider(ort: Any, options: LoadOptions) -> Tuple[str, Dict[str, str]]:
    """The execution provider of ``--device`` and its settings."""
    wanted, _, index = options.device.partition(":")
    available = ort.get_available_providers()
    by_name = {}
    for name in available:
        by_name[_short(name)] = by_name[name.lower()] = name
    provider = by_name.get(wanted.lower())
    if provider is None:
        raise LoadError(
            "this ONNX Runtime has no device {!r}".format(options.device),
            "It has: {}. Others come with builds of their own, as pip install onnxruntime-gpu.".format(
                ", ".join(_devices(ort))
            ),
        )
    settings = {}
    if index:
        if not index.isdigit() or provider == "CPUExecutionProvider":
            raise LoadError("{!r} is no device of ONNX Runtime".format(options.device), "Write cuda:0, or cpu alone.")
        settings["device_id"] = index
    if provider == "XnnpackExecutionProvider" and options.threads:
        settings["intra_op_num_threads"] = str(options.threads)
    for key, value in options.options.items():
        if key.startswith("provider."):
            settings[key[len("provider.") :]] = value
    return provider, settings


def _session_options(ort: Any, options: LoadOptions, provider: str) -> Any:
    result = ort.SessionOptions()
    result.log_severity_level = 3
    if options.threads:
        # XNNPACK has a pool of its own; two pools fight for the cores (onnxruntime.ai, XNNPACK execution provider).
        result.intra_op_num_threads = 1 if provider == "XnnpackExecutionProvider" else options.threads
    for key, value in options.options.items():
        if key == "graph_optimization" and value in OPTIMIZATIONS:
            result.graph_optimization_level = getattr(ort.GraphOptimizationLevel, OPTIMIZATIONS[value])
        elif key == "inter_op_threads" and value.isdigit():
            result.inter_op_num_threads = int(value)
            result.execution_mode = ort.ExecutionMode.ORT_PARALLEL
        elif key == "spinning" and value in ("0", "1"):
            result.add_session_config_entry("session.intra_op.allow_spinning", value)
        elif key == "custom_ops":
            try:
                result.register_custom_ops_library(value)
            except Exception as error:
                raise LoadError("the operators of {} cannot be used: {}".format(value, _first_line(error))) from None
        elif not key.startswith("provider."):
            raise LoadError(
                "ONNX Runtime has no option {}={}".format(key, value),
                "It takes {}; graph_optimization is one of {}.".format(", ".join(OPTIONS), ", ".join(OPTIMIZATIONS)),
            )
    return result


def _load_error(path: str, error: Exception) -> LoadError:
    text = str(error)
    name = os.path.basename(path)
    operator = re.search(r"([\w.]*:?\w+)\(-?\d+\) is not a registered function/op", text)
    if operator:
        return LoadError(
            "{} needs the operator {}, which this ONNX Runtime does not have".format(name, operator.group(1)),
            "Give the library that has it with the option custom_ops=LIBRARY.so, or a newer onnxruntime.",
        )
    if "nsupported model IR version" in text or ("pset" in text and "under development" in text):
        return LoadError(
            "{} was exported for a newer ONNX Runtime: {}".format(name, _first_line(error)),
            "pip install -U onnxruntime, or export it with a lower opset_version.",
        )
    if "INVALID_PROTOBUF" in text or "rotobuf parsing failed" in text:
        return LoadError("{} is no whole ONNX model".format(name), "Download or export it again.")
    if "xternal data" in text or "external_data" in text or "model_path must not be empty" in text:
        return LoadError(
            "{} keeps its weights in another file, which cannot be read: {}".format(name, _first_line(error)),
            "Copy the files that were exported with it into its folder.",
        )
    return LoadError("ONNX Runtime does not load {}: {}".format(name, _first_line(error)))


def _first_line(error: Exception) -> str:
    """The error's message without ONNX Runtime's own prefixes and places in its source."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(error).strip())
    text = re.sub(r"/\S+\.(cc|h):\d+ ", "", text)
    return text.splitlines()[0][:300] if text else type(error).__name__


def _spec(node: Any) -> TensorSpec:
    match = re.match(r"tensor\((\w+)\)$", node.type)
    if not match:  # a sequence or a map, as the probabilities of a scikit-learn model
        return TensorSpec(node.name, (), "object", None)
    shape = tuple(dim if isinstance(dim, (int, str)) else None for dim in node.shape or ())
    return TensorSpec(node.name, shape, DTYPES.get(match.group(1), match.group(1)), None)


def _array(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value
    items = value if isinstance(value, list) else [value]
    result = np.empty(len(items), dtype=object)
    result[:] = items
    return result


@hookimpl
def register_runtimes(register: Callable[..., None]) -> None:
    register("onnxruntime", OnnxRuntime)
