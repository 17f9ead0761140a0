"""One result per line; further runs are appended to such a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprof.results import document

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeprof.results.schema import Result


def render(results: Sequence[Result]) -> str:
    return "".join(document.to_json(result, indent=-1) + "\n" for result in results)
