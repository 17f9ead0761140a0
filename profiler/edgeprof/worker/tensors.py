"""Named arrays as bytes and back, for ``infer``. Python 3.6 grammar: the worker uses it too."""

from typing import Any, Dict, List, Sequence, Tuple

import numpy as np


def dump(arrays: Dict[str, Any]) -> Tuple[List[Dict[str, Any]], List[bytes]]:
    """Arrays as headers (JSON) and blobs (their bytes, C order).

    Strings (dtype object) travel in the header. A dtype that numpy does not have itself (bfloat16, float8) becomes
    float32, which holds it exactly and needs no extension on the other side.

    Raises:
        TypeError: something that is no array of numbers or strings; the sentence names it.
    """
    headers: List[Dict[str, Any]] = []
    blobs: List[bytes] = []
    for name, given in arrays.items():
        array = np.asarray(given)
        header: Dict[str, Any] = {"name": str(name), "shape": list(array.shape), "dtype": array.dtype.str}
        if array.dtype.kind == "V":
            array = array.astype(np.float32)
            header["dtype"] = array.dtype.str
        if array.dtype.kind in "OSU":
            header["dtype"] = "object"
            header["strings"] = [_text(name, item) for item in array.ravel().tolist()]
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
            array = np.empty(len(header["strings"]), dtype=object)
            array[:] = header["strings"]
        else:
            array = np.frombuffer(bytearray(blob), dtype=np.dtype(header["dtype"]))
        arrays[header["name"]] = array.reshape(shape)
    return arrays


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


def not_finite(arrays: Dict[str, Any]) -> List[Tuple[str, str]]:
    """A code and a sentence for each floating-point array that holds NaN (``nan_output``) or else infinity.

    Infinity alone is ``infinite_output``: an overflow, or the mask that the model means.
    """
    found = []
    for name, given in arrays.items():
        array = np.asarray(given)
        if array.dtype.kind not in "fc" or not array.size:
            continue
        nans, infinities = int(np.isnan(array).sum()), int(np.isinf(array).sum())
        if nans or infinities:
            what = " and ".join(
                "{} {}".format(count, word) for count, word in ((nans, "NaN"), (infinities, "infinite")) if count
            )
            code = "nan_output" if nans else "infinite_output"
            found.append((code, "output {!r} holds {} of {} values".format(name, what, array.size)))
    return found


def _text(name: str, item: Any) -> str:
    if isinstance(item, bytes):
        return item.decode("utf-8", "replace")
    if isinstance(item, str):
        return item
    raise TypeError("{!r} holds a {}, neither a number nor a string".format(name, type(item).__name__))
