"""Keras and TensorFlow: .keras and .h5 files and SavedModel folders.

Devices: ``cpu``, ``gpu``, ``gpu:1``.
Options: ``call`` says what a window repeats. ``graph`` (the default) is a concrete function for the fed shapes, as in a
deployed application; ``call`` is ``model(x, training=False)``; ``predict`` is ``model.predict(x)``, which builds a loop
over batches around each call. ``signature`` names the signature of a SavedModel to call (serving_default).

Code in a model (Lambda layers, pickles, functions by name) is refused before Keras opens it; see ``carried_code``.
"""

import contextlib
import inspect
import os
import re
import warnings
from typing import Any, Callable, Dict, List, Optional, Sequence, Set, Tuple

import numpy as np

from edgeprof import hookimpl
from edgeprof.worker import embedded_code
from edgeprof.worker.runtime import (
    ANY_SHAPE,
    Availability,
    LoadError,
    LoadOptions,
    Runtime,
    Session,
    TensorSpec,
    install_command,
    library_version,
)
from edgeprof.worker.tensors import unique_names

from .. import smallest
from .carried_code import find_code

REMEDY = install_command("keras", "tensorflow")
DISTRIBUTIONS = ("tensorflow", "tensorflow-cpu", "tensorflow-intel", "tensorflow-aarch64", "tf-nightly")
CALLS = ("graph", "call", "predict")
OPTIONS = ("call", "signature")
DEFAULTS = {"call": "graph", "signature": "serving_default"}
#: Pattern of an error of Keras or TensorFlow, its meaning, and the remedy.
KNOWN_ERRORS = (
    (
        r"Could not locate (?:class|function) '([\w.>]+)'|Unknown (?:layer|object)s?:? '?(?:Custom>)?([\w.]+)",
        "{name} has {0}, whose code is not in the file",
        "Write a function that defines it and loads the model, and bench that: edgeprof bench FILE.py:FUNCTION.",
    ),
    (
        r"bad superblock|Unable to (?:synchronously )?open|truncated file|signature not found|accessible `?\.keras",
        "{name} is not a complete Keras model",
        "Save or download it again.",
    ),
    (
        r"Unrecognized keyword arguments? passed|Error when deserializing|Keyword argument not understood",
        "{name} was saved by a release of Keras that this one does not understand: {text}",
        "Load it with the release that saved it (pip install 'tensorflow<2.16' for Keras 2), or convert it there.",
    ),
    (
        r"SavedModel file does not exist|Could not parse|DecodeError|variables\.index|checkpoint",
        "{name} is not a complete SavedModel",
        "Copy its whole folder, with variables/ in it.",
    ),
)

Call = Callable[[], Any]
#: Operators that write into a variable, and those that write into what cannot be read back as a whole.
_VARIABLE_WRITERS = re.compile(r"Assign|Resource(?!Gather)\w*(?:Scatter|Apply)|^Rng")
_TABLE_WRITERS = re.compile(r"LookupTable(?:Insert|Remove|Import)|Queue(?:En|De)queue|^StackP")


class Keras(Runtime):
    name = "keras"
    formats = ("keras", "savedmodel")
    libraries = ("tensorflow",)
    smallest_model = smallest.KERAS
    concurrent = False
    costly_options = (("call", "predict", "model.predict()"), ("call", "call", "model(x) without a graph"))

    def availability(self) -> Availability:
        version = library_version("tensorflow", *DISTRIBUTIONS)
        reason = None if version else "TensorFlow, which runs Keras models, is not installed"
        return Availability(version, reason, None if version else REMEDY)

    def devices(self) -> List[str]:
        count = len(import_tensorflow().config.list_physical_devices("GPU"))
        return ["cpu"] + (["gpu"] if count == 1 else ["gpu:{}".format(number) for number in range(count)])

    def import_library(self) -> None:
        import_tensorflow().keras.layers  # noqa: B018 - this access imports Keras

    def load(self, path: str, options: LoadOptions) -> Session:
        if not os.path.exists(path):
            raise LoadError("{} does not exist".format(path))
        settings = _settings(options)
        refuse_code(path)
        tf = import_tensorflow()
        _configure(tf, options)
        session = open_session(tf, path, settings)
        session.facts.update(
            call=settings["call"],
            threads=str(options.threads or "default"),
            timed=_TIMED[settings["call"]],
        )
        return session


