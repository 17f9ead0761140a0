"""PyTorch: TorchScript (.pt), torch.export programs (.pt2) and eager modules (``package.module:factory``).

A factory is a callable without arguments that returns an ``nn.Module``, or the module itself. The module (or the
factory) may have an attribute ``example_inputs``: a tensor, a tuple of tensors, a dict by argument name, or a callable
that returns one of these. They define the shapes, and are the inputs where the user gives none.

Devices: ``cpu``, ``cuda``, ``cuda:1``, ``mps``, ``xpu``. Options: ``interop_threads``; ``freeze`` (1: apply
torch.jit.freeze to a TorchScript model); ``cudnn_benchmark`` (1); ``cuda_graph`` (1: windows repeat a CUDA graph);
``compile`` (1: apply torch.compile to an exported program, which fuses torchao's quantised programs into int8 kernels;
it needs a C++ compiler, and half a minute in the first inference).
"""

import contextlib
import importlib
import inspect
import os
import warnings
import zipfile
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from edgeprof import hookimpl
from edgeprof.worker import embedded_code
from edgeprof.worker.dtypes import is_foreign
from edgeprof.worker.graph import Graph
from edgeprof.worker.runtime import (
    ANY_DTYPE,
    ANY_SHAPE,
    Availability,
    Dim,
    LoadError,
    LoadOptions,
    Runtime,
    Session,
    TensorSpec,
    install_command,
    library_version,
)

from ..targets import import_target, told
from . import fitting
from .memory import ModuleMemory, ProgramMemory, ScriptMemory
from .session import TorchSession

REMEDY = install_command("torch", "torch")
OPTIONS = ("interop_threads", "freeze", "cudnn_benchmark", "cuda_graph", "compile")
#: TorchScript's types of arguments that are not tensors → the dtype of the rank-0 input that represents them.
SCALARS = {"int": "int64", "float": "float64", "bool": "bool", "number": "float64"}

#: A module that doubles its input. It is exported, written and read again first, so that a .pt2 file is known to work;
#: the file itself would be bound to the version of PyTorch.
_DOUBLE = b"""
import io
import torch

class Double(torch.nn.Module):
    def forward(self, x):
        return 2 * x

class Loaded(torch.nn.Module):
    example_inputs = (torch.ones(1, 2),)

    def __init__(self):
        super().__init__()
        file = io.BytesIO()
        torch.export.save(torch.export.export(Double(), self.example_inputs), file)
        file.seek(0)
        self.program = [torch.export.load(file).module()]  # in a list: it has no eval()

    def forward(self, x):
        return self.program[0](x)

def model():
    return Loaded()
"""


class PyTorch(Runtime):
    name = "pytorch"
    formats = ("torchscript", "pt2", "python")
    smallest_format = "python"
    smallest_model = _DOUBLE
    libraries = ("torch",)
    inspects_apart = True

    def availability(self) -> Availability:
        version = library_version("torch")
        return Availability(version, None if version else "PyTorch is not installed", None if version else REMEDY)

    def devices(self) -> List[str]:
        torch = _load_torch()
        devices = ["cpu"]
        if torch.cuda.is_available():
            devices.append("cuda")
        devices += [name for name in ("mps", "xpu") if _is_backend_available(torch, name)]
        return devices

    def load(self, path: str, options: LoadOptions) -> Session:
        torch = _load_torch()
        device = _check_device(torch, options.device)
        _configure_torch(torch, options)
        suffix = path.rpartition(":")[2] if not os.path.exists(path) else ""
        with warnings.catch_warnings():
            # torch.jit and torch.export warn about future changes, on which a user who profiles a file cannot act.
            warnings.simplefilter("ignore")
            if suffix:
                session = _load_eager(torch, path, device, options)
            elif _is_torchscript(path):
                session = _load_torchscript(torch, path, device, options)
            else:
                session = _load_exported(torch, path, device, compiled=options.options.get("compile") == "1")
        if options.options.get("cuda_graph") == "1":
            session.use_graph()
        return session

    def inspect(self, path: str) -> Optional[Graph]:
        return self.inspect_with_inputs(path, {})

    def inspect_with_inputs(self, path: str, inputs: Dict[str, Any]) -> Optional[Graph]:
        if not zipfile.is_zipfile(path) or _is_torchscript(path):
            return None  # only a torch.export program has a readable graph
        from . import graph

        return graph.read(path, inputs)


