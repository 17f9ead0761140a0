"""Loads PyTorch models as modules whose weights and layers can be changed, and writes them to a file.

The module of a factory is used unchanged. A torch.export program has weights but no layers; the layers are restored
(``lift``), so that whatever works on a module also works on a ``.pt2``. The output is a ``.pt2``: it holds the network
and the weights, needs none of the user's code, and can be the input of the next step.
"""

from __future__ import annotations

import contextlib
import fnmatch
import inspect
import io
import logging
import os
import re
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprof.artifact import recognise
from edgeprof.compression.isolation import place, user_code
from edgeprof.errors import InputError, UnavailableError, VariantError
from edgeprof.reasons import Code
from edgeprof.worker import embedded_code
from edgeprof.worker.runtime import LoadError, install_command, library_version

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from edgeprof.evaluation.dataset import Dataset

#: Metadata of exported nodes about their source: paths of the exporting machine, and object numbers that differ
#: from run to run.
_TRACES = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node", "custom")

#: Layers whose weights are multiplied with inputs, by class name (TorchScript keeps only the names).
WEIGHTED = frozenset(
    {
        "Conv1d",
        "Conv2d",
        "Conv3d",
        "ConvTranspose1d",
        "ConvTranspose2d",
        "ConvTranspose3d",
        "Linear",
        "NonDynamicallyQuantizableLinear",
        "MultiheadAttention",
        "LSTM",
        "GRU",
        "RNN",
    }
)


@dataclass
class Net:
    """A model that can be changed.

    Attributes:
        module: The module in eval mode; it may be replaced.
        examples: Example inputs, by position.
        names: Names of the inputs.
        spec: The source that the model was loaded from, for messages.
    """

    module: Any
    examples: tuple[Any, ...]
    names: tuple[str, ...]
    spec: str

    def inputs(self) -> dict[str, tuple[tuple[int | None, ...], str]]:
        """Return the inputs as ``Calibration`` takes them: name → (shape with an open batch, dtype)."""
        return {
            name: ((None, *value.shape[1:]), str(value.dtype).rpartition(".")[2])
            for name, value in zip(self.names, self.examples, strict=True)
        }


def require(package: str = "torch", module: str = "", *, extra: str = "torch-compress") -> Any:
    """Import and return an optional library.

    Raises:
        UnavailableError: the library is not installed or cannot be imported.
    """
    import importlib

    try:
        with quiet():
            return importlib.import_module(module or package)
    except ImportError as error:
        version = library_version(package)
        problem = f"{package} {version} does not fit: {error}" if version else f"{package} is not installed"
        raise UnavailableError(
            f"compressing PyTorch models this way needs {package} ({problem})",
            remedy=install_command(extra, package),
        ) from None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress warnings and logging of these libraries, on which a user cannot act."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def load(source: Path, data: Dataset | None = None, *, seed: int = 0) -> Net:
    """Load a factory (``FILE.py:attribute``, ``package.module:attribute``) or a ``.pt2`` as a model to change.

    Args:
        source: The path of the model, or the spec of a factory as a path.
        data: Supplies example inputs where the factory's module has no ``example_inputs``.
        seed: The random seed, for factories that make random weights.

    Raises:
        InputError: the source cannot be loaded, is not a module, or its inputs cannot be determined.
    """
    torch = require()
    spec = os.fspath(source)
    with quiet():
        torch.manual_seed(seed)
        return _from_factory(torch, spec, data) if recognise(spec).format == "python" else _from_program(torch, spec)


def made_by(spec: str, wanted: str = "") -> tuple[Any, Any]:
    """Return the object that a factory's spec names, and the module that it makes (the object itself if it is one).

    Args:
        spec: ``FILE.py:attribute`` or ``package.module:attribute``.
        wanted: An argument for the factory, such as ``width=0.5``.

    Raises:
        InputError: the factory cannot be imported, or fails.
    """
    from edgeprof_plugins.runtimes.targets import import_target

    torch = require()
    with user_code(spec):
        try:
            target = import_target(recognise(spec).target)[1]
        except LoadError as error:
            raise InputError(error.message + place(error.__context__), remedy=error.remedy) from None
    if isinstance(target, torch.nn.Module) or not callable(target):
        return target, target
    given = {}
    if wanted:
        name, _, value = wanted.partition("=")
        given[name] = float(value)
    with user_code(f"{spec}({wanted})"):
        return target, target(**given)


