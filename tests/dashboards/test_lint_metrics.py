"""The lint of metric names finds what promtool lets pass, and nothing in what is right."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprof_dashboards import lint_metrics
from tests.dashboards.tools import edgeprof


def exposition(name: str, kind: str, *samples: str, text: str = "Words.") -> str:
    return "\n".join([f"# HELP {name} {text}", f"# TYPE {name} {kind}", *samples, ""])


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (exposition("edgeprof_power_milliwatts", "gauge", "edgeprof_power_milliwatts 1"), "says milliwatts"),
        (
            exposition("edgeprof_load_percent", "gauge", "edgeprof_load_percent 1"),
            "says percent; the base unit is ratio",
        ),
        (
            exposition("edgeprof_joule_total", "counter", "edgeprof_joule_total 1"),
            "says joule; the base unit is joules",
        ),
        (exposition("edgeprof_clock_mhz", "gauge", "edgeprof_clock_mhz 1"), "says mhz"),
        (exposition("edgeprof_x", "counter", "edgeprof_x 1"), "does not end in _total"),
        (
            exposition("edgeprof_x_total", "gauge", "edgeprof_x_total 1"),
            "has the type gauge, and edgeprof_x_total ends in _total",
        ),
        (exposition("power_watts", "gauge", "power_watts 1"), "does not begin with edgeprof_"),
        (exposition("edgeprof_Power_watts", "gauge", "edgeprof_Power_watts 1"), "is not snake_case"),
        (exposition("edgeprof_a", "gauge", "edgeprof_a 1", text=""), "has no HELP"),
        ("edgeprof_a 1\n", "has no TYPE"),
        (exposition("edgeprof_a", "gauge", 'edgeprof_a{zone="1"} 1'), "the label zone, which belongs to the scrape"),
        (exposition("edgeprof_a", "gauge", 'edgeprof_a{instance="1"} 1'), "the label instance"),
        (exposition("edgeprof_a", "gauge", 'edgeprof_a{railName="1"} 1'), "railName, which is not snake_case"),
        (exposition("edgeprof_a", "gauge", 'edgeprof_a{rail="total"} 1'), "a sum over rail counts again"),
        (exposition("edgeprof_a", "gauge", 'edgeprof_a{b="1"} 1', "edgeprof_a 2"), "different labels"),
        (exposition("edgeprof_a", "gauge", "edgeprof_a 1", "edgeprof_a 2"), "twice"),
        (exposition("edgeprof_a", "gauge", "edgeprof_a 1 1700000000000"), "a timestamp of its own"),
        (exposition("edgeprof_a_ratio", "gauge", "edgeprof_a_ratio 37"), "outside 0 to 1"),
        (exposition("edgeprof_a_total", "counter", "edgeprof_a_total -1"), "a counter below 0"),
        (exposition("edgeprof_a_timestamp", "gauge", "edgeprof_a_timestamp 1"), "_timestamp_seconds"),
        (exposition("edgeprof_a_total", "counter", "edgeprof_a_total 1", "edgeprof_a_created 1"), "_created"),
        (exposition("edgeprof_a", "gauge", f'edgeprof_a{{model="{"x" * 300}"}} 1'), "300 characters"),
    ],
)
def test_what_is_wrong_is_found(text, part) -> None:
    found = lint_metrics.lint(text)
    assert any(part in sentence for sentence in found), found


def test_what_is_right_is_let_pass() -> None:
    text = (
        exposition("edgeprof_rail_energy_joules", "counter", 'edgeprof_rail_energy_joules_total{rail="VDD_IN"} 1.5')
        + exposition("edgeprof_throughput_per_second", "gauge", "edgeprof_throughput_per_second 3")
        + exposition("edgeprof_last_run_timestamp_seconds", "gauge", "edgeprof_last_run_timestamp_seconds 1.7e9")
        + exposition("edgeprof_build_info", "gauge", r'edgeprof_build_info{version="0.1 \"beta\""} 1')
        + exposition(
            "edgeprof_duration_seconds",
            "histogram",
            'edgeprof_duration_seconds_bucket{model="a",le="0.1"} 1',
            'edgeprof_duration_seconds_bucket{model="a",le="+Inf"} 2',
            'edgeprof_duration_seconds_sum{model="a"} 0.3',
            'edgeprof_duration_seconds_count{model="a"} 2 # {id="x"} 0.2',
        )
        + "process_cpu_seconds_total 3\npython_info 1\n# EOF\n"
    )
    assert lint_metrics.lint(text) == []


def test_the_exporters_own_table_of_names_is_clean() -> None:
    """Every name of the table, whether or not a board shows it."""
    table = pytest.importorskip("edgeprof_exporters.metric_names").TABLE
    suffix = {"histogram": "_count"}
    for name in table:
        kind = {"info": "gauge"}.get(name.kind, name.kind)
        labels = ",".join(f'{label}="x"' for label in name.labels)
        text = exposition(name.name, kind, f"{name.name}{suffix.get(kind, '')}{{{labels}}} 1", text=name.text)
        assert lint_metrics.lint(text) == [], name.name


@given(st.text())
def test_any_text_is_read_or_refused_with_a_line_number(text) -> None:
    try:
        lint_metrics.lint(text)
    except ValueError as error:
        assert "line" in str(error) or "could not convert" in str(error)  # noqa: PT017 - either is an answer


def test_the_command_reads_stdin_says_what_is_wrong_and_exits_1(tmp_path) -> None:
    path = tmp_path / "metrics.txt"
    path.write_text(exposition("edgeprof_power_mw", "gauge", "edgeprof_power_mw 1"))
    done = edgeprof("dashboards", "lint-metrics", str(path), code=1)
    assert done.stdout == "edgeprof_power_mw: says mw; the base unit is watts\n"
    done = edgeprof("dashboards", "lint-metrics", str(tmp_path / "none"), code=2)
    assert "cannot be read as metrics" in done.stderr
