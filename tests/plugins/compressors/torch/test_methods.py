"""Compressors of PyTorch modules and programs: what they change, keep and refuse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from edgeprof.artifact import recognise
from edgeprof.compression.variant import make_variant, parse_chain, settings
from edgeprof.errors import InputError, UnavailableError, VariantError
from edgeprof.installation import install_command
from edgeprof.worker.runtime import LoadOptions
from edgeprof_plugins.compressors import methods
from edgeprof_plugins.compressors.torch import int8 as torch_int8
from edgeprof_plugins.compressors.torch import model as torch_model
from edgeprof_plugins.compressors.torch import structured as torch_structured
from tests.plugins.compressors.torch.quarters import COMPRESSORS, NETS, Quarters, X, answers, variant, weights


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEPROF_DATA_DIR", str(tmp_path / "data"))


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    """The net as a torch.export program."""
    made, _ = make_variant(
        recognise(f"{NETS}:make"),
        parse_chain("export-pt2"),
        COMPRESSORS,
        tmp_path_factory.mktemp("program"),
        isolated=False,
    )
    return Path(made.target)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Variants that several tests look at, each made once."""
    known = {}

    def make(spec, chain):
        if (str(spec), chain) not in known:
            known[str(spec), chain] = variant(spec, chain, tmp_path_factory.mktemp("made"))
        return known[str(spec), chain]

    return make


def test_a_program_answers_as_the_module_it_was_made_of_with_any_batch(program):
    import importlib.util

    spec = importlib.util.spec_from_file_location("torch_nets_again", NETS)
    nets = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(nets)
    with torch.no_grad():
        wanted = nets.make()(torch.from_numpy(X)).numpy()
    made = recognise(str(program))
    assert np.allclose(answers(made, X), wanted, atol=1e-5)
    assert np.allclose(answers(made, X[:3]), wanted[:3], atol=1e-5)


@pytest.mark.parametrize("chain", ["prune:amount=0.65", "prune-2:4", "cluster:n=8", "low-rank:rank=4"])
def test_modules_and_programs_are_compressed_alike_and_the_same_each_time(program, made, tmp_path, chain):
    of_program, recipe = made(program, chain)
    again, _ = variant(program, chain, tmp_path)
    assert of_program.format == "pt2"
    assert of_program.sha256 == again.sha256
    assert recipe[0]["facts"]["batch"] == "open"
    of_module, _ = made(f"{NETS}:make", chain)
    assert np.allclose(answers(of_module, X), answers(of_program, X), atol=1e-4)


def test_pruning_meets_its_share_exactly_over_all_layers(program, made):
    pruned, recipe = made(program, "prune:amount=0.65")
    values = np.concatenate([w.reshape(-1) for w in weights(pruned).values()])
    assert (values == 0).sum() == round(0.65 * values.size) == recipe[0]["facts"]["zeros"]


def test_pruning_by_layer_meets_its_share_in_each(program, tmp_path):
    made, _ = variant(program, "prune:amount=0.25,scope=layer", tmp_path)
    assert all(abs((w == 0).mean() - 0.25) < 0.5 / w.size + 1e-9 for w in weights(made).values())


def test_two_of_every_four_input_channels_are_zero_where_there_are_four(program, made):
    sparse, recipe = made(program, "prune-2:4")
    assert recipe[0]["facts"]["skipped"] == ["stem.weight"]
    head = weights(sparse)["head.weight"].reshape(4, -1, 4)
    assert ((head == 0).sum(axis=2) == 2).all()


def test_clusters_share_values_and_pack(program, made):
    shared, recipe = made(program, "cluster:n=8")
    assert all(len(np.unique(w)) <= 8 for w in weights(shared).values())
    assert shared.size_compressed() < 0.5 * recognise(str(program)).size_compressed()
    assert recipe[0]["facts"]["worst"] in recipe[0]["facts"]["sqnr_db"]


def test_low_rank_splits_layers_where_that_is_smaller(program, made):
    _, recipe = made(program, "low-rank:rank=4")
    facts = recipe[0]["facts"]
    assert facts["parameters"] < facts["parameters_before"]
    assert facts["layers"]["block.conv2"]["rank"] == 4
    assert "limit 4" in facts["kept"]["head"]


