"""What is fuzzed: every reader of files that others wrote, with whole files to damage."""

from __future__ import annotations

import functools
import io
import json
import os
import pickle
import socket
import struct
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgeprof.artifact import recognise
from edgeprof.errors import EdgeprofError
from edgeprof.worker import embedded_code
from edgeprof.worker.runtime import LoadError, TensorSpec
from tests.fuzzing import harness, mutations, services
from tests.fuzzing.harness import Reader, Report
from tests.hostile_programs import saved
from tests.profiler.artifact import gguf_files

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SHARED = Path(__file__).parents[3] / "shared"
USUAL = (EdgeprofError,)


def _packed(entries: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def program() -> bytes:
    """A ``.pt2`` in small: what torch.export.save writes, without torch."""
    tensor = {"as_tensor": {"name": "x"}}
    shape = {"as_expr": {"expr_str": "Symbol('s77', positive=True, integer=True)", "hint": {"as_int": 2}}}
    node = {"target": "torch.ops.aten.relu.default", "inputs": [{"name": "self", "arg": tensor}], "metadata": {}}
    model = {
        "graph_module": {"graph": {"inputs": [tensor], "outputs": [tensor], "nodes": [node], "sizes": [shape]}},
        "range_constraints": {"s77": {"min_val": 2, "max_val": 64}},
        "guards_code": ["L['x'].size()[0] >= 2"],
        "in_spec": '[1, {"type": "builtins.tuple", "context": "null", "children_spec": []}]',
    }
    weights = {"config": {"w": {"path_name": "weight_0", "is_param": True, "use_pickle": False}}}
    entries = {
        "data/weights/weight_0": bytes(64),
        "data/weights/model_weights_config.json": json.dumps(weights).encode(),
        "data/constants/model_constants_config.json": b'{"config": {}}',
        "models/model.json": json.dumps(model).encode(),
        "data/sample_inputs/model.pt": saved(((), {})),
        "archive_format": b"pt2",
        "archive_version": b"0",
    }
    return _packed({f"model/{name}": content for name, content in entries.items()})


def torchscript() -> bytes:
    code = b"class M(Module):\n  def forward(self, x: Tensor) -> Tensor:\n    return torch.relu(x)\n"
    entries = {"data.pkl": pickle.dumps({"a": 1}, 2), "constants.pkl": b"\x80\x02).", "code/__torch__.py": code}
    return _packed({f"m/{name}": content for name, content in entries.items()}, zipfile.ZIP_DEFLATED)


def tflite() -> bytes:
    """A TFLite model of one custom operator and one buffer, by hand."""
    # root, identifier, vtable of Model (5 fields), Model, operator codes, code's vtable, code, name, buffers, buffer
    parts = struct.pack("<I4s", 24, b"TFL3")
    parts += struct.pack("<8H", 14, 20, 4, 8, 0, 0, 12, 0)  # vtable at 8: version 4, operator_codes 8, buffers 12
    parts += struct.pack("<iIII", 16, 3, 8, 52)  # Model at 24
    parts += struct.pack("<II", 1, 16)  # operator codes at 40: one, at 60
    parts += struct.pack("<6H", 12, 16, 4, 8, 0, 12)  # vtable at 48
    parts += struct.pack("<iiII", 12, 32, 8, 32)  # code at 60: builtin 32 (custom), name at 76
    parts += struct.pack("<I8s", 6, b"my-own")  # name at 76
    parts += struct.pack("<II", 1, 12)  # buffers
    return parts + struct.pack("<4H", 6, 8, 4, 0) + struct.pack("<iI", 8, 0)


def onnx() -> bytes:
    def message(number: int, content: bytes) -> bytes:
        return bytes([number << 3 | 2]) + mutations._to_varint(len(content)) + content

    entry = message(1, b"location") + message(2, b"weights.bin")
    tensor = message(8, b"w") + bytes([1 << 3, 4, 2 << 3, 1]) + message(13, entry)
    node = message(1, b"x") + message(2, b"y") + message(4, b"Relu")
    graph = message(1, node) + message(2, b"g") + message(5, tensor)
    return bytes([1 << 3, 8]) + message(2, b"fuzz") + message(7, graph) + message(8, bytes([2 << 3, 17]))


def npz() -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, x=np.zeros((8, 4), np.float32), y=np.arange(8))
    return buffer.getvalue()


