"""An engine's tensors in both of TensorRT's languages: numbered bindings (to 8.4) and named tensors (8.5 and later).

What the bindings offer decides, not a version. Engines with an implicit batch (TensorRT 8 and older) always go by
number; TensorRT 10 knows nothing but names.

Python 3.6 grammar, numpy. Source: the docstrings of the bindings 8.6.1, 10.3, 10.16 and 11.4.
"""

from typing import Any, Callable, NamedTuple, Optional, Tuple

import numpy as np

from edgeprof.worker.runtime import LoadError

#: TensorRT's types → numpy's. bfloat16 (not numpy's) is fed and returned as float32.
DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "BF16": "float32",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
    "UINT8": "uint8",
}

Shape = Tuple[int, ...]

Tensor = NamedTuple(
    "Tensor",
    [
        ("name", str),
        ("index", int),  # of its binding, within profile 0
        ("is_input", bool),
        ("shape", Shape),  # -1 where it is dynamic; without the batch where that is implicit
        ("kind", str),  # TensorRT's name of its type
        ("on_host", bool),  # a shape tensor: TensorRT reads its values in host memory
        ("profile", Optional[Tuple[Shape, Shape, Shape]]),  # least, best and largest shape of a dynamic input
    ],
)


def kind_of(dtype: Any) -> str:
    """``FLOAT`` of ``DataType.FLOAT``: pybind's enumerations print so in every version."""
    return str(dtype).rpartition(".")[2]


class ByName:
    """TensorRT 8.5 and later."""

    api = "named tensors (execute_async_v3)"
    numbered = False
    implicit_batch = False
    max_batch: Optional[int] = None

    def __init__(self, trt: Any, engine: Any, context: Any, profile: int) -> None:
        self._context = context
        self._trt = trt
        self.tensors = [self._tensor(trt, engine, i, profile) for i in range(engine.num_io_tensors)]

    @staticmethod
    def _tensor(trt: Any, engine: Any, index: int, profile: int) -> Tensor:
        name = engine.get_tensor_name(index)
        is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
        shape = tuple(engine.get_tensor_shape(name))
        on_host = engine.get_tensor_location(name) == trt.TensorLocation.HOST
        if engine.get_tensor_vectorized_dim(name) != -1:
            raise _vectorized_error(name)
        limits = None
        if is_input and -1 in shape and not on_host:
            least, best, most = (tuple(dims) for dims in engine.get_tensor_profile_shape(name, profile))
            limits = (least, best, most)
        return Tensor(name, index, is_input, shape, kind_of(engine.get_tensor_dtype(name)), on_host, limits)

    def set_shape(self, tensor: Tensor, shape: Shape) -> bool:
        return bool(self._context.set_input_shape(tensor.name, shape))

    def set_values(self, tensor: Tensor, array: Any) -> bool:  # noqa: ARG002 - read where they lie
        """The values of a shape tensor: TensorRT reads them at the tensor's address in host memory."""
        return True

    def output_shape(self, tensor: Tensor, batch: int) -> Shape:  # noqa: ARG002 - the batch is in the shape
        return tuple(self._context.get_tensor_shape(tensor.name))

    def most_bytes(self, tensor: Tensor) -> int:
        """Of an output whose shape depends on the data."""
        return int(self._context.get_max_output_size(tensor.name))

    def allocator(self, tensor: Tensor, address: int, size: int) -> Any:
        """Gives an output whose shape depends on the data its memory, and is told its shape."""
        allocator = _make_allocator(self._trt, address, size)
        if not self._context.set_output_allocator(tensor.name, allocator):
            raise LoadError("TensorRT takes no allocator for the output {!r}".format(tensor.name))
        return allocator

    def set_address(self, tensor: Tensor, address: int) -> None:
        if not self._context.set_tensor_address(tensor.name, address):
            raise RuntimeError("TensorRT refuses the address of {!r}".format(tensor.name))

    def enqueuer(self, stream: int, batch: int) -> Callable[[], bool]:  # noqa: ARG002 - see output_shape
        execute = self._context.execute_async_v3

        def enqueue() -> bool:
            return bool(execute(stream))

        return enqueue


