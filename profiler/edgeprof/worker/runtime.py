"""The contract of a runtime: recognise, load, bind, run, close.

A runtime is one file. The parent imports it for its metadata; the worker imports the same file by its path, perhaps
under another and older Python (``--worker-python``). Hence: Python 3.6 grammar, standard library and numpy only at the
top, the heavy library imported inside ``load``, and from edgeprof nothing but ``hookimpl`` and this module.
"""

import importlib
import importlib.util
import os
import re
import sys
from abc import ABC, abstractmethod
from array import array
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

from edgeprof.worker.graph import Graph
from edgeprof.worker.workload import INFERENCE, Burst, Workload

#: A dimension: a number, or a name ("batch") or None where it is dynamic.
Dim = Union[int, str, None]

#: The shape and the dtype of a tensor that the file does not describe (TorchScript): it takes whatever is fed.
ANY_SHAPE: Tuple[Dim, ...] = ("...",)
ANY_DTYPE = "any"

TensorSpec = NamedTuple(
    "TensorSpec",
    [
        ("name", str),
        ("shape", Tuple[Dim, ...]),  # or ANY_SHAPE
        ("dtype", str),  # numpy's name: "float32", "int8", "uint8", "int64", "bool", "object" for strings; or ANY_DTYPE
        ("quantization", Optional[Tuple[float, int]]),  # (scale, zero point) of a quantised tensor, else None
    ],
)

#: The input of a pipeline whose answers are judged: a batch of one frame.
FRAME_INPUT = TensorSpec("frame", ANY_SHAPE, ANY_DTYPE, None)


class LoadOptions(NamedTuple):
    """How a model is to be loaded."""

    device: str  # "cpu", "cuda", "cuda:0", or the runtime's own (an execution provider, a delegate's path)
    threads: Optional[int]  # None: the runtime's own default
    batch: int
    shapes: Dict[str, Tuple[int, ...]]  # --input NAME=SHAPE, complete
    options: Dict[str, str]  # whatever else the runtime documents
    dtypes: Dict[str, str] = {}  # --input NAME=SHAPE:DTYPE, where it was given


OperatorTime = NamedTuple(
    "OperatorTime",
    [
        ("name", str),  # as the library calls it, of the graph that it executes
        ("type", str),  # "Conv", "FullyConnected" …
        ("seconds", float),  # in one call of ``bind``, the mean over the profiled calls
    ],
)

OperatorProfile = NamedTuple(
    "OperatorProfile",
    [
        ("operators", List[OperatorTime]),
        ("seconds", float),  # of one of the same calls as a whole, by the host's clock
    ],
)


IsolatedOperators = NamedTuple(
    "IsolatedOperators",
    [
        ("workloads", List[Workload]),  # named as the operators; ``units_per_call``: how often a call runs the operator
        ("refused", Dict[str, str]),  # operator → why it cannot be run alone
    ],
)


MicrocontrollerNeed = NamedTuple(
    "MicrocontrollerNeed",
    [
        ("arena_bytes", Optional[int]),  # RAM for all tensors; None: it does not run there
        ("head_bytes", Optional[int]),  # the part for activations
        ("tail_bytes", Optional[int]),  # the part that stays occupied: descriptions of tensors, buffers of operators
        ("flash_bytes", int),  # of the model alone, without the code that runs it
        ("unsupported_operators", List[str]),
        ("reason", Optional[str]),  # why the arena is not known; None: it is
    ],
)


CycleEstimate = NamedTuple(
    "CycleEstimate",
    [
        ("processor", str),  # as its maker's compiler calls it
        ("cycles", float),  # of one inference, by the compiler's model of the processor; nothing was measured
        ("clock_hz", float),  # the clock that the compiler assumes
    ],
)


Availability = NamedTuple(
    "Availability",
    [
        ("version", Optional[str]),  # of the library; None: not installed
        ("reason", Optional[str]),  # why it cannot be used; None: it can
        ("remedy", Optional[str]),  # the command that mends it, as "pip install 'edgeprof[onnx]'"
    ],
)


def library_version(module: str, *distributions: str) -> Optional[str]:
    """The version of an installed library, found without importing it; None where it is not installed.

    Args:
        module: What would be imported: ``"onnxruntime"``.
        distributions: The names under which it may be installed, where they are not the module's:
            ``"onnxruntime-gpu"``. A library without metadata (a board's own build) is ``"unknown"``.
    """
    top = module.partition(".")[0]
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):  # ValueError: already imported, but as a module without a spec
        return None
    if spec is None:
        return None
    # A package without an __init__.py counts only with metadata: any folder of that name looks the same.
    is_bare = spec.origin is None
    place = spec.origin or next(iter(spec.submodule_search_locations or ()), "")
    site = os.path.dirname(place)
    if not is_bare and spec.submodule_search_locations is not None:
        site = os.path.dirname(site)
    names = {re.sub(r"[-_.]+", "_", name).lower() for name in distributions or (top,)}
    try:
        entries = sorted(os.listdir(site))
    except OSError:  # in a zip
        return "unknown"
    for entry in entries:
        # Metadata directories are read by name: importlib.metadata came with Python 3.8.
        match = re.match(r"(.+?)-([^-]+)(-[^/]*)?\.(dist-info|egg-info)$", entry)
        if match and re.sub(r"[-_.]+", "_", match.group(1)).lower() in names:
            return match.group(2)
    return None if is_bare else "unknown"