def results() -> list[bytes]:
    from edgeprof.results.document import to_json
    from tests.profiler.results import samples

    made = (samples.study(), samples.one(), samples.failed(), samples.estimated(), samples.no_sensor())
    return [to_json(one).encode() for one in made]


STUDY = b"""model = "m.onnx"
dataset = "d.npz"
metric = "top1"
seed = 3
[recipes]
explicit = ["int8-dynamic", "prune:amount=0.3"]
grid = [{ with = "prune:amount={a}+int8-static", a = { from = 0.1, to = 0.9, steps = 4, scale = "log" } }]
[protocol]
windows = 3
window = 1.0
[budgets]
max_latency_p99 = "10ms"
[preprocess]
mean = [0.1, 0.2]
"""
DATASET = b'path = "case.npz"\nformat = "npz"\nx = "x"\n[preprocess]\nmean = [0.5]\n'


COCO = {
    "images": [{"id": 1, "file_name": "a.npy", "height": 4, "width": 4}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 7, "bbox": [0, 0, 2, 2], "area": 4, "iscrowd": 0}],
    "categories": [{"id": 7, "name": "cat"}],
}
MANIFEST = {
    "schema": "edgeprof.compress/1",
    "source": {"path": "m.onnx", "format": "onnx", "sha256": "0"},
    "variants": [{"name": "fp16", "model": {"path": "m.onnx", "sha256": "0"}, "recipe": [{"compressor": "fp16"}]}],
}
CALIBRATIONS = {
    "version": 1,
    "entries": [{"board": "b", "sensor": "s", "channel": "c", "line": None, "filter": None}],
}


@functools.cache
def _host() -> Any:
    from edgeprof.plugins import PluginHost

    return PluginHost.from_environment()


def _read_dataset(path: Path) -> object:
    from edgeprof.evaluation.load import load_dataset

    if path.suffix == ".toml":
        path.with_name("case.npz").write_bytes(npz())
    data = load_dataset(str(path), _host())
    return [batch for batch, _ in zip(data.batches(2), range(2), strict=False)]


def _read_input_data(path: Path) -> object:
    from edgeprof.worker.input_file import read_inputs

    return read_inputs(str(path), [TensorSpec("x", (8, 4), "float32", None)])


def _read_study(path: Path) -> object:
    from edgeprof.study.recipe import load

    return load(path)


def _report(path: Path) -> object:
    from edgeprof.reporters import console, csv_rows, html_page, markdown
    from edgeprof.results.document import load, to_json
    from edgeprof.verdicts.compare import compare

    result = load(path)
    for render in (csv_rows.render, markdown.render, html_page.render):
        render([result])
    for one in result.variants:
        for other in result.variants:
            compare(one, other)
    return console.render(result), to_json(result)


def _receive(path: Path) -> object:
    from edgeprof.worker.wire import Connection

    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        with_limit = path.read_bytes()[: 1 << 16]
        sent = theirs.send(with_limit) if with_limit else 0
        theirs.close()
        connection = Connection(ours)
        while sent:
            connection.receive()
    return None


def _read_as(kind: str, path: Path) -> object:
    """A data set of a kind, whose images are there."""
    from edgeprof.evaluation.load import load_dataset

    for name in ("a.npy", "b.npy"):
        np.save(path.with_name(name), np.zeros((4, 4, 3), np.uint8))
    data = load_dataset(f"{kind}:{path}", _host())
    return len(data)


def _manifest(path: Path) -> object:
    from edgeprof.compression.recipe import recipe_beside

    folder = path.with_suffix("")
    folder.mkdir(exist_ok=True)
    (folder / "m.compress.json").write_bytes(path.read_bytes())
    (folder / "m.onnx").write_bytes(onnx().replace(b"location", b"elsewher"))
    return recipe_beside(recognise(str(folder / "m.onnx")))


def _calibrations(path: Path) -> object:
    from edgeprof.sensing import corrections

    folder = path.with_suffix("")
    folder.mkdir(exist_ok=True)
    (folder / corrections.FILE).write_bytes(path.read_bytes())
    return corrections.Calibrations(folder).entries()


