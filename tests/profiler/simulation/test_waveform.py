"""Waveforms: their closed-form integral is the truth with which everything else is compared."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprof.errors import InputError
from edgeprof.simulation.waveform import Pieces, Sine, Waveform, parse, read_csv, restore

watts = st.floats(-20, 100, allow_nan=False)
seconds = st.floats(1e-3, 5)
pieces = st.builds(
    lambda parts, repeat: Pieces(parts, repeat=repeat),
    st.lists(st.tuples(seconds, watts, watts), min_size=1, max_size=6),
    st.booleans(),
)
waveforms = st.one_of(pieces, st.builds(Sine, watts, watts, seconds))


@given(waveforms, st.floats(0, 50), st.floats(0, 50), st.floats(0, 50))
def test_energy_over_two_neighbouring_spans_adds_up(waveform: Waveform, a: float, b: float, c: float) -> None:
    a, b, c = sorted((a, b, c))
    whole = waveform.between(a, b) + waveform.between(b, c)
    assert whole == pytest.approx(waveform.between(a, c), rel=1e-9, abs=1e-6)


@pytest.mark.slow
@given(waveforms, st.floats(0, 20), st.floats(1e-3, 5))
def test_energy_is_the_integral_of_the_power(waveform: Waveform, start: float, length: float) -> None:
    """The reference is a midpoint sum, which is off by at most half a step at each jump."""
    steps = 20_000
    times = start + (np.arange(steps) + 0.5) * (length / steps)
    summed = sum(waveform.power(float(t)) for t in times) * length / steps
    jumps = 2 + 12 * length / getattr(waveform, "period", math.inf)
    assert waveform.between(start, start + length) == pytest.approx(
        summed, rel=1e-5, abs=1e-6 + jumps * 120 * length / steps
    )


@given(waveforms, st.floats(0, 30), st.floats(0, 2))
def test_flat_is_only_said_where_the_power_does_not_move(waveform: Waveform, start: float, length: float) -> None:
    level = waveform.flat(start, start + length)
    if level is not None:
        for share in (0, 0.3, 0.5, 0.9):
            assert waveform.power(start + share * length) == pytest.approx(level)


@given(waveforms, st.floats(0, 30))
def test_a_description_survives_json(waveform: Waveform, time: float) -> None:
    again = restore(json.loads(json.dumps(waveform.describe())))
    assert again.energy(time) == waveform.energy(time)


@pytest.mark.parametrize(
    ("spec", "period", "energy"),
    [
        ("constant:5W", 3.0, 15.0),
        ("square:1W,10W,20ms", 0.02, 0.11),
        ("ramp:1W,10W,2s", 2.0, 11.0),
        ("burst:4W,17W,100ms,2s", 2.0, 4 * 1.9 + 1.7),
        ("sine:2W,8W,1s", 1.0, 5.0),
        ("square:500mW,1.5,2", 2.0, 2.0),
    ],
)
def test_known_waveforms_have_known_energies(spec: str, period: float, energy: float) -> None:
    """The energy is tested for one period and for a thousand: no error grows with time."""
    waveform = parse(spec)
    assert waveform.energy(period) == pytest.approx(energy)
    assert waveform.between(1000 * period, 1001 * period) == pytest.approx(energy)
    assert waveform.energy(1000 * period) == pytest.approx(1000 * energy)


def test_a_square_begins_low_and_a_burst_ends_its_period() -> None:
    square, burst = parse("square:1W,10W,20ms"), parse("burst:4W,17W,100ms,2s")
    assert [square.power(t) for t in (0, 0.0099, 0.0101, 0.0199)] == [1, 1, 10, 10]
    assert [burst.power(t) for t in (0, 1.89, 1.91, 1.99)] == [4, 4, 17, 17]


@pytest.mark.parametrize(
    ("spec", "says", "helps"),
    [
        ("sqare:1W,2W,3s", "sqare", "square"),
        ("square:1W,2W", "2 numbers where square takes 3", "square:1W,10W,20ms"),
        ("square:1W,2V,1s", "2V", "square:1W"),
        ("square:1W,2W,0s", "not above 0", "square:1W"),
        ("burst:1W,2W,3s,1s", "longer", "burst:4W"),
        ("constant:nan", "nan", "constant:5W"),
        ("", "no waveform", "constant"),
    ],
)
def test_a_wrong_waveform_gets_one_sentence_and_an_example(spec: str, says: str, helps: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(spec)
    assert says in caught.value.message
    assert helps in (caught.value.remedy or "")


def test_a_table_joins_its_rows_by_lines_jumps_at_equal_times_and_stays_at_the_end(tmp_path) -> None:
    file = tmp_path / "w.csv"
    file.write_text("time_s,watts\n0,1\n1,3\n1,10\n2,10\n\n")
    waveform = parse(str(file))
    assert waveform.energy(1) == pytest.approx(2)
    assert waveform.energy(2) == pytest.approx(12)
    assert waveform.energy(5) == pytest.approx(42)
    assert waveform.power(1.0) == 10


def test_a_heading_names_the_rails(tmp_path) -> None:
    file = tmp_path / "w.csv"
    file.write_text("t,VDD_IN,VDD_SOC\n0,5,1\n10,5,2\n")
    tables = read_csv(file)
    assert tables["VDD_IN"].energy(10) == 50
    assert tables["VDD_SOC"].energy(10) == 15


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no two rows"),
        ("0,5\n", "no two rows"),
        ("0,1\n1,x\n", "line 2"),
        ("0,1\n1,1,1\n", "line 2"),
        ("1,1\n0,1\n", "backwards"),
        ("0,nan\n1,1\n", "line 1"),
    ],
)
def test_a_bad_table_names_its_line(tmp_path, text: str, says: str) -> None:
    file = tmp_path / "w.csv"
    file.write_text(text)
    with pytest.raises(InputError, match=says):
        read_csv(file)


def test_a_missing_table_is_one_sentence(tmp_path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        parse(str(tmp_path / "none.csv"))
