"""CUDA as runtimes need it: memory, copies, streams, events, graphs. Through whatever is there.

libcudart by ctypes (part of JetPack, of a CUDA installation and of NVIDIA's wheels), cuda-python, or pycuda, in this
order. Addresses and stream handles are integers, host buffers are pinned numpy arrays, times are seconds.

Python 3.6 grammar, numpy. Sources: CUDA Runtime API reference (signatures, attribute and flag numbers); the docstrings
of cuda-python; pycuda's documentation.
"""

import ctypes
import glob
import os
import sys
from typing import Any, Callable, Dict, List, Optional, Tuple

import numpy as np

from edgeprof.workload.runtime import LoadError

from .nvidia_driver import Driver, version_text

#: cudaMemcpyKind and cudaStreamCaptureMode: numbers of the C API, the same in every version.
_H2D, _D2H = 1, 2
_CAPTURE_THREAD = 1
#: cudaDeviceScheduleSpin, …Yield, …BlockingSync
WAITS = {"auto": 0, "spin": 1, "yield": 2, "block": 4}
BACKENDS = ("ctypes", "cuda-python", "pycuda")


class CudaError(RuntimeError):
    """A call of CUDA that failed; the sentence holds CUDA's own ("out of memory")."""


class Cuda:
    """One GPU through one of the libraries. Everything raises CudaError with the name of the call."""

    name = ""

    def runtime_version(self) -> int:
        raise NotImplementedError

    def malloc(self, size: int) -> int:
        raise NotImplementedError

    def free(self, address: int) -> None:
        raise NotImplementedError

    def host(self, size: int) -> Any:
        """Pinned memory as a numpy array of bytes; give it back with ``host_free``."""
        raise NotImplementedError

    def host_free(self, array: Any) -> None:
        raise NotImplementedError

    def copy_in(self, address: int, array: Any, stream: Any) -> Callable[[], None]:
        """What copies the whole array to the device, in the stream's turn."""
        raise NotImplementedError

    def copy_out(self, array: Any, address: int, stream: Any) -> Callable[[], None]:
        raise NotImplementedError

    def stream(self) -> Any:
        raise NotImplementedError

    def handle(self, stream: Any) -> int:
        """The stream as TensorRT takes it."""
        raise NotImplementedError

    def close_stream(self, stream: Any) -> None:
        raise NotImplementedError

    def wait(self, stream: Any) -> None:
        raise NotImplementedError

    def event(self) -> Any:
        raise NotImplementedError

    def close_event(self, event: Any) -> None:
        raise NotImplementedError

    def record(self, event: Any, stream: Any) -> None:
        raise NotImplementedError

    def wait_event(self, event: Any) -> None:
        raise NotImplementedError

    def elapsed_s(self, start: Any, end: Any) -> float:
        """Seconds between two recorded events that are done (resolution about 0.5 µs)."""
        raise NotImplementedError

    def memory(self) -> Tuple[int, int]:
        """Free and total bytes of the device."""
        raise NotImplementedError

    def capture(self, stream: Any, work: Callable[[], None]) -> Any:
        """What ``work`` puts into the stream, as a graph that ``launch`` starts."""
        raise NotImplementedError

    def launch(self, graph: Any, stream: Any) -> None:
        raise NotImplementedError

    def close_graph(self, graph: Any) -> None:
        raise NotImplementedError


def choose(wanted: Optional[str], device: int, wait: str, driver: Driver) -> Cuda:
    """The library that is there, on that GPU.

    Args:
        wanted: One of BACKENDS; None for the first that is there.
        device: Number of the GPU.
        wait: A key of WAITS: how the CPU waits for the GPU.
        driver: What ``ask_driver`` found.

    Raises:
        LoadError: none is there, or the driver is too old for it.
    """
    makers: Dict[str, Callable[[int, int], Cuda]] = {"ctypes": Cudart, "cuda-python": CudaPython, "pycuda": PyCuda}
    reasons: List[str] = []
    for name in (wanted,) if wanted else BACKENDS:
        try:
            return makers[name](device, WAITS[wait])
        except ImportError as error:  # noqa: PERF203 - three at most
            reasons.append("{}: {}".format(name, error))
        except CudaError as error:
            if "insufficient" in str(error):
                raise LoadError(
                    "the driver supports CUDA up to {}, the CUDA runtime here is newer: {}".format(
                        version_text(driver.version), error
                    ),
                    "Update the driver, or install the libraries for the driver's CUDA.",
                ) from None
            raise
    raise LoadError(
        "there is no CUDA runtime library ({})".format("; ".join(reasons)),
        "{} -m pip install cuda-python; or name libcudart's folder in LD_LIBRARY_PATH.".format(sys.executable),
    )


