"""ONNX Runtime for .onnx and .ort models; its execution providers are the devices.

Devices: ``cpu``, ``cuda``, ``cuda:1``, ``tensorrt``, ``openvino``, ``openvino:GPU``, ``xnnpack``, ``dml`` … or the full
name of a provider.
Options: ``graph_optimization`` (disable, basic, extended, all), ``inter_op_threads``, ``spinning`` (0 or 1),
``custom_ops`` (the path of a library), and ``provider.KEY`` for an option of the execution provider.
"""

import contextlib
import ctypes
import functools
import importlib.util
import os
import re
import warnings
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

import numpy as np

from edgeprof import hookimpl
from edgeprof.worker.dtypes import carrier_dtype, is_foreign
from edgeprof.worker.graph import Graph
from edgeprof.worker.runtime import (
    ANY_SHAPE,
    Availability,
    IsolatedOperators,
    LoadError,
    LoadOptions,
    OperatorProfile,
    Runtime,
    Session,
    install_command,
    library_version,
)
from edgeprof.worker.tensors import unique_names

from .. import smallest
from ..nvidia.cuda import CudaError
from ..nvidia.driver import ask_driver
from .cuda import PROVIDERS as CUDA_PROVIDERS
from .cuda import Gpu, captures
from .optimisation import LEVELS, milder
from .refusals import first_line, load_error
from .values import as_array, as_fed, from_bits, spec_of

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
#: Provider → the providers that run the nodes that it cannot run, in order of preference.
FALLBACKS = {"TensorrtExecutionProvider": ("CUDAExecutionProvider",)}
#: Providers whose tensors are in the host's memory, so that outputs can be allocated in advance.
HOST_MEMORY = ("CPUExecutionProvider", "XnnpackExecutionProvider", "OpenVINOExecutionProvider", "DnnlExecutionProvider")
#: Provider with its own thread pool → the option that sets the number of threads.
THREAD_SETTINGS = {"XnnpackExecutionProvider": "intra_op_num_threads", "OpenVINOExecutionProvider": "num_of_threads"}


class OnnxRuntime(Runtime):
    name = "onnxruntime"
    formats = ("onnx", "ort")
    libraries = ("onnxruntime",)
    smallest_model = smallest.ONNX
    crash_remedy = (
        "ONNX Runtime's optimisation of the graph may crash: try --option graph_optimization=extended, or basic."
    )

    def availability(self) -> Availability:
        version = library_version("onnxruntime", *DISTRIBUTIONS)
        return Availability(version, None if version else "onnxruntime is not installed", None if version else REMEDY)

    def devices(self) -> List[str]:
        return _device_names(_load_onnxruntime())

    def load(self, path: str, options: LoadOptions) -> Session:
        ort = _load_onnxruntime()
        if not os.path.isfile(path):
            raise LoadError("{} does not exist".format(path))
        provider, settings = _choose_provider(ort, options)
        session_options = _session_options(ort, options, provider)
        gpu = _find_gpu(ort, settings) if provider in CUDA_PROVIDERS else None
        try:
            session = _open_session(
                ort, path, session_options, provider, dict(settings, **gpu.settings() if gpu else {})
            )
        except LoadError:
            if gpu is not None:
                gpu.close()
            raise
        if gpu is not None:
            gpu.attach(session, provider)

        def again(its_options: Any) -> Any:
            return _open_session(ort, path, its_options, provider, settings)

        return OnnxSession(ort, session, session_options, gpu, again)

    def inspect(self, path: str) -> Optional[Graph]:
        return self.inspect_with_inputs(path, {})

    def inspect_with_inputs(self, path: str, inputs: Dict[str, Any]) -> Optional[Graph]:
        with open(path, "rb") as file:
            if file.read(8)[4:] == b"ORTM":
                return None  # ORT format, which onnx does not read
        from . import graph

        return graph.read(path, inputs)

    def inspect_remedy(self) -> Optional[str]:
        return install_command("onnx-compress", "onnx") if importlib.util.find_spec("onnx") is None else None

    def taps(self, path: str, names: Sequence[str], feeds: Iterable[Dict[str, Any]]) -> Iterator[Dict[str, Any]]:
        from . import graph

        return graph.taps(path, names, feeds)


