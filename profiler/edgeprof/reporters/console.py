"""A result for a person at a terminal: the table first, then comparisons, reasons, and what to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprof.reporters import names, view
from edgeprof.reporters.operator_view import microcontroller_notes, operator_notes, operator_tables
from edgeprof.reporters.terminal import Style, table

if TYPE_CHECKING:
    from edgeprof.results.schema import Result

#: Fewest characters of a name, however narrow the terminal is.
MIN_NAME = 20


def render(result: Result, style: Style | None = None, *, heading: bool = True, saved: bool = True) -> str:
    """Write one result as text.

    Args:
        result: The result.
        style: What the stream can show; by default plain text in wide lines.
        heading: Whether to begin with the device and the protocol, which a running bench has already printed.
        saved: Whether the result is in the store, so that its id can be used.
    """
    style = style or Style()
    room = max(MIN_NAME, min(names.MOST, style.width // 3))
    full_names = names.shortened_pairs(result, room)
    result = names.with_short_names(result, room)
    lines: list[str] = []
    if heading:
        lines += [*_heading_lines(result, style), ""]
    if result.variants:
        lines += table(style, [v.name for v in result.variants], view.columns(result.variants), view.marks(result))
    else:
        lines.append("  nothing was measured")
    for block in (
        _workload_lines(result, style),
        *_operator_blocks(result, style),
        _comparison_lines(result, style),
        _reason_lines(result, style),
        _last_words(result, style),
        [style.text(f"  {short} is {full}") for short, full in full_names],
    ):
        if block:
            lines += ["", *block]
    notes = [*view.notes(result), *operator_notes(result.variants), *microcontroller_notes(result.variants)]
    tail = [line for note in notes for line in style.wrap("", note)]
    if saved:
        command = f"edgeprof report {view.short(result.id)} -o report.html"
        tail.append(style.text("  saved as run ") + style.paint(style.text(result.id), "bold") + f" ({command})")
    if tail:
        lines += ["", *tail]
    return view.join(lines)


def _heading_lines(result: Result, style: Style) -> list[str]:
    device, protocol = (
        style.wrap("", view.heading(result), indent=0),
        style.wrap("", view.protocol_line(result), indent=0),
    )
    return [*(style.paint(line, "bold") for line in device), *protocol]


def _workload_lines(result: Result, style: Style) -> list[str]:
    rows, columns = view.workload_table((variant.name, variant) for variant in result.variants)
    return table(style, rows, columns, [""] * len(rows)) if rows else []


def _operator_blocks(result: Result, style: Style) -> list[list[str]]:
    """A block for each variant whose operators were profiled."""
    return [
        [
            style.text(f"  {operators.title}:"),
            *table(style, operators.names, operators.columns, [""] * len(operators.names)),
        ]
        for operators in operator_tables(result.variants)
    ]


def _comparison_lines(result: Result, style: Style) -> list[str]:
    wide = min(style.width // 3, max((len(c.variant) for c in result.comparisons), default=0))
    by_name = {v.name: v for v in result.variants}
    return [
        line
        for c in result.comparisons
        for line in style.wrap(c.variant, view.comparison_text(c, by_name.get(c.variant)), label_width=wide)
    ]


def _reason_lines(result: Result, style: Style) -> list[str]:
    named_reasons = view.reasons(result)
    wide = min(style.width // 3, max((len(who) for who, _ in named_reasons), default=0))
    return [line for who, text in named_reasons for line in style.wrap(who, text, label_width=wide)]


def _last_words(result: Result, style: Style) -> list[str]:
    """The last lines that a worker wrote before it died; they usually contain the cause."""
    lines: list[str] = []
    for variant in result.variants:
        words = (variant.last_words or "").strip().splitlines()
        if variant.status == "failed" and words:
            lines.append(style.text(f"  last words of {variant.name}:"))
            lines += [style.paint("    | " + style.text(word), "dim") for word in words[-8:]]
    return lines
