"""Find out the memory that a .tflite file needs on a microcontroller, by tflite-micro, on any PC.

The interpreter of TensorFlow Lite for Microcontrollers (tflite-micro) plans the arena exactly and prints the plan to
stderr. It runs in a separate process, because an operator that it lacks can crash it. Its times mean nothing, since it
uses reference kernels here. The memory is the same everywhere except for pointers, which take 8 bytes here and 4 on a
microcontroller; the persistent part is therefore an upper bound.

That process runs ``microcontroller_plan.py``. Python 3.6 grammar.
"""

import os
import re
import subprocess
import sys
from typing import List, Optional

from edgeprof.worker.runtime import MicrocontrollerNeed

_SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "microcontroller_plan.py")
_LIMIT_S = 60.0
_PLAN = re.compile(r"Arena allocation (total|head|tail) (\d+) bytes")
#: Messages of the interpreter about an operator that it lacks, or does not support in this form.
_LACKS = (
    re.compile(r"Didn't find op for builtin opcode '(\w+)'"),
    re.compile(r"Failed to get registration from op code (\w+)"),
    re.compile(r"Node (\w+) \(number \d+\w*\) failed"),
)


def measure(path: str, custom_operators: List[str]) -> MicrocontrollerNeed:
    """Find out what a model needs of a microcontroller.

    Args:
        path: The model.
        custom_operators: Custom operators of the file; tflite-micro has none of them, and some crash it.
    """
    size = os.path.getsize(path)

    def unknown(reason: str, operators: Optional[List[str]] = None) -> MicrocontrollerNeed:
        return MicrocontrollerNeed(None, None, None, size, operators or [], reason)

    if custom_operators:
        return unknown("it has custom operators, which must be compiled into the firmware", custom_operators)
    try:
        done = subprocess.run(
            [sys.executable, _SCRIPT, path],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return unknown("tflite-micro did not end within {:.0f} s".format(_LIMIT_S))
    text = done.stdout.decode("utf-8", "replace")
    plan = {name: int(count) for name, count in _PLAN.findall(text)}
    if done.returncode == 0 and {"total", "head", "tail"} <= set(plan):
        return MicrocontrollerNeed(plan["total"], plan["head"], plan["tail"], size, [], None)
    lacking = sorted({operator for pattern in _LACKS for operator in pattern.findall(text)})
    if "Hybrid models are not supported" in text:
        types = "integers as weights and floats as activations, or uint8"
        return unknown(
            "tflite-micro does not run its {} with such types ({})".format(", ".join(lacking), types), lacking
        )
    if done.returncode < 0:
        return unknown("tflite-micro crashed on it (signal {})".format(-done.returncode), lacking)
    return unknown("tflite-micro does not run it: {}".format(_last_line(text)), lacking)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith((" ", "Traceback"))]
    return lines[-1][:200] if lines else "it said nothing"
