"""LiteRT (TensorFlow Lite): .tflite models, on the CPU through XNNPACK or through a delegate.

The first installed library of ai-edge-litert, tflite-runtime and tensorflow is used.
Devices: ``cpu``; ``edgetpu`` or ``edgetpu:0`` (libedgetpu.so.1); or the path of any delegate's library.
Options: ``xnnpack`` (0: the built-in reference kernels' resolver without it), ``delegate`` (a library's path), and
``delegate.KEY`` for an option of the delegate.
"""

import base64
import contextlib
import ctypes
import ctypes.util
import importlib
import os
import shutil
import warnings
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

import numpy as np

from edgeprof import hookimpl
from edgeprof.worker.graph import Graph
from edgeprof.worker.inputs import refuse_unknown, resolve_shapes
from edgeprof.worker.runtime import (
    Availability,
    CycleEstimate,
    IsolatedOperators,
    LoadError,
    LoadOptions,
    MicrocontrollerNeed,
    OperatorProfile,
    Runtime,
    Session,
    TensorSpec,
    install_command,
    library_version,
)
from edgeprof.worker.tensors import unique_names

from .fitting import fits
from .refusals import FLEX_REMEDY, first_line, known_error, load_error

REMEDY = install_command("litert", "ai-edge-litert")
#: Module, and the names of its distributions.
LIBRARIES: Tuple[Tuple[str, Tuple[str, ...]], ...] = (
    ("ai_edge_litert", ("ai-edge-litert", "ai-edge-litert-nightly")),
    ("tflite_runtime", ("tflite-runtime", "tflite-runtime-nightly")),
    ("tensorflow", ("tensorflow", "tensorflow-cpu", "tensorflow-intel", "tf-nightly")),
)
TENSORFLOW = LIBRARIES[-1]
EDGE_TPU = "libedgetpu.so.1"
EDGE_TPU_OPERATOR = b"edgetpu-custom-op"
OPTIONS = ("xnnpack", "delegate", "delegate.KEY")


#: y = x + x, float32 [?, 4], as a .tflite file.
_DOUBLE = (
    "GAAAAFRGTDMAAA4AFAAQAAwACAAAAAQADgAAABAAAAAYAAAAJAEAAAMAAAABAAAABAAAAOT+//8BAAAAFAAAAAAADgAYABQAEAAM"
    "AAgABAAOAAAAFAAAABwAAABcAAAAYAAAAGQAAAAEAAAAbWFpbgAAAAABAAAAFAAAAAAADgAUAAAAEAAMAAsABAAOAAAAEAAAAAAA"
    "AAsMAAAAEAAAAFD///8BAAAAAQAAAAIAAAAAAAAAAAAAAAEAAAABAAAAAQAAAAAAAAACAAAATAAAAAQAAADQ////DAAAABQAAAAY"
    "AAAAAgAAAP////8EAAAAAQAAAHkAAAACAAAAAQAAAAQAAAAUABAADAAAAAAACAAAAAAAAAAEABQAAAAMAAAAFAAAABgAAAACAAAA"
    "/////wQAAAABAAAAeAAAAAIAAAABAAAABAAAAAEAAAAIAAAABAAEAAQAAAA="
)