def _load_torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise LoadError("PyTorch cannot be imported: {}".format(error), REMEDY) from None
    return torch


def _is_backend_available(torch: Any, name: str) -> bool:
    backend = getattr(torch, name, None) if name == "xpu" else getattr(torch.backends, name, None)
    return bool(backend is not None and backend.is_available())


def _check_device(torch: Any, wanted: str) -> Any:
    kind, _, index = wanted.partition(":")
    if kind not in ("cpu", "cuda", "mps", "xpu") or (index and not index.isdigit()):
        raise LoadError("PyTorch has no device {!r}".format(wanted), "It has cpu, cuda, cuda:N, mps, xpu.")
    if kind == "cuda" and not torch.cuda.is_available():
        build = torch.version.cuda
        raise LoadError(
            "--device {} cannot be used: {}".format(
                wanted,
                "this PyTorch was built without CUDA"
                if build is None
                else "PyTorch (for CUDA {}) finds no working GPU".format(build),
            ),
            "Install a build for this board's CUDA (on a Jetson, NVIDIA's own wheel), or leave --device out.",
        )
    if kind in ("mps", "xpu") and not _is_backend_available(torch, kind):
        raise LoadError("--device {} cannot be used: PyTorch finds none here".format(wanted), "Leave --device out.")
    if kind == "cuda" and index and int(index) >= torch.cuda.device_count():
        raise LoadError("there is no {}: this machine has {} GPU(s)".format(wanted, torch.cuda.device_count()))
    return torch.device(wanted)


def _configure_torch(torch: Any, options: LoadOptions) -> None:
    for key, value in options.options.items():
        if key not in OPTIONS or not value.isdigit():
            raise LoadError("PyTorch has no option {}={}".format(key, value), "It takes {}.".format(", ".join(OPTIONS)))
    if options.threads:
        torch.set_num_threads(options.threads)
    if "interop_threads" in options.options:
        try:
            torch.set_num_interop_threads(int(options.options["interop_threads"]))
        except RuntimeError as error:
            raise LoadError("interop_threads cannot be set any more: {}".format(_first_line(error))) from None
    if options.options.get("cudnn_benchmark") == "1":
        torch.backends.cudnn.benchmark = True


def _is_torchscript(path: str) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.partition("/")[2] for name in archive.namelist()]
    except (OSError, zipfile.BadZipFile):
        raise LoadError("{} is no whole PyTorch archive".format(os.path.basename(path)), "Export it again.") from None
    return "constants.pkl" in names and any(name.startswith("code/") for name in names)


def _load_torchscript(torch: Any, path: str, device: Any, options: LoadOptions) -> TorchSession:
    refusal = embedded_code.code_refusal(path)
    if refusal is not None:
        raise refusal

    def read() -> Any:
        module = torch.jit.load(path, map_location=device).eval()
        return torch.jit.freeze(module) if options.options.get("freeze") == "1" else module

    try:
        module = read()
    except Exception as error:
        raise LoadError(
            "PyTorch does not load {}: {}".format(os.path.basename(path), _first_line(error)),
            "It may need a newer PyTorch, or the library that brings its custom operators.",
        ) from None
    inputs, scalars = [], []
    for argument in module.forward.schema.arguments[1:]:
        if argument.has_default_value() and argument.name not in options.shapes:
            break  # inputs are positional, so none can be given after the first omitted one
        kind = str(argument.type)
        if kind in SCALARS:
            scalars.append(argument.name)
            inputs.append(TensorSpec(argument.name, (), SCALARS[kind], None))
        elif kind in ("Tensor", "Optional[Tensor]"):
            inputs.append(TensorSpec(argument.name, ANY_SHAPE, ANY_DTYPE, None))
        else:
            raise LoadError(
                "{} takes {}: {}, which cannot be fed: inputs are tensors and numbers".format(
                    os.path.basename(path), argument.name, kind
                ),
                "Wrap it in a module whose forward takes tensors, or bench a function (FILE.py:FUNCTION).",
            )
    memory, current = ScriptMemory(module, read), [module]

    def call(*arguments: Any) -> Any:
        return current[0](*arguments)

    def forget() -> None:
        current[0] = memory.restored()

    session = TorchSession(torch, device, "TorchScript", call, inputs=inputs, scalars=scalars, forget=forget)
    session.fits = fitting.of_script(module)
    return session


