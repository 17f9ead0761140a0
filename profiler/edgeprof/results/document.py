"""A result as a document: write the text of ``edgeprof.result/1``, and read it or reject it with one sentence.

Reading ignores unknown fields, so that a file which a later edgeprof wrote with the same schema stays readable; an
unknown schema is an error.
"""

from __future__ import annotations

import contextlib
import gc
import os
import re
from typing import TYPE_CHECKING, Any

import msgspec

from edgeprof import whole_files
from edgeprof.errors import InputError
from edgeprof.results.schema import SCHEMA, Result

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def as_text(result: Result) -> Result:
    """Make every string of a result valid UTF-8, because a file name may hold any bytes."""
    try:
        msgspec.json.encode(result)
    except UnicodeEncodeError:
        return msgspec.convert(_clean_text(msgspec.to_builtins(result)), Result)
    return result


def _clean_text(value: Any) -> Any:
    if isinstance(value, str):
        return os.fsencode(value).decode("utf-8", "replace")
    if isinstance(value, dict):
        return {_clean_text(key): _clean_text(item) for key, item in value.items()}
    return [_clean_text(item) for item in value] if isinstance(value, list) else value


#: The limits of every quantity of a result, in its unit; real quantities are far within them.
LARGEST, SMALLEST = 1e60, 1e-60


def to_json(result: Result, *, indent: int = 2) -> str:
    """Return the file's text; NaN and infinities become null."""
    return msgspec.json.format(msgspec.json.encode(result), indent=indent).decode()


def from_json(text: str | bytes, *, source: str = "result") -> Result:
    """Read a result.

    Args:
        text: The file's content.
        source: The file's name, for messages.

    Raises:
        InputError: The text is not JSON, is cut off, has another schema, or has a field of the wrong type; the message
            names the place.
    """
    content = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    result = _decode_ordinary(content)
    if result is None:
        result = _decode_carefully(text, source)
    if any(len(strip.times_s) != len(strip.power_w) for strip in result.traces):
        raise InputError(f"{source} has a trace with more times than readings, or fewer", remedy=_WRITE_IT_AGAIN)
    return result


#: A number that may lie beyond LARGEST and SMALLEST has an exponent of 35 or more, or 25 digits in a row.
_FAR_NUMBER = re.compile(rb"[eE][+-]?0*(?:3[5-9]|[4-9]\d|\d{3,})(?=[\s,\]}])|\d{25}")
#: Every digit becomes 0, E becomes e, and every character that may end a number becomes a comma. What ``_FAR_NUMBER``
#: finds is then a few fixed texts, and a search for bytes is many times as fast as a regular expression.
_SHAPES = bytes.maketrans(b"123456789E]}\n\r\t ", b"000000000e,,,,,,")
_FAR_SHAPES = (b"e-00", b"e+00", 25 * b"0")
_FAR_EXPONENT = re.compile(rb"0e00+,")
_NAMES_SCHEMA = re.compile(rb'"schema":\s*"%s"' % re.escape(SCHEMA.encode()))


def _decode_ordinary(content: bytes) -> Result | None:
    """Decode a result of this version in one step; return None if the text needs closer inspection.

    This is three times as fast as inspecting each value in Python, which matters for a month of a fleet's results.
    """
    is_old = b'"p50_bound"' not in content and b'"latency_s"' in content
    if is_old or not _NAMES_SCHEMA.search(content) or _may_hold_far_number(content):
        return None
    try:
        with collector_paused():
            result = _DECODER.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return result if result.schema == SCHEMA else None


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Pause the collection of cycles while many objects without cycles are made; it would visit them again and again.

    For a result of 10,000 variants that takes half as long as decoding itself.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _may_hold_far_number(content: bytes) -> bool:
    """Return whether a number of a JSON text may lie beyond ``LARGEST`` or ``SMALLEST``."""
    shapes = content.translate(_SHAPES)
    if not any(shape in shapes for shape in _FAR_SHAPES) and not _FAR_EXPONENT.search(shapes):
        return False
    return _FAR_NUMBER.search(content) is not None


