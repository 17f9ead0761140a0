"""requirements.toml: what is read, what is refused with one sentence, and the arithmetic that is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeprof.errors import InputError
from edgeprof.verdicts.requirements import Requirements, from_toml, load

FILE = Path("requirements.toml")


def read(**product) -> Requirements:
    return from_toml({"product": {"rate": 15, **product}}, FILE)


def test_quantities_come_in_si_units():
    found = read(latency_p99="100ms", memory="512MiB", duty=0.25, sleep_w=0.4, battery_wh=50, derate=0.8, hours=24)
    assert (found.latency_p99_s, found.memory_bytes) == (0.1, 512 << 20)
    assert found.usable_wh == pytest.approx(40.0)
    assert found.budget_w == pytest.approx(40 / 24)
    assert from_toml({"product": {"rate": 1}, "reliability": {"sustained": "30min"}}, FILE).sustained_s == 1800


def test_the_arithmetic_is_shown():
    """50 Wh / 24 h = 2.083 W; (2.083 − 0.75 · 0.4) / 0.25 = 7.13 W awake; 15 · 0.25 · 86400 = 324 000."""
    text = " ".join(read(duty=0.25, sleep_w=0.4, battery_wh=50, hours=24).arithmetic())
    for figure in ("2.08 W", "7.13 W", "324,000"):
        assert figure in text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"product": {}}, "does not say the rate"),
        ({"produkt": {"rate": 1}}, "produkt"),
        ({"product": {"rate": 1, "fps": 2}}, "fps"),
        ({"product": {"rate": 1}, "devices": {"pi5": {"cost": 2}}}, "cost"),
        ({"product": {"rate": 1}, "devices": {"pi5": 3}}, "not a table"),
        ({"product": {"rate": 1}, "devices": {"…": {}}}, "names no device"),
        ({"product": 3}, "not a table"),
        ({"product": {"rate": "15"}}, "not a number"),
        ({"product": {"rate": True}}, "not a number"),
        ({"product": {"rate": float("nan")}}, "not finite"),
        ({"product": {"rate": 0}}, "not above 0"),
        ({"product": {"rate": 1e300}}, "beyond"),
        ({"product": {"rate": 1, "battery_wh": 1e-300}}, "beyond"),
        ({"product": {"rate": 1, "duty": 25}}, "share from 0 to 1"),
        ({"product": {"rate": 1, "duty": 0.5, "sleep_w": -1}}, "below 0"),
        ({"product": {"rate": 1, "latency_p99": 100}}, "has no unit"),
        ({"product": {"rate": 1, "latency_p99": "100MB"}}, "not a quantity in s"),
        ({"product": {"rate": 1, "latency_p99": "-1ms"}}, "beyond"),
        ({"product": {"rate": 1, "latency_p99": "1e999s"}}, "beyond"),
        ({"product": {"rate": 1, "memory": "512"}}, "has no unit"),
        ({"product": {"rate": 1}, "reliability": {"sustained": "30"}}, "has no unit"),
        ({"product": {"rate": 1, "hours": 3}}, "battery_wh"),
        ({"product": {"rate": 1, "derate": 0.5}}, "battery_wh"),
        ({"product": {"rate": 1, "sleep_w": 0.1}}, "never sleeps"),
        ({"product": {"rate": 1, "duty": 0.1, "sleep_w": 3, "battery_wh": 10, "hours": 10}}, "sleep alone"),
        ({"product": {"rate": 1, "duty": 0.1, "sleep_w": 3, "max_w": 2}}, "sleep alone"),
        ({"product": {"rate": 1}, "accuracy": {"min": 0.9}}, "needs a metric"),
        ({"product": {"rate": 1}, "accuracy": {"metric": "top1"}}, "a min or a max"),
        ({"product": {"rate": 1}, "accuracy": {"metric": "top1", "min": 0.9, "max": 0.8}}, "above its max"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(content, words):
    with pytest.raises(InputError, match=words) as caught:
        from_toml(content, FILE)
    assert "\n" not in caught.value.message


def test_a_file_that_is_no_toml_is_refused(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text("[product")
    with pytest.raises(InputError, match="not TOML"):
        load(path)


def test_a_board_is_found_by_a_part_of_its_name_or_by_its_host():
    found = from_toml({"product": {"rate": 1}, "devices": {"pi5": {"price": 80}, "bench-7": {"price": 250}}}, FILE)
    assert found.device("Raspberry Pi 5 Model B", "a").price == 80
    assert found.device("Jetson Orin Nano", "bench-7").price == 250
    assert found.device("Jetson Orin Nano", "b") is None


def test_two_entries_that_fit_one_board_are_refused_unless_one_names_it():
    devices = {"nano": {"price": 1}, "orin": {"price": 2}}
    with pytest.raises(InputError, match="both fit"):
        from_toml({"product": {"rate": 1}, "devices": devices}, FILE).device("Jetson Orin Nano", "a")
    devices["orin"]["board"] = "Jetson Orin Nano"
    assert from_toml({"product": {"rate": 1}, "devices": devices}, FILE).device("Jetson Orin Nano", "a").price == 2
