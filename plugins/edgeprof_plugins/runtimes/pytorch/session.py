"""A session with a loaded PyTorch module: its inputs, its runs, and its times from CUDA events. Python 3.6 grammar."""

import re
import time
import warnings
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np

from edgeprof.worker.dtypes import is_foreign
from edgeprof.worker.runtime import LoadError, OperatorProfile, OperatorTime, Session, TensorSpec
from edgeprof.worker.tensors import nested_arrays, unique_names

from .memory import changes


class TorchSession(Session):
    """A session with one loaded module.

    Args:
        kind: The kind for the facts: TorchScript, torch.export or eager.
        call: Takes the inputs by position, in the order of ``inputs``, on the device.
        outputs: The outputs that the file describes; others are named output, or output_0, output_1 …
        scalars: The inputs that the model takes as Python numbers.
        forget: Restores the module to its state before the first run, as far as possible; returns a sentence about
            what remains, or None.
    """

    def __init__(
        self,
        torch: Any,
        device: Any,
        kind: str,
        call: Callable[..., Any],
        *,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec] = (),
        scalars: Sequence[str] = (),
        forget: Optional[Callable[[], Optional[str]]] = None,
    ) -> None:
        self._forget = forget
        self._torch, self._device, self._call = torch, device, call
        self._graph_wanted = False
        self._scalars = frozenset(scalars)
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self._host = device.type == "cpu"
        self.facts = {
            "kind": kind,
            "threads": str(torch.get_num_threads()),
            "transfers": "none, host memory" if self._host else "inputs and outputs are copied in every inference",
        }
        self._guard = getattr(torch, "inference_mode", torch.no_grad)  # inference_mode came with 1.9
        if device.type == "cuda":
            self.facts["cuda_graph"] = "no"
            torch.cuda.reset_peak_memory_stats(device)

    def use_graph(self) -> None:
        """Compute as a CUDA graph in all later calls of ``bind`` and ``bind_timed``.

        Raises:
            LoadError: the device is not a CUDA device, or this PyTorch has no CUDA graphs.
        """
        if self._device.type != "cuda" or not hasattr(self._torch.cuda, "CUDAGraph"):
            raise LoadError(
                "cuda_graph=1 needs --device cuda and PyTorch 1.10 or newer; this is {} on {}".format(
                    self._torch.__version__, self._device
                )
            )
        self._graph_wanted = True
        self.facts["cuda_graph"] = "yes, of the compute part"

    def run(self, feeds: Dict[str, Any]) -> Dict[str, Any]:
        with self._guard(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                result = self._call(*self._arguments(self._tensors(feeds)))
            except Exception as error:
                raise self._translated_error(error) from error
            named = _named_outputs(result, [spec.name for spec in self.outputs])
            return {name: _to_numpy(self._torch, value) for name, value in named.items()}

    def reset(self) -> Optional[str]:
        return None if self._forget is None else self._forget()

    def bind(self, feeds: Dict[str, Any]) -> Callable[[], Any]:
        """Bind the inputs.

        On the CPU the inputs are converted to tensors here, once. On a device with separate memory, every call copies
        the inputs to the device and the outputs back, which also waits for the outputs.
        """
        tensors, call, guard = self._tensors(feeds), self._call, self._guard
        if self._host:
            arguments = self._arguments(tensors)
            written = self._written(arguments)

            def on_host_anew() -> Any:
                with guard():
                    for mine, given in written:
                        mine.copy_(given)
                    return call(*arguments)

            if written:
                self.facts["inputs"] = "the module writes into them: they are copied in every inference"
                return on_host_anew

            def on_host() -> Any:
                with guard():
                    return call(*arguments)

            return on_host
        feed, compute = self._parts(tensors)
        results = self._results

        def on_device() -> Any:
            with guard():
                return results(compute(feed()))

        return on_device

    def _translated_error(self, error: Exception) -> Exception:
        """The error, or an explanation where the model needs a GPU."""
        text = str(error)
        if not self._host or not re.search(r"\bCUDA\b|'cuda|cuda:\d|NVIDIA driver", text):
            return error
        return LoadError(
            "the model puts tensors onto a GPU itself: it was traced or written there, and this runs on the CPU",
            "Bench it with --device cuda where there is a GPU, or trace it again after model.cpu(), inputs on the CPU.",
        )

    def _written(self, arguments: List[Any]) -> List[Tuple[Any, Any]]:
        """The inputs that the module writes into, found by one run, with copies of their original values."""
        tensors = [argument for argument in arguments if hasattr(argument, "copy_")]
        before = [(tensor, changes(tensor), tensor.clone()) for tensor in tensors]
        with self._guard():
            self._call(*arguments)
        changed = [(tensor, copy) for tensor, version, copy in before if changes(tensor) != version]
        for tensor, copy in changed:
            tensor.copy_(copy)
        return changed

    def bind_timed(self, feeds: Dict[str, Any]) -> Optional[Callable[[], Dict[str, float]]]:
        """Time the copies in, the module and the copies out with CUDA events; None without a CUDA device."""
        if self._event() is None:
            return None
        guard, clock = self._guard, time.monotonic
        feed, compute = self._parts(self._tensors(feeds))
        begin, fed, computed, end = (self._event() for _ in range(4))

        def call() -> Dict[str, float]:
            start = clock()
            with guard():
                begin.record()
                arguments = feed()
                fed.record()
                before = clock()
                value = compute(arguments)
                after = clock()
                computed.record()
                self._results(value)
                end.record()
            end.synchronize()
            wall = clock() - start
            return {
                "h2d": begin.elapsed_time(fed) * 1e-3,
                "compute": fed.elapsed_time(computed) * 1e-3,
                "d2h": computed.elapsed_time(end) * 1e-3,
                "enqueue": after - before,
                "wall": wall,
            }

        return call

    def profile_operators(self, feeds: Dict[str, Any], calls: int) -> Optional[OperatorProfile]:
        """Profile with torch.profiler: the time that each kind of operator itself takes on the CPU.

        The operators are PyTorch's (such as ``aten::conv2d``); a model may have many operators of one kind.

        Raises:
            LoadError: this PyTorch is too old, or the model computes on a GPU, where the profiler counts both an
                operator and its kernels.
        """
        if not hasattr(self._torch, "profiler") or not self._host:
            raise LoadError("torch.profiler is read for models on the CPU, with PyTorch 1.8.1 or newer")
        call, activity = self.bind(feeds), self._torch.profiler.ProfilerActivity
        for _ in range(3):
            call()
        self.synchronize()
        with self._torch.profiler.profile(activities=[activity.CPU]) as profiler:
            start = time.monotonic()
            for _ in range(calls):
                call()
            self.synchronize()
            seconds = (time.monotonic() - start) / calls
        operators = []
        for event in profiler.key_averages():
            took_s = float(event.self_cpu_time_total) * 1e-6 / calls
            if took_s > 0:
                operators.append(OperatorTime(str(event.key), str(event.key).rpartition("::")[2], took_s))
        return OperatorProfile(operators, seconds)

    def _parts(self, tensors: List[Any]) -> Tuple[Callable[[], List[Any]], Callable[[List[Any]], Any]]:
        """Return a function that copies the inputs to the device, and a function that computes with them there."""
        if not self._graph_wanted:
            return lambda: self._arguments(tensors), lambda arguments: self._call(*arguments)
        with self._guard(), self._torch.cuda.device(self._device):
            fixed = self._arguments(tensors)
            try:
                graph, value = self._captured(fixed)
            except Exception as error:
                lines = str(error).strip().splitlines() or [type(error).__name__]
                raise LoadError(
                    "this model cannot run as a CUDA graph: {}".format(lines[0][:300]), "Leave cuda_graph=1 out."
                ) from None
        pairs = [(there, here) for there, here in zip(fixed, tensors) if hasattr(there, "copy_")]

        def feed() -> List[Any]:
            for there, here in pairs:
                there.copy_(here, non_blocking=True)
            return fixed

        def compute(_: List[Any]) -> Any:
            graph.replay()
            return value

        return feed, compute

    def _captured(self, fixed: List[Any]) -> Tuple[Any, Any]:
        """Capture a CUDA graph that computes with these tensors; return the graph and its output tensors.

        As the documentation of torch.cuda.graph describes, some runs in a side stream come first, in which libraries
        allocate memory and choose kernels.
        """
        cuda = self._torch.cuda
        side = cuda.Stream()
        side.wait_stream(cuda.current_stream())
        with cuda.stream(side):
            for _ in range(3):
                self._call(*fixed)
        cuda.current_stream().wait_stream(side)
        graph = cuda.CUDAGraph()
        with cuda.graph(graph):
            value = self._call(*fixed)
        return graph, value

    def _event(self) -> Any:
        """Create a CUDA event; None on other devices."""
        return self._torch.cuda.Event(enable_timing=True) if self._device.type == "cuda" else None

    def synchronize(self) -> None:
        if self._device.type != "cpu":
            getattr(self._torch, self._device.type).synchronize()

    def gpu_peak_bytes(self) -> Optional[int]:
        if self._device.type != "cuda":
            return None
        return int(self._torch.cuda.max_memory_allocated(self._device))

    def close(self) -> None:
        self._call = _closed_call
        if self._device.type == "cuda":
            self._torch.cuda.empty_cache()

    def _tensors(self, feeds: Dict[str, Any]) -> List[Any]:
        """The inputs in order, in host memory, up to the first one that is not fed and has a default in the model."""
        arguments = []
        for spec in self.inputs:
            if spec.name not in feeds:
                break
            value = np.asarray(feeds[spec.name])
            if spec.name in self._scalars:
                arguments.append(value.item())
            else:
                # On the CPU a copy is needed, because a module may write into its inputs.
                given = np.array(value) if self._host else np.ascontiguousarray(value).reshape(value.shape)
                tensor = self._torch.from_numpy(given)
                arguments.append(tensor.to(getattr(self._torch, spec.dtype)) if is_foreign(spec.dtype) else tensor)
        return arguments

    def _arguments(self, tensors: List[Any]) -> List[Any]:
        if self._host:
            return tensors
        return [t if not hasattr(t, "to") else t.to(self._device, non_blocking=True) for t in tensors]

    def _results(self, value: Any) -> Any:
        """Copy the outputs to host memory; once they have arrived, the inference is complete."""
        if isinstance(value, dict):
            return {key: self._results(item) for key, item in value.items()}
        if isinstance(value, (tuple, list)):
            return [self._results(item) for item in value]
        return value.cpu() if hasattr(value, "cpu") else value


def _closed_call(*_: Any) -> Any:
    raise LoadError("this session is closed")


def _named_outputs(result: Any, names: Sequence[str]) -> Dict[str, Any]:
    """The outputs by name: the keys of a dict, else the names in the file, else output or output_0, output_1 …

    A value nested in a dict is named after its path: ``past_key_values.0.1``.
    """
    if isinstance(result, dict):
        return dict(leaf for key, value in result.items() for leaf in nested_arrays(str(key), value))
    if hasattr(result, "to_tuple"):  # a ModelOutput of transformers that is not a dict
        result = result.to_tuple()
    if not isinstance(result, (tuple, list)):
        return {names[0] if len(names) == 1 else "output": result}
    flat = [item for item in _flat_tensors(result) if item is not None]
    if len(names) != len(flat):
        names = ["output_{}".format(i) for i in range(len(flat))]
    return dict(zip(unique_names(names, "output"), flat))


def _flat_tensors(value: Any) -> List[Any]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (tuple, list)):
        return [leaf for item in value for leaf in _flat_tensors(item)]
    return [value]


def _to_numpy(torch: Any, value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return np.asarray(value)
    value = value.detach().cpu()
    if is_foreign(str(value.dtype).rpartition(".")[2]):  # numpy lacks bfloat16 and float8
        value = value.float()
    return np.array(value.numpy())