def _from_factory(torch: Any, spec: str, data: Dataset | None) -> Net:
    target, module = made_by(spec)
    if not isinstance(module, torch.nn.Module) or isinstance(module, torch.jit.ScriptModule):
        raise InputError(
            f"{spec} gives {type(module).__name__}, no torch.nn.Module",
            remedy="Name a module, or a function without arguments that returns one.",
        )
    module = module.eval().cpu()
    parameters = [
        p.name
        for p in inspect.signature(module.forward).parameters.values()
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    examples = getattr(module, "example_inputs", getattr(target, "example_inputs", None))
    if callable(examples):
        with user_code(f"the example_inputs of {spec}"):
            examples = examples()
    if examples is None:
        examples = _first_sample(torch, spec, data, parameters)
    if isinstance(examples, dict):
        examples = tuple(examples[name] for name in parameters if name in examples)
    values = tuple(examples) if isinstance(examples, tuple | list) else (examples,)
    names = tuple(parameters[: len(values)])
    if not all(isinstance(v, torch.Tensor) for v in values) or len(names) != len(values) or not values:
        raise InputError(
            f"the example_inputs of {spec} do not fit its forward({', '.join(parameters)})",
            remedy="Set module.example_inputs to a tensor, a tuple of them, or a dict by argument name.",
        )
    values = tuple(v.detach().cpu() for v in values)
    with user_code(f"the forward of {spec}"), torch.no_grad():
        module(*values)
    return Net(module, values, names, spec)


def _first_sample(torch: Any, spec: str, data: Dataset | None, names: list[str]) -> Any:
    if data is None:
        raise InputError(
            f"{spec} does not tell what its inputs are",
            remedy="Set module.example_inputs in the factory (a tensor, or a tuple of them), or give --dataset.",
        )
    first = next(iter(data.batches(1)))
    if set(first) == {""}:
        first = {names[0]: first[""]}
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in first.items()}


def _from_program(torch: Any, spec: str) -> Net:
    from edgeprof_plugins.compressors.torch.lift import lift
    from edgeprof_plugins.runtimes.pytorch.runtime import register_quantised

    try:
        register_quantised(spec)
        program = embedded_code.load_program(torch, spec)
    except LoadError as error:
        raise InputError(error.message, remedy=error.remedy) from None
    except Exception as error:  # noqa: BLE001 - a damaged file can raise the errors of several readers
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"PyTorch does not load {spec}: {first}",
            remedy=f"A .pt2 is read by the PyTorch that wrote it, or a newer one: this is {torch.__version__}.",
        ) from None
    positional, by_name = program.example_inputs or ((), {})
    if by_name or not positional or not all(isinstance(value, torch.Tensor) for value in positional):
        raise InputError(
            f"{spec} takes inputs by keyword, nested, or numbers, or was saved without its example inputs",
            remedy="Export a module whose forward takes tensors by position.",
        )
    module = lift(torch, program)
    _forget_unused(torch, module)
    return Net(module, tuple(positional), tuple(program.graph_signature.user_inputs), spec)


def named(layers: Mapping[str, Any], patterns: str, kind: str) -> list[Any]:
    """Return the layers that ``exclude`` names by their names in the module; ``block*`` matches several.

    Raises:
        InputError: a pattern matches no layer.
    """
    return [layers[name] for name in names(layers, patterns, kind)]


def names(layers: Mapping[str, Any], patterns: str, kind: str) -> list[str]:
    """Return the names of the layers that ``named`` would return.

    Raises:
        InputError: a pattern matches no layer.
    """
    chosen: list[str] = []
    for pattern in filter(None, re.split(r"[\s|]+", patterns)):
        fitting = fnmatch.filter(layers, pattern)
        if not fitting:
            raise InputError(
                f"exclude names {pattern!r}, which is no {kind} of this model",
                remedy=f"It has {', '.join(list(layers)[:8])}{' …' if len(layers) > 8 else ''}.",
            )
        chosen += fitting
    return list(dict.fromkeys(chosen))