def _decode_carefully(text: str | bytes, source: str) -> Result:
    """Decode a text that may be an old result, or no result at all.

    Raises:
        InputError: See ``from_json``.
    """
    if not text.strip():
        raise InputError(f"{source} is empty", remedy=_WRITE_IT_AGAIN)
    try:
        head = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if "truncated" in str(error):
            raise InputError(f"{source} is cut off in the middle of its JSON", remedy=_WRITE_IT_AGAIN) from None
        raise InputError(f"{source} is not JSON ({error})", remedy=_WRITE_IT_AGAIN) from None
    schema = head.get("schema") if isinstance(head, dict) else None
    if schema != SCHEMA:
        raise _wrong_schema(source, schema)
    _separate_bounds(head)
    wrong = _impossible_number(head)
    if wrong is not None:
        raise InputError(f"{source} holds {wrong}, which nothing measures", remedy=_WRITE_IT_AGAIN)
    try:
        return msgspec.convert(head, Result)
    except msgspec.ValidationError as error:
        raise InputError(f"{source} is not a whole result: {error}", remedy=_WRITE_IT_AGAIN) from None


def _separate_bounds(document: dict[str, Any]) -> None:
    """Rename, in place, the latency bounds that an older edgeprof wrote.

    There, ``p50`` … ``p99`` were upper bounds, and ``median`` was the only quantile.
    """
    variants = document.get("variants")
    for variant in variants if isinstance(variants, list) else []:
        if not isinstance(variant, dict):
            continue
        workloads = variant.get("workloads")
        for holder in (variant, *(workloads if isinstance(workloads, list) else ())):
            latency = holder.get("latency_s") if isinstance(holder, dict) else None
            if not isinstance(latency, dict) or "p50_bound" in latency or latency.get("median") is None:
                continue
            for name in ("p50", "p90", "p95", "p99"):
                latency[f"{name}_bound"] = latency.pop(name, None)
            latency["p50"] = latency["median"]


def _impossible_number(document: Any) -> str | None:
    """Return the key and value of a number that is beyond the limits; None if there is no such number.

    Such a number (1e300 joules) would overflow arithmetic that is safe for every measured value.
    """
    waiting: list[tuple[str, Any]] = [("", document)]
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, dict):
            waiting.extend(value.items())
        elif isinstance(value, list):
            waiting.extend((key, item) for item in value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            size = abs(value)
            if size > LARGEST or (0 < size < SMALLEST and not key.startswith("p_value")):
                return f"{key} = {value:.3g}" if isinstance(value, float) else f"{key} of {len(str(size))} digits"
    return None


_DECODER = msgspec.json.Decoder(Result)
_WRITE_IT_AGAIN = "Give a result: a file of edgeprof bench -o FILE.json, or an id that edgeprof history lists."


def _wrong_schema(source: str, schema: object) -> InputError:
    if not isinstance(schema, str):
        return InputError(f"{source} is JSON but no edgeprof result: it has no schema", remedy=_WRITE_IT_AGAIN)
    kind, _, version = schema.rpartition("/")
    if kind == SCHEMA.rpartition("/")[0] and version.isdecimal():
        return InputError(
            f"{source} has the schema {schema!r}; this edgeprof reads {SCHEMA!r}",
            remedy="Read it with the edgeprof that wrote it, or a newer one (docs/install.md).",
        )
    return InputError(f"{source} has the schema {schema!r}, which is not a result", remedy=_WRITE_IT_AGAIN)


def load(path: Path) -> Result:
    """Read a result file.

    Raises:
        InputError: The file cannot be read, or is not a result (see ``from_json``).
    """
    try:
        content = whole_files.read_bytes(path)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", remedy=_WRITE_IT_AGAIN) from None
    return from_json(content, source=str(path))
