"""Convert named arrays to bytes and back, for the request ``infer``. Python 3.6 grammar: the worker uses it too."""

import base64
from typing import Any, Dict, List, Sequence, Tuple

import numpy as np


def dump(arrays: Dict[str, Any]) -> Tuple[List[Dict[str, Any]], List[bytes]]:
    """Convert arrays to headers (JSON) and blobs (their bytes in C order).

    Strings travel in the header, and so do the maps and sequences that ONNX models may take and return: they are arrays
    of dtype object whose items are maps, arrays or None. A dtype that numpy itself does not have (bfloat16, float8)
    becomes float32, which represents it exactly and needs no extension on the other side.

    Raises:
        TypeError: a value is none of these; the sentence names it.
    """
    headers: List[Dict[str, Any]] = []
    blobs: List[bytes] = []
    for name, given in arrays.items():
        array = _as_array(given)
        if array.dtype.kind == "V" and array.dtype.type is not np.void and array.dtype.names is None:
            array = array.astype(np.float32)
        header: Dict[str, Any] = {"name": str(name), "shape": list(array.shape), "dtype": array.dtype.str}
        if array.dtype.kind in "OSU":
            header["dtype"] = "object"
            header["items"] = [_json_tree(name, item) for item in array.ravel().tolist()]
            blobs.append(b"")
        elif array.dtype.kind in "biufc":
            blobs.append(array.tobytes())
        else:
            raise TypeError("{!r} is {}, neither numbers nor strings".format(name, array.dtype))
        headers.append(header)
    return headers, blobs


def load(headers: Sequence[Dict[str, Any]], blobs: Sequence[bytes]) -> Dict[str, Any]:
    """The inverse of ``dump``: name → array that the caller owns."""
    arrays: Dict[str, Any] = {}
    for header, blob in zip(headers, blobs):
        shape = tuple(header["shape"])
        if header["dtype"] == "object":
            array = object_array([_from_tree(item) for item in header["items"]])
        else:
            array = np.frombuffer(bytearray(blob), dtype=np.dtype(header["dtype"]))
        arrays[header["name"]] = array.reshape(shape)
    return arrays


def object_array(items: Sequence[Any]) -> Any:
    """Make a one-dimensional array of objects from a list (numpy would stack arrays of equal shape)."""
    array = np.empty(len(items), dtype=object)
    for number, item in enumerate(items):
        array[number] = item
    return array


def _as_array(value: Any) -> Any:
    """Convert a value to an array; a map, or a list of arrays or maps, becomes an array of objects."""
    if isinstance(value, dict):
        return object_array([value])
    if isinstance(value, (list, tuple)) and any(isinstance(item, (dict, list, tuple, np.ndarray)) for item in value):
        return object_array(value)
    return np.asarray(value)


def _json_tree(name: str, item: Any) -> Any:
    """Convert an object to JSON: strings, numbers and None stay as they are, others become lists that begin with a
    kind.
    """
    if item is None or isinstance(item, (str, bool, int, float)):
        return item
    if isinstance(item, bytes):
        return item.decode("utf-8", "replace")
    if isinstance(item, dict):
        return ["map", [[_json_tree(name, key), _json_tree(name, value)] for key, value in item.items()]]
    if isinstance(item, (np.ndarray, np.generic, list, tuple)):
        ((header,), (blob,)) = dump({name: item})
        return ["array", header, base64.b64encode(blob).decode("ascii")]
    raise TypeError("{!r} holds an item of type {}, not a number or a string".format(name, type(item).__name__))


def _from_tree(item: Any) -> Any:
    if not isinstance(item, list):
        return item
    if item[0] == "map":
        return {_from_tree(key): _from_tree(value) for key, value in item[1]}
    (array,) = load([item[1]], [base64.b64decode(item[2])]).values()
    return array if array.ndim else array[()]


def unique_names(names: Sequence[str], kind: str) -> List[str]:
    """Make names unique: an empty name becomes ``output_2``, a repeated one gets its position appended.

    Args:
        names: The names in the file, in their order.
        kind: What they name: ``input`` or ``output``.
    """
    keys: List[str] = []
    for number, name in enumerate(names):
        key = name or "{}_{}".format(kind, number)
        while key in keys or (key != name and key in names):
            key = "{}_{}".format(key, number)
        keys.append(key)
    return keys


def nested_arrays(name: str, value: Any) -> List[Tuple[str, Any]]:
    """The arrays within an output, each named by the path to it: ``past_key_values.0.1``; None holds no array.

    Args:
        name: The name of the output.
        value: An array, anything that numpy can convert to one, or a dict, a tuple or a list that holds arrays.
    """
    if value is None:
        return []
    if hasattr(value, "to_tuple"):  # transformers' ModelOutput that is no dict
        value = value.to_tuple()
    if isinstance(value, dict):
        return [leaf for key, item in value.items() for leaf in nested_arrays("{}.{}".format(name, key), item)]
    if isinstance(value, (tuple, list)) and _holds_arrays(value):
        return [leaf for number, item in enumerate(value) for leaf in nested_arrays("{}.{}".format(name, number), item)]
    return [(name, value)]


def _holds_arrays(values: Any) -> bool:
    """Whether a list holds arrays or dicts, so that it is not itself the content of one array."""
    return any(
        item is None
        or isinstance(item, dict)
        or getattr(item, "ndim", 0) > 0
        or (isinstance(item, (tuple, list)) and _holds_arrays(item))
        for item in values
    )


def not_finite(arrays: Dict[str, Any]) -> List[Tuple[str, str]]:
    """Find floating-point arrays that hold NaN or infinity, and return a code and a sentence for each of them.

    The code is ``nan_output``, or ``infinite_output`` for infinity alone, which may be an overflow or a deliberate
    mask.
    """
    problems = []
    for name, given in arrays.items():
        array = _as_array(given)
        if array.dtype.kind not in "fc" or not array.size:
            continue
        nans, infinities = int(np.isnan(array).sum()), int(np.isinf(array).sum())
        if nans or infinities:
            what = " and ".join(
                "{} {}".format(count, word) for count, word in ((nans, "NaN"), (infinities, "infinite")) if count
            )
            code = "nan_output" if nans else "infinite_output"
            problems.append((code, "output {!r} holds {} of {} values".format(name, what, array.size)))
    return problems
