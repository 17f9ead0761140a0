"""The ONNX compressors, on a network that ONNX Runtime then runs."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from edgeprof.artifact import recognise
from edgeprof.compression.variant import make_variant, parse_chain
from edgeprof.errors import InputError
from edgeprof.evaluation.load import load_dataset
from edgeprof.plugins import PluginHost
from edgeprof.testing import check_compressor
from edgeprof_plugins.compressors.onnx import file as onnx_file
from edgeprof_plugins.compressors.onnx.file import OnnxFile
from tests.models import onnx_graph
from tests.plugins.compressors import nets

if TYPE_CHECKING:
    from pathlib import Path

#: chain → the largest error, relative to the largest output, that it may make on this network.
CHAINS = {
    "int8-dynamic": 0.1,
    "int8-dynamic:conv=true": 0.1,
    "int8-weight": 0.03,
    "int4-weight": 0.2,
    "int8-static": 0.4,
    "int8-static:method=percentile,activations=uint8": 0.15,
    "int8-static:method=entropy": 0.6,
    "fp16": 0.01,
    "prune:amount=0.1": 0.3,
    "prune:amount=0.1,scope=global": 0.3,
    "prune-2:4": 2.0,
    "prune-structured:amount=0.25": 2.0,
    "low-rank:energy=0.7": 5.0,
    "cluster:n=64": 0.1,
    "cluster:n=64,store=codebook": 0.1,
    "prune-structured:amount=0.25+int8-static": 2.0,
}


@pytest.fixture(scope="module")
def host() -> PluginHost:
    return PluginHost()


@pytest.fixture
def net(tmp_path: Path) -> Path:
    return nets.convnet(tmp_path / "net.onnx")


def dataset(folder: Path, host: PluginHost, x: Any = None) -> Any:
    x = nets.samples() if x is None else x
    np.savez(folder / "data.npz", x=x, y=np.arange(len(x)) % 4)
    return load_dataset(str(folder / "data.npz"), host)


def apply(net: Path, chain: str, host: PluginHost, data: Any = None) -> tuple[Any, dict[str, Any]]:
    made, recipe = make_variant(
        recognise(str(net)), parse_chain(chain), host.of("compressors"), net.parent / "out", data
    )
    return made, recipe[-1]["facts"]


@pytest.mark.parametrize("chain", CHAINS)
def test_a_variant_runs_and_answers_about_as_before(chain: str, net: Path, host: PluginHost) -> None:
    made, _ = apply(net, chain, host, dataset(net.parent, host))
    x = nets.samples()
    before, after = nets.run(net, x), nets.run(made.target, x)
    assert after.shape == before.shape
    assert np.isfinite(after).all()
    error = np.abs(after - before).max() / np.abs(before).max()
    assert 0 < error < CHAINS[chain]


@pytest.mark.parametrize(
    "name",
    [
        "int8-dynamic",
        "int8-weight",
        "int4-weight",
        "int8-static",
        "fp16",
        "prune",
        "prune-2:4",
        "prune-structured",
        "low-rank",
        "cluster",
    ],
)
def test_every_compressor_keeps_the_contract(name: str, net: Path, host: PluginHost) -> None:
    """Same bytes for the same seed, the source untouched, damaged files refused, nothing left behind."""
    check_compressor(
        host.get("compressors", name)().for_format("onnx"),
        net,
        parameters={"energy": 0.5, "rank": None} if name == "low-rank" else None,
        data=dataset(net.parent, host),
    )


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_pruning_meets_its_share_exactly(scope: str, net: Path, host: PluginHost) -> None:
    made, facts = apply(net, f"prune:amount=0.7,scope={scope}", host)
    with OnnxFile(made.path) as model:
        weights = [model.array(w.name) for w in model.weights()]
    zeros, total = sum(int((w == 0).sum()) for w in weights), sum(w.size for w in weights)
    assert zeros == facts["zeros"]
    assert zeros == pytest.approx(0.7 * total, abs=len(weights) if scope == "layer" else 1)
    if scope == "global":  # the smallest anywhere: every one that is left is at least as large
        with OnnxFile(net) as model:
            everything = np.sort(np.concatenate([np.abs(model.array(w.name)).ravel() for w in model.weights()]))
        left = np.concatenate([np.abs(w[w != 0]) for w in weights])
        assert left.min() >= everything[zeros - 1]


def test_two_of_every_four_input_channels_are_zero(net: Path, host: PluginHost) -> None:
    made, facts = apply(net, "prune-2:4", host)
    with OnnxFile(made.path) as model:
        groups = model.array("branch_w").transpose(0, 2, 3, 1).reshape(-1, 4)
    assert ((groups == 0).sum(axis=1) == 2).all()
    assert set(facts["skipped"]) == {"stem", "depthwise"}


def test_structured_pruning_cuts_coupled_channels_together(net: Path, host: PluginHost) -> None:
    """The residual's two convolutions and the depthwise layer lose the same channels; the outputs stay."""
    made, facts = apply(net, "prune-structured:amount=0.5", host)
    with OnnxFile(made.path) as model:
        shapes = {name: model.array(name).shape for name in model.order}
    assert shapes["stem_w"] == (8, 3, 3, 3)
    assert shapes["branch_w"] == (8, 8, 3, 3)
    assert shapes["depthwise_w"] == (8, 1, 3, 3)
    assert shapes["bn_mean"] == (8,)
    assert shapes["point_w"] == (16, 8, 1, 1)
    assert shapes["dense_w"] == (4, 16)
    assert facts["pinned"] == ["y is an output of the model"]
    assert made.size_bytes < 0.6 * recognise(str(net)).size_bytes