def _record(path: Path) -> object:
    from edgeprof.sensing.meter.record import read_record

    return read_record(path)


def _waveform(path: Path) -> object:
    from edgeprof.simulation.waveform import read_csv

    return read_csv(path)


def _store(path: Path) -> object:
    from edgeprof.results.store import Store

    folder = path.with_suffix("")
    folder.mkdir(exist_ok=True)
    (folder / "results.sqlite3").write_bytes(path.read_bytes())
    return Store(folder).history(), Store(folder).newest()


@functools.cache
def _stored() -> bytes:
    from edgeprof.results.store import Store
    from tests.profiler.results import samples

    with tempfile.TemporaryDirectory() as folder:
        Store(Path(folder)).save(samples.one())
        return (Path(folder) / "results.sqlite3").read_bytes()


def _graph(path: Path) -> object:
    from edgeprof.diagnosis.graph import read_graph

    return read_graph(recognise(str(path)), _host())


def _examples(pattern: str, biggest: int = 60_000) -> list[bytes]:
    found = sorted((SHARED / "cases" / "models").glob(pattern)) if SHARED.is_dir() else []
    return [path.read_bytes() for path in found if path.stat().st_size <= biggest]


def _legacy() -> list[bytes]:
    from edgeprof.artifact.archives import LEGACY_TORCH

    state = pickle.dumps({"a": [1, 2], "b": "text"}, 2)
    return [LEGACY_TORCH + pickle.dumps(1001, 2) + pickle.dumps({}, 2) + state, state, pickle.dumps(_legacy, 4)]


def _tflites() -> list[bytes]:
    return [tflite(), *_examples("*/*.tflite")]


def _as_list(make: Callable[[], bytes]) -> Callable[[], Sequence[bytes]]:
    return lambda: [make()]


def _identify(path: Path) -> object:
    path.with_name("weights.bin").write_bytes(bytes(16))
    if path.suffix in (".xml", ".param"):
        path.with_suffix(".bin").write_bytes(bytes(16))
    return recognise(os.fspath(path))


def _safetensors() -> bytes:
    head = json.dumps({"w": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}).encode()
    return struct.pack("<Q", len(head)) + head + bytes(16)


def _keras() -> bytes:
    dense = {"module": "keras.layers", "class_name": "Dense", "config": {"units": 3}}
    model = {"module": "keras", "class_name": "Sequential", "config": {"name": "m", "layers": [dense]}}
    return _packed({"metadata.json": b"{}", "config.json": json.dumps(model).encode(), "model.weights.h5": bytes(9)})


OPENVINO = b"""<?xml version="1.0"?>
<net name="m" version="11">
<layers><layer id="0" name="x" type="Parameter" version="opset1"><data shape="1,4" element_type="f32"/></layer></layers>
<edges></edges>
</net>
"""


def _image(kind: str) -> bytes:
    buffer = io.BytesIO()
    pytest.importorskip("PIL.Image").new("RGB", (8, 6), (200, 10, 30)).save(buffer, kind)
    return buffer.getvalue()


def _array() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((4, 4, 3), np.uint8))
    return buffer.getvalue()


def _read_beside(labels: str, path: Path) -> object:
    """The images of a folder with a table of labels."""
    from edgeprof.evaluation.load import load_dataset

    table = path.with_name(labels)
    table.write_text(f"file,label\n{path.name},0\n")
    data = load_dataset(f"table:{table}", _host())
    return [batch for batch, _ in zip(data.batches(1), range(1), strict=False)]


_read_images = functools.partial(_read_beside, "labels.csv")


