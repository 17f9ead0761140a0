"""Rows for spreadsheets: formulas are written as text."""

from __future__ import annotations

import csv
import io

import pytest

from edgeprof.reporters import csv_rows
from tests.profiler.results import samples


@pytest.mark.parametrize("name", ["=cmd|' /C calc'!A0", "+1", "-1+2", "@SUM(A1)", "\t=1", "  =1"])
def test_a_text_that_begins_like_a_formula_is_quoted_in_every_column(name: str) -> None:
    result = samples.study()
    result.host.board = result.host.hostname = result.host.power_mode = name
    for variant in result.variants:
        variant.name = variant.model.path = variant.model.format = name
    rows = list(csv.DictReader(io.StringIO(csv_rows.render([result]))))
    cells = [cell for row in rows for cell in row.values() if cell.strip(" \t\r'").startswith(name.strip()[:2])]
    assert cells
    assert all(cell.startswith("'") for cell in cells)


def test_a_control_character_breaks_no_row() -> None:
    result = samples.study()
    result.variants[0].name = "a\rb\x1b]0;c\x07"
    rows = list(csv.DictReader(io.StringIO(csv_rows.render([result]))))
    assert rows[0]["variant"] == "a?b?]0;c?"


def test_numbers_stay_numbers() -> None:
    rows = list(csv.DictReader(io.StringIO(csv_rows.render([samples.study()]))))
    assert not any(cell.startswith("'") for row in rows for cell in row.values())
