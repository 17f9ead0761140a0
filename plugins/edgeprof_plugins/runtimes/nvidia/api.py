"""The part of CUDA that runtimes need: memory, copies, streams, events, graphs.

It is accessed through libcudart with ctypes (part of JetPack, CUDA installations and NVIDIA's wheels), cuda-python or
pycuda, in this order. Addresses and stream handles are integers, host buffers are pinned numpy arrays, and times are in
seconds.

Python 3.6 grammar, numpy. Sources: CUDA Runtime API reference (signatures, attribute and flag numbers); the docstrings
of cuda-python; pycuda's documentation.
"""

import ctypes
from typing import Any, Callable, Tuple

import numpy as np

#: Values of cudaMemcpyKind and cudaStreamCaptureMode, the same in every version of the C API.
H2D, D2H = 1, 2
CAPTURE_THREAD = 1
#: How the CPU waits → the flag: cudaDeviceScheduleAuto, …Spin, …Yield, …BlockingSync.
WAITS = {"auto": 0, "spin": 1, "yield": 2, "block": 4}


class CudaError(RuntimeError):
    """A CUDA call failed; the message contains CUDA's own message (such as "out of memory")."""


class Cuda:
    """One GPU, accessed through one of the libraries. Every method may raise CudaError with the name of the call."""

    name = ""

    def runtime_version(self) -> int:
        raise NotImplementedError

    def malloc(self, size: int) -> int:
        raise NotImplementedError

    def free(self, address: int) -> None:
        raise NotImplementedError

    def host(self, size: int) -> Any:
        """Allocate pinned memory as a numpy array of bytes; release it with ``host_free``."""
        raise NotImplementedError

    def host_free(self, array: Any) -> None:
        raise NotImplementedError

    def copy_in(self, address: int, array: Any, stream: Any) -> Callable[[], None]:
        """Return a function that queues, in the stream, a copy of the whole array to the device."""
        raise NotImplementedError

    def copy_out(self, array: Any, address: int, stream: Any) -> Callable[[], None]:
        raise NotImplementedError

    def stream(self) -> Any:
        raise NotImplementedError

    def handle(self, stream: Any) -> int:
        """Return the stream as the integer handle that TensorRT takes."""
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
        """Return the seconds between two recorded events that have completed (resolution about 0.5 µs)."""
        raise NotImplementedError

    def memory(self) -> Tuple[int, int]:
        """Return the free and the total memory of the device in bytes."""
        raise NotImplementedError

    def capture(self, stream: Any, work: Callable[[], None]) -> Any:
        """Capture the work that ``work`` queues in the stream; return a graph that ``launch`` can start."""
        raise NotImplementedError

    def launch(self, graph: Any, stream: Any) -> None:
        raise NotImplementedError

    def close_graph(self, graph: Any) -> None:
        raise NotImplementedError


class RuntimeApi(Cuda):
    """CUDA through the function names of the C API, which libcudart and cuda-python share."""

    def _call(self, function: str, *arguments: Any) -> Any:
        """Call a function of the runtime API.

        Returns:
            The results of the function without the error code; None if results are written through pointers.

        Raises:
            CudaError: the call returned an error.
        """
        raise NotImplementedError

    def _create(self, function: str, *arguments: Any) -> Any:
        """Call a function that creates an object or allocates memory, and return its handle or address."""
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
        return self._create("cudaStreamCreateWithFlags", 1)  # cudaStreamNonBlocking: independent of the default stream

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
