"""``exclude=auto`` for ONNX models: each layer is quantised alone, and variants are judged by their outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprof_plugins.compressors.onnx.prepare import quiet
from edgeprof_plugins.compressors.shared.exclusion import by_channel

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    import numpy.typing as npt

    Batch = Mapping[str, npt.NDArray[Any]]

_QDQ = frozenset({"QuantizeLinear", "DequantizeLinear"})
#: Operators that pass their input values on: they cause no quantisation noise of their own.
_HANDED_ON = frozenset({
    "MaxPool", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Resize", "Split", "Slice", "Gather", "Pad",
    "Relu", "Clip", "Identity", "Expand",
})  # fmt: skip


def answers(model: Any, batches: Iterable[Batch], count: int) -> list[npt.NDArray[Any]]:
    """Return a model's outputs for the first ``count`` samples, joined along the first axis.

    Args:
        model: The path of the model, or its bytes.
        batches: Inputs by name.
        count: The number of samples; outputs for the padding of the last batch are dropped.
    """
    outputs = run(model, batches)
    return [
        np.concatenate([np.atleast_1d(batch_outputs[i]) for batch_outputs in outputs])[:count]
        for i in range(len(outputs[0]))
    ]


def run(model: Any, batches: Iterable[Batch], *, as_written: bool = False) -> list[list[Any]]:
    """Return a model's outputs for each batch.

    Args:
        model: The path of the model, or its bytes.
        batches: Inputs by name.
        as_written: Compute quantised nodes as the file describes them, without this CPU's integer kernels, which may
            saturate where those of the device that the model is made for do not.
    """
    import onnxruntime

    with quiet():
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        if as_written:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        given = model if isinstance(model, bytes) else str(model)
        session = onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
        return [session.run(None, dict(batch)) for batch in batches]


def alone(plain: Path, quantised: Path, batches: Iterable[Batch]) -> dict[str, float]:
    """Return the signal-to-quantisation-noise ratio (SQNR) of each quantised node when only that node is quantised.

    One graph holds the float nodes and a copy of every quantised node, which reads the float tensors through its own
    quantisation. A single run thus shows the loss of each node by itself (inputs, weights, and output range).

    Args:
        plain: The float model that was quantised.
        quantised: The same model in QDQ format, with the same node names.
        batches: Inputs by name.

    Returns:
        Node → SQNR in dB.
    """
    import onnx

    from edgeprof_plugins.runtimes.onnxruntime import graph

    whole = onnx.load(str(plain))
    given = onnx.load(str(quantised)).graph
    floats = {node.name: node for node in whole.graph.node}
    initializers = {initializer.name for initializer in whole.graph.initializer}
    whole.graph.initializer.extend(
        initializer for initializer in given.initializer if initializer.name not in initializers
    )
    # The quantiser renames the output of a layer where it is an output of the model.
    same = {
        ours: theirs
        for node in given.node
        if node.op_type not in _QDQ and node.name in floats
        for ours, theirs in zip(node.output, floats[node.name].output, strict=False)
    }
    ends = {name for node in given.node if node.op_type in _QDQ for name in node.output}
    watched: dict[str, tuple[str, str]] = {}
    held: dict[str, str] = {}
    for node in given.node:
        inner = node.op_type in _QDQ
        if not inner and not (node.name in floats and ends.intersection(node.input)):
            continue
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.name = f"alone/{node.name}"
        for index, name in enumerate(node.input):
            copy.input[index] = f"alone/{name}" if name in ends else same.get(name, name)
        for index, name in enumerate(node.output):
            copy.output[index] = f"alone/{name}" if name else ""
        whole.graph.node.append(copy)
        if not inner and node.op_type not in _HANDED_ON:
            watched[node.name] = (floats[node.name].output[0], copy.output[0])
        elif node.op_type == "DequantizeLinear" and node.input[0] in ends:
            held[node.input[0]] = copy.output[0]
    # Output of a layer → the same tensor after its quantisation and dequantisation.
    inputs = {same.get(n.input[0], n.input[0]): held[n.output[0]] for n in given.node if n.output[0] in held}
    wanted = list(dict.fromkeys(n for out, approx in watched.values() for n in (out, approx, inputs.get(out, out))))
    powers: dict[str, Any] = {}
    for tapped in graph.taps(whole, wanted, batches):
        for name, (out, approximation) in watched.items():
            truth = tapped[out].astype(np.float64)
            noises = (tapped[approximation] - truth, tapped[inputs.get(out, out)] - truth)
            # The two sources of noise are added as powers.
            powers[name] = powers.get(name, 0) + np.stack(
                [_channel_power(truth), sum(_channel_power(noise) for noise in noises)]
            )
    return {name: by_channel(*power) for name, power in powers.items()}


def _channel_power(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Σx² of each channel; channels are axis 1 for images and flat features, the last axis for sequences."""
    axis = 1 if values.ndim in {2, 4, 5} else values.ndim - 1
    total: npt.NDArray[Any] = np.square(values).sum(axis=tuple(a for a in range(values.ndim) if a != axis))
    return total
