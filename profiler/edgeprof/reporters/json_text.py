"""The result file itself, ``edgeprof.result/1``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprof.errors import InputError
from edgeprof.results import document

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeprof.results.schema import Result


def render(results: Sequence[Result]) -> str:
    """Write one result as indented JSON.

    Raises:
        InputError: there are several results; a .json file holds one.
    """
    if len(results) != 1:
        raise InputError(
            f"a .json file holds one result, not {len(results)}", remedy="Give -o a name that ends in .jsonl."
        )
    return document.to_json(results[0]) + "\n"
