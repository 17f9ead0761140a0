"""The page is self-contained, safe for any names, and drawn to scale."""

from __future__ import annotations

import base64
import hashlib
import html.parser
import json
import re
import xml.etree.ElementTree as ET

import pytest

from edgeprof.reporters import answer
from edgeprof.reporters import html_page as page
from edgeprof.reporters.charts import budget, latency, pareto, svg, traces
from edgeprof.reporters.charts.rows import rows
from edgeprof.results import document, schema
from tests.profiler.results import samples

VOID = {"meta", "br", "hr", "img", "input", "link", "wbr"}


class Balance(html.parser.HTMLParser):
    """Collect the elements that are opened, and those that are closed in the wrong order."""

    def __init__(self):
        super().__init__()
        self.open, self.wrong, self.tags, self.attributes, self.text = [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data):
        self.text.append(data)


def parsed(results):
    found = Balance()
    found.feed(page.render(results))
    found.close()
    return found


@pytest.mark.parametrize("kind", samples.ALL)
def test_every_kind_of_result_makes_a_whole_page(kind):
    found = parsed([samples.ALL[kind]()])
    assert found.wrong == []
    assert found.open == []


@pytest.mark.parametrize("kind", samples.ALL)
def test_nothing_is_fetched_and_only_the_script_of_the_page_runs(kind):
    found = parsed([samples.ALL[kind]()])
    assert not {"link", "img", "iframe", "object"} & set(found.tags)
    assert found.tags.count("script") == 1
    names = {name for name, _ in found.attributes}
    assert not {"src", "href"} & names
    assert not any(name.startswith("on") for name in names)
    text = page.render([samples.ALL[kind]()])
    assert "url(" not in text
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'" in text


def test_whatever_a_result_contains_is_text():
    """Every string of a result is replaced by markup, none of which becomes an element."""
    evil = '"><script>alert(1)</script><img src=x onerror=y>&'
    result = samples.failed()
    data = json.loads(document.to_json(result))

    def poison(value, key=""):
        if isinstance(value, dict):
            return {k: poison(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return [poison(v, key) for v in value]
        if isinstance(value, str) and key not in ("schema", "status", "provenance", "verdict"):
            return value + evil
        return value

    poisoned = document.from_json(json.dumps(poison(data)))
    text = page.render([poisoned])
    assert text.count("<script") == 1
    assert "<img" not in text
    found = parsed([poisoned])
    assert found.wrong == []


def test_the_answer_comes_first():
    text = page.render([samples.study()])
    order = [text.index(words) for words in ("Which resnet8", "int8-static: 5.12", "<svg", "<table", "Context")]
    assert order == sorted(order)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("one", "baseline: 12.34 ± 0.21 mJ per inference, 2.31 ms (p50)."),
        ("simulated", "The joules are of a virtual board."),
        ("estimated", "The joules are estimated, not measured."),
        ("no_sensor", "Energy is not known."),
        ("degraded", "Quote the figures with care"),
        ("failed", "1 other could not be measured"),
        ("interrupted", "The run was interrupted."),
    ],
)
def test_the_first_sentence_is_true_by_itself(kind, words):
    assert words in answer.answer(samples.ALL[kind]())


def test_the_answer_where_nothing_is_better_than_the_baseline():
    result = samples.study()
    result.comparisons = [samples.comparison(c.variant, 1.0, 1.0, "tied") for c in result.comparisons]
    result.pareto = ["baseline"]
    assert answer.answer(result).startswith("No variant is better than baseline")


def test_the_answer_where_everything_failed():
    result = samples.failed()
    result.variants = result.variants[1:]
    assert answer.answer(result) == "Nothing could be measured; the reasons are below."


def points(drawing):
    root = ET.fromstring(drawing)
    return [(float(c.get("cx")), float(c.get("cy"))) for c in root.iter("circle")]


def test_the_plot_puts_less_energy_left_and_more_accuracy_up():
    result = samples.study()
    base, int8, prune = points(pareto.draw(rows([result])))
    assert int8[0] < prune[0] < base[0]
    assert base[1] < int8[1] < prune[1]  # SVG counts downwards


def test_the_plot_marks_the_baseline_with_a_cross_hair():
    drawing = pareto.draw(rows([samples.study()]))
    assert drawing.count('class="cross"') == 2


def test_without_accuracy_the_plot_is_latency_against_energy():
    result = samples.simulated()
    drawing = pareto.draw(rows([result]))
    assert "latency p50" in drawing
    assert drawing.count("hollow") == 2  # no sensor measured them


@pytest.mark.parametrize("kind", ["one", "no_sensor", "interrupted"])
def test_one_variant_needs_no_plot(kind):
    assert pareto.draw(rows([samples.ALL[kind]()])) is None


def test_the_plot_and_the_question_name_the_unit_that_was_measured():
    result = samples.study()
    assert "energy per inference" in pareto.draw(rows([result]))
    for variant in result.variants:
        variant.workloads = [schema.Workload(name="page", unit="page", units_per_call=1)]
    assert "energy per page" in pareto.draw(rows([result]))
    result.variants = result.variants[:1]
    assert answer.question(result).startswith("What does one page of ")


