"""Every next step that ``edgeprof diagnose`` prints is run as printed, and must help.

The figures that are compared are counted or computed (shares, dB, bytes, agreement), never timed.
"""

from __future__ import annotations

import ast
import functools
import io
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime.quantization")  # compressors and workers are forks, which import nothing again

from onnx import TensorProto, helper, numpy_helper  # noqa: E402 - after what it needs is known to be here

from edgeprof import diagnosis  # noqa: E402 - as above
from edgeprof.compression.target import native_architecture  # noqa: E402 - as above
from edgeprof.diagnosis import noise  # noqa: E402 - as above
from edgeprof.diagnosis.evidence import instructions  # noqa: E402 - as above
from edgeprof.roots import Roots  # noqa: E402 - as above
from tests import models  # noqa: E402 - as above
from tests.plugins.compressors.nets import convnet, samples  # noqa: E402 - as above
from tests.profiler.cli.in_process import verb  # noqa: E402 - as above

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.profiler.cli.in_process import Verb

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_workers")]

#: Checks without a next step that could be run here → the reason.
NO_STEP = {
    "instructions": "says what another processor would need",
    "launch-bound": "says what not to expect of compression",
    "compiled-part": "advises another network, or another compiler",
    "microcontroller": "says what the model needs",
    "library-call": "advises what is the default",
    "library-memory": "advises what is not the default",
    "memory-only": "says what the variant is good for",
    "frame-rate": "names a stage; what varies its model is tried in tests/profiler/study/test_stages.py",
    "stages": "says how the stages compare",
    "estimated-cycles": "says what a compiler estimates",
    "accuracy": "is printed by bench, and sends to diagnose",
}


@pytest.fixture
def edgeprof(capfd: pytest.CaptureFixture[str]) -> Verb:
    return verb(capfd, "diagnose")


def findings(edgeprof: Verb, *words: object) -> dict[str, dict[str, Any]]:
    found = json.loads(edgeprof(*words, "--json", "-q").stdout)
    return {finding["check"]: finding for finding in found["findings"]} | {"facts": found["facts"]}


def node(op: str, inputs: list[str], outputs: list[str], **attributes: Any) -> Any:
    return helper.make_node(op, inputs, outputs, name=f"node_{outputs[0]}", **attributes)


def weight(name: str, *shape: int, seed: int = 0) -> Any:
    drawn = np.random.default_rng(seed).standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
    return numpy_helper.from_array(drawn.astype("float32"), name)


def value(name: str, *shape: int | str | None) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


# --- models, each with what is to be noticed --------------------------------------------------------------------------


def attention(folder: Path) -> Path:
    """Write a model in which 5/6 of the products are of two activations, which int8-dynamic leaves in floats."""
    nodes = [
        node("MatMul", ["x", "w"], ["q"]),
        node("Transpose", ["q"], ["t"], perm=[0, 2, 1]),
        node("MatMul", ["q", "t"], ["s"]),
        node("Softmax", ["s"], ["p"], axis=-1),
        node("MatMul", ["p", "q"], ["y"]),
    ]
    shape = (1, 64, 24)
    return models.onnx_graph(
        folder / "net.onnx", nodes, [value("x", *shape)], [value("y", *shape)], [weight("w", 24, 24)]
    )


def open_sizes(folder: Path) -> Path:
    nodes = [node("Conv", ["x", "w"], ["c"]), node("GlobalAveragePool", ["c"], ["g"]), node("Flatten", ["g"], ["f"]),
             node("MatMul", ["f", "v"], ["y"])]  # fmt: skip
    weights = [weight("w", 16, 3, 3, 3), weight("v", 16, 4)]
    shape = ("n", 3, "height", "width")
    return models.onnx_graph(folder / "net.onnx", nodes, [value("x", *shape)], [value("y", "n", 4)], weights)


def residual(folder: Path) -> Path:
    return convnet(folder / "net.onnx")


