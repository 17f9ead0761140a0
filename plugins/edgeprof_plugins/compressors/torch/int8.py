"""int8 for PyTorch models with torchao's PT2E: static, dynamic, and quantisation-aware training (QAT).

The output is a torch.export program with quantise and dequantise operators around float operators. Run eagerly, it is
slower than the float model. ``--option compile=1`` of the pytorch runtime fuses it into int8 kernels, and
``+export-onnx`` converts it to QDQ nodes, which ONNX Runtime and TensorRT fuse.

torch.ao.quantization.quantize_pt2e was removed from PyTorch; torchao has had it since 0.12.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from fractions import Fraction
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprof.compression.calibration_data import Calibration
from edgeprof.compression.compressor import Compressor, Parameter
from edgeprof.compression.outputs import compare_outputs
from edgeprof.compression.progress import report
from edgeprof.compression.target import current_target
from edgeprof.errors import InputError, UnavailableError, VariantError
from edgeprof.worker.runtime import install_command
from edgeprof_plugins.compressors.torch import model as torch_model
from edgeprof_plugins.compressors.torch import train as torch_train
from edgeprof_plugins.compressors.torch.base import EXCLUDE, run_key
from edgeprof_plugins.compressors.torch.inventory import Inventory

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from edgeprof.compression.compressor import Change
    from edgeprof.evaluation.dataset import Dataset
    from edgeprof_plugins.compressors.torch.model import Net

_BACKEND = Parameter(
    "backend", "str", default="auto", choices=("auto", "x86", "arm"), help="whose rules (auto: the target's)"
)
#: Calibration samples in one batch.
_AT_ONCE = 16
#: Operators that join the outputs of layers, or take their mean; the next operator is a layer again.
_JOINTS = frozenset({"aten.add.Tensor", "aten.add_.Tensor", "aten.mul.Tensor", "aten.mul_.Tensor", "aten.mean.dim"})
#: Operators that runtimes fuse into the preceding layer.
_FOLDED = ("aten.batch_norm", "aten.relu", "aten.hardtanh", "aten.clamp")


class _Int8(Compressor):
    """The common parts of all three methods: loading the float model, and writing the program and its facts."""

    changes: Sequence[Change] = ("precision",)
    weight_bits = 8
    version = "2"
    takes = ("python", "pt2")
    gives = "pt2"
    for_target = True

    def _load_net(self, source: Path, data: Dataset | None, seed: int) -> tuple[Net, Inventory]:
        """Load the float model, and record its layers and weights before anything is quantised.

        Raises:
            InputError: the model has float64 weights.
        """
        net = torch_model.load(source, data, seed=seed)
        _require_float32(self.name, net)
        return net, Inventory.of(net.module, net.examples)

    @staticmethod
    def _write(net: Net, quantised: Any, target: Path, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Write the program, and return the backend whose rules it follows and how it was saved."""
        return {
            "backend": _target_backend(parameters),
            **_activation_range(parameters),
            **_write_program(net, quantised, target),
        }


class Int8Static(_Int8):
    """Makes weights and activations 8-bit integers, with ranges from calibration samples."""

    name = "int8-static"
    needs_data = "calibration"
    parameters = (
        _BACKEND,
        EXCLUDE,
        Parameter("samples", "int", default=128, minimum=1, maximum=100_000, help="calibration samples used at most"),
    )

    def apply(
        self, source: Path, target: Path, parameters: Mapping[str, Any], data: Dataset | None, *, seed: int = 0
    ) -> dict[str, Any]:
        if data is None:
            raise InputError("int8-static needs calibration data", remedy="Add --dataset SPEC.")
        torch = torch_model.require()
        net, inventory = self._load_net(source, data, seed)
        calibration = Calibration(data, net.inputs(), parameters["samples"])
        program, open_batch = _export_program(net)
        layers = _layer_weights(program, net)
        feeds = _batch_samples(torch, net, calibration, open_batch=open_batch)
        quantised = _quantise(program, _make_quantizer(net, parameters), feeds, label="int8-static · calibration")
        account = _integer_account(inventory, layers, quantised, net)
        facts = _compare_outputs(net, quantised, feeds[:32]) | {"coverage": account}
        if not facts["int8_mac_share"]:
            raise InputError(
                f"int8-static finds nothing to quantise in {net.spec}: no float convolution or dense layer is left",
                remedy="Start from the float model.",
            )
        return {**calibration.facts(), **facts, **self._write(net, quantised, target, parameters)}