@pytest.mark.parametrize(
    ("source", "method", "kind", "near"),
    [
        ("module", "fp16", "float16", 1e-3),
        ("program", "bf16", "bfloat16", 1e-2),
    ],
)
def test_half_precision_takes_and_gives_float32_and_leaves_named_layers_whole(
    program, tmp_path, source, method, kind, near
):
    spec = f"{NETS}:make" if source == "module" else program
    made, recipe = variant(spec, f"{method}:exclude=stem|block.bn*", tmp_path)
    kinds = {name: str(w.dtype) for name, w in torch.export.load(made.target).state_dict.items() if w.dim() >= 2}
    assert kinds.pop("stem.weight") == "torch.float32"
    assert set(kinds.values()) == {f"torch.{kind}"}
    found, wanted = answers(made, X), answers(recognise(str(program)), X)
    assert found.dtype == np.float32
    assert 0 < np.abs(found - wanted).max() < near * np.abs(wanted).max()
    assert recipe[0]["facts"]["excluded_layers"] == 3


def test_weights_beyond_half_precision_are_clipped_and_counted(tmp_path):
    _, recipe = variant(f"{NETS}:wide", "fp16", tmp_path)
    assert recipe[0]["facts"]["clipped"] == 1


@pytest.mark.parametrize("source", ["module", "program"])
def test_channels_are_taken_out_of_every_layer_but_the_last(program, tmp_path, source):
    pytest.importorskip("torch_pruning")
    spec = f"{NETS}:make" if source == "module" else program
    made, recipe = variant(spec, "prune-structured:amount=0.5", tmp_path)
    channels = recipe[0]["facts"]["channels"]
    assert channels["stem"] == [16, 8]
    assert channels["block.conv1"] == [32, 16]
    assert "head" not in channels
    assert made.size_bytes < 0.75 * recognise(str(program)).size_bytes
    assert answers(made, X).shape == (8, 4)


def test_narrowing_runs_the_network_a_few_times_however_many_layers_it_has(monkeypatch):
    pytest.importorskip("torch_pruning")
    counts = []
    for name in ("make", "deep"):
        net = torch_model.load(Path(f"{NETS}:{name}"))
        calls = []
        net.module.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        torch_structured.narrow(net, 0.5)
        counts.append(len(calls))
    assert counts[0] == counts[1] < 8


def test_excluded_layers_keep_their_channels(tmp_path):
    pytest.importorskip("torch_pruning")
    _, recipe = variant(f"{NETS}:make", "prune-structured:amount=0.5,exclude=ste*", tmp_path)
    assert "stem" not in recipe[0]["facts"]["channels"]


def test_modules_become_onnx_with_an_open_batch_and_nothing_of_the_source(program, tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    made, _ = variant(f"{NETS}:make", "export-onnx", tmp_path)
    model = onnx.load(made.target)
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert b"torch_nets" not in Path(made.target).read_bytes()
    session = runtime.InferenceSession(made.target)
    found = session.run(None, {session.get_inputs()[0].name: X})[0]
    assert np.allclose(found, answers(recognise(str(program)), X), atol=1e-4)


def test_modules_become_tflite_with_the_outputs_of_the_module(program, made, tmp_path):
    pytest.importorskip("litert_torch")
    from edgeprof_plugins.runtimes.litert.runtime import LiteRT

    exported, recipe = variant(program, "export-tflite:batch=3", tmp_path)
    assert recipe[0]["facts"]["largest_difference"] < 1e-3
    options = LoadOptions(device="cpu", threads=None, batch=1, shapes={}, options={})
    session = LiteRT().load(exported.target, options)
    found = next(iter(session.run({session.inputs[0].name: X[:3]}).values()))
    assert np.allclose(found, answers(recognise(str(program)), X[:3]), atol=1e-4)


def test_torchscript_is_exported_and_its_weights_can_be_changed(program, tmp_path):
    made, _ = variant(program, "export-torchscript+prune:amount=0.5+cluster:n=8", tmp_path / "a")
    again, _ = variant(program, "export-torchscript+prune:amount=0.5+cluster:n=8", tmp_path / "b")
    assert made.format == "torchscript"
    assert made.sha256 == again.sha256
    values = np.concatenate([w.reshape(-1) for w in weights(made).values()])
    assert (values == 0).mean() >= 0.5
    assert np.isfinite(answers(made, X)).all()


def test_static_int8_is_small_near_the_float_model_and_survives_the_export(program, tmp_path):
    pytest.importorskip("torchao")
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    made, recipe = variant(program, "int8-static:backend=x86", tmp_path, Quarters())
    facts = recipe[0]["facts"]
    assert facts["int8_mac_share"] == 1.0
    assert facts["output_sqnr_db"] > 20
    assert facts["samples"] == 128
    assert made.size_bytes < 0.8 * recognise(str(program)).size_bytes
    exported, _ = variant(made.target, "export-onnx", tmp_path)
    options = runtime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "optimised.onnx"), 3
    session = runtime.InferenceSession(exported.target, options)
    executed = [node.op_type for node in onnx.load(str(tmp_path / "optimised.onnx")).graph.node]
    assert executed.count("QLinearConv") == 4, "the shortcut and what is added to it too"
    assert not {"Conv", "FusedConv", "Add"} & {*executed}
    found = session.run(None, {session.get_inputs()[0].name: X})[0]
    assert np.abs(found - answers(made, X)).max() < 0.05 * np.abs(found).max()
    with pytest.raises(InputError, match="no float weights"):
        variant(made.target, "prune", tmp_path)


