"""Every reporter with every kind of result, compared with output that was reviewed once.

``EDGEPROF_WRITE_GOLDEN=1 pytest tests/profiler/reporters`` rewrites the files; read the diff before you commit it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgeprof.reporters import console, registry
from edgeprof.reporters.terminal import Style
from tests.profiler.results import samples

GOLDEN = Path(__file__).with_name("golden")


def hold(name, text):
    path = GOLDEN / name
    if os.environ.get("EDGEPROF_WRITE_GOLDEN"):
        path.write_text(text)
    assert path.exists(), f"{path} is missing: EDGEPROF_WRITE_GOLDEN=1 writes it"
    assert text == path.read_text()


@pytest.mark.parametrize("kind", samples.ALL)
def test_console_at_120_columns(kind):
    hold(f"console-{kind}.txt", console.render(samples.ALL[kind](), Style(width=120)))


@pytest.mark.parametrize("kind", ["study", "many"])
def test_console_at_80_columns(kind):
    hold(f"console-{kind}-80.txt", console.render(samples.ALL[kind](), Style(width=80)))


def test_console_in_colour():
    hold("console-study-colour.txt", console.render(samples.study(), Style(width=140, color=True)))


def test_console_on_a_terminal_without_unicode():
    hold("console-study-ascii.txt", console.render(samples.study(), Style(width=140, unicode=False)))


@pytest.mark.parametrize("kind", ["study", "failed", "estimated", "simulated", "degraded"])
def test_markdown(kind):
    hold(f"markdown-{kind}.txt", registry.render([samples.ALL[kind]()], ".md"))


def test_csv_of_several_results():
    results = [samples.study(), samples.failed(), samples.estimated(), samples.no_sensor()]
    hold("csv.txt", registry.render(results, ".csv"))


def test_json():
    result = samples.study()
    result.traces = []
    hold("json.txt", registry.render([result], ".json"))


def test_jsonl():
    result = samples.no_sensor()
    hold("jsonl.txt", registry.render([result, result], ".jsonl"))


def test_html():
    """A small page: the drawings have their own tests, and this one notices every change of the page."""
    result = samples.study()
    result.traces[0].times_s = result.traces[0].times_s[::50]
    result.traces[0].power_w = result.traces[0].power_w[::50]
    for variant in result.variants:
        variant.latency_s.histogram = None
    hold("html.txt", registry.render([result], ".html"))
