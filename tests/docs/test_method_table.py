"""The table of what each method does to each kind of layer is what a trial says."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from edgeprof.plugins import PluginHost
from tests.docs.tool import load

if TYPE_CHECKING:
    from pathlib import Path

#: Cells of each format that are tried; all of them by tools/method_table.py --check.
_TRIED = {"onnx": 24, "tflite": 16, "torch": 6}
_NEEDS = {
    "onnx": ["onnx", "onnxruntime"],
    "tflite": ["ai_edge_litert", "ai_edge_quantizer"],
    "torch": ["torch", "torchao", "torch_pruning"],
}


@pytest.mark.parametrize("kind", _TRIED)
def test_cells_drawn_from_the_table_are_what_a_trial_says(kind: str, tmp_path: Path) -> None:
    for package in _NEEDS[kind]:
        pytest.importorskip(package)
    table = load("method_table")
    documented = table.documented(kind)
    layers, host = table.layers(kind), PluginHost()
    assert set(documented) == {(name, method) for name in layers for method in table.METHODS[kind]}
    drawn = random.Random(12).sample(sorted(documented), _TRIED[kind])
    for number, (name, method) in enumerate(drawn):
        folder = tmp_path / str(number)
        folder.mkdir()
        found = table.attempt(layers[name](folder, host), method, host)
        assert found == documented[name, method], (name, method)
