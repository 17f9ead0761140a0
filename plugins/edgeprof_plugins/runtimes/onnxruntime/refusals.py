"""Why ONNX Runtime does not load a model, and what to do about it, by what its message says."""

import os
import re
import shlex

from edgeprof.worker.runtime import LoadError

#: ONNX Runtime promises operators from opset 7 on (onnxruntime.ai, Compatibility); what old models are converted to.
OLDEST_OPSET, OPSET = 6, 17

#: What the message has → the sentence and the remedy; {0} … are its groups, {line} is what it says.
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
    """What ONNX Runtime's own error means for the user.

    Args:
        path: The model's file.
        error: What was raised.
        device: The provider's short name; "" for the CPU.
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
    """An operator that ONNX Runtime does not run here: its version is too old, or its types are not for this device."""
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
    """The error's message without ONNX Runtime's own prefixes, places in its source and signatures of its functions."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(error).strip())
    text = re.sub(r"/\S+\.(cc|h):\d+ ", "", text)
    text = re.sub(r"^.*?\bonnxruntime::\S+\(.*?\) (?=[\[A-Z])", "", text)
    text = re.sub(r"^.*\[OpenVINO(-EP)?\] ", "", text)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    # A line that ends with a colon is followed by its causes, the innermost last.
    return (lines[-1] if lines[0].endswith(":") else lines[0])[:300]
