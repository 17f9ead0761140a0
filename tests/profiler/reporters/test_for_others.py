"""Files that other services read: the SPDX document, the model card and the JSON of github-action-benchmark."""

from __future__ import annotations

import json
import re
from decimal import Decimal

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from edgeprof.reporters import registry
from edgeprof.results import schema
from tests.profiler.results import samples

STATED = ["study", "estimated"]


def spdx(*results):
    return json.loads(registry.render(results, ".spdx3.json"))


def packages(document):
    return [element for element in document["@graph"] if element["type"] == "ai_AIPackage"]


def card(*results):
    text = registry.render(results, ".card.md")
    head, body = re.fullmatch(r"---\n(.*?\n)---\n(.*)", text, re.DOTALL).groups()
    return yaml.safe_load(head), body


def card_metrics(metadata):
    return [
        metric for entry in metadata.get("model-index", []) for block in entry["results"] for metric in block["metrics"]
    ]


@pytest.mark.parametrize("kind", samples.ALL)
def test_every_kind_of_result_is_a_document_that_the_published_model_of_spdx_accepts(kind):
    model = pytest.importorskip(
        "spdx_python_model", reason="pip install spdx-python-model: the classes of the SPDX specification"
    ).v3_0_1
    objects = model.SHACLObjectSet()
    model.JSONLDDeserializer().deserialize_data(spdx(samples.ALL[kind]()), objects)
    assert objects.link() == set(), "every reference leads to an element of the document"
    found = list(objects.foreach_type("ai_AIPackage"))
    assert len(found) == len(samples.ALL[kind]().variants)
    for package in found:
        for description in getattr(package.ai_energyConsumption, "ai_inferenceEnergyConsumption", []):
            assert description.ai_energyQuantity > 0
    model.JSONLDSerializer().serialize_data(objects)  # checks what each class must have


@pytest.mark.parametrize("kind", STATED)
def test_the_joules_of_a_document_are_those_of_the_result(kind):
    result = samples.ALL[kind]()
    for variant, package in zip(result.variants, packages(spdx(result)), strict=True):
        (description,) = package["ai_energyConsumption"]["ai_inferenceEnergyConsumption"]
        joules = variant.energy_j_per_inference.gross.value
        assert re.fullmatch(r"[0-9]+\.[0-9]+", description["ai_energyQuantity"])
        assert description["ai_energyUnit"] == "megajoule"
        assert float(Decimal(description["ai_energyQuantity"]).scaleb(6)) == joules
        assert variant.energy_j_per_inference.provenance in package["comment"]
        assert variant.unit in package["comment"]


def withheld():
    """Return joules that must not be quoted."""
    result = samples.one()
    (variant,) = result.variants
    variant.energy_j_per_inference.gross.value = None
    variant.reasons.append(schema.Reason(code="gaps", message="a third of the readings is missing"))
    return result


@pytest.mark.parametrize("make", [samples.no_sensor, samples.simulated, withheld])
def test_joules_that_must_not_be_stated_are_left_out_with_a_reason(make):
    result = make()
    for package in packages(spdx(result)):
        assert "ai_energyConsumption" not in package
        assert re.search(r"not known\. \w|virtual board", package["comment"])
    metadata, body = card(result)
    assert "energy_j_per_inference" not in {metric["type"] for metric in card_metrics(metadata)}
    assert body.count("- The energy of") == len(result.variants)


@pytest.mark.parametrize("kind", STATED)
def test_a_card_holds_the_figures_of_the_result(kind):
    result = samples.ALL[kind]()
    metadata, body = card(result)
    joules = [metric for metric in card_metrics(metadata) if metric["type"] == "energy_j_per_inference"]
    assert [metric["value"] for metric in joules] == [v.energy_j_per_inference.gross.value for v in result.variants]
    assert all(v.energy_j_per_inference.provenance in m["name"] for v, m in zip(result.variants, joules, strict=True))
    assert "co2_eq_emissions" not in metadata
    assert registry.render([result], ".md").strip() in body


@pytest.mark.parametrize("kind", samples.ALL)
def test_a_card_has_what_the_hub_requires_of_a_model_index(kind):
    for entry in card(samples.ALL[kind]())[0].get("model-index", []):
        assert entry["name"]
        for block in entry["results"]:
            assert block["task"]["type"]
            assert block["dataset"]["type"]
            assert block["dataset"]["name"]
            assert block["metrics"]
            assert all(metric["type"] and isinstance(metric["value"], float) for metric in block["metrics"])


def test_a_score_stands_with_its_dataset_and_the_hubs_name_of_the_metric():
    result = samples.study()
    for variant in result.variants:
        variant.accuracy.dataset = "digits-test.npz"
    blocks = [block for entry in card(result)[0]["model-index"] for block in entry["results"]]
    scores = [block for block in blocks if block["dataset"]["name"] == "digits-test.npz"]
    assert [block["metrics"][0]["value"] for block in scores] == [v.accuracy.value for v in result.variants]
    assert {block["metrics"][0]["type"] for block in scores} == {"accuracy"}


def test_an_estimate_never_bears_the_name_of_a_measurement():
    measured, estimated = (
        json.loads(registry.render([samples.ALL[kind]()], ".github-benchmark.json")) for kind in ("one", "estimated")
    )
    assert {"name", "unit", "value", "range", "extra"} == set(measured[0])
    assert measured[0]["value"] == samples.one().variants[0].energy_j_per_inference.gross.value
    assert measured[0]["name"].endswith("energy per inference")
    assert estimated[0]["name"].endswith("energy per inference, estimated")
    unknown = json.loads(registry.render([samples.no_sensor()], ".github-benchmark.json"))
    assert [entry["unit"] for entry in unknown] == ["s"]


@pytest.mark.slow
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.floats(1e-12, 1e6))
def test_any_name_and_any_figure_come_back_whole(name, joules):
    result = samples.one()
    result.variants[0].name = name
    result.host.board = name
    result.variants[0].energy_j_per_inference.gross.value = joules
    metadata, _ = card(result)
    assert joules in [metric["value"] for metric in card_metrics(metadata)]
    (package,) = packages(spdx(result))
    (description,) = package["ai_energyConsumption"]["ai_inferenceEnergyConsumption"]
    assert float(Decimal(description["ai_energyQuantity"]).scaleb(6)) == joules
    assert "e" not in description["ai_energyQuantity"].lower()


def test_several_results_share_a_document():
    first = samples.study()
    second = msgspec.structs.replace(samples.estimated(), id="20260101T000000Z-other")
    document = spdx(first, second)
    assert len(packages(document)) == len(first.variants) + len(second.variants)
    names = [element.get("spdxId") or element["@id"] for element in document["@graph"]]
    assert len(set(names)) == len(names)


def test_the_longest_suffix_of_a_name_chooses_its_reporter(tmp_path):
    registry.write([samples.one()], tmp_path / "model.spdx3.json")
    registry.write([samples.one()], tmp_path / "model.spdx.json")
    assert "@graph" in json.loads((tmp_path / "model.spdx3.json").read_text("utf-8"))
    assert json.loads((tmp_path / "model.spdx.json").read_text("utf-8"))["schema"] == "edgeprof.result/1"
