"""Each method on each kind of layer, wherever its weights lie, against a reconstruction by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx
import onnxruntime

from edgeprof.artifact import recognise
from edgeprof.compression.variant import make_variant, parse_chain
from edgeprof.errors import EdgeprofError
from edgeprof.plugins import PluginHost
from edgeprof_plugins.compressors.onnx.file import OnnxFile
from tests.plugins.compressors.onnx import places

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    Array = npt.NDArray[Any]


@pytest.fixture(scope="module")
def host() -> PluginHost:
    return PluginHost()


def compress(path: Path, chain: str, host: PluginHost) -> tuple[Any, dict[str, Any]]:
    made, recipe = make_variant(
        recognise(str(path)), parse_chain(chain), host.of("compressors"), path.parent / "out", isolated=False
    )
    return made, recipe[-1]["facts"]


def run(path: Any, feeds: dict[str, Array]) -> Array:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    answer: Array = session.run(None, feeds)[0]
    return answer


def values_of(path: Any) -> list[Array]:
    """The weights of a file, flat and sorted, so that names and axes do not matter."""
    with OnnxFile(path) as model:
        return [np.sort(model.array(one.name).astype(np.float64).reshape(-1)) for one in model.weights()]


def pruned(values: Array, amount: float) -> Array:
    """The smallest become zero; of equal ones the first. By sorting, not by counting."""
    flat = values.reshape(-1).copy()
    count = round(amount * flat.size)
    flat[np.argsort(np.abs(flat.astype(np.float64)), kind="stable")[:count]] = 0
    return flat


def expect_shares(facts: dict[str, Any], net: places.Net) -> None:
    account = facts["coverage"]
    size = sum(values.size for values in net.weights.values())
    assert account["weights"]["changed"] == size
    assert account["weights"]["total"] == size + net.others
    assert account["macs"]["changed"] == account["macs"]["total"] == net.macs
    assert account["families"][net.family]["weights"] == [size, size]


@pytest.mark.parametrize("name", places.NETS)
@pytest.mark.parametrize("external", [False, True], ids=["inside", "external"])
def test_pruned_weights_are_those_that_sorting_finds(
    name: str, external: bool, tmp_path: Path, host: PluginHost
) -> None:
    if external and name == "weights behind a Reshape":
        pytest.skip("ONNX Runtime itself reads no external shape")
    net = places.NETS[name](5)
    source = net.save(tmp_path / "net.onnx", external=external)
    made, facts = compress(source, "prune:amount=0.6", host)
    expected = sorted([np.sort(pruned(v, 0.6).astype(np.float64)).tolist() for v in net.weights.values()])
    assert sorted(values.tolist() for values in values_of(made.path)) == expected
    expect_shares(facts, net)
    assert run(made.target, net.feeds).shape == run(source, net.feeds).shape


@pytest.mark.parametrize("name", places.NETS)
def test_one_threshold_for_all_layers_is_that_of_all_weights_sorted(
    name: str, tmp_path: Path, host: PluginHost
) -> None:
    net = places.NETS[name](6)
    made, _ = compress(net.save(tmp_path / "net.onnx"), "prune:amount=0.6,scope=global", host)
    everything = np.concatenate([values.reshape(-1).astype(np.float64) for values in net.weights.values()])
    found = np.concatenate(values_of(made.path))
    assert np.count_nonzero(found == 0) == round(0.6 * everything.size)
    assert np.abs(found[found != 0]).min() >= np.sort(np.abs(everything))[round(0.6 * everything.size) - 1]


@pytest.mark.parametrize("name", places.NETS)
def test_clustered_weights_are_each_the_nearest_of_n_values(name: str, tmp_path: Path, host: PluginHost) -> None:
    net = places.NETS[name](7)
    source = net.save(tmp_path / "net.onnx")
    made, facts = compress(source, "cluster:n=8", host)
    before = {values.size: values for values in values_of(source)}
    for shared in values_of(made.path):
        codes = np.unique(shared)
        assert len(codes) <= 8
        if len([v for v in net.weights.values() if v.size == shared.size]) == 1:
            distances = np.abs(before[shared.size][:, None] - codes).min(axis=1)
            assert (np.abs(before[shared.size] - shared) <= distances + 2e-3).all()
    expect_shares(facts, net)


@pytest.mark.parametrize("name", places.NETS)
def test_weights_in_8_bits_are_within_half_a_step_of_their_channel(name: str, tmp_path: Path, host: PluginHost) -> None:
    net = places.NETS[name](8)
    source = net.save(tmp_path / "net.onnx")
    made, facts = compress(source, "int8-weight", host)
    expect_shares(facts, net)
    before, after = run(source, net.feeds), run(made.target, net.feeds)
    assert before.dtype == after.dtype
    assert np.abs(after - before).max() < 0.05 * np.abs(before).max()
    with OnnxFile(source) as old, OnnxFile(made.path) as new:
        for one in old.weights():
            values, codes = old.array(one.name).astype(np.float64), new.array(f"{one.name}_int8").astype(np.float64)
            scale = new.array(f"{one.name}_scale").astype(np.float64)
            assert (np.abs(values - codes * scale) <= scale * 0.501 + 1e-6).all()


CHAINS = ["prune", "prune-2:4", "cluster", "int8-weight", "int4-weight", "fp16", "int8-dynamic", "low-rank:energy=0.5"]


@pytest.mark.parametrize("name", places.NETS)
@pytest.mark.parametrize("chain", CHAINS)
def test_a_variant_runs_in_the_same_shapes_or_is_refused_with_a_reason(
    name: str, chain: str, tmp_path: Path, host: PluginHost
) -> None:
    net = places.NETS[name](9)
    source = net.save(tmp_path / "net.onnx")
    before = run(source, net.feeds)
    try:
        made, facts = compress(source, chain, host)
    except EdgeprofError as error:
        refused = error.message
    else:
        refused = ""
    if refused:
        assert not any(word in refused for word in ("Error:", "Traceback"))
        return
    account = facts["coverage"]
    assert max(account["weights"]["share"], account["macs"]["share"]) > 0.01
    after = run(made.target, net.feeds)
    assert after.shape == before.shape
    assert after.dtype == before.dtype
    assert not np.array_equal(after, before)
    if chain in {"fp16", "int8-dynamic", "int8-weight"}:
        assert np.abs(after.astype(np.float64) - before).max() < 0.2 * np.abs(before).max()


def test_every_tensor_that_a_method_does_not_cut_keeps_its_rank_and_shape(tmp_path: Path, host: PluginHost) -> None:
    """A scalar index stays a scalar: numpy's ascontiguousarray makes a vector of it."""
    draw = places.draw
    source = tmp_path / "token.onnx"
    weights = {
        "w": draw(1, 16, 3, 4, 4),
        "w1": draw(2, 32, 16, 1, 1),
        "w2": draw(3, 24, 32, 1, 1),
        "h": draw(4, 24, 10),
    }
    constants = {"zero": np.array(0), "shape": np.array([0, 24, 16]), "half": np.array(0.5, np.float32)}
    nodes = [
        places.node("Conv", ["x", "w"], ["c"], strides=[4, 4]),
        places.node("Conv", ["c", "w1"], ["d"]),
        places.node("Relu", ["d"], ["r"]),
        places.node("Mul", ["r", "half"], ["m"]),
        places.node("Conv", ["m", "w2"], ["e"]),
        places.node("Reshape", ["e", "shape"], ["t"]),
        places.node("Transpose", ["t"], ["u"], perm=[0, 2, 1]),
        places.node("Gather", ["u", "zero"], ["k"], axis=1),
        places.node("MatMul", ["k", "h"], ["y"]),
    ]
    onnx.save(places.model(nodes, [places.info("x", "n", 3, 16, 16)], {**weights, **constants}), str(source))
    x = draw(5, 2, 3, 16, 16)
    for chain in [*CHAINS, "prune-structured"]:
        made, _ = compress(source, chain, host)
        assert run(made.target, {"x": x}).shape == (2, 10)
        with OnnxFile(made.path) as model:
            ranks = {name: len(model.proto(name).dims) for name in model.order if name in {**weights, **constants}}
        assert ranks == {name: np.ndim({**weights, **constants}[name]) for name in ranks}
        assert chain == "fp16" or ranks["zero"] == ranks["half"] == 0


