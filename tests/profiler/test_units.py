"""Quantities are formatted and parsed in the form that people use."""

from __future__ import annotations

import doctest
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprof import units


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(units).failed == 0


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("6mJ", "J", 0.006),
        ("6 mJ", "J", 0.006),
        ("0.006", "J", 0.006),
        ("6e-3J", "J", 0.006),
        ("5µJ", "J", 5e-6),
        ("5uJ", "J", 5e-6),
        ("1.5 s", "s", 1.5),
        ("64MiB", "B", 64 * 2**20),
        ("64MB", "B", 64e6),
        ("64", "B", 64.0),
        (".5kB", "B", 500.0),
    ],
)
def test_a_limit_is_read_as_written(text, unit, value):
    assert units.parse(text, unit) == value


@pytest.mark.parametrize(
    ("text", "unit"), [("", "J"), ("J", "J"), ("5 W", "J"), ("5mB", "B"), ("5MiJ", "J"), ("nan", "s"), ("1 2", "s")]
)
def test_what_is_no_quantity_is_refused(text, unit):
    with pytest.raises(ValueError, match="is not a"):
        units.parse(text, unit)


@pytest.mark.parametrize(("text", "value"), [("5%", 0.05), ("0.5pt", 0.005), ("0.05", 0.05), ("0", 0.0), ("150%", 1.5)])
def test_a_share_is_read_as_written(text, value):
    assert units.parse_ratio(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["1", "5", "five", "5mJ", ""])
def test_a_share_that_could_mean_two_things_is_refused(text):
    with pytest.raises(ValueError, match=r"could mean|is not a share"):
        units.parse_ratio(text)


@given(st.floats(1e-8, 1e8), st.floats(0.0005, 0.5))
def test_a_printed_value_is_within_its_own_uncertainty(value, relative):
    """Rounding to the uncertainty's digits never moves a value by more than half of it."""
    text = units.plus_minus(value, value * relative, "J")
    number, _, rest = text.partition(" ± ")
    unit = rest.split()[1]
    factor = units.parse(f"1{unit}", "J")
    assert math.isclose(float(number) * factor, value, abs_tol=0.5 * value * relative)


@given(st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=9))
def test_one_prefix_serves_the_middle_of_a_column_and_keeps_the_largest_readable(values):
    factor, prefix = units.prefix_for(values)
    middle, largest = sorted(values)[len(values) // 2], max(values)
    assert middle / factor <= 1000.5
    assert largest / factor < 10_000 or prefix == "G"
    assert middle / factor >= 0.99 or largest / factor >= 9.99


def test_a_column_of_microseconds_and_a_tenth_of_a_second_is_in_milliseconds():
    assert units.prefix_for([38e-6, 40e-6, 0.136691]) == (1e-3, "m")
