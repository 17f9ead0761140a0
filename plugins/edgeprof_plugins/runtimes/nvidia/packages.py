"""CUDA through a Python package: NVIDIA's cuda-python, or pycuda.

Python 3.6 grammar, numpy. Sources: the docstrings of cuda-python; pycuda's documentation and source.
"""

import atexit
from typing import Any, Callable, Dict, Tuple

import numpy as np

from .api import CAPTURE_THREAD, D2H, H2D, Cuda, CudaError, RuntimeApi


class CudaPython(RuntimeApi):
    """CUDA through NVIDIA's cuda-python, whose functions return an error code followed by the values."""

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
            message = self._rt.cudaGetErrorString(code)[1] or b"unknown error"
            text = message.decode("utf-8", "replace") if isinstance(message, bytes) else str(message)
            raise CudaError("{}: {} (CUDA error {})".format(function, text, int(code)))
        return values[0] if len(values) == 1 else tuple(values)

    def _create(self, function: str, *arguments: Any) -> Any:
        return self._call(function, *arguments)

    def runtime_version(self) -> int:
        return int(self._call("cudaRuntimeGetVersion"))

    def copy_in(self, address: int, array: Any, stream: Any) -> Callable[[], None]:
        return self._copier(address, array.ctypes.data, array.nbytes, self._rt.cudaMemcpyKind(H2D), stream)

    def copy_out(self, array: Any, address: int, stream: Any) -> Callable[[], None]:
        return self._copier(array.ctypes.data, address, array.nbytes, self._rt.cudaMemcpyKind(D2H), stream)

    def _copier(self, *arguments: Any) -> Callable[[], None]:
        def run() -> None:
            self._call("cudaMemcpyAsync", *arguments)

        return run

    def wait(self, stream: Any) -> None:
        self._call("cudaStreamSynchronize", stream)

    def elapsed_s(self, start: Any, end: Any) -> float:
        return float(self._call("cudaEventElapsedTime", start, end)) * 1e-3

    def memory(self) -> Tuple[int, int]:
        free, total = self._call("cudaMemGetInfo")
        return int(free), int(total)

    def capture(self, stream: Any, work: Callable[[], None]) -> Any:
        self._call("cudaStreamBeginCapture", stream, self._rt.cudaStreamCaptureMode(CAPTURE_THREAD))
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


class PyCuda(Cuda):
    """CUDA through pycuda, which has objects instead of handles and uses the GPU's primary context, like TensorRT."""

    name = "pycuda"

    def __init__(self, device: int, flags: int) -> None:  # noqa: ARG002 - pycuda cannot change a primary context's flags
        from pycuda import driver

        self._driver: Any = driver
        try:
            driver.init()
            self._context = driver.Device(device).retain_primary_context()
            self._context.push()
            atexit.register(self._context.pop)  # pycuda aborts a process that ends with a context on its stack
        except driver.Error as error:
            raise CudaError("pycuda: {}".format(error)) from None
        self._allocations: Dict[int, Any] = {}

    def runtime_version(self) -> int:
        # pycuda uses the driver alone; the CUDA that it was compiled against takes the place of a runtime's version.
        major, minor = self._driver.get_version()[:2]
        return int(1000 * major + 10 * minor)

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
        """Do nothing: pycuda frees the memory when the last reference to it is gone."""

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
        """Do nothing: pycuda destroys the stream when the last reference to it is gone."""

    def wait(self, stream: Any) -> None:
        stream.synchronize()

    def event(self) -> Any:
        return self._driver.Event()

    def close_event(self, event: Any) -> None:
        """Do nothing: pycuda destroys the event when the last reference to it is gone."""

    def record(self, event: Any, stream: Any) -> None:
        event.record(stream)

    def wait_event(self, event: Any) -> None:
        event.synchronize()

    def elapsed_s(self, start: Any, end: Any) -> float:
        return float(end.time_since(start)) * 1e-3

    def memory(self) -> Tuple[int, int]:
        free, total = self._driver.mem_get_info()
        return int(free), int(total)

    def capture(self, stream: Any, work: Callable[[], None]) -> Any:  # noqa: ARG002 - graphs are not supported
        raise CudaError("CUDA graphs are not supported through pycuda")

    def launch(self, graph: Any, stream: Any) -> None:  # noqa: ARG002 - graphs are not supported
        raise CudaError("CUDA graphs are not offered through pycuda")

    def close_graph(self, graph: Any) -> None:
        """Do nothing: there are no graphs."""
