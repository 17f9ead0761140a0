"""Charts as separate files: complete SVG documents, and trends over runs."""

from __future__ import annotations

import importlib.util
import re
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

import pytest

from edgeprof.errors import InputError
from edgeprof.reporters import html_page, picture
from edgeprof.reporters.charts import pareto, trend
from edgeprof.results.store import Entry
from tests.profiler.results import samples

if TYPE_CHECKING:
    from pathlib import Path

SVG = "{http://www.w3.org/2000/svg}"


def entry(run: int, energy_j: float | None, model: str = "digits", variant: str = "int8") -> Entry:
    return Entry(
        f"run-{run}",
        f"2026-11-{run:02}T10:00:00+00:00",
        "Pi 5",
        "single-stream",
        False,
        model,
        variant,
        "onnx",
        "cpu",
        "ok" if energy_j else "failed",
        "measured",
        energy_j,
        None if energy_j is None else energy_j * 0.02,
        None if energy_j is None else energy_j / 5,
        None,
    )


@pytest.mark.parametrize("chart", picture.CHARTS)
def test_each_chart_is_a_document_that_stands_alone(tmp_path: Path, chart: str) -> None:
    path = tmp_path / "chart.svg"
    picture.write(picture.draw([samples.study()], chart), path)
    root = ET.parse(path).getroot()
    assert root.tag == f"{SVG}svg"
    assert float(root.get("width", "0")) == 960
    text = path.read_text()
    assert "var(" not in text
    used = {name for e in root.iter() for name in (e.get("class") or "").split()} - {"chart", "axis", "ink", "window"}
    assert [name for name in used if f".{name}" not in text] == []


def test_numbers_beside_the_points_are_explained_below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside a picture of its own there is no table with the names."""
    study = samples.study()
    names = {variant.name for variant in study.variants}
    assert float(ET.fromstring(picture.standalone(picture.draw([study], "pareto"))).get("height", "0")) == pareto.HEIGHT
    monkeypatch.setattr(pareto, "NAMED", 2)
    root = ET.fromstring(picture.standalone(picture.draw([study], "pareto")))
    words = [text.text or "" for text in root.iter(f"{SVG}text")]
    assert {word.partition("  ")[2] for word in words} >= names
    lowest = max(float(text.get("y", "0")) for text in root.iter(f"{SVG}text"))
    assert pareto.HEIGHT < lowest < float(root.get("height", "0"))


def test_what_cannot_be_drawn_is_refused_with_another_chart() -> None:
    with pytest.raises(InputError, match="fewer than two variants") as refused:
        picture.draw([samples.one()], "pareto")
    assert "latency" in (refused.value.remedy or "")


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="neither"):
        picture.write("<svg/>", tmp_path / "chart.pdf")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(importlib.util.find_spec("resvg_py") is None, reason="resvg-py is not installed")
def test_a_png_shows_the_drawing_three_times_as_large(tmp_path: Path) -> None:
    path = tmp_path / "chart.png"
    picture.write(picture.draw([samples.study()], "pareto"), path)
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert int.from_bytes(data[16:20], "big") == 3 * 960


def test_a_trend_has_a_point_for_each_run_in_the_order_of_time() -> None:
    drawn = trend.draw([entry(3, 0.003), entry(1, 0.001), entry(2, 0.002), entry(4, None)])
    assert drawn is not None
    root = ET.fromstring(drawn)
    points = [(float(c.get("cx", "0")), float(c.get("cy", "0"))) for c in root.iter("circle")]
    assert len(points) == 6  # three of energy, three of latency
    assert points[:3] == sorted(points[:3], key=lambda p: (p[0], -p[1]))
    ys = [y for _, y in points[:3]]
    assert ys[0] - ys[1] == pytest.approx(ys[1] - ys[2], abs=0.02)  # from 0, in proportion
    assert re.findall(r"(\d\d Nov)", drawn) == ["01 Nov", "02 Nov", "03 Nov", "04 Nov"]


def test_one_run_is_no_trend() -> None:
    assert trend.draw([entry(1, 0.001), entry(2, 0.001, variant="baseline")]) is None
    assert trend.draw([]) is None


def test_a_trend_page_has_a_chart_for_each_model_and_all_runs() -> None:
    runs = [entry(n, 0.001 * n, model=model) for n in (2, 1) for model in ("digits", "<b>other</b>")]
    page = html_page.trend_page(runs, "/data")
    assert page.count('class="screen"') == 2
    assert page.count('role="rowheader"') == 4
    assert "<b>other" not in page
