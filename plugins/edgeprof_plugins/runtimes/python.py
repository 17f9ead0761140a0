"""Any Python callable as a model: ``app.py:function`` or ``package.module:function``.

One call is one inference. The callable takes no arguments, or named inputs (``def detect(image)``), which are fed as
numpy arrays by keyword: give them with ``--input image=1,480,640,3:uint8`` or ``--input-data``. A class is
instantiated once, without arguments, and its instance is called. The return value (an array, a tuple, a dict, None) is
the output. It must be complete: wait for the GPU before returning.

``setup()`` runs once before the first call, and ``teardown()`` once after all measurements. They are methods of a
callable object, attributes of the function, or functions of these names in the same module. A ``reset()`` found in the
same way runs before each sample of a dataset, and should clear the state that the function keeps between calls (a
tracker, a recurrent state).

An ``edgeprof.pipeline`` is measured by stages (``pipelines.py``).
"""

import inspect
import os
import sys
from typing import Any, Callable, Dict, List, Optional, Sequence

import numpy as np

from edgeprof import hookimpl
from edgeprof.worker.dtypes import is_foreign
from edgeprof.worker.pipeline import Pipeline, PipelineError, split_models
from edgeprof.worker.runtime import (
    ANY_DTYPE,
    ANY_SHAPE,
    Availability,
    LoadError,
    LoadOptions,
    Runtime,
    Session,
    TensorSpec,
)
from edgeprof.worker.tensors import nested_arrays

from .pipelines import PipelineSession
from .targets import import_target, told

#: Environment variables with the number of threads, which libraries read when they are imported.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


class Python(Runtime):
    name = "python"
    formats = ("python",)
    smallest_model = b"def model():\n    return 1.0\n"

    def availability(self) -> Availability:
        return Availability("{}.{}.{}".format(*sys.version_info[:3]), None, None)

    def devices(self) -> List[str]:
        return ["cpu"]

    def load(self, path: str, options: LoadOptions) -> Session:
        if options.device != "cpu":
            raise LoadError(
                "--device {} says nothing to a Python callable".format(options.device),
                "It chooses its device itself; leave --device out.",
            )
        if options.threads:
            for variable in THREAD_VARIABLES:
                os.environ[variable] = str(options.threads)
        path, models = split_models(path)
        module, target = import_target(path)
        if isinstance(target, Pipeline):
            return PipelineSession(path, _with_models(path, target, models), options)
        _refuse_options(path, models, options)
        if inspect.isclass(target):
            target = _try_call(path, target)
        if not callable(target):
            raise LoadError("{} is {}, which cannot be called".format(path, type(target).__name__), "Name a function.")
        _refuse_lazy(path, target)
        if _is_module(target):
            raise LoadError("{} is a torch module, not a function".format(path), "Use --runtime pytorch.")
        return CallableSession(path, target, module, options)


def _refuse_options(path: str, models: Dict[str, str], options: LoadOptions) -> None:
    """Refuse what only a pipeline has."""
    if models:
        raise LoadError("{} is no pipeline, whose stages have models".format(path), "Name it without models.")
    if "frames" in options.options:
        raise LoadError(
            "--frames is meant for a pipeline, and {} is none".format(path), "Make it one: edgeprof.pipeline."
        )
    if options.options:
        raise LoadError("a Python callable has no option {}".format(", ".join(options.options)))


def _with_models(path: str, pipeline: Pipeline, models: Dict[str, str]) -> Pipeline:
    if not models:
        return pipeline
    try:
        return pipeline.with_models(models)
    except PipelineError as error:
        raise LoadError("{}: {}".format(path, error), "docs/applications.md shows such a function.") from None


