"""Chains of compressors: their text, their parameters, and the files that they leave."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import onnx
import pytest
from onnx import TensorProto, helper

from edgeprof.artifact import recognise
from edgeprof.compression import answers
from edgeprof.compression.compressor import Compressor, Parameter
from edgeprof.compression.variant import chain_name, make_variant, parse_chain, settings, stem
from edgeprof.errors import EdgeprofError, InputError, StorageError, VariantError
from tests.profiler.artifact.test_language_folders import WHOLE, folder_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Tag(Compressor):
    """Writes its amount into the model's doc string: a real change that can be read back."""

    name, version, takes = "tag", "1", ("onnx",)
    parameters = (
        Parameter("amount", "float", default=0.5, minimum=0.0, maximum=1.0, help="share"),
        Parameter("kind", "str", choices=("a", "b")),
        Parameter("deep", "bool", default=False),
    )

    def apply(self, source, target, parameters, data, *, seed=0) -> dict[str, Any]:
        model = onnx.load(source)
        model.doc_string += f"[{parameters['amount']}/{seed}]"
        onnx.save(model, target)
        return {"written": True}


class Breaks(Tag):
    name = "breaks"

    def apply(self, source, target, parameters, data, *, seed=0):
        raise RuntimeError("node Conv_3 has no weights")


class Calibrates(Tag):
    name, needs_data = "calibrates", "calibration"


class Shift(Compressor):
    """Changes a weight of a model that is a folder."""

    name, version, takes = "shift", "1", ("transformers",)
    parameters = ()

    def apply(self, source, target, parameters, data, *, seed=0) -> dict[str, Any]:
        shutil.copytree(source, target)
        weights = target / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
        return {}


class NeedsRank(Tag):
    name, parameters = "needs-rank", (Parameter("rank", "int", required=True, help="rank kept"),)


COMPRESSORS = {tool.name: tool for tool in (Tag, Breaks, Calibrates, Shift, NeedsRank)}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph), path)
    return path


def test_a_chain_keeps_its_steps_and_is_named_as_the_contract_says():
    steps = parse_chain("prune-structured:amount=0.3+int8-static")
    assert [step.compressor for step in steps] == ["prune-structured", "int8-static"]
    assert chain_name(steps) == "prune-structured(amount=0.3)+int8-static"


@pytest.mark.parametrize("text", ["", "+", "a++b", "a:x", "a:=1", "a:x="])
def test_a_chain_that_cannot_be_read_is_bad_input(text):
    with pytest.raises(InputError):
        parse_chain(text)


class Appends(Tag):
    """Appends a byte, and so keeps every format whose readers look at the beginning only."""

    name, takes, parameters = "appends", ("keras",), ()

    def apply(self, source, target, parameters, data, *, seed=0):
        target.write_bytes(source.read_bytes() + b"x")
        return {}


@pytest.mark.parametrize("suffix", [".h5", ".hdf5", ".keras"])
def test_a_variant_of_the_same_format_has_the_suffix_of_its_model(tmp_path, suffix):
    model = tmp_path / f"net{suffix}"
    model.write_bytes(b"\x89HDF\r\n\x1a\n" + b"keras_version".rjust(64, b"\0"))
    variant, _ = make_variant(
        recognise(str(model)), parse_chain("appends+appends"), {"appends": Appends}, tmp_path / "out"
    )
    assert variant.path is not None
    assert variant.path.name == f"net.appends+appends{suffix}"


def test_each_step_is_applied_in_order_and_recorded(model, tmp_path):
    variant, recipe = make_variant(
        recognise(str(model)), parse_chain("tag:amount=0.25+tag"), COMPRESSORS, tmp_path / "out", seed=7
    )
    assert onnx.load(variant.target).doc_string == "[0.25/7][0.5/7]"
    assert [step["parameters"]["amount"] for step in recipe] == [0.25, 0.5]
    assert recipe[0]["from_sha256"] == recognise(str(model)).sha256
    assert recipe[0]["to_sha256"] == recipe[1]["from_sha256"]
    assert recipe[1]["to_sha256"] == variant.sha256
    assert recipe[1]["facts"] == {"written": True}