class LiteRT(Runtime):
    name = "litert"
    formats = ("tflite", "edgetpu-tflite")
    smallest_model = base64.b64decode(_DOUBLE)
    libraries = tuple(module.partition(".")[0] for module, _ in LIBRARIES)

    def availability(self) -> Availability:
        for module, distributions in LIBRARIES:
            version = library_version(module, *distributions)
            if version:
                return Availability("{} {}".format(distributions[0], version), None, None)
        return Availability(None, "LiteRT is not installed (ai-edge-litert, tflite-runtime or tensorflow)", REMEDY)

    def devices(self) -> List[str]:
        return ["cpu"] + (["edgetpu"] if ctypes.util.find_library("edgetpu") else [])

    def import_library(self) -> None:
        _load_library()

    def load(self, path: str, options: LoadOptions) -> Session:
        if not os.path.isfile(path):
            raise LoadError("{} does not exist".format(path))
        try:
            return self._load(path, options, _load_library())
        except LoadError as error:
            if error.remedy != FLEX_REMEDY or library_version("tensorflow", *TENSORFLOW[1]) is None:
                raise
        return self._load(path, options, _load_library((TENSORFLOW,)))  # the only library with TensorFlow's operators

    def _load(self, path: str, options: LoadOptions, library_parts: Tuple[str, Any, Any, Any]) -> Session:
        library, interpreter_class, load_delegate, resolvers = library_parts
        if options.device.partition(":")[0] == "edgetpu":
            _require_compiled(path)
        delegate = _find_delegate(options, load_delegate)
        arguments: Dict[str, Any] = {"model_path": path, "num_threads": options.threads}
        if delegate is not None:
            arguments["experimental_delegates"] = [delegate[1]]
        if options.options.get("xnnpack") == "0":
            if resolvers is None:
                raise LoadError("{} cannot run without XNNPACK".format(library), "Leave the option xnnpack=0 out.")
            arguments["experimental_op_resolver_type"] = resolvers.BUILTIN_WITHOUT_DEFAULT_DELEGATES

        def interpreter() -> Any:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return interpreter_class(**arguments)

        try:
            session = LiteRTSession(interpreter, options, lambda error: known_error(path, error, library))
        except LoadError:
            raise
        except Exception as error:
            raise load_error(path, error, options, library) from None
        session.version = library  # which may be another than the first installed one
        session.facts = {
            "library": library,
            "threads": str(options.threads or "default"),
            "delegate": delegate[0] if delegate else "none" if options.options.get("xnnpack") == "0" else "XNNPACK",
            "timed": "invoke(); inputs are set once, before the windows",
        }
        if session.signature:
            session.facts["signature"] = session.signature
        session.profiled = path
        if options.device.partition(":")[0] == "edgetpu":
            session.facts["on the CPU"] = _left_behind_text(path)
        return session

    def inspect(self, path: str) -> Optional[Graph]:
        return self.inspect_with_inputs(path, {})

    def inspect_with_inputs(self, path: str, inputs: Dict[str, Any]) -> Optional[Graph]:
        from . import graph

        return graph.read(path, inputs)

    def microcontroller_need(self, path: str) -> Optional[MicrocontrollerNeed]:
        if library_version("tflite_micro", "tflite-micro") is None:
            return None
        from . import microcontroller

        return microcontroller.measure(path, _custom_operators(path))

    def estimate_cycles(self, path: str) -> List[CycleEstimate]:
        if library_version("ethosu.vela", "ethos-u-vela") is None:
            return []
        from . import vela

        return vela.estimate(path)

    def taps(self, path: str, names: Sequence[str], feeds: Iterable[Dict[str, Any]]) -> Iterator[Dict[str, Any]]:
        from . import graph

        return graph.taps(path, names, feeds)


