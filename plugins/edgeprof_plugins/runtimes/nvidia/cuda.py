"""CUDA for runtimes: the interface (``api``) through libcudart with ctypes, cuda-python or pycuda."""

import sys
from typing import Callable, Dict, List, Optional

from edgeprof.worker.runtime import LoadError

from .api import CAPTURE_THREAD, D2H, H2D, WAITS, Cuda, CudaError
from .cudart import Cudart
from .driver import Driver, version_text
from .packages import CudaPython, PyCuda

__all__ = ["BACKENDS", "CAPTURE_THREAD", "D2H", "H2D", "WAITS", "Cuda", "CudaError", "choose"]

BACKENDS = ("ctypes", "cuda-python", "pycuda")


def choose(wanted: Optional[str], device: int, wait: str, driver: Driver) -> Cuda:
    """Open a GPU through the requested library, or the first one that is installed.

    Args:
        wanted: One of BACKENDS; None for the first one that is installed.
        device: Number of the GPU.
        wait: How the CPU waits for the GPU: a key of WAITS.
        driver: The driver, as ``ask_driver`` returned it.

    Raises:
        LoadError: no library is installed, or the driver is too old for the library.
        CudaError: CUDA does not start for another reason.
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
                    "the driver supports CUDA up to {}, but the CUDA runtime here is newer: {}".format(
                        version_text(driver.version), error
                    ),
                    "Update the driver, or install the libraries for the driver's CUDA.",
                ) from None
            raise
    raise LoadError(
        "there is no CUDA runtime library ({})".format("; ".join(reasons)),
        "{} -m pip install cuda-python; or name libcudart's folder in LD_LIBRARY_PATH.".format(sys.executable),
    )