def test_channels_that_do_nothing_are_cut_without_changing_the_answer(net: Path, host: PluginHost) -> None:
    """The exact case: through batch norm, residual, depthwise layer, pooling and flattening."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(str(net))
    dead = {"stem_w", "bn_scale", "bn_bias", "branch_w", "branch_b", "depthwise_w", "point_w", "point_b"}
    for tensor in model.graph.initializer:
        if tensor.name in dead:
            values = numpy_helper.to_array(tensor).copy()
            values[::2] = 0
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(model, str(net))
    made, facts = apply(net, "prune-structured:amount=0.5", host)
    assert facts["channels"] == {"stem": [16, 8], "branch": [16, 8], "point": [32, 16]}
    x = nets.samples(3)
    assert np.allclose(nets.run(made.target, x), nets.run(net, x), atol=1e-5)


def test_a_graph_whose_channels_are_all_pinned_names_the_node(tmp_path: Path, host: PluginHost) -> None:
    from onnx import TensorProto, helper, numpy_helper

    from tests.models import onnx_graph

    path = onnx_graph(
        tmp_path / "t.onnx",
        [
            helper.make_node("Conv", ["x", "w"], ["c"], name="first"),
            helper.make_node("DepthToSpace", ["c"], ["y"], name="turn", blocksize=2),
        ],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 8, 8])],
        [numpy_helper.from_array(np.ones((16, 3, 1, 1), "float32"), "w")],
    )
    with pytest.raises(InputError, match=r"turn \(DepthToSpace\) cannot be followed"):
        apply(path, "prune-structured", host)


def test_low_rank_of_a_matrix_that_has_one_is_exact(tmp_path: Path, host: PluginHost) -> None:
    from onnx import TensorProto, helper, numpy_helper

    from tests.models import onnx_graph

    draw = np.random.default_rng(3)
    weight = (draw.standard_normal((64, 3)) @ draw.standard_normal((3, 48))).astype("float32")
    path = onnx_graph(
        tmp_path / "m.onnx",
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="dense")],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 48])],
        [numpy_helper.from_array(weight, "w")],
    )
    made, facts = apply(path, "low-rank:energy=0.9999", host)
    x = draw.standard_normal((5, 64)).astype("float32")
    assert facts["layers"]["dense"]["rank"] <= 3
    exact, _ = apply(path, "low-rank:rank=3", host)
    assert np.allclose(nets.run(exact.target, x), x @ weight, atol=1e-3)
    assert made.size_bytes < recognise(str(path)).size_bytes / 3
    with pytest.raises(InputError, match="dense: rank 40 of 48 would not be smaller"):
        apply(path, "low-rank:rank=40", host)


@pytest.mark.parametrize("flipped", [False, True])
def test_weights_of_four_bits_are_what_the_runtime_computes_with(
    flipped: bool, tmp_path: Path, host: PluginHost
) -> None:
    """The SQNR that is told is that of ONNX Runtime's own answer; a matrix that fills no whole block included."""
    from onnx import TensorProto, helper, numpy_helper

    from tests.models import onnx_graph

    draw = np.random.default_rng(3)
    weight = draw.standard_normal((70, 33)).astype("float32")
    stored = numpy_helper.from_array(np.ascontiguousarray(weight.T) if flipped else weight, "w")
    bias = numpy_helper.from_array(draw.standard_normal(33).astype("float32"), "b")
    path = onnx_graph(
        tmp_path / "m.onnx",
        [helper.make_node("Gemm", ["x", "w", "b"], ["y"], name="dense", transB=int(flipped))],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 70])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 33])],
        [stored, bias],
    )
    made, facts = apply(path, "int4-weight:block=16", host)
    used = nets.run(made.target, np.eye(70, dtype="float32")) - numpy_helper.to_array(bias)
    measured = 10 * np.log10(np.square(weight).sum() / np.square(used - weight).sum())
    assert facts["sqnr_db"]["w"] == pytest.approx(measured, abs=0.1)
    assert measured > 20
    assert made.size_bytes < 0.4 * recognise(str(path)).size_bytes
    with pytest.raises(InputError, match="block=48 is no power of two"):
        apply(path, "int4-weight:block=48", host)


