"""What a torch.export program computes, as PyTorch runs it."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING, Any

import pytest

from edgeprof.artifact import recognise
from edgeprof.diagnosis import checks as diagnose
from edgeprof.diagnosis import evidence as explain
from edgeprof.diagnosis.graph import inspect_with, read_graph
from edgeprof.plugins import PluginHost
from edgeprof.roots import Roots

torch = pytest.importorskip("torch")

if TYPE_CHECKING:
    from pathlib import Path

    from edgeprof.diagnosis.graph import Graph


def graph(module: Any, x: Any, path: Path) -> Graph:
    dynamic = ({0: torch.export.Dim("batch", min=1)},)
    torch.export.save(torch.export.export(module, (x,), dynamic_shapes=dynamic), path)
    found = read_graph(recognise(str(path)))
    assert found is not None
    return found


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.norm = torch.nn.BatchNorm2d(8)
        self.depthwise = torch.nn.Conv2d(8, 8, 3, groups=8)
        self.up = torch.nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.dense = torch.nn.Linear(4, 5)

    def forward(self, x: Any) -> Any:
        x = self.up(self.depthwise(torch.relu(self.norm(self.first(x)))))
        return self.dense(x.mean((2, 3)))


def test_layers_are_counted_for_one_sample_with_an_open_batch(tmp_path: Path) -> None:
    net = Net().eval()
    with torch.no_grad():
        net.first.weight[:4] = 0
        net.up.weight[:, 1] = 0  # its output channels come second
    found = graph(net, torch.randn(2, 3, 8, 8), tmp_path / "net.pt2")
    first, _, up, dense = found.layers
    assert [layer.macs for layer in found.layers] == [8 * 64 * 27, 8 * 36 * 9, 8 * 36 * 4 * 4, 4 * 5]
    assert [layer.channels for layer in found.layers] == [8, 8, 4, 5]
    assert [layer.depthwise for layer in found.layers] == [False, True, False, False]
    assert {layer.precision for layer in found.layers} == {layer.stored for layer in found.layers} == {"float32"}
    assert first.zeros[:3] == (8 * 27, 4 * 27, 4 * 27)
    assert up.zeros[:3] == (net.up.weight.numel(), net.up.weight[:, 1].numel(), net.up.weight[:, 1].numel())
    assert dense.zeros[:3] == (5 * 4, 0, 0)
    assert len(found.batch_norms) == 1
    assert found.training == []
    assert found.nodes == 7


def test_what_was_exported_in_training_mode_is_seen(tmp_path: Path) -> None:
    found = graph(Net().train(), torch.randn(2, 3, 8, 8), tmp_path / "net.pt2")
    assert len(found.training) == 1
    (finding,) = [one for one in diagnose.diagnose(diagnose.Evidence(graph=found)) if one.check == "eval-mode"]
    assert finding.status == "fail"


class Sequence(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query = torch.nn.Linear(8, 8)
        self.recurrent = torch.nn.GRU(8, 16, batch_first=True)
        self.attention = torch.nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Any) -> Any:
        x = torch.softmax(self.query(x) @ x.transpose(1, 2), -1) @ x
        return self.recurrent(x)[0], self.attention(x, x, x)[0], torch.einsum("bij,bkj->bik", x, x)


@pytest.mark.filterwarnings("ignore:The tensor attributes")
def test_recurrent_layers_and_products_of_activations_are_counted(tmp_path: Path) -> None:
    found = graph(Sequence().eval(), torch.randn(2, 6, 8), tmp_path / "net.pt2")
    attention = 6 * 8 * 24 + 2 * 6 * 6 * 8 + 6 * 8 * 8
    assert found.macs == 6 * 64 + 2 * 6 * 6 * 8 + 6 * 3 * 16 * (8 + 16) + attention + 6 * 6 * 8
    assert not found.unsized


def test_open_sizes_are_those_that_are_given(tmp_path: Path) -> None:
    sizes = {0: torch.export.Dim("batch"), 2: torch.export.Dim("high", min=4), 3: torch.export.Dim("wide", min=4)}
    program = torch.export.export(torch.nn.Conv2d(3, 4, 3), (torch.randn(2, 3, 9, 9),), dynamic_shapes=(sizes,))
    torch.export.save(program, tmp_path / "net.pt2")
    artifact, host = recognise(str(tmp_path / "net.pt2")), PluginHost(only=["pytorch"])
    unknown = inspect_with(artifact, host)[1]
    assert unknown is not None
    assert unknown.macs == 0
    assert "--input" in unknown.note
    known = inspect_with(artifact, host, {"": (1, 3, 12, 10)})[1]
    assert known is not None
    assert (known.macs, known.note) == (10 * 8 * 4 * 27, "")


class Quantised(torch.nn.Module):
    """A layer as PT2E quantises it: int8 weights that are converted to floats before the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("values", torch.tensor([[-1, 3, 2], [5, 4, 5]], dtype=torch.int8))
        self.register_buffer("scales", torch.tensor([0.5, 0.25]))
        self.register_buffer("zeros", torch.tensor([3, 5]))

    def forward(self, x: Any) -> Any:
        weight = torch.ops.quantized_decomposed.dequantize_per_channel(
            self.values, self.scales, self.zeros, 0, -128, 127, torch.int8
        )
        return torch.nn.functional.linear(x, weight)


def test_integers_that_pytorch_turns_into_floats_are_a_no_op_with_its_remedy(tmp_path: Path) -> None:
    import torch.ao.quantization.fx._decomposed  # registers the operators

    found = graph(Quantised(), torch.randn(2, 3), tmp_path / "net.pt2")
    (layer,) = found.layers
    assert (layer.stored, layer.precision, layer.macs) == ("int8", "float32", 6)
    assert layer.zeros[:3] == (6, 3, 0)
    assert found.conversions == 1
    (finding,) = [one for one in diagnose.diagnose(diagnose.Evidence(graph=found)) if one.check == "int8-share"]
    assert (finding.status, finding.number) == ("fail", 0.0)
    assert "compile=1" in finding.fix


def test_a_program_that_this_torch_cannot_load_has_no_graph(tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    graph(Net().eval(), torch.randn(2, 3, 8, 8), path)
    with zipfile.ZipFile(path) as archive:
        members = {info: archive.read(info) for info in archive.infolist()}
    assert any(b"aten.relu.default" in held for held in members.values())
    with zipfile.ZipFile(path, "w") as archive:
        for info, held in members.items():
            archive.writestr(info, held.replace(b"aten.relu.default", b"aten.rela.default"))
    assert read_graph(recognise(str(path))) is None


@pytest.mark.parametrize(("machine", "right"), [("x86_64", True), ("aarch64", False)])
def test_a_program_quantised_for_another_engine_is_told(tmp_path: Path, monkeypatch, machine: str, right: bool) -> None:
    path = tmp_path / "net.pt2"
    torch.export.save(torch.export.export(torch.nn.Linear(3, 2), (torch.randn(2, 3),)), path)
    monkeypatch.setattr(explain.platform, "machine", lambda: machine)
    recipe = [{"compressor": "int8-static", "facts": {"backend": "x86"}}]
    found = explain.explain(recognise(str(path)), PluginHost(only=["pytorch"]), Roots(), recipe=recipe)
    said = [one.sentence for one in found.findings if one.check == "engine"]
    assert said == ([] if right else ["it was quantised for x86 and runs on arm"])
