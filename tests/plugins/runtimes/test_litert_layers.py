"""What a TFLite file multiplies, against a count by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("ai_edge_litert")

from edgeprof_plugins.runtimes.litert.graph import _layer_macs, read

CASE = Path(__file__).parents[4] / "shared/cases/models/01-state-between-samples/lstm.tflite"


def test_a_recurrent_layer_counts_every_step_of_every_matrix() -> None:
    """6 steps of 4 numbers, 8 units: four gates of (4 + 8) × 8 each; then 6 × 8 × 5."""
    path = next((one for one in (CASE, Path("../shared/cases/models/01-state-between-samples/lstm.tflite")) if
                 one.is_file()), None)  # fmt: skip
    if path is None:
        pytest.skip("needs the public model cases in ../shared")
    graph = read(str(path))
    assert graph is not None
    assert [(layer.op, layer.macs) for layer in graph.layers] == [
        ("UNIDIRECTIONAL_SEQUENCE_LSTM", 6 * 4 * (4 + 8) * 8), ("FULLY_CONNECTED", 6 * 8 * 5),
    ]  # fmt: skip
    assert graph.share() == 0


@pytest.mark.parametrize(
    ("op", "x", "output", "weights", "turned", "macs"),
    [
        ("BATCH_MATMUL", (1, 7, 5), (1, 7, 3), [(1, 5, 3)], False, 7 * 3 * 5),
        ("BATCH_MATMUL", (1, 5, 7), (1, 7, 3), [(1, 5, 3)], True, 7 * 3 * 5),
        ("TRANSPOSE_CONV", (1, 4, 4, 6), (1, 8, 8, 9), [(9, 3, 3, 6)], False, 4 * 4 * 6 * 9 * 9),
        ("CONV_2D", (1, 8, 8, 6), (1, 4, 4, 9), [(9, 3, 3, 2)], False, 4 * 4 * 9 * 9 * 2),  # three groups
        ("DEPTHWISE_CONV_2D", (1, 8, 8, 6), (1, 4, 4, 6), [(1, 3, 3, 6)], False, 4 * 4 * 6 * 9),
        ("CONV_3D", (1, 4, 4, 4, 2), (1, 2, 2, 2, 5), [(3, 3, 3, 2, 5)], False, 8 * 5 * 27 * 2),
        ("SVDF", (1, 10), (1, 4), [(8, 10), (8, 6)], False, 80 + 48),
    ],
)
def test_multiply_accumulates_by_shape(op, x, output, weights, turned, macs) -> None:
    assert _layer_macs(op, x, output, weights, turned=turned) == macs
