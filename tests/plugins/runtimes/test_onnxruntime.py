"""ONNX Runtime through edgeprof's contract."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgeprof.testing import check_runtime
from edgeprof.worker.inputs import check_feeds
from edgeprof.worker.runtime import LoadError, LoadOptions
from tests import models

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")

from edgeprof_plugins.runtimes.onnxruntime import runtime as onnxruntime  # noqa: E402 - after what it needs is known to be here
from edgeprof_plugins.runtimes.onnxruntime.refusals import load_error  # noqa: E402 - as above
from edgeprof_plugins.runtimes.onnxruntime.runtime import OnnxRuntime  # noqa: E402 - after what it needs is known to be here

CPU = LoadOptions(device="cpu", threads=None, batch=1, shapes={}, options={})
X = np.arange(8, dtype="float32").reshape(2, 4)


def test_conforms_and_gives_the_right_answer(onnx_model):
    check_runtime(OnnxRuntime(), onnx_model, feeds={"x": X}, expected={"y": 2 * X + 1}, options=CPU._replace(threads=1))


def test_says_what_goes_in_and_comes_out(onnx_model):
    session = OnnxRuntime().load(str(onnx_model), CPU._replace(threads=2))
    assert session.inputs[0]._asdict() == {
        "name": "x",
        "shape": ("batch", 4),
        "dtype": "float32",
        "quantization": None,
    }
    assert session.outputs[0].name == "y"
    assert session.facts["providers"] == "CPUExecutionProvider"
    assert session.facts["threads"] == "2"


@pytest.mark.parametrize("device", ["cuda:1", "tensorrt", "openvino", "NoSuchExecutionProvider"])
def test_a_missing_provider_is_an_error_that_names_those_that_are_here(onnx_model, device):
    """ONNX Runtime itself would go on with the CPU, and its numbers would be taken for the GPU's."""
    with pytest.raises(LoadError) as caught:
        OnnxRuntime().load(str(onnx_model), CPU._replace(device=device))
    assert device in caught.value.message
    assert "cpu" in caught.value.remedy


def test_a_provider_may_be_given_by_its_own_name(onnx_model):
    session = OnnxRuntime().load(str(onnx_model), CPU._replace(device="CPUExecutionProvider"))
    assert np.array_equal(session.run({"x": X})["y"], 2 * X + 1)


def test_cpu_has_no_number(onnx_model):
    with pytest.raises(LoadError, match="'cpu:1' is not a device"):
        OnnxRuntime().load(str(onnx_model), CPU._replace(device="cpu:1"))


def test_options_reach_the_session(onnx_model):
    options = {"graph_optimization": "disable", "spinning": "0", "inter_op_threads": "2"}
    session = OnnxRuntime().load(str(onnx_model), CPU._replace(options=options))
    assert session.facts["graph_optimization"] == "ORT_DISABLE_ALL"
    assert np.array_equal(session.run({"x": X})["y"], 2 * X + 1)


def test_a_bound_call_writes_outputs_into_memory_allocated_before(onnx_model):
    session = OnnxRuntime().load(str(onnx_model), CPU)
    call = session.bind({"x": X})
    call()
    call()
    assert np.array_equal(session.run({"x": X})["y"], 2 * X + 1)


def test_weights_in_a_second_file_are_read(tmp_path):
    model = models.onnx_affine(tmp_path / "m.onnx", external=True)
    assert np.array_equal(OnnxRuntime().load(str(model), CPU).run({"x": X})["y"], 2 * X + 1)


def test_a_missing_file_of_weights_is_said(tmp_path):
    model = models.onnx_affine(tmp_path / "m.onnx", external=True)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(LoadError, match=r"m\.onnx keeps its weights in another file") as caught:
        OnnxRuntime().load(str(model), CPU)
    assert "Copy the files" in caught.value.remedy


def test_an_unknown_operator_is_named(tmp_path):
    model = models.onnx_affine(tmp_path / "m.onnx", operator="Sparkle")
    with pytest.raises(LoadError, match=r"needs the operator .*Sparkle") as caught:
        OnnxRuntime().load(str(model), CPU)
    assert "custom_ops" in caught.value.remedy


