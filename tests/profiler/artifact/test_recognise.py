"""The format of a file is recognised by its bytes; everything that is not a model gets one sentence."""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from edgeprof.artifact import FORMATS, recognise, unsupported
from edgeprof.errors import InputError
from tests import models

#: name → content → format.
MAGIC = {
    "plan": (b"ftrt" + bytes(60), "tensorrt"),
    "ultralytics": (struct.pack("<I", 12) + b'{"imgsz": 8}' + b"ftrt" + bytes(60), "tensorrt"),
    "gguf": (b"GGUF\x03\0\0\0" + bytes(40), "gguf"),
    "ggml": (b"lmgg" + bytes(60), "ggml"),
    "executorch": (b"\x30\0\0\0ET12" + bytes(60), "executorch"),
    "ort": (b"\x30\0\0\0ORTM" + bytes(60), "ort"),
    "safetensors": (struct.pack("<Q", 24) + b'{"__metadata__":{"a":1}}', "safetensors"),
    "keras h5": (b"\x89HDF\r\n\x1a\n" + bytes(90) + b"keras_version", "keras"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(90), "hdf5"),
    "rknn": (b"RKNN" + bytes(60), "rknn"),
    "hef": (b"\x01HEF" + bytes(60), "hef"),
    "ncnn": (b"7767517\n3 3\nInput data 0 1 data\n", "ncnn"),
    "saved model": (b"\x08\x01\x12\x04\x0a\x02\x08\x01", "savedmodel"),
    "frozen graph": (b"\x0a\x08\x0a\x01x\x12\x03Add" + b"\x22\x00", "graphdef"),
    "core ml": (b"\x08\x04\x12\x00\xa2\x1f\x00", "coreml"),
}

NO_MODEL = {
    "lfs": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 34709711\n",
        r"Git LFS pointer.*34709711 bytes",
        "git lfs pull",
    ),
    "html": (b"<!DOCTYPE html>\n<html><body>404</body></html>", "web page", "raw or download link"),
    "html2": (b"\n\n<HTML lang=en>", "web page", "raw"),
    "json": (b'{"error": "not found"}', "JSON file", "Give a model"),
    "text": ("Überschrift: not a model\n".encode(), "text file", "Give a model"),
    "xml": (b"<?xml version='1.0'?><annotation/>", "XML file", "Give a model"),
    "empty": (b"", "is empty", "again"),
    "executorch of another version": (
        b"\x30\0\0\0ET99" + bytes(60),
        "ExecuTorch program in the format ET99",
        "Export it again",
    ),
    "gzip": (gzip.compress(b"x" * 100), "gzip archive", "Unpack"),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(40), "PNG image", "Give a model"),
    "jpeg": (b"\xff\xd8\xff\xe0" + bytes(40), "JPEG image", "Give a model"),
    "elf": (b"\x7fELF\x02\x01\x01" + bytes(40), "program or library", "edgeprof run"),
    "program": (b"#!/usr/bin/env python3\nprint(1)\n", "Python program", ":FUNCTION"),
    "other bytes": (b"\x00\x01\x02\x03\xfe\xdc\xba\x98" * 20, "named like a TensorRT plan.*begins 00 01 02", "again"),
    "cut zip": (b"PK\x03\x04" + bytes(100), "cut off or damaged", "again"),
    "cut safetensors": (struct.pack("<Q", 9999) + b'{"a":1}', "safetensors.*cut off", "again"),
    "cut tflite": (b"\x1c\0\0\0TFL3" + bytes(3), "TensorFlow Lite model, but cut off", "again"),
}


@pytest.mark.parametrize("name", MAGIC)
def test_content_decides_whatever_the_file_is_called(tmp_path, name):
    content, kind = MAGIC[name]
    for suffix in (".bin", ".onnx", ""):
        path = tmp_path / f"model{suffix}"
        path.write_bytes(content)
        assert recognise(str(path)).format == kind