class Cudart(Cuda):
    """libcudart by ctypes."""

    name = "ctypes on libcudart"

    def __init__(self, device: int, flags: int) -> None:
        self._lib = _libcudart()
        pointer, size = ctypes.c_void_p, ctypes.c_size_t
        signatures: Dict[str, List[Any]] = {
            "cudaSetDevice": [ctypes.c_int],
            "cudaSetDeviceFlags": [ctypes.c_uint],
            "cudaRuntimeGetVersion": [pointer],
            "cudaMalloc": [pointer, size],
            "cudaFree": [pointer],
            "cudaHostAlloc": [pointer, size, ctypes.c_uint],
            "cudaFreeHost": [pointer],
            "cudaMemcpyAsync": [pointer, pointer, size, ctypes.c_int, pointer],
            "cudaStreamCreateWithFlags": [pointer, ctypes.c_uint],
            "cudaStreamDestroy": [pointer],
            "cudaStreamSynchronize": [pointer],
            "cudaEventCreate": [pointer],
            "cudaEventDestroy": [pointer],
            "cudaEventRecord": [pointer, pointer],
            "cudaEventSynchronize": [pointer],
            "cudaEventElapsedTime": [pointer, pointer, pointer],
            "cudaMemGetInfo": [pointer, pointer],
            "cudaStreamBeginCapture": [pointer, ctypes.c_int],
            "cudaStreamEndCapture": [pointer, pointer],
            "cudaGraphLaunch": [pointer, pointer],
            "cudaGraphDestroy": [pointer],
            "cudaGraphExecDestroy": [pointer],
        }
        for function, arguments in signatures.items():
            getattr(self._lib, function).argtypes = arguments
        self._lib.cudaGetErrorString.argtypes = [ctypes.c_int]
        self._lib.cudaGetErrorString.restype = ctypes.c_char_p
        # Refused (error 708) once the context lives, as in a process that has used CUDA before: then as it is.
        self._lib.cudaSetDeviceFlags(flags)
        self._call("cudaSetDevice", device)
        self._call("cudaFree", None)  # makes the context now

    def _call(self, function: str, *arguments: Any) -> None:
        code = getattr(self._lib, function)(*arguments)
        if code != 0:
            said = self._lib.cudaGetErrorString(code) or b"unknown error"
            raise CudaError("{}: {} (CUDA error {})".format(function, said.decode("utf-8", "replace"), code))

    def _made(self, function: str, *arguments: Any) -> int:
        """What a call writes to its first argument."""
        value = ctypes.c_void_p()
        self._call(function, ctypes.byref(value), *arguments)
        return value.value or 0

    def runtime_version(self) -> int:
        number = ctypes.c_int()
        self._call("cudaRuntimeGetVersion", ctypes.byref(number))
        return number.value

    def malloc(self, size: int) -> int:
        return self._made("cudaMalloc", size)

    def free(self, address: int) -> None:
        self._call("cudaFree", address)

    def host(self, size: int) -> Any:
        address = self._made("cudaHostAlloc", max(1, size), 0)
        memory: Any = (ctypes.c_ubyte * size).from_address(address)
        return np.frombuffer(memory, dtype=np.uint8)

    def host_free(self, array: Any) -> None:
        self._call("cudaFreeHost", array.ctypes.data)

    def _copier(self, target: int, source: int, size: int, kind: int, stream: int) -> Callable[[], None]:
        copy, fail = self._lib.cudaMemcpyAsync, self._call
        arguments = (
            ctypes.c_void_p(target),
            ctypes.c_void_p(source),
            ctypes.c_size_t(size),
            ctypes.c_int(kind),
            ctypes.c_void_p(stream),
        )

        def run() -> None:
            if copy(*arguments):
                fail("cudaMemcpyAsync", *arguments)

        return run

    def copy_in(self, address: int, array: Any, stream: Any) -> Callable[[], None]:
        return self._copier(address, array.ctypes.data, array.nbytes, _H2D, stream)

    def copy_out(self, array: Any, address: int, stream: Any) -> Callable[[], None]:
        return self._copier(array.ctypes.data, address, array.nbytes, _D2H, stream)

    def stream(self) -> Any:
        return self._made("cudaStreamCreateWithFlags", 1)  # cudaStreamNonBlocking: apart from the default stream

    def handle(self, stream: Any) -> int:
        return int(stream)

    def close_stream(self, stream: Any) -> None:
        self._call("cudaStreamDestroy", stream)

    def wait(self, stream: Any) -> None:
        if self._lib.cudaStreamSynchronize(stream):
            self._call("cudaStreamSynchronize", stream)

    def event(self) -> Any:
        return self._made("cudaEventCreate")

    def close_event(self, event: Any) -> None:
        self._call("cudaEventDestroy", event)

    def record(self, event: Any, stream: Any) -> None:
        self._call("cudaEventRecord", event, stream)

    def wait_event(self, event: Any) -> None:
        self._call("cudaEventSynchronize", event)

    def elapsed_s(self, start: Any, end: Any) -> float:
        milliseconds = ctypes.c_float()
        self._call("cudaEventElapsedTime", ctypes.byref(milliseconds), start, end)
        return milliseconds.value * 1e-3

    def memory(self) -> Tuple[int, int]:
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._call("cudaMemGetInfo", ctypes.byref(free), ctypes.byref(total))
        return free.value, total.value

    def capture(self, stream: Any, work: Callable[[], None]) -> Any:
        self._call("cudaStreamBeginCapture", stream, _CAPTURE_THREAD)
        graph = ctypes.c_void_p()
        try:
            work()
        finally:  # a stream left in capture refuses everything else
            ended = self._lib.cudaStreamEndCapture(stream, ctypes.byref(graph))
        if ended != 0 or not graph.value:
            raise CudaError("cudaStreamEndCapture: the work cannot be captured (CUDA error {})".format(ended))
        try:
            if self.runtime_version() >= 12000:
                self._lib.cudaGraphInstantiate.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_ulonglong]
                return self._made("cudaGraphInstantiate", graph, 0)
            five = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]
            self._lib.cudaGraphInstantiate.argtypes = five
            return self._made("cudaGraphInstantiate", graph, None, None, 0)
        finally:
            self._call("cudaGraphDestroy", graph)

    def launch(self, graph: Any, stream: Any) -> None:
        if self._lib.cudaGraphLaunch(graph, stream):
            self._call("cudaGraphLaunch", graph, stream)

    def close_graph(self, graph: Any) -> None:
        self._call("cudaGraphExecDestroy", graph)