class Int8Dynamic(_Int8):
    """Quantises dense layers only, with input ranges found at run time; few weights in a convolutional network."""

    name = "int8-dynamic"
    version = "1"
    parameters = (_BACKEND, EXCLUDE)

    def apply(
        self, source: Path, target: Path, parameters: Mapping[str, Any], data: Dataset | None, *, seed: int = 0
    ) -> dict[str, Any]:
        net, inventory = self._load_net(source, data, seed)
        feeds = [_noise_inputs(torch_model.require(), net, seed)]
        # No engine has a dynamic int8 kernel for convolutions here: quantising them would only make them slower.
        quantizer = _make_quantizer(net, parameters, dense_only=True, is_dynamic=True)
        program, _ = _export_program(net)
        layers = _layer_weights(program, net)
        quantised = _quantise(program, quantizer, feeds)
        remedy = "Use int8-static, with calibration data."
        account = _integer_account(inventory, layers, quantised, net) | {"remedy": remedy}
        facts = _compare_outputs(net, quantised, feeds) | {"coverage": account}
        if not facts["int8_mac_share"]:
            raise InputError(
                f"int8-dynamic finds nothing to quantise in {net.spec}: it has no dense layers", remedy=remedy
            )
        return {**facts, **self._write(net, quantised, target, parameters)}


class Qat(_Int8):
    """Quantisation-aware training: int8 rounding in the forward pass, straight-through gradients backwards."""

    name = "qat"
    changes = ("precision", "weights")
    needs_data = "training"
    parameters = (_BACKEND, EXCLUDE, *torch_train.parameters(3, 1e-4))

    def apply(
        self, source: Path, target: Path, parameters: Mapping[str, Any], data: Dataset | None, *, seed: int = 0
    ) -> dict[str, Any]:
        torch = torch_model.require()
        net, inventory = self._load_net(source, data, seed)
        samples = torch_train.samples(net, self.name, parameters, data)
        run = run_key(self, source, parameters, samples, seed)
        tools = _load_torchao()
        quantizer = _make_quantizer(net, parameters, is_qat=True)
        with torch_model.quiet():
            net.module.train()
            program, _ = _export_program(net)
            layers = _layer_weights(program, net)
            net.module.eval()
            prepared = tools.prepare_qat_pt2e(program, quantizer)
            tools.allow_exported_model_train_eval(prepared)
            prepared.train()
            # The first samples set the shapes and ranges of the fake quantisers; a checkpoint then overwrites them.
            before = {name: value.clone() for name, value in prepared.state_dict().items() if "running" in name}
            with torch.no_grad():
                prepared(*[x[:64] for x in samples.inputs])
                for name, value in prepared.state_dict().items():
                    if name in before:
                        value.copy_(before[name])
        trained = torch_model.Net(prepared, net.examples, net.names, net.spec)
        facts = torch_train.train(trained, samples, parameters, label="qat", run=run, seed=seed)
        with torch_model.quiet(), torch.no_grad():
            prepared.eval()
            quantised = tools.convert_pt2e(prepared)
        facts |= {
            "int8_mac_share": int8_share(quantised, net),
            "coverage": _integer_account(inventory, layers, quantised, net),
            **self._write(net, quantised, target, parameters),
        }
        torch_train.finish(run)
        return facts


