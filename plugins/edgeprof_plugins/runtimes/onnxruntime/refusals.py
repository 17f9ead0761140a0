"""Explains why ONNX Runtime does not load a model and what to do about it, based on its error message."""

import os
import re
import shlex

from edgeprof.worker.runtime import LoadError

#: ONNX Runtime guarantees operators from opset 7 (onnxruntime.ai, Compatibility); older models are converted to OPSET.
OLDEST_OPSET, OPSET = 6, 17

#: Pattern of the message, the sentence and the remedy; {0} … are groups of the pattern, {line} is the message.
_KNOWN = (
    (
        r"([\w.]*:?\w+)\(-?\d+\) is not a registered function/op",
        "{name} needs the operator {0}, which this ONNX Runtime does not have",
        "Give the library that has it with --option custom_ops=LIBRARY.so, or a newer onnxruntime.",
    ),
    (
        r"No Op registered for (\w+) with domain_version of (\d+)",
        "{name} is stamped opset {1}, which has no operator {0}",
        "Export it with a higher opset_version, or give the library that has it: --option custom_ops=LIBRARY.so.",
    ),
    (
        r"nsupported model IR version|pset .* is under development",
        "{name} was exported for a newer ONNX Runtime: {line}",
        "pip install -U onnxruntime, or export it with a lower opset_version.",
    ),
    (
        r"INVALID_PROTOBUF|rotobuf parsing failed",
        "{name} is no whole ONNX model",
        "Download or export it again.",
    ),
    (
        r"xternal data|external_data|model_path must not be empty",
        "{name} keeps its weights in another file, which cannot be read: {line}",
        "Copy the files that were exported with it into its folder.",
    ),
)


def load_error(path: str, error: Exception, device: str) -> LoadError:
    """Translate an error of ONNX Runtime for the user.

    Args:
        path: The model file.
        error: The error that was raised.
        device: The short name of the provider; "" for the CPU.
    """
    text, name = str(error), os.path.basename(path)
    kernel = re.search(r"(?:Could not find an implementation|Failed to find kernel) for (\w+)\((\d+)\)", text)
    if kernel:
        return _no_kernel(path, kernel.group(1), int(kernel.group(2)), first_line(error))
    for pattern, sentence, remedy in _KNOWN:
        match = re.search(pattern, text)
        if match:
            return LoadError(sentence.format(*match.groups(), name=name, line=first_line(error)), remedy)
    invalid = "The file breaks ONNX's own rules: export it again; onnx.checker.check_model names all that is wrong."
    return LoadError(
        "ONNX Runtime does not load {}{}: {}".format(name, " on " + device if device else "", first_line(error)),
        "Whether the model itself is whole: --device cpu." if device else invalid if "invalid model" in text else None,
    )


def _no_kernel(path: str, operator: str, version: int, message: str) -> LoadError:
    """The error for an operator whose version is too old, or whose types this device does not support."""
    name = os.path.basename(path)
    if version <= OLDEST_OPSET:
        code = "import onnx, onnx.version_converter as v; onnx.save(v.convert_version(onnx.load({!r}), {}), {!r})"
        target = "{}-{}.onnx".format(os.path.splitext(path)[0], OPSET)
        return LoadError(
            "{} has {} as of opset {}, which ONNX Runtime no longer runs".format(name, operator, version),
            "Convert it: python -c {}".format(shlex.quote(code.format(path, OPSET, target))),
        )
    return LoadError(
        "ONNX Runtime has no kernel for {} in {} on this device: {}".format(operator, name, message),
        "Float32 instead of this type, another --device, or a newer ONNX Runtime (pip install -U onnxruntime) may do.",
    )


def first_line(error: Exception) -> str:
    """Return an error message without ONNX Runtime's prefixes, source locations and function signatures."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(error).strip())
    text = re.sub(r"/\S+\.(cc|h):\d+ ", "", text)
    text = re.sub(r"^.*?\bonnxruntime::\S+\(.*?\) (?=[\[A-Z])", "", text)
    text = re.sub(r"^.*\[OpenVINO(-EP)?\] ", "", text)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    # A line that ends with a colon is followed by its causes, the innermost last.
    return (lines[-1] if lines[0].endswith(":") else lines[0])[:300]