def _libcudart() -> Any:
    """The CUDA runtime library, where the linker, NVIDIA's wheels or a CUDA installation have it."""
    versions = ("", ".13", ".12", ".11.0", ".10.2")
    names = ["libcudart.so" + version for version in versions]
    for folder in sys.path:
        names += sorted(glob.glob(os.path.join(folder or ".", "nvidia", "c*", "lib", "libcudart.so.*")), reverse=True)
    names += sorted(glob.glob("/usr/local/cuda*/lib64/libcudart.so*"))
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:  # noqa: PERF203 - looking is the point
            continue
    raise ImportError("no libcudart.so is found")


class CudaPython(Cuda):
    """NVIDIA's cuda-python: each function returns its error and then its values."""

    name = "cuda-python"

    def __init__(self, device: int, flags: int) -> None:
        try:
            from cuda.bindings import runtime
        except ImportError:
            from cuda import cudart as runtime  # before 12.6
        self._rt: Any = runtime
        self._rt.cudaSetDeviceFlags(flags)  # see Cudart
        self._call("cudaSetDevice", device)
        self._call("cudaFree", 0)

    def _call(self, function: str, *arguments: Any) -> Any:
        code, *values = getattr(self._rt, function)(*arguments)
        if int(code) != 0:
            said = self._rt.cudaGetErrorString(code)[1] or b"unknown error"
            text = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
            raise CudaError("{}: {} (CUDA error {})".format(function, text, int(code)))
        return values[0] if len(values) == 1 else tuple(values)

    def runtime_version(self) -> int:
        return int(self._call("cudaRuntimeGetVersion"))

    def malloc(self, size: int) -> int:
        return int(self._call("cudaMalloc", size))

    def free(self, address: int) -> None:
        self._call("cudaFree", address)

    def host(self, size: int) -> Any:
        address = int(self._call("cudaHostAlloc", max(1, size), 0))
        memory: Any = (ctypes.c_ubyte * size).from_address(address)
        return np.frombuffer(memory, dtype=np.uint8)

    def host_free(self, array: Any) -> None:
        self._call("cudaFreeHost", array.ctypes.data)

    def copy_in(self, address: int, array: Any, stream: Any) -> Callable[[], None]:
        return self._copier(address, array.ctypes.data, array.nbytes, self._rt.cudaMemcpyKind(_H2D), stream)

    def copy_out(self, array: Any, address: int, stream: Any) -> Callable[[], None]:
        return self._copier(array.ctypes.data, address, array.nbytes, self._rt.cudaMemcpyKind(_D2H), stream)

    def _copier(self, *arguments: Any) -> Callable[[], None]:
        def run() -> None:
            self._call("cudaMemcpyAsync", *arguments)

        return run

    def stream(self) -> Any:
        return self._call("cudaStreamCreateWithFlags", 1)

    def handle(self, stream: Any) -> int:
        return int(stream)

    def close_stream(self, stream: Any) -> None:
        self._call("cudaStreamDestroy", stream)

    def wait(self, stream: Any) -> None:
        self._call("cudaStreamSynchronize", stream)

    def event(self) -> Any:
        return self._call("cudaEventCreate")

    def close_event(self, event: Any) -> None:
        self._call("cudaEventDestroy", event)

    def record(self, event: Any, stream: Any) -> None:
        self._call("cudaEventRecord", event, stream)

    def wait_event(self, event: Any) -> None:
        self._call("cudaEventSynchronize", event)

    def elapsed_s(self, start: Any, end: Any) -> float:
        return float(self._call("cudaEventElapsedTime", start, end)) * 1e-3

    def memory(self) -> Tuple[int, int]:
        free, total = self._call("cudaMemGetInfo")
        return int(free), int(total)

    def capture(self, stream: Any, work: Callable[[], None]) -> Any:
        self._call("cudaStreamBeginCapture", stream, self._rt.cudaStreamCaptureMode(_CAPTURE_THREAD))
        try:
            work()
        finally:
            ended = self._rt.cudaStreamEndCapture(stream)
        if int(ended[0]) != 0:
            raise CudaError("cudaStreamEndCapture: the work cannot be captured (CUDA error {})".format(int(ended[0])))
        try:
            return self._call("cudaGraphInstantiate", ended[1], 0)
        finally:
            self._call("cudaGraphDestroy", ended[1])

    def launch(self, graph: Any, stream: Any) -> None:
        self._call("cudaGraphLaunch", graph, stream)

    def close_graph(self, graph: Any) -> None:
        self._call("cudaGraphExecDestroy", graph)


