"""Fixtures: three virtual boards, and what a host needs to measure on them."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import pytest

from edgeprof.fleet import task
from tests import models
from tests.profiler.fleet.boards import Boards

KINDS = {"nano-1": "jetson-orin-nano", "nano-2": "jetson-orin-nano", "pi5-1": "raspberry-pi-5"}


@pytest.fixture(scope="module")
def boards(tmp_path_factory):
    """Two boards of one kind and one of another, each with a constant power."""
    made = Boards(tmp_path_factory.mktemp("boards"))
    with contextlib.ExitStack() as stack:
        for name, kind in KINDS.items():
            made.add(name, kind, stack)
        yield made


@pytest.fixture(scope="module")
def desk(boards, tmp_path_factory):
    """The host's side: its data directory, its inventory, a model, and a program that stands in for ssh."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    folder = tmp_path_factory.mktemp("desk")
    patch = pytest.MonkeyPatch()
    patch.setenv("EDGEPROF_DATA_DIR", str(folder / "data"))
    patch.setenv("EDGEPROF_SSH", str(boards.stand_in()))
    patch.setenv("EDGEPROF_INVENTORY", str(boards.inventory(folder / "inventory.toml")))
    patch.setattr(task, "PAUSES_S", (0.1, 0.1))
    model = models.onnx_affine(folder / "affine.onnx")
    yield SimpleNamespace(folder=folder, model=model, inventory=folder / "inventory.toml", data=folder / "data")
    patch.undo()
