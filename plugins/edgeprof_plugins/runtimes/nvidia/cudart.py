"""CUDA through libcudart with ctypes; JetPack, CUDA installations and NVIDIA's wheels contain libcudart.

Python 3.6 grammar, numpy. Source: CUDA Runtime API reference (signatures).
"""

import ctypes
import glob
import os
import sys
from typing import Any, Callable, Dict, List, Tuple

from .api import CAPTURE_THREAD, D2H, H2D, CudaError, RuntimeApi


class Cudart(RuntimeApi):
    """CUDA through libcudart with ctypes."""

    name = "ctypes on libcudart"

    def __init__(self, device: int, flags: int) -> None:
        self._lib = _load_libcudart()
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
        # This fails (error 708) if the process has already used CUDA; the flags then stay unchanged.
        self._lib.cudaSetDeviceFlags(flags)
        self._call("cudaSetDevice", device)
        self._call("cudaFree", None)  # creates the context now

    def _call(self, function: str, *arguments: Any) -> None:
        code = getattr(self._lib, function)(*arguments)
        if code != 0:
            message = self._lib.cudaGetErrorString(code) or b"unknown error"
            raise CudaError("{}: {} (CUDA error {})".format(function, message.decode("utf-8", "replace"), code))

    def _create(self, function: str, *arguments: Any) -> int:
        """Call a function, and return the value that it writes through its first argument."""
        value = ctypes.c_void_p()
        self._call(function, ctypes.byref(value), *arguments)
        return value.value or 0

    def runtime_version(self) -> int:
        number = ctypes.c_int()
        self._call("cudaRuntimeGetVersion", ctypes.byref(number))
        return number.value

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
        return self._copier(address, array.ctypes.data, array.nbytes, H2D, stream)

    def copy_out(self, array: Any, address: int, stream: Any) -> Callable[[], None]:
        return self._copier(array.ctypes.data, address, array.nbytes, D2H, stream)

    def wait(self, stream: Any) -> None:
        if self._lib.cudaStreamSynchronize(stream):
            self._call("cudaStreamSynchronize", stream)

    def elapsed_s(self, start: Any, end: Any) -> float:
        milliseconds = ctypes.c_float()
        self._call("cudaEventElapsedTime", ctypes.byref(milliseconds), start, end)
        return milliseconds.value * 1e-3

    def memory(self) -> Tuple[int, int]:
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._call("cudaMemGetInfo", ctypes.byref(free), ctypes.byref(total))
        return free.value, total.value

    def capture(self, stream: Any, work: Callable[[], None]) -> Any:
        self._call("cudaStreamBeginCapture", stream, CAPTURE_THREAD)
        graph = ctypes.c_void_p()
        try:
            work()
        finally:  # a stream that stays in capture mode cannot be used for anything else
            ended = self._lib.cudaStreamEndCapture(stream, ctypes.byref(graph))
        if ended != 0 or not graph.value:
            raise CudaError("cudaStreamEndCapture: the work cannot be captured (CUDA error {})".format(ended))
        try:
            if self.runtime_version() >= 12000:
                self._lib.cudaGraphInstantiate.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_ulonglong]
                return self._create("cudaGraphInstantiate", graph, 0)
            five = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]
            self._lib.cudaGraphInstantiate.argtypes = five
            return self._create("cudaGraphInstantiate", graph, None, None, 0)
        finally:
            self._call("cudaGraphDestroy", graph)

    def launch(self, graph: Any, stream: Any) -> None:
        if self._lib.cudaGraphLaunch(graph, stream):
            self._call("cudaGraphLaunch", graph, stream)


def _load_libcudart() -> Any:
    """Load the CUDA runtime library from the linker's paths, NVIDIA's wheels or a CUDA installation.

    Raises:
        ImportError: the library is in none of these places.
    """
    versions = ("", ".13", ".12", ".11.0", ".10.2")
    names = ["libcudart.so" + version for version in versions]
    for folder in sys.path:
        names += sorted(glob.glob(os.path.join(folder or ".", "nvidia", "c*", "lib", "libcudart.so.*")), reverse=True)
    names += sorted(glob.glob("/usr/local/cuda*/lib64/libcudart.so*"))
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:  # noqa: PERF203 - the first library that loads is taken
            continue
    raise ImportError("libcudart.so was not found")