def test_a_model_of_the_future_says_to_upgrade(tmp_path):
    model = models.onnx_affine(tmp_path / "m.onnx", opset=99)
    with pytest.raises(LoadError, match=r"m\.onnx") as caught:
        OnnxRuntime().load(str(model), CPU)
    assert "pip install -U onnxruntime" in (caught.value.remedy or "")


def test_strings_and_shapes_that_depend_on_the_data_can_be_bound(tmp_path):
    """NonZero's output has as many columns as the data has nonzeros: nothing to allocate before."""
    helper, kinds = onnx.helper, onnx.TensorProto
    model = models.onnx_graph(
        tmp_path / "m.onnx",
        [helper.make_node("NonZero", ["x"], ["where"]), helper.make_node("Identity", ["s"], ["t"])],
        [helper.make_tensor_value_info("x", kinds.FLOAT, [4]), helper.make_tensor_value_info("s", kinds.STRING, [1])],
        [
            helper.make_tensor_value_info("where", kinds.INT64, [1, "found"]),
            helper.make_tensor_value_info("t", kinds.STRING, [1]),
        ],
    )
    session = OnnxRuntime().load(str(model), CPU)
    assert [spec.dtype for spec in session.inputs] == ["float32", "object"]
    feeds = {"x": np.array([0, 3, 0, 5], "float32"), "s": np.array(["word"], dtype=object)}
    session.bind(feeds)()
    outputs = session.run(feeds)
    assert outputs["where"].tolist() == [[1, 3]]
    assert outputs["t"].tolist() == ["word"]


def test_data_dependent_shapes_without_strings_are_bound_too(tmp_path):
    helper, kinds = onnx.helper, onnx.TensorProto
    model = models.onnx_graph(
        tmp_path / "m.onnx",
        [helper.make_node("NonZero", ["x"], ["where"])],
        [helper.make_tensor_value_info("x", kinds.FLOAT, [4])],
        [helper.make_tensor_value_info("where", kinds.INT64, [1, "found"])],
    )
    session = OnnxRuntime().load(str(model), CPU)
    call = session.bind({"x": np.array([0, 3, 0, 5], "float32")})
    call()
    call()
    assert session.run({"x": np.array([1, 1, 0, 5], "float32")})["where"].tolist() == [[0, 1, 3]]


def test_float16_and_scalars_are_fed_and_bound(tmp_path):
    helper, kinds = onnx.helper, onnx.TensorProto
    model = models.onnx_graph(
        tmp_path / "m.onnx",
        [helper.make_node("Mul", ["x", "x"], ["y"])],
        [helper.make_tensor_value_info("x", kinds.FLOAT16, [])],
        [helper.make_tensor_value_info("y", kinds.FLOAT16, [])],
    )
    check_runtime(OnnxRuntime(), model, feeds={"x": np.array(3, "float16")}, expected={"y": np.array(9, "float16")})


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            (
                "std::shared_ptr<onnxruntime::IFactory> onnxruntime::python::Create(const std::string&) "
                "Invalid OpenVINO EP option: nonsense"
            ),
            "Invalid OpenVINO EP option: nonsense",
        ),
        (
            (
                "[ONNXRuntimeError] : 1 : FAIL : Exception during initialization: /onnxruntime/backend.cc:136 "
                "onnxruntime::ov::BasicBackend::BasicBackend(std::unique_ptr<onnx::Model>&) /onnxruntime/core/ov.cc:28 "
                "auto onnxruntime::ov::Boundary(Func&&) [with bool x = false] [OpenVINO-EP] Exception while Loading "
                "Network for graph 1: Exception from src/core.cpp:114:\nCheck '!dynamic' failed at src/node.cpp:106:\n"
                "Unexpected: CPU plug-in doesn't support dynamic rank. Operation name: /If_output_0\n\n"
            ),
            "Unexpected: CPU plug-in doesn't support dynamic rank. Operation name: /If_output_0",
        ),
        ("[ONNXRuntimeError] : 10 : INVALID_GRAPH : This is an invalid model.", "This is an invalid model."),
        ("", "RuntimeError"),
    ],
)
def test_what_onnx_runtime_says_is_told_without_its_source(said, told):
    """As ONNX Runtime 1.24 wrote it for OpenVINO."""
    error = load_error("m.onnx", RuntimeError(said), "openvino")
    assert error.message == f"ONNX Runtime does not load m.onnx on openvino: {told}"
    assert "--device cpu" in error.remedy