def test_a_second_pruning_that_finds_its_zeros_there_already_is_failed(tmp_path: Path, host: PluginHost) -> None:
    source = places.dense(1).save(tmp_path / "net.onnx")
    with pytest.raises(EdgeprofError, match="as many zeros already") as raised:
        compress(source, "prune:amount=0.5+prune:amount=0.4", host)
    assert getattr(raised.value, "code", "") == "changed_nothing"


def test_a_method_that_reaches_a_hundredth_of_the_model_is_failed_and_says_what_it_left(
    tmp_path: Path, host: PluginHost
) -> None:
    """ResNet50's last layer in small: 1 part in 300 of the weights, 1 in 30,000 of the arithmetic."""
    nodes = [
        places.node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        places.node("GlobalAveragePool", ["c"], ["p"]),
        places.node("Flatten", ["p"], ["f"]),
        places.node("MatMul", ["f", "h"], ["y"]),
    ]
    weights = {"w": places.draw(1, 64, 64, 3, 3), "h": places.draw(2, 64, 2)}
    source = tmp_path / "net.onnx"
    onnx.save(places.model(nodes, [places.info("x", "n", 64, 16, 16)], weights), str(source))
    with pytest.raises(
        EdgeprofError, match=r"0\.3 % of the weights and 0\.001 % .* Conv_c \(convolutions stay"
    ) as raised:
        compress(source, "int8-dynamic", host)
    assert "int8-static" in (raised.value.remedy or "")
