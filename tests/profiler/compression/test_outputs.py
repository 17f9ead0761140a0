"""The outputs of a variant against those of its original."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgeprof.artifact import recognise
from edgeprof.compression.outputs import check_outputs, compare_outputs
from edgeprof.compression.variant import make_variant, parse_chain
from edgeprof.errors import VariantError
from edgeprof.evaluation.load import load_dataset
from edgeprof.plugins import PluginHost

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    Array = npt.NDArray[Any]

INNER, HIDDEN, OUTER = 8, 16, 4
VALUES = arrays(np.float32, (5, 3), elements=st.floats(-100, 100, width=32))


@given(VALUES, VALUES)
def test_the_ratio_and_the_agreement_are_those_of_their_definitions(original: Array, answer: Array) -> None:
    facts = compare_outputs([(original[:2], answer[:2]), (original[2:], answer[2:])])
    signal, noise = np.linalg.norm(original.astype(float)) ** 2, np.linalg.norm(original.astype(float) - answer) ** 2
    if signal and noise:
        assert facts["output_sqnr_db"] == pytest.approx(10 * math.log10(signal / noise), abs=0.006)
    else:
        assert facts["output_sqnr_db"] is None
    assert facts["top1_agreement"] == np.mean([a.argmax() == b.argmax() for a, b in zip(original, answer, strict=True)])


def test_outputs_that_are_no_real_numbers_of_one_shape_are_not_compared() -> None:
    pairs = [
        (np.array([1, 2]), np.array([7, 9])), (np.array(["a"]), np.array(["b"])), ([{0: 0.5}], [{0: 0.1}]),
        (np.ones((3, 2)), np.zeros((1, 2))), (None, None),
    ]  # fmt: skip
    assert compare_outputs(pairs) == {"output_sqnr_db": None, "top1_agreement": None}


def test_what_is_not_finite_is_refused_only_where_the_original_gives_numbers() -> None:
    endless = np.array([[1.0, np.inf]])
    assert compare_outputs([(endless, np.array([[1.0, 3.0]]))])["output_sqnr_db"] is None
    with pytest.raises(VariantError, match="NaN or infinite"):
        compare_outputs([(np.ones((1, 2)), endless)])


@given(st.floats(-60, 60), st.none() | st.floats(0, 1))
def test_a_variant_is_refused_if_neither_its_values_nor_its_classes_are_the_originals(
    sqnr: float, agreement: float | None
) -> None:
    facts = {"output_sqnr_db": sqnr, "top1_agreement": agreement}
    if sqnr >= 3 or (agreement is not None and agreement >= 0.95):
        check_outputs("int8-static", "net.onnx", facts)
    else:
        with pytest.raises(VariantError, match=r"are not those of net\.onnx") as raised:
            check_outputs("int8-static", "net.onnx", facts)
        assert raised.value.code == "bad_output"


def drowned() -> tuple[Array, Array]:
    """Two dense layers, one channel between them so large that one scale for all is too coarse for the others."""
    draw = np.random.default_rng(0)
    first = draw.standard_normal((INNER, HIDDEN)).astype("float32")
    second = draw.standard_normal((HIDDEN, OUTER)).astype("float32")
    first[:, 0] *= 1e4
    second[0] = 0.0
    return first, second


def onnx_net(folder: Path) -> str:
    onnx = pytest.importorskip("onnx")
    from tests.models import onnx_graph

    helper = onnx.helper
    first, second = drowned()
    return str(
        onnx_graph(
            folder / "net.onnx",
            [
                helper.make_node("MatMul", ["x", "first"], ["h"], "one"),
                helper.make_node("MatMul", ["h", "second"], ["y"], "two"),
            ],
            [helper.make_tensor_value_info("x", 1, [1, INNER])],
            [helper.make_tensor_value_info("y", 1, [1, OUTER])],
            [onnx.numpy_helper.from_array(first, "first"), onnx.numpy_helper.from_array(second, "second")],
        )
    )


def tflite_net(folder: Path) -> str:
    pytest.importorskip("ai_edge_quantizer")
    from ai_edge_litert import schema_py_generated as schema

    from tests.plugins.compressors.tflite.places import Graph, Model

    first, second = drowned()
    model = Model()
    graph = Graph(model, "main")
    x, h, y = graph.tensor("x", (1, INNER)), graph.tensor("h", (1, HIDDEN)), graph.tensor("y", (1, OUTER))
    one, two = graph.weight("one", first.T.copy()), graph.weight("two", second.T.copy())
    graph.operator("FULLY_CONNECTED", [x, one, -1], [h], schema.FullyConnectedOptionsT())
    graph.operator("FULLY_CONNECTED", [h, two, -1], [y], schema.FullyConnectedOptionsT())
    graph.graph.inputs, graph.graph.outputs = [x], [y]
    return str(model.save(folder / "net.tflite"))


def keras_net(folder: Path) -> str:
    tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed here: make test-runtimes")
    layers = [tf.keras.layers.Dense(width, use_bias=False) for width in (HIDDEN, OUTER)]
    net = tf.keras.Sequential([tf.keras.Input((INNER,), name="x"), *layers])
    net.set_weights(drowned())
    net.save(folder / "net.keras")
    return str(folder / "net.keras")


@pytest.mark.parametrize("make", [onnx_net, tflite_net, keras_net])
def test_a_static_variant_that_answers_something_else_is_refused_and_can_be_examined(make: Any, tmp_path: Path) -> None:
    host = PluginHost()
    source = recognise(make(tmp_path))
    np.savez(tmp_path / "data.npz", x=np.random.default_rng(1).standard_normal((20, INNER)).astype("float32"))
    data = load_dataset(str(tmp_path / "data.npz"), host, {})
    steps, compressors = parse_chain("int8-static"), host.of("compressors")
    with pytest.raises(VariantError, match=r"the outputs after int8-static are not those of .*net") as raised:
        make_variant(source, steps, compressors, tmp_path / "out", data, isolated=False)
    assert raised.value.code == "bad_output"
    assert not list((tmp_path / "out").glob("*net*"))
    _, recipe = make_variant(source, steps, compressors, tmp_path / "out", data, isolated=False, least_share=0.0)
    assert recipe[0]["facts"]["output_sqnr_db"] < 3
