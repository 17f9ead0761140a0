"""Profile the operators of a .tflite file by LiteRT's own profiler, which its Python package does not offer.

LiteRT's C interface is called by ctypes (litert/c/litert_profiler.h and related headers of LiteRT 2.3). Its layout
changes between releases: every call is checked, and unexpected values are refused. A layout that changes without a new
name can still crash the process, so this runs in a worker that is not used afterwards. Python 3.6 grammar.
"""

import contextlib
import ctypes
import os
import time
from typing import Any, Iterator, List, Sequence, Tuple

import numpy as np

from edgeprof.worker.runtime import LoadError, OperatorProfile, OperatorTime

#: LiteRtElementType → numpy's name.
_ELEMENTS = {"float32": 1, "int32": 2, "uint8": 3, "int64": 4, "bool": 6, "int16": 7, "int8": 9, "float16": 10}
#: Kinds of events (tflite::Profiler::EventType): an operator, operators inside a delegate, a whole run, and a call of
#: the interpreter, which is the only one of the two in models without a signature.
_OPERATOR, _IN_DELEGATE, _RUN, _CALL = 2, (4, 8), 16, 1
_LARGEST_KIND, _LONGEST_US = 1 << 12, 10**9
#: Words of 8 bytes in one LiteRtProfilerEvent.
_WORDS = 13
_ON_CPU = 1
_WRITE = 1
_WARM_UP = 5
#: Fewest calls for a mean of times, since events have whole microseconds.
LEAST_CALLS = 100

_Pointer, _Size = ctypes.c_void_p, ctypes.c_size_t


class _Layout(ctypes.Structure):
    _fields_ = [("bits", ctypes.c_uint32), ("dimensions", ctypes.c_int32 * 8), ("strides", ctypes.c_uint32 * 8)]


class _TensorType(ctypes.Structure):
    _fields_ = [("element", ctypes.c_int32), ("layout", _Layout)]


def profile(package: str, path: str, inputs: Sequence[Any], outputs: Sequence[str], calls: int) -> OperatorProfile:
    """Profile a model by LiteRT's compiled models on the CPU.

    Args:
        package: Folder of ai_edge_litert.
        path: The model.
        inputs: Arrays, in the order of the model's inputs.
        outputs: The dtypes of its outputs, in order.
        calls: Number of inferences to profile.

    Raises:
        LoadError: this LiteRT has another interface, or does not run the model in this way.
    """
    api = _Api(os.path.join(package, "libLiteRt.so"))
    model, profiler = api.compiled(path)
    fed = api.buffers(model, [str(array.dtype) for array in inputs], are_inputs=True)
    for buffer, array in zip(fed, inputs):
        api.write(buffer, array)
    answers = api.buffers(model, outputs, are_inputs=False)

    def run() -> None:
        api.ask("LiteRtRunCompiledModel", model, _Size(0), _Size(len(fed)), fed, _Size(len(answers)), answers)

    for _ in range(_WARM_UP):
        run()
    api.ask("LiteRtStartProfiler", profiler)
    start = time.monotonic()
    for _ in range(calls):
        run()
    seconds = (time.monotonic() - start) / calls
    api.ask("LiteRtStopProfiler", profiler)
    events = list(api.events(profiler))
    return OperatorProfile(_operators(events, calls), _run_seconds(events) / calls or seconds)