class OnnxSession(Session):
    """A session with one InferenceSession.

    Args:
        ort: The module onnxruntime.
        session: The InferenceSession.
        options: The options with which it was created.
        gpu: The NVIDIA GPU on which it computes; None for any other device.
        again: Creates another session for the same model from options.
    """

    def __init__(
        self,
        ort: Any,
        session: Any,
        options: Any,
        gpu: Optional[Gpu] = None,
        again: Optional[Callable[[Any], Any]] = None,
    ) -> None:
        self._ort, self._session, self._gpu, self._options, self._again = ort, session, gpu, options, again
        self._held: Any = None
        self._alone: Dict[str, Callable[[], Any]] = {}  # the calls of operators that were cut out
        providers = session.get_providers()
        self.inputs = tuple(spec_of(node) for node in session.get_inputs())
        outputs = [spec_of(node) for node in session.get_outputs()]
        self._types = {node.name: str(node.type) for node in session.get_inputs()}
        self._names = [spec.name for spec in outputs]
        unique = unique_names(self._names, "output")  # a file may list a tensor twice
        self.outputs = tuple(spec._replace(name=name) for spec, name in zip(outputs, unique))
        self._foreign = [spec for spec in outputs if is_foreign(spec.dtype)]
        self._host = providers[0] in HOST_MEMORY
        self.facts = {
            "providers": ", ".join(providers),
            "threads": str(options.intra_op_num_threads or "default"),
            "graph_optimization": str(options.graph_optimization_level).rpartition(".")[2],
            "transfers": "none, host memory" if self._host else "inputs and outputs are copied in every inference",
        }
        nodes = _node_placement(session)
        if nodes:
            self.facts["nodes"] = nodes
        if gpu is not None:
            self.facts.update(gpu.facts())

    def run(self, feeds: Dict[str, Any]) -> Dict[str, Any]:
        fed = self._fed(feeds)
        foreign = self._run_foreign(fed) if self._foreign else {}
        names = [name for name in self._names if name not in foreign]
        options = self._gpu.run_options() if self._gpu is not None else None
        try:
            values = self._session.run(names, fed, options) if names else []
        except Exception as error:  # the library has no class of its own for these
            self._refuse_optimisation(error, fed, names)
            raise
        outputs = dict(zip(names, values), **foreign)
        return {spec.name: as_array(outputs[name]) for spec, name in zip(self.outputs, self._names)}

    def _refuse_optimisation(self, error: Exception, fed: Dict[str, Any], names: Sequence[str]) -> None:
        """Raise LoadError if the same inference works with less optimisation of the graph."""
        again = self._again
        if again is None or self._gpu is not None:  # a second session may not fit into the GPU's memory
            return
        level = milder(self._ort, self._options, lambda its: again(its).run(names, fed))
        if level is not None:
            raise LoadError(
                "ONNX Runtime's own optimisation of the graph fails: {}".format(first_line(error)),
                "It runs with --option graph_optimization={}.".format(level),
            ) from None

    def bind(self, feeds: Dict[str, Any]) -> Callable[[], Any]:
        """Bind the inputs, and outputs whose shapes follow from the input shapes, to memory that is allocated once.

        On a device with its own memory, every call copies inputs to it and outputs back, as in an application: on an
        NVIDIA GPU from and to pinned memory, elsewhere as ONNX Runtime does it.
        """
        steps = self._steps(feeds)
        if self._gpu is not None and steps is not None:
            return self._gpu.waiting(steps)
        fed = self._fed(feeds)
        numbers = all(carrier_dtype(spec.dtype) not in (None, "object") for spec in self.inputs)
        if not numbers or not (self._host or self._foreign):
            return functools.partial(self._session.run, [n for n in self._names if not self._is_foreign(n)], fed)
        binding = self._session.io_binding()
        for name, value in fed.items():
            if isinstance(value, np.ndarray):
                binding.bind_cpu_input(name, np.ascontiguousarray(value).reshape(np.shape(value)))
            else:
                binding.bind_ortvalue_input(name, value)
        untrue = self._bind_outputs(binding, self.run(feeds))
        run = functools.partial(self._session.run_with_iobinding, binding)
        if not untrue:
            return run

        def rebind_and_run() -> Any:
            for name in untrue:  # ONNX Runtime would compare the output of the previous call with the declared shape
                binding.bind_output(name, "cpu")
            return run()

        return rebind_and_run

    def _bind_outputs(self, binding: Any, results: Dict[str, Any]) -> List[str]:
        """Bind outputs to preallocated memory if the file declares their shapes correctly.

        ONNX Runtime runs a model whose output has another shape than the declared one, but writes that output only to
        memory that it allocates itself. If a shape depends on the data, it must do so in an application too.

        Returns:
            The outputs whose declared shape is wrong.
        """
        known = {dim for spec in self.inputs for dim in spec.shape if isinstance(dim, str)}
        untrue = []
        for spec, name in zip(self.outputs, self._names):
            array = results[spec.name]
            sizes = [(dim, size) for dim, size in zip(spec.shape, array.shape) if isinstance(dim, int)]
            true = len(spec.shape) == array.ndim and all(dim == size for dim, size in sizes)
            if spec.shape != ANY_SHAPE and not true:
                untrue.append(name)
            is_fixed = true and all(isinstance(dim, int) or dim in known for dim in spec.shape)
            if self._host and is_fixed and array.dtype.kind in "biufc" and not is_foreign(spec.dtype):
                value = self._ort.OrtValue.ortvalue_from_shape_and_type(list(array.shape), array.dtype.type, "cpu", 0)
                binding.bind_ortvalue_output(name, value)
            else:
                binding.bind_output(name, "cpu")
        return untrue

    def _is_foreign(self, name: str) -> bool:
        return any(spec.name == name for spec in self._foreign)

    def _fed(self, feeds: Dict[str, Any]) -> Dict[str, Any]:
        """Convert the feeds for ONNX Runtime: sequences as lists, types that numpy lacks by their bits."""
        specs = {spec.name: spec for spec in self.inputs}
        return {name: as_fed(self._ort, value, specs[name], self._types[name]) for name, value in feeds.items()}

    def _run_foreign(self, fed: Dict[str, Any]) -> Dict[str, Any]:
        """Compute the outputs with types that numpy lacks, which ONNX Runtime cannot return as arrays."""
        binding = self._session.io_binding()
        for name, value in fed.items():
            plain = isinstance(value, np.ndarray)
            binding.bind_ortvalue_input(name, self._ort.OrtValue.ortvalue_from_numpy(value) if plain else value)
        for spec in self._foreign:
            binding.bind_output(spec.name, "cpu")
        self._session.run_with_iobinding(binding)
        values = binding.get_outputs()
        return {spec.name: from_bits(value, spec) for spec, value in zip(self._foreign, values)}

    def bind_queued(self, feeds: Dict[str, Any]) -> Optional[Callable[[], Any]]:
        steps = self._steps(feeds)
        return self._gpu.queued(steps) if self._gpu is not None and steps is not None and self._gpu.queues else None

    def bind_timed(self, feeds: Dict[str, Any]) -> Optional[Callable[[], Dict[str, float]]]:
        steps = self._steps(feeds)
        return self._gpu.timed(steps) if self._gpu is not None and steps is not None else None

    def profile_operators(self, feeds: Dict[str, Any], calls: int) -> Optional[OperatorProfile]:
        """Profile with ONNX Runtime's profiler, which must be enabled when a session is created.

        Raises:
            LoadError: the device computes asynchronously, and the profiler would record only the starts of operators.
        """
        if not self._host:
            raise LoadError("on this device ONNX Runtime's profiler sees only the starts of operators, not their times")
        if self._again is None:
            return None
        from . import operators

        def make(options: Any) -> Tuple[Callable[[], Any], Any]:
            assert self._again is not None
            self._session = self._again(options)  # the worker is not used afterwards
            return self.bind(feeds), self._session

        return operators.profile(self._options, make, calls)

    def isolate_operators(self, feeds: Dict[str, Any], names: Sequence[str]) -> Optional[IsolatedOperators]:
        if self._again is None or self._session.get_providers() != ["CPUExecutionProvider"]:
            raise LoadError("operators can be measured alone only on the CPU's own provider of ONNX Runtime")
        from . import isolated

        operators, self._alone = isolated.cut_out(self._ort, self._options, self._again, self._fed(feeds), names)
        return operators

    def bind_workload(self, name: str, feeds: Dict[str, Any]) -> Callable[[], Any]:
        return self._alone[name] if name in self._alone else self.bind(feeds)

    def synchronize(self) -> None:
        if self._gpu is not None:
            self._gpu.wait()

    def gpu_peak_bytes(self) -> Optional[int]:
        """Return the peak of device memory beyond the use before loading, in bytes; other processes affect it too."""
        return self._gpu.most() if self._gpu is not None else None

    def close(self) -> None:
        gpu, self._gpu, self._held = self._gpu, None, None
        if gpu is not None:
            gpu.release()
        self._session, self._alone = None, {}
        if gpu is not None:
            gpu.close()

    def _steps(self, feeds: Dict[str, Any]) -> Any:
        """The steps of one inference on the GPU, bound once for these feeds; None without a GPU, or if it fails."""
        if self._gpu is None:
            return None
        if self._held is None or self._held[0] is not feeds:
            self._held = (feeds, self._gpu.steps(feeds, self.run(feeds)))
            self.facts.update(self._gpu.facts())
        return self._held[1]


