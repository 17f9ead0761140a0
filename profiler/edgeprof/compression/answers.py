"""Read the answers of a child process without running code that they contain.

The child opens a model, and with ``--sandbox`` it is not trusted. Its answers are pickles, which may call anything that
they name: here they may name only exceptions of Python and edgeprof, plain values, and edgeprof's records.
"""

from __future__ import annotations

import builtins
import dataclasses
import enum
import io
import pickle
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

#: Bytes of the longest answer; the graph of the largest model takes some megabytes.
LONGEST = 256 << 20

_OWN_PACKAGES = ("edgeprof", "edgeprof_plugins")
#: Names outside edgeprof that only make plain values.
_PLAIN = frozenset(
    [
        *(("builtins", name) for name in ("bytearray", "complex", "frozenset", "range", "set", "slice")),
        ("collections", "OrderedDict"),
        ("pathlib", "PosixPath"),
        ("pathlib._local", "PosixPath"),
    ]
)


class AnswerError(Exception):
    """Raised if the received bytes are not an answer; the text is one clause with the reason."""


def send_answer(pipe: Connection, kind: str, content: Any) -> None:
    """Send an answer that ``receive_answer`` understands.

    Args:
        pipe: The pipe to the parent.
        kind: ``progress``, ``running``, ``made`` or ``raised``.
        content: The answer's content; for a library's exception, only its name and text are sent.
    """
    if kind == "raised" and type(content).__module__.partition(".")[0] not in ("builtins", *_OWN_PACKAGES):
        content = (type(content).__name__, str(content))
    text = io.BytesIO()
    pickler = pickle.Pickler(text)
    pickler.dispatch_table = {}  # without what libraries register for the whole process, as Dask does for exceptions
    pickler.dump((kind, content))
    pipe.send_bytes(text.getvalue())


def receive_answer(pipe: Connection) -> tuple[str, Any]:
    """Return the kind and the content of the next answer; the content of ``raised`` is an exception.

    Raises:
        EOFError: The child has ended.
        AnswerError: The child sent something else.
    """
    try:
        sent = pipe.recv_bytes(LONGEST)
    except OSError as error:  # longer than LONGEST; the rest is still in the pipe
        raise AnswerError(f"it cannot be received: {error}") from error
    try:
        kind, content = _Reader(io.BytesIO(sent)).load()
    except Exception as error:  # pickle raises whatever its content leads to
        raise AnswerError(str(error) or type(error).__name__) from error
    if kind == "raised" and _is_pair(content) and isinstance(content[1], str):
        content = type(content[0], (Exception,), {})(content[1])
    if not _FITS.get(kind, lambda _: False)(content):
        raise AnswerError("it is of no kind that is known")
    return kind, content


def _is_pair(content: Any) -> bool:
    return isinstance(content, tuple) and len(content) == 2 and isinstance(content[0], str)


#: Kind of an answer → a check whether a value can be its content.
_FITS: dict[Any, Callable[[Any], bool]] = {
    "progress": _is_pair,
    "running": lambda content: content is None or isinstance(content, str),
    "raised": lambda content: isinstance(content, Exception),
    "made": lambda _: True,
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _PLAIN:
            return super().find_class(module, name)
        if module == "builtins":
            named = getattr(builtins, name, None)
            if isinstance(named, type) and issubclass(named, Exception):
                return named
        elif module.partition(".")[0] in _OWN_PACKAGES:
            named = getattr(sys.modules.get(module), name, None)
            if isinstance(named, type) and _is_record(named):
                return named
        raise pickle.UnpicklingError(f"it names {module}.{name}")


def _is_record(named: type) -> bool:
    return (
        dataclasses.is_dataclass(named)
        or issubclass(named, (enum.Enum, Exception))
        or (issubclass(named, tuple) and hasattr(named, "_fields"))
    )