_TIMED = {
    "graph": "a concrete function of the fed shapes; inputs are tensors before the windows",
    "call": "model(x, training=False); inputs are tensors before the windows",
    "predict": "model.predict(x) of arrays, with the data pipeline that it builds in each call",
}


class TensorFlowSession(Session):
    """One model.

    Args:
        tf: The module tensorflow.
        function: Takes the inputs as tensors, in order, and returns the outputs: a tensor, or a list or dict of them.
        inputs: The specs of the inputs.
        outputs: The specs of the outputs; if they are a dict, named by its keys.
        direct: Makes the call that replaces a concrete function, from arrays or tensors in order.
    """

    def __init__(
        self,
        tf: Any,
        function: Callable[..., Any],
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        direct: Optional[Callable[[Sequence[Any]], Call]] = None,
    ) -> None:
        self._tf, self._direct = tf, direct
        #: The object that TensorFlow loaded: the variables exist as long as it does.
        self.loaded: Any = None
        self.function = tf.function(function, autograph=False)
        self._concretes: Dict[Any, Any] = {}
        #: Variables that the model may write, by their references, with their values before the first run.
        self._initial: Dict[Any, Any] = {}
        self._why_dependent: Optional[str] = None
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self.facts = {"library": "tensorflow {}".format(tf.__version__)}

    def run(self, feeds: Dict[str, Any]) -> Dict[str, Any]:
        tensors = self._tensors(feeds)
        try:
            self._concrete(tensors)
            values = self.call(*tensors)
        except (self._tf.errors.OpError, ValueError, TypeError) as error:
            raise LoadError("TensorFlow cannot run the model on these inputs: {}".format(_first_line(error))) from error
        return {spec.name: np.array(values[spec.name].numpy()) for spec in self.outputs}

    def call(self, *tensors: Any) -> Dict[str, Any]:
        """Return the outputs by name, as tensors; the inputs are tensors in order."""
        values = _leaves(self.function(*tensors))
        names = [spec.name for spec in self.outputs]
        return values if set(names) == set(values) else dict(zip(names, values.values()))

    def reset(self) -> Optional[str]:
        for reference, value in self._initial.items():
            reference.deref().assign(value)
        return self._why_dependent

    def bind(self, feeds: Dict[str, Any]) -> Call:
        tensors = self._tensors(feeds)
        concrete = self._concrete(tensors)
        if self._direct is not None:
            return self._direct([np.asarray(feeds[spec.name]) for spec in self.inputs])
        if not self._tf.config.get_visible_devices("GPU"):
            return lambda: concrete(*tensors)

        def on_device() -> Any:  # once its outputs are in host memory, the inference is complete
            return [value.numpy() for value in _leaves(concrete(*tensors)).values()]

        return on_device

    def close(self) -> None:
        self.function = self._direct = self.loaded = None
        self._concretes, self._initial = {}, {}
        with contextlib.suppress(Exception):
            self._tf.keras.backend.clear_session()

    def _concrete(self, tensors: Sequence[Any]) -> Any:
        """Return the function for inputs of these shapes; before it first runs, keep the variables that it may write.

        Reading a variable does not copy it: TensorFlow copies its content only when it is next written.
        """
        key = tuple(tuple(tensor.shape) for tensor in tensors)
        if key not in self._concretes:
            specs = [self._tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in tensors]
            concrete = self._concretes[key] = self.function.get_concrete_function(*specs)
            operators = _operators(concrete.graph)
            if any(_VARIABLE_WRITERS.search(kind) for kind in operators):
                for variable in concrete.graph.variables:
                    self._initial.setdefault(variable.ref(), variable.read_value())
            written = sorted(kind for kind in operators if _TABLE_WRITERS.search(kind))
            if written:
                self._why_dependent = "TensorFlow cannot reset what {} has written".format(", ".join(written))
        return self._concretes[key]

    def _tensors(self, feeds: Dict[str, Any]) -> List[Any]:
        return [self._tf.constant(feeds[spec.name], dtype=spec.dtype) for spec in self.inputs]