def _find_gpu(ort: Any, settings: Dict[str, str]) -> Gpu:
    """Find the GPU of a provider; without this check, ONNX Runtime would fail silently.

    Raises:
        LoadError: there is no such GPU, or CUDA does not start.
    """
    driver, wanted = ask_driver(), settings.get("device_id", "0")
    if not wanted.isdigit() or int(wanted) >= len(driver.gpus):
        raise LoadError("there is no cuda:{}: this machine has {} GPU(s)".format(wanted, len(driver.gpus)))
    if hasattr(ort, "preload_dlls"):  # loads CUDA and cuDNN from NVIDIA's wheels, which the linker does not find
        with contextlib.suppress(Exception):
            ort.preload_dlls()
    try:
        return Gpu(ort, int(wanted), driver, captures(settings))
    except CudaError as error:
        raise LoadError("CUDA does not start: {}".format(error), "nvidia-smi shows details.") from None


def _open_session(ort: Any, path: str, options: Any, provider: str, settings: Dict[str, str]) -> Any:
    """Open a session on this provider.

    Raises:
        LoadError: the model cannot be loaded, or the provider cannot be started.
    """
    providers: List[Any] = [(provider, settings)]
    for name in FALLBACKS.get(provider, ()):
        same = {key: settings[key] for key in ("device_id", "user_compute_stream") if key in settings}
        if name in ort.get_available_providers():
            providers.append((name, same))
    if provider != "CPUExecutionProvider":
        providers.append("CPUExecutionProvider")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            session = ort.InferenceSession(path, options, providers=providers, enable_fallback=0)
    except Exception as error:
        level = milder(
            ort, options, lambda its: ort.InferenceSession(path, its, providers=providers, enable_fallback=0)
        )
        if level is not None:
            raise LoadError(
                "ONNX Runtime's own optimisation of {} fails: {}".format(os.path.basename(path), first_line(error)),
                "It loads with --option graph_optimization={}.".format(level),
            ) from None
        raise load_error(path, error, "" if provider == "CPUExecutionProvider" else _short_name(provider)) from None
    session.disable_fallback()  # otherwise it would use the CPU if an inference fails on its device
    used = session.get_providers()
    if provider not in used:
        # If a provider cannot start, ONNX Runtime uses the CPU and reports that only in its log.
        missing = _missing_library(ort, provider)
        raise LoadError(
            "{} could not be started{}; ONNX Runtime would have used {} instead".format(
                provider, " (" + missing + ")" if missing else "", ", ".join(used)
            ),
            "Install that library, or name its folder in LD_LIBRARY_PATH."
            if missing
            else "The last words of the worker have ONNX Runtime's reason: another version of a library, or a device "
            "or an option that it does not have.",
        )
    return session


