"""ONNX's own backend suite: what plain ONNX Runtime runs, edgeprof runs, with equal outputs.

The models and their inputs come with the onnx package. A part of them runs by default; EDGEPROF_ONNX_SUITE=1 (``make
test-onnx-suite``) runs all, and prints the counts that docs/real-models.md gives.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeprof.worker import tensors
from edgeprof.worker.inputs import check_feeds
from edgeprof.worker.runtime import LoadOptions

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from edgeprof_plugins.runtimes.onnxruntime.runtime import OnnxRuntime  # noqa: E402 - after what it needs is known to be here

CPU = LoadOptions("cpu", 1, 1, {}, {})
WHOLE = os.environ.get("EDGEPROF_ONNX_SUITE") == "1"
#: Without WHOLE, one model of so many, and those of which a fault was once found.
EACH = 25
ALWAYS = (
    "test_loop13_seq",
    "test_sequence_insert_at_front",
    "test_optional_get_element_sequence",
    "test_identity_opt",
    "test_cast_FLOAT_to_BFLOAT16",
    "test_cast_BFLOAT16_to_FLOAT",
    "test_cast_FLOAT_to_FLOAT8E5M2",
    "test_cast_e8m0_FLOAT8E8M0_to_FLOAT",
    "test_strnormalizer_export_monday_casesensintive_lower",
    "test_nonmaxsuppression_limit_output_size",
)
#: Outputs that are drawn anew in each run.
RANDOM = {
    "RandomNormal",
    "RandomUniform",
    "RandomNormalLike",
    "RandomUniformLike",
    "Bernoulli",
    "Multinomial",
    "Dropout",
}


def _cases() -> list[Any]:
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the suite computes its own infinities
        found = [
            case
            for kind in ("node", "simple", "pytorch-operator", "pytorch-converted")
            for case in load_model_tests(kind=kind)
            if case.model is not None or case.model_dir
        ]
    found.sort(key=lambda case: str(case.name))
    return found if WHOLE else [c for n, c in enumerate(found) if n % EACH == 0 or c.name in ALWAYS]


def _opened(case: Any, folder: Path) -> tuple[Path, Any, list[Any]]:
    """The file of a case, its model and its inputs."""
    if case.model is not None:
        path = folder / "model.onnx"
        path.write_bytes(case.model.SerializeToString())
        return path, case.model, list(case.data_sets[0][0])
    path = Path(case.model_dir) / "model.onnx"
    model, inputs = onnx.load(path), []
    for number in range(len(list((path.parent / "test_data_set_0").glob("input_*.pb")))):
        raw = (path.parent / "test_data_set_0" / f"input_{number}.pb").read_bytes()
        kind = model.graph.input[number].type.WhichOneof("value")
        message = {
            "tensor_type": onnx.TensorProto,
            "sequence_type": onnx.SequenceProto,
            "optional_type": onnx.OptionalProto,
        }[kind]()
        message.ParseFromString(raw)
        read = {
            "tensor_type": onnx.numpy_helper.to_array,
            "sequence_type": onnx.numpy_helper.to_list,
            "optional_type": onnx.numpy_helper.to_optional,
        }[kind]
        inputs.append(read(message))
    return path, model, inputs


def _array(value: Any) -> Any:
    if isinstance(value, onnx.TensorProto):
        return onnx.numpy_helper.to_array(value)
    return np.asarray(value) if isinstance(value, np.generic) else value


def _plain(path: Path, model: Any, feeds: dict[str, Any]) -> dict[str, Any]:
    """What ONNX Runtime alone answers; outputs that it cannot hand out as numbers are left out."""
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    codes = {one.name: one.type.tensor_type.elem_type for one in model.graph.input}
    fed = {}
    for name, value in feeds.items():
        if isinstance(value, np.ndarray) and value.dtype.kind not in "biufcOSU":
            bits = np.ascontiguousarray(value).view(np.uint16 if value.dtype.itemsize == 2 else np.uint8)
            fed[name] = ort.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, codes[name])
        else:
            fed[name] = value
    answers = {}
    for output in session.get_outputs():
        try:
            (answer,) = session.run([output.name], fed)
        except RuntimeError as error:
            if "No corresponding Numpy" not in str(error):
                raise
            continue
        if "float8" not in output.type:  # their bits, as uint8
            answers[output.name] = answer
    return answers


def _edgeprof(path: Path, feeds: dict[str, Any]) -> dict[str, Any]:
    """What a bench does: through the wire, checked, run, and bound for the windows."""
    session = OnnxRuntime().load(str(path), CPU)
    checked = check_feeds(session.inputs, tensors.load(*tensors.dump(feeds)))
    answers = tensors.load(*tensors.dump(session.run(checked)))
    call = session.bind(checked)
    call()
    call()
    session.close()
    return answers


def _equal(wanted: Any, found: Any) -> bool:
    if wanted is None:
        return found is None or np.asarray(found).tolist() == [None]
    if isinstance(wanted, list):
        return len(wanted) == len(found) and all(map(_equal, wanted, found))
    if isinstance(wanted, dict):
        return bool(wanted == found)
    wanted, found = np.asarray(wanted), np.asarray(found)
    if wanted.dtype.kind in "OSU":
        return wanted.shape == found.shape and wanted.tolist() == found.tolist()
    return np.array_equal(wanted, found, equal_nan=wanted.dtype.kind in "fc") and wanted.dtype == found.dtype


def _packed(feeds: dict[str, Any]) -> bool:
    """Whether plain ONNX Runtime could not be fed from Python at all: several elements in a byte."""
    return any(
        getattr(getattr(v, "dtype", None), "name", "").endswith(("int2", "int4", "e2m1fn")) for v in feeds.values()
    )


@pytest.mark.timeout(1800 if WHOLE else 120)
def test_what_plain_onnx_runtime_runs_runs_here_with_equal_outputs(tmp_path, capsys):
    counts: Counter[str] = Counter()
    wrong = []
    for case in _cases():
        path, model, inputs = _opened(case, tmp_path)
        feeds = {one.name: _array(value) for one, value in zip(model.graph.input, inputs, strict=False)}
        if _packed(feeds):
            counts["skipped: several elements in a byte, which plain ONNX Runtime takes no data for"] += 1
            continue
        try:
            wanted = _plain(path, model, feeds)
        except Exception as error:  # noqa: BLE001 - whatever the library objects to
            kind = "operators or types it lacks" if "NOT_IMPLEMENTED" in str(error) else "refused or failed"
            counts[f"skipped: plain ONNX Runtime: {kind}"] += 1
            continue
        try:
            found = _edgeprof(path, feeds)
        except Exception as error:  # noqa: BLE001 - all of them are wanted
            wrong.append(f"{case.name}: {type(error).__name__}: {error}")
            continue
        drawn = any(node.op_type in RANDOM for node in model.graph.node)
        if drawn or all(_equal(value, found[name]) for name, value in wanted.items()):
            counts["equal"] += 1
        else:
            wrong.append(f"{case.name}: other outputs")
    with capsys.disabled():
        if WHOLE:
            print(f"\nonnx {onnx.__version__}, onnxruntime {ort.__version__}: {dict(counts)}")
    assert wrong == []
    assert counts["equal"] > 50
