"""What the tests of several rooms share."""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from edgeprof.worker import telemetry
from tests import models
from tests.leftovers import Leftovers, left_since

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class _NotHere:
    """Lets a library be missing, whether it is installed or not: the tests that need it skip."""

    names = frozenset(os.environ.get("EDGEPROF_TESTS_WITHOUT", "").split())

    @classmethod
    def find_spec(cls, name: str, *_: object) -> None:
        if name in cls.names:
            raise ModuleNotFoundError(f"{name} is left out by EDGEPROF_TESTS_WITHOUT", name=name)


ROOT = Path(__file__).resolve().parents[1]
sys.meta_path.insert(0, _NotHere)
# A thousand processes that tests start would each compile all of edgeprof that they import.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# How long an example takes on a machine that has other work is no property of the code.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")
# Tests that run at the same time on this machine measure nothing that another could spoil: each process has its lock.
os.environ["EDGEPROF_LOCK_DIR"] = tempfile.mkdtemp(prefix="edgeprof-locks-")
# An exporter that runs on this machine is told nothing of the stages that tests time.
os.environ["EDGEPROF_STAGES"] = ""
# pytest-xdist sets it in its processes, where no output has a width.
os.environ.pop("COLUMNS", None)
# Tests call libraries directly too.
telemetry.turn_off()
# nohup leaves SIGHUP ignored, and a background job of a script SIGINT, in every process that tests start as well.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


#: Where the stacks of a test that hangs are written: the stderr that pytest itself has, not a test's.
_stderr: list[int] = []
#: Seconds beyond a test's own limit after which its process is ended.
GRACE_S = 60


def pytest_configure() -> None:
    _stderr.append(os.dup(2))


@contextlib.contextmanager
def _ended_where_it_hangs(item: pytest.Item) -> Iterator[None]:
    """Print the stacks of all threads and end this process where one phase of a test hangs.

    pytest-timeout interrupts a test once. A library's own code does not hear its signal, and a fixture that waits after
    it, or the test's next try, would wait for ever: a run of hours that says nothing.
    """
    marker = item.get_closest_marker("timeout")
    limit = float(marker.args[0]) if marker else float(item.config.getini("timeout"))
    faulthandler.dump_traceback_later(limit + GRACE_S, exit=True, file=_stderr[0])
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    with _ended_where_it_hangs(item):
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    with _ended_where_it_hangs(item):
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    with _ended_where_it_hangs(item):
        return (yield)


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    """Fail the test that leaves a thread, a child process, a descriptor or a signal handler behind."""
    before = Leftovers.now()
    yield
    if meter := sys.modules.get("edgeprof_plugins.sensors.meter"):
        meter.disconnect()  # links to meters live as long as the process, which is many tests
    remaining = left_since(before)
    assert not remaining, "left behind: " + "; ".join(remaining)


@pytest.fixture
def forked_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let workers be forks of this process, which import no library that it has (``tests/forked_workers.py``)."""
    from edgeprof.launch import process
    from tests.forked_workers import SUBPROCESS

    monkeypatch.setattr(process, "subprocess", SUBPROCESS)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Published models and data beside the checkout; tests that use them skip without."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no published models in {folder}")
    return folder


@pytest.fixture(scope="session")
def old_python() -> Callable[[str], str]:
    """``old_python("3.6")``: an interpreter of that version with numpy, made by ``tools/old-pythons``."""

    def find(version: str) -> str:
        folder = ROOT / ".old-pythons" / version
        python = folder / "bin" / "python"
        if not (folder / ".done").exists():  # written last: a folder without it is half made
            pytest.skip(f"no {python}: tools/old-pythons makes it where Python {version} can be had")
        return str(python)

    return find


@pytest.fixture(scope="session")
def python36(old_python: Callable[[str], str]) -> str:
    """A Python 3.6 with numpy, as JetPack 4 has."""
    return old_python("3.6")


@pytest.fixture(scope="module", autouse=True)
def settled() -> None:
    """Keep what is there now out of later collections of garbage.

    Each window begins with a collection. The modules of all tests, and the libraries that the tests before have
    imported, would make it take seconds.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture
def onnx_model(tmp_path: Path) -> Path:
    """y = 2x + 1 with an open batch: float32 ``x [batch, 4]`` → ``y [batch, 4]``."""
    pytest.importorskip("onnx")
    return models.onnx_affine(tmp_path / "affine.onnx")


@pytest.fixture
def tflite_model(tmp_path: Path) -> Path:
    """y = x + x with an open batch: float32 ``x [?, 4]`` → ``y [?, 4]``."""
    pytest.importorskip("ai_edge_litert")
    return models.tflite_double(tmp_path / "double.tflite")


@pytest.fixture
def torchscript_model(tmp_path: Path) -> Path:
    """y = 2x + 1 of a float32 tensor of any shape."""
    pytest.importorskip("torch")
    return models.torchscript_affine(tmp_path / "affine.pt")


@pytest.fixture(scope="session")
def pt2_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """y = 2x + 1 with an open batch: float32 ``x [batch, 4]`` → ``y``. Exporting takes seconds, so it is made once."""
    pytest.importorskip("torch")
    return models.exported_affine(tmp_path_factory.mktemp("pt2") / "affine.pt2")