def _missing_library(ort: Any, provider: str) -> Optional[str]:
    """The library that a provider lacks: "libcublasLt.so.12: cannot open shared object file …"; None if none."""
    name = "libonnxruntime_providers_{}.so".format(_short_name(provider))
    try:
        ctypes.CDLL(os.path.join(os.path.dirname(ort.__file__), "capi", name))
    except OSError as error:
        return str(error) if "cannot open" in str(error) and name not in str(error) else None
    return None


def _node_placement(session: Any) -> str:
    """The number of nodes on each provider, such as "openvino 158, cpu 2"; "" if ONNX Runtime does not report it."""
    counts: Dict[str, int] = {}
    with contextlib.suppress(Exception):  # since 1.24, and only if recording was enabled
        for part in session.get_provider_graph_assignment_info():
            name = _short_name(part.ep_name)
            counts[name] = counts.get(name, 0) + len(part.get_nodes())
    return ", ".join("{} {}".format(name, count) for name, count in counts.items())


def _load_onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise LoadError("ONNX Runtime cannot be imported: {}".format(error), REMEDY) from None
    if not hasattr(onnxruntime, "InferenceSession"):
        raise LoadError("the installed onnxruntime is broken: it has no InferenceSession", "Reinstall it: " + REMEDY)
    return onnxruntime


