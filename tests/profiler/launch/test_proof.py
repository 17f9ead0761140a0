"""A runtime is reported to work only if it really ran, and a loader's error gets the remedy for it."""

from __future__ import annotations

import pytest

from edgeprof import installation
from edgeprof.launch import proof
from edgeprof.launch.proof import loader_remedy, prove
from edgeprof.plugins import PluginHost, points_of
from edgeprof.worker.runtime import Availability, LoadOptions, Runtime
from edgeprof_plugins.runtimes import smallest
from tests.profiler.artifact import gguf_files


class Broken(Runtime):
    """A runtime whose library is found but cannot be imported."""

    name, formats = "broken", ("broken",)

    def __init__(self, library):
        self.libraries = (library,)

    def availability(self):
        return Availability("1.0", None, None)

    def devices(self):
        return ["cpu"]

    def load(self, path, options):
        raise NotImplementedError


@pytest.mark.parametrize(
    "name", ["onnxruntime", "litert", "python", "pytorch", "llamacpp", "keras", "mnn", "executorch"]
)
def test_a_runtime_that_is_here_runs_its_smallest_model(name):
    runtime = PluginHost.from_environment().get("runtimes", name)()
    if runtime.availability().reason is not None:
        pytest.skip(f"{name} is not installed")
    assert prove(runtime) == (True, "ran a model", None)


def test_the_smallest_language_model_is_the_one_that_its_comment_names():
    assert gguf_files.llama(width=32, layers=1, vocabulary=32, context=1024, weights=bytes) == smallest.GGUF


def test_a_runtime_that_does_not_answer_in_time_is_not_given_a_flag_that_doctor_has_not(tmp_path, monkeypatch):
    monkeypatch.setattr(proof, "TIMEOUT_S", 0.5)
    (tmp_path / "slow.py").write_text("import threading\ndef model():\n    threading.Event().wait()\n")
    runtime = PluginHost(points_of("python")).get("runtimes", "python")()
    seen = proof.run(runtime, f"{tmp_path / 'slow.py'}:model", LoadOptions("cpu", 1, 1, {}, {}))
    assert not seen.works
    assert "busy" in seen.remedy
    assert "--timeout" not in seen.remedy


def test_a_library_that_cannot_be_imported_is_no_runtime(tmp_path, monkeypatch):
    words = "/lib/libc.so.6: version `GLIBC_2.34' not found (required by libLiteRt.so)"
    (tmp_path / "sick_library.py").write_text(f"raise ImportError({words!r})\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    seen = prove(Broken("sick_library"))
    assert not seen.works
    assert words in seen.detail
    assert "built for glibc 2.34" in seen.remedy


def test_a_library_that_hangs_is_no_runtime(tmp_path, monkeypatch):
    (tmp_path / "stuck_library.py").write_text("import threading; threading.Event().wait()\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(proof, "TIMEOUT_S", 2.0)
    assert "took more than 2 s" in prove(Broken("stuck_library")).detail


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ("version `GLIBC_2.34' not found; version `GLIBC_2.9' not found", "built for glibc 2.34"),
        ("libstdc++.so.6: version `GLIBCXX_3.4.30' not found", "newer libstdc++ (GLIBCXX_3.4.30)"),
        ("ImportError: libnvinfer.so.10: cannot open shared object file: No such file", "libnvinfer.so.10 is missing"),
        ("AttributeError: _ARRAY_API not found", "numpy<2"),
        ("x.so: wrong ELF class: ELFCLASS32", "another processor"),
    ],
)
def test_an_error_of_the_loader_is_answered(words, answer):
    assert answer in loader_remedy(words)


@pytest.mark.parametrize(
    ("libc", "answer"),
    [((2, 31), "pip install 'ai-edge-litert>=1.0,<2.1.1'"), ((2, 27), "no ai-edge-litert loads with glibc 2.27")],
)
def test_a_release_that_loads_on_this_board_is_named_where_it_is_known(monkeypatch, libc, answer):
    monkeypatch.setattr(installation.platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(installation, "glibc", lambda: libc)
    words = "libc.so.6: version `GLIBC_2.34' not found (required by libLiteRt.so)"
    assert answer in loader_remedy(words, ("ai_edge_litert",))
    assert "install an older release of it" in loader_remedy(words, ("another",))


def test_another_error_has_no_loaders_answer():
    assert loader_remedy("ValueError: no such thing") is None
