"""The version and the GPUs of NVIDIA's driver, queried in a separate process.

Python 3.6 grammar, the standard library. Source: CUDA Driver API reference (cuDeviceGetAttribute 75 and 76: compute
capability).
"""

import json
import subprocess
import sys
from typing import NamedTuple, Optional, Tuple

from edgeprof.worker.runtime import LoadError

_NO_DRIVER = "Install NVIDIA's driver; in a container, start it with --gpus all (on a Jetson: --runtime nvidia)."

#: The program that queries the driver; it runs in a separate process, because a broken driver may crash its caller.
_ASK = """
import ctypes, json
found = {}
try:
    cuda = ctypes.CDLL("libcuda.so.1")
    found["init"] = cuda.cuInit(0)
    number = ctypes.c_int()
    if cuda.cuDriverGetVersion(ctypes.byref(number)) == 0:
        found["driver"] = number.value
    if found["init"] == 0:
        cuda.cuDeviceGetCount(ctypes.byref(number))
        found["gpus"] = []
        for index in range(number.value):
            device, text = ctypes.c_int(), ctypes.create_string_buffer(256)
            cuda.cuDeviceGet(ctypes.byref(device), index)
            cuda.cuDeviceGetName(text, 256, device)
            major, minor = ctypes.c_int(), ctypes.c_int()
            cuda.cuDeviceGetAttribute(ctypes.byref(major), 75, device)
            cuda.cuDeviceGetAttribute(ctypes.byref(minor), 76, device)
            found["gpus"].append([text.value.decode("utf-8", "replace"), "%d.%d" % (major.value, minor.value)])
except OSError as error:
    found["missing"] = str(error)
print(json.dumps(found))
"""

Gpu = NamedTuple("Gpu", [("name", str), ("compute", str)])
Driver = NamedTuple("Driver", [("version", Optional[int]), ("gpus", Tuple[Gpu, ...])])


def version_text(number: Optional[int]) -> str:
    """Return the text for a version number of CUDA: 12040 is ``12.4``."""
    return "unknown" if not number else "{}.{}".format(number // 1000, number % 1000 // 10)


def ask_driver() -> Driver:
    """Query the version of the driver and its GPUs, in a separate process.

    Raises:
        LoadError: libcuda is missing, the driver does not start or answer, or it has no GPU.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-c", _ASK], stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LoadError("NVIDIA's driver does not answer: {}".format(error), "nvidia-smi shows details.") from None
    try:
        answer = json.loads(done.stdout.decode("utf-8", "replace").splitlines()[-1])
    except (ValueError, IndexError):
        raise LoadError(
            "NVIDIA's driver crashes when it is asked for its GPUs (exit status {})".format(done.returncode),
            "Reinstall it; nvidia-smi and dmesg show details.",
        ) from None
    if "missing" in answer:
        raise LoadError("there is no NVIDIA driver: libcuda.so.1 cannot be loaded", _NO_DRIVER)
    if answer["init"] != 0:
        raise LoadError("NVIDIA's driver does not start: cuInit returned {}".format(answer["init"]), _NO_DRIVER)
    if not answer["gpus"]:
        raise LoadError("NVIDIA's driver has no GPU", _NO_DRIVER)
    return Driver(answer.get("driver"), tuple(Gpu(*gpu) for gpu in answer["gpus"]))
