"""A TensorRT engine that is loaded: its buffers and its runs.

Python 3.6 grammar, numpy.
"""

from typing import Any, Callable, Dict, List, Optional

import numpy as np

from edgeprof.worker.runtime import Dim, LoadError, Session, TensorSpec

from ..nvidia.cuda import Cuda, CudaError
from ..nvidia.driver import version_text
from ..nvidia.stream import Steps, Stream, Usage
from .tensors import DTYPES, Shape, Tensor, language


class _Buffer:
    """One tensor's memory in the host and on the device, and the copy between them."""

    def __init__(self, cuda: Cuda, tensor: Tensor, shape: Shape, *, size: int, stream: Any, on_device: bool) -> None:
        self.tensor, self.shape = tensor, shape
        self._cuda = cuda
        self.allocator: Any = None
        self.host = cuda.host(max(size, 1))
        self._device = cuda.malloc(max(size, 1)) if on_device else 0
        self.address = self._device or self.host.ctypes.data
        wanted = np.dtype("uint16" if tensor.kind == "BF16" else DTYPES[tensor.kind])
        self._items = self.host[: size // wanted.itemsize * wanted.itemsize].view(wanted)
        if not (self._device and size):
            self.copy = _copy_nothing
        elif tensor.is_input:
            self.copy = cuda.copy_in(self.address, self.host[:size], stream)
        else:
            self.copy = cuda.copy_out(self.host[:size], self.address, stream)

    def fill(self, array: Any) -> None:
        flat = np.ravel(array)
        if self.tensor.kind == "BF16":  # round to nearest, ties to even: what IEEE conversions do
            bits = np.ascontiguousarray(flat, dtype=np.float32).view(np.uint32)
            flat = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
        self._items[: flat.size] = flat

    def values(self) -> Any:
        """A copy of an output."""
        shape = self.allocator.shape if self.allocator is not None else self.shape
        if shape is None:
            raise RuntimeError("TensorRT did not tell the shape of the output {!r}".format(self.tensor.name))
        count = int(np.prod(shape, dtype=np.int64))
        items = self._items[:count]
        if self.tensor.kind == "BF16":
            items = (items.astype(np.uint32) << 16).view(np.float32)
        return np.array(items).reshape(shape)

    def free(self) -> None:
        if self._device:
            self._cuda.free(self._device)
        self._items = None
        self._cuda.host_free(self.host)


def _copy_nothing() -> None:
    """The copy of a tensor that is empty or stays in the host's memory."""


class TensorRTSession(Session):
    """One engine with an execution context and a stream of its own.

    Args:
        trt: The module ``tensorrt``.
        cuda: The GPU.
        engine: ``ICudaEngine``; kept, with ``keep``, as long as the session lives.
        profile: Number of the optimisation profile.
        graph: Whether the compute part runs as a CUDA graph.
        given: Names of inputs whose shape the user gave.
        usage: Of the device's memory, from before the engine was loaded.
        keep: Whatever must outlive the engine (TensorRT's runtime and logger).
    """

    def __init__(
        self,
        trt: Any,
        cuda: Cuda,
        engine: Any,
        *,
        profile: int,
        graph: bool,
        given: Dict[str, Shape],
        usage: Usage,
        keep: Any,
    ) -> None:
        self._cuda, self._engine, self._keep, self._graph_wanted = cuda, engine, keep, graph
        self.version = str(trt.__version__)
        self._buffers: List[_Buffer] = []
        self._graphs: List[Any] = []
        self._fed: Dict[str, Shape] = {}
        self._batch, self._generation = 1, 0
        self._usage = usage
        profiles = int(engine.num_optimization_profiles)
        if not 0 <= profile < max(1, profiles):
            raise LoadError("profile={} does not exist: the engine has {} profile(s)".format(profile, profiles))
        self._context = engine.create_execution_context()
        if self._context is None:
            raise LoadError(
                "TensorRT makes no execution context: " + (keep.logger.last() or "it does not say why"),
                "The GPU's memory may be short: use a smaller batch or engine.",
            )
        self._line = Stream(cuda)
        if profile:
            self._context.set_optimization_profile_async(profile, self._line.handle())
            self._line.wait()
        self._language = language(trt, engine, self._context, profile)
        for tensor in self._language.tensors:
            if tensor.kind not in DTYPES:
                raise LoadError(
                    "the engine's tensor {!r} is {}, which cannot be fed or read from Python".format(
                        tensor.name, tensor.kind
                    ),
                    "Build it with inputs and outputs of float32, float16 or integers.",
                )
        self._inputs = [t for t in self._language.tensors if t.is_input]
        self._outputs = [t for t in self._language.tensors if not t.is_input]
        self.inputs = tuple(self._spec(tensor, given) for tensor in self._inputs)
        self.outputs = tuple(self._spec(tensor, given) for tensor in self._outputs)
        self.facts = {
            "api": self._language.api,
            "cuda": "{} (CUDA {})".format(cuda.name, version_text(cuda.runtime_version())),
            "cuda_graph": "yes, of the compute part" if graph else "no",
            "profile": "{} of {}".format(profile, max(1, profiles)),
            "transfers": "inputs and outputs are copied from and to pinned memory in every inference",
        }
        for tensor in self._inputs:
            if tensor.profile:
                self.facts["shapes of " + tensor.name] = " to ".join(
                    "x".join(str(n) for n in dims) for dims in (tensor.profile[0], tensor.profile[2])
                )
        if self._language.max_batch:
            self.facts["max_batch"] = str(self._language.max_batch)

    def _spec(self, tensor: Tensor, given: Dict[str, Shape]) -> TensorSpec:
        """What the profile leaves open; beyond the first dimension its best shape is taken unless --input says else."""
        dims: List[Dim] = []
        for position, size in enumerate(tensor.shape):
            limits = None if tensor.profile is None else [int(dims_of[position]) for dims_of in tensor.profile]
            if size >= 0:
                dims.append(int(size))
            elif limits and (limits[0] == limits[2] or (position > 0 and tensor.name not in given)):
                dims.append(limits[1])
            else:
                dims.append(None)
        if self._language.implicit_batch:
            dims.insert(0, None)
        return TensorSpec(tensor.name, tuple(dims), DTYPES[tensor.kind], None)

    def run(self, feeds: Dict[str, Any]) -> Dict[str, Any]:
        self._prepare(feeds)
        self._generation += 1  # what is bound has other feeds in its buffers now
        self._once()
        return {buffer.tensor.name: buffer.values() for buffer in self._buffers if not buffer.tensor.is_input}

    def bind(self, feeds: Dict[str, Any]) -> Callable[[], Any]:
        """Inputs are in pinned memory; a call copies them in, computes, copies outputs out and waits for all of it."""
        return self._line.waiting(self._hold(feeds))

    def bind_queued(self, feeds: Dict[str, Any]) -> Optional[Callable[[], Any]]:
        return self._line.queued(self._hold(feeds))

    def bind_timed(self, feeds: Dict[str, Any]) -> Optional[Callable[[], Dict[str, float]]]:
        return self._line.timed(self._hold(feeds))

    def _hold(self, feeds: Dict[str, Any]) -> Callable[[], Steps]:
        """The steps of one inference of these feeds, made anew when a run with others came between."""
        held: List[Any] = [None, None]

        def steps() -> Steps:
            if held[0] != self._generation:
                self._prepare(feeds)
                self._once()  # the first run of a shape may allocate; a graph is captured after it
                held[:] = [self._generation, self._steps(graph=self._graph_wanted)]
            captured: Steps = held[1]
            return captured

        steps()
        return steps

    def layer_times(self, feeds: Dict[str, Any], profiler: Any, runs: int) -> None:
        """Run with TensorRT's profiler attached to this context; the session is not to be used after it."""
        self.run(feeds)
        self._context.profiler = profiler
        for _ in range(runs):
            self.run(feeds)

    def synchronize(self) -> None:
        self._line.wait()

    def gpu_peak_bytes(self) -> Optional[int]:
        """Device memory in use beyond what was in use before loading: other processes' changes are in it."""
        return self._usage.most() or None

    def close(self) -> None:
        if self._context is None:
            return
        self._line.wait()
        self._free()
        self._line.close()
        self._context = self._language = self._engine = self._keep = None  # in this order: TensorRT's own rule

    def _prepare(self, feeds: Dict[str, Any]) -> None:
        """Shapes, buffers and addresses for these feeds, and the feeds in them."""
        if self._context is None:
            raise LoadError("this session is closed")
        arrays = {tensor.name: np.asarray(feeds[tensor.name]) for tensor in self._inputs}
        shapes = {name: tuple(array.shape) for name, array in arrays.items()}
        for tensor in self._inputs:
            self._check(tensor, shapes[tensor.name])
        if shapes != self._fed or any(t.on_host for t in self._inputs):
            self._allocate(shapes, arrays)
        for buffer in self._buffers:
            if buffer.tensor.is_input:
                buffer.fill(arrays[buffer.tensor.name])

    def _check(self, tensor: Tensor, shape: Shape) -> None:
        most = self._language.max_batch
        if most and shape and shape[0] > most:
            raise LoadError(
                "a batch of {} is more than the {} that the engine was built for".format(shape[0], most),
                "Use --batch {} or less, or build it for more (trtexec --maxBatch).".format(most),
            )
        if tensor.profile and len(shape) == len(tensor.profile[0]):
            least, _, largest = tensor.profile
            if not all(low <= size <= high for low, size, high in zip(least, shape, largest)):
                raise LoadError(
                    "{!r} of shape {} is outside the engine's profile, which reaches from {} to {}".format(
                        tensor.name, list(shape), list(least), list(largest)
                    ),
                    "Choose --batch and --input within it, another profile (--option profile=N), or build it so.",
                )

    def _allocate(self, shapes: Dict[str, Shape], arrays: Dict[str, Any]) -> None:
        self._line.wait()
        self._free()
        batch = 1
        for tensor in self._inputs:
            shape = shapes[tensor.name]
            batch = shape[0] if shape and self._language.implicit_batch else batch
            # Shape tensors may be of fixed shape, which TensorRT lets nobody set.
            if -1 in tensor.shape and not self._language.set_shape(tensor, shape):
                raise LoadError("TensorRT refuses the shape {} of {!r}".format(list(shape), tensor.name))
            buffer = self._buffer(tensor, shape, _tensor_bytes(tensor, shape))
            self._language.set_address(tensor, buffer.address)
            if tensor.on_host:  # before the outputs are asked for their shapes, which may follow from these values
                buffer.fill(arrays[tensor.name])
                if not self._language.set_values(tensor, arrays[tensor.name]):
                    raise LoadError("TensorRT refuses the values of the shape input {!r}".format(tensor.name))
        for tensor in self._outputs:
            shape = self._language.output_shape(tensor, batch)
            unknown = any(size < 0 for size in shape)
            size = self._language.most_bytes(tensor) if unknown else _tensor_bytes(tensor, shape)
            if unknown and self._graph_wanted:
                raise LoadError(
                    "a CUDA graph needs fixed shapes; that of the output {!r} depends on the data".format(tensor.name),
                    "Leave cuda_graph=1 out.",
                )
            buffer = self._buffer(tensor, shape, size)
            if unknown:
                buffer.allocator = self._language.allocator(tensor, buffer.address, size)
            else:
                self._language.set_address(tensor, buffer.address)
        self._fed, self._batch = shapes, batch
        self._generation += 1
        self._usage.most()

    def _buffer(self, tensor: Tensor, shape: Shape, size: int) -> _Buffer:
        """Numbered bindings want device memory even for what is also read on the host; named tensors one of the two."""
        on_device = self._language.numbered or not tensor.on_host
        buffer = _Buffer(self._cuda, tensor, shape, size=size, stream=self._line.stream, on_device=on_device)
        self._buffers.append(buffer)
        return buffer

    def _steps(self, graph: bool) -> Steps:
        ins = [buffer.copy for buffer in self._buffers if buffer.tensor.is_input]
        outs = [buffer.copy for buffer in self._buffers if not buffer.tensor.is_input]
        execute = self._language.enqueuer(self._line.handle(), self._batch)
        logger = self._keep.logger

        def enqueue() -> None:
            if not execute():
                raise RuntimeError("TensorRT could not run the engine: " + (logger.last() or "it does not say why"))

        if not graph:
            return ins, enqueue, outs
        if not self._graphs:
            try:
                self._graphs.append(self._cuda.capture(self._line.stream, enqueue))
            except (CudaError, RuntimeError) as error:
                raise LoadError(
                    "this engine cannot run as a CUDA graph: {}".format(error), "Leave cuda_graph=1 out."
                ) from None
        recorded, stream, launch = self._graphs[0], self._line.stream, self._cuda.launch

        def start() -> None:
            launch(recorded, stream)

        return ins, start, outs

    def _once(self) -> None:
        ins, enqueue, outs = self._steps(graph=False)
        for copy in ins:
            copy()
        enqueue()
        for copy in outs:
            copy()
        self._line.wait()

    def _free(self) -> None:
        for graph in self._graphs:
            self._cuda.close_graph(graph)
        for buffer in self._buffers:
            buffer.free()
        self._graphs, self._buffers, self._fed = [], [], {}


def _tensor_bytes(tensor: Tensor, shape: Shape) -> int:
    size = 2 if tensor.kind == "BF16" else np.dtype(DTYPES[tensor.kind]).itemsize
    return int(np.prod(shape, dtype=np.int64)) * size
