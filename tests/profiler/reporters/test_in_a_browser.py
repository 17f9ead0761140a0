"""The page in a real browser: on a screen and on a phone, in light and dark mode, with mouse and keyboard."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edgeprof.reporters import html_page, view
from edgeprof.results import schema
from tests.browser import Page, browsing, needs_browser
from tests.profiler.results import samples

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgeprof.results.schema import Result

pytestmark = [pytest.mark.slow, needs_browser, pytest.mark.xdist_group("browser")]

AXE = Path(__file__).parents[3] / "build/axe.min.js"
#: A script that finds texts and pictures that are wider than their container or outside of the window.
CUT = """
(() => {
  const wide = document.documentElement.clientWidth, cut = [];
  for (const e of document.querySelectorAll("main *")) {
    if (!e.checkVisibility() || e.closest("svg title")) continue;
    const box = e.getBoundingClientRect();
    if (box.width && (box.right > wide + 1 || box.left < -1)) cut.push(e.outerHTML.slice(0, 120));
    if (e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).overflowX !== "visible")
      cut.push("scrolls: " + e.outerHTML.slice(0, 120));
  }
  for (const svg of document.querySelectorAll("svg.chart")) {
    if (!svg.checkVisibility()) continue;
    const frame = svg.viewBox.baseVal;
    for (const e of svg.querySelectorAll("text, circle")) {
      const b = e.getBBox();
      if (b.x < -0.5 || b.y < -0.5 || b.x + b.width > frame.width + 0.5 || b.y + b.height > frame.height + 0.5)
        cut.push("outside of its picture: " + e.outerHTML);
    }
  }
  return cut;
})()
"""
SMALL = """
[...document.querySelectorAll("main *")].filter((e) => e.checkVisibility() && [...e.childNodes].some((n) =>
  n.nodeType === 3 && n.textContent.trim())).map((e) => {
    const svg = e.closest("svg");
    const scale = svg ? svg.getBoundingClientRect().width / svg.viewBox.baseVal.width : 1;
    return [parseFloat(getComputedStyle(e).fontSize) * scale, e.outerHTML.slice(0, 100)];
  }).filter(([size]) => size < 11)
"""
TABLE = """
[...document.querySelector("table.sortable").tBodies[0].rows].map((row) => Object.fromEntries(
  [["name", row.cells[0].textContent], ...[...row.cells].slice(1).map((c) => [c.dataset.label, c.textContent])]))
