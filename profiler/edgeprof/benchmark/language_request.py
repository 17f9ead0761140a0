"""The requests to language models, as fields of a ``BenchRequest``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprof.errors import InputError
from edgeprof.evaluation.perplexity import CHUNK, CHUNKS, read_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgeprof.evaluation.perplexity import Text

#: The flags that take a list: each of its numbers becomes a separate row.
LISTS = ("prompt", "depth", "batch")
#: The longest list.
MOST = 16


def language_request(
    lengths: Mapping[str, Sequence[int] | None],
    batches: Sequence[int],
    *,
    kv: str | None = None,
    prefill_threads: int | None = None,
    random_weights: bool = False,
    text: str | None = None,
    text_chunks: int | None = None,
) -> dict[str, Any]:
    """Return the fields ``batch``, ``language``, ``sweep``, ``language_options`` and ``text``.

    Args:
        lengths: ``prompt``, ``generate``, ``depth`` and ``context``, each with its numbers; None if not given.
        batches: Requests at the same time (for other models, samples in one call).
        kv: The type of the cache's numbers.
        prefill_threads: Threads that read prompts, if they differ from the others.
        random_weights: Whether to run a configuration without weights.
        text: The file whose perplexity is requested.
        text_chunks: How many pieces of the text are read.

    Raises:
        InputError: A number or the text cannot be used, or there are too many rows.
    """
    given = {name: list(dict.fromkeys(numbers)) for name, numbers in lengths.items() if numbers}
    given["batch"] = list(dict.fromkeys(batches))
    for name, numbers in given.items():
        if len(numbers) > (MOST if name in LISTS else 1):
            takes = f"{MOST} numbers at most" if name in LISTS else "one number"
            raise InputError(f"--{name} takes {takes}, not {len(numbers)}")
        if min(numbers) < 1 and "batch" in name and len(numbers) > 1:
            raise InputError(f"--batch {min(numbers)} is out of range", remedy="Give numbers from 1 on.")
    sweep = {name: numbers for name, numbers in given.items() if len(numbers) > 1}
    options = {"kv": kv, "prefill_threads": prefill_threads, "random_weights": "1" if random_weights else None}
    single = {name: numbers[0] for name, numbers in given.items() if len(numbers) == 1}
    return {
        "batch": single.pop("batch", 1),
        "language": single,
        "sweep": sweep,
        "language_options": {name: str(value) for name, value in options.items() if value is not None},
        "text": _text_of_request(text, text_chunks, single.get("context")),
    }


def _text_of_request(path: str | None, chunks: int | None, context: int | None) -> Text | None:
    if path is None:
        if chunks is None:
            return None
        raise InputError("--text-chunks says how much of a text is read, and there is none", remedy="Add --text FILE.")
    chunk = min(CHUNK, context or CHUNK)
    return read_text(Path(path), chunk=chunk, chunks=CHUNKS if chunks is None else chunks)
