"""What a terminal can show: its width, colours and characters, and tables that fit it."""

from __future__ import annotations

import os
import re
import shutil
import textwrap
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from edgeprof.reporters.plain import ASCII, to_ascii

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: Of a pipe or a file, which has no width of its own.
PLAIN_WIDTH = 160
#: Prose wider than this is hard to read, however wide the screen.
PROSE_WIDTH = 120
MIN_WIDTH = 40
GAP = "  "
#: A command that adds packages (edgeprof.installation): its flags, quoted requirements and plain names.
_INSTALLS = re.compile(r"(?:\S+ -m pip|uv pip|pipx) (?:install|inject)(?: -[-\w]+| '[^']+'| [\w./-]+(?=[,;)\s]|$))+")

_COLORS = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
#: Spaces at which no line may end: before a unit, around the sign of a p-value.
_TOGETHER = re.compile(
    r"(?<=\d) (?=(?:[kmµn]?(?:J|W|s|Hz|V|A)|%|×|x|pt|[KMG]iB|°C)\b|[%×])|(?<=\bp) (?=[=<])|(?<=[=<]) (?=\d)"
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def together(text: str) -> str:
    """``text`` with no-break spaces where a line should not end."""
    return _TOGETHER.sub("\N{NO-BREAK SPACE}", text)


@dataclass(frozen=True)
class Style:
    """How to write for one stream.

    Attributes:
        width: Columns.
        color: Whether escape sequences are understood.
        unicode: Whether ``±`` and ``µ`` are; else they become ``+-`` and ``u``.
    """

    width: int = PLAIN_WIDTH
    color: bool = False
    unicode: bool = True

    @classmethod
    def of(cls, stream: TextIO, *, no_color: bool = False, environ: Mapping[str, str] | None = None) -> Style:
        """What ``stream`` can show. ``COLUMNS`` wins over the terminal's own width; NO_COLOR over its colours."""
        environ = os.environ if environ is None else environ
        terminal = stream.isatty()
        width = PLAIN_WIDTH
        if terminal or environ.get("COLUMNS", "").isdecimal():
            width = shutil.get_terminal_size((PLAIN_WIDTH, 24)).columns
        color = terminal and not no_color and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
        try:
            "".join(ASCII).encode(stream.encoding or "ascii")
        except (UnicodeEncodeError, LookupError):
            return cls(max(MIN_WIDTH, width), color, unicode=False)
        return cls(max(MIN_WIDTH, width), color)

    def text(self, text: str) -> str:
        """``text`` as this stream can show it; a control character in a file's name cannot steer the terminal."""
        text = _CONTROL.sub("?", text)
        if self.unicode:
            return text
        return to_ascii(text)

    def paint(self, text: str, *colors: str) -> str:
        """``text`` (already passed through ``text``) in colours, where there are any."""
        if not self.color or not text.strip():
            return text
        return f"\x1b[{';'.join(_COLORS[c] for c in colors)}m{text}\x1b[0m"

    def wrap(self, label: str, text: str, *, indent: int = 2, label_width: int = 0) -> list[str]:
        """Prose with a hanging indent under its label.

        Args:
            label: What it is about; empty for none.
            text: Any number of sentences.
            indent: Spaces before the label.
            label_width: Columns that all labels of a list share.
        """
        label, text = self.text(label), self.text(text)
        width = min(self.width, PROSE_WIDTH)
        lead = " " * indent + (label.ljust(label_width) + GAP if label or label_width else "")
        if len(lead) > width // 2:
            lead = " " * indent + label + GAP
            rest = " " * (indent + 4)
        else:
            rest = " " * len(lead)
        lines = textwrap.wrap(
            together(text),
            width,
            initial_indent=lead,
            subsequent_indent=rest,
            break_long_words=False,
            break_on_hyphens=False,
        )
        return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines] or [lead.rstrip()]

    def remedy(self, text: str, *, indent: int = 2) -> list[str]:
        """What to do, behind an arrow; a command that installs something keeps to one line, to be copied."""
        retained = _INSTALLS.sub(lambda command: command[0].replace(" ", "\N{NO-BREAK SPACE}"), text)
        return self.wrap("→", retained, indent=indent)


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        title: Its head.
        cells: One a row, each a pair of what stands left and right of the line that they align on.
        short: Its head where there is little room.
    """

    title: str
    cells: Sequence[tuple[str, str]]
    short: str | None = None


def width(text: str) -> int:
    """Columns that ``text`` takes on a terminal: wide characters take two, combining ones none."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def pad(text: str, columns: int) -> str:
    return text + " " * (columns - width(text))


def table(style: Style, names: Sequence[str], columns: Sequence[Column], marks: Sequence[str]) -> list[str]:
    """One line a row; columns that do not fit go into a further block under the first, with the names repeated.

    Args:
        style: The stream's.
        names: The rows' names.
        columns: In the order of their importance.
        marks: What is written behind each row's last cell of the first block.
    """
    names = [style.text(name) for name in names]
    marks = [style.text(mark) for mark in marks]
    blocks = _column_blocks(style, names, columns, marks, short=False)
    if len(blocks) > 1:
        blocks = _column_blocks(style, names, columns, marks, short=True)
    name_width = max(map(width, names), default=0)
    lines: list[str] = []
    for number, block in enumerate(blocks):
        if number:
            lines.append("")
        head = GAP.join(["", " " * name_width, *(cells[0] for cells in block)]).rstrip()
        lines.append(style.paint(head, "dim"))
        for row, name in enumerate(names, 1):
            line = GAP.join(["", pad(name, name_width), *(cells[row] for cells in block)])
            mark = marks[row - 1] if number == 0 else ""
            lines.append(f"{line}{GAP}{_painted_cell(style, mark)}" if mark else line.rstrip())
    return lines


def _column_blocks(
    style: Style, names: Sequence[str], columns: Sequence[Column], marks: Sequence[str], *, short: bool
) -> list[list[list[str]]]:
    """The columns, each as its lines, in as few blocks as the width allows."""
    room = style.width - len(GAP) - max(map(width, names), default=0)
    used = max((width(mark) + len(GAP) for mark in marks if mark), default=0)
    blocks: list[list[list[str]]] = [[]]
    for column in columns:
        cells = _padded_column(style, column.short if short and column.short else column.title, column.cells)
        need = len(GAP) + width(cells[0])
        if blocks[-1] and used + need > room:
            blocks.append([])
            used = 0
        blocks[-1].append(cells)
        used += need
    return blocks


def _painted_cell(style: Style, mark: str) -> str:
    if mark.startswith(("◆", "*")) and not mark.endswith("degraded"):
        return style.paint(mark, "green", "bold")
    if mark in {"◇", "o"}:
        return style.paint(mark, "green")
    return style.paint(mark, "yellow" if "degraded" in mark else "red")


def _padded_column(style: Style, title: str, pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Title and cells, all padded to one width."""
    cells = [(style.text(left), style.text(right)) for left, right in pairs]
    title = style.text(title)
    left = max((width(a) for a, _ in cells), default=0)
    right = max((width(b) for _, b in cells), default=0)
    gap = " " if left and right else ""
    lines = [" " * (left - width(a)) + a + gap + pad(b, right) for a, b in cells]
    total = max(width(title), *map(width, lines)) if lines else width(title)
    head = " " * (total - width(title)) + title if left else pad(title, total)
    return [head, *(" " * (total - width(line)) + line for line in lines)]
