"""CUDA as runtimes need it: memory, copies, streams, events, graphs. Through whatever is there.

libcudart by ctypes (part of JetPack, of a CUDA installation and of NVIDIA's wheels), cuda-python, or pycuda, in this
order. Addresses and stream handles are integers, host buffers are pinned numpy arrays, times are seconds.

Python 3.6 grammar, numpy. Sources: CUDA Runtime API reference (signatures, attribute and flag numbers); the docstrings
of cuda-python; pycuda's documentation.
"""

import ctypes
from typing import Any, Callable, Tuple

import numpy as np

#: cudaMemcpyKind and cudaStreamCaptureMode: numbers of the C API, the same in every version.
H2D, D2H = 1, 2
CAPTURE_THREAD = 1
#: cudaDeviceScheduleSpin, …Yield, …BlockingSync
WAITS = {"auto": 0, "spin": 1, "yield": 2, "block": 4}


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


class RuntimeApi(Cuda):
    """CUDA by the names of the C API's functions: what libcudart and cuda-python have in common."""

    def _call(self, function: str, *arguments: Any) -> Any:
        """Call a function of the runtime API.

        Returns:
            What the library returns beside the error; None where results are written through pointers.

        Raises:
            CudaError: it returned an error.
        """
        raise NotImplementedError

    def _create(self, function: str, *arguments: Any) -> Any:
        """The handle or address that a function makes, which is its first result."""
        raise NotImplementedError

    def malloc(self, size: int) -> int:
        return int(self._create("cudaMalloc", size))

    def free(self, address: int) -> None:
        self._call("cudaFree", address)

    def host(self, size: int) -> Any:
        address = int(self._create("cudaHostAlloc", max(1, size), 0))
        memory = (ctypes.c_ubyte * size).from_address(address)  # type: Any
        return np.frombuffer(memory, dtype=np.uint8)

    def host_free(self, array: Any) -> None:
        self._call("cudaFreeHost", array.ctypes.data)

    def stream(self) -> Any:
        return self._create("cudaStreamCreateWithFlags", 1)  # cudaStreamNonBlocking: apart from the default stream

    def handle(self, stream: Any) -> int:
        return int(stream)

    def close_stream(self, stream: Any) -> None:
        self._call("cudaStreamDestroy", stream)

    def event(self) -> Any:
        return self._create("cudaEventCreate")

    def close_event(self, event: Any) -> None:
        self._call("cudaEventDestroy", event)

    def record(self, event: Any, stream: Any) -> None:
        self._call("cudaEventRecord", event, stream)

    def wait_event(self, event: Any) -> None:
        self._call("cudaEventSynchronize", event)

    def close_graph(self, graph: Any) -> None:
        self._call("cudaGraphExecDestroy", graph)