def with_idle_channels(folder: Path) -> Path:
    model = onnx.load(str(residual(folder)))
    for tensor in model.graph.initializer:
        if tensor.name in {"branch_w", "point_w"}:
            values = numpy_helper.to_array(tensor).copy()
            values[: len(values) * 2 // 3] = 0
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(model, str(folder / "net.onnx"))
    return folder / "net.onnx"


def of_odd_widths(folder: Path) -> Path:
    nodes = [node("Conv", ["x", "a"], ["p"]), node("Relu", ["p"], ["q"]), node("Conv", ["q", "b"], ["r"]),
             node("Relu", ["r"], ["s"]), node("GlobalAveragePool", ["s"], ["g"]), node("Flatten", ["g"], ["f"]),
             node("MatMul", ["f", "v"], ["y"])]  # fmt: skip
    weights = [weight("a", 29, 3, 3, 3), weight("b", 43, 29, 3, 3, seed=1), weight("v", 43, 4, seed=2)]
    return models.onnx_graph(folder / "net.onnx", nodes, [value("x", "n", 3, 8, 8)], [value("y", "n", 4)], weights)


def of_uneven_channels(folder: Path) -> Path:
    """Write a model whose channels have weights that differ by a factor of 1000, but the same effect on the output."""
    scale = np.logspace(-3, 0, 16).astype("float32")
    kernel = numpy_helper.to_array(weight("w", 16, 3, 3, 3)) * scale.reshape(-1, 1, 1, 1)
    after = numpy_helper.to_array(weight("v", 16, 4, seed=1)) / scale.reshape(-1, 1)
    nodes = [node("Conv", ["x", "w"], ["c"]), node("GlobalAveragePool", ["c"], ["g"]), node("Flatten", ["g"], ["f"]),
             node("Mul", ["f", "even"], ["e"]), node("MatMul", ["e", "v"], ["y"])]  # fmt: skip
    even = (1 / scale).reshape(1, -1)
    weights = [numpy_helper.from_array(one.astype("float32"), name)
               for name, one in (("w", kernel), ("v", after * scale.reshape(-1, 1)), ("even", even))]  # fmt: skip
    return models.onnx_graph(folder / "net.onnx", nodes, [value("x", "n", 3, 8, 8)], [value("y", "n", 4)], weights)


def dense(folder: Path) -> Path:
    nodes = [node("MatMul", ["x", "a"], ["p"]), node("Relu", ["p"], ["q"]), node("MatMul", ["q", "b"], ["y"])]
    weights = [weight("a", 64, 128), weight("b", 128, 8, seed=1)]
    return models.onnx_graph(folder / "net.onnx", nodes, [value("x", "n", 64)], [value("y", "n", 8)], weights)


def torch_program(folder: Path, *, training: bool = False) -> Path:
    path = folder / "net.pt2"
    path.write_bytes(exported(training))
    return path


@functools.cache
def exported(training: bool) -> bytes:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3), torch.nn.BatchNorm2d(16), torch.nn.ReLU(), torch.nn.Flatten(),
        torch.nn.Linear(16 * 36, 4),
    ).train(training)  # fmt: skip
    batch = ({0: torch.export.Dim("batch", min=1)},)
    file = io.BytesIO()
    torch.export.save(torch.export.export(net, (torch.rand(2, 3, 8, 8),), dynamic_shapes=batch), file)
    return file.getvalue()


def tflite(folder: Path) -> Path:
    pytest.importorskip("ai_edge_quantizer")
    from tests.plugins.compressors.tflite import places

    return places.dense(0).save(folder / "net.tflite")


# --- data -------------------------------------------------------------------------------------------------------------


def pictures(_: Path, count: int = 24) -> dict[str, Any]:
    return {"x": samples(count), "y": np.arange(count) % 4}


def many_pictures(path: Path) -> dict[str, Any]:
    return pictures(path, noise.SAMPLES)


def with_an_outlier(path: Path) -> dict[str, Any]:
    data = pictures(path)
    data["x"][1, 0, 3, 3] = 300
    return data


def rows(_: Path) -> dict[str, Any]:
    return {"x": np.random.default_rng(3).standard_normal((24, 64)).astype("float32"), "y": np.arange(24) % 8}


def sequences(_: Path) -> dict[str, Any]:
    return {"x": np.random.default_rng(3).standard_normal((24, 64, 24)).astype("float32")}


def places_rows(path: Path) -> dict[str, Any]:
    from ai_edge_litert.interpreter import Interpreter

    ((name, shape),) = [(one["name"], one["shape"]) for one in Interpreter(str(path)).get_input_details()]
    drawn = np.random.default_rng(3).standard_normal((24, *shape[1:])).astype("float32")
    return {name: drawn}  # more samples than fit in the model's batch, which is fixed