def install_command(extra: str, package: str) -> str:
    """The command that installs a library for this Python: an extra of edgeprof, or the package by its name."""
    if getattr(sys.modules.get("edgeprof"), "__spec__", None) is not None:  # a worker has a stand-in without one
        return "pip install 'edgeprof[{}]'".format(extra)
    return "{} -m pip install {}".format(sys.executable, package)


class LoadError(Exception):
    """Raised for a model or an option that a runtime cannot use: one sentence, and a remedy where there is one."""

    def __init__(self, message: str, remedy: Optional[str] = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy


class Session(ABC):
    """A loaded model."""

    #: The tensors that the model takes and returns; dynamic dimensions stay dynamic here.
    inputs: Sequence[TensorSpec] = ()
    outputs: Sequence[TensorSpec] = ()

    #: The inputs of ``run`` where answers are judged; None: ``inputs``.
    judged_inputs: Optional[Sequence[TensorSpec]] = None

    #: Example inputs that come with the model (name → array), used where the user gives none; most models have none.
    examples: Optional[Dict[str, Any]] = None

    #: Input → the values that suit it, where the model's graph shows what it is: ``("below", n)`` for indices from 0,
    #: ``("all", value)``, ``("values", [...])``, or ``("inferred",)`` for a shape that takes all; others are random.
    fits: Dict[str, Sequence[Any]] = {}

    #: The version of the library, where the library knows it better than the metadata of its installation.
    version: Optional[str] = None

    #: What really runs, as the result reports it: {"providers": "CPUExecutionProvider", "threads": "4", …}
    facts: Dict[str, str] = {}

    @abstractmethod
    def run(self, feeds: Dict[str, Any]) -> Dict[str, Any]:
        """Run once: name → array in, name → array out (copies that the caller may keep)."""

    def reset(self) -> Optional[str]:
        """Forget what earlier runs have left in the model, such as the state of an LSTM.

        It is called before each run whose outputs are judged. A runtime whose sessions keep no state need not override
        it.

        Returns:
            None; or, where a state remains that the runtime cannot reset, a sentence that says which.
        """
        return None

    def bind(self, feeds: Dict[str, Any]) -> Callable[[], Any]:
        """Prepare everything that a deployed application prepares once, and return the call that windows repeat.

        The call does one inference of these feeds, complete: an asynchronous device is synchronised before it returns.
        """

        def call() -> Any:
            return self.run(feeds)

        return call

    def workloads(self) -> Sequence[Workload]:
        """The workloads that this model can repeat, the main one first; called once, after the first ``run``.

        Each workload is measured in windows of its own. Figures of a result that name no workload are the main one's.
        """
        return (INFERENCE,)

    def bind_workload(self, name: str, feeds: Dict[str, Any]) -> Callable[[], Any]:  # noqa: ARG002 - for those with several
        """As ``bind``, for one of ``workloads``: the call does all of its ``units_per_call``, complete.

        A call that needs a state (a decode needs a prompt that was read) restores that state itself.
        """
        return self.bind(feeds)

    def bind_burst(self, name: str, feeds: Dict[str, Any]) -> Optional[Callable[[float], Burst]]:  # noqa: ARG002 - see below
        """As ``bind_workload``, for a device that repeats a workload by itself and reports when it began and ended.

        The call makes the device work for about so many seconds, at least once, and returns what the device reported.
        Each window is then one burst, and no window contains the communication between this machine and the device.
        None means that this machine repeats the calls.
        """
        return None

    def microcontroller(self) -> Optional[Dict[str, Any]]:
        """Describe the microcontroller that runs the model, as it reports itself.

        Returns:
            ``name``, ``model`` (None if it does not say), ``arena_bytes``, ``flash_bytes`` and ``ram_bytes`` (None if
            unknown). None for a model that runs on this machine.
        """
        return None

    def language(self) -> Optional[Dict[str, Any]]:
        """Describe the requests of a language model, after the first ``run``; None for any other model.

        Returns:
            ``prompt_tokens``, ``generated_tokens``, ``depth``, ``context`` (tokens of the whole cache; None: unknown),
            ``kv_type`` (None: unknown) and ``method`` (how its phases are separated, such as ``phase-windows``). Where
            they are known, also ``batch`` (requests at once), ``random_weights`` (whether the weights mean nothing),
            ``parameters``, ``kv_cache_bytes``, ``kv_formula_bytes`` and ``compute_buffer_bytes``. Where a server runs
            it, also ``place``: ``this device`` or ``another machine``.
        """
        return None

    def text_tokens(self, text: str) -> "Optional[Tuple[Sequence[int], Optional[int]]]":  # noqa: ARG002 - for those that can
        """Tokenize a text, and name the token that begins each piece of a text.

        Returns:
            The tokens, and the begin token (None if the model uses none). None where this session has no
            ``log_likelihoods``.
        """
        return None

    def log_likelihoods(self, tokens: Sequence[int], first: int) -> Sequence[float]:
        """How likely the model finds a text: the natural logarithm of the probability of each token from
        ``tokens[first]`` on, given all tokens before it. The cache is empty afterwards.

        Args:
            tokens: At most as many as fit into the context that the session was loaded with.
            first: The index of the first token to judge, at least 1.

        Returns:
            ``len(tokens) - first`` numbers, 0 or less.
        """
        raise NotImplementedError

    def take_token_times(self) -> "Tuple[array[int], array[float]]":
        """Return and forget the token times of all requests since the last call: how many tokens each request had, and
        the seconds from the beginning of its request to each token. Called before and after each window.
        """
        return array("q"), array("d")

    def pipeline(self) -> Optional[Dict[str, Any]]:
        """Describe how a pipeline is measured, after ``workloads``; None for any other model.

        Returns:
            ``source`` (a name for its frames), ``frames`` (how many make a loop), ``notes`` (sentences), and
            ``stages``, in order: ``name``, ``repeats`` (how many more times its workload calls it in each frame),
            ``alone_s`` (seconds of a call by itself; None: unknown) and ``trouble`` (why it has no workload; None if it
            has one).
        """
        return None

    def take_stage_times(self) -> "array[float]":
        """Return and forget the seconds of each stage in each frame since the last call, frame by frame. Called before
        and after each window of the main workload.
        """
        return array("d")

    def bind_queued(self, feeds: Dict[str, Any]) -> Optional[Callable[[], Any]]:  # noqa: ARG002 - for those that can
        """As ``bind``, for an asynchronous device: the call enqueues one inference and waits for the previous one, so
        that the next inference is always waiting; ``synchronize`` waits for the last. None: there is no queue.
        """
        return None

    def bind_timed(self, feeds: Dict[str, Any]) -> Optional[Callable[[], Dict[str, float]]]:  # noqa: ARG002 - see above
        """As ``bind``, but the call returns the seconds of its parts, by the device's own clock as far as it has one:
        ``compute`` on the device, ``h2d`` and ``d2h`` for copies to and from it, ``enqueue`` for the host's work to
        start the computation, ``wall`` for the whole call by the host's clock. None: the runtime has no such clock.
        """
        return None

    def synchronize(self) -> None:  # noqa: B027 - most devices are synchronous
        """Wait until the device has nothing left to do."""

    def profile_operators(self, feeds: Dict[str, Any], calls: int) -> Optional[OperatorProfile]:  # noqa: ARG002 - see above
        """Time each operator of the model by the library's own profiler. None: the library has none.

        It runs in a worker of its own that is thrown away afterwards, so it may load the model once more, may slow it
        down, and may crash.

        Args:
            feeds: The inputs.
            calls: How many inferences to profile, after some that warm up.

        Raises:
            LoadError: the library's profiler cannot be used here; the sentence says why.
        """
        return None

    def isolate_operators(self, feeds: Dict[str, Any], names: Sequence[str]) -> Optional[IsolatedOperators]:  # noqa: ARG002 - see above
        """Cut operators out of the model, each with the inputs that it has in an inference of ``feeds``, so that
        ``bind_workload`` can repeat each alone. None: the runtime cannot cut out operators.

        A call should run its operator so often that starting the call takes no noticeable part of it. This too happens
        in a worker of its own.

        Args:
            feeds: The inputs of the model.
            names: Names of operators, as ``profile_operators`` of another session returned them.

        Raises:
            LoadError: no operator of this model can be cut out; the sentence says why.
        """
        return None

    def gpu_peak_bytes(self) -> Optional[int]:
        """The most device memory that this session has held, in bytes; None where the runtime does not know."""
        return None

    def close(self) -> None:  # noqa: B027 - dropping the reference is enough for some
        """Release memory and devices; safe to call twice."""


class Runtime(ABC):
    """A library that runs models."""

    #: The name by which users choose it: "onnxruntime".
    name = ""
    #: The formats of artifact.FORMATS that it loads, best first.
    formats: Tuple[str, ...] = ()
    #: Formats that this runtime adds: name (also in ``formats``) → an offset in the file, and the bytes there by which
    #: the format is recognised. Files of edgeprof's own formats are never taken for them.
    own_formats: Dict[str, Tuple[int, bytes]] = {}
    #: Whether its models are language models, for which ``--prompt`` and the other lengths are meant.
    is_for_language = False
    #: Whether its models run on this machine, so that its sensors, its clocks and its other programs matter to them.
    runs_here = True
    #: Whether several sessions may run at once in threads of one process (multi-stream).
    concurrent = True
    #: The device where the user names none.
    default_device = "cpu"
    #: Modules, one of which must be importable where the runtime runs, the preferred one first: ("onnxruntime",).
    #: ``edgeprof doctor`` looks for them in the other Pythons of this machine.
    libraries: Tuple[str, ...] = ()
    #: The smallest model file of ``smallest_format`` (its first format where that is None), which ``edgeprof doctor``
    #: runs to see that the runtime works; with None it only imports the library. For the format ``python`` the file
    #: defines ``model``.
    smallest_model: Optional[bytes] = None
    smallest_format: Optional[str] = None
    #: Suffix of a file that belongs beside ``smallest_model``, under the same name → its content.
    smallest_beside: Dict[str, bytes] = {}
    #: What may help where the library crashes while it loads a model, such as an option that avoids the crashing part.
    crash_remedy: Optional[str] = None
    #: Settings that are common and can cost time: the option, its value, and a description as the beginning of a
    #: sentence. ``edgeprof diagnose`` times each setting against the runtime's default.
    costly_options: Sequence[Tuple[str, str, str]] = ()
    #: Settings that can need less memory than the default, in the same form; ``edgeprof diagnose`` compares both.
    saving_options: Sequence[Tuple[str, str, str]] = ()
    #: Whether ``inspect`` must be called in a process of its own, because its library starts threads, which processes
    #: that are forked later would lack. The Graph is then pickled.
    inspects_apart = False

    @abstractmethod
    def availability(self) -> Availability:
        """Whether the runtime can be used here. It must be quick: look for the library without importing it."""

    @abstractmethod
    def devices(self) -> List[str]:
        """The devices that ``--device`` accepts here; "cpu" first where there is one. Called in the worker."""

    def import_library(self) -> None:
        """Import the library as ``load`` will use it, so that its memory can be told apart from the model's. Called in
        the worker before ``load``. Errors are ignored here: ``load`` must report what is wrong with the library.
        """
        for module in self.libraries:
            if library_version(module) is not None:
                importlib.import_module(module)
                return

    @abstractmethod
    def load(self, path: str, options: LoadOptions) -> Session:
        """Load a model file (or ``module:attribute``).

        Raises:
            LoadError: the file, the device or an option cannot be used; the sentence says which and why.
        """

    def inspect(self, path: str) -> Optional[Graph]:  # noqa: ARG002 - for those that can
        """What a model file computes, as this runtime executes it: its layers, their arithmetic, its tensors.

        Called in edgeprof's own process (see ``inspects_apart``) and never in the worker, so that the libraries which
        it needs may be installed for edgeprof alone. None: this runtime cannot inspect models.

        Raises:
            ImportError: a library that it needs is not installed.
        """
        return None

    def inspect_with_inputs(self, path: str, inputs: Dict[str, Any]) -> Optional[Graph]:  # noqa: ARG002 - likewise
        """As ``inspect``, with given inputs for the sizes that the file leaves open.

        Args:
            path: The model file.
            inputs: Input name → array, or only its shape; the name "" stands for the model's only input. Empty if the
                user gave none.
        """
        return self.inspect(path)

    def inspect_remedy(self) -> Optional[str]:
        """How to get the library that ``inspect`` needs beyond the runtime's own; None if it is there."""
        return None

    def microcontroller_need(self, path: str) -> Optional[MicrocontrollerNeed]:  # noqa: ARG002 - likewise
        """What a model needs of a microcontroller; None if this runtime does not know. Called in the same process as
        ``inspect``.

        Code that may crash must run in a process of its own.
        """
        return None

    def estimate_cycles(self, path: str) -> List[CycleEstimate]:  # noqa: ARG002 - likewise
        """How many cycles a maker's compiler estimates for a model on the maker's processors; empty if there is none.

        Code that may crash must run in a process of its own.
        """
        return []

    def taps(
        self,
        path: str,
        names: Sequence[str],
        feeds: Iterable[Dict[str, Any]],
    ) -> Iterator[Dict[str, Any]]:
        """The values of tensors inside a model, as real numbers, for each set of inputs.

        Called in the same process as ``inspect``, and only where its Graph names ``tensors``.

        Args:
            path: The model file.
            names: The tensors; names that the model does not have are ignored.
            feeds: Inputs by name; the name "" stands for the model's only input.
        """
        raise NotImplementedError