def _load_exported(torch: Any, path: str, device: Any, compiled: bool = False) -> TorchSession:
    if not hasattr(torch, "export"):
        raise LoadError("torch.export programs need PyTorch 2.1 or newer; this is {}".format(torch.__version__))
    try:
        register_quantised(path)
        program = embedded_code.load_program(torch, path)
        module = program.module()
        if device.type != "cpu":
            module = module.to(device)
    except LoadError:
        raise
    except Exception as error:
        raise LoadError(
            "PyTorch does not load {}: {}".format(os.path.basename(path), _first_line(error)),
            "A .pt2 is read by the PyTorch that wrote it, or a newer one: this is {}.".format(torch.__version__),
        ) from None
    memory = ProgramMemory(torch, module, lambda: embedded_code.load_program(torch, path).module())
    if compiled:
        module = _compile_module(torch, module)
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    batch = _batch_symbol(program, values)
    spec_in = [_exported_spec(name, values.get(name), batch) for name in program.graph_signature.user_inputs]
    spec_out = [_exported_spec(name, values.get(name), batch) for name in program.graph_signature.user_outputs]
    returned = program.call_spec.out_spec
    if returned is not None and returned.type is dict and len(returned.context) == len(spec_out):
        spec_out = [spec._replace(name=str(key)) for key, spec in zip(returned.context, spec_out)]
    positional, by_name = program.call_spec.in_spec.children_specs
    if len(spec_in) != positional.num_leaves + by_name.num_leaves or positional.num_leaves != positional.num_children:
        raise LoadError(
            "{} takes nested inputs, which cannot be fed by name".format(os.path.basename(path)),
            "Export a module whose forward takes tensors only.",
        )
    call: Callable[..., Any]
    if by_name.num_leaves:
        keys = list(by_name.context)
        count = positional.num_leaves

        def call(*arguments: Any) -> Any:
            return module(*arguments[:count], **dict(zip(keys, arguments[count:])))

    else:
        call = module
    session = TorchSession(torch, device, "torch.export", call, inputs=spec_in, outputs=spec_out, forget=memory.restore)
    session.fits = fitting.of_program(program)
    return session


def _compile_module(torch: Any, module: Any) -> Any:
    if not hasattr(torch, "compile"):
        raise LoadError("compile=1 needs PyTorch 2.0 or newer; this is {}".format(torch.__version__))
    inductor = importlib.import_module("torch._inductor.config")
    setattr(inductor, "freezing", True)  # noqa: B010 - mypy sees a module; this folds the dequantisation of weights
    return torch.compile(module)


