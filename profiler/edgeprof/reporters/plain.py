"""Replace characters that a stream's encoding lacks: ``±`` becomes ``+-``, ``µ`` becomes ``u``."""

from __future__ import annotations

import codecs
import unicodedata

ASCII = {
    "±": "+-",
    "·": "|",
    "–": "-",
    "—": "-",
    "−": "-",
    "µ": "u",
    "°": "",
    "◆": "*",
    "◇": "o",
    "×": "x",
    "→": "->",
    "…": "...",
    "≈": "~",
    "≤": "<=",
    "≥": ">=",
    "\N{NO-BREAK SPACE}": " ",
    "▕": "|",
    "▏": "|",
    "█": "#",
    **dict.fromkeys("▎▍▌▋▊▉", "-"),
}
#: The name by which ``str.encode`` and text streams know the handler below.
ERRORS = "edgeprof.plain"


def to_ascii(text: str) -> str:
    """Convert ``text`` to ASCII: symbols by the table, letters without accents, all other characters to ``?``."""
    for symbol, plain in ASCII.items():
        text = text.replace(symbol, plain)
    return unicodedata.normalize("NFKD", text).encode("ascii", "replace").decode()


def _handle(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return to_ascii(error.object[error.start : error.end]), error.end


codecs.register_error(ERRORS, _handle)
