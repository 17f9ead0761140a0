"""PyTorch through edgeprof's contract: TorchScript, torch.export and eager modules."""

from __future__ import annotations

import contextlib
import textwrap
import time
import warnings
from types import SimpleNamespace

import numpy as np
import pytest

from edgeprof.testing import check_runtime
from edgeprof.worker.inputs import own_feeds, random_feeds
from edgeprof.worker.runtime import ANY_SHAPE, LoadError, LoadOptions

torch = pytest.importorskip("torch")

from edgeprof_plugins.runtimes.pytorch.runtime import PyTorch  # noqa: E402 - after what it needs is known to be here

CPU = LoadOptions(device="cpu", threads=None, batch=1, shapes={}, options={})
X = np.arange(8, dtype="float32").reshape(2, 4)


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def app(tmp_path):
    """Eager modules and what is none, in a file."""
    path = tmp_path / "eager_app.py"
    path.write_text(
        textwrap.dedent("""
            import torch

            class Net(torch.nn.Module):
                example_inputs = (torch.tensor([[1, 2, 3]]),)
                def __init__(self):
                    super().__init__()
                    self.table = torch.nn.Embedding.from_pretrained(torch.arange(10.0).reshape(10, 1))
                def forward(self, ids, scale=1.0):
                    return {"rows": self.table(ids), "mode": torch.tensor(self.training)}

            def factory():
                return Net().train()

            class Shapeless(torch.nn.Module):
                def forward(self, left, right):
                    return left @ right, (left.sum(), right.sum())

            def broken():
                raise OSError("no weights here")

            def number():
                return 3
        """)
    )
    return path


def test_torchscript_conforms_and_gives_the_right_answer(torchscript_model):
    options = CPU._replace(shapes={"x": (2, 4)}, threads=1)
    check_runtime(PyTorch(), torchscript_model, feeds={"x": X}, expected={"output": 2 * X + 1}, options=options)


def test_an_exported_program_conforms_and_gives_the_right_answer(pt2_model):
    session = PyTorch().load(str(pt2_model), CPU)
    assert session.inputs[0].shape == ("batch", 4)
    name = session.outputs[0].name
    check_runtime(PyTorch(), pt2_model, feeds={"x": X}, expected={name: 2 * X + 1}, options=CPU._replace(threads=1))


def test_an_eager_module_conforms_and_brings_its_own_inputs(app):
    expected = {"rows": np.array([[[1.0], [2.0], [3.0]]], "float32"), "mode": np.array(False)}
    check_runtime(PyTorch(), f"{app}:factory", expected=expected)


def test_examples_are_repeated_for_a_batch(app):
    session = PyTorch().load(f"{app}:Net", CPU)
    feeds = own_feeds(session, CPU._replace(batch=2), seed=0)
    assert feeds["ids"].tolist() == [[1, 2, 3], [1, 2, 3]]
    assert session.run(feeds)["rows"].shape == (2, 3, 1)


def test_torchscript_keeps_no_shapes_and_the_message_names_its_arguments(torchscript_model):
    session = PyTorch().load(str(torchscript_model), CPU)
    assert session.inputs[0].shape == ANY_SHAPE
    with pytest.raises(LoadError, match=r"x \[of any shape\]") as caught:
        random_feeds(session.inputs, {}, 1, 0)
    assert "--input x=SHAPE[:DTYPE]" in caught.value.remedy


def test_the_users_warnings_stay_theirs(torchscript_model):
    """torch.jit warns of its deprecation at every call; nobody who profiles a file can act on it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        session = PyTorch().load(str(torchscript_model), CPU)
        session.run({"x": X})
        session.bind({"x": X})()
    assert [str(w.message) for w in caught] == []


def test_an_eager_module_without_examples_takes_shapes_from_the_user(app):
    session = PyTorch().load(f"{app}:Shapeless", CPU)
    feeds = random_feeds(session.inputs, {"left": (2, 3), "right": (3, 2)}, 1, 0)
    outputs = session.run(feeds)
    assert sorted(outputs) == ["output_0", "output_1", "output_2"]
    assert np.allclose(outputs["output_0"], feeds["left"] @ feeds["right"], atol=1e-6)


def test_threads_are_set(torchscript_model):
    session = PyTorch().load(str(torchscript_model), CPU._replace(threads=1))
    assert torch.get_num_threads() == 1
    assert session.facts["threads"] == "1"


@pytest.mark.parametrize(
    ("attribute", "says"),
    [
        ("broken", r"broken\(\) failed: OSError: no weights here"),
        ("number", r"returned int, no torch\.nn\.Module"),
        ("nothing", "has no 'nothing'"),
    ],
)
def test_a_factory_that_gives_no_module_is_said(app, attribute, says):
    with pytest.raises(LoadError, match=says):
        PyTorch().load(f"{app}:{attribute}", CPU)


def test_cuda_without_a_gpu_says_what_is_missing(torchscript_model):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(LoadError, match="--device cuda cannot be used"):
        PyTorch().load(str(torchscript_model), CPU._replace(device="cuda"))


def test_a_gpu_gives_the_same_answer_and_tells_its_memory(torchscript_model):
    if not torch.cuda.is_available():
        pytest.skip("this machine has no GPU")
    session = PyTorch().load(str(torchscript_model), CPU._replace(device="cuda"))
    session.bind({"x": X})()
    session.synchronize()
    assert np.allclose(session.run({"x": X})["output"], 2 * X + 1)
    assert session.gpu_peak_bytes() > 0


class HostEvent:
    """``torch.cuda.Event`` as far as timing goes, on the host's clock."""

    def __init__(self) -> None:
        self.at: float | None = None

    def record(self) -> None:
        self.at = time.monotonic()

    def synchronize(self) -> None:
        assert self.at is not None, "waited for an event that was not recorded"

    def elapsed_time(self, end: HostEvent) -> float:
        assert self.at is not None
        assert end.at is not None
        return (end.at - self.at) * 1e3