class LiteRTSession(Session):
    """One interpreter.

    Args:
        make: Makes an interpreter of the file.
        options: As given to ``Runtime.load``.
        known: Translates an error of the library; None if its meaning is not known.
    """

    #: Path of the model, for the profiler.
    profiled = ""

    def __init__(
        self,
        make: Callable[[], Any],
        options: LoadOptions,
        known: Callable[[Exception], Optional[LoadError]] = lambda _: None,
    ) -> None:
        self._make, self._known, self._threads = make, known, options.threads
        self._alone: Dict[str, Callable[[], Any]] = {}
        self._bound: Optional[Dict[str, Any]] = None
        self._interpreter = make()
        details = _with_unique_names(self._interpreter.get_input_details(), "input")
        refuse_unknown([_tensor_spec(d) for d in details], dict(options.shapes), "--input")
        self._index = {d["name"]: d["index"] for d in details}
        self._shapes = {d["name"]: tuple(int(size) for size in d["shape"]) for d in details}
        self._resize(_wanted_shapes(details, options), strict=False)
        try:
            self._interpreter.allocate_tensors()
        except Exception:
            # The file has the size 1 for each open size, which not every operator accepts.
            resolve_shapes([_tensor_spec(d) for d in details], options.shapes, options.batch)
            raise
        self._keeps_resources = _keeps_resources(self._interpreter)
        self.signature = _signature(self._interpreter)
        self.inputs = tuple(_tensor_spec(d) for d in self._inputs(options))
        self.fits = fits(self._interpreter, {index: name for name, index in self._index.items()})
        self.outputs = tuple(
            _tensor_spec(d) for d in _with_unique_names(self._interpreter.get_output_details(), "output")
        )

    def run(self, feeds: Dict[str, Any]) -> Dict[str, Any]:
        self._set(feeds)
        try:
            self._interpreter.invoke()
        except RuntimeError as error:  # a missing operator may be noticed only now
            known = self._known(error)
            if known is None:
                raise
            raise known from None
        answers = {
            d["name"]: np.array(self._interpreter.get_tensor(d["index"]))
            for d in _with_unique_names(self._interpreter.get_output_details(), "output")
        }
        if self._bound is not None:
            self._set(self._bound)  # restore the inputs of the bound call
        return answers

    def reset(self) -> Optional[str]:
        """Set variable tensors (the state of an LSTM) to zero; resource variables need a new interpreter."""
        if self._keeps_resources:
            self._interpreter = self._make()
            for name, shape in self._shapes.items():
                self._interpreter.resize_tensor_input(self._index[name], list(shape), strict=False)
            self._interpreter.allocate_tensors()
        elif hasattr(self._interpreter, "reset_all_variables"):
            self._interpreter.reset_all_variables()
        else:
            return "this TensorFlow Lite cannot reset the state of a model"
        return None

    def bind(self, feeds: Dict[str, Any]) -> Callable[[], Any]:
        self._set(feeds)
        self._bound = feeds
        invoke: Callable[[], Any] = self._interpreter.invoke
        return invoke

    def profile_operators(self, feeds: Dict[str, Any], calls: int) -> Optional[OperatorProfile]:
        """Profile by LiteRT's profiler, which also reports operators inside XNNPACK.

        Raises:
            LoadError: another library or delegate runs the model, or this LiteRT's profiler is not supported.
        """
        from . import operators

        return self._profile(feeds, max(calls, operators.LEAST_CALLS))

    def isolate_operators(self, feeds: Dict[str, Any], names: Sequence[str]) -> Optional[IsolatedOperators]:
        """Cut layers with weights out of the file; the names are those of XNNPACK's kernels.

        Raises:
            LoadError: as for ``profile_operators``, or the kernels cannot be told apart.
        """
        kernels = self._profile(feeds, 1).operators
        from . import isolated

        by_number = {self._index[name]: np.asarray(array) for name, array in feeds.items()}
        operators, self._alone = isolated.cut_out(
            self.profiled, kernels, by_number, names, threads=self._threads, smallest_model=LiteRT.smallest_model
        )
        return operators

    def bind_workload(self, name: str, feeds: Dict[str, Any]) -> Callable[[], Any]:
        return self._alone[name] if name in self._alone else self.bind(feeds)

    def close(self) -> None:
        self._interpreter, self._alone = None, {}

    def _profile(self, feeds: Dict[str, Any], calls: int) -> OperatorProfile:
        if not self.facts.get("library", "").startswith("ai-edge-litert") or self.facts.get("delegate") != "XNNPACK":
            raise LoadError("only LiteRT itself (ai-edge-litert) with XNNPACK has a profiler")
        from . import operators

        details = _with_unique_names(self._interpreter.get_input_details(), "input")
        package = os.path.dirname(importlib.import_module("ai_edge_litert").__file__ or "")
        inputs = [np.asarray(feeds[detail["name"]]) for detail in details]
        return operators.profile(package, self.profiled, inputs, [spec.dtype for spec in self.outputs], calls)

    def _set(self, feeds: Dict[str, Any]) -> None:
        if self._resize({name: np.shape(array) for name, array in feeds.items()}, strict=True):
            self._interpreter.allocate_tensors()
        for name, array in feeds.items():
            self._interpreter.set_tensor(self._index[name], array)

    def _resize(self, shapes: Dict[str, Tuple[int, ...]], strict: bool) -> bool:
        """Resize the inputs; return whether anything changed, so that tensors must be allocated again.

        Args:
            shapes: Input → its shape.
            strict: Whether only dimensions may change that the model leaves open.
        """
        changed = False
        for name, shape in shapes.items():
            if self._shapes[name] != shape:
                self._interpreter.resize_tensor_input(self._index[name], list(shape), strict=strict)
                self._shapes[name] = shape
                changed = True
        return changed

    def _inputs(self, options: LoadOptions) -> List[Dict[str, Any]]:
        """The details of the inputs; an input that was resized to the batch has its new shape."""
        details = []
        for d in _with_unique_names(self._interpreter.get_input_details(), "input"):
            signature = d.get("shape_signature", d["shape"])
            fixed = all(size >= 0 for size in signature)
            details.append(dict(d, shape_signature=d["shape"]) if fixed and options.batch != 1 else d)
        return details