def test_openvino_takes_its_devices_by_name_and_its_own_number_of_threads():
    ort = SimpleNamespace(get_available_providers=lambda: ["OpenVINOExecutionProvider", "CPUExecutionProvider"])
    asked = onnxruntime._choose_provider(ort, CPU._replace(device="openvino:gpu.1", threads=3))
    assert asked == ("OpenVINOExecutionProvider", {"device_type": "GPU.1", "num_of_threads": "3"})
    assert onnxruntime._choose_provider(ort, CPU._replace(device="openvino"))[1] == {}
    with pytest.raises(LoadError, match="'openvino:1' is not a device") as caught:
        onnxruntime._choose_provider(ort, CPU._replace(device="openvino:1"))
    assert "openvino:GPU" in caught.value.remedy


def test_how_many_nodes_run_where_is_told():
    parts = [SimpleNamespace(ep_name="CUDAExecutionProvider", get_nodes=lambda: [1, 2])]
    parts += [SimpleNamespace(ep_name="CPUExecutionProvider", get_nodes=lambda: [1])] * 3
    assert (
        onnxruntime._node_placement(SimpleNamespace(get_provider_graph_assignment_info=lambda: parts))
        == "cuda 2, cpu 3"
    )
    assert onnxruntime._node_placement(object()) == ""


def _rows_forgotten(path: Path) -> Path:
    """y = x · w whose declared shape is that of the exporter's one sample."""
    from onnx import TensorProto, helper, numpy_helper

    return models.onnx_graph(
        path,
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
        [numpy_helper.from_array(np.ones((3, 2), "float32"), "w")],
        onnx=onnx,
    )


@pytest.mark.parametrize("batch", [1, 4])
def test_an_output_of_another_shape_than_declared_is_run_and_bound(tmp_path, batch):
    session = OnnxRuntime().load(str(_rows_forgotten(tmp_path / "m.onnx")), CPU)
    feeds = {"x": np.ones((batch, 3), "float32")}
    assert session.run(feeds)["y"].tolist() == [[3, 3]] * batch
    call = session.bind(feeds)
    call()
    call()


@pytest.mark.parametrize("name", ["BFLOAT16", "FLOAT8E4M3FN", "FLOAT8E5M2"])
def test_types_that_numpy_lacks_go_in_and_come_out_as_numbers(tmp_path, name):
    from onnx import TensorProto, helper

    kind = getattr(TensorProto, name)
    path = models.onnx_graph(
        tmp_path / "m.onnx",
        [
            helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.FLOAT),
            helper.make_node("Cast", ["wide"], ["y"], to=kind),
        ],
        [helper.make_tensor_value_info("x", kind, [2, 2])],
        [
            helper.make_tensor_value_info("y", kind, [2, 2]),
            helper.make_tensor_value_info("wide", TensorProto.FLOAT, [2, 2]),
        ],
        opset=19,
    )
    session = OnnxRuntime().load(str(path), CPU)
    feeds = {"x": np.float32([[1.5, -2], [0.25, 96]])}
    found = session.run(feeds)
    assert found["y"].tolist() == found["wide"].tolist() == feeds["x"].tolist()
    session.bind(feeds)()


def test_a_tensor_that_is_listed_twice_is_two_outputs(tmp_path):
    from onnx import TensorProto, helper

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 2]) for name in "xy")
    path = models.onnx_graph(tmp_path / "m.onnx", [helper.make_node("Neg", ["x"], ["y"])], [x], [y, y])
    session = OnnxRuntime().load(str(path), CPU)
    feeds = {"x": np.ones((2, 2), "float32")}
    assert [spec.name for spec in session.outputs] == ["y", "y_1"]
    assert [(name, array.tolist()) for name, array in session.run(feeds).items()] == [
        (name, [[-1, -1], [-1, -1]]) for name in ("y", "y_1")
    ]
    session.bind(feeds)()


