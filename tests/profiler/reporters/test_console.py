"""The console shows an uncertainty with every number and a provenance with every joule, in any layout."""

from __future__ import annotations

import csv
import io
import re

import pytest

from edgeprof.reporters import console, registry, view
from edgeprof.reporters.charts.rows import rows
from edgeprof.reporters.terminal import Style, width
from edgeprof.results import schema
from tests.profiler.results import samples


def lines_of(result, **style):
    return console.render(result, Style(**style)).splitlines()


@pytest.mark.parametrize("kind", samples.ALL)
@pytest.mark.parametrize("columns", [80, 100, 120, 160])
def test_no_line_is_wider_than_the_screen(kind, columns):
    assert max(width(line) for line in lines_of(samples.ALL[kind](), width=columns)) <= columns


@pytest.mark.parametrize("columns", [80, 160])
def test_every_number_is_shown_at_any_width(columns):
    """Columns that do not fit move below the table; none is dropped."""
    text = console.render(samples.study(), Style(width=columns))
    for number in (
        "12.34 ± 0.21 mJ",
        "7.03 ± 0.20 mJ",
        "2.31 ms",
        "2.61 ms",
        "431 /s",
        "41.2 MiB",
        "96.2 KiB",
        "85.0 %",
    ):
        assert number in text


@pytest.mark.parametrize("word", ["estimated", "simulated"])
def test_joules_that_no_sensor_measured_say_so_in_every_row(word):
    result = samples.ALL[word]()
    rows = [line for line in lines_of(result, width=160) if " ms " in line or " µs " in line]
    assert len(rows) == len(result.variants)
    for row in rows:
        assert row.count(word) == 2  # gross and net


def test_an_estimate_has_the_digits_of_an_estimate_and_its_width():
    assert "~5 mJ ±50 % estimated" in console.render(samples.estimated())


def test_a_joule_that_must_not_be_quoted_is_a_dash_with_its_reason():
    result = samples.uncertain()
    row = next(line for line in lines_of(result, width=160) if line.startswith("  baseline  "))
    assert re.search(r"12.34 ± 0.21 mJ +– ", row)
    assert "under 3 of its standard uncertainties" in console.render(result)


def test_a_failed_variant_keeps_its_row_its_reason_and_its_last_words():
    text = console.render(samples.failed())
    assert re.search(r"int4-weight .* failed", text)
    assert "SIGSEGV" in text
    assert "| Fatal Python error: Segmentation fault" in text


def test_a_reason_shared_by_all_is_said_once():
    text = console.render(samples.estimated())
    assert text.count("15 W at full load is assumed") == 1
    assert "all variants" in text


def test_what_the_rail_leaves_out_is_said():
    assert "carrier board, NVMe and USB are outside VDD_IN" in console.render(samples.one())


def test_a_percentile_that_was_not_bounded_is_a_dash_and_says_what_it_takes():
    result = samples.degraded()
    assert "needs at least 662 requests" in console.render(result)
    assert "662" not in console.render(samples.one())


def test_every_place_gives_the_same_number_for_one_quantile():
    """The table, the CSV, the plot's row, the history's column and the exporter's series."""
    result = samples.one()
    latency = result.variants[0].latency_s
    p50, p99, bound = (view.scaled([value], "s")[0][0] for value in (latency.p50, latency.p99, latency.p99_bound))
    cells = {column.title: column.cells[0][0] for column in view.columns(result.variants)}
    assert (cells["latency p50"], cells["p99"], cells["p99 ≤"]) == (p50, p99, bound)
    (row,) = csv.DictReader(registry.render([result], ".csv").splitlines())
    assert float(row["latency_p50_s"]) == latency.p50
    assert float(row["latency_p99_s"]) == latency.p99
    assert float(row["latency_p99_bound_s"]) == latency.p99_bound
    assert rows([result])[0].latency == latency.p50


def test_the_next_command_names_the_stored_run_only_where_it_is_stored():
    assert "edgeprof report k3f -o report.html" in console.render(samples.one())
    assert "saved as" not in console.render(samples.one(), saved=False)


def test_the_heading_can_be_left_out():
    assert "Jetson" not in console.render(samples.one(), heading=False)


def test_names_cannot_steer_the_terminal():
    result = samples.one()
    result.variants[0].name = "evil\x1b[2J\nname\u202e"
    text = console.render(result)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "evil?[2J?name?" in text


def test_wide_characters_keep_the_columns_straight():
    result = samples.study()
    result.variants[0].name = "模型"
    rows = [line for line in lines_of(result, width=160) if "± 0" in line and " ms " in line]
    assert len({width(row[: row.index("±")]) for row in rows}) == 1


class Stream(io.StringIO):
    def __init__(self, encoding="utf-8", terminal=True):
        super().__init__()
        self._encoding, self._terminal = encoding, terminal

    @property
    def encoding(self):
        return self._encoding

    def isatty(self):
        return self._terminal


@pytest.mark.parametrize(
    ("stream", "environ", "flag", "color"),
    [
        (Stream(), {}, False, True),
        (Stream(), {"NO_COLOR": "1"}, False, False),
        (Stream(), {"TERM": "dumb"}, False, False),
        (Stream(), {}, True, False),
        (Stream(terminal=False), {}, False, False),
    ],
)
def test_colours_are_for_terminals_that_want_them(stream, environ, flag, color):
    assert Style.of(stream, no_color=flag, environ=environ).color is color


def test_a_pipe_gets_one_wide_table():
    assert Style.of(Stream(terminal=False), environ={}).width == 160


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
@pytest.mark.parametrize("kind", samples.ALL)
def test_any_encoding_can_print_it(encoding, kind):
    style = Style.of(Stream(encoding), environ={})
    assert not style.unicode
    console.render(samples.ALL[kind](), style).encode(encoding)


def test_utf8_keeps_its_signs():
    assert Style.of(Stream("utf-8"), environ={}).unicode


def test_units_are_one_for_each_column():
    result = samples.study()
    cells = view.columns(result.variants)[0].cells
    assert {right.split()[-1] for _, right in cells} == {"mJ"}


def test_digits_follow_the_uncertainty():
    figure = schema.EnergyFigure(value=0.0123456, expanded_uncertainty=0.00042, ci95=None)
    assert view.energy_text(figure, "measured") == "12.3 ± 0.4 mJ"
    figure.expanded_uncertainty = 0.00012
    assert view.energy_text(figure, "counter") == "12.35 ± 0.12 mJ"


def test_a_command_that_installs_is_not_broken_into_lines():
    command = "/a/long/path/to/the/python/of/an/environment/bin/python -m pip install 'first>=4.5' 'second>=0.20'"
    lines = Style(width=60).remedy(f"It is missing from this environment, as it seems: {command}, or look elsewhere.")
    assert sum(command in line for line in lines) == 1
    assert all(len(line) <= 60 for line in lines if command not in line)
    assert " ".join(" ".join(lines).split()).endswith(f"{command}, or look elsewhere.")