def register_quantised(path: str) -> None:
    """Register the quantise and dequantise operators of torch if a program uses them.

    Each library that provides these operators registers them when it is imported.
    """
    with zipfile.ZipFile(path) as archive:
        models = [name for name in archive.namelist() if name.endswith("model.json")]
        if not any(b"quantized_decomposed" in archive.read(name) for name in models):
            return
    for name in ("torch.ao.quantization.fx._decomposed", "torchao.quantization.pt2e"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
            return


def _batch_symbol(program: Any, values: Dict[str, Any]) -> Optional[str]:
    """The symbol of the batch (such as s17, from torch.export): the first open leading dimension of an input."""
    for name in program.graph_signature.user_inputs:
        shape: Any = getattr(values.get(name), "shape", ())
        if len(shape) and not isinstance(shape[0], int):
            return str(shape[0])
    return None


def _exported_spec(name: Any, value: Any, batch: Optional[str]) -> TensorSpec:
    if not hasattr(value, "shape"):  # a number
        return TensorSpec(str(name), ANY_SHAPE, ANY_DTYPE, None)
    shape: Tuple[Dim, ...] = tuple(
        dim if isinstance(dim, int) else "batch" if str(dim) == batch else str(dim) for dim in value.shape
    )
    return TensorSpec(str(name), shape, str(value.dtype).rpartition(".")[2], None)


def _load_eager(torch: Any, target: str, device: Any, options: LoadOptions) -> TorchSession:
    source = import_target(target)[1]
    module = source
    if not isinstance(source, torch.nn.Module):
        if not callable(source):
            raise LoadError("{} is neither a module nor a factory that returns one".format(target))
        try:
            module = source()
        except Exception as error:
            raise LoadError("{}() failed: {}".format(target, told(error))) from None
    if not isinstance(module, torch.nn.Module):
        raise LoadError(
            "{}() returned {}, no torch.nn.Module".format(target, type(module).__name__),
            "If it is a function to be timed as it is: --runtime python.",
        )
    module = module.eval().to(device)
    memory = ModuleMemory(torch, module)
    examples = getattr(module, "example_inputs", getattr(source, "example_inputs", None))
    if examples is not None and callable(examples):
        examples = examples()
    parameters = [
        p.name
        for p in inspect.signature(module.forward).parameters.values()
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        and (p.default is p.empty or isinstance(examples, dict) or p.name in options.shapes)
    ]
    if examples is None:
        inputs = [TensorSpec(name, ANY_SHAPE, ANY_DTYPE, None) for name in parameters]
        return TorchSession(torch, device, "eager", module, inputs=inputs, forget=memory.restore)
    tensors = _example_inputs(torch, target, examples, parameters)
    inputs = [_example_spec(name, tensor) for name, tensor in tensors.items()]
    given = {
        spec.name: (tensor.float() if is_foreign(spec.dtype) else tensor).numpy()
        for spec, tensor in zip(inputs, tensors.values())
    }
    call: Callable[..., Any] = module
    if isinstance(examples, dict):
        names = list(given)

        def by_keyword(*arguments: Any) -> Any:
            return module(**dict(zip(names, arguments)))

        call = by_keyword
    session = TorchSession(torch, device, "eager", call, inputs=inputs, forget=memory.restore)
    session.examples = given
    return session


def _example_inputs(torch: Any, target: str, examples: Any, parameters: Sequence[str]) -> Dict[str, Any]:
    if not isinstance(examples, dict):
        values = list(examples) if isinstance(examples, (tuple, list)) else [examples]
        names = list(parameters) + ["input_{}".format(i) for i in range(len(parameters), len(values))]
        examples = dict(zip(names, values))
    tensors = {}
    for name, value in examples.items():
        if not isinstance(value, torch.Tensor):
            raise LoadError(
                "the example_inputs of {} hold {} for {!r}, no tensor".format(target, type(value).__name__, name)
            )
        tensors[name] = value.detach().cpu()
    return tensors


def _example_spec(name: str, tensor: Any) -> TensorSpec:
    """The spec of an example input, in which a first dimension of 1 is treated as the batch."""
    shape: Tuple[Dim, ...] = tuple(tensor.shape)
    if len(shape) > 1 and shape[0] == 1:
        shape = ("batch", *shape[1:])
    return TensorSpec(name, shape, str(tensor.dtype).rpartition(".")[2], None)


def _first_line(error: BaseException) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return lines[0][:300] if lines else ""


@hookimpl
def register_runtimes(register: Callable[..., None]) -> None:
    register("pytorch", PyTorch)