def test_clustering_leaves_n_values_and_shrinks_the_zip(net: Path, host: PluginHost) -> None:
    made, _ = apply(net, "cluster:n=8", host)
    with OnnxFile(made.path) as model:
        assert all(len(np.unique(model.array(w.name))) <= 8 for w in model.weights())
    source = recognise(str(net))
    assert made.size_compressed() < 0.5 * source.size_compressed()
    packed, _ = apply(net, "cluster:n=8,store=codebook", host)
    assert packed.size_bytes < 0.5 * source.size_bytes
    assert np.allclose(nets.run(packed.target, nets.samples()), nets.run(made.target, nets.samples()), atol=1e-5)


def test_pruned_zeros_survive_clustering(net: Path, host: PluginHost) -> None:
    made, _ = apply(net, "prune:amount=0.5+cluster:n=8", host)
    with OnnxFile(made.path) as model:
        values = model.array("branch_w")
    assert (values == 0).mean() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (nets.samples()[:, :, :4], r"calibration data of the wrong shape: sample 0 .* 3 × 8 × 8"),
        (np.where(np.arange(24)[:, None, None, None] == 5, np.nan, nets.samples()), "sample 5 of .* has NaN"),
    ],
)
def test_calibration_data_that_does_not_fit_is_refused(x: Any, said: str, net: Path, host: PluginHost) -> None:
    with pytest.raises(InputError, match=said):
        apply(net, "int8-static", host, dataset(net.parent, host, x.astype("float32")))
    assert not list(net.parent.glob("out/*"))


def test_an_excluded_node_stays_in_float_and_a_wrong_name_is_told(net: Path, host: PluginHost) -> None:
    data = dataset(net.parent, host)
    made, facts = apply(net, "int8-static:exclude=dense", host, data)
    with OnnxFile(made.path) as model:
        assert "dense_w" in {w.name for w in model.weights()}
    assert facts["excluded"] == ["dense"]
    assert facts["samples"] == 24
    with pytest.raises(InputError, match="no node of the graph is named 'dens'") as raised:
        apply(net, "int8-static:exclude=dens", host, data)
    assert "dense" in (raised.value.remedy or "")


def test_the_layer_that_quantising_breaks_is_found_and_left_in_float(net: Path, host: PluginHost) -> None:
    """One class's weights are so large that a scale for all classes rounds the others' to nothing."""
    import onnx
    from onnx import numpy_helper

    x = nets.samples(40)
    model = onnx.load(str(net))
    named = {one.name: one for one in model.graph.initializer}
    values, bias = (numpy_helper.to_array(named[name]).copy() for name in ("dense_w", "dense_b"))
    values[0] = -1000 * np.abs(values[0])
    bias[1:] -= nets.run(net, x).mean(axis=0)[1:]  # so that each of the other classes is an answer to some
    named["dense_w"].CopyFrom(numpy_helper.from_array(values, "dense_w"))
    named["dense_b"].CopyFrom(numpy_helper.from_array(bias, "dense_b"))
    onnx.save(model, str(net))
    np.savez(net.parent / "own.npz", x=x, y=nets.run(net, x).argmax(axis=1))
    data = load_dataset(str(net.parent / "own.npz"), host)
    made, facts = apply(net, "int8-static:per_channel=false,exclude=auto,max_drop=0.1", host, data)
    assert facts["excluded"] == ["dense"]
    assert "dB when it alone is quantised" in facts["why"]["dense"]
    assert facts["search"]["by"] == "accuracy_drop"
    assert facts["search"]["tried"]["0"] > 0.1 >= facts["search"]["tried"]["1"]
    assert (nets.run(made.target, x).argmax(axis=1) == data.labels).mean() == 1 - facts["search"]["tried"]["1"]