def _with_unique_names(details: Any, kind: str) -> List[Dict[str, Any]]:
    """The same details with unique names."""
    names = unique_names([str(d["name"]) for d in details], kind)
    return [dict(d, name=name) for d, name in zip(details, names)]


def _keeps_resources(interpreter: Any) -> bool:
    """Whether a model has variables that are not tensors (VAR_HANDLE), which reset_all_variables does not reset.

    The names of operators are not public in the library; if they cannot be read, the answer is False.
    """
    with contextlib.suppress(Exception):
        operators = interpreter._get_ops_details()  # noqa: SLF001 - there is no public way
        return any(operator["op_name"] == "VAR_HANDLE" for operator in operators)
    return False


def _signature(interpreter: Any) -> str:
    """The signature of the graph that runs, the first one, among several, as ``decode (of decode, encode)``."""
    try:
        names = sorted(interpreter.get_signature_list())
        graph_of = interpreter._interpreter.GetSubgraphIndexFromSignature  # noqa: SLF001 - there is no public way
        first = [name for name in names if not graph_of(name)]
    except Exception:  # older libraries have no signatures
        return ""
    return "{} (of {})".format(", ".join(first) or "none", ", ".join(names)) if len(names) > 1 else ""


def _load_library(among: Sequence[Tuple[str, Tuple[str, ...]]] = ()) -> Tuple[str, Any, Any, Any]:
    """Import the first library that works: its name, Interpreter, load_delegate and OpResolverType (or None)."""
    reasons = []
    for module, distributions in among or LIBRARIES:
        version = library_version(module, *distributions)
        if version is None:
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if module == "tensorflow":
                    lite = importlib.import_module("tensorflow").lite
                    parts = (lite.Interpreter, lite.experimental.load_delegate, lite.experimental)
                else:
                    lite = importlib.import_module(module + ".interpreter")
                    parts = (lite.Interpreter, lite.load_delegate, lite)
        except Exception as error:  # tflite-runtime against numpy 2 raises more than ImportError
            reasons.append("{}: {}".format(distributions[0], error))
            continue
        resolvers = getattr(parts[2], "OpResolverType", None)
        return "{} {}".format(distributions[0], version), parts[0], parts[1], resolvers
    if reasons:
        raise LoadError("LiteRT cannot be imported ({})".format("; ".join(reasons)), REMEDY)
    raise LoadError("LiteRT is not installed (ai-edge-litert, tflite-runtime or tensorflow)", REMEDY)


def _custom_operators(path: str) -> List[str]:
    """The names of a file's custom operators; empty if its graph cannot be read here."""
    try:
        from . import graph
    except ImportError:
        return []
    return graph.custom_operators(path)


def _left_behind_text(path: str) -> str:
    """List the operators that a model leaves on the CPU, as ``SOFTMAX, 2 × RESHAPE``."""
    try:
        from . import graph
    except ImportError:
        return "unknown"
    counts = graph.left_behind(path)
    return ", ".join(name if count == 1 else "{} × {}".format(count, name) for name, count in counts.items()) or "none"


