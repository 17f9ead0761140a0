"""Sentences are broken between words where the terminal is narrow, and are one line each elsewhere."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprof.cli.main import run
from edgeprof.cli.prose import say
from edgeprof.reporters.terminal import Style, width
from edgeprof.simulation.layouts import build

WORDS = st.lists(st.text("añ→漢x", max_size=9))
LINES = st.lists(st.builds(lambda indent, words: " " * indent + " ".join(words), st.integers(0, 8), WORDS))


@given(LINES, st.integers(40, 120))
def test_no_line_is_wider_than_the_terminal_and_no_word_is_lost(lines, columns):
    fitted = Style(width=columns).fit(lines)
    assert " ".join(fitted).split() == " ".join(lines).split()
    assert all(width(line) <= columns for line in fitted)
    assert Style(width=columns).fit(fitted) == fitted


def test_a_line_stays_whole_in_a_file(monkeypatch, capsys):
    monkeypatch.delenv("COLUMNS", raising=False)
    say("word " * 60)
    assert capsys.readouterr().out == "word " * 60 + "\n"


@pytest.mark.parametrize(
    "words",
    [
        ["sensors", "--sysfs-root", "{tree}"],
        ["sensors", "-v", "--sysfs-root", "{tree}"],
        ["bench", "no-such-model.onnx"],
        ["plugins", "list"],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_verbs_keep_to_the_width_of_a_phone(words, tmp_path, monkeypatch, capsys):
    build("unknown-carrier", tmp_path / "sys", disabled=["RADIO_3V3"])
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("EDGEPROF_PLUGINS", "ina3221,jetson,thermal,system,python")
    monkeypatch.setenv("EDGEPROF_DATA_DIR", str(tmp_path / "data"))
    run([word.format(tree=tmp_path / "sys") for word in words])
    lines = "".join(capsys.readouterr()).splitlines()
    assert lines
    assert [line for line in lines if width(line) > 60 and len(line.split()) > 1 and " install " not in line] == []


def test_the_quick_width_is_the_width() -> None:
    for code in range(0x3100):  # beyond what is taken for narrow
        character = chr(code)
        wide = 0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        assert width(character) == wide, hex(code)