READERS = [
    Reader("program", ".pt2", _as_list(program), mutations.of_zip, _identify, USUAL),
    Reader("program code", ".pt2", _as_list(program), mutations.of_zip, lambda p: embedded_code.find_code(str(p)), ()),
    Reader("torchscript", ".pt", _as_list(torchscript), mutations.of_zip, _identify, USUAL),
    Reader("pickle", ".pt", _legacy, mutations.of_pickle, _identify, USUAL),
    Reader("tflite", ".tflite", _tflites, mutations.of_flatbuffer, _identify, USUAL),
    Reader("onnx", ".onnx", lambda: [onnx(), *_examples("*/*.onnx")], mutations.of_protobuf, _identify, USUAL),
    Reader("engine", ".engine", lambda: [b"ftrt" + bytes(range(256)) * 4], mutations.of_bytes, _identify, USUAL),
    Reader("gguf", ".gguf", _as_list(gguf_files.gguf), mutations.of_bytes, _identify, USUAL),
    Reader("dataset npz", ".npz", _as_list(npz), mutations.of_zip, _read_dataset, USUAL),
    Reader("input npz", ".npz", _as_list(npz), mutations.of_zip, _read_input_data, (LoadError,)),
    Reader("dataset toml", ".toml", lambda: [DATASET], mutations.of_toml, _read_dataset, USUAL),
    Reader("study toml", ".toml", lambda: [STUDY], mutations.of_toml, _read_study, USUAL),
    Reader("result", ".json", results, mutations.of_json, _report, USUAL),
    Reader("store", ".sqlite3", lambda: [_stored()], mutations.of_bytes, _store, USUAL),
    Reader("table", ".csv", lambda: [b"file,label\na.npy,0\nb.npy,1\n"], mutations.of_lines,
           functools.partial(_read_as, "table"), USUAL),
    Reader("pairs", ".csv", lambda: [b"a.npy,b.npy,1,0\nb.npy,a.npy,0,1\n"], mutations.of_lines,
           functools.partial(_read_as, "pairs"), USUAL),
    Reader("coco", ".json", lambda: [json.dumps(COCO).encode()], mutations.of_json,
           functools.partial(_read_as, "coco"), USUAL),
    Reader("manifest", ".json", lambda: [json.dumps(MANIFEST).encode()], mutations.of_json, _manifest, USUAL),
    Reader("calibrations", ".json", lambda: [json.dumps(CALIBRATIONS).encode()], mutations.of_json,
           _calibrations, USUAL),
    Reader("meter record", ".csv", lambda: [b"time,watts\n1.0,2.5\n2.0,2.6\n"], mutations.of_lines, _record, USUAL),
    Reader("waveform", ".csv", lambda: [b"time_s,VDD_IN,VDD_SOC\n0,2.5,1\n1,3,1\n"], mutations.of_lines,
           _waveform, USUAL),
    Reader("wire", ".bin", lambda: [b'{"ok":true,"blobs":[4,2],"id":1}\nabcdef{"ok":false}\n'], mutations.of_bytes,
           _receive, (EOFError, ValueError)),
    Reader("safetensors", ".safetensors", lambda: [_safetensors()], mutations.of_bytes, _identify, USUAL),
    Reader("keras", ".keras", _as_list(_keras), mutations.of_zip, _identify, USUAL),
    Reader("openvino", ".xml", lambda: [OPENVINO], mutations.of_lines, _identify, USUAL),
    Reader("ncnn", ".param", lambda: [b"7767517\n1 1\nInput data 0 1 data 0=4 1=1\n"], mutations.of_lines,
           _identify, USUAL),
    Reader("mnn", ".mnn", lambda: [tflite().replace(b"TFL3", bytes(4))], mutations.of_flatbuffer, _identify, USUAL),
    Reader("executorch", ".pte", lambda: [tflite().replace(b"TFL3", b"ET12")], mutations.of_flatbuffer,
           _identify, USUAL),
    Reader("image", ".png", lambda: [_image(kind) for kind in ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF")],
           mutations.of_bytes, _read_images, USUAL),
    Reader("array", ".npy", _as_list(_array), mutations.of_bytes, functools.partial(_read_beside, "labels.csv"), USUAL),
    *services.READERS,
    Reader("graph onnx", ".onnx", lambda: _examples("*/*.onnx"), mutations.of_protobuf, _graph, USUAL),
    Reader("graph tflite", ".tflite", lambda: _examples("*/*.tflite"), mutations.of_flatbuffer, _graph, USUAL),
]  # fmt: skip


def run(name: str, cases: int, folder: Path, first: int) -> Report:
    """``harness.run`` for a reader by its name, which a process that was begun afresh can be told."""
    return harness.run(next(one for one in READERS if one.name == name), cases, folder, first=first)