class PyCuda(Cuda):
    """pycuda: objects instead of handles. The GPU's primary context, which TensorRT uses too."""

    name = "pycuda"

    def __init__(self, device: int, flags: int) -> None:  # noqa: ARG002 - pycuda cannot change a primary context's flags
        from pycuda import driver

        self._driver: Any = driver
        try:
            driver.init()
            self._context = driver.Device(device).retain_primary_context()
            self._context.push()
        except driver.Error as error:
            raise CudaError("pycuda: {}".format(error)) from None
        self._allocations: Dict[int, Any] = {}

    def runtime_version(self) -> int:
        return int(self._driver.get_driver_version())

    def malloc(self, size: int) -> int:
        try:
            allocation = self._driver.mem_alloc(max(1, size))
        except self._driver.Error as error:
            raise CudaError("mem_alloc: {}".format(error)) from None
        self._allocations[int(allocation)] = allocation
        return int(allocation)

    def free(self, address: int) -> None:
        self._allocations.pop(address).free()

    def host(self, size: int) -> Any:
        return self._driver.pagelocked_empty(size, np.uint8)

    def host_free(self, array: Any) -> None:
        """Pycuda frees it with its last reference."""

    def copy_in(self, address: int, array: Any, stream: Any) -> Callable[[], None]:
        def run() -> None:
            self._driver.memcpy_htod_async(address, array, stream)

        return run

    def copy_out(self, array: Any, address: int, stream: Any) -> Callable[[], None]:
        def run() -> None:
            self._driver.memcpy_dtoh_async(array, address, stream)

        return run

    def stream(self) -> Any:
        return self._driver.Stream()

    def handle(self, stream: Any) -> int:
        return int(stream.handle)

    def close_stream(self, stream: Any) -> None:
        """Pycuda destroys it with its last reference."""

    def wait(self, stream: Any) -> None:
        stream.synchronize()

    def event(self) -> Any:
        return self._driver.Event()

    def close_event(self, event: Any) -> None:
        """Pycuda destroys it with its last reference."""

    def record(self, event: Any, stream: Any) -> None:
        event.record(stream)

    def wait_event(self, event: Any) -> None:
        event.synchronize()

    def elapsed_s(self, start: Any, end: Any) -> float:
        return float(end.time_since(start)) * 1e-3

    def memory(self) -> Tuple[int, int]:
        free, total = self._driver.mem_get_info()
        return int(free), int(total)

    def capture(self, stream: Any, work: Callable[[], None]) -> Any:  # noqa: ARG002 - there are none
        raise CudaError("CUDA graphs are not offered through pycuda")

    def launch(self, graph: Any, stream: Any) -> None:  # noqa: ARG002 - there are none
        raise CudaError("CUDA graphs are not offered through pycuda")

    def close_graph(self, graph: Any) -> None:
        """There are none."""