def test_on_the_cpu_there_is_no_device_to_time(torchscript_model):
    session = PyTorch().load(str(torchscript_model), CPU)
    feeds = {"x": np.ones((1, 4), np.float32)}
    assert session.bind_timed(feeds) is None


def test_a_devices_times_are_told_by_their_parts(torchscript_model, monkeypatch):
    """The order of the events, on the host's clock: a GPU is not at hand here."""
    session = PyTorch().load(str(torchscript_model), CPU)
    monkeypatch.setattr(session, "_event", HostEvent)
    feeds = {"x": np.ones((1, 4), np.float32)}
    timed = session.bind_timed(feeds)
    assert timed is not None
    times = timed()
    assert set(times) == {"h2d", "compute", "d2h", "enqueue", "wall"}
    assert 0 < times["h2d"] + times["compute"] + times["d2h"] <= times["wall"]


class Graphs:
    """``torch.cuda`` as far as graphs go: a captured call is made again, on the tensors that it was captured with,
    when its graph is replayed, and at no other time.
    """

    def __init__(self, session) -> None:
        self.calls, self.replays, self.capturing = 0, 0, False
        inner = session._call

        def call(*arguments):
            self.calls += 1
            value = inner(*arguments)
            if self.capturing:
                self.again = lambda: value.copy_(inner(*arguments))
            return value

        session._call = call

    def Stream(self):  # noqa: N802 - torch's
        return SimpleNamespace(wait_stream=lambda _: None)

    current_stream = Stream

    def CUDAGraph(self):  # noqa: N802 - torch's
        def replay() -> None:
            self.replays += 1
            self.again()

        return SimpleNamespace(replay=replay)

    @contextlib.contextmanager
    def graph(self, _):
        self.capturing = True
        yield
        self.capturing = False

    def device(self, _):
        return contextlib.nullcontext()

    stream = device


def test_a_cuda_graph_is_fed_replayed_and_timed(torchscript_model, monkeypatch):
    session = PyTorch().load(str(torchscript_model), CPU)
    graphs = Graphs(session)
    monkeypatch.setattr(session, "_torch", SimpleNamespace(cuda=graphs, from_numpy=torch.from_numpy, __version__="2"))
    monkeypatch.setattr(session, "_device", SimpleNamespace(type="cuda"))
    monkeypatch.setattr(session, "_host", False)
    monkeypatch.setattr(session, "_event", HostEvent)
    monkeypatch.setattr(session, "_arguments", lambda tensors: [tensor.clone() for tensor in tensors])
    session.use_graph()
    assert session.facts["cuda_graph"] == "yes, of the compute part"
    feeds = {"x": X.copy()}
    call = session.bind(feeds)
    captured = graphs.calls
    feeds["x"][:] = -X  # bound without a copy: the next inference takes it to the device
    assert np.allclose(call().numpy(), -2 * X + 1)
    assert (graphs.calls, graphs.replays) == (captured, 1)
    assert set(session.bind_timed(feeds)()) == {"h2d", "compute", "d2h", "enqueue", "wall"}
    assert graphs.replays == 2


def test_what_cannot_be_captured_says_so(torchscript_model, monkeypatch):
    session = PyTorch().load(str(torchscript_model), CPU)
    graphs = Graphs(session)

    def refuse():
        raise RuntimeError("operation not permitted when stream is capturing\nCUDA kernel errors might be …")

    monkeypatch.setattr(graphs, "CUDAGraph", refuse)
    monkeypatch.setattr(session, "_torch", SimpleNamespace(cuda=graphs, from_numpy=torch.from_numpy, __version__="2"))
    monkeypatch.setattr(session, "_device", SimpleNamespace(type="cuda"))
    monkeypatch.setattr(session, "_host", False)
    monkeypatch.setattr(session, "_arguments", list)
    session.use_graph()
    with pytest.raises(
        LoadError, match=r"cannot run as a CUDA graph: operation not permitted when stream is capturing$"
    ):
        session.bind({"x": X})


