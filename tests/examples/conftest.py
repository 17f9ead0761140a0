"""The modules of examples/applications, imported as ``python detect.py`` imports them."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

APPLICATIONS = Path(__file__).parents[2] / "examples/applications"
#: Modules that need PyTorch: the fixture ``trainers`` has them.
OF_TORCH = ("inception_resnet", "student", "yolov8")
#: Modules that need onnx, which not every environment of the tests has.
OF_ONNX = ("focus",)


def imported(names, shared_data):
    """Import modules of the applications; they are forgotten afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(APPLICATIONS)
        patch.setenv("MODELS", str(shared_data))
        patch.setenv("OMP_NUM_THREADS", "1")
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in names})
    for name in names:
        del sys.modules[name]


@pytest.fixture(scope="module")
def applications(shared_data):
    for library in ("PIL", "onnxruntime", "ai_edge_litert"):
        pytest.importorskip(library)
    yield from imported(
        [path.stem for path in APPLICATIONS.glob("*.py") if path.stem not in OF_TORCH + OF_ONNX], shared_data
    )


@pytest.fixture(scope="module")
def trainers(applications, shared_data):
    """The modules that make networks with PyTorch."""
    pytest.importorskip("torch")
    yield from imported(OF_TORCH, shared_data)