def _short_name(provider: str) -> str:
    return re.sub("ExecutionProvider$", "", provider).lower()


def _device_names(ort: Any) -> List[str]:
    """The short names of the execution providers, "cpu" first, without Azure, which is a remote service."""
    names = {_short_name(name) for name in ort.get_available_providers()} - {"azure"}
    return sorted(names, key=lambda name: (name != "cpu", name))


def _choose_provider(ort: Any, options: LoadOptions) -> Tuple[str, Dict[str, str]]:
    """The execution provider of ``--device`` and its settings."""
    wanted, _, index = options.device.partition(":")
    available = ort.get_available_providers()
    by_name = {}
    for name in available:
        by_name[_short_name(name)] = by_name[name.lower()] = name
    provider = by_name.get(wanted.lower())
    if provider is None:
        raise LoadError(
            "this ONNX Runtime has no device {!r}".format(options.device),
            "It has: {}. Another build of ONNX Runtime may have it: pip install onnxruntime-gpu.".format(
                ", ".join(_device_names(ort))
            ),
        )
    settings = {}
    if index:
        openvino = provider == "OpenVINOExecutionProvider"
        if index.isdigit() == openvino or provider == "CPUExecutionProvider":
            raise LoadError(
                "{!r} is not a device of ONNX Runtime".format(options.device), "Write cuda:0, openvino:GPU, or cpu."
            )
        settings["device_type" if openvino else "device_id"] = index.upper()
    if provider in THREAD_SETTINGS and options.threads:
        settings[THREAD_SETTINGS[provider]] = str(options.threads)
    for key, value in options.options.items():
        if key.startswith("provider."):
            settings[key[len("provider.") :]] = value
    return provider, settings


def _session_options(ort: Any, options: LoadOptions, provider: str) -> Any:
    result = ort.SessionOptions()
    result.log_severity_level = 3
    if provider != "CPUExecutionProvider":
        result.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if options.threads:
        # XNNPACK has its own pool; two pools compete for the cores (onnxruntime.ai, XNNPACK execution provider).
        result.intra_op_num_threads = 1 if provider == "XnnpackExecutionProvider" else options.threads
    for key, value in options.options.items():
        if key == "graph_optimization" and value in LEVELS:
            result.graph_optimization_level = getattr(ort.GraphOptimizationLevel, LEVELS[value])
        elif key == "inter_op_threads" and value.isdigit():
            result.inter_op_num_threads = int(value)
            result.execution_mode = ort.ExecutionMode.ORT_PARALLEL
        elif key == "spinning" and value in ("0", "1"):
            result.add_session_config_entry("session.intra_op.allow_spinning", value)
        elif key == "custom_ops":
            try:
                result.register_custom_ops_library(value)
            except Exception as error:
                raise LoadError("the operators of {} cannot be used: {}".format(value, first_line(error))) from None
        elif not key.startswith("provider."):
            raise LoadError(
                "ONNX Runtime has no option {}={}".format(key, value),
                "It takes {}; graph_optimization is one of {}.".format(", ".join(OPTIONS), ", ".join(LEVELS)),
            )
    return result


@hookimpl
def register_runtimes(register: Callable[..., None]) -> None:
    register("onnxruntime", OnnxRuntime)