class Trial(NamedTuple):
    """A problem, and the finding whose next step is tried.

    Attributes:
        check: The finding.
        net: Writes the model.
        chain: The chain of compressors whose variant is diagnosed; "" for the model itself.
        rises: Whether the step makes the finding's number rise (True) or fall (False), or the finding vanish (None).
        data: The samples, if the problem shows only with particular ones.
        fact: A figure of ``facts`` that must fall, if the finding has no number.
        gone: Another finding with the same next step, which the step removes.
    """

    check: str
    net: Callable[[Path], Path]
    chain: str
    rises: bool | None
    data: Callable[[Path], dict[str, Any]] | None = None
    fact: str | None = None
    gone: str | None = None


WIDE = "int8-static:method=percentile,percentile=90"
OTHER = {"arm": "x86", "x86": "arm"}
TRIALS = {
    "a no-op": Trial("int8-share", residual, "int8-dynamic", rises=True),
    "islands of floats": Trial("int8-share", attention, "int8-dynamic", rises=True, data=sequences),
    "scattered zeros": Trial("sparsity", residual, "prune:amount=0.6", rises=False, fact="macs"),
    "zeros before rounding": Trial("sparsity", residual, "prune:amount=0.6+fp16", rises=False, fact="macs"),
    "idle channels": Trial("sparsity", with_idle_channels, "", rises=False, fact="macs"),
    "16-bit activations": Trial("kernels", tflite, "int8-static:activations=int16", rises=None, data=places_rows),
    "ranges that cut": Trial("sqnr", residual, WIDE, rises=True, data=pictures, gone="clipping"),
    "an outlier": Trial("dead-range", residual, "int8-static", rises=False, data=with_an_outlier),
    "few samples": Trial(
        "calibration", residual, "int8-static:samples=2", rises=True, data=many_pictures, gone="classes"
    ),
    "one scale for all channels": Trial(
        "outputs", of_uneven_channels, "int8-static:per_channel=false", rises=True, data=pictures
    ),
    "too many zeros": Trial("outputs", residual, "prune:amount=0.9", rises=True, data=pictures),
    "too low a rank": Trial("outputs", dense, "low-rank:rank=1", rises=True, data=rows),
    "too few values": Trial("agreement", residual, "cluster:n=2", rises=True, data=pictures),
    "saturation": Trial("saturation", residual, "int8-static:reduce_range=false", rises=None, data=pictures),
    "not fused": Trial("batch-norms", torch_program, "", rises=None),
    "odd widths": Trial("channels", of_odd_widths, "", rises=None),
    "odd widths in integers": Trial("channels", of_odd_widths, "int8-static", rises=None, data=pictures),
    "no smaller": Trial("size", residual, "prune:amount=0.02", rises=None),
}


@pytest.mark.timeout(600)  # programs are exported, quantised and run several times
@pytest.mark.parametrize("name", TRIALS)
def test_the_command_that_is_printed_runs_and_helps(edgeprof: Verb, tmp_path: Path, name: str) -> None:
    trial = TRIALS[name]
    if name == "saturation" and instructions(Roots()) != "":
        pytest.skip("this processor does not saturate: it has 8-bit dot products, or is no x86")
    path = trial.net(tmp_path)
    words: list[object] = ["--with", trial.chain] if trial.chain else []
    data = (trial.data or pictures)(path)
    np.savez(tmp_path / "data.npz", **data)
    if trial.data is not None:
        words += ["--dataset", tmp_path / "data.npz"]
    before = findings(edgeprof, path, *words)
    finding = before[trial.check]
    assert finding["status"] in {"fail", "warn"}
    command = finding["command"]
    assert command is not None, finding
    assert command[:5] == ["edgeprof", "diagnose", str(path), "--with", finding["chain"]]
    assert f"--with {finding['chain']}" in finding["fix"]
    after = findings(edgeprof, *[str(tmp_path / "data.npz") if word == "SPEC" else word for word in command[2:]])
    if trial.gone is not None:
        assert before[trial.gone]["chain"] == finding["chain"]
        assert trial.gone not in after or after[trial.gone]["status"] == "ok"
    if trial.fact is not None:
        assert after["facts"][trial.fact] < before["facts"][trial.fact]
    elif trial.rises is None:
        assert trial.check not in after or after[trial.check]["status"] == "ok"
    else:
        assert (after[trial.check]["number"] > finding["number"]) == trial.rises