def _quantise(program: Any, quantizer: Any, feeds: Sequence[tuple[Any, ...]], *, label: str = "") -> Any:
    """Observe the ranges of an exported program on the samples, and replace the observed operators with quantised ones.

    Args:
        program: From ``_export_program``.
        quantizer: From ``_make_quantizer``.
        feeds: The arguments of each call.
        label: The text of the progress line; "" for a step that is too short to show.
    """
    tools = _load_torchao()
    with torch_model.quiet(), torch_model.require().no_grad():
        prepared = tools.prepare_pt2e(program, quantizer)
        for number, feed in enumerate(feeds):
            prepared(*feed)
            if label:
                report(f"{label} {number + 1}/{len(feeds)}", (number + 1) / len(feeds))
        return tools.convert_pt2e(prepared)


def _require_float32(name: str, net: Net) -> None:
    torch = torch_model.require()
    if any(value.dtype == torch.float64 for value in net.module.parameters()):
        raise InputError(
            f"{name} takes models of float32, and {net.spec} has float64 weights",
            remedy="Have the factory return module.float(), or export it so.",
        )


class _Tools:
    """The functions of torchao that are used here."""

    def __init__(self, pt2e: Any, quantize: Any) -> None:
        self.prepare_pt2e, self.convert_pt2e = quantize.prepare_pt2e, quantize.convert_pt2e
        self.prepare_qat_pt2e = quantize.prepare_qat_pt2e
        self.allow_exported_model_train_eval = pt2e.allow_exported_model_train_eval


def _load_torchao() -> _Tools:
    torch_model.require("torchao")
    try:
        pt2e = torch_model.require("torchao", "torchao.quantization.pt2e")
        return _Tools(pt2e, torch_model.require("torchao", "torchao.quantization.pt2e.quantize_pt2e"))
    except (UnavailableError, AttributeError):
        raise _too_old() from None


def _too_old() -> UnavailableError:
    from edgeprof.worker.runtime import library_version

    return UnavailableError(
        f"int8 of PyTorch models needs torchao 0.12 or later; this is {library_version('torchao')}",
        remedy=install_command("torch-compress", "'torchao>=0.12'"),
    )


def _make_quantizer(net: Net, parameters: Mapping[str, Any], *, dense_only: bool = False, **mode: bool) -> Any:
    torch = torch_model.require()
    _load_torchao()  # reports the required version where the installed one is too old to have a quantiser
    kinds = (torch.nn.Linear,) if dense_only else (torch.nn.modules.conv._ConvNd, torch.nn.Linear)  # noqa: SLF001 - the class that all convolutions share
    layers = {name: layer for name, layer in net.module.named_modules() if isinstance(layer, kinds)}
    excluded = torch_model.names(
        layers, parameters["exclude"], "dense layer" if dense_only else "convolution or dense layer"
    )
    name, maker = (
        ("arm_inductor_quantizer", "ArmInductorQuantizer")
        if _target_backend(parameters) == "arm"
        else ("x86_inductor_quantizer", "X86InductorQuantizer")
    )
    module = torch_model.require("torchao", f"torchao.quantization.pt2e.quantizer.{name}")
    make_config = getattr(module, f"get_default_{name.removesuffix('_quantizer')}_quantization_config")
    config = make_config(**mode, **_activation_range(parameters))
    quantizer = (
        getattr(module, maker)() if dense_only else _joining_quantizer(getattr(module, maker), config.input_activation)
    )
    for name in excluded:
        quantizer.set_module_name_qconfig(name, None)
    return quantizer.set_module_type_qconfig(torch.nn.Linear, config) if dense_only else quantizer.set_global(config)


def _target_backend(parameters: Mapping[str, Any]) -> str:
    """The backend whose rules apply: ``x86`` or ``arm``."""
    given: str = parameters["backend"]
    return current_target().architecture if given == "auto" else given


def _activation_range(parameters: Mapping[str, Any]) -> dict[str, bool]:
    """7-bit activations where the target's kernels saturate with 8 bits; the Arm quantiser has no such option."""
    return {"reduce_range": True} if _target_backend(parameters) == "x86" and current_target().saturates else {}


