"""Exports PyTorch models to TFLite with litert-torch, Google's converter (formerly ai-edge-torch).

The converter needs JAX, but not TensorFlow. It is a separate extra, because it pins versions and takes several hundred
megabytes.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprof.compression.compressor import Compressor, Parameter
from edgeprof.errors import VariantError
from edgeprof.reasons import Code
from edgeprof_plugins.compressors.shared.silence import silence_stderr
from edgeprof_plugins.compressors.torch import model as torch_model

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from edgeprof.evaluation.dataset import Dataset

#: The largest allowed difference between outputs of the file and of the module, as a share of the largest output.
_TOLERANCE = 1e-3


class ExportTflite(Compressor):
    """Exports TFLite with a fixed batch, because XNNPACK does not accept graphs with open shapes."""

    name = "export-tflite"
    version = "1"
    takes = ("python", "pt2")
    gives = "tflite"
    parameters = (
        Parameter("batch", "int", default=1, minimum=1, maximum=4096, help="samples at once, if the network allows it"),
    )

    def apply(
        self, source: Path, target: Path, parameters: Mapping[str, Any], data: Dataset | None, *, seed: int = 0
    ) -> dict[str, Any]:
        torch = torch_model.require()
        os.environ.setdefault("LITERT_TORCH_SHOW_PROGRESS", "n")
        with silence_stderr():
            converter = torch_model.require("litert-torch", "litert_torch", extra="torch-tflite")
            interpreter = torch_model.require("ai-edge-litert", "ai_edge_litert.interpreter", extra="torch-tflite")
        net = torch_model.load(source, data, seed=seed)
        net.examples = _sample_batch(torch, net, parameters["batch"])
        with torch_model.quiet(), silence_stderr(), torch.no_grad():
            try:
                content = bytes(converter.convert(net.module, net.examples).model_content())
            except Exception as error:
                lines = str(error).strip().splitlines() or [type(error).__name__]
                raise VariantError(
                    f"litert-torch cannot express {net.spec}: {lines[0][:300]}",
                    remedy="Start from the float model, and quantise the file: export-tflite+int8-static.",
                ) from error
            off = _largest_difference(net, interpreter.Interpreter(model_content=content), seed)
        target.write_bytes(content)
        return {
            "batch": int(net.examples[0].shape[0]),
            "parameters": torch_model.count(net.module),
            "largest_difference": off,
            "litert_torch": str(converter.__version__),
        }


def _sample_batch(torch: Any, net: torch_model.Net, size: int) -> tuple[Any, ...]:
    """A batch of ``size`` samples, or the example inputs where a program has another fixed batch."""
    wanted = tuple(torch.cat([v[:1]] * size) if v.dim() else v for v in net.examples)
    try:
        with torch.no_grad():
            net.module(*wanted)
    except Exception:  # noqa: BLE001 - whatever the error, the program was exported for the example inputs
        return net.examples
    return wanted


def _largest_difference(net: torch_model.Net, interpreter: Any, seed: int) -> float:
    """Return the largest difference between the outputs, divided by the largest output.

    Raises:
        VariantError: the result is above 1e-3, or NaN.
    """
    torch = torch_model.require()
    generator = torch.Generator().manual_seed(seed)
    feeds = [
        torch.randn(v.shape, generator=generator, dtype=v.dtype) if v.is_floating_point() else v for v in net.examples
    ]
    interpreter.allocate_tensors()
    # The inputs are named args_0, args_1, … in order.
    places = {
        detail["name"].rpartition("args_")[2].partition(":")[0]: detail for detail in interpreter.get_input_details()
    }
    for number, feed in enumerate(feeds):
        if str(number) in places:
            interpreter.set_tensor(places[str(number)]["index"], feed.numpy())
    interpreter.invoke()
    answered = [interpreter.get_tensor(detail["index"]) for detail in _ordered_outputs(interpreter)]
    wanted = [value.numpy() for value in torch_model.outputs(net.module, tuple(feeds))]
    worst = 0.0
    for answer, other in zip(answered, wanted, strict=True):
        off = float(np.abs(answer.astype(np.float64) - other.astype(np.float64)).max())
        worst = max(worst, off / max(float(np.abs(other).max()), 1e-12))
        if not worst <= _TOLERANCE:
            raise VariantError(
                f"the file that litert-torch makes of {net.spec} gives other outputs than the module:"
                f" {worst:.3g} of the largest, where {_TOLERANCE:g} is allowed",
                code=Code.BAD_OUTPUT,
            )
    return worst


def _ordered_outputs(interpreter: Any) -> list[Any]:
    """The output details in the module's order; the interpreter lists them in file order."""
    details = {detail["name"]: detail for detail in interpreter.get_output_details()}
    runner = interpreter.get_signature_runner("serving_default")
    names = sorted(runner.get_output_details(), key=lambda name: int(name.rpartition("_")[2]))
    return [details[runner.get_output_details()[name]["name"]] for name in names]