def test_what_was_calibrated_on_other_data_is_made_again_with_the_data_at_hand(
    capfd: pytest.CaptureFixture[str], edgeprof: Verb, tmp_path: Path
) -> None:
    path = residual(tmp_path)
    np.savez(tmp_path / "data.npz", **pictures(path))
    words = [path, "--with", "int8-static", "-o", tmp_path / "made", "--dataset", tmp_path / "data.npz"]
    verb(capfd, "compress")(*words, "--preprocess", "scale=0.01", "-q")
    made = tmp_path / "made" / "net.int8-static.onnx"
    more = ["--baseline", path, "--dataset", tmp_path / "data.npz", "--measure", "0.1"]
    before = findings(edgeprof, made, *more)
    for check in ("preprocessing", "clipping", "sqnr"):
        assert before[check]["status"] in {"fail", "warn"}
        assert before[check]["chain"] == "int8-static"
    after = findings(edgeprof, *before["preprocessing"]["command"][2:])
    assert "preprocessing" not in after
    assert "clipping" not in after
    assert after["sqnr"]["number"] > before["sqnr"]["number"]


def test_sizes_that_are_open_are_given_as_it_is_said(edgeprof: Verb, tmp_path: Path) -> None:
    path = open_sizes(tmp_path)
    before = findings(edgeprof, path, "--with", "int8-dynamic")["int8-share"]
    assert before["status"] == "unknown"
    assert all(flag in before["fix"] for flag in ("--input", "--input-data", "--dataset"))
    np.savez(tmp_path / "data.npz", x=np.zeros((1, 3, 20, 30), "float32"))
    shares = [
        findings(edgeprof, path, "--with", "int8-dynamic", *more)["int8-share"]["number"]
        for more in (
            ["--input", "x=1x3x20x30"],
            ["--input-data", tmp_path / "data.npz"],
            ["--dataset", tmp_path / "data.npz"],
        )
    ]
    convolution, product = 18 * 28 * 16 * 27, 16 * 4
    assert shares == [pytest.approx(product / (convolution + product))] * 3


@pytest.mark.timeout(600)  # as above
def test_what_was_made_for_another_engine_is_made_for_this_one(edgeprof: Verb, tmp_path: Path) -> None:
    path = torch_program(tmp_path)
    np.savez(tmp_path / "data.npz", x=samples(16))
    chain = f"int8-static:backend={OTHER[native_architecture()]}"
    before = findings(edgeprof, path, "--with", chain, "--dataset", tmp_path / "data.npz")
    assert before["engine"]["status"] == before["int8-share"]["status"] == "fail"
    assert "engine" not in findings(edgeprof, *before["engine"]["command"][2:])
    assert before["int8-share"]["chain"] == f"{chain}+export-onnx"


@pytest.mark.timeout(600)  # as above
def test_a_model_in_training_mode_is_exported_again_in_the_mode_that_is_named(edgeprof: Verb, tmp_path: Path) -> None:
    path = torch_program(tmp_path, training=True)
    np.savez(tmp_path / "data.npz", x=samples(8) * np.arange(1, 9, dtype="float32").reshape(-1, 1, 1, 1))
    before = findings(edgeprof, path, "--dataset", tmp_path / "data.npz")
    for check in ("eval-mode", "batch"):
        assert before[check]["status"] == "fail"
        assert "model.eval()" in before[check]["fix"]
    after = findings(edgeprof, torch_program(tmp_path), "--dataset", tmp_path / "data.npz")
    assert not {"eval-mode", "batch"} & after.keys()


def test_the_text_has_the_command_on_a_line_of_its_own(edgeprof: Verb, tmp_path: Path) -> None:
    folder = tmp_path / "a folder whose name is long enough for the line to be wrapped if it ever were"
    folder.mkdir()
    path = residual(folder)
    lines = [line for line in edgeprof(path, "--with", "int8-dynamic", "-q").stdout.splitlines() if "try:" in line]
    commands = [shlex.split(line.partition("try:")[2]) for line in lines]
    assert ["edgeprof", "diagnose", str(path), "--with", "int8-static", "--dataset", "SPEC"] in commands


def test_every_finding_is_tried_or_has_no_step() -> None:
    """A new check needs a trial here, or a reason why its advice cannot be run."""
    checks = {
        call.args[0].value
        for file in Path(diagnosis.__path__[0]).glob("*.py")
        for call in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Finding"
        if isinstance(call.args[0], ast.Constant)
    }
    by_hand = {"preprocessing", "eval-mode", "batch", "engine"}
    tried = {check for trial in TRIALS.values() for check in (trial.check, trial.gone) if check}
    assert tried | by_hand | NO_STEP.keys() == checks