def _require_compiled(path: str) -> None:
    """Refuse a model that was not compiled for the Edge TPU.

    The delegate would silently take none of its operators, and the CPU would be measured in place of the Edge TPU.

    Raises:
        LoadError: the model has no operator of the Edge TPU.
    """
    with open(path, "rb") as file:
        if EDGE_TPU_OPERATOR in file.read():
            return
    compiler = "edgetpu_compiler {}".format(os.path.basename(path))
    if shutil.which("edgetpu_compiler") is None:
        compiler += ", which is not installed here (Coral's repository has it, only for Linux on x86-64)"
    raise LoadError(
        "{} is not compiled for the Edge TPU, and would run only on the CPU".format(os.path.basename(path)),
        "Compile it, with weights and activations in int8: {}.".format(compiler),
    )


def _find_delegate(options: LoadOptions, load_delegate: Any) -> Optional[Tuple[str, Any]]:
    """Load the delegate that ``--device`` or the options name; return its path and the delegate.

    Raises:
        LoadError: the delegate cannot be loaded.
    """
    path, settings = _delegate_settings(options)
    if path is None:
        return None
    try:
        # Checked first: for another library, the incomplete object of load_delegate would fail again in its __del__.
        _ = ctypes.CDLL(path).tflite_plugin_destroy_delegate
        return path, load_delegate(path, settings)
    except Exception as error:
        remedy = "Give the full path of a TensorFlow Lite delegate's library."
        if path == EDGE_TPU:
            remedy = "Install libedgetpu1-std from Coral's repository, and check that lsusb or lspci shows the device."
        text = first_line(error)
        raise LoadError(
            "the delegate {} cannot be loaded{}".format(path, ": " + text if text else ""), remedy
        ) from None


def _delegate_settings(options: LoadOptions) -> Tuple[Optional[str], Dict[str, str]]:
    settings = {}
    for key, value in options.options.items():
        if key.startswith("delegate."):
            settings[key[len("delegate.") :]] = value
        elif key != "delegate" and (key != "xnnpack" or value not in ("0", "1")):
            raise LoadError("LiteRT has no option {}={}".format(key, value), "It takes {}.".format(", ".join(OPTIONS)))
    kind, _, index = options.device.partition(":")
    if kind == "edgetpu":
        if index:
            settings["device"] = ":" + index
        return EDGE_TPU, settings
    if "/" in options.device or ".so" in options.device:
        return options.device, settings
    if options.device != "cpu":
        raise LoadError(
            "LiteRT has no device {!r}".format(options.device),
            "It has cpu, edgetpu, and any delegate by the path of its library (--device /usr/lib/libNAME.so).",
        )
    return options.options.get("delegate"), settings


def _wanted_shapes(details: Any, options: LoadOptions) -> Dict[str, Tuple[int, ...]]:
    """The shapes of inputs that must be resized before tensors are allocated: given ones, and those of the batch."""
    wanted = {}
    for d in details:
        signature = [int(size) for size in d.get("shape_signature", d["shape"])]
        if d["name"] in options.shapes:
            wanted[d["name"]] = tuple(options.shapes[d["name"]])
        elif signature and signature[0] in (-1, 1) and options.batch != 1 and all(s > 0 for s in signature[1:]):
            # A file with a batch of 1 may be resized if its operators allow it; the allocation shows whether they do.
            wanted[d["name"]] = (options.batch, *signature[1:])
    return wanted


def _tensor_spec(detail: Dict[str, Any]) -> TensorSpec:
    signature = detail.get("shape_signature")
    sizes = detail["shape"] if signature is None or len(signature) != len(detail["shape"]) else signature
    kind = np.dtype(detail["dtype"])
    scales = detail["quantization_parameters"]["scales"]
    quantization = None
    if len(scales) == 1 and kind.kind in "iu":
        quantization = (float(scales[0]), int(detail["quantization_parameters"]["zero_points"][0]))
    dtype = "object" if kind.kind in "OSU" else kind.name
    return TensorSpec(detail["name"], tuple(int(s) if s >= 0 else None for s in sizes), dtype, quantization)


@hookimpl
def register_runtimes(register: Callable[..., None]) -> None:
    register("litert", LiteRT)