"""


def long_names() -> Result:
    """Eight variants, each with a name of about a hundred characters."""
    result = samples.many(8)
    stem = "efficientnet-b0-noisy-student-imagenet-1k-pruned"
    new = {
        v.name: f"{stem}+{v.name}+prune-structured(amount=0.5)+int8-static{n}" for n, v in enumerate(result.variants)
    }
    for variant in result.variants:
        variant.name = new[variant.name]
    for comparison in result.comparisons:
        comparison.variant, comparison.baseline = new[comparison.variant], new[comparison.baseline]
    result.pareto = [new[name] for name in result.pareto]
    result.recommendation = None
    result.command = ["edgeprof", "bench", *(f"{v.name}.onnx" for v in result.variants)]
    return result


def pipelines() -> Result:
    """A frame of eight stages, most of them short, with a detector that a variant makes cheaper."""
    names = ("decode", "resize", "detect", "boxes", "align", "embed", "match", "draw")
    detectors = {"baseline": 0.2, "faces.py:inception_resnet_pruned": 0.1, "faces.py:student": 0.02}
    variants = []
    for number, (name, detect_j) in enumerate(detectors.items()):
        joules = dict.fromkeys(names, 0.01) | {"detect": detect_j}
        calls = {stage: samples.energy(value) for stage, value in joules.items()}
        stages = [
            schema.Stage(
                stage,
                1.0,
                seconds=samples.latency(value / 5),
                energy_j_per_call=schema.StageEnergy(
                    "measured", "VDD_IN", "module", calls[stage].gross, calls[stage].net
                ),
            )
            for stage, value in joules.items()
        ]
        frame_j, frame_s = sum(joules.values()), sum(joules.values()) / 5
        frame = samples.energy(frame_j)
        workloads = [schema.Workload("frame", "frame", 1, 300, frame, samples.latency(frame_s), 20.0)]
        for stage, value in joules.items():
            workloads.append(schema.Workload(stage, "call", 1, 300, calls[stage], samples.latency(value / 5), 20.0))
        variants.append(samples.variant(name, frame_j, frame_s, stages=stages, workloads=workloads, order=[number]))
    result = samples.result(variants)
    result.comparisons = [samples.comparison(variant.name, 0.5, 0.5) for variant in variants[1:]]
    return result


PAGES = {
    "study": [samples.study],
    "eight": [long_names],
    "estimated": [samples.estimated],
    "failed": [samples.failed],
    "pipelines": [pipelines],
}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Page]]:
    """Each page, open in one browser."""
    folder = tmp_path_factory.mktemp("pages")
    with browsing(folder / "profile") as browser:
        opened = {}
        for name, kinds in PAGES.items():
            (folder / f"{name}.html").write_text(html_page.render([kind() for kind in kinds]), encoding="utf-8")
            opened[name] = browser.open((folder / f"{name}.html").as_uri())
        yield opened


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_cut_and_everything_can_be_read(pages: dict[str, Page], name: str, width: int) -> None:
    page = pages[name]
    page.resize(width)
    if os.environ.get("EDGEPROF_SCREENSHOTS"):
        page.screenshot(Path(os.environ["EDGEPROF_SCREENSHOTS"]) / f"{name}-{width}.png")
        page.resize(width, dark=True)
        page.screenshot(Path(os.environ["EDGEPROF_SCREENSHOTS"]) / f"{name}-{width}-dark.png")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(CUT) == []
    assert page.evaluate(SMALL) == []


@pytest.mark.parametrize("name", PAGES)
def test_no_script_fails_and_nothing_is_fetched(pages: dict[str, Page], name: str) -> None:
    assert pages[name].complaints == []
    assert [address for address in pages[name].requests if not address.startswith("file:")] == []
    assert len(pages[name].requests) == 1


def test_the_numbers_on_the_page_are_those_of_the_file(pages: dict[str, Page]) -> None:
    shown = pages["study"].evaluate(TABLE)
    result = samples.study()
    assert len(shown) == len(result.variants)
    for row, variant in zip(shown, result.variants, strict=True):
        energy, latency = variant.energy_j_per_inference, variant.latency_s
        assert energy is not None
        assert latency is not None
        assert energy.gross.value is not None
        assert energy.gross.expanded_uncertainty is not None
        value, _, spread = row["energy / inference"].partition(" ± ")
        assert float(value) == pytest.approx(energy.gross.value * 1e3, abs=0.006)
        assert float(spread.split()[0]) == pytest.approx(energy.gross.expanded_uncertainty * 1e3, abs=0.006)
        assert latency.p50 is not None
        assert float(row["latency p50"].split()[0]) == pytest.approx(latency.p50 * 1e3, rel=0.005)
        assert variant.name in row["name"]


def test_the_head_of_a_column_sorts_the_rows_by_keyboard_alone(pages: dict[str, Page]) -> None:
    page = pages["study"]
    page.resize(1280)
    for _ in range(12):
        page.press("Tab", 9)
        if page.evaluate("document.activeElement.textContent") == "latency p50":
            break
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
    orders = []
    for _ in range(2):
        page.press("Enter", 13, "\r")
        orders.append([float(row["latency p50"].split()[0]) for row in page.evaluate(TABLE)])
    assert orders[0] == sorted(orders[0])
    assert orders[1] == sorted(orders[0], reverse=True)
    assert page.evaluate("document.querySelectorAll('[aria-sort]').length") == 1


def test_by_night_it_is_dark_and_its_text_is_light(pages: dict[str, Page]) -> None:
    page = pages["study"]

    def brightness(css: str) -> float:
        colors = page.evaluate(f"getComputedStyle(document.body)['{css}'].match(/\\d+/g).slice(0, 3).map(Number)")
        return float(sum(colors)) / 3

    page.resize(1280, dark=True)
    night: tuple[float, float] = brightness("backgroundColor"), brightness("color")
    page.resize(1280)
    assert night[0] < 60 < 200 < night[1]
    assert brightness("backgroundColor") > 200 > 60 > brightness("color")


@pytest.mark.skipif(not AXE.is_file(), reason="axe-core is not here: tools/axe fetches it into build/")
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False)])
def test_axe_finds_no_barrier(pages: dict[str, Page], width: int, dark: bool) -> None:
    for page in (pages["study"], pages["failed"]):
        page.resize(width, dark=dark)
        page.evaluate(AXE.read_text(encoding="utf-8") + "; 0")
        found: list[dict[str, Any]] = page.evaluate("axe.run().then((r) => r.violations)")
        assert [(v["id"], [n["html"][:200] for n in v["nodes"]]) for v in found] == []


def test_one_mark_has_one_meaning(pages: dict[str, Page]) -> None:
    for name in PAGES:
        assert sum(view.BEST in row["name"] for row in pages[name].evaluate(TABLE)) <= 1
    assert view.BEST not in " ".join(view.notes(samples.study()))
