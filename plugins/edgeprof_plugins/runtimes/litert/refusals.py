"""Explains why LiteRT does not load a model and what to do about it, based on its error message. Python 3.6 grammar."""

import os
import re
from typing import Optional

from edgeprof.worker.runtime import LoadError, LoadOptions

#: Remedy for a model with TensorFlow's own operators; then TensorFlow is used, even if another library comes first.
FLEX_REMEDY = "pip install tensorflow   (edgeprof then uses its interpreter for this model)"
#: Pattern of an error of the library, its meaning, and the remedy.
KNOWN_ERRORS = (
    (
        r"\bFlex|[Ss]elect TensorFlow op",
        "{name} needs TensorFlow's own operators (Flex), which {library} does not have",
        FLEX_REMEDY,
    ),
    (
        "unresolved custom op: edgetpu-custom-op",
        "{name} is compiled for the Edge TPU and does not run on the CPU",
        "Bench it with --device edgetpu on a device with a Coral, or bench the model that it was compiled from.",
    ),
    (
        r"unresolved custom op: ([\w-]+)",
        "{name} needs the custom operator {0}, which LiteRT does not have",
        "Give the delegate that has it with --device LIBRARY.so, or convert the model without custom operators.",
    ),
    (
        r"Didn't find op for builtin opcode '(\w+)' version '(\d+)'",
        "{name} needs {0} version {1}, which {library} does not have",
        "pip install -U ai-edge-litert",
    ),
    (
        "valid Flatbuffer|model identifier|Mmap of",
        "{name} is not a complete TensorFlow Lite model",
        "Download or convert it again.",
    ),
)


def known_error(path: str, error: Exception, library: str) -> Optional[LoadError]:
    """Translate an error of the library; None if its meaning is not known."""
    for pattern, sentence, remedy in KNOWN_ERRORS:
        match = re.search(pattern, str(error))
        if match:
            return LoadError(sentence.format(*match.groups(), name=os.path.basename(path), library=library), remedy)
    return None


def load_error(path: str, error: Exception, options: LoadOptions, library: str) -> LoadError:
    known = known_error(path, error, library)
    if known is not None:
        return known
    name = os.path.basename(path)
    if options.batch != 1 or options.shapes:
        given = "--batch {}".format(options.batch) if options.batch != 1 else "--input"
        return LoadError(
            "{} cannot be resized for {}: {}".format(name, given, first_line(error)),
            "Its operators fix the shape: leave the flag out, or convert the model with a dynamic batch.",
        )
    return LoadError("LiteRT does not load {}: {}".format(name, first_line(error)))


def first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300]
