"""Archives of PyTorch whose loading runs their author's code; each writes a file, so that a test sees what ran."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


class Payload:
    """Unpickling it writes the file ``marker``."""

    def __init__(self, marker: Path) -> None:
        self._call = f"open({str(marker)!r}, 'w').close()"

    def __reduce__(self) -> Any:
        return exec, (self._call,)


def exported(path: Path) -> Path:
    """A program as torch.export.save writes it: one convolution over an open batch, a constant, sample inputs."""
    import torch

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 4, 3)

        def forward(self, x: Any) -> Any:
            return self.conv(x) + torch.arange(x.shape[0])[:, None, None, None]

    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(Net().eval(), (torch.randn(2, 3, 8, 8),), dynamic_shapes={"x": {0: batch}})
    torch.export.save(program, str(path))
    return path


def entries_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def pack(path: Path, entries: dict[str, bytes], root: str = "package") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in entries.items():
            archive.writestr(f"{root}/{name}" if root else name, content)
    return path


def saved(value: Any) -> bytes:
    """What torch.save writes, without torch: a zip with a pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(value, protocol=2))
        archive.writestr("archive/byteorder", b"little")
        archive.writestr("archive/version", b"3\n")
    return buffer.getvalue()


def attacks(program: Path, folder: Path) -> dict[str, tuple[Path, Path, str]]:
    """Name → (the file, the marker that its payload writes, the entry that a refusal must name)."""
    made: dict[str, tuple[Path, Path, str]] = {}
    clean = entries_of(program)

    def add(name: str, entry: str, changes: dict[str, bytes]) -> None:
        made[name] = (pack(folder / f"{name}.pt2", {**clean, **changes}), folder / f"ran-{name}", entry)

    def model(**changes: Any) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(clean["models/model.json"])
        document.update(changes)
        return document

    def payload(name: str) -> Payload:
        return Payload(folder / f"ran-{name}")

    call = "open({!r}, 'w').close()"
    sample = "data/sample_inputs/model.pt"
    add("sample-inputs", sample, {sample: saved((payload("sample-inputs"),))})
    weights = json.loads(clean["data/weights/model_weights_config.json"])
    first = next(iter(weights["config"].values()))
    first["use_pickle"] = True
    add(
        "weight-pickle",
        f"data/weights/{first['path_name']}",
        {
            "data/weights/model_weights_config.json": json.dumps(weights).encode(),
            f"data/weights/{first['path_name']}": saved(payload("weight-pickle")),
        },
    )
    constants = {"config": {"x": {**first, "path_name": "tensor_0", "use_pickle": True}}}
    add(
        "constant-pickle",
        "data/constants/tensor_0",
        {
            "data/constants/model_constants_config.json": json.dumps(constants).encode(),
            "data/constants/tensor_0": saved(payload("constant-pickle")),
        },
    )
    opaque = {"config": {"x": {**first, "path_name": "opaque_obj_0", "use_pickle": True}}}
    add(
        "opaque-object",
        "opaque_obj_0",
        {
            "data/constants/model_constants_config.json": json.dumps(opaque).encode(),
            "data/constants/opaque_obj_0": pickle.dumps(payload("opaque-object")),
        },
    )
    add("legacy-weights", "data/weights/model.pt", {"data/weights/model.pt": saved({"a": payload("legacy-weights")})})
    add(
        "legacy-constants",
        "data/constants/model.pt",
        {"data/constants/model.pt": saved({"a": payload("legacy-constants")})},
    )
    add("library", "data/aotinductor/model/x.wrapper.so", {"data/aotinductor/model/x.wrapper.so": b"\x7fELF"})
    guard = call.format(str(folder / "ran-guard")) + " or True"
    add("guard", "models/model.json", {"models/model.json": json.dumps(model(guards_code=[guard])).encode()})
    text = clean["models/model.json"].decode()
    shape = f"exec({call.format(str(folder / 'ran-shape'))!r}) or Symbol('s77', positive=True, integer=True)"
    document = json.loads(text)
    _replace(document, "expr_str", shape)
    add("shape", "models/model.json", {"models/model.json": json.dumps(document).encode()})
    document = json.loads(text)
    graph = document["graph_module"]["graph"]
    node = json.loads(json.dumps(graph["nodes"][0]))
    node["target"] = "torch.serialization.os.system"
    node["inputs"] = [{"name": "", "arg": {"as_string": f"touch {folder / 'ran-target'}"}, "kind": 1}]
    node["outputs"] = []
    node["metadata"] = {}
    graph["nodes"].insert(0, node)
    add("target", "models/model.json", {"models/model.json": json.dumps(document).encode()})
    old = {
        "version": b"8.8",
        "serialized_exported_program.json": clean["models/model.json"],
        "serialized_state_dict.pt": saved({"a": payload("old-format")}),
        "serialized_constants.pt": saved({}),
        "serialized_example_inputs.pt": saved(()),
    }
    made["old-format"] = (
        pack(folder / "old-format.pt2", old, root=""),
        folder / "ran-old-format",
        "serialized_state_dict.pt",
    )
    return made


def _replace(document: Any, key: str, value: str) -> None:
    if isinstance(document, dict):
        for name, inner in document.items():
            if name == key:
                document[name] = value
            else:
                _replace(inner, key, value)
    elif isinstance(document, list):
        for inner in document:
            _replace(inner, key, value)