def test_an_optional_input_is_run_with_the_tensor_that_is_given(tmp_path):
    from onnx import TensorProto, helper

    inner = helper.make_tensor_type_proto(TensorProto.FLOAT, [2])
    path = models.onnx_graph(
        tmp_path / "m.onnx",
        [helper.make_node("OptionalGetElement", ["x"], ["y"])],
        [helper.make_value_info("x", helper.make_optional_type_proto(inner))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
    )
    session = OnnxRuntime().load(str(path), CPU)
    feeds = check_feeds(session.inputs, {"x": np.float32([1, 2])})
    assert session.run(feeds)["y"].tolist() == [1, 2]
    session.bind(feeds)()


def test_an_operator_of_an_old_opset_comes_with_a_conversion_that_works(tmp_path):
    import shlex
    import subprocess
    import sys

    from onnx import TensorProto, helper

    kind = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 2]) for name in "xy"]
    folder = tmp_path / "a folder of somebody's"
    folder.mkdir()
    path = models.onnx_graph(
        folder / "old.onnx", [helper.make_node("Add", ["x", "x"], ["y"])], kind[:1], kind[1:], opset=6
    )
    with pytest.raises(LoadError, match="has Add as of opset 6") as caught:
        OnnxRuntime().load(str(path), CPU)
    command = shlex.split(caught.value.remedy.removeprefix("Convert it: "))
    subprocess.run([sys.executable, *command[1:]], cwd=tmp_path, check=True)
    session = OnnxRuntime().load(str(folder / "old-17.onnx"), CPU)
    assert session.run({"x": np.ones((2, 2), "float32")})["y"].tolist() == [[2, 2], [2, 2]]


def test_an_operator_that_its_opset_does_not_have_is_exported_with_a_higher_one(tmp_path):
    """Gelu is ONNX's as of opset 20; by the remedy it loads."""
    from onnx import TensorProto, helper

    kind = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 2]) for name in "xy"]
    nodes = [helper.make_node("Gelu", ["x"], ["y"])]
    low = models.onnx_graph(tmp_path / "low.onnx", nodes, kind[:1], kind[1:], opset=17)
    with pytest.raises(LoadError, match="stamped opset 17, which has no operator Gelu") as caught:
        OnnxRuntime().load(str(low), CPU)
    assert "higher opset_version" in caught.value.remedy
    high = models.onnx_graph(tmp_path / "high.onnx", nodes, kind[:1], kind[1:], opset=20)
    assert OnnxRuntime().load(str(high), CPU).run({"x": np.ones((2, 2), "float32")})["y"].shape == (2, 2)


def test_a_file_that_breaks_the_rules_of_onnx_has_a_remedy(tmp_path):
    from onnx import TensorProto, helper

    kind = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, [2, 2]) for name in "xy"]
    path = models.onnx_graph(
        tmp_path / "wrong.onnx", [helper.make_node("Celu", ["x"], ["y"])], kind[:1], kind[1:], opset=17
    )
    with pytest.raises(LoadError, match=r"does not load wrong\.onnx") as caught:
        OnnxRuntime().load(str(path), CPU)
    assert "onnx.checker.check_model" in caught.value.remedy


def test_an_optimisation_that_fails_is_told_with_the_one_that_does_not(onnx_model, monkeypatch):
    import onnxruntime as library

    real = library.InferenceSession

    def session(path, options, **rest):
        if options.graph_optimization_level == library.GraphOptimizationLevel.ORT_ENABLE_ALL:
            raise RuntimeError("Exception during initialization: fusion failed")
        return real(path, options, **rest)

    monkeypatch.setattr(library, "InferenceSession", session)
    with pytest.raises(LoadError, match="own optimisation of") as caught:
        OnnxRuntime().load(str(onnx_model), CPU)
    assert "--option graph_optimization=extended" in caught.value.remedy
    assert OnnxRuntime().load(str(onnx_model), CPU._replace(options={"graph_optimization": "extended"})).inputs