@pytest.mark.parametrize("name", NO_MODEL)
def test_what_is_no_model_gets_a_sentence_that_says_what_it_is(tmp_path, name):
    content, says, remedy = NO_MODEL[name]
    path = tmp_path / "model.engine"
    path.write_bytes(content)
    with pytest.raises(InputError, match=says) as caught:
        recognise(str(path))
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message
    assert remedy in caught.value.remedy


def test_bytes_that_nothing_knows_are_shown(tmp_path):
    path = tmp_path / "model"
    path.write_bytes(b"\x00\x01\x02\x03\xfe\xdc\xba\x98" * 20)
    with pytest.raises(InputError, match=r"no model that edgeprof knows \(it begins 00 01 02"):
        recognise(str(path))


def test_the_formats_own_files_are_recognised_under_a_strange_name(
    onnx_model, tflite_model, torchscript_model, pt2_model
):
    for path, kind in (
        (onnx_model, "onnx"),
        (tflite_model, "tflite"),
        (torchscript_model, "torchscript"),
        (pt2_model, "pt2"),
    ):
        strange = path.with_name("download.bin")
        strange.write_bytes(path.read_bytes())
        assert recognise(str(strange)).format == kind


@pytest.mark.parametrize("part", [0.2, 0.5, 0.9])
def test_a_truncated_copy_of_each_format_is_called_damaged(tmp_path, part, onnx_model, tflite_model, torchscript_model):
    for path in (onnx_model, tflite_model, torchscript_model):
        content = path.read_bytes()
        cut = tmp_path / f"cut{path.suffix}"
        cut.write_bytes(content[: int(len(content) * part)])
        with pytest.raises(InputError, match="cut off or damaged"):
            recognise(str(cut))


def test_an_artifact_knows_its_size_and_checksum(onnx_model):
    content = onnx_model.read_bytes()
    found = recognise(str(onnx_model))
    assert found.spec == str(onnx_model)
    assert found.target == str(onnx_model.resolve())
    assert found.size_bytes == len(content)
    assert found.sha256 == hashlib.sha256(content).hexdigest()
    assert found.size_compressed() == len(zlib.compress(content, 6))


def test_weights_beside_an_onnx_model_count(tmp_path):
    pytest.importorskip("onnx")
    path = models.onnx_affine(tmp_path / "m.onnx", external=True)
    weights = tmp_path / "weights.bin"
    found = recognise(str(path))
    assert found.files == (path, weights)
    assert found.size_bytes == path.stat().st_size + weights.stat().st_size
    before = found.sha256
    weights.write_bytes(bytes(weights.stat().st_size))
    assert recognise(str(path)).sha256 != before
    weights.unlink()
    with pytest.raises(InputError, match=r"keeps its weights in weights\.bin, which is not beside it"):
        recognise(str(path))


def test_an_onnx_model_that_reads_files_elsewhere_is_refused(tmp_path):
    pytest.importorskip("onnx")
    path = models.onnx_affine(tmp_path / "m.onnx", external=True)
    content = path.read_bytes()
    assert content.count(b"weights.bin") == 2
    path.write_bytes(content.replace(b"weights.bin", b"../../a.bin"))
    with pytest.raises(InputError, match="outside its own folder"):
        recognise(str(path))


def test_custom_operators_of_a_tflite_model_are_told(tmp_path):
    pytest.importorskip("ai_edge_litert")
    assert recognise(str(models.tflite_double(tmp_path / "a", custom="sparkle"))).detail == "sparkle"
    edge_tpu = recognise(str(models.tflite_double(tmp_path / "b", custom="edgetpu-custom-op")))
    assert edge_tpu.format == "edgetpu-tflite"


