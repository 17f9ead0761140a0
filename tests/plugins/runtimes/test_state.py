"""A sample is judged as if none had come before it, whatever the model keeps from call to call."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from edgeprof.launch.supervisor import Worker, WorkerSpec
from edgeprof.worker.runtime import LoadOptions
from tests import models

#: TensorFlow takes a number of threads only before its first operator, and these tests make their models themselves.
CPU = LoadOptions(device="cpu", threads=None, batch=1, shapes={}, options={})
SAMPLES = [np.full((1, 2), value, "float32") for value in (1, 2, 3)]


def _script(folder: Path) -> Path:
    import torch

    from .stateful_torch import Counter

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(Counter().eval()).save(str(folder / "counter.pt"))
    return folder / "counter.pt"


def _exported(folder: Path) -> Path:
    import torch

    from .stateful_torch import Buffered

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(Buffered().eval(), (torch.zeros(1, 2),)), str(folder / "buffered.pt2"))
    return folder / "buffered.pt2"


def _callable(folder: Path) -> str:
    path = folder / "app.py"
    path.write_text(
        "seen = []\ndef run(x):\n    seen.append(x)\n    return x + len(seen)\ndef reset():\n    seen.clear()\n"
    )
    return f"{path}:run"


def _openvino(folder: Path) -> Path:
    import openvino
    from openvino import opset13

    x = opset13.parameter([1, 2], np.float32, name="x")
    before = opset13.read_value(opset13.constant(np.zeros((1, 2), np.float32)), "seen", np.float32, [1, 2])
    added = opset13.add(x, before)
    model = openvino.Model([opset13.result(added)], [opset13.assign(added, "seen")], [x], "sum")
    openvino.save_model(model, folder / "sum.xml", compress_to_fp16=False)
    return folder / "sum.xml"


def _executorch(folder: Path) -> Path:
    import torch
    from executorch.exir import to_edge_transform_and_lower

    from .stateful_torch import Buffered

    exported = torch.export.export(Buffered().eval(), (torch.zeros(1, 2),))
    (folder / "buffered.pte").write_bytes(to_edge_transform_and_lower(exported).to_executorch().buffer)
    return folder / "buffered.pte"


def _keras(folder: Path, name: str) -> Path:
    import tensorflow as tf

    x = tf.keras.Input(batch_shape=(1, 2), name="x")
    y = tf.keras.layers.SimpleRNN(2, stateful=True)(tf.keras.layers.Reshape((1, 2))(x))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the .h5 format is deprecated
        tf.keras.Model(x, y).save(folder / name)
    return folder / name


def _saved_model(folder: Path) -> Path:
    import tensorflow as tf

    class Total(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.total = tf.Variable(tf.zeros((1, 2)))

        @tf.function(input_signature=[tf.TensorSpec((1, 2), tf.float32, name="x")])
        def __call__(self, x):
            return {"y": x + self.total.assign_add(x)}

    tf.saved_model.save(Total(), str(folder / "total"))
    return folder / "total"


KEEPERS = {
    "Keras": ("tensorflow", "keras", lambda folder: _keras(folder, "rnn.keras")),
    "Keras, .h5": ("tensorflow", "keras", lambda folder: _keras(folder, "rnn.h5")),
    "SavedModel": ("tensorflow", "keras", _saved_model),
    "ExecuTorch": ("executorch", "executorch", _executorch),
    "OpenVINO": ("openvino", "openvino", _openvino),
    "variable tensor": ("ai_edge_litert", "litert", lambda folder: models.tflite_sum(folder / "sum.tflite")),
    "resource variable": (
        "ai_edge_litert",
        "litert",
        lambda folder: models.tflite_sum(folder / "sum.tflite", resource=True),
    ),
    "TorchScript": ("torch", "pytorch", _script),
    "torch.export": ("torch", "pytorch", _exported),
    "eager": ("torch", "pytorch", lambda _: f"{Path(__file__).with_name('stateful_torch.py')}:Counter"),
    "callable": ("numpy", "python", _callable),
}


@pytest.fixture(params=KEEPERS)
def load(request, tmp_path):
    """Load the same model anew."""
    library, runtime, make = KEEPERS[request.param]
    pytest.importorskip(library)
    from edgeprof.plugins import PluginHost

    made = PluginHost(only=[runtime]).get("runtimes", runtime)()
    target = str(make(tmp_path))
    return lambda: made.load(target, CPU)


def test_after_a_reset_a_run_answers_as_the_first_one_does(load):
    fresh = []
    for x in SAMPLES:
        session = load()
        (name,) = [spec.name for spec in session.inputs]
        fresh.append([value.tolist() for value in session.run({name: x}).values()])
    session = load()
    found = []
    for x in SAMPLES:
        assert session.reset() is None
        found.append([value.tolist() for value in session.run({name: x}).values()])
    kept = [[value.tolist() for value in session.run({name: x}).values()] for x in SAMPLES]
    assert found == fresh
    assert kept != fresh  # the model does keep something


def test_windows_before_the_dataset_leave_no_trace_in_its_answers(load):
    session = load()
    (name,) = [spec.name for spec in session.inputs]
    session.reset()
    first = [value.tolist() for value in session.run({name: SAMPLES[1]}).values()]
    call = session.bind({name: SAMPLES[0]})
    for _ in range(3):
        call()
    session.reset()
    assert [value.tolist() for value in session.run({name: SAMPLES[1]}).values()] == first


def test_a_worker_resets_before_each_inference(tmp_path):
    pytest.importorskip("ai_edge_litert")
    from edgeprof_plugins.runtimes.litert import runtime

    path = models.tflite_sum(tmp_path / "sum.tflite")
    with Worker(WorkerSpec(Path(runtime.__file__), "LiteRT", str(path), CPU)) as worker:
        worker.load()
        answers = [worker.infer({"x": x})["y"].tolist() for x in SAMPLES]
        assert worker.kept is None
    assert answers == [x.tolist() for x in SAMPLES]


def test_what_cannot_be_taken_back_is_said(tmp_path):
    pytest.importorskip("torch")
    from edgeprof_plugins.runtimes.pytorch.runtime import PyTorch

    options = CPU._replace(shapes={"x": (1, 2)})
    session = PyTorch().load(f"{Path(__file__).with_name('stateful_torch.py')}:Worn", options)
    assert session.reset() is None
    session.run({"x": SAMPLES[0]})
    assert "weight" in session.reset()


def test_a_module_that_writes_into_its_input_is_fed_the_same_in_every_call(tmp_path):
    pytest.importorskip("torch")
    from edgeprof_plugins.runtimes.pytorch.runtime import PyTorch

    options = CPU._replace(shapes={"x": (1, 2)})
    session = PyTorch().load(f"{Path(__file__).with_name('stateful_torch.py')}:Overwriting", options)
    feeds = {"x": np.ones((1, 2), "float32")}
    assert session.run(feeds)["output"].tolist() == [[2, 2]]
    assert feeds["x"].tolist() == [[1, 1]]
    call = session.bind(feeds)
    answers = [call().tolist() for _ in range(3)]
    assert answers == [[[2, 2]]] * 3
    assert feeds["x"].tolist() == [[1, 1]]