def test_a_quantised_model_is_not_quantised_again(net: Path, host: PluginHost) -> None:
    data = dataset(net.parent, host)
    made, _ = apply(net, "int8-static", host, data)
    with pytest.raises(InputError, match="is quantised already"):
        apply(made.path, "int8-dynamic", host, data)


def test_operators_of_a_set_that_the_runtime_has_dropped_are_told_with_what_converts_them(
    tmp_path: Path, host: PluginHost
) -> None:
    """Set 6: what only changes weights stays of that set; what adds operators brings it up to date."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from edgeprof.compression.conductor import compress

    draw = np.random.default_rng(0)
    weights = {"w": draw.standard_normal((64, 32)).astype("f"), "b": draw.standard_normal(32).astype("f")}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="product"),
        helper.make_node("Add", ["a", "b"], ["y"], name="sum", broadcast=1, axis=1),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64])]
    inputs += [helper.make_tensor_value_info(name, TensorProto.FLOAT, v.shape) for name, v in weights.items()]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 32])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [numpy_helper.from_array(v, k) for k, v in weights.items()])
    source = tmp_path / "old.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 6)], ir_version=3), str(source))
    made = compress(recognise(str(source)), ["prune", "int8-weight"], host, tmp_path / "out")
    pruned, small = made["variants"]
    assert (pruned["status"], small["status"], small["reasons"]) == ("ok", "ok", [])
    remedy = pruned["reasons"][0]["remedy"]
    code = shlex.split(remedy.partition("Convert it: ")[2])[2]
    code = code.replace(str(tmp_path / "out" / "old.prune"), str(tmp_path / "old"))
    exec(code)  # the remedy itself, which must work
    x = draw.standard_normal((1, 64)).astype("f")
    answer = nets.run(tmp_path / "old-17.onnx", x)
    assert np.allclose(answer, x @ weights["w"] + weights["b"], atol=1e-4)
    assert np.abs(nets.run(tmp_path / "out" / small["model"]["path"], x) - answer).max() < 0.05 * np.abs(answer).max()


def test_an_old_file_whose_weights_are_inputs_too_can_be_changed(shared_data: Path, tmp_path: Path) -> None:
    """CNTK's MNIST: operator set 8, IR version 3."""
    host = PluginHost()
    source = tmp_path / "mnist.onnx"
    source.write_bytes((shared_data / "onnx-mnist" / "mnist.onnx").read_bytes())
    x = np.random.default_rng(0).uniform(0, 255, (1, 1, 28, 28)).astype("float32")
    for chain in ("int8-weight", "prune-structured:amount=0.25", "low-rank:energy=0.8", "fp16"):
        made, _ = apply(source, chain, host)
        assert nets.run(made.target, x).shape == (1, 10)