def _joining_quantizer(maker: Any, activation: Any) -> Any:
    """Create Inductor's quantiser, extended so that sums, products and means also take and return integers.

    Its default rules leave operands of sums and products in float, because Inductor fuses the sum into the preceding
    convolution. ONNX Runtime and TensorRT do not: there, such a convolution and its neighbours would run in float.
    """
    annotation = torch_model.require("torchao", "torchao.quantization.pt2e.quantizer").QuantizationAnnotation

    class Joined(maker):  # type: ignore[misc]
        def annotate(self, model: Any) -> Any:
            with _patched_torchao():
                model = super().annotate(model)
            for node in model.graph.nodes:
                values = [argument for argument in node.args if hasattr(argument, "meta")]
                if str(node.target) in _JOINTS and any(_is_quantised(argument) for argument in values):
                    node.meta["quantization_annotation"] = annotation(
                        input_qspec_map=dict.fromkeys(values, activation),
                        output_qspec=activation if len(values) > 1 else None,
                        _annotated=True,
                    )
            return model

    return Joined()


@contextlib.contextmanager
def _patched_torchao() -> Iterator[None]:
    """Make torchao join layers, norms, sums and activations step by step, and only where they are connected.

    By default torchao tries every combination of them, which is fast enough for MobileNetV2 but far too slow for
    NASNet.
    """
    utils = torch_model.require("torchao", "torchao.quantization.pt2e.graph_utils")
    original = getattr(utils, "itertools", None)

    def joined(*kinds: Sequence[Any]) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = [()]
        for kind in kinds:
            ends = [(row, candidate) for row in rows for candidate in kind]
            rows = [
                (*row, candidate)
                for row, candidate in ends
                if not row or utils.check_subgraphs_connected(row[-1], candidate)
            ]
        return rows

    if original is not None:  # another version of torchao searches in another way
        utils.itertools = SimpleNamespace(product=joined, chain=itertools.chain)
    try:
        yield
    finally:
        if original is not None:
            utils.itertools = original


def _is_quantised(node: Any) -> bool:
    """Whether the source of this value is quantised: the node, or the layer whose norm or activation it is."""
    annotation = node.meta.get("quantization_annotation")
    if annotation is not None and annotation.input_qspec_map:
        return True
    before = [argument for argument in node.args if hasattr(argument, "meta")]
    return bool(before) and str(node.target).startswith(_FOLDED) and _is_quantised(before[0])


def _batch_samples(torch: Any, net: Net, calibration: Calibration, *, open_batch: bool) -> list[tuple[Any, ...]]:
    """The calibration samples in batches: the histogram of an observer costs the same for one sample and for many."""
    if not open_batch:
        batches = calibration.batches(int(net.examples[0].shape[0]))
        return [tuple(torch.from_numpy(batch[name]) for name in net.names) for batch in batches]
    single = calibration.batches(1)
    if len(single) == 1:
        single *= 2  # an open batch has at least two samples
    parts = np.array_split(np.arange(len(single)), math.ceil(len(single) / _AT_ONCE))
    return [
        tuple(torch.from_numpy(np.concatenate([single[i][name] for i in part])) for name in net.names) for part in parts
    ]


def _export_program(net: Net) -> tuple[Any, bool]:
    """The net as an exported module for torchao, and whether its batch is open (it is where the network allows it)."""
    torch = torch_model.require()
    batch = torch.export.Dim("batch")
    shapes = {name: {0: batch} if value.dim() else None for name, value in zip(net.names, net.examples, strict=True)}
    wanted = tuple(shapes.values()) if hasattr(net.module, "graph") else shapes

    def exported(examples: tuple[Any, ...], **more: Any) -> Any:
        with torch_model.quiet(), torch.no_grad():
            return torch.export.export(net.module, examples, **more).module(**_without_guards())

    try:
        return exported(torch_model.twice(torch, net.examples), dynamic_shapes=wanted), True
    except Exception:  # noqa: BLE001 - exporters fail in many ways; a fixed batch is the second try
        try:
            return exported(net.examples), False
        except Exception as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise VariantError(f"torch.export cannot follow {net.spec}: {first}") from error


def _without_guards() -> dict[str, Any]:
    """Options that omit the node that asserts shapes in newer versions, because torchao's passes do not expect it."""
    import inspect

    torch = torch_model.require()
    known = inspect.signature(torch.export.ExportedProgram.module).parameters
    return {"check_guards": False} if "check_guards" in known else {}