def _scaled_norm(path):
    """x / sqrt(mean(x²) + ε), times two factors where x has one column."""
    nodes = [
        onnx.helper.make_node("Pow", ["x", "two"], ["squares"]),
        onnx.helper.make_node("ReduceMean", ["squares"], ["mean"], axes=[-1], keepdims=1),
        onnx.helper.make_node("Add", ["mean", "epsilon"], ["sum"]),
        onnx.helper.make_node("Sqrt", ["sum"], ["root"]),
        onnx.helper.make_node("Div", ["x", "root"], ["normal"]),
        onnx.helper.make_node("Mul", ["normal", "factors"], ["y"]),
    ]
    values = {"two": np.float32(2), "epsilon": np.float32(1e-5), "factors": np.array([1, 3], np.float32)}
    tensors = [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()]
    x, y = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [3, size])
        for name, size in (("x", 1), ("y", 2))
    )
    model = onnx.helper.make_model(
        onnx.helper.make_graph(nodes, "norm", [x], [y], tensors),
        opset_imports=[onnx.helper.make_opsetid("", 17)],
        ir_version=8,
    )
    path.write_bytes(model.SerializeToString())
    return path


def test_a_fusion_that_fails_when_it_runs_is_told_with_the_level_that_does_not(tmp_path):
    """onnx/onnx#8203: ONNX Runtime takes the factors for those of a normalisation, whose shape they do not have."""
    import onnxruntime as library

    path, feeds = _scaled_norm(tmp_path / "norm.onnx"), {"x": np.array([[1], [2], [3]], np.float32)}
    try:
        library.InferenceSession(str(path)).run(None, feeds)
    except Exception:  # noqa: BLE001 - its own type of error
        pass
    else:
        pytest.skip(f"ONNX Runtime {library.__version__} has mended this fusion")
    with pytest.raises(
        LoadError, match=r"own optimisation of the graph fails: .*SimplifiedLayerNormalization"
    ) as caught:
        OnnxRuntime().load(str(path), CPU).run(feeds)
    assert caught.value.remedy == "It runs with --option graph_optimization=basic."
    session = OnnxRuntime().load(str(path), CPU._replace(options={"graph_optimization": "basic"}))
    np.testing.assert_allclose(session.run(feeds)["y"], [[1, 3]] * 3, rtol=1e-3)


def test_inputs_that_a_model_cannot_take_are_not_blamed_on_optimisation(tmp_path):
    node = onnx.helper.make_node("Gather", ["table", "i"], ["y"])
    tensors = [onnx.numpy_helper.from_array(np.zeros((5, 2), np.float32), "table")]
    i, y = (
        onnx.helper.make_tensor_value_info(*of)
        for of in (("i", onnx.TensorProto.INT64, [3]), ("y", onnx.TensorProto.FLOAT, [3, 2]))
    )
    model = onnx.helper.make_model(
        onnx.helper.make_graph([node], "table", [i], [y], tensors),
        opset_imports=[onnx.helper.make_opsetid("", 17)],
        ir_version=8,
    )
    (tmp_path / "table.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(Exception, match="indices element out of data bounds"):
        OnnxRuntime().load(str(tmp_path / "table.onnx"), CPU).run({"i": np.array([0, 1, 9])})


def test_the_graph_of_a_model_beyond_2_gib_is_said_to_be_unknown(tmp_path, monkeypatch):
    from edgeprof_plugins.runtimes.onnxruntime import graph
    from tests.plugins.compressors.onnx import places

    net = places.NETS["a dense layer"](1)
    path = tmp_path / "dense.onnx"
    onnx.save(net.model, path, save_as_external_data=True, location="dense.data", size_threshold=0)
    assert OnnxRuntime().inspect(str(path)).macs == net.macs
    monkeypatch.setattr(graph, "_LARGEST", sum(values.nbytes for values in net.weights.values()) - 1)
    seen = OnnxRuntime().inspect(str(path))
    assert not seen.layers
    assert "2 GiB" in seen.note