def refuse_code(path: str) -> None:
    """Refuse a model that would run its author's code, unless ``--allow-code`` was given; Keras is not imported.

    Raises:
        LoadError: the model carries code, or is not complete.
    """
    code = None if embedded_code.is_code_allowed() else find_code(path)
    if code is not None:
        raise LoadError(
            "{} carries {}, which would run its author's code".format(os.path.basename(path.rstrip(os.sep)), code),
            embedded_code.REMEDY,
        )


def open_session(tf: Any, path: str, settings: Optional[Dict[str, str]] = None) -> TensorFlowSession:
    """Open a model on the device that TensorFlow uses, after ``refuse_code``.

    Args:
        tf: The module tensorflow.
        path: A file, or the folder of a SavedModel.
        settings: ``call`` and ``signature``; None: the defaults.

    Raises:
        LoadError: TensorFlow does not load it.
    """
    chosen = dict(DEFAULTS, **(settings or {}))
    if os.path.isdir(path):
        return _saved_model(tf, path, chosen)
    model = _open_model(tf, path)
    if not model.inputs:
        raise LoadError(
            "{} does not describe its inputs: it was saved before it was built".format(os.path.basename(path)),
            "Give its first layer an Input, or call it once, and save it again.",
        )
    return session_of(tf, model, chosen["call"])


def _open_model(tf: Any, path: str) -> Any:
    """Open a .keras or .h5 file without its optimizer and losses.

    Raises:
        LoadError: Keras does not load it.
    """
    is_safe = {"safe_mode": not embedded_code.is_code_allowed()}
    if "safe_mode" not in inspect.signature(tf.keras.models.load_model).parameters:  # before TensorFlow 2.13
        is_safe = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return tf.keras.models.load_model(path, compile=False, **is_safe)
        except Exception as error:
            raise _load_error(path, error) from None


def session_of(tf: Any, model: Any, call: str = "graph") -> TensorFlowSession:
    """Return the session of a Keras model with inputs; ``call`` is one of CALLS."""
    inputs = _specs(model.inputs, "input")
    outputs = _specs(model.outputs, "output", getattr(model, "output_names", None))
    structure = getattr(model, "input", None)  # a Sequential that has not been called yet has none

    def packed(values: Sequence[Any]) -> Any:
        if isinstance(structure, dict):
            return dict(zip(structure, values))
        return list(values) if len(inputs) > 1 or isinstance(structure, (list, tuple)) else values[0]

    def function(*tensors: Any) -> Any:
        return model(packed(tensors), training=False)

    def direct(arrays: Sequence[Any]) -> Call:
        if call == "predict":
            batch, fed = max(len(arrays[0]), 1), packed(arrays)
            return lambda: model.predict(fed, batch_size=batch, verbose=0)
        tensors = packed([tf.constant(array) for array in arrays])
        if not tf.config.get_visible_devices("GPU"):
            return lambda: model(tensors, training=False)
        return lambda: [value.numpy() for value in _leaves(model(tensors, training=False)).values()]

    session = TensorFlowSession(tf, function, inputs, outputs, None if call == "graph" else direct)
    session.loaded = model
    session.facts["keras"] = str(getattr(tf.keras, "__version__", "unknown"))
    return session


def _saved_model(tf: Any, path: str, settings: Dict[str, str]) -> TensorFlowSession:
    if settings["call"] != "graph":
        raise LoadError(
            "call={} is for .keras and .h5 files; a SavedModel is a graph".format(settings["call"]), "Leave it out."
        )
    try:
        loaded = tf.saved_model.load(path)
    except Exception as error:
        raise _load_error(path, error) from None
    wanted = settings["signature"]
    if wanted not in loaded.signatures:
        there = ", ".join(loaded.signatures) or "none"
        raise LoadError(
            "{} has no signature {}".format(os.path.basename(path), wanted),
            "It has: {}. Choose one with --option signature=NAME, or export it with one.".format(there),
        )
    signature = loaded.signatures[wanted]
    _, named = signature.structured_input_signature
    inputs = [_spec(name, spec) for name, spec in named.items()]
    outputs = [_spec(name, spec) for name, spec in signature.structured_outputs.items()]

    def function(*tensors: Any) -> Any:
        return signature(**{spec.name: tensor for spec, tensor in zip(inputs, tensors)})

    session = TensorFlowSession(tf, function, inputs, outputs)
    session.loaded = loaded
    session.facts["signature"] = wanted
    return session


