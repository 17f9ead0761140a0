"""Variants of random networks against the same network with weights that are reconstructed here by their definition."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx
import onnxruntime
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from edgeprof.artifact import recognise
from edgeprof.compression.variant import make_variant, parse_chain
from edgeprof.errors import EdgeprofError
from edgeprof.evaluation.load import load_dataset
from edgeprof.plugins import PluginHost
from tests.plugins.compressors.onnx import places, random_nets
from tests.plugins.compressors.onnx.random_nets import Layer, Net, Plan, Step, build, plans

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    Array = npt.NDArray[Any]

HOST = PluginHost()
#: Each example runs ONNX Runtime several times; a plan says by itself what failed, so that none is shrunk.
QUICK = settings(max_examples=6, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])


def compress(path: Path, chain: str, data: Any = None) -> tuple[str, dict[str, Any]]:
    made, recipe = make_variant(
        recognise(str(path)), parse_chain(chain), HOST.of("compressors"), path.parent / "out", data,
        isolated=False, least_share=0.0,
    )  # fmt: skip
    return made.target, recipe[-1]["facts"]


def expect_refusal(path: Path, chain: str) -> None:
    with pytest.raises(EdgeprofError) as raised:
        compress(path, chain)
    assert not any(word in raised.value.message for word in ("Error:", "Traceback"))
    assert raised.value.remedy


def run(model: Any, feeds: dict[str, Array]) -> Array:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    given_model = model if isinstance(model, bytes) else str(model)
    session = onnxruntime.InferenceSession(given_model, options, providers=["CPUExecutionProvider"])
    answer: Array = session.run(None, feeds)[0]
    return answer


# --- what each method makes of one weight -----------------------------------------------------------------------------


def zeros_of_the_smallest(layer: Layer) -> Array:
    flat = layer.values.reshape(-1).copy()
    flat[np.argsort(np.abs(flat.astype(float)), kind="stable")[: round(0.6 * flat.size)]] = 0
    return flat.reshape(layer.values.shape)


def two_of_four(layer: Layer) -> Array | None:
    if layer.values.shape[layer.inner] % 4:
        return None
    moved = np.moveaxis(layer.values, layer.inner, -1)
    groups = moved.reshape(-1, 4).copy()
    for group in groups:
        group[np.argsort(np.abs(group.astype(float)), kind="stable")[:2]] = 0
    return np.moveaxis(groups.reshape(moved.shape), -1, layer.inner)


def rounded_to_127_steps(layer: Layer) -> Array:
    """Of each output channel; of recurrent layers each direction has its own."""
    axes = {layer.outputs} | ({0} if layer.op in {"LSTM", "GRU", "RNN"} else set())
    wide = layer.values.astype(np.float64)
    others = tuple(axis for axis in range(wide.ndim) if axis not in axes)
    scale = (np.abs(wide).max(axis=others, keepdims=True) / 127).astype(layer.values.dtype).astype(np.float64)
    return np.rint(wide / scale) * scale


def halved(layer: Layer) -> Array | None:
    return layer.values.astype(np.float16) if layer.values.dtype == np.float32 else None


def largest_factors(layer: Layer) -> Array | None:
    """By numpy's SVD: as many as keep half of the energy, where they are fewer numbers than the matrix."""
    if layer.op not in {"Conv", "Gemm", "MatMul"} or layer.group > 1 or layer.kind in {"left", "tied", "stack"}:
        return None
    matrix = layer.values.astype(np.float64).reshape(len(layer.values), -1)
    left, singular, right = np.linalg.svd(matrix, full_matrices=False)
    rank = int(np.searchsorted(np.cumsum(singular**2) / np.sum(singular**2), 0.5)) + 1
    if rank * sum(matrix.shape) >= matrix.size:
        return None
    return ((left[:, :rank] * singular[:rank]) @ right[:rank]).reshape(layer.values.shape)


#: Chain → what it makes of a weight (None where it leaves it), and how exactly the answer is that.
METHODS: dict[str, tuple[Any, float]] = {
    "prune:amount=0.6": (zeros_of_the_smallest, 1e-4),
    "prune-2:4": (two_of_four, 1e-4),
    "int8-weight": (rounded_to_127_steps, 1e-4),
    "low-rank:energy=0.5": (largest_factors, 1e-3),
    "fp16": (halved, 2e-2),
}