def test_a_cuda_graph_on_the_cpu_is_refused(torchscript_model):
    with pytest.raises(LoadError, match="cuda_graph=1 needs --device cuda"):
        PyTorch().load(str(torchscript_model), CPU._replace(options={"cuda_graph": "1"}))


def test_what_is_nested_in_a_dict_is_named_by_its_path(tmp_path):
    path = tmp_path / "nested_app.py"
    path.write_text(
        textwrap.dedent("""
            import torch

            class Cache(torch.nn.Module):
                def forward(self, x):
                    return {"logits": x, "past": ((x, x[:, :1]), None, {"k": x.to(torch.bfloat16)}), "none": None}
        """)
    )
    session = PyTorch().load(f"{path}:Cache", CPU._replace(shapes={"x": (1, 2)}))
    found = session.run({"x": np.float32([[1, 2]])})
    assert {name: array.tolist() for name, array in found.items()} == {
        "logits": [[1, 2]],
        "past.0.0": [[1, 2]],
        "past.0.1": [[1]],
        "past.2.k": [[1, 2]],
    }


def test_a_bfloat16_program_is_fed_and_answers_in_float32(tmp_path):
    linear = torch.nn.Linear(2, 1, dtype=torch.bfloat16).eval()
    path = tmp_path / "m.pt2"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(linear, (torch.zeros(1, 2, dtype=torch.bfloat16),)), str(path))
    session = PyTorch().load(str(path), CPU)
    x = np.float32([[0.5, -1]])
    with torch.inference_mode():
        wanted = linear(torch.from_numpy(x).to(torch.bfloat16)).float().numpy()
    assert session.inputs[0].dtype == "bfloat16"
    (found,) = session.run({session.inputs[0].name: x}).values()
    assert found.tolist() == wanted.tolist()


def test_a_model_that_was_traced_on_a_gpu_says_so(tmp_path):
    path = tmp_path / "gpu_app.py"
    path.write_text(
        "import torch\nclass Gpu(torch.nn.Module):\n    def forward(self, x):\n"
        "        return x + torch.zeros(4, device='cuda')\n"
    )
    if torch.cuda.is_available():
        pytest.skip("here it would run")
    session = PyTorch().load(f"{path}:Gpu", CPU._replace(shapes={"x": (4,)}))
    with pytest.raises(LoadError, match="puts tensors onto a GPU itself") as caught:
        session.run({"x": np.zeros(4, "float32")})
    assert "--device cuda" in caught.value.remedy


class _LooksUp(torch.nn.Module):
    """A table of 50 rows and one of 7, the ids by way of another type and shape; and rows that are picked."""

    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Module()
        self.inner.table = torch.nn.Embedding(50, 3)
        self.few = torch.nn.Embedding(7, 3)

    def forward(self, ids, kinds, attention_mask):
        rows = torch.nn.functional.embedding(ids, self.inner.table.weight) + self.few(kinds.long().view(1, -1))
        return rows * attention_mask.unsqueeze(-1)


_IDS = (torch.zeros(1, 40, dtype=torch.long), torch.zeros(40, dtype=torch.int32), torch.ones(1, 40, dtype=torch.long))


def _saved(kind, path):
    module = _LooksUp().eval()
    if kind == "torch.export":
        torch.export.save(torch.export.export(module, _IDS), path)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TorchScript is on its way out, its files are not
            torch.jit.save(torch.jit.trace(module, _IDS), path)
    return path


@pytest.mark.parametrize("kind", ["torch.export", "traced", "frozen"])
def test_inputs_of_which_the_graph_shows_what_they_are_get_values_that_suit(tmp_path, kind):
    path = _saved(kind, tmp_path / ("m.pt2" if kind == "torch.export" else "m.pt"))
    given = {} if kind == "torch.export" else {"ids": (1, 40), "kinds": (40,), "attention_mask": (1, 40)}
    options = CPU._replace(
        shapes=given,
        dtypes={name: "int32" if name == "kinds" else "int64" for name in given},
        options={"freeze": "1"} if kind == "frozen" else {},
    )
    session = PyTorch().load(str(path), options)
    assert session.fits == {"ids": ("below", 50), "kinds": ("below", 7)}
    feeds = own_feeds(session, options, 0)
    assert 25 < feeds["ids"].max() < 50
    assert 3 < feeds["kinds"].max() < 7
    assert feeds["attention_mask"].all()
    assert session.run(feeds)
