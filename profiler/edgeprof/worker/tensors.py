"""Named arrays as bytes and back, for ``infer``. Python 3.6 grammar: the worker uses it too."""

import base64
from typing import Any, Dict, List, Sequence, Tuple

import numpy as np


def dump(arrays: Dict[str, Any]) -> Tuple[List[Dict[str, Any]], List[bytes]]:
    """Arrays as headers (JSON) and blobs (their bytes, C order).

    Strings travel in the header, and so do the maps and sequences of which ONNX models may consist: arrays of dtype
    object whose items are maps, arrays or None. A dtype that numpy does not have itself (bfloat16, float8) becomes
    float32, which holds it exactly and needs no extension on the other side.

    Raises:
        TypeError: something that is none of these; the sentence names it.
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
            array = objects([_from_tree(item) for item in header["items"]])
        else:
            array = np.frombuffer(bytearray(blob), dtype=np.dtype(header["dtype"]))
        arrays[header["name"]] = array.reshape(shape)
    return arrays


def objects(items: Sequence[Any]) -> Any:
    """A list as a one-dimensional array of objects, whatever they are (numpy would stack arrays of one shape)."""
    array = np.empty(len(items), dtype=object)
    for number, item in enumerate(items):
        array[number] = item
    return array


def _as_array(value: Any) -> Any:
    """An array of it; of a list of arrays or maps one of objects, of a map one with one object."""
    if isinstance(value, dict):
        return objects([value])
    if isinstance(value, (list, tuple)) and any(isinstance(item, (dict, list, tuple, np.ndarray)) for item in value):
        return objects(value)
    return np.asarray(value)


def _json_tree(name: str, item: Any) -> Any:
    """An object as JSON can have it: strings, numbers and None as they are, others as lists that begin with a kind."""
    if item is None or isinstance(item, (str, bool, int, float)):
        return item
    if isinstance(item, bytes):
        return item.decode("utf-8", "replace")
    if isinstance(item, dict):
        return ["map", [[_json_tree(name, key), _json_tree(name, value)] for key, value in item.items()]]
    if isinstance(item, (np.ndarray, np.generic, list, tuple)):
        ((header,), (blob,)) = dump({name: item})
        return ["array", header, base64.b64encode(blob).decode("ascii")]
    raise TypeError("{!r} holds a {}, neither a number nor a string".format(name, type(item).__name__))


def _from_tree(item: Any) -> Any:
    if not isinstance(item, list):
        return item
    if item[0] == "map":
        return {_from_tree(key): _from_tree(value) for key, value in item[1]}
    (array,) = load([item[1]], [base64.b64decode(item[2])]).values()
    return array if array.ndim else array[()]


def distinct(names: Sequence[str], kind: str) -> List[str]:
    """Names as keys: one that is empty becomes ``output_2``, one that was there before gets its number behind it.

    Args:
        names: As the file has them, in its order.
        kind: What is named: ``input`` or ``output``.
    """
    keys: List[str] = []
    for number, name in enumerate(names):
        key = name or "{}_{}".format(kind, number)
        while key in keys or (key != name and key in names):
            key = "{}_{}".format(key, number)
        keys.append(key)
    return keys


def leaves(name: str, value: Any) -> List[Tuple[str, Any]]:
    """The arrays within an output, each under the path to it: ``past_key_values.0.1``; None is no output.

    Args:
        name: Of the output.
        value: An array or what numpy makes one of, or a dict, a tuple or a list that holds arrays.
    """
    if value is None:
        return []
    if hasattr(value, "to_tuple"):  # transformers' ModelOutput that is no dict
        value = value.to_tuple()
    if isinstance(value, dict):
        return [leaf for key, item in value.items() for leaf in leaves("{}.{}".format(name, key), item)]
    if isinstance(value, (tuple, list)) and _holds_arrays(value):
        return [leaf for number, item in enumerate(value) for leaf in leaves("{}.{}".format(name, number), item)]
    return [(name, value)]


def _holds_arrays(values: Any) -> bool:
    """Whether there are arrays (or dicts) in a list, which would be no array itself."""
    return any(
        item is None
        or isinstance(item, dict)
        or getattr(item, "ndim", 0) > 0
        or (isinstance(item, (tuple, list)) and _holds_arrays(item))
        for item in values
    )


def not_finite(arrays: Dict[str, Any]) -> List[Tuple[str, str]]:
    """A code and a sentence for each floating-point array that holds NaN (``nan_output``) or else infinity.

    Infinity alone is ``infinite_output``: an overflow, or the mask that the model means.
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
