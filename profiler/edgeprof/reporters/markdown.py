"""A result to paste into a pull request or a README: GitHub's tables, with the same sentences as the console."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from edgeprof.reporters import names, view
from edgeprof.reporters.operator_view import microcontroller_notes, operator_notes, operator_tables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeprof.reporters.terminal import Column
    from edgeprof.results.schema import Result

_SPECIAL = re.compile(r"([\\`*_\[\]<>|#~])")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


def render(results: Sequence[Result]) -> str:
    """Write the results one after another."""
    return "\n".join(_render_result(result) for result in results)


def _render_result(result: Result) -> str:
    full_names = names.shortened_pairs(result)
    result = names.with_short_names(result)
    lines = [f"**{escape_markup(view.heading(result))}**  ", escape_markup(view.protocol_line(result)), ""]
    columns = view.columns(result.variants)
    marks = view.marks(result)
    marked = any(marks)
    heads = ["variant", *(column.title for column in columns), *([""] if marked else [])]
    lines.append("| " + " | ".join(escape_markup(head) for head in heads) + " |")
    lines.append("|---|" + "---:|" * len(columns) + ("---|" if marked else ""))
    for row, variant in enumerate(result.variants):
        cells = [variant.name, *(" ".join(" ".join(column.cells[row]).split()) for column in columns)]
        lines.append("| " + " | ".join(escape_markup(cell) for cell in cells + ([marks[row]] if marked else [])) + " |")
    lines += _workload_table(result)
    for operators in operator_tables(result.variants):
        lines += ["", f"{escape_markup(operators.title)}:", *_table("operator", operators.names, operators.columns)]
    by_name = {v.name: v for v in result.variants}
    sentences = [(c.variant, view.comparison_text(c, by_name.get(c.variant))) for c in result.comparisons]
    sentences += view.reasons(result)
    if sentences:
        lines.append("")
        lines += [f"- **{escape_markup(who)}**: {escape_markup(text)}" for who, text in sentences]
    for variant in result.variants:
        if variant.last_words:
            # A fence of four tildes ends only at four tildes, which are therefore shortened to three.
            words = [_CONTROL.sub(" ", word).replace("~~~~", "~~~") for word in variant.last_words.splitlines()[-20:]]
            lines += ["", f"Last words of {escape_markup(variant.name)}:", "", "~~~~text", *words, "~~~~"]
    lines += [f"- {escape_markup(short)} is {escape_markup(full)}" for short, full in full_names]
    notes = [*view.notes(result), *operator_notes(result.variants), *microcontroller_notes(result.variants)]
    lines += ["", *(f"{escape_markup(note)}  " for note in notes)]
    lines.append(
        f"edgeprof {escape_markup(result.edgeprof)}, run {escape_markup(result.id)}, {escape_markup(result.created)}"
    )
    return view.join(lines)


def _workload_table(result: Result) -> list[str]:
    """Write a second table with each workload of each variant; empty if no variant has several."""
    rows, columns = view.workload_table((variant.name, variant) for variant in result.variants)
    return _table("workload", rows, columns) if rows else []


def _table(first: str, rows: Sequence[str], columns: Sequence[Column]) -> list[str]:
    heads = [first, *(column.title for column in columns)]
    lines = ["", "| " + " | ".join(escape_markup(head) for head in heads) + " |", "|---|" + "---:|" * len(columns)]
    for row, name in enumerate(rows):
        cells = [name, *(" ".join(" ".join(column.cells[row]).split()) for column in columns)]
        lines.append("| " + " | ".join(escape_markup(cell) for cell in cells) + " |")
    return lines


def escape_markup(text: str) -> str:
    """Escape a text, so that nothing in it is markup; line breaks, which would end a row, become spaces."""
    return _SPECIAL.sub(r"\\\1", _CONTROL.sub(" ", text))