def test_the_same_seed_gives_the_same_file(model, tmp_path):
    made = [
        make_variant(recognise(str(model)), parse_chain("tag"), COMPRESSORS, tmp_path / name, seed=3)[0].sha256
        for name in "ab"
    ]
    assert made[0] == made[1]


@pytest.mark.parametrize(
    ("chain", "words"),
    [
        ("tga", "Did you mean tag"),
        ("tag:amout=1", "Did you mean amount"),
        ("tag:amount=lots", "not of type float"),
        ("tag:amount=1.5", "from 0.0 to 1.0"),
        ("tag:kind=c", "Known: a, b"),
        ("tag:deep=perhaps", "not of type bool"),
        ("needs-rank", "rank kept"),
        ("calibrates", "--dataset"),
    ],
)
def test_what_cannot_be_applied_says_what_can(model, tmp_path, chain, words):
    with pytest.raises(InputError) as caught:
        make_variant(recognise(str(model)), parse_chain(chain), COMPRESSORS, tmp_path)
    assert words in f"{caught.value.message} {caught.value.remedy}"


def test_a_format_it_does_not_take_is_told_with_what_does(model, tmp_path):
    pointer = tmp_path / "application.py"
    pointer.write_text("def run(): pass\n")
    with pytest.raises(InputError, match="tag takes onnx"):
        make_variant(recognise(f"{pointer}:run"), parse_chain("tag"), COMPRESSORS, tmp_path)


