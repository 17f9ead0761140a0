"""How the worker reports a request that it cannot answer: a code, one sentence, a remedy and the model's traceback.

Python 3.6 grammar and the standard library.
"""

import os
import re
import sys
import traceback
from typing import Any, Dict, Optional

#: What libraries write when memory is short: Python, C++, the kernel, torch, CUDA, TensorFlow.
OUT_OF_MEMORY = re.compile(
    r"MemoryError|bad_alloc|bad allocation|out of memory|cannot allocate memory|can't allocate memory"
    r"|failed to allocate memory|OUT_OF_MEMORY|RESOURCE_EXHAUSTED|unable to allocate",
    re.IGNORECASE,
)

MORE_MEMORY = "Use a smaller batch or variant, or give it more memory."


class FailureError(Exception):
    """Raised for a request that cannot be answered; ``kind`` is the code of the reason in the result file."""

    def __init__(self, kind: str, message: str, remedy: Optional[str] = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.remedy = remedy


def failed_answer(kind: str, message: str, remedy: Optional[str]) -> Dict[str, Any]:
    """The answer to a request that failed."""
    return {"ok": False, "kind": kind, "message": message, "remedy": remedy}


#: First lines that say nothing about the error itself, which is named further down in the text.
_PREAMBLES = ("The following operation failed in the TorchScript interpreter",)


#: Characters of a traceback that are kept, from its end.
_MOST_TRACE = 20000


def error_text(error: BaseException) -> str:
    """The type of an error and the first line that says what went wrong, at most 400 characters of it."""
    try:
        text = str(error)
    except BaseException:  # noqa: BLE001 - an error of a model may raise another one when it is shown
        text = ""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    first = lines[0] if lines else ""
    if first.startswith(_PREAMBLES):
        named = [line for line in lines if re.match(r"(\w+\.)*\w*(Error|Exception): ", line)]
        if named:
            return named[-1][:400]
    text = "{}: {}".format(type(error).__name__, first) if first else type(error).__name__
    return text if len(text) <= 400 else text[:400] + " …"


def user_traceback() -> str:
    """The traceback of the current exception without edgeprof's own frames at its beginning."""
    kind, error, tb = sys.exc_info()
    worker_folder = os.path.dirname(os.path.abspath(__file__))
    rest = tb
    while rest is not None and os.path.dirname(rest.tb_frame.f_code.co_filename) == worker_folder:
        rest = rest.tb_next
    try:
        return "".join(traceback.format_exception(kind, error, rest or tb))[-_MOST_TRACE:]
    except BaseException:  # noqa: BLE001 - see error_text
        return ""
