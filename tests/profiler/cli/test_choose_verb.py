"""``edgeprof choose`` as a user types it: exit codes, the JSON, and the eight questions."""

from __future__ import annotations

import io
import json
import sys

import pytest

from edgeprof.results import document, files
from edgeprof.results.store import Store
from edgeprof.verdicts.requirements import load
from tests.profiler.cli.in_process import verb
from tests.profiler.results import samples

FITS = "[product]\nrate = 15\nbattery_wh = 50\nhours = 2\n[devices.orin]\noutside_w = 1.9\n"


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A separate store and working directory, a screen of 120 columns, and no plugins."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEPROF_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("EDGEPROF_PLUGINS", "")
    monkeypatch.setenv("COLUMNS", "120")
    return tmp_path


@pytest.fixture
def choose(capfd):
    return verb(capfd, "choose")


def write(text, name="r.toml"):
    files.write(files.Path(name), text)
    return name


def study(**host):
    made = samples.study()
    made.host = samples.host(**host)
    for variant in made.variants:
        variant.energy_j_per_inference.net.budget = None
    return made


def test_the_store_is_chosen_from_and_a_row_that_fits_ends_with_0(choose):
    Store().save(study())
    done = choose(write(FITS))
    assert "Take Jetson Orin Nano in 15W, resnet8" in done.stdout
    assert "outside_w" in done.stdout


def test_none_that_fits_ends_with_1_and_only_unknowns_with_3(choose):
    Store().save(study())
    choose(write(FITS.replace("hours = 2", "hours = 2000")), code=1)
    done = choose(write("[product]\nrate = 15\nbattery_wh = 50\nhours = 2\n"), code=3)
    assert "outside_w" in done.stdout


def test_rows_of_one_program_are_told_apart_by_its_callables(choose):
    result = study()
    for number, variant in enumerate(result.variants):
        variant.name, variant.model.path, variant.model.name = f"detect.py:net{number}", "detect.py", None
    Store().save(result)
    out = choose(write(FITS)).stdout
    assert all(out.count(f"{variant.name} ") >= 1 for variant in result.variants), out


def test_the_json_is_whole_and_o_writes_the_same(choose):
    files.write(files.Path("a.json"), document.to_json(study()))
    done = choose(write(FITS), "a.json", "--json", "-o", "choice.json")
    found = json.loads(done.stdout)
    assert found == json.loads(files.Path("choice.json").read_text())
    assert found["schema"] == "edgeprof.choice/1"
    (group,) = found["groups"]
    row = group["rows"][0]
    assert row["verdict"] == "yes"
    low, high = row["hours_ci95"]
    assert low < row["hours"] < high
    assert row["results"] == [samples.ID]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("r.toml",), "nothing is stored"),
        (("none.toml",), "cannot read none.toml"),
        (("r.toml", "none.json"), "there is no file none.json"),
        (("r.toml", "-o", "choice.html"), "does not end in .json"),
        (("r.toml", "--ask"), "exists already"),
    ],
)
def test_bad_input_is_one_sentence(choose, words, sentence):
    write(FITS)
    assert sentence in choose(*words, code=2).stderr


def answer(monkeypatch, *lines):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("".join(f"{line}\n" for line in lines).encode())))


def test_eight_answers_make_the_file_with_the_arithmetic_shown(choose, monkeypatch):
    Store().save(study())
    answer(monkeypatch, "15", "0.25", "0.4", "50", "24", "100ms", "512MiB", "top1 0.8")
    done = choose("new.toml", "--ask", code=3)
    assert "leave 2.08 W" in done.stderr
    found = load(files.Path("new.toml"))
    assert (found.rate_hz, found.duty, found.sleep_w, found.battery_wh, found.hours) == (15, 0.25, 0.4, 50, 24)
    assert (found.latency_p99_s, found.memory_bytes) == (0.1, 512 << 20)
    assert (found.metric, found.accuracy_min) == ("top1", 0.8)


def test_an_answer_that_does_not_fit_is_asked_again_and_what_is_void_is_not_asked(choose, monkeypatch):
    Store().save(study())
    answer(monkeypatch, "", "fast", "15", "", "", "100", "", "", "")
    done = choose("new.toml", "--ask")
    assert "has no unit" in done.stderr
    assert "3/8 Watts while asleep (empty: it idles instead): not asked" in done.stderr
    assert load(files.Path("new.toml")).rate_hz == 15


def test_answers_that_end_early_write_no_file(choose, monkeypatch):
    answer(monkeypatch, "15")
    assert "Traceback" not in choose("new.toml", "--ask", code=130).stderr
    assert not files.Path("new.toml").exists()