def expect_shares(facts: dict[str, Any], net: Net, changed: set[str]) -> None:
    """As counted by hand: numbers of the weights, and multiply-accumulates with them."""
    account = facts["coverage"]
    assert account["weights"]["total"] == net.size
    assert account["weights"]["changed"] == sum(net.layers[name].values.size for name in changed)
    assert account["macs"]["total"] == net.macs
    assert account["macs"]["changed"] == sum(net.layers[name].macs for name in changed)
    left = sum(entry["weights"] for entry in account["left"].values())
    assert left == account["weights"]["total"] - account["weights"]["changed"]


@pytest.mark.parametrize("chain", METHODS)
@settings(QUICK)
@given(plan=plans(kinds=("float32", "float32", "float64", "float16")), external=st.booleans())
def test_a_variant_answers_as_the_network_with_weights_reconstructed_by_hand(
    chain: str, plan: Plan, external: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    reconstruct, exactness = METHODS[chain]
    net = build(plan)
    source = net.save(tmp_path_factory.mktemp("net") / "net.onnx", external=external)
    wanted = {name: reconstruct(layer) for name, layer in net.layers.items()}
    wanted = {name: values for name, values in wanted.items() if values is not None}
    if not wanted:
        expect_refusal(source, chain)
        return
    variant, facts = compress(source, chain)
    if chain == "fp16":  # biases and the like become half as wide too
        assert facts["coverage"]["weights"]["share"] == facts["coverage"]["macs"]["share"] == 1
    else:
        expect_shares(facts, net, set(wanted))
    answer, expected = run(variant, net.feeds), run(build(plan, wanted).model.SerializeToString(), net.feeds)
    assert answer.shape == expected.shape
    assert answer.dtype == expected.dtype
    exactness = max(exactness, 3e-2) if plan.kind == "float16" else exactness
    difference = np.abs(answer.astype(float) - expected.astype(float)).max()
    assert difference <= exactness * np.abs(expected.astype(float)).max() + 1e-6


def dequantised(path: str) -> dict[tuple[int, ...], list[Array]]:
    """The 8-bit weights of a file times their scales, by shape; (n, k) and its transpose are one shape."""
    found: dict[tuple[int, ...], list[Array]] = {}
    graph = onnx.load(path).graph
    constants = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and constants.get(node.input[0], np.zeros(1)).dtype == np.int8:
            codes, scale, zero = (constants[name] for name in node.input)
            assert not zero.any()
            shape = [1] * codes.ndim
            if scale.ndim:
                shape[next((a.i for a in node.attribute if a.name == "axis"), 1)] = -1
            found.setdefault(tuple(sorted(codes.shape)), []).append(codes * scale.reshape(shape).astype(float))
    return found


@settings(QUICK)
@given(
    plan=plans(flat=("matmul", "gemm", "gemm turned"), spatial=(0, 0, 2), images=("conv", "conv 1×1", "grouped"),
               places=("initializer", "input", "constant", "identity", "transpose", "sparse", "function")),
    per_channel=st.booleans(),
)  # fmt: skip
def test_static_int8_stores_each_weight_within_half_a_step_and_answers_nearly_as_before(
    plan: Plan, per_channel: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    net = build(plan)
    folder = tmp_path_factory.mktemp("net")
    source = net.save(folder / "net.onnx")
    x = np.random.default_rng(1).standard_normal((32, *net.feeds["x"].shape[1:])).astype(np.float32)
    x[: len(net.feeds["x"])] = net.feeds["x"]
    np.savez(folder / "x.npz", x=x)
    chain = f"int8-static:reduce_range=true,per_channel={per_channel}"
    variant, facts = compress(source, chain, load_dataset(str(folder / "x.npz"), HOST))
    expect_shares(facts, net, set(net.layers))
    stored = dequantised(variant)
    for layer in net.layers.values():
        scale = 0.5 if layer.op == "Gemm" and plan.seed % 3 == 0 else 1.0  # alpha belongs to the weights
        values = np.sort(layer.values.astype(float).reshape(-1) * scale)
        step = np.abs(values).max() / 63  # 7 bits
        same = stored[tuple(sorted(layer.values.shape))]
        assert any((np.abs(np.sort(one.reshape(-1)) - values) <= 0.51 * step).all() for one in same)
    constants = {one.name: numpy_helper.to_array(one) for one in onnx.load(variant).graph.initializer}
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    assert float(constants["x_scale"]) == pytest.approx((high - low) / 255, rel=1e-5)
    assert int(constants["x_zero_point"]) == round(-low / ((high - low) / 255))
    before, after = run(source, net.feeds), run(variant, net.feeds)
    assert after.shape == before.shape
    assert np.abs(after - before).max() < 0.15 * np.abs(before).max()


@settings(QUICK)
@given(plan=plans(flat=("matmul", "gemm", "gemm turned", "stack", "lstm"), spatial=(0,)), external=st.booleans())
def test_dynamic_int8_reaches_every_dense_layer_and_lstm_and_answers_nearly_as_before(
    plan: Plan, external: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    net = build(plan)
    source = net.save(tmp_path_factory.mktemp("net") / "net.onnx", external=external)
    scaled = {name for name, layer in net.layers.items() if layer.op == "Gemm" and plan.seed % 3 == 0}
    if scaled == set(net.layers):
        expect_refusal(source, "int8-dynamic:reduce_range=true")
        return
    variant, facts = compress(source, "int8-dynamic:reduce_range=true")
    expect_shares(facts, net, set(net.layers) - scaled)
    before, after = run(source, net.feeds), run(variant, net.feeds)
    assert after.shape == before.shape
    assert 0 < np.abs(after - before).max() < 0.15 * np.abs(before).max()


def nibbles(packed: Array) -> Array:
    """Low ones first."""
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:-1], -1).astype(float)


@settings(QUICK)
@given(plan=plans(flat=("matmul", "gemm", "gemm turned"), spatial=(0,)), external=st.booleans())
def test_weights_of_4_bits_are_within_half_a_step_of_their_block(
    plan: Plan, external: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    net = build(plan)
    source = net.save(tmp_path_factory.mktemp("net") / "net.onnx", external=external)
    scaled = {name for name, layer in net.layers.items() if layer.op == "Gemm" and plan.seed % 3 == 0}
    if scaled == set(net.layers):
        expect_refusal(source, "int4-weight:block=16")
        return
    variant, facts = compress(source, "int4-weight:block=16")
    expect_shares(facts, net, set(net.layers) - scaled)
    model = onnx.load(variant)
    constants = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    stored = []
    for node in random_nets.every_node(model.graph):
        if node.op_type == "MatMulNBits":
            codes, scales, zeros = (constants[name] for name in node.input[1:4])
            rows, blocks = codes.shape[:2]
            scale = scales.reshape(rows, blocks, 1).astype(float)
            zero = nibbles(zeros.reshape(rows, -1))[:, :blocks, None]
            inner = next(a.i for a in node.attribute if a.name == "K")
            stored.append(((nibbles(codes) - zero) * scale, np.broadcast_to(scale, (rows, blocks, 16)), inner))
    wanted = {}
    for name, layer in net.layers.items():
        if name in scaled:
            continue
        rows_first = layer.values if layer.inner == 1 else layer.values.T
        for values, step, inner in stored:
            flat = values.reshape(len(values), -1)[:, :inner]
            step = step.reshape(len(values), -1)[:, :inner]  # noqa: PLW2901 - as the values
            # Zero itself has a code, so that the range may miss half a step at either end.
            if flat.shape == rows_first.shape and (np.abs(flat - rows_first) <= 1.01 * np.abs(step)).all():
                wanted[name] = flat if layer.inner == 1 else flat.T
    assert set(wanted) == set(net.layers) - scaled
    answer, expected = run(variant, net.feeds), run(build(plan, wanted).model.SerializeToString(), net.feeds)
    assert np.abs(answer - expected).max() <= 1e-3 * np.abs(expected).max()


@settings(QUICK)
@given(plan=plans(kinds=("float32", "float64"), places=("initializer", "constant", "identity", "branch", "function")))
def test_a_codebook_answers_as_the_weights_that_it_stands_for(
    plan: Plan, tmp_path_factory: pytest.TempPathFactory
) -> None:
    net = build(plan)
    source = net.save(tmp_path_factory.mktemp("net") / "net.onnx")
    values, facts = compress(source, "cluster:n=8")
    table, other = compress(source, "cluster:n=8,store=codebook")
    expect_shares(facts, net, set(net.layers))
    assert facts["coverage"] == other["coverage"]
    assert np.array_equal(run(values, net.feeds), run(table, net.feeds))


@pytest.mark.parametrize("kind", ["gemm", "gemm turned"])
@pytest.mark.parametrize("seed", [0, 3, 6, 9], ids=["n", "1 × 1", "1 × n", "1"])
def test_factors_of_a_gemm_are_kept_by_static_int8(kind: str, seed: int, tmp_path: Path) -> None:
    """ONNX Runtime's quantiser forgets alpha, and looks at a bias of one value as at one of n."""
    net = build(Plan((Step(kind, "initializer", 12),), seed=seed))
    source = net.save(tmp_path / "net.onnx")
    x = np.random.default_rng(1).standard_normal((32, 16)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    variant, _ = compress(source, "int8-static:reduce_range=true", load_dataset(str(tmp_path / "x.npz"), HOST))
    before, after = run(source, {"x": x[:4]}), run(variant, {"x": x[:4]})
    assert np.abs(after - before).max() < 0.06 * np.abs(before).max()


def attention(path: Path) -> Path:
    """q = x·Wq, k = x·Wk, s = q·kᵀ, t = s·x, y = t·Wo: three layers and two products of activations."""
    nodes = [
        places.node("MatMul", ["x", "wq"], ["q"]),
        places.node("MatMul", ["x", "wk"], ["k"]),
        places.node("Transpose", ["k"], ["kt"], perm=[1, 0]),
        places.node("MatMul", ["q", "kt"], ["s"]),
        places.node("MatMul", ["s", "x"], ["t"]),
        places.node("MatMul", ["t", "wo"], ["y"]),
    ]
    weights = {name: places.draw(seed, 16, 16) for seed, name in enumerate(("wq", "wk", "wo"))}
    onnx.save(places.model(nodes, [places.info("x", 8, 16)], weights), str(path))
    return path


def executed(variant: str, folder: Path) -> dict[str, str]:
    """Node → operator, of the graph that ONNX Runtime really runs."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(folder / "executed.onnx")
    onnxruntime.InferenceSession(variant, options, providers=["CPUExecutionProvider"])
    return {node.name: node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node}


#: Method → what runs in place of a MatMul that it changed; None where the operator's name stays.
EXCLUDING = {"int8-static": "QLinearMatMul", "int8-dynamic": None, "int4-weight": "MatMulNBits", "fp16": None}


@pytest.mark.parametrize("method", EXCLUDING)
@pytest.mark.parametrize(
    ("named", "node"),
    [("MatMul_q", "MatMul_q"), ("MatMul_s", "MatMul_s"), ("q", "MatMul_q"), ("MatMul_t|", "MatMul_t")],
)
def test_an_excluded_node_runs_in_float_and_is_told_as_excluded(
    method: str, named: str, node: str, tmp_path: Path
) -> None:
    """Also a product of two activations, which what is quantised around it would draw in."""
    source = attention(tmp_path / "net.onnx")
    x = np.random.default_rng(0).standard_normal((32, 16)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    data = load_dataset(str(tmp_path / "x.npz"), HOST) if method == "int8-static" else None
    variant, facts = compress(source, f"{method}:exclude={named}", data)
    assert facts["excluded"] == [node]
    assert facts["coverage"]["left"]["excluded"]["names"] == [node]
    _, without = compress(source, method, data)
    layer_macs = {"MatMul_q": 8 * 16 * 16, "MatMul_s": 8 * 8 * 16, "MatMul_t": 8 * 8 * 16}[node]
    weighted = node == "MatMul_q" or method in {"int8-static", "fp16"}  # the others change no products of activations
    difference = without["coverage"]["macs"]["changed"] - facts["coverage"]["macs"]["changed"]
    assert difference == (layer_macs if weighted else 0)
    operators = executed(variant, tmp_path)
    assert next(op for name, op in operators.items() if name.startswith(node) and "float" not in name) in {
        "MatMul",
        "FusedMatMul",
    }
    if EXCLUDING[method] is not None:
        assert operators["MatMul_k"] == EXCLUDING[method]