def outputs(module: Any, arguments: tuple[Any, ...]) -> list[Any]:
    """Run a module and return its output tensors as a flat list."""
    torch = require()
    return [v for v in torch.utils._pytree.tree_leaves(module(*arguments)) if isinstance(v, torch.Tensor)]  # noqa: SLF001 - old and new versions share no public pytree API


def export(net: Net) -> tuple[Any, bool]:
    """Return the torch.export program of a net, and whether its batch is open (it is where the network allows it).

    Raises:
        VariantError: torch.export cannot follow the network, or the outputs of the program differ from the module's.
    """
    torch = require()
    _forget_unused(torch, net.module)
    open_batch = True
    with quiet(), torch.no_grad():
        try:
            program = _export_program(torch, net, dynamic=True)
        except Exception:  # noqa: BLE001 - exporters fail in many ways; a fixed batch is the second try
            open_batch = False
            try:
                program = _export_program(torch, net, dynamic=False)
            except Exception as error:
                first = (str(error).strip().splitlines() or [type(error).__name__])[0]
                raise VariantError(
                    f"torch.export cannot follow {net.spec}: {first}",
                    remedy="Write its forward without branches that depend on values, or export it to ONNX yourself.",
                ) from error
        _compare_outputs(torch, net, program)
    for node in program.graph.nodes:
        for key in _TRACES:
            node.meta.pop(key, None)
    return program, open_batch


def save(net: Net, target: Path) -> dict[str, Any]:
    """Write a net as ``.pt2``; the same weights give the same bytes."""
    torch = require()
    program, open_batch = export(net)
    buffer = io.BytesIO()  # a file's name would be part of its content
    with quiet():
        torch.export.save(program, buffer)
    target.write_bytes(buffer.getvalue())
    return {"batch": "open" if open_batch else int(net.examples[0].shape[0]), "parameters": count(net.module)}


def count(module: Any) -> int:
    """Return the number of parameter values, of any type."""
    return sum(int(p.numel()) for p in module.parameters())


def _export_program(torch: Any, net: Net, *, dynamic: bool) -> Any:
    if not dynamic:
        return torch.export.export(net.module, net.examples)
    batch = torch.export.Dim("batch")
    shapes = tuple({0: batch} if value.dim() else None for value in net.examples)
    return torch.export.export(net.module, twice(torch, net.examples), dynamic_shapes=_dynamic_shapes(net, shapes))


def _dynamic_shapes(net: Net, shapes: tuple[Any, ...]) -> Any:
    """Dynamic shapes by position for a lifted module, whose forward is generic, and by argument name for others."""
    return dict(zip(net.names, shapes, strict=True)) if not hasattr(net.module, "graph") else shapes


def twice(torch: Any, examples: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return at least two samples: torch.export treats a size of 1 as constant, and batch norms cannot train on it."""
    return tuple(torch.cat([v, v]) if v.dim() and v.shape[0] == 1 else v for v in examples)


def _compare_outputs(torch: Any, net: Net, program: Any) -> None:
    arguments = twice(torch, net.examples)
    try:
        answered = outputs(program.module(), arguments)
    except Exception:  # noqa: BLE001 - a fixed batch of 1
        arguments = net.examples
        answered = outputs(program.module(), arguments)
    wanted = outputs(net.module, arguments)
    for answer, other in zip(answered, wanted, strict=True):
        if not torch.isfinite(answer).all():
            raise VariantError(f"the outputs of what was made of {net.spec} are not finite", code=Code.NAN_OUTPUT)
        if not torch.allclose(answer, other, rtol=1e-3, atol=1e-3 * float(other.abs().max() + 1)):
            raise VariantError(f"the program that torch.export makes of {net.spec} gives other outputs than the module")


def _forget_unused(torch: Any, module: Any) -> None:
    """Delete parameters of a lifted graph that no node uses any more (the float originals of folded int8 weights)."""
    if not isinstance(module, torch.fx.GraphModule):
        return
    used = {str(node.target) for node in module.graph.nodes if node.op in {"get_attr", "call_module"}}
    names = [name for name, _ in [*module.named_parameters(), *module.named_buffers()]]
    for name in names:
        if not any(name == used_name or name.startswith(f"{used_name}.") for used_name in used):
            owner, _, key = name.rpartition(".")
            delattr(module.get_submodule(owner), key)
