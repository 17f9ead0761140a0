"""Find code in a Keras model or a SavedModel by reading its files, before Keras or TensorFlow is imported.

A Lambda layer is Python bytecode that runs when the model is loaded. A configuration may name any function of any
module, and Keras calls it (CVE-2024-3660, CVE-2025-1550 and others). A SavedModel may contain operators that call
Python, or that read and write files. Keras itself refuses some of this, depending on its release. Python 3.6 grammar.
"""

import builtins
import json
import os
import re
import zipfile
from typing import Any, Iterator, Optional, Tuple

from edgeprof.worker import zips
from edgeprof.worker.runtime import LoadError

#: Longest configuration that is read (bytes).
LIMIT = 64 << 20
#: Longest saved_model.pb that is searched (bytes); its weights are in other files.
LIMIT_GRAPH = 512 << 20

#: Layers that run code, or that load another model from a path.
_LAYERS = {"Lambda": "a Lambda layer", "TFSMLayer": "a layer that loads another SavedModel"}
#: Modules whose classes a configuration may name.
_MODULES = re.compile(r"(keras|tf_keras|keras_core|builtins)(\.|$)")
#: Functions of TensorFlow that a TFOpLambda layer must not call: they read or write files, or call Python.
_FUNCTIONS = re.compile(
    r"(tf\.)?(io|raw_ops|saved_model|compat|train|summary|load\w*|py_function|numpy_function|print)\b"
)
#: Operators of a SavedModel's graph that call Python, or that read or write files.
_OPERATORS = (
    *("PyFunc", "PyFuncStateless", "EagerPyFunc"),
    *("ReadFile", "WriteFile", "MatchingFiles", "WholeFileReaderV2", "PrintV2", "TensorSummaryV2", "WriteSummary"),
)
_PICKLES = re.compile(r"\.(pkl|pickle|dill|joblib)$", re.IGNORECASE)


def find_code(path: str) -> Optional[str]:
    """Describe what in a .keras or .h5 file or a SavedModel's folder would run its author's code; None: nothing.

    Raises:
        LoadError: the model cannot be read, or is not complete.
    """
    if os.path.isdir(path):
        return _in_graph(os.path.join(path, "saved_model.pb"))
    is_archive = zipfile.is_zipfile(path)
    code = _in_archive(path) if is_archive else None
    if code is None and (not is_archive or path.lower().endswith((".h5", ".hdf5"))):
        # Keras decides by the suffix, and a file may be valid in both formats.
        code = _in_configuration(_configuration_of_h5(path))
    return code


def _in_archive(path: str) -> Optional[str]:
    name = os.path.basename(path)
    try:
        with open(path, "rb") as file:
            archive = zips.open_zip(file)
            entries = archive.namelist()
            if "config.json" not in entries:
                raise LoadError(
                    "{} is not a complete Keras model: it has no config.json".format(name), "Save it again."
                )
            pickled = [entry for entry in entries if _PICKLES.search(entry)]
            if pickled:
                return "a pickled object ({})".format(pickled[0])
            text = zips.read(archive, archive.getinfo("config.json"), LIMIT)
    except (OSError, zips.UnreadableError, zipfile.BadZipFile, KeyError) as error:
        raise LoadError(
            "{} is not a complete Keras model: {}".format(name, error), "Save or download it again."
        ) from None
    return _in_configuration(_parse_json(text, name))


def _configuration_of_h5(path: str) -> Any:
    name = os.path.basename(path)
    try:
        import h5py
    except ImportError:
        raise LoadError("h5py, which reads {}, is not installed".format(name), "pip install h5py") from None
    try:
        with h5py.File(path, "r") as file:
            text = file.attrs.get("model_config")
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise LoadError(
            "{} is not a complete HDF5 file: {}".format(name, error), "Save or download it again."
        ) from None
    if text is None:
        raise LoadError(
            "{} contains weights without a network".format(name), "Save the whole model: model.save('model.keras')."
        )
    return _parse_json(text, name)


def _parse_json(text: Any, name: str) -> Any:
    try:
        return json.loads(text.decode("utf-8") if isinstance(text, bytes) else text)
    except (ValueError, RecursionError, UnicodeDecodeError) as error:
        raise LoadError("the configuration of {} is damaged: {}".format(name, error), "Save it again.") from None


def _in_configuration(configuration: Any) -> Optional[str]:
    for place in _nested_mappings(configuration):
        suspicion = _reason_for_suspicion(place)
        if suspicion is not None:
            name = place.get("config", {}).get("name") if isinstance(place.get("config"), dict) else None
            return "{} ({})".format(suspicion, name) if isinstance(name, str) else suspicion
    return None


def _nested_mappings(value: Any) -> Iterator[Any]:
    """Yield all mappings in a value, without recursion, since a file may nest them arbitrarily deep."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            yield item
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)


def _reason_for_suspicion(place: Any) -> Optional[str]:
    kind, module, inner = place.get("class_name"), place.get("module"), place.get("config")
    if isinstance(kind, str):
        bare = kind.rpartition(">")[2].rpartition(".")[2]
        if bare in _LAYERS:
            return _LAYERS[bare]
        if bare == "__lambda__":
            return "a function as Python bytecode"
        if bare == "TFOpLambda" and isinstance(inner, dict) and _FUNCTIONS.match(str(inner.get("function", ""))):
            return "a call of TensorFlow's {}".format(inner["function"])
        if isinstance(module, str) and module and not _MODULES.match(module):
            return "an object of the module {}, {}".format(module[:80], kind[:80])
        if kind == "function" and module == "builtins" and isinstance(inner, str) and hasattr(builtins, inner):
            return "a call of Python's {}".format(inner)
    return None


def _in_graph(path: str) -> Optional[str]:
    """Search a graph for forbidden operators, as NodeDef.op stores them: field 2, its length, the name."""
    try:
        if os.path.getsize(path) > LIMIT_GRAPH:
            raise LoadError("{} is too large to be searched".format(path))
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise LoadError("{} cannot be read: {}".format(path, error.strerror)) from None
    for name, mark in _operator_marks():
        if mark in data:
            return "the operator {}, which calls Python or touches files".format(name)
    return None


def _operator_marks() -> Iterator[Tuple[str, bytes]]:
    for name in _OPERATORS:
        yield name, b"\x12" + bytes([len(name)]) + name.encode("ascii")