def test_layers_that_are_named_stay_in_float(tmp_path):
    pytest.importorskip("torchao")
    _, recipe = variant(f"{NETS}:plain", "int8-static:backend=x86,exclude=0,samples=16", tmp_path, Quarters(16))
    convolution, dense = 36 * 8 * 9, 288 * 4
    assert recipe[0]["facts"]["int8_mac_share"] == pytest.approx(dense / (dense + convolution), abs=1e-6)


def test_dynamic_int8_of_a_convolutional_network_says_how_little_that_is(program, tmp_path):
    pytest.importorskip("torchao")
    with pytest.raises(VariantError, match=r"0\.9 % of the weights and 0\.1 % .* leaves stem\.weight") as raised:
        variant(program, "int8-dynamic:backend=x86", tmp_path)
    assert raised.value.code == "changed_nothing"
    assert "int8-static" in raised.value.remedy


@pytest.mark.parametrize(
    ("spec", "chain", "data", "words"),
    [
        (f"{NETS}:text", "prune", None, "no torch.nn.Module"),
        (f"{NETS}:mute", "prune", None, "example_inputs"),
        (f"{NETS}:make", "fine-tune", None, "--dataset"),
        (f"{NETS}:make", "prune:epochs=1", None, "needs training data"),
        (f"{NETS}:make", "int8-static", Quarters(8, (3, 8, 8)), "wrong shape"),
        (f"{NETS}:make", "fine-tune:epochs=1", Quarters(8, (1, 9, 8, 8)), "wrong shape"),
        (f"{NETS}:make", "fine-tune:data=nowhere.npz", None, "does not exist"),
        (f"{NETS}:make", "distill", Quarters(8), "student"),
        (f"{NETS}:make", "distill:student=width:7", Quarters(8), "from 0.05 to 1"),
        (f"{NETS}:make", "prune-structured:exclude=stme", None, "stem"),
        (f"{NETS}:make", "prune-structured:amount=0", None, "amount=0"),
        (f"{NETS}:make", "low-rank:energy=0.9,rank=3", None, "not both"),
        (f"{NETS}:make", "low-rank:rank=999", None, "gets smaller"),
        (f"{NETS}:make", "int4-weight", None, "export-onnx"),
        (f"{NETS}:make", "fp16:exclude=stme", None, "stem"),
        (f"{NETS}:make", "int8-static:exclude=stme", Quarters(8), "stem"),
        (f"{NETS}:fails", "prune", None, "fails() failed: KeyError: 'weights' ("),
        (f"{NETS}:leaves", "prune", None, "leaves() failed: SystemExit: no GPU here ("),
    ],
)
def test_what_cannot_be_done_is_one_sentence_with_a_remedy(tmp_path, spec, chain, data, words):
    pytest.importorskip("torch_pruning")
    with pytest.raises(InputError) as caught:
        variant(spec, chain, tmp_path / "out", data)
    assert words in f"{caught.value.message} {caught.value.remedy}"
    assert not [*(tmp_path / "out").glob("*")]


