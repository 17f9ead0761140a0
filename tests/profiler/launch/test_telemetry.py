"""While a model is benched, nothing is sent to a network, and no telemetry runs inside a window."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgeprof.launch.supervisor import Worker, WorkerSpec
from edgeprof.plugins import PluginHost
from edgeprof.worker import telemetry
from edgeprof.worker.runtime import LoadOptions
from edgeprof.worker.scenario import Scenario
from tests.plugins.language_models import CONFIG
from tests.plugins.runtimes.nvidia.conftest import OPEN, cuda_libraries, engine, environment, standin_plan
from tests.plugins.runtimes.test_language_libraries import converted, folder
from tests.profiler.artifact import gguf_files

__all__ = ["cuda_libraries", "engine", "folder", "standin_plan"]  # fixtures

RUNTIMES = {"onnxruntime": "onnx_model", "litert": "tflite_model", "pytorch": "torchscript_model"}
#: With any of these variables, ONNX Runtime would send no reports anyway, and the test would prove nothing.
SILENCING = (*telemetry.VARIABLES, "CI", "ORT_RUNNING_UNIT_TESTS", "GITHUB_ACTIONS", "TF_BUILD")


@pytest.fixture(params=RUNTIMES)
def model(request):
    """The name of a runtime, and a model for it."""
    return request.param, request.getfixturevalue(RUNTIMES[request.param])


@pytest.fixture
def stranger(monkeypatch, tmp_path):
    """The environment of a user who has disabled no telemetry, with a separate home and folder for temporary files."""
    for name in SILENCING:
        monkeypatch.delenv(name, raising=False)
    for name in ("home", "temporary"):
        (tmp_path / name).mkdir()
    for name in [name for name in os.environ if name.startswith(("XDG_", "EDGEPROF_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    return tmp_path


def test_a_window_has_the_models_own_threads_and_no_other(model, stranger):
    name, path = model
    runtime = type(PluginHost(only=[name]).get("runtimes", name)())
    options = LoadOptions("cpu", 1, 1, {"x": (1, 4)}, {})
    with Worker(WorkerSpec(Path(inspect.getfile(runtime)), runtime.__name__, str(path), options)) as worker:
        worker.load()
        worker.window(Scenario(), 0.5)
        threads = [thread.name for thread in Path(f"/proc/{worker.pid}/task").iterdir()]
        assert threads == [str(worker.pid)]


def calls_of(folder: Path, *words: str, **environment: str) -> str:
    """Run a command, check that it succeeds, and return its system calls that open files or connections.

    Args:
        folder: The folder of a stranger; it is the working directory and gets the log of strace.
        words: The arguments of ``edgeprof``.
        environment: Variables in addition to those of the stranger.
    """
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed: nothing tells which system calls were made")
    log = folder / "calls"
    calls = "connect,sendto,sendmsg,sendmmsg,open,openat,creat,mkdir,mkdirat"
    done = subprocess.run(
        [
            "strace",
            "-f",
            "--seccomp-bpf",
            "-qq",
            "-e",
            f"trace={calls}",
            "-o",
            str(log),
            sys.executable,
            "-m",
            "edgeprof",
            *words,
        ],
        capture_output=True,
        text=True,
        cwd=folder,
        check=False,
        # Compiled modules are files of Python's.
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment},
    )
    if "ptrace" in done.stderr and "not permitted" in done.stderr:
        pytest.skip("strace may not trace here")
    assert done.returncode == 0, done.stdout + done.stderr
    text = log.read_text(errors="replace")
    assert "openat" in text  # something was traced
    log.unlink()
    return text


def check(folder: Path, calls: str, kept: set[Path]) -> None:
    """Check that no network was used, and that only files were written which edgeprof is documented to write.

    Args:
        folder: The folder of the stranger.
        calls: The result of ``calls_of``.
        kept: The files and folders among the command's arguments, as inputs or outputs.
    """
    assert re.findall(r"^.*sa_family=AF_INET.*$", calls, re.MULTILINE) == []
    ours = [folder / "home/.local/share/edgeprof", *kept]
    left = {file for file in folder.rglob("*") if file.is_file() and not any(file.is_relative_to(one) for one in ours)}
    assert left == set()
    written = set(re.findall(r'(?:openat\([^,]*, |open\(|creat\()"([^"]+)", [^)]*O_(?:WRONLY|RDWR|CREAT)', calls))
    places = ("/dev/", "/proc/", "/run/lock/edgeprof-", *map(str, (*ours, folder / "temporary")))
    relative = {str(path.relative_to(folder)) for path in kept if path.is_relative_to(folder)}
    nameless = {str(folder / "home")}  # doctor tests whether a file can be created there, with a nameless one
    assert {file for file in written if not file.startswith((*places, *relative))} <= nameless


QUICK = ["--windows", "2", "--window", "0.3", "--warmup", "0.1", "--idle", "0", "--timeout", "300"]


@pytest.mark.parametrize("verb", ["bench", "diagnose"])
def test_a_model_asks_for_no_connection_and_leaves_no_file_but_our_own(model, stranger, verb: str):
    name, path = model
    words = ["--runtime", name, "--input", "x=1,4", *(QUICK if verb == "bench" else [])]
    check(stranger, calls_of(stranger, verb, str(path), *words), {path})


#: Runtime → what it needs: (modules, the fixture of its model, more words).
OTHERS = {
    "openvino": (("openvino",), "onnx_model", ["--input", "x=1,4"]),
    "opencv": (("cv2",), "onnx_model", ["--input", "x=1,4"]),
    "transformers": (
        ("transformers", "torch"),
        "language_config",
        ["--random-weights", "--prompt", "8", "--generate", "4"],
    ),
    "onnxruntime-genai": (
        ("onnxruntime_genai", "transformers", "torch"),
        "genai_model",
        ["--option", "prompt=8", "--option", "generate=4"],
    ),
    "ctranslate2": (
        ("ctranslate2", "transformers", "torch"),
        "ctranslate2_model",
        ["--option", "prompt=8", "--option", "generate=4"],
    ),
    "openvino-genai": (("openvino_genai",), "gguf_model", ["--prompt", "8", "--generate", "4"]),
}


@pytest.fixture
def language_config(stranger) -> Path:
    path: Path = stranger / "config.json"
    path.write_text(json.dumps(CONFIG))
    return path


@pytest.fixture
def genai_model(folder: Path, stranger) -> Path:
    path: Path = stranger / "genai"
    shutil.copytree(converted(folder, "onnxruntime-genai"), path)
    return path


@pytest.fixture
def ctranslate2_model(folder: Path, stranger) -> Path:
    path: Path = stranger / "ctranslate2"
    shutil.copytree(converted(folder, "ctranslate2"), path)
    return path


@pytest.fixture
def gguf_model(stranger) -> Path:
    path: Path = stranger / "half.gguf"
    path.write_bytes(gguf_files.llama(tokenizer=True, half=True))
    return path


@pytest.mark.parametrize("name", OTHERS)
def test_a_runtime_of_an_extra_asks_for_no_connection_either(name: str, request, stranger):
    modules, fixture, words = OTHERS[name]
    for module in modules:
        pytest.importorskip(module, reason=f"{module} is not installed (make test-runtimes)")
    path = request.getfixturevalue(fixture)
    check(stranger, calls_of(stranger, "bench", str(path), "--runtime", name, *words, *QUICK), {path})


def test_a_python_callable_is_benched_without_one(stranger):
    program = stranger / "app.py"
    program.write_text("def model():\n    sum(range(1000))\n")
    check(stranger, calls_of(stranger, "bench", "app.py:model", *QUICK), {program})


def test_tensorrt_is_benched_without_one(cuda_libraries, engine, stranger):
    path = engine("10", OPEN)
    calls = calls_of(stranger, "bench", str(path), *QUICK, **environment(cuda_libraries, "10", stranger / "cache"))
    check(stranger, calls, {path, stranger / "cache"})


def test_a_compressor_makes_its_variants_without_one(onnx_model, stranger):
    variants = stranger / "variants"
    calls = calls_of(stranger, "compress", str(onnx_model), "--with", "fp16", "-o", str(variants))
    assert list(variants.glob("*fp16*"))
    check(stranger, calls, {onnx_model, variants})


def test_a_sweep_makes_and_measures_without_one(onnx_model, stranger):
    study = stranger / "study.toml"
    recipes = '[recipes]\nexplicit = ["fp16"]\n[protocol]\nwindows = 2\nwindow = 0.2\nwarmup = 0.1\nidle = 0.0\n'
    study.write_text(f'model = "{onnx_model.name}"\n{recipes}')
    check(stranger, calls_of(stranger, "sweep", "study.toml"), {onnx_model, study, stranger / "study.study"})


@pytest.mark.parametrize("words", [["doctor"], ["sensors"], ["plugins"]], ids=" ".join)
def test_looking_around_asks_for_no_connection(words: list[str], stranger):
    check(stranger, calls_of(stranger, *words), set())


@pytest.mark.parametrize("name", telemetry.LIBRARIES)
def test_a_library_that_does_nothing_but_report_is_not_imported(name: str, monkeypatch):
    monkeypatch.delitem(sys.modules, name, raising=False)
    telemetry.turn_off()
    with pytest.raises(ImportError):
        importlib.import_module(name)


#: Packages that report on their users unless that is turned off before they are imported.
REPORTING = re.compile(
    r"\b(?:import|from) [\w, ]*\b"
    r"(onnxruntime|onnxruntime_genai|openvino|olive|transformers|huggingface_hub|litert_torch)\b"
)


def is_silenced(source: str) -> bool:
    """Whether a program imports none of the packages that report, or first turns that off at its top level."""
    lines = source.splitlines()
    importing = [number for number, line in enumerate(lines, 1) if REPORTING.search(line)]
    if not importing:
        return True
    silencing = [
        node.lineno
        for node in ast.parse(source).body
        if isinstance(node, ast.Expr) and re.search(r"turn_off\(\)|ORT_DISABLE_TELEMETRY", ast.unparse(node))
    ]
    at_once = [number for number in importing if not lines[number - 1].startswith(" ")]
    return bool(silencing) and all(silencing[0] < number for number in at_once)


@pytest.mark.parametrize(
    "source",
    [
        "import onnxruntime\n",
        "def run():\n    import numpy, onnxruntime\n",
        "from onnxruntime import quantization\ntelemetry.turn_off()\n",
        "def run():\n    telemetry.turn_off()\ndef look():\n    import onnxruntime\n",
        "PROGRAM = 'import onnxruntime'\n",
    ],
)
def test_a_program_that_lets_a_library_report_is_noticed(source: str):
    assert not is_silenced(source)
    assert is_silenced("telemetry.turn_off()\n" + source)


def test_no_program_of_the_source_tree_lets_a_library_report():
    """A user runs the tools, benchmarks and examples too, and so does who develops edgeprof."""
    root = Path(__file__).parents[3]
    programs = [file for name in ("benchmarks", "examples", "tools") for file in (root / name).rglob("*.py")]
    assert len(programs) > 30
    assert [str(file.relative_to(root)) for file in programs if not is_silenced(file.read_text("utf-8"))] == []


def test_what_the_user_has_set_stays(monkeypatch):
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    monkeypatch.delenv("DO_NOT_TRACK", raising=False)
    telemetry.turn_off()
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "0"
    assert os.environ["DO_NOT_TRACK"] == "1"


def test_loading_the_plugins_turns_telemetry_off_before_any_library_is_loaded(monkeypatch):
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    PluginHost(only=[])
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