class _Api:
    """LiteRT's C interface; a call that does not return 0 raises an error with its name."""

    def __init__(self, library: str) -> None:
        try:
            self._library = ctypes.CDLL(library)
        except OSError as error:
            raise LoadError("LiteRT's library cannot be opened: {}".format(error)) from None

    def ask(self, name: str, *arguments: Any) -> None:
        try:
            function = getattr(self._library, name)
        except AttributeError:
            raise LoadError("this LiteRT lacks {}, which its profiler needs".format(name)) from None
        status = function(*arguments)
        if status != 0:
            raise LoadError("LiteRT's {} failed with status {}".format(name, status))

    def compiled(self, path: str) -> Tuple[Any, Any]:
        """Compile a model for the CPU with profiling, and return the compiled model and its profiler."""
        environment, model, options, more, compiled, profiler = (_Pointer() for _ in range(6))
        self.ask("LiteRtCreateEnvironment", 0, None, ctypes.byref(environment))
        self.ask("LiteRtCreateModelFromFile", environment, os.fsencode(path), ctypes.byref(model))
        self.ask("LiteRtCreateOptions", ctypes.byref(options))
        self.ask("LiteRtSetOptionsHardwareAccelerators", options, _ON_CPU)
        # Both must live as long as the process: LiteRT calls the deleter to free the text.
        self._text = ctypes.create_string_buffer(b"enable_profiling = true\n")
        deleter = ctypes.CFUNCTYPE(None, _Pointer)
        self._keep = deleter(lambda _: None)
        with contextlib.suppress(AttributeError):  # ``ask`` reports it
            self._library.LiteRtCreateOpaqueOptions.argtypes = [ctypes.c_char_p, _Pointer, deleter, _Pointer]
        text = ctypes.cast(self._text, _Pointer)
        self.ask("LiteRtCreateOpaqueOptions", b"runtime_options_string", text, self._keep, ctypes.byref(more))
        self.ask("LiteRtAddOpaqueOptions", options, more)
        self.ask("LiteRtCreateCompiledModel", environment, model, options, ctypes.byref(compiled))
        self.ask("LiteRtCompiledModelGetProfiler", compiled, ctypes.byref(profiler))
        if profiler.value is None:
            raise LoadError("this LiteRT does not provide a profiler")
        self._environment = environment
        return compiled, profiler

    def buffers(self, model: Any, dtypes: Sequence[str], are_inputs: bool) -> Any:
        """Create a buffer for each input or output."""
        kind, layouts = "Input" if are_inputs else "Output", (_Layout * len(dtypes))()
        if not are_inputs:
            self.ask(
                "LiteRtGetCompiledModelOutputTensorLayouts",
                model,
                _Size(0),
                _Size(len(dtypes)),
                layouts,
                ctypes.c_bool(False),
            )
        buffers = (_Pointer * len(dtypes))()
        for number, dtype in enumerate(dtypes):
            if dtype not in _ELEMENTS:
                raise LoadError("LiteRT's profiler is not supported for tensors of {}".format(dtype))
            requirements, buffer, index = _Pointer(), _Pointer(), _Size(number)
            asked = "LiteRtGetCompiledModel{}BufferRequirements".format(kind)
            self.ask(asked, model, _Size(0), index, ctypes.byref(requirements))
            if are_inputs:
                layout = ctypes.byref(layouts[number])
                self.ask("LiteRtGetCompiledModelInputTensorLayout", model, _Size(0), index, layout)
            tensor = _TensorType(_ELEMENTS[dtype], layouts[number])
            self.ask(
                "LiteRtCreateManagedTensorBufferFromRequirements",
                self._environment,
                ctypes.byref(tensor),
                requirements,
                ctypes.byref(buffer),
            )
            buffers[number] = buffer
        return buffers

    def write(self, buffer: Any, array: Any) -> None:
        """Copy an array into a buffer."""
        size, address = _Size(), _Pointer()
        self.ask("LiteRtGetTensorBufferSize", _Pointer(buffer), ctypes.byref(size))
        data = np.ascontiguousarray(array)
        if data.nbytes > size.value:
            raise LoadError("LiteRT's buffer of {} bytes is too small for an input".format(size.value))
        self.ask("LiteRtLockTensorBuffer", _Pointer(buffer), ctypes.byref(address), _WRITE)
        ctypes.memmove(address, data.ctypes.data, data.nbytes)
        self.ask("LiteRtUnlockTensorBuffer", _Pointer(buffer))

    def events(self, profiler: Any) -> Iterator[Tuple[str, int, int]]:
        """Yield the tag, the kind and the duration (µs) of each event."""
        count = ctypes.c_int()
        self.ask("LiteRtGetNumProfilerEvents", profiler, ctypes.byref(count))
        words = (ctypes.c_uint64 * (_WORDS * count.value))()
        self.ask("LiteRtGetProfilerEvents", profiler, count, words)
        for first in range(0, len(words), _WORDS):
            tag, kind, _, took = words[first : first + 4]
            kind &= 0xFFFFFFFF
            if not tag or kind > _LARGEST_KIND or (kind in (_OPERATOR, *_IN_DELEGATE) and took > _LONGEST_US):
                raise LoadError("the events of this LiteRT have another layout")
            yield ctypes.string_at(tag).decode("utf-8", "replace"), kind, took


def _operators(events: Sequence[Tuple[str, int, int]], calls: int) -> List[OperatorTime]:
    """The mean time of each operator, by its place in a call; a delegate's operators replace the delegate.

    Nothing marks the start of a call in all models: the operators are divided by the number of calls.

    Raises:
        LoadError: The calls ran different operators, or none.
    """
    inside = any(kind in _IN_DELEGATE for _, kind, _ in events)
    run = [
        (tag, took)
        for tag, kind, took in events
        if kind in _IN_DELEGATE or (kind == _OPERATOR and not (inside and "Delegate" in tag))
    ]
    each = len(run) // calls
    tags = [tag for tag, _ in run]
    if not each:
        raise LoadError("LiteRT's profiler reported no operators")
    if tags != tags[:each] * calls:
        raise LoadError("LiteRT's profiler reported other operators from call to call")
    means = [sum(took for _, took in run[number::each]) * 1e-6 / calls for number in range(each)]
    return [
        OperatorTime("{} #{}".format(tag, number), tag.partition(" (")[0], seconds)
        for number, (tag, seconds) in enumerate(zip(tags, means))
    ]


def _run_seconds(events: Sequence[Tuple[str, int, int]]) -> float:
    """The time of all runs (s), without the buffers that only compiled models use; 0 if it is not known."""
    for wanted in ((_RUN, "invoke"), (_CALL, "Invoke")):
        times = [took for tag, kind, took in events if (kind, tag) == wanted]
        if times:
            return sum(times) * 1e-6
    return 0.0