def test_a_compressor_that_fails_costs_its_variant_alone(model, tmp_path):
    with pytest.raises(VariantError, match=r"breaks failed on net\.onnx: RuntimeError: node Conv_3 has no weights"):
        make_variant(recognise(str(model)), parse_chain("breaks"), COMPRESSORS, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_full_disk_leaves_no_half_file(model, tmp_path, monkeypatch):
    def full(_handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left on device"):
        make_variant(recognise(str(model)), parse_chain("tag"), COMPRESSORS, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def caused_by(error: Exception) -> InputError:
    """Return the error that a compressor raises for a library's failure."""
    made = InputError("it cannot be quantised")
    made.__cause__ = error
    return made


@pytest.mark.parametrize("isolated", [True, False])
@pytest.mark.parametrize(
    ("free", "error", "raised"),
    [
        (None, OSError(28, "No space left on device"), StorageError),
        (None, OSError(5, "Input/output error"), VariantError),
        (10**9, RuntimeError("file write failed"), VariantError),
        (0, RuntimeError("file write failed"), StorageError),
        (0, caused_by(OSError(28, "No space left on device")), StorageError),
        (10**9, caused_by(RuntimeError("file write failed")), InputError),
    ],
)
def test_a_full_disk_inside_a_step_is_told_from_a_step_that_fails(
    model, tmp_path, monkeypatch, isolated, free, error, raised
):
    """Libraries seldom report that the disk is full."""

    def apply(_self, _source, target, _parameters, _data, *, seed=0):
        assert target.parents[2] == tmp_path / "out"
        target.write_bytes(b"half")
        raise error

    monkeypatch.setattr(Breaks, "apply", apply)
    if free is not None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, free))
    with pytest.raises(EdgeprofError) as caught:
        make_variant(recognise(str(model)), parse_chain("breaks"), COMPRESSORS, tmp_path / "out", isolated=isolated)
    assert type(caught.value) is raised
    if raised is StorageError:
        assert f"cannot write to {tmp_path / 'out'}: No space left on device" in caught.value.message
    assert list((tmp_path / "out").iterdir()) == []


def test_what_libraries_leave_for_a_while_lies_beside_the_variant(model, tmp_path, monkeypatch):
    def apply(_self, _source, _target, _parameters, _data, *, seed=0):
        raise VariantError(tempfile.mkdtemp())

    monkeypatch.setattr(Breaks, "apply", apply)
    with pytest.raises(VariantError, match=str(tmp_path / "out")):
        make_variant(recognise(str(model)), parse_chain("breaks"), COMPRESSORS, tmp_path / "out")
    assert not tempfile.gettempdir().startswith(str(tmp_path / "out"))


@pytest.mark.parametrize(
    ("file", "name"),
    [("net.onnx", "net"), ("mobilenet_v1_0.25_128.onnx", "mobilenet_v1_0.25_128"), ("net_0.5", "net_0.5")],
)
def test_models_whose_names_begin_alike_have_variants_of_their_own(model, tmp_path, file, name):
    assert stem(recognise(str(model.rename(tmp_path / file)))) == name


def test_defaults_fill_what_was_not_given():
    assert settings(Tag(), {"deep": "yes"}) == {"amount": 0.5, "deep": True}


def test_a_very_long_chain_still_has_a_file_name(model, tmp_path):
    chain = "+".join(["tag:amount=0.123456789"] * 12)
    variant, _ = make_variant(recognise(str(model)), parse_chain(chain), COMPRESSORS, tmp_path / "out")
    assert len(variant.target.rsplit("/", 1)[1]) < 160


def test_a_variant_may_be_a_folder(tmp_path):
    source = folder_of(tmp_path / "hf", WHOLE)
    variant, (step,) = make_variant(recognise(str(source)), parse_chain("shift"), COMPRESSORS, tmp_path / "out")
    assert (variant.format, step["compressor"]) == ("transformers", "shift")
    assert sorted(path.name for path in variant.path.iterdir()) == sorted(WHOLE)
    assert (variant.path / "model.safetensors").read_bytes().endswith(b"\x01")


def link_to(path: Path, target: Path) -> Path:
    path.unlink()
    path.symlink_to(target)
    return path


#: What a process that a model has taken over may claim to have made, from what it really made: (variant, recipe).
CLAIMS: dict[str, Callable[[Any, Any, Path], object]] = {
    "a file outside": lambda made, recipe, mine: (replace(made, path=mine, files=(mine,)), recipe),
    "a file outside beside its own": lambda made, recipe, mine: (replace(made, files=(made.path, mine)), recipe),
    "a way out of its folder": lambda made, recipe, mine: (
        replace(made, files=(made.path, made.path.parent / "../../../.." / mine.name)), recipe,
    ),
    "a link to a file outside": lambda made, recipe, mine: (replace(made, path=link_to(made.path, mine)), recipe),
    "a folder": lambda made, recipe, _: (replace(made, path=made.path.parent, files=(made.path.parent,)), recipe),
    "a link to a folder": lambda made, recipe, mine: (
        replace(made, path=link_to(made.path, mine.parent), files=(made.path / mine.name,)), recipe,
    ),
    "the name of another file": lambda made, recipe, _: (
        replace(made, path=(other := made.path.rename(made.path.with_name("mine.txt"))), files=(other,)), recipe,
    ),
    "no files": lambda made, recipe, _: (replace(made, files=()), recipe),
    "no variant": lambda made, recipe, _: (None, recipe),
    "a number": lambda made, recipe, _: 5,
    "no recipe": lambda made, recipe, _: (made, None),
    "a step without its fields": lambda made, recipe, _: (made, [{}]),
    "a recipe that is no JSON": lambda made, recipe, _: (made, [{**recipe[0], "facts": {"x": b"y"}}]),
}  # fmt: skip


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_process_can_name_no_files_but_its_own(model, tmp_path, monkeypatch, claim):
    """The parent is not confined: it would move what it is told."""
    directory = tmp_path / "out"
    directory.mkdir()
    mine = directory / "mine.txt"
    mine.write_text("precious")
    send = answers.send_answer

    def lie(pipe, kind, content):
        send(pipe, kind, CLAIMS[claim](*content, mine) if kind == "made" else content)

    monkeypatch.setattr(answers, "send_answer", lie)
    with pytest.raises(VariantError, match="not a variant in its folder") as caught:
        make_variant(recognise(str(model)), parse_chain("tag"), COMPRESSORS, directory)
    assert caught.value.code == "crashed"
    assert [path.name for path in directory.iterdir()] == ["mine.txt"]
    assert mine.read_text() == "precious"