class ByIndex:
    """TensorRT 8.4 and earlier, and engines with an implicit batch."""

    numbered = True

    def __init__(self, trt: Any, engine: Any, context: Any, profile: int) -> None:  # noqa: ARG002 - as ByName
        self._context = context
        self.implicit_batch = bool(engine.has_implicit_batch_dimension)
        self.max_batch = int(engine.max_batch_size) if self.implicit_batch else None
        self.api = "numbered bindings ({})".format("execute_async" if self.implicit_batch else "execute_async_v2")
        # Each profile has bindings of its own, one set after the other.
        count = engine.num_bindings // max(1, engine.num_optimization_profiles)
        self._first = profile * count
        self.tensors = [self._tensor(engine, i, profile) for i in range(count)]
        self._addresses = [0] * engine.num_bindings

    def _tensor(self, engine: Any, index: int, profile: int) -> Tensor:
        binding = self._first + index
        name = engine.get_binding_name(index)
        is_input = bool(engine.binding_is_input(binding))
        shape = tuple(engine.get_binding_shape(binding))
        on_host = bool(engine.is_shape_binding(binding))
        if engine.get_binding_vectorized_dim(binding) != -1:
            raise _vectorized_error(name)
        limits = None
        if is_input and -1 in shape and not on_host:
            least, best, most = (tuple(dims) for dims in engine.get_profile_shape(profile, binding))
            limits = (least, best, most)
        return Tensor(name, index, is_input, shape, kind_of(engine.get_binding_dtype(binding)), on_host, limits)

    def set_shape(self, tensor: Tensor, shape: Shape) -> bool:
        if self.implicit_batch:
            return True
        return bool(self._context.set_binding_shape(self._first + tensor.index, shape))

    def set_values(self, tensor: Tensor, array: Any) -> bool:
        values = [int(value) for value in np.ravel(array)]
        return bool(self._context.set_shape_input(self._first + tensor.index, values))

    def output_shape(self, tensor: Tensor, batch: int) -> Shape:
        if self.implicit_batch:
            return (batch,) + tensor.shape  # noqa: RUF005 - reads the same under 3.6
        return tuple(self._context.get_binding_shape(self._first + tensor.index))

    def most_bytes(self, tensor: Tensor) -> int:
        raise LoadError(
            "the shape of the output {!r} depends on the data, which this TensorRT cannot tell".format(tensor.name),
            "TensorRT 8.5 or newer can.",
        )

    def allocator(self, tensor: Tensor, address: int, size: int) -> Any:
        raise NotImplementedError  # most_bytes has refused it

    def set_address(self, tensor: Tensor, address: int) -> None:
        self._addresses[self._first + tensor.index] = address

    def enqueuer(self, stream: int, batch: int) -> Callable[[], bool]:
        addresses = list(self._addresses)
        if self.implicit_batch:
            execute = self._context.execute_async

            def enqueue_batch() -> bool:
                return bool(execute(batch_size=batch, bindings=addresses, stream_handle=stream))

            return enqueue_batch
        execute_v2 = self._context.execute_async_v2

        def enqueue() -> bool:
            return bool(execute_v2(bindings=addresses, stream_handle=stream))

        return enqueue


def language(trt: Any, engine: Any, context: Any, profile: int) -> Any:
    """The language that this engine's bindings speak."""
    if hasattr(engine, "num_io_tensors") and not getattr(engine, "has_implicit_batch_dimension", False):
        return ByName(trt, engine, context, profile)
    return ByIndex(trt, engine, context, profile)


def _vectorized_error(name: str) -> LoadError:
    return LoadError(
        "the engine takes or gives {!r} in a vectorised format, of which only TensorRT knows the layout".format(name),
        "Build it with linear inputs and outputs (trtexec without --inputIOFormats and --outputIOFormats).",
    )


def _make_allocator(trt: Any, address: int, size: int) -> Any:
    """An IOutputAllocator over memory that is there already."""

    class Allocator(trt.IOutputAllocator):  # type: ignore[misc] # known only when TensorRT is here
        def __init__(self) -> None:
            trt.IOutputAllocator.__init__(self)
            self.shape: Optional[Shape] = None

        def reallocate_output(self, name: str, memory: Any, wanted: int, alignment: int) -> int:  # noqa: ARG002 - TensorRT's
            return address if wanted <= size else 0

        def reallocate_output_async(self, name: str, memory: Any, wanted: int, alignment: int, stream: int) -> int:  # noqa: ARG002 - TensorRT's
            return address if wanted <= size else 0

        def notify_shape(self, name: str, shape: Any) -> None:  # noqa: ARG002 - TensorRT's
            self.shape = tuple(shape)

    return Allocator()
