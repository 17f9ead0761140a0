"""The result file: the contract's example always stays readable; everything else gets one clear sentence."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from edgeprof.errors import InputError
from edgeprof.results import document, schema
from tests.profiler.results import samples

FIRST = Path(__file__).with_name("result-1-first.json")


def test_the_first_file_of_this_schema_is_still_read():
    """Only the fields that the contract promised from the beginning; every later one has a default."""
    result = document.load(FIRST)
    (variant,) = result.variants
    assert variant.energy_j_per_inference.gross.budget.gain == 0.0002
    assert variant.latency_s.p99 is None
    assert result.comparisons[0].verdict == "better"
    assert result.traces == []


def test_a_file_of_the_first_release_is_read_as_it_was_written():
    """Fields stay equal; later fields are added as unknown. Only the latency bounds move to another place."""
    text = (Path(__file__).with_name("result-1-edgeprof-0.1.json")).read_text()
    result = document.from_json(text)
    assert all(variant.workloads == [] for variant in result.variants)
    old, new = json.loads(text), json.loads(document.to_json(result))
    for before, after in zip(old["variants"], new["variants"], strict=True):
        for name in ("p50", "p90", "p95", "p99"):
            assert after["latency_s"][f"{name}_bound"] == before["latency_s"].pop(name)
        assert after["latency_s"]["p50"] == before["latency_s"]["median"]
        assert after["latency_s"]["p99"] is None  # the quantile was not kept
    assert only_fields_of(old, new) == old


def test_a_result_that_is_written_and_read_again_keeps_quantiles_and_bounds_apart():
    result = samples.study()
    read = document.from_json(document.to_json(result))
    assert [v.latency_s for v in read.variants] == [v.latency_s for v in result.variants]


def only_fields_of(old, new):
    """Return the new document without the fields that the old one does not have."""
    if isinstance(old, dict) and isinstance(new, dict):
        return {key: only_fields_of(value, new[key]) for key, value in old.items()}
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [only_fields_of(first, second) for first, second in zip(old, new, strict=True)]
    return new


def test_every_promised_field_is_written_under_its_name():
    """Each key of the first file is in a new file at the same place."""

    def walk(old, new, where):
        if isinstance(old, dict):
            for key, value in old.items():
                assert key in new, f"{where}.{key}"
                walk(value, new[key], f"{where}.{key}")
        elif isinstance(old, list) and old and isinstance(old[0], dict):
            walk(old[0], new[0], f"{where}[0]")

    first = json.loads(FIRST.read_text())
    first["variants"][0]["energy_j_per_inference"]["rails"] = {}  # its keys are this board's rails
    walk(first, json.loads(document.to_json(samples.study())), "$")


def test_fields_of_a_later_edgeprof_are_passed_over():
    data = json.loads(FIRST.read_text())
    data["novelty"] = {"deep": 1}
    data["variants"][0]["novelty"] = 2
    assert document.from_json(json.dumps(data)).id == data["id"]


def test_unknown_numbers_are_null_and_never_zero():
    data = json.loads(document.to_json(samples.no_sensor()))
    assert data["variants"][0]["energy_j_per_inference"] is None
    assert data["variants"][0]["accuracy"] is None


def test_what_is_not_a_number_is_written_as_null():
    result = samples.one()
    result.variants[0].throughput_per_s = math.nan
    result.variants[0].power_w.max = math.inf
    data = json.loads(document.to_json(result))
    assert data["variants"][0]["throughput_per_s"] is None
    assert data["variants"][0]["power_w"]["max"] is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("  \n", "is empty"),
        (document.to_json(samples.one())[:900], "is cut off in the middle"),
        ("\x89PNG not text", "is not JSON"),
        (b"\xff\xfe\x00\x01", "is not JSON"),
        ("[1, 2]", "no edgeprof result"),
        ("{}", "no edgeprof result"),
        ('{"schema": 3}', "no edgeprof result"),
        ('{"schema": "edgeprof.result/2"}', "this edgeprof reads 'edgeprof.result/1'"),
        ('{"schema": "edgeprof.sensors/1", "channels": []}', "is not a result"),
        ('{"schema": "edgeprof.result/1"}', "is not a whole result: .*missing required field"),
        ('{"schema": "edgeprof.result/1", "id": 5}', r"is not a whole result: .*\$\.id"),
    ],
)
def test_what_is_no_result_gets_a_sentence_that_names_the_file(text, message):
    with pytest.raises(InputError, match=message) as caught:
        document.from_json(text, source="branch.json")
    assert caught.value.message.startswith("branch.json")
    assert caught.value.remedy
    assert caught.value.exit_code == 2


def test_an_unreadable_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"cannot read .*No such file"):
        document.load(tmp_path / "no.json")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("zoo/resnet8.tflite", "resnet8"),
        ("resnet8.v2.tflite", "resnet8.v2"),
        ("C:\\zoo\\m.onnx", "m"),
        ("app:detect", "app:detect"),
        ("zoo/.hidden", ".hidden"),
        ("dir/", "dir"),
    ],
)
def test_a_model_without_a_name_is_called_by_its_path(path, name):
    assert schema.model_name(schema.Model(path=path, format="x", sha256=None, size_bytes=None)) == name


@pytest.mark.parametrize("kind", samples.ALL)
def test_a_result_reads_the_same_whether_its_values_are_looked_at_or_not(kind):
    text = document.to_json(samples.ALL[kind]())
    ordinary = document._decode_ordinary(text.encode())
    assert ordinary is not None
    assert ordinary == document._decode_carefully(text, "result")


@pytest.mark.parametrize("number", ["1e300", "-1E61", "1e-300", "9" * 70, "0." + "0" * 61 + "1", "12345678901e55"])
def test_a_number_beyond_all_bounds_is_seen_wherever_it_stands(number):
    data = json.loads(document.to_json(samples.one()))
    data["variants"][0]["throughput_per_s"] = "HERE"
    with pytest.raises(InputError, match="which nothing measures"):
        document.from_json(json.dumps(data).replace('"HERE"', number))