def test_inputs_that_the_module_does_not_tell_are_taken_from_the_data(tmp_path):
    made, _ = variant(f"{NETS}:mute", "prune", tmp_path, Quarters(4))
    assert answers(made, X).shape == (8, 4)


def test_a_network_that_cannot_be_followed_fails_its_variant(tmp_path):
    with pytest.raises(VariantError, match=r"torch\.export cannot follow"):
        variant(f"{NETS}:Branches", "export-pt2", tmp_path)


def test_a_damaged_program_is_bad_input(program, tmp_path):
    broken = tmp_path / "broken.pt2"
    content = program.read_bytes().replace(b'"conv2d', b'"conf2d').replace(b"aten.conv2d", b"aten.conf2d")
    broken.write_bytes(content)
    with pytest.raises(InputError, match=r"broken\.pt2"):
        variant(broken, "prune", tmp_path / "out")


def test_two_factories_of_one_file_make_files_of_their_own(tmp_path):
    one, _ = variant(f"{NETS}:make", "prune", tmp_path)
    other, _ = variant(f"{NETS}:narrow", "prune", tmp_path)
    assert {Path(one.target).name, Path(other.target).name} == {
        "torch_nets-make.prune.pt2",
        "torch_nets-narrow.prune.pt2",
    }


def test_patterns_joined_pair_by_pair_are_those_of_torchao():
    """Which tries every combination: of NASNet's some thousand million."""
    pytest.importorskip("torchao")
    from torchao.quantization.pt2e.graph_utils import find_sequential_partitions

    kinds = [torch.nn.Conv2d, torch.nn.BatchNorm2d, torch.nn.ReLU]
    whole = [layer for _ in range(2) for layer in (torch.nn.Conv2d(4, 4, 1), torch.nn.BatchNorm2d(4), torch.nn.ReLU())]
    net = torch.nn.Sequential(*whole, torch.nn.Conv2d(4, 4, 1), torch.nn.ReLU())
    program = torch.export.export(net.eval(), (torch.randn(1, 4, 5, 5),)).module()

    def found(pattern):
        return [[one.output_nodes[0].name for one in row] for row in find_sequential_partitions(program, pattern)]

    for pattern in (kinds, [kinds[0], kinds[2]], kinds[:1]):
        with torch_int8._patched_torchao():
            fast = found(pattern)
        assert fast == found(pattern) != []


@pytest.mark.parametrize(
    ("library", "method", "extra"),
    [("torch_pruning", "prune-structured", "torch-compress"), ("litert_torch", "export-tflite", "torch-tflite")],
)
def test_a_library_that_is_missing_is_named_with_the_command(tmp_path, monkeypatch, library, method, extra):
    import importlib

    real = importlib.import_module

    def missing(name, *more):
        if name == library:
            raise ImportError(name)
        return real(name, *more)

    monkeypatch.setattr(importlib, "import_module", missing)
    tool = methods.make(method).for_format("python")
    with pytest.raises(UnavailableError) as caught:
        tool.apply(Path(f"{NETS}:make"), tmp_path / "out", settings(tool, {}), None)
    assert caught.value.remedy == install_command([f"edgeprof[{extra}]"])


@pytest.mark.parametrize("made_by", ["crashes", "Hangs"])
def test_a_factory_that_crashes_or_hangs_costs_its_variant_alone_and_is_told_with_its_line(tmp_path, made_by):
    with pytest.raises(VariantError, match=rf"torch_nets\.py:{made_by}.* \(.*torch_nets\.py, line \d+\)"):
        make_variant(recognise(f"{NETS}:{made_by}"), parse_chain("prune"), COMPRESSORS, tmp_path / "out", timeout_s=1.0)
    assert not [*(tmp_path / "out").glob("*")]
    made, _ = variant(f"{NETS}:plain", "prune", tmp_path / "out", isolated=True)
    assert made.format == "pt2"