class Sabotage:
    """A pickle that would create a file if it were loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


def test_a_pickle_is_told_and_never_loaded(tmp_path):
    trap = tmp_path / "it was loaded"
    path = tmp_path / "model.onnx"
    path.write_bytes(pickle.dumps(Sabotage(trap)))
    found = recognise(str(path))
    assert found.format == "pickle"
    assert not trap.exists()
    error = unsupported(found)
    assert "runs its author's code" in error.message
    assert "never unpickles" in error.remedy


def test_a_pickle_inside_pytorchs_zip_is_not_loaded_either(tmp_path):
    trap = tmp_path / "it was loaded"
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", pickle.dumps(Sabotage(trap)))
    assert recognise(str(path)).format == "pickle"
    assert not trap.exists()


def test_pytorchs_weights_are_told_from_its_whole_modules(tmp_path):
    torch = pytest.importorskip("torch")
    module = models.affine_module()
    for number, (thing, options) in enumerate(
        [
            (module.state_dict(), {}),
            ({"state_dict": module.state_dict(), "epoch": 3, "best": 0.5}, {}),
            (module.state_dict(), {"_use_new_zipfile_serialization": False}),
            ({"w": torch.zeros(2, dtype=torch.bfloat16)}, {}),
        ]
    ):
        path = tmp_path / f"{number}.pt"
        torch.save(thing, path, **options)
        assert recognise(str(path)).format == "state_dict", thing
    path = tmp_path / "whole.pt"
    torch.save(torch.nn.Linear(2, 2), path)
    found = recognise(str(path))
    assert found.format == "pickle"
    assert found.detail == "torch.nn.modules.linear.Linear"
    assert "--runtime pytorch" in unsupported(recognise(str(tmp_path / "0.pt"))).remedy


def test_arrays_are_data_not_a_model(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, x=np.zeros(3))
    with pytest.raises(InputError, match="holds numpy arrays") as caught:
        recognise(str(path))
    assert "--input-data" in caught.value.remedy


def test_an_archive_names_the_model_inside(tmp_path):
    path = tmp_path / "m.zip"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("zoo/resnet.onnx", b"x")
    path.write_bytes(buffer.getvalue())
    with pytest.raises(InputError, match=r"zip archive that contains zoo/resnet\.onnx"):
        recognise(str(path))


def test_an_openvino_model_is_its_xml_and_its_weights(tmp_path):
    path = tmp_path / "m.xml"
    path.write_text('<?xml version="1.0"?>\n<net name="m" version="11"></net>')
    with pytest.raises(InputError, match=r"m\.bin, which is not beside it"):
        recognise(str(path))
    (tmp_path / "m.bin").write_bytes(bytes(10))
    assert recognise(str(path)).size_bytes == path.stat().st_size + 10


def test_a_saved_models_folder_is_one_model(tmp_path):
    (tmp_path / "saved" / "variables").mkdir(parents=True)
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"\x08\x01\x12\x00")
    (tmp_path / "saved" / "variables" / "variables.data").write_bytes(bytes(10))
    found = recognise(str(tmp_path / "saved"))
    assert (found.format, found.size_bytes) == ("savedmodel", 14)


def test_a_folder_names_the_models_in_it(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"x")
    with pytest.raises(InputError, match="is a folder") as caught:
        recognise(str(tmp_path))
    assert str(tmp_path / "a.onnx") in caught.value.remedy


def test_a_missing_file_offers_the_nearest(tmp_path):
    (tmp_path / "resnet8.tflite").write_bytes(b"x")
    with pytest.raises(InputError, match="does not exist") as caught:
        recognise(str(tmp_path / "resnet.tflite"))
    assert str(tmp_path / "resnet8.tflite") in caught.value.remedy
    with pytest.raises(InputError, match="there is no folder"):
        recognise(str(tmp_path / "nowhere" / "resnet.tflite"))


def test_a_file_without_permission_says_so(tmp_path, monkeypatch):
    """Root may read everything, so the system's refusal is simulated."""
    path = tmp_path / "m.onnx"
    path.write_bytes(b"x")

    def refuse(*_args: object, **_kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError, match="permission denied"):
        recognise(str(path))


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("https://example.com/m.onnx", "is an address"),
        ("/dev/null", "no regular file"),
        ("a\0b", "cannot be read"),
        ("x" * 5000, "cannot be read"),
    ],
)
def test_what_cannot_be_a_file_says_why(spec, says):
    with pytest.raises(InputError, match=says):
        recognise(spec)