def _specs(tensors: Sequence[Any], kind: str, names: Optional[Sequence[str]] = None) -> List[TensorSpec]:
    names = list(names or []) or [str(tensor.name).partition(":")[0] for tensor in tensors]
    return [_spec(name, tensor) for name, tensor in zip(unique_names(names, kind), tensors)]


def _spec(name: str, tensor: Any) -> TensorSpec:
    shape: Tuple[Any, ...] = ANY_SHAPE
    if getattr(tensor.shape, "rank", 0) is not None:
        shape = tuple(None if size is None else int(size) for size in tensor.shape)
    dtype = getattr(tensor.dtype, "name", None) or str(tensor.dtype)
    return TensorSpec(name, shape, "object" if dtype == "string" else str(dtype), None)


def _operators(graph: Any) -> Set[str]:
    """The kinds of operators in a graph and in the functions that it calls."""
    definition = graph.as_graph_def()
    kinds = {node.op for node in definition.node}
    return kinds.union(node.op for function in definition.library.function for node in function.node_def)


def _leaves(value: Any, name: str = "output") -> Dict[str, Any]:
    """The tensors in the value of a function: those of a dict by key, those of a list by number."""
    if isinstance(value, dict):
        return {str(key): item for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return {"{}_{}".format(name, number): item for number, item in enumerate(value)}
    return {name: value}


def import_tensorflow() -> Any:
    """Import TensorFlow, without the messages of its start.

    Raises:
        LoadError: it cannot be imported.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import tensorflow as tf
    except Exception as error:
        raise LoadError("TensorFlow cannot be imported: {}".format(error), REMEDY) from None
    return tf


def _settings(options: LoadOptions) -> Dict[str, str]:
    for key, value in options.options.items():
        if key not in OPTIONS or (key == "call" and value not in CALLS):
            raise LoadError(
                "Keras has no option {}={}".format(key, value),
                "It takes {}; call is one of {}.".format(", ".join(OPTIONS), ", ".join(CALLS)),
            )
    return dict(DEFAULTS, **options.options)


def _configure(tf: Any, options: LoadOptions) -> None:
    """Set device and threads, which TensorFlow allows only before its first operator."""
    kind, _, index = options.device.partition(":")
    gpus = tf.config.list_physical_devices("GPU")
    if kind not in ("cpu", "gpu", "cuda") or (index and (kind == "cpu" or not index.isdigit())):
        raise LoadError("TensorFlow has no device {!r}".format(options.device), "It has cpu, gpu, gpu:N.")
    if kind != "cpu" and int(index or 0) >= len(gpus):
        raise LoadError(
            "TensorFlow finds only {} GPU(s) here, but --device {} needs another one".format(len(gpus), options.device),
            "pip install 'tensorflow[and-cuda]' brings CUDA; on a Jetson, install NVIDIA's own wheel.",
        )
    try:
        tf.config.set_visible_devices([] if kind == "cpu" else gpus[int(index or 0) : int(index or 0) + 1], "GPU")
        if options.threads:
            tf.config.threading.set_intra_op_parallelism_threads(options.threads)
            tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError as error:
        raise LoadError(
            "TensorFlow has already started with other threads or another device: {}".format(_first_line(error)),
            "Bench it in a separate process (without --no-isolation).",
        ) from None


def _load_error(path: str, error: Exception) -> LoadError:
    text, name = str(error), os.path.basename(path.rstrip(os.sep))
    for pattern, sentence, remedy in KNOWN_ERRORS:
        match = re.search(pattern, text)
        if match:
            groups = [group for group in match.groups() if group]
            return LoadError(sentence.format(*groups, name=name, text=_first_line(error)), remedy)
    return LoadError("TensorFlow does not load {}: {}".format(name, _first_line(error)))


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__


@hookimpl
def register_runtimes(register: Callable[..., None]) -> None:
    register("keras", Keras)
