"""``edgeprof compress`` as a script calls it: files, manifest, exit codes, and what a second run does."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime.quantization")  # compressors and workers are forks, which import nothing again

from edgeprof.artifact import recognise
from tests.plugins.compressors.nets import convnet, samples
from tests.profiler.cli.in_process import verb

if TYPE_CHECKING:
    from pathlib import Path

    from tests.profiler.cli.in_process import Verb

pytestmark = pytest.mark.usefixtures("forked_workers")


@pytest.fixture
def edgeprof(capfd: pytest.CaptureFixture[str]) -> Verb:
    return verb(capfd, "compress")


@pytest.fixture
def net(tmp_path: Path) -> Path:
    return convnet(tmp_path / "net.onnx")


def test_each_with_is_a_variant_with_its_sizes_and_where_it_comes_from(
    edgeprof: Verb, net: Path, tmp_path: Path
) -> None:
    np.savez(tmp_path / "data.npz", x=samples(), y=np.arange(24) % 4)
    out = tmp_path / "out"
    chains = ["prune-2:4", "prune-structured:amount=0.25+int8-static:samples=8"]
    done = edgeprof(
        net, "--with", chains[0], "--with", chains[1], "-o", out, "--dataset", tmp_path / "data.npz", "--json"
    )
    manifest = json.loads(done.stdout)
    assert manifest == json.loads((out / "net.compress.json").read_text())
    assert [v["name"] for v in manifest["variants"]] == [
        "prune-2:4",
        "prune-structured(amount=0.25)+int8-static(samples=8)",
    ]
    for entry in manifest["variants"]:
        made = recognise(str(out / entry["model"]["path"]))
        assert (made.sha256, made.size_bytes) == (entry["model"]["sha256"], entry["model"]["size_bytes"])
        assert made.size_compressed() == entry["model"]["size_compressed_bytes"]
        assert entry["recipe"][0]["from_sha256"] == manifest["source"]["sha256"]
        assert entry["recipe"][-1]["to_sha256"] == made.sha256
    assert manifest["variants"][1]["recipe"][1]["facts"]["samples"] == 8


def test_a_second_run_makes_only_what_is_missing(edgeprof: Verb, net: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    edgeprof(net, "--with", "prune", "--with", "cluster", "-o", out)
    (out / "net.cluster.onnx").write_bytes(b"half a file")
    done = edgeprof(net, "--with", "prune", "--with", "cluster", "-o", out)
    assert "prune: already made" in done.stderr
    assert "cluster: working" in done.stderr
    assert recognise(str(out / "net.cluster.onnx")).format == "onnx"
    edgeprof(net, "--with", "fp16", "-o", out)
    manifest = json.loads((out / "net.compress.json").read_text())
    assert [v["name"] for v in manifest["variants"]] == ["prune", "cluster", "fp16"]
    assert "prune: working" in edgeprof(net, "--with", "prune", "-o", out, "--seed", "3").stderr


def test_another_models_variants_are_not_replaced(edgeprof: Verb, net: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    edgeprof(net, "--with", "fp16", "-o", out)
    before = {path: path.read_bytes() for path in out.iterdir()}
    (tmp_path / "other").mkdir()
    other = convnet(tmp_path / "other" / net.name)
    other.write_bytes(other.read_bytes() + b"\x32\x00")  # adds an empty doc_string
    done = edgeprof(other, "--with", "fp16", "-o", out, code=2)
    assert f"tells of variants of {net}" in done.stderr
    assert {path: path.read_bytes() for path in out.iterdir()} == before
    net.write_bytes(other.read_bytes())  # as if trained again
    assert "fp16: working" in edgeprof(net, "--with", "fp16", "-o", out).stderr


def test_a_chain_goes_on_from_a_variant_that_has_its_first_steps(edgeprof: Verb, net: Path, tmp_path: Path) -> None:
    out, manifest = tmp_path / "out", tmp_path / "out" / "net.compress.json"
    edgeprof(net, "--with", "prune:amount=0.5", "-o", out)
    kept = json.loads(manifest.read_text())
    kept["variants"][0]["recipe"][0]["facts"]["seen"] = "before"
    manifest.write_text(json.dumps(kept))

    def first_step(chain: str) -> dict[str, Any]:
        edgeprof(net, "--with", chain, "-o", out)
        variants = json.loads(manifest.read_text())["variants"]
        (recipe,) = [one["recipe"] for one in variants if one["chain"] == chain]
        assert [step["compressor"] for step in recipe] == [step.split(":")[0] for step in chain.split("+")]
        assert recipe[1]["from_sha256"] == recipe[0]["to_sha256"]
        return recipe[0]["facts"]

    assert first_step("prune:amount=0.5+fp16")["seen"] == "before"
    assert "seen" not in first_step("prune:amount=0.6+fp16")
    (out / "net.prune_amount=0.5_.onnx").write_bytes(b"half a file")
    assert "seen" not in first_step("prune:amount=0.5+cluster")


def test_a_variant_calibrated_on_data_that_changed_is_made_anew(edgeprof: Verb, net: Path, tmp_path: Path) -> None:
    data, static = tmp_path / "data.npz", ("--with", "int8-static:samples=8", "-o", tmp_path / "out")
    np.savez(data, x=samples(), y=np.arange(24) % 4)
    assert "int8-static(samples=8): working" in edgeprof(net, *static, "--dataset", data).stderr
    assert "int8-static(samples=8): already made" in edgeprof(net, *static, "--dataset", data).stderr
    np.savez(data, x=2 * samples(), y=np.arange(24) % 4)
    assert "int8-static(samples=8): working" in edgeprof(net, *static, "--dataset", data).stderr


def test_a_variant_that_answers_nan_is_failed_not_fast(edgeprof: Verb, tmp_path: Path) -> None:
    """The model is y = √(|x|·w − 0.9·Σ|x|) with weights of 1: without a fifth of them, the difference is negative."""
    from onnx import TensorProto, helper, numpy_helper

    from tests.models import onnx_graph

    path = onnx_graph(
        tmp_path / "root.onnx",
        [
            helper.make_node("Abs", ["x"], ["size"], name="size"),
            helper.make_node("MatMul", ["size", "w"], ["sum"], name="dense"),
            helper.make_node("ReduceSum", ["size", "axis"], ["total"], name="total", keepdims=1),
            helper.make_node("Mul", ["total", "most"], ["limit"], name="limit"),
            helper.make_node("Sub", ["sum", "limit"], ["rest"], name="rest"),
            helper.make_node("Sqrt", ["rest"], ["y"], name="root"),
        ],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 64])],
        [
            numpy_helper.from_array(np.ones((64, 64), "float32"), "w"),
            numpy_helper.from_array(np.array([1], "int64"), "axis"),
            numpy_helper.from_array(np.array(0.9, "float32"), "most"),
        ],
    )
    done = edgeprof(path, "--with", "prune:amount=0.2", "-o", tmp_path / "out", "--json", code=3)
    (entry,) = json.loads(done.stdout)["variants"]
    assert entry["status"] == "failed"
    assert [reason["code"] for reason in entry["reasons"]] == ["nan_output"]


def test_a_variant_of_a_model_that_gives_nan_itself_is_made_and_not_checked(edgeprof: Verb, tmp_path: Path) -> None:
    from onnx import TensorProto, helper, numpy_helper

    from tests.models import onnx_graph

    path = onnx_graph(
        tmp_path / "root.onnx",
        [
            helper.make_node("MatMul", ["x", "w"], ["a"], name="dense"),
            helper.make_node("Mul", ["a", "a"], ["square"], name="square"),
            helper.make_node("Neg", ["square"], ["below"], name="below"),
            helper.make_node("Sqrt", ["below"], ["y"], name="root"),
        ],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 64])],
        [numpy_helper.from_array(np.ones((64, 64), "float32"), "w")],
    )
    done = edgeprof(path, "--with", "prune:amount=0.2", "-o", tmp_path / "out", "--json")
    (entry,) = json.loads(done.stdout)["variants"]
    (reason,) = entry["reasons"]
    assert (entry["status"], reason["code"]) == ("ok", "not_checked")
    assert "The original model gives them too" in reason["remedy"]


@pytest.mark.parametrize("variants", ["crashed", "load_failed"])
@pytest.mark.parametrize("originals", ["crashed", "load_failed", "timeout"])
def test_a_variant_is_excused_only_by_a_model_that_fails_in_the_same_way(
    variants: str, originals: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgeprof.artifact import Artifact
    from edgeprof.compression import conductor
    from edgeprof.errors import VariantError
    from edgeprof.plugins import PluginHost
    from edgeprof.reasons import Code

    source = recognise(str(convnet(tmp_path / "net.onnx")))

    def check(model: Artifact, *_: object, **__: object) -> None:
        raise VariantError("it fails", code=Code(originals if model is source else variants))

    monkeypatch.setattr(conductor, "check", check)
    (entry,) = conductor.compress(source, ["prune"], PluginHost(), tmp_path / "out")["variants"]
    assert entry["status"] == ("ok" if variants == originals else "failed")
    assert entry["reasons"][0]["code"] == ("not_checked" if variants == originals else variants)


def test_a_variant_with_an_open_shape_is_checked_with_the_shape_that_is_given(edgeprof: Verb, tmp_path: Path) -> None:
    from onnx import TensorProto, helper, numpy_helper

    from tests.models import onnx_graph

    path = onnx_graph(
        tmp_path / "open.onnx",
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="dense")],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "length", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "length", 64])],
        [numpy_helper.from_array(np.ones((64, 64), "float32"), "w")],
    )
    words = (path, "--with", "prune", "-o", tmp_path / "out", "--json")

    def reasons(*more: str) -> list[str]:
        (entry,) = json.loads(edgeprof(*words, *more).stdout)["variants"]
        return [reason["code"] for reason in entry["reasons"]]

    assert reasons() == ["not_checked"]
    np.savez(tmp_path / "inputs.npz", x=np.ones((1, 5, 64), "float32"))
    assert reasons("--input-data", str(tmp_path / "inputs.npz")) == []
    assert reasons("--again", "--input", "x=1x5x64") == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--with", "prune:amount=3", "-o", "OUT"], "amount=3 is out of range"),
        (["--with", "prun", "-o", "OUT"], "no compressor is named 'prun'"),
        (["--with", "int8-static", "-o", "OUT"], "int8-static needs calibration data"),
        (["--with", "export-pt2", "-o", "OUT"], "export-pt2 takes python"),
        (["-o", "OUT"], "no --with was given"),
        (["--with", "prune"], "no folder was given"),
        (["--with", "prune", "-o", "/dev/null/x"], "cannot write to /dev/null/x"),
    ],
)
def test_bad_input_is_one_sentence(edgeprof: Verb, words: list[str], said: str, net: Path, tmp_path: Path) -> None:
    done = edgeprof(net, *[str(tmp_path / "out") if word == "OUT" else word for word in words], code=2)
    assert said in done.stderr
    assert not list((tmp_path / "out").glob("*.onnx"))


def test_of_several_variants_one_that_does_not_fit_costs_itself_alone(
    edgeprof: Verb, net: Path, tmp_path: Path
) -> None:
    done = edgeprof(net, "--with", "export-pt2", "--with", "prune", "-o", tmp_path / "out", "--json", code=3)
    statuses = {
        v["name"]: (v["status"], [r["code"] for r in v["reasons"]]) for v in json.loads(done.stdout)["variants"]
    }
    assert statuses == {"export-pt2": ("failed", ["bad_input"]), "prune": ("ok", [])}


def test_the_list_shows_what_takes_the_model_and_its_parameters(edgeprof: Verb, net: Path) -> None:
    rows = {row["name"]: row for row in json.loads(edgeprof(net, "--list", "--json").stdout)["compressors"]}
    assert "export-pt2" not in rows
    assert rows["int8-static"]["needs_data"] == "calibration"
    assert {p["name"] for p in rows["prune"]["parameters"]} == {"amount", "scope"}
    assert "amount=float 0.0..0.99, default 0.5" in edgeprof(net, "--list").stdout