def test_shaded_windows_lie_where_the_windows_were():
    result = samples.study()
    found = ET.fromstring(traces.draw(result, rows([result])))
    shades = [r for r in found.iter("rect") if r.get("class") == "window"]
    assert len(shades) == 15
    strip = result.traces[0]
    window = result.variants[0].windows[0]
    inner = svg.WIDE - traces.LEFT - traces.RIGHT
    share = (window.end_s - window.start_s) / strip.times_s[-1]
    assert float(shades[0].get("width")) == pytest.approx(inner * share, abs=0.02)


def test_a_total_of_several_rails_is_drawn_as_their_sum():
    result = samples.one()
    result.variants[0].energy_j_per_inference.rail = "A + B"
    times = [0.0, 1.0, 2.0]
    result.traces = [
        schema.TraceStrip(channel="A", times_s=times, power_w=[1.0, 2.0, None]),
        schema.TraceStrip(channel="B", times_s=times, power_w=[3.0, 4.0, 5.0]),
    ]
    assert traces.headline(result).power_w == [4.0, 6.0, None]


def test_a_part_of_the_total_is_not_passed_off_as_the_total():
    """One rail of the sum is missing, so the curve is labelled as the part that it is."""
    result = samples.one()
    result.variants[0].energy_j_per_inference.rail = "A + B"
    result.traces = [schema.TraceStrip(channel="A", times_s=[0.0, 1.0], power_w=[1.0, 2.0])]
    assert traces.headline(result).channel == "A"


def test_shares_of_the_variance_add_up_to_one():
    found = budget.shares(schema.Budget(repeatability=3.0, gain=4.0, offset=0.0, sync=None))
    assert found == {"repeatability": pytest.approx(9 / 25), "gain": pytest.approx(16 / 25)}


def test_latencies_without_a_histogram_are_still_drawn():
    result = samples.study()
    for variant in result.variants:
        variant.latency_s.histogram = None
    drawing = latency.draw(rows([result]))
    assert "p99 2.61" in drawing


def test_several_results_share_one_page_and_keep_apart():
    here, there = samples.study(), samples.estimated()
    there.id = "20261121-1500-zzz"
    labels = [row.label for row in rows([here, there])]
    assert len(set(labels)) == 5
    text = page.render([here, there])
    assert here.id in text
    assert there.id in text


def test_workloads_of_equal_variants_of_two_results_are_told_apart():
    here, there = samples.language(), samples.language()
    there.id, there.host = "20261121-1500-zzz", samples.host(board="Raspberry Pi 5")
    text = page.render([here, there])
    workloads = re.search(r"<th[^>]*>workload</th>.*?</table>", text, re.DOTALL)[0]
    names = re.findall(r'<th scope="row" role="rowheader">(.*?)</th>', workloads)
    assert len(names) == 2 * sum(len(variant.workloads) for variant in here.variants)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("low", "high", "log"),
    [(0.0, 1.0, False), (3.86, 12.5, False), (1e-6, 1e-3, True), (80.1, 90.2, False), (5, 5, False)],
)
def test_ticks_are_few_round_and_inside(low, high, log):
    scale = svg.Scale(low, high, 0, 100, log=log)
    ticks = scale.ticks()
    assert 1 <= len(ticks) <= 14
    assert all(low - 1e-9 <= t <= high + 1e-9 for t in ticks)
    texts = svg.ticks_text(ticks)
    assert len(set(texts)) == len(texts)
    assert all(len(re.sub(r"[^1-9]", "", t)) <= 3 for t in texts)


def test_the_page_tells_the_command_that_made_it_and_none_where_none_did():
    result = samples.one()
    assert "Repeat this run" not in page.render([result])
    result.command = ["edgeprof", "bench", "my model.onnx", "--seed", "7"]
    assert "edgeprof bench &#x27;my model.onnx&#x27; --seed 7</pre>" in page.render([result])


def test_every_chart_is_drawn_for_a_screen_and_for_a_telephone():
    text = page.render([samples.study()])
    widths = re.findall(r'viewBox="0 0 (\d+) ', text)
    assert widths.count("960") == widths.count("350") == 4


@pytest.mark.parametrize("kind", samples.ALL)
def test_the_answer_is_one_sentence_and_its_details_follow(kind):
    first, details = answer.answer_and_details(samples.ALL[kind]())
    assert first.endswith(".")
    assert answer.answer(samples.ALL[kind]()) == f"{first} {details}".strip()


PROOF = schema.Proof(
    board="Jetson Orin Nano",
    rail="VDD_IN",
    date="2026-11-29T10:00:00+00:00",
    verdict="failed",
    believable=None,
    checks=[
        schema.ProofCheck(name="filter", subject="VDD_IN", verdict="passed", detail="as stated", value=0.43, low=0.42,
                          high=0.44, unit="s", stated=0.43),
        schema.ProofCheck(name="parts", subject="VDD_IN", verdict="failed", detail="<b>too much</b>", unit="1",
                          remedy="Is the shunt's value right?"),
    ],
)  # fmt: skip


def test_a_proof_of_the_board_has_a_section_with_what_failed_first():
    result = samples.one()
    assert "be trusted" not in page.render([result])
    result.proof = PROOF
    again = document.from_json(document.to_json(result))
    assert again.proof == PROOF
    text = page.render([again])
    assert "Can the joules of this board be trusted?" in text
    assert "The joules cannot be trusted as they are: VDD_IN (parts)." in text
    assert text.index("Is the shunt&#x27;s value right?") < text.index("as stated")
    assert "<b>too much" not in text
    assert parsed([again]).wrong == []