def _noise_inputs(torch: Any, net: Net, seed: int) -> tuple[Any, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randn(v.shape, generator=generator, dtype=v.dtype) if v.is_floating_point() else v
        for v in torch_model.twice(torch, net.examples)
    )


def _compare_outputs(net: Net, quantised: Any, feeds: list[tuple[Any, ...]]) -> dict[str, Any]:
    """Return how close the outputs are to those of the float model, and the share of MACs that are int8."""
    torch = torch_model.require()
    with torch.no_grad():
        pairs = [
            (wanted.double().numpy(), answered.double().numpy())
            for feed in feeds
            for wanted, answered in zip(
                torch_model.outputs(net.module, feed), torch_model.outputs(quantised, feed), strict=True
            )
        ]
    return {"int8_mac_share": int8_share(quantised, net), **compare_outputs(pairs)}


def int8_share(quantised: Any, net: Net) -> float:
    """Return the share of MACs of convolutions and dense layers that have int8 weights and inputs, 0 to 1."""
    layers = _weighted_layers(quantised, net)
    total = sum(macs for _, macs, _ in layers)
    return round(sum(macs for _, macs, quantised in layers if quantised) / total, 6) if total else 0.0


def _weighted_layers(quantised: Any, net: Net) -> list[tuple[tuple[int, ...], int, bool]]:
    """Convolutions and dense layers in order: the shape of the weights, the MACs, and whether they run in integers."""
    torch = torch_model.require()
    layers: list[tuple[tuple[int, ...], int, bool]] = []
    base: Any = torch.fx.Interpreter

    class Count(base):  # type: ignore[misc]
        def run_node(self, node: Any) -> Any:
            result = super().run_node(node)
            if str(node.target) in _LAYERS:
                shape = tuple(self.env[node.args[1]].shape)
                layers.append((shape, result.numel() * math.prod(shape[1:]), _is_dequantised(node)))
            return result

    with torch.no_grad():
        interpreter = Count(quantised, garbage_collect_values=False)
        interpreter.run(*torch_model.twice(torch, net.examples))
    return layers


_LAYERS = frozenset({"aten.conv1d.default", "aten.conv2d.default", "aten.conv3d.default", "aten.linear.default"})
_NOT_COVERED = "torchao's quantiser leaves it in float: excluded, or no layer that it knows"


def _layer_weights(program: Any, net: Net) -> list[str]:
    """The weights of the convolutions and dense layers of an exported program in order; "" where they are computed."""
    first: dict[int, str] = {}  # a shared weight has several names, and the inventory uses the first
    names = {
        name: first.setdefault(id(value), name) for name, value in net.module.named_parameters(remove_duplicate=False)
    }
    return [
        names.get(str(node.args[1].target), "") if node.args[1].op == "get_attr" else ""
        for node in program.graph.nodes
        if str(node.target) in _LAYERS
    ]


def _integer_account(inventory: Inventory, weights: Sequence[str], quantised: Any, net: Net) -> dict[str, Any]:
    """The coverage in integers.

    Args:
        inventory: Of the float model.
        weights: From ``_layer_weights``; a quantised program has the same layers in the same order, without names.
        quantised: The quantised program.
        net: The float model, for its example inputs.
    """
    uses: dict[str, list[bool]] = {}
    for name, (_, _, in_integers) in zip(weights, _weighted_layers(quantised, net), strict=True):
        uses.setdefault(name, []).append(in_integers)
    shares = {name: Fraction(sum(flags), len(flags)) for name, flags in uses.items() if name and any(flags)}
    return inventory.account(shares, {}, _NOT_COVERED)


def _is_dequantised(node: Any) -> bool:
    return all("dequantize" in str(argument.target) for argument in node.args[:2])


def _write_program(net: Net, quantised: Any, target: Path) -> dict[str, Any]:
    return torch_model.save(torch_model.Net(quantised, net.examples, net.names, net.spec), target)