def test_a_dense_layer_behind_a_constant_reshape_is_a_weight_like_others(tmp_path: Path, host: PluginHost) -> None:
    """As CNTK wrote them; the vector stays beside its reshaped self, as another node takes it."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    w, v = rng.normal(size=(2, 4, 3)).astype("float32"), rng.normal(size=(3,)).astype("float32")
    path = onnx_graph(
        tmp_path / "old.onnx",
        [
            helper.make_node("Reshape", ["w", "shape"], ["dense"]),
            helper.make_node("Reshape", ["v", "row"], ["flat"]),
            helper.make_node("MatMul", ["x", "dense"], ["a"]),
            helper.make_node("Add", ["a", "v"], ["b"]),
            helper.make_node("Transpose", ["flat"], ["turned"]),
            helper.make_node("Mul", ["b", "turned"], ["y"]),
        ],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [
            numpy_helper.from_array(w, "w"),
            numpy_helper.from_array(v, "v"),
            numpy_helper.from_array(np.array([-1, 3]), "shape"),
            numpy_helper.from_array(np.array([0, 1]), "row"),
        ],
    )
    x = rng.normal(size=(5, 8)).astype("float32")
    made, facts = apply(path, "prune:amount=0.5", host)
    assert facts["zeros"] == 12
    magnitudes = np.abs(w.reshape(8, 3))
    kept = np.where(magnitudes > np.median(magnitudes), w.reshape(8, 3), 0)
    assert np.allclose(nets.run(made.target, x), (x @ kept + v) * v, atol=1e-5)


def test_weights_beside_the_file_are_read(tmp_path: Path, host: PluginHost) -> None:
    import onnx

    model = onnx.load(str(nets.convnet(tmp_path / "net.onnx")))
    (tmp_path / "external").mkdir()
    path = tmp_path / "external" / "net.onnx"
    onnx.save_model(model, str(path), save_as_external_data=True, location="net.bin", size_threshold=0)
    made, _ = apply(path, "prune:amount=0.01", host)
    x = nets.samples(2)
    assert np.allclose(nets.run(made.target, x), nets.run(path, x), atol=0.05)


def test_what_does_not_fit_into_one_file_goes_into_a_second_that_belongs_to_the_variant(
    net: Path, host: PluginHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two GiB are the limit of one; size and checksum are those of both files, which have the variant's name."""
    whole, _ = apply(net, "prune:amount=0.1", host)
    monkeypatch.setattr(onnx_file, "_LIMIT", 6000)
    monkeypatch.setattr(onnx_file, "_RESERVE", 1000)
    (net.parent / "out" / whole.path.name).unlink()
    made, _ = apply(net, "prune:amount=0.1", host)
    beside = made.path.with_name(made.path.name + ".data")
    assert [file.name for file in made.files] == [made.path.name, beside.name]
    assert made.path.stat().st_size < 6000
    assert made.size_bytes == made.path.stat().st_size + beside.stat().st_size
    x = nets.samples(3)
    assert np.array_equal(nets.run(made.target, x), nets.run(made.path, x))
    content = beside.read_bytes()
    beside.write_bytes(content[:-4] + b"\0\0\x80\x3f")
    assert recognise(made.target).sha256 != made.sha256
    beside.write_bytes(content)
    second, _ = apply(made.path, "fp16", host)
    assert np.allclose(nets.run(second.target, x), nets.run(made.target, x), atol=0.05)
    monkeypatch.undo()
    again, _ = apply(net, "prune:amount=0.1", host)
    assert again.sha256 == whole.sha256
    assert not beside.exists()


def test_a_weight_beyond_the_limit_of_a_message_is_never_part_of_one(
    net: Path, host: PluginHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    field = onnx_file._field

    def limited(proto: Any) -> bytes:
        content: bytes = field(proto)
        assert len(content) <= 3000, "protobuf writes no message that is larger"
        return content

    monkeypatch.setattr(onnx_file, "_LIMIT", 3000)
    monkeypatch.setattr(onnx_file, "_RESERVE", 1000)
    monkeypatch.setattr(onnx_file, "_field", limited)
    with OnnxFile(net) as model:
        assert max(len(model.proto(name).raw_data) for name in model.order) > 3000
        model.write(net.with_name("copy.onnx"), lambda name: [model.whole(name)])
    x = nets.samples(3)
    assert np.array_equal(nets.run(net.with_name("copy.onnx"), x), nets.run(net, x))


def test_weights_are_packed_into_four_bits_in_parts_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeprof_plugins.compressors.onnx import int4

    values = np.random.default_rng(0).standard_normal((40, 9)).astype("float32")
    at_once = int4._make_packer(16)(values)
    monkeypatch.setattr(int4, "_AT_ONCE", 2 * values.nbytes // 9)
    for whole, joined in zip(at_once, int4._make_packer(16)(values), strict=True):
        assert whole.dtype == joined.dtype
        assert np.array_equal(whole.reshape(-1), joined.reshape(-1))


def test_a_format_that_is_not_taken_names_what_would_convert_it(tmp_path: Path, host: PluginHost) -> None:
    from tests.models import tflite_double

    pytest.importorskip("ai_edge_litert")
    path = tflite_double(tmp_path / "double.tflite")
    with pytest.raises(InputError, match="low-rank takes onnx") as raised:
        apply(path, "low-rank", host)
    assert "tf2onnx" in (raised.value.remedy or "")
    assert "int8-dynamic" in (raised.value.remedy or "")