def test_a_callable_in_a_file_is_python_and_is_not_run(tmp_path):
    path = tmp_path / "app.py"
    path.write_text("raise SystemExit('it was run')\n\ndef frame():\n    return 1\n\nclass App:\n    pass\n")
    found = recognise(f"{path}:frame")
    assert (found.format, found.target, found.size_bytes) == ("python", f"{path}:frame", None)
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert recognise(f"{path}:App.run").target == f"{path}:App.run"
    with pytest.raises(InputError, match=r"defines no 'frames'") as caught:
        recognise(f"{path}:frames")
    assert f"Did you mean {path}:frame?" in caught.value.remedy


def test_a_callable_in_a_module_is_python():
    found = recognise("package.module:function")
    assert (found.format, found.path, found.sha256) == ("python", None, None)


def test_a_callable_in_a_missing_file_offers_the_nearest(tmp_path):
    (tmp_path / "app.py").write_text("def f(): pass\n")
    with pytest.raises(InputError, match=r"ap\.py does not exist") as caught:
        recognise(f"{tmp_path / 'ap.py'}:f")
    assert "app.py" in caught.value.remedy


def test_every_format_says_what_it_is_and_what_to_do():
    for name, kind in FORMATS.items():
        assert kind.name == name
        assert kind.describe
        assert kind.remedy
        assert all(suffix == suffix.lower() for suffix in kind.suffixes)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("formats/tensorrt/mnist.engine", "tensorrt"),
        ("formats/executorch/model.pte", "executorch"),
        ("formats/custom-op/mobilenet_v1_0.25_128_quant_edgetpu.tflite", "edgetpu-tflite"),
        ("cifar10-resnet-pytorch/resnet20-12fca82f.th", "state_dict"),
        ("silero-vad/silero_vad.jit", "torchscript"),
        ("ultraface/version-RFB-320.onnx", "onnx"),
        ("onnx-mnist/mnist.onnx", "onnx"),
        ("coral/movenet_single_pose_lightning_ptq.tflite", "tflite"),
    ],
)
def test_published_files_are_recognised(shared_data, name, kind):
    assert recognise(str(shared_data / name)).format == kind


def test_a_published_lfs_pointer_is_called_what_it_is(shared_data):
    with pytest.raises(InputError, match="Git LFS pointer"):
        recognise(str(shared_data / "formats" / "lfs-pointer" / "model.engine"))


@pytest.mark.parametrize("place", ["branch", "constant", "sparse", "function"])
def test_weights_in_another_file_belong_to_the_model_wherever_the_model_names_them(place: str, tmp_path: Path) -> None:
    """Size and checksum include the weights: changed weights are another model."""
    onnx = pytest.importorskip("onnx")
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    tensor = numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    onnx.external_data_helper.set_external_data(tensor, "weights.bin")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.ClearField("raw_data")
    constant = helper.make_node("Constant", [], ["w"])
    attribute = constant.attribute.add()
    attribute.name, attribute.type = "value", onnx.AttributeProto.TENSOR
    attribute.t.CopyFrom(tensor)
    product = helper.make_node("MatMul", ["x", "w"], ["y"])
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("x", "y")]
    graph = helper.make_graph([product], "g", info[:1], info[1:])
    if place == "constant":
        graph.node.insert(0, constant)
    elif place == "branch":
        inner = helper.make_graph([product], "i", [], info[1:], [tensor])
        del graph.node[:]
        graph.node.append(helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner))
    elif place == "sparse":
        graph.sparse_initializer.add().values.CopyFrom(tensor)
    model = helper.make_model(graph)
    if place == "function":
        model.functions.append(helper.make_function("own", "F", ["x"], ["y"], [constant, product], []))
    path, weights = tmp_path / "net.onnx", tmp_path / "weights.bin"
    path.write_bytes(model.SerializeToString())
    weights.write_bytes(bytes(64))
    found = recognise(str(path))
    assert found.files == (path, weights)
    assert found.size_bytes == path.stat().st_size + 64
    weights.write_bytes(bytes(63) + b"\x01")
    assert recognise(str(path)).sha256 != found.sha256
