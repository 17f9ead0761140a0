"""Exports PyTorch models to files that other runtimes load: ONNX, TorchScript, torch.export. Each is a chain step."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from edgeprof.compression.compressor import Compressor, Parameter
from edgeprof.errors import VariantError
from edgeprof_plugins.compressors.torch import model as torch_model
from edgeprof_plugins.compressors.torch.prune import save_script

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from edgeprof.evaluation.dataset import Dataset

#: Fields of an ONNX model in which the exporter records the place of a node in the user's source.
_TRACED = ("metadata_props", "doc_string")


class ExportPt2(Compressor):
    """Exports the module of a factory as a torch.export program, which does not need the code of the factory."""

    name = "export-pt2"
    version = "1"
    takes = ("python",)
    gives = "pt2"

    def apply(
        self, source: Path, target: Path, parameters: Mapping[str, Any], data: Dataset | None, *, seed: int = 0
    ) -> dict[str, Any]:
        del parameters
        return torch_model.save(torch_model.load(source, data, seed=seed), target)


class ExportTorchScript(Compressor):
    """Exports traced TorchScript, for runtimes that support nothing newer."""

    name = "export-torchscript"
    version = "1"
    takes = ("python", "pt2")
    gives = "torchscript"

    def apply(
        self, source: Path, target: Path, parameters: Mapping[str, Any], data: Dataset | None, *, seed: int = 0
    ) -> dict[str, Any]:
        del parameters
        torch = torch_model.require()
        net = torch_model.load(source, data, seed=seed)
        examples = torch_model.twice(torch, net.examples)
        with torch_model.quiet(), torch.no_grad():
            try:
                net.module(*examples)
            except Exception:  # noqa: BLE001 - a program with a fixed batch
                examples = net.examples
            try:
                with _fresh_names(torch):
                    # PyTorch's check would trace the module a second time; the outputs are compared below.
                    traced = torch.jit.trace(net.module, examples, strict=False, check_trace=False)
                answered, wanted = torch_model.outputs(traced, examples), torch_model.outputs(net.module, examples)
            except Exception as error:
                first = (str(error).strip().splitlines() or [type(error).__name__])[0]
                raise VariantError(f"{net.spec} cannot be traced: {first}") from error
            for answer, other in zip(answered, wanted, strict=True):
                if not torch.allclose(answer, other, rtol=1e-3, atol=1e-3 * float(other.abs().max() + 1)):
                    raise VariantError(f"the trace of {net.spec} gives other outputs than the module")
        save_script(traced, target)
        return {"parameters": torch_model.count(net.module)}


@contextlib.contextmanager
def _fresh_names(torch: Any) -> Iterator[None]:
    """Use a new compilation unit, so that the file is the same each time.

    TorchScript numbers types throughout the process (___torch_mangle_7).
    """
    state: Any = getattr(torch.jit, "_state", None)
    before = getattr(state, "_python_cu", None)
    if before is None:  # another version: the bytes differ from run to run, but not the model
        yield
        return
    state._python_cu = torch._C.CompilationUnit()  # noqa: SLF001 - there is no public API
    try:
        yield
    finally:
        state._python_cu = before  # noqa: SLF001


class ExportOnnx(Compressor):
    """Exports ONNX through torch.export; torchao's quantised operators become QDQ nodes, which runtimes fuse."""

    name = "export-onnx"
    version = "1"
    takes = ("python", "pt2")
    gives = "onnx"
    parameters = (Parameter("opset", "int", default=20, minimum=18, maximum=23, help="of the ONNX standard"),)

    def apply(
        self, source: Path, target: Path, parameters: Mapping[str, Any], data: Dataset | None, *, seed: int = 0
    ) -> dict[str, Any]:
        torch = torch_model.require()
        onnx = torch_model.require("onnx")
        torch_model.require("onnxscript")
        net = torch_model.load(source, data, seed=seed)
        program, open_batch = torch_model.export(net)
        with torch_model.quiet():
            try:
                exported = torch.onnx.export(
                    program, dynamo=True, opset_version=parameters["opset"], external_data=False, verbose=False
                )
            except Exception as error:
                raise VariantError(
                    f"PyTorch's ONNX exporter cannot express {net.spec}: {_innermost_cause(error)}",
                    remedy="int8-dynamic cannot be expressed: quantise after the export, as export-onnx+int8-dynamic."
                    if "choose_qparams" in str(error)
                    else None,
                ) from error
        model = exported.model_proto
        _forget_source(model)
        _name_batch(model.graph)
        onnx.save(model, str(target))
        return {
            "opset": parameters["opset"],
            "batch": "open" if open_batch else int(net.examples[0].shape[0]),
            "parameters": torch_model.count(net.module),
        }


def _innermost_cause(error: BaseException) -> str:
    """The innermost cause in one line, because the exporter wraps it in pages of text."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _forget_source(model: Any) -> None:
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        for name in _TRACED:
            if name in part.DESCRIPTOR.fields_by_name:
                part.ClearField(name)


def _name_batch(graph: Any) -> None:
    """Rename the open dimension to ``batch``; torch.export gives it a name such as ``s77``."""
    values = [*graph.input, *graph.output, *graph.value_info]
    first = next((d.dim_param for v in graph.input for d in v.type.tensor_type.shape.dim[:1] if d.dim_param), None)
    for value in values:
        for dim in value.type.tensor_type.shape.dim:
            if first is not None and dim.dim_param == first:
                dim.dim_param = "batch"
