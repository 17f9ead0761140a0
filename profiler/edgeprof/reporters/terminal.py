"""The abilities of a terminal (width, colours, characters), and tables that fit it."""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from typing import TYPE_CHECKING, NamedTuple, TextIO

from edgeprof.reporters.plain import ASCII, to_ascii

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

#: Columns of a pipe or a file, which has no width of its own.
PLAIN_WIDTH = 160
#: Widest prose that is easy to read (columns), however wide the screen is.
PROSE_WIDTH = 120
MIN_WIDTH = 40
GAP = "  "
#: A command that adds packages (edgeprof.installation): its flags, quoted requirements and plain names. Or a program of
#: one line, as shlex.quote writes it. Not compiled here, like the next one: a live display starts sooner without them.
_COPIED = (
    r"(?:(?:\S+ -m |uv )?pip|pipx) (?:install|inject)(?: -[-\w]+| '[^']+'| [\w./-]+(?=[,;)\s]|$))+"
    r"|python3? -c '(?:[^']|'\"'\"')+'"
)

_COLORS = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
#: Spaces at which a line must not end: before a unit, around the sign of a p-value.
_TOGETHER = r"(?<=\d) (?=(?:[kmµn]?(?:J|W|s|Hz|V|A)|%|×|x|pt|[KMG]iB|°C)\b|[%×])|(?<=\bp) (?=[=<])|(?<=[=<]) (?=\d)"
#: Latin letters, punctuation, arrows, signs and blocks, of which none is wide and none combines.
_NARROW = re.compile("[\x00-\u02ff\u2010-\u2027\u2190-\u22ff\u2500-\u259f]*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def together(text: str) -> str:
    """Put no-break spaces where a line should not end."""
    return re.sub(_TOGETHER, "\N{NO-BREAK SPACE}", text)


def terminal_size(columns: int = 80, lines: int = 24, environ: Mapping[str, str] | None = None) -> tuple[int, int]:
    """Columns and lines of the terminal: COLUMNS and LINES, or else those of stdout, or else the given ones.

    shutil.get_terminal_size does the same; its module imports zlib, bz2 and lzma.
    """
    environ = os.environ if environ is None else environ
    try:
        size = os.get_terminal_size(sys.__stdout__.fileno() if sys.__stdout__ else -1)
    except (OSError, ValueError):  # no terminal; stdout is closed
        size = os.terminal_size((0, 0))
    asked = [int(text) if (text := environ.get(name, "")).isdecimal() else 0 for name in ("COLUMNS", "LINES")]
    return asked[0] or size.columns or columns, asked[1] or size.lines or lines


class Style(NamedTuple):
    """What one stream can show.

    Attributes:
        width: Number of columns.
        color: Whether it understands escape sequences.
        unicode: Whether it can show ``±`` and ``µ``, which otherwise become ``+-`` and ``u``.
    """

    width: int = PLAIN_WIDTH
    color: bool = False
    unicode: bool = True

    @classmethod
    def of(cls, stream: TextIO, *, no_color: bool = False, environ: Mapping[str, str] | None = None) -> Style:
        """Find out what ``stream`` can show; COLUMNS overrides the terminal's width, NO_COLOR its colours."""
        environ = os.environ if environ is None else environ
        terminal = stream.isatty()
        width = PLAIN_WIDTH
        if terminal or environ.get("COLUMNS", "").isdecimal():
            width = terminal_size(PLAIN_WIDTH, environ=environ)[0]
        color = terminal and not no_color and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
        try:
            "".join(ASCII).encode(stream.encoding or "ascii")
        except (UnicodeEncodeError, LookupError):
            return cls(max(MIN_WIDTH, width), color, unicode=False)
        return cls(max(MIN_WIDTH, width), color)

    def text(self, text: str) -> str:
        """Convert ``text`` to what this stream can show; control characters, as in a file name, become ``?``."""
        text = _CONTROL.sub("?", text)
        if self.unicode:
            return text
        return to_ascii(text)

    def paint(self, text: str, *colors: str) -> str:
        """Colour a text, which must have passed through ``text``; unchanged if the stream has no colours."""
        if not self.color or not text.strip():
            return text
        return f"\x1b[{';'.join(_COLORS[c] for c in colors)}m{text}\x1b[0m"

    def wrap(self, label: str, text: str, *, indent: int = 2, label_width: int = 0) -> list[str]:
        """Wrap prose with a hanging indent under its label.

        Args:
            label: The label; empty for none.
            text: The prose.
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
        return _broken(together(_unbroken_commands(text)), width, lead, rest) or [lead.rstrip()]

    def fit(self, lines: Iterable[str]) -> list[str]:
        """Break lines that are wider than the stream between words, and indent what continues a line.

        A command that is broken if it is copied from two lines keeps to one line.
        """
        fitted: list[str] = []
        for line in lines:
            if width(line) <= self.width:
                fitted.append(line)
                continue
            text = line.lstrip(" ")
            lead = line[: len(line) - len(text)]
            rest = lead + " " * (2 if text.startswith("→") else 4)
            fitted += _broken(together(_unbroken_commands(text)), self.width, lead, rest)
        return fitted

    def remedy(self, text: str, *, indent: int = 2) -> list[str]:
        """What to do, behind an arrow."""
        return self.wrap("→", text, indent=indent)


def _unbroken_commands(text: str) -> str:
    """Put no-break spaces into commands that are broken if they are copied from two lines."""
    return re.sub(_COPIED, lambda command: command[0].replace(" ", "\N{NO-BREAK SPACE}"), text)


def _broken(text: str, columns: int, lead: str, rest: str) -> list[str]:
    """Break a text between words: ``lead`` begins its first line, ``rest`` the others. Makes no-break spaces plain.

    textwrap counts characters, and a wide one takes two columns.
    """
    lines, line = [], lead
    for word in re.findall(" *[^ ]+", text):  # with the spaces before it, which may align columns
        if width(line + word) > columns and line not in {lead, rest}:
            lines.append(line)
            line = rest
        line += word.lstrip(" ") if line in {lead, rest} else word
    lines += [line] if line not in {lead, rest} else []
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]


class Column(NamedTuple):
    """One column of a table.

    Attributes:
        title: Title of the column.
        cells: A cell for each row: the texts left and right of the line on which the cells are aligned.
        short: A shorter title for narrow terminals.
    """

    title: str
    cells: Sequence[tuple[str, str]]
    short: str | None = None


def width(text: str) -> int:
    """The columns that ``text`` takes on a terminal: wide characters take two, combining characters none."""
    if _NARROW.fullmatch(text):  # nearly all texts, at a tenth of the time
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def pad(text: str, columns: int) -> str:
    return text + " " * (columns - width(text))


def table(style: Style, names: Sequence[str], columns: Sequence[Column], marks: Sequence[str]) -> list[str]:
    """Format a table; columns that do not fit go into a further block below, in which the names are repeated.

    Args:
        style: The style of the stream.
        names: Names of the rows.
        columns: The columns, the most important first.
        marks: A text for the end of each row in the first block.
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
    """Arrange the columns, each as a list of lines, in as few blocks as the width allows."""
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
    """The title and the cells of a column, all padded to one width."""
    cells = [(style.text(left), style.text(right)) for left, right in pairs]
    title = style.text(title)
    left = max((width(a) for a, _ in cells), default=0)
    right = max((width(b) for _, b in cells), default=0)
    gap = " " if left and right else ""
    lines = [" " * (left - width(a)) + a + gap + pad(b, right) for a, b in cells]
    total = max(width(title), *map(width, lines)) if lines else width(title)
    head = " " * (total - width(title)) + title if left else pad(title, total)
    return [head, *(" " * (total - width(line)) + line for line in lines)]
