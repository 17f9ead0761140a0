"""CUDA as runtimes need it: memory, copies, streams, events, graphs. Through whatever is there.

libcudart by ctypes (part of JetPack, of a CUDA installation and of NVIDIA's wheels), cuda-python, or pycuda, in this
order. Addresses and stream handles are integers, host buffers are pinned numpy arrays, times are seconds.

Python 3.6 grammar, numpy. Sources: CUDA Runtime API reference (signatures, attribute and flag numbers); the docstrings
of cuda-python; pycuda's documentation.
"""

import sys
from typing import Any, Callable, Dict, List, Optional, Tuple

from edgeprof.worker.runtime import LoadError

from .driver import Driver, version_text

#: cudaMemcpyKind and cudaStreamCaptureMode: numbers of the C API, the same in every version.
H2D, D2H = 1, 2
CAPTURE_THREAD = 1
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
    from .cudart import Cudart
    from .packages import CudaPython, PyCuda

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
