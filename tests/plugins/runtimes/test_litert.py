"""LiteRT through edgeprof's contract."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from edgeprof.testing import check_runtime
from edgeprof.worker.inputs import own_feeds
from edgeprof.worker.runtime import LoadError, LoadOptions
from tests import models

pytest.importorskip("ai_edge_litert")

from edgeprof_plugins.runtimes.litert.runtime import LiteRT

CPU = LoadOptions(device="cpu", threads=None, batch=1, shapes={}, options={})
X = np.arange(4, dtype="float32").reshape(1, 4)


def test_conforms_and_gives_the_right_answer(tflite_model):
    check_runtime(LiteRT(), tflite_model, feeds={"x": X}, expected={"y": 2 * X}, options=CPU._replace(threads=1))


def test_an_open_batch_stays_open_and_follows_the_data(tflite_model):
    session = LiteRT().load(str(tflite_model), CPU)
    assert session.inputs[0].shape == (None, 4)
    for size in (3, 1, 2):
        x = np.ones((size, 4), "float32")
        assert session.run({"x": x})["y"].tolist() == (2 * x).tolist()


def test_a_fixed_dimension_is_not_resized_by_the_data(tflite_model):
    session = LiteRT().load(str(tflite_model), CPU)
    with pytest.raises(RuntimeError, match="unknown dimensions"):
        session.run({"x": np.ones((1, 5), "float32")})


def test_it_says_what_is_timed(tflite_model):
    session = LiteRT().load(str(tflite_model), CPU._replace(threads=2))
    assert session.facts["delegate"] == "XNNPACK"
    assert session.facts["threads"] == "2"
    assert "inputs are set once" in session.facts["timed"]


def test_xnnpack_can_be_left_out(tflite_model):
    session = LiteRT().load(str(tflite_model), CPU._replace(options={"xnnpack": "0"}))
    assert session.facts["delegate"] == "none"
    assert session.run({"x": X})["y"].tolist() == (2 * X).tolist()


def test_an_unknown_custom_operator_is_named(tmp_path):
    model = models.tflite_double(tmp_path / "m.tflite", custom="sparkle")
    with pytest.raises(LoadError, match=r"m\.tflite needs the custom operator sparkle") as caught:
        LiteRT().load(str(model), CPU)
    assert "--device LIBRARY.so" in caught.value.remedy


def test_an_edge_tpu_model_on_the_cpu_is_told_where_it_belongs(tmp_path):
    model = models.tflite_double(tmp_path / "m.tflite", custom="edgetpu-custom-op")
    with pytest.raises(LoadError, match="compiled for the Edge TPU") as caught:
        LiteRT().load(str(model), CPU)
    assert "--device edgetpu" in caught.value.remedy


@pytest.mark.parametrize(
    ("device", "says"),
    [
        ("/nowhere/libdelegate.so", r"/nowhere/libdelegate\.so cannot be loaded"),
        ("libm.so.6", r"libm\.so\.6 cannot be loaded"),  # a library, but no delegate
        ("gpu", "no device 'gpu'"),
    ],
)
def test_a_delegate_that_cannot_be_loaded_is_named(tflite_model, device, says):
    with pytest.raises(LoadError, match=says):
        LiteRT().load(str(tflite_model), CPU._replace(device=device))


def test_an_edge_tpu_without_its_library_is_told_what_to_install(tmp_path):
    model = models.tflite_double(tmp_path / "m.tflite", custom="edgetpu-custom-op")
    with pytest.raises(LoadError, match=r"libedgetpu\.so\.1 cannot be loaded") as caught:
        LiteRT().load(str(model), CPU._replace(device="edgetpu:0"))
    assert "libedgetpu1-std" in caught.value.remedy


def test_a_model_that_is_not_compiled_for_the_edge_tpu_is_not_measured_on_the_cpu_under_its_name(
    tflite_model, monkeypatch
):
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(LoadError, match=r"is not compiled for the Edge TPU, and would run only on the CPU") as caught:
        LiteRT().load(str(tflite_model), CPU._replace(device="edgetpu"))
    assert "edgetpu_compiler double.tflite, which is not installed here" in caught.value.remedy


def test_what_stays_on_the_cpu_of_a_compiled_model_is_counted_from_the_file(tmp_path, shared_data):
    from edgeprof.diagnosis.checks import Evidence, diagnose
    from edgeprof_plugins.runtimes.litert import graph

    compiled = shared_data / "formats/custom-op/mobilenet_v1_0.25_128_quant_edgetpu.tflite"
    whole = LiteRT().inspect(str(compiled))
    assert (whole.compiled_for, whole.nodes, whole.left_behind) == ("the Edge TPU", 1, {})
    (fine,) = [one for one in diagnose(Evidence(graph=whole)) if one.check == "compiled-part"]
    assert fine.sentence == "all of it was compiled for the Edge TPU"
    operators = [("edgetpu-custom-op", None), ("SOFTMAX", None), ("RESHAPE", None), ("RESHAPE", None)]
    partly = whole._replace(left_behind=graph._left_behind(operators))
    (warned,) = [one for one in diagnose(Evidence(graph=partly)) if one.check == "compiled-part"]
    assert warned.sentence.startswith("3 operators were not compiled")
    assert warned.sentence.endswith("stay on the CPU: 2 × RESHAPE, SOFTMAX")


def test_a_wrong_name_is_told_with_the_names_that_there_are_before_anything_is_allocated(tflite_model):
    with pytest.raises(LoadError, match="names 'y', which is no input") as caught:
        LiteRT().load(str(tflite_model), CPU._replace(shapes={"y": (1, 4)}))
    assert "x [?, 4] float32" in caught.value.remedy


def test_tensorflows_own_operators_are_looked_for_where_tensorflow_is(tmp_path, monkeypatch):
    from edgeprof_plugins.runtimes.litert import runtime

    path = models.tflite_double(tmp_path / "m.tflite", custom="FlexErf")
    with pytest.raises(LoadError, match=r"needs TensorFlow's own operators \(Flex\)") as caught:
        LiteRT().load(str(path), CPU)
    works = "pip install 'tensorflow<2.19'" if sys.version_info < (3, 13) else "without SELECT_TF_OPS"
    assert works in caught.value.remedy
    plain = models.tflite_double(tmp_path / "plain.tflite")
    monkeypatch.setattr(runtime, "library_version", lambda module, *_: "2.99" if module == "tensorflow" else "1.0")
    library = runtime._load_library()
    monkeypatch.setattr(
        runtime,
        "_load_library",
        lambda among=(): (
            (
                "tensorflow 2.99",
                lambda model_path, num_threads: library[1](str(plain), num_threads=num_threads),
                None,
                None,
            )
            if among
            else library
        ),
    )
    session = LiteRT().load(str(path), CPU)
    assert session.version == session.facts["library"] == "tensorflow 2.99"
    assert session.run({"x": X})["y"].tolist() == (2 * X).tolist()


def _looks_up(path, kind):
    """A graph whose input ``i`` is what its operator makes of it: table of 50 rows of 3."""
    from ai_edge_litert import schema_py_generated as schema

    from tests.plugins.compressors.tflite import places

    model = places.Model()
    graph = places.Graph(model, "main")
    table = graph.tensor("table", [50, 3], np.ones((50, 3), "float32"))
    shape = {"RESHAPE": [2], "TILE": [2], "GATHER_ND": [4, 1]}.get(kind, [200])
    index = graph.tensor("i", shape, kind="int32")
    result = graph.tensor("y", {"RESHAPE": [150, 1], "TILE": [50, 3], "GATHER_ND": [4, 3]}.get(kind, [200, 3]))
    if kind == "GATHER, axis 1":
        options, kind = schema.GatherOptionsT(), "GATHER"
        options.axis = 1
        graph.graph.tensors[result].shape = [50, 200]
        graph.operator(kind, [table, index], [result], options)
    elif kind == "GATHER":
        graph.operator(kind, [table, index], [result], schema.GatherOptionsT())
    elif kind == "EMBEDDING_LOOKUP":
        graph.operator(kind, [index, table], [result])
    elif kind == "ONE_HOT":
        depth, on, off = (
            graph.tensor(name, [], np.array(value, dtype))
            for name, value, dtype in (("depth", 7, "int32"), ("on", 1, "float32"), ("off", 0, "float32"))
        )
        graph.graph.tensors[result].shape = [200, 7]
        options = schema.OneHotOptionsT()
        options.axis = -1
        graph.operator(kind, [index, depth, on, off], [result], options)
    else:
        graph.operator(kind, [table, index], [result])
    graph.graph.inputs, graph.graph.outputs = [index], [result]
    return model.save(path)


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("GATHER", ("below", 50)),
        ("GATHER, axis 1", ("below", 3)),
        ("EMBEDDING_LOOKUP", ("below", 50)),
        ("GATHER_ND", ("below", 50)),
        ("ONE_HOT", ("below", 7)),
        ("RESHAPE", ("inferred",)),
        ("TILE", ("all", 1)),
    ],
)
def test_inputs_of_which_the_graph_shows_what_they_are_get_values_that_suit(tmp_path, kind, wanted):
    session = LiteRT().load(str(_looks_up(tmp_path / "m.tflite", kind)), CPU)
    assert session.fits == {"i": wanted}
    feeds = own_feeds(session, CPU, 0)
    answer = session.run(feeds)["y"]
    assert answer.size
    if wanted[0] == "below":
        assert 0 <= feeds["i"].min() <= feeds["i"].max() < wanted[1]
        assert feeds["i"].size < 10 or feeds["i"].max() > wanted[1] // 2


def test_the_signature_that_runs_is_named_among_several(tmp_path):
    pytest.importorskip("ai_edge_quantizer")
    from tests.plugins.compressors.tflite import test_unusual

    path = test_unusual.two_graphs(1).save(tmp_path / "two.tflite")
    assert LiteRT().load(str(path), CPU).facts["signature"] == "entry0 (of entry0, entry1)"
    assert "signature" not in LiteRT().load(str(models.tflite_double(tmp_path / "one.tflite")), CPU).facts
