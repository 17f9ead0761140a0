"""Hooks for mkdocs.yml: the site has no files outside of docs/, so links to them become plain text."""

from __future__ import annotations

import re
from typing import Any

_OUTSIDE = re.compile(r"\[(?P<text>[^\]]+)\]\(\.\./(?P<path>[^)#\s]+)(?:#[^)\s]*)?\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace ``[text](../examples/x.py)`` by ``text (in the repository: examples/x.py)``."""

    def named(match: re.Match[str]) -> str:
        text, path = match["text"], match["path"]
        return f"`{path}` of the repository" if text.strip("`") in path else f"{text} (`{path}` of the repository)"

    return _OUTSIDE.sub(named, markdown)
