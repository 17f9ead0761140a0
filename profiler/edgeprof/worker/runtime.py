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

#: The shape and the dtype of a tensor of which the file says nothing (TorchScript): whatever is fed.
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
        ("seconds", float),  # in one call of ``bind``, the mean of those that were looked at
    ],
)

OperatorProfile = NamedTuple(
    "OperatorProfile",
    [
        ("operators", List[OperatorTime]),
        ("seconds", float),  # of one of the same calls as a whole, by the host's clock
    ],
)


MicrocontrollerNeed = NamedTuple(
    "MicrocontrollerNeed",
    [
        ("arena_bytes", Optional[int]),  # RAM for all tensors; None: it does not run there
        ("head_bytes", Optional[int]),  # of it, activations
        ("tail_bytes", Optional[int]),  # of it, what stays: descriptions of tensors, buffers of operators
        ("flash_bytes", int),  # of the model alone, without the code that runs it
        ("unsupported_operators", List[str]),
        ("reason", Optional[str]),  # why the arena is not known; None: it is
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
    # A package without a file of its own is believed only with its metadata: any folder of that name looks the same.
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
    """The command that adds a library to the Python that runs this: edgeprof's own by its extra, another's by name."""
    if getattr(sys.modules.get("edgeprof"), "__spec__", None) is not None:  # a worker has a stand-in without one
        return "pip install 'edgeprof[{}]'".format(extra)
    return "{} -m pip install {}".format(sys.executable, package)


class LoadError(Exception):
    """What a runtime raises for a model or option that it cannot use: one sentence, and a remedy where there is one."""

    def __init__(self, message: str, remedy: Optional[str] = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy


class Session(ABC):
    """A loaded model."""

    #: What must be fed and what comes back; dynamic dimensions stay dynamic here.
    inputs: Sequence[TensorSpec] = ()
    outputs: Sequence[TensorSpec] = ()

    #: Inputs that the model itself brings along (name → array), fed where the user gives none; most bring none.
    examples: Optional[Dict[str, Any]] = None

    #: Input → the values that suit it, where the model's graph shows what it is: ``("below", n)`` for indices from 0,
    #: ``("all", value)``, ``("values", [...])``, or ``("inferred",)`` for a shape that takes all; others are random.
    fits: Dict[str, Sequence[Any]] = {}

    #: Of the library, where it tells better than the metadata of its installation; most need not say.
    version: Optional[str] = None

    #: What really runs, for the result: {"providers": "CPUExecutionProvider", "threads": "4", …}
    facts: Dict[str, str] = {}

    @abstractmethod
    def run(self, feeds: Dict[str, Any]) -> Dict[str, Any]:
        """Run once: name → array in, name → array out (copies that the caller may keep)."""

    def reset(self) -> Optional[str]:
        """Forget what earlier runs have left in the model, as the state of an LSTM, so that the next one starts fresh.

        It is called before each run whose outputs are judged. A runtime whose sessions keep nothing has nothing to do.

        Returns:
            None; or, where something stays that the runtime cannot take back, a sentence that says what.
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
        """What can be asked of this model again and again, the main one first; asked once, after the first ``run``.

        Each is measured in windows of its own. Figures of a result that name no workload are those of the main one.
        """
        return (INFERENCE,)

    def bind_workload(self, name: str, feeds: Dict[str, Any]) -> Callable[[], Any]:  # noqa: ARG002 - for those with several
        """As ``bind``, for one of ``workloads``: the call does all of its ``units_per_call``, complete.

        A call that needs a state (a decode needs a prompt that was read) brings itself back to it.
        """
        return self.bind(feeds)

    def bind_burst(self, name: str, feeds: Dict[str, Any]) -> Optional[Callable[[float], Burst]]:  # noqa: ARG002 - see below
        """As ``bind_workload``, for a device that repeats a workload by itself and reports when it began and ended.

        The call has the device work for about so many seconds, at least once, and returns what it reported. Windows are
        then made of it, and what passes between this machine and the device is in none of them. None: this machine
        repeats the calls.
        """
        return None

    def microcontroller(self) -> Optional[Dict[str, Any]]:
        """Of a model that runs on a device of its own, beside this machine: what that device says of itself.

        Returns:
            ``name``, ``model`` (None: it does not say), ``arena_bytes``, ``flash_bytes`` and ``ram_bytes`` (None:
            unknown); None of a model that runs on this machine.
        """
        return None

    def language(self) -> Optional[Dict[str, Any]]:
        """What a language model was asked for, after the first ``run``; None of any other model.

        Returns:
            ``prompt_tokens``, ``generated_tokens``, ``depth``, ``context`` (tokens of the whole cache; None: unknown),
            ``kv_type`` (None: unknown) and ``method`` (how its phases were told apart, as ``phase-windows``). Where
            they are known, also ``batch`` (requests at once), ``random_weights`` (whether the weights mean nothing),
            ``parameters``, ``kv_cache_bytes``, ``kv_formula_bytes`` and ``compute_buffer_bytes``. Where a server runs
            it, also ``place``: ``this device`` or ``another machine``.
        """
        return None

    def text_tokens(self, text: str) -> "Optional[Tuple[Sequence[int], Optional[int]]]":  # noqa: ARG002 - for those that can
        """The tokens of a text as this language model reads it, and the token that begins each piece of a text.

        Returns:
            The tokens, and the begin token (None: the model is given none); None where this session cannot tell how
            likely a text is.
        """
        return None

    def log_likelihoods(self, tokens: Sequence[int], first: int) -> Sequence[float]:
        """How likely a language model finds a text that it reads: for each token from ``tokens[first]`` on the natural
        logarithm of its probability behind all tokens before it.

        Args:
            tokens: At most as many as fit into the context that the session was loaded with.
            first: From 1 on.

        Returns:
            ``len(tokens) - first`` numbers, as a rule below 0. What was in the cache is forgotten.
        """
        raise NotImplementedError

    def take_token_times(self) -> "Tuple[array[int], array[float]]":
        """Of the requests since this was last asked: the tokens of each, and the seconds from the beginning of its
        request to each token. Asked before and after each window.
        """
        return array("q"), array("d")

    def pipeline(self) -> Optional[Dict[str, Any]]:
        """What a pipeline is measured with, after ``workloads``; None of any other model.

        Returns:
            ``source`` (what its frames are called), ``frames`` (how many make a loop), ``notes`` (sentences), and
            ``stages``, in order: ``name``, ``repeats`` (how often its workload calls it again in each frame),
            ``alone_s`` (seconds of a call by itself; None: unknown) and ``trouble`` (why it has no workload; None: it
            has).
        """
        return None

    def take_stage_times(self) -> "array[float]":
        """Of the frames since this was last asked: the seconds of each stage in each frame, frame by frame. Asked
        before and after each window of the main workload.
        """
        return array("d")

    def bind_queued(self, feeds: Dict[str, Any]) -> Optional[Callable[[], Any]]:  # noqa: ARG002 - for those that can
        """As ``bind``, for a device that runs on its own: the call enqueues one inference and waits for the one before,
        so that the device always has the next one waiting; ``synchronize`` ends the last. None: there is no queue.
        """
        return None

    def bind_timed(self, feeds: Dict[str, Any]) -> Optional[Callable[[], Dict[str, float]]]:  # noqa: ARG002 - see above
        """As ``bind``, but the call returns the seconds of its parts, by the device's own clock as far as it has one:
        ``compute`` on the device, ``h2d`` and ``d2h`` for copies to and from it, ``enqueue`` for what the host needs to
        start the computation, ``wall`` for all of it by the host's clock. None: the runtime cannot tell.
        """
        return None

    def synchronize(self) -> None:  # noqa: B027 - most devices are synchronous
        """Wait until the device has nothing left to do."""

    def profile_operators(self, feeds: Dict[str, Any], calls: int) -> Optional[OperatorProfile]:  # noqa: ARG002 - see above
        """What each operator of the model takes, by the library's own profiler. None: the library has none.

        It runs in a worker of its own that is thrown away afterwards, so it may load the model once more, may slow it
        down, and may crash.

        Args:
            feeds: The inputs.
            calls: How many inferences to look at, after some that warm up.

        Raises:
            LoadError: the library's profiler cannot be used here; the sentence says why.
        """
        return None

    def gpu_peak_bytes(self) -> Optional[int]:
        """The most device memory that this session has held, where the runtime can tell."""
        return None

    def close(self) -> None:  # noqa: B027 - dropping the reference is enough for some
        """Give memory and devices back; safe to call twice."""


class Runtime(ABC):
    """A library that runs models."""

    #: As registered: "onnxruntime".
    name = ""
    #: The formats of artifact.FORMATS that it loads, best first.
    formats: Tuple[str, ...] = ()
    #: Formats that this runtime brings itself: name (also in ``formats``) → offset in the file, and the bytes there.
    #: They are asked about files that edgeprof does not know.
    own_formats: Dict[str, Tuple[int, bytes]] = {}
    #: Whether its models are language models, for which ``--prompt`` and the other lengths are meant.
    is_for_language = False
    #: Whether its models run on this machine: what its sensors, clocks and other programs say then matters to them.
    runs_here = True
    #: Whether several sessions may run at once in threads of one process (multi-stream).
    concurrent = True
    #: The device where the user names none.
    default_device = "cpu"
    #: The modules of which one must be importable where it runs, the preferred one first: ("onnxruntime",). ``edgeprof
    #: doctor`` looks for them in the other Pythons of this machine.
    libraries: Tuple[str, ...] = ()
    #: The smallest model file of ``smallest_format`` (its first format where that is None), which ``edgeprof doctor``
    #: runs to see that the runtime works; with None it only imports the library. One of the format ``python`` defines
    #: ``model``.
    smallest_model: Optional[bytes] = None
    smallest_format: Optional[str] = None
    #: What may help where the library crashes while it loads a model, as an option that avoids the part that crashes.
    crash_remedy: Optional[str] = None
    #: Ways to use the library that people meet and that can cost time: option, its value, and what it is, as the
    #: beginning of a sentence. ``edgeprof diagnose`` times each against what the runtime does by default.
    costly_options: Sequence[Tuple[str, str, str]] = ()
    #: Whether ``inspect`` must be called in a process of its own, because its library starts threads that would not
    #: follow into processes that are forked later. Its Graph is then pickled.
    inspects_apart = False

    @abstractmethod
    def availability(self) -> Availability:
        """Whether it can be used here. Cheap: looks for the library without importing it."""

    @abstractmethod
    def devices(self) -> List[str]:
        """The devices that ``--device`` accepts here; "cpu" first where there is one. Called in the worker."""

    def import_library(self) -> None:
        """Bring the library into memory as ``load`` will use it, so that its share of the memory can be told apart from
        the model's. Called in the worker before ``load``, which is to say what is wrong with a library.
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

        Called in edgeprof's own process (see ``inspects_apart``) and never in the worker, so that what it needs may be
        installed for edgeprof alone. None: this runtime cannot tell.

        Raises:
            ImportError: a library that it reads with is not installed.
        """
        return None

    def inspect_with_inputs(self, path: str, inputs: Dict[str, Any]) -> Optional[Graph]:  # noqa: ARG002 - likewise
        """As ``inspect``, of a model that gets these inputs, where its file leaves sizes open.

        Args:
            path: The model file.
            inputs: Input name → array, or only its shape; the one name "" stands for a single input, whatever it is
                called. Empty: nothing was given.
        """
        return self.inspect(path)

    def microcontroller_need(self, path: str) -> Optional[MicrocontrollerNeed]:  # noqa: ARG002 - likewise
        """What a model needs of a microcontroller; None: this runtime cannot tell. Called where ``inspect`` is.

        What can crash is to run in a process of its own.
        """
        return None

    def taps(
        self,
        path: str,
        names: Sequence[str],
        feeds: Iterable[Dict[str, Any]],
    ) -> Iterator[Dict[str, Any]]:
        """What tensors inside a model hold, as real numbers, for each set of inputs.

        Called where ``inspect`` was, and only where its Graph names ``tensors``.

        Args:
            path: The model file.
            names: The tensors; those that the model does not have are left out.
            feeds: Inputs by name; the one name "" stands for a single input, whatever it is called.
        """
        raise NotImplementedError