class CallableSession(Session):
    def __init__(self, target: str, function: Callable[..., Any], module: Any, options: LoadOptions) -> None:
        self._function = function
        self.inputs = tuple(_callable_inputs(target, function, options))
        self.facts = {
            "python": "{}.{}.{}".format(*sys.version_info[:3]),
            "threads": "as the application chooses" if not options.threads else "OMP_NUM_THREADS and its like",
        }
        self._teardown: Optional[Callable[[], Any]] = _companion_of("teardown", function, module)
        self._reset: Optional[Callable[[], Any]] = _companion_of("reset", function, module)
        self.facts["state"] = (
            "reset() before each judged sample" if self._reset else "what the function keeps: it has no reset()"
        )
        setup = _companion_of("setup", function, module)
        if setup is not None:
            _try_call(target + " setup", setup)

    def run(self, feeds: Dict[str, Any]) -> Dict[str, Any]:
        return _named_outputs(self._function(**feeds))

    def bind(self, feeds: Dict[str, Any]) -> Callable[[], Any]:
        function = self._function
        if not feeds:
            return function

        def call() -> Any:
            return function(**feeds)

        return call

    def reset(self) -> Optional[str]:
        if self._reset is not None:
            self._reset()
        return None

    def close(self) -> None:
        teardown, self._teardown = self._teardown, None
        if teardown is not None:
            teardown()


def _callable_inputs(target: str, function: Callable[..., Any], options: LoadOptions) -> List[TensorSpec]:
    """The arguments without defaults, and the arguments with defaults for which the user gives a shape."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # built in C without a signature
        return [TensorSpec(name, ANY_SHAPE, ANY_DTYPE, None) for name in options.shapes]
    inputs = []
    for p in parameters:
        if p.kind == p.POSITIONAL_ONLY and p.default is p.empty:
            raise LoadError("{} takes {!r} by position only; inputs are fed by name".format(target, p.name))
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and (p.default is p.empty or p.name in options.shapes):
            inputs.append(TensorSpec(p.name, ANY_SHAPE, ANY_DTYPE, None))
    return inputs


def _companion_of(name: str, function: Callable[..., Any], module: Any) -> Optional[Callable[[], Any]]:
    owner = getattr(function, "__self__", function)
    companion = getattr(owner, name, None)
    if companion is None and (inspect.isfunction(function) or owner is function):
        companion = getattr(module, name, None)
    return companion if callable(companion) else None


def _refuse_lazy(target: str, function: Callable[..., Any]) -> None:
    inner = function if inspect.isroutine(function) else type(function).__call__
    if inspect.iscoroutinefunction(inner):
        raise LoadError("{} is async: calling it runs nothing".format(target), "Wrap it: asyncio.run(...).")
    if inspect.isgeneratorfunction(inner):
        raise LoadError("{} is a generator: calling it runs nothing".format(target), "Wrap it: list(...).")


def _try_call(what: str, function: Callable[[], Any]) -> Any:
    try:
        return function()
    except Exception as error:
        raise LoadError("{}() failed: {}".format(what, told(error))) from None


def _named_outputs(result: Any) -> Dict[str, Any]:
    if result is None:
        return {}
    if _is_module(result):
        raise LoadError("the function returns a torch module, it does not run one", "Use --runtime pytorch.")
    if isinstance(result, dict):
        named_leaves = [leaf for key, value in result.items() for leaf in nested_arrays(str(key), value)]
        return {name: _as_array(value) for name, value in named_leaves}
    if isinstance(result, (tuple, list)) and not _is_numbers(result):
        named_leaves = [
            leaf for number, value in enumerate(result) for leaf in nested_arrays("output_{}".format(number), value)
        ]
        return {name: _as_array(value) for name, value in named_leaves}
    return {"output": _as_array(result)}


def _is_module(value: Any) -> bool:
    """Whether a value is a torch.nn.Module, found out without importing torch."""
    return callable(getattr(value, "state_dict", None)) and callable(getattr(value, "forward", None))


def _is_numbers(values: Sequence[Any]) -> bool:
    return bool(values) and all(isinstance(value, (int, float, bool)) for value in values)


def _as_array(value: Any) -> Any:
    if hasattr(value, "detach"):  # a PyTorch tensor
        value = value.detach().cpu()
        value = value.float() if is_foreign(str(value.dtype).rpartition(".")[2]) else value
    try:
        return np.array(value)
    except Exception:  # a ragged value, or one on a device, still counts as one output
        holder = np.empty((), dtype=object)
        holder[()] = value
        return holder


@hookimpl
def register_runtimes(register: Callable[..., None]) -> None:
    register("python", Python)
