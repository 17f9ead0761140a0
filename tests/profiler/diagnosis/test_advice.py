"""The advice of every finding is valid for the model's format and for the method that it names, and it helps."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime.quantization")  # compressors and workers are forks, which import nothing again

from edgeprof.artifact import recognise
from edgeprof.compression.variant import check_chain, make_variant, parse_chain
from edgeprof.diagnosis import checks
from edgeprof.diagnosis.advice import Methods, made_again
from edgeprof.diagnosis.evidence import explain
from edgeprof.diagnosis.finding import Evidence
from edgeprof.diagnosis.graph import Graph, Layer, inspect_with
from edgeprof.evaluation.load import load_dataset
from edgeprof.plugins import PluginHost
from edgeprof.roots import Roots
from tests.plugins.compressors.nets import convnet, samples

if TYPE_CHECKING:
    from pathlib import Path

    from edgeprof.diagnosis.evidence import Diagnosis

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_workers")]

FORMATS = ("onnx", "tflite", "pt2", "python", "torchscript")
HOST = PluginHost.from_environment()


def layer(name: str, precision: str = "float32", **more: Any) -> Layer:
    values = np.random.default_rng(0).standard_normal((32, 16))
    settings = {"stored": "float32", "channels": 13, "weights": lambda: values, **more}
    return Layer(name=name, op=more.pop("op", "Conv"), macs=10**6, precision=precision, **settings)


def evidences(model_format: str) -> list[Evidence]:
    """Return evidence that triggers every finding that can name a method or a parameter."""
    facts = {"reduce_range": False, "weight_bits": 8, "changes": ["precision"]}
    names = ("int8-static", "int8-dynamic", "int8-weight", "fp16")
    recipes: list[list[dict[str, Any]]] = [[], *([{"compressor": name, "facts": facts}] for name in names)]
    zeros = np.zeros((32, 16))
    graphs = [
        Graph([layer("a"), layer("b")], 9, makers={"a": "node_a", "b": "n,b"}),
        Graph([layer("a", "int8-dynamic", stored="int8"), *(layer(f"l{k}") for k in range(40))], 9),
        Graph([layer("a", weights=lambda: zeros), layer("b")], 9),
        Graph([layer("a", weights=lambda: np.where(np.arange(512).reshape(32, 16) % 2, 1.0, 0.0)), layer("b")], 9),
        Graph([layer("a", "int16x8"), layer("b")], 9),
    ]
    return [
        Evidence(
            graph=graph, recipe=recipe, instructions="", arch="x86_64", methods=Methods.of(HOST, model_format),
            sqnr_db=dict.fromkeys([tensor], 5.0), output_db={"y": 6.0}, clipped={"a": 0.2}, dead={"a": 0.9},
            agreement=(share, 100), size=(100, 90), baseline_size=(100, 90), speed_up=1.0,
        )
        for graph in graphs for recipe in recipes for tensor in ("a", "b", "c") for share in (0.2, 0.8)
    ]  # fmt: skip


@pytest.mark.parametrize("model_format", FORMATS)
def test_every_advised_chain_is_one_that_the_format_takes(model_format: str) -> None:
    compressors = HOST.of("compressors")
    found = [finding for one in evidences(model_format) for finding in checks.diagnose(one)]
    chains = {finding.chain for finding in found if finding.chain is not None}
    for chain in chains:
        steps = parse_chain(chain)
        assert all(model_format in compressors[step.compressor]().takes for step in steps), chain
        check_chain(steps, compressors, model_format)
    assert chains or model_format == "torchscript"


@pytest.mark.parametrize("model_format", FORMATS)
def test_every_name_in_a_remedy_exists_for_the_format(model_format: str) -> None:
    """The names are those of methods, and of parameters written as key=value."""
    methods = Methods.of(HOST, model_format)
    known = {parameter.name for tool in methods.by_name.values() for parameter in tool.parameters}
    others = set(HOST.of("compressors")) - set(methods.by_name)
    for evidence in evidences(model_format):
        for finding in checks.diagnose(evidence):
            words = finding.fix or ""
            assert not [name for name in others if re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", words)], words
            assert set(re.findall(r"(\w+)=", words)) <= known | {"epochs"}, words


def test_a_parameter_is_advised_of_the_method_that_takes_it_and_only_if_it_changes_something() -> None:
    methods = Methods.of(HOST, "onnx")
    made = [{"compressor": "prune", "parameters": {"amount": 0.3}}, {"compressor": "int8-static", "parameters": {}}]
    assert made_again(methods, made, exclude="auto") == "prune:amount=0.3+int8-static:exclude=auto"
    made[1]["parameters"] = {"exclude": "auto"}
    assert made_again(methods, made, exclude="auto") is None
    assert made_again(methods, made, granularity="fine") is None
    assert made_again(Methods.of(HOST, "tflite"), [{"compressor": "int8-static"}], per_channel=True) is None


# --- tried ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path: Path) -> Any:
    np.savez(tmp_path / "data.npz", x=samples(24), y=np.arange(24) % 4)
    return load_dataset(str(tmp_path / "data.npz"), HOST, {})


def diagnosed(path: Path, chain: str, folder: Path, data: Any) -> Diagnosis:
    folder.mkdir()
    baseline = recognise(str(path))
    made, recipe = make_variant(baseline, parse_chain(chain), HOST.of("compressors"), folder, data, least_share=0.0)
    return explain(made, HOST, Roots(), baseline=baseline, data=data, recipe=recipe)


def excluded_instead(path: Path, folder: Path, data: Any, excluded: str | None) -> str | None:
    """Return what is advised if nothing clips, for a variant that was made with this ``exclude``."""
    folder.mkdir()
    baseline = recognise(str(path))
    made, recipe = make_variant(baseline, parse_chain("int8-static"), HOST.of("compressors"), folder, data)
    if excluded is not None:
        recipe[0]["parameters"] = {**recipe[0]["parameters"], "exclude": excluded}
    graphs = [inspect_with(one, HOST)[1] for one in (made, baseline)]
    evidence = Evidence(
        graph=graphs[0], baseline=graphs[1], recipe=recipe, methods=Methods.of(HOST, "onnx"),
        sqnr_db={"relu": 30.0, "branch": 12.0, "sum": 11.0},
    )  # fmt: skip
    (finding,) = [one for one in checks.diagnose(evidence) if one.check == "sqnr"]
    return finding.chain


def number(found: Diagnosis, check: str) -> float:
    return next(one.number for one in found.findings if one.check == check and one.number is not None)


@pytest.mark.parametrize(
    ("chain", "check", "rises"),
    [
        ("int8-dynamic", "int8-share", True),
        ("prune:amount=0.6", "sparsity", False),
        ("int8-static:method=percentile,percentile=90", "outputs", True),
    ],
)
def test_the_next_step_runs_and_helps(tmp_path: Path, data: Any, chain: str, check: str, rises: bool) -> None:
    path = convnet(tmp_path / "net.onnx")
    before = diagnosed(path, chain, tmp_path / "before", data)
    finding = next(one for one in before.findings if one.check == check)
    assert finding.status != "ok"
    assert finding.chain is not None
    after = diagnosed(path, finding.chain, tmp_path / "after", data)
    assert (number(after, check) > number(before, check)) == rises


def test_a_layer_is_excluded_by_the_name_of_its_node(tmp_path: Path, data: Any) -> None:
    """The nodes have other names than their outputs."""
    import onnx

    path = convnet(tmp_path / "net.onnx")
    model = onnx.load(str(path))
    for node in model.graph.node:
        node.name = f"node_{node.name}"
    onnx.save(model, str(path))
    narrow = "int8-static:method=percentile,percentile=90"
    before = diagnosed(path, narrow, tmp_path / "before", data)
    clipped = next(one for one in before.findings if one.check == "sqnr")
    assert clipped.chain == "int8-static:method=minmax,percentile=90.0"
    assert excluded_instead(path, tmp_path / "seen", data, None) == "int8-static:exclude=auto"
    chain = excluded_instead(path, tmp_path / "again", data, "auto")
    assert chain == "int8-static:exclude=node_branch"
    for index, one in enumerate(("int8-static:exclude=auto", chain)):
        assert diagnosed(path, one, tmp_path / str(index), data).findings


def test_noise_is_that_of_the_graph_which_runs(tmp_path: Path, data: Any) -> None:
    """The last tensor, traced through the fused graph, is identical to the model's own output."""
    import onnx
    import onnxruntime

    from edgeprof_plugins.runtimes.onnxruntime import graph

    path = convnet(tmp_path / "net.onnx")
    (tmp_path / "made").mkdir()
    made, _ = make_variant(
        recognise(str(path)), parse_chain("int8-static"), HOST.of("compressors"), tmp_path / "made", data
    )
    x = samples(4)[:1]
    written = onnx.load(str(made.path))
    (followed,) = graph.taps(str(made.path), [name for node in written.graph.node for name in node.output], [{"": x}])
    (ran,) = onnxruntime.InferenceSession(str(made.path), providers=["CPUExecutionProvider"]).run(None, {"x": x})
    assert np.array_equal(followed["y"], ran)
    ends = [name for name in followed if name.endswith("_DequantizeLinear_Output")]
    assert len(ends) >= 5  # fused layers are recognised by their integer outputs
