"""MNN: .mnn models, on the CPU or a GPU.

Devices: ``cpu``, ``opencl``, ``vulkan``, ``cuda``, if the build has them.
Options: ``precision`` (high: float32, the default here; normal and low: chosen by MNN, down to float16).
"""

import os
from typing import Any, Callable, Dict, List, Optional

import numpy as np

from edgeprof import hookimpl
from edgeprof.worker.inputs import resolve_shapes
from edgeprof.worker.runtime import (
    Availability,
    LoadError,
    LoadOptions,
    Runtime,
    Session,
    TensorSpec,
    install_command,
    library_version,
)

from . import smallest

REMEDY = install_command("mnn", "MNN")
DEVICES = {"cpu": "CPU", "opencl": "OPENCL", "vulkan": "VULKAN", "cuda": "CUDA"}
PRECISIONS = ("high", "normal", "low")


class Mnn(Runtime):
    name = "mnn"
    formats = ("mnn",)
    libraries = ("MNN",)
    smallest_model = smallest.MNN

    def availability(self) -> Availability:
        version = library_version("MNN", "MNN")
        return Availability(version, None if version else "MNN is not installed", None if version else REMEDY)

    def devices(self) -> List[str]:
        return list(DEVICES)

    def load(self, path: str, options: LoadOptions) -> Session:
        mnn = _library()
        if not os.path.isfile(path):
            raise LoadError("{} does not exist".format(path))
        if options.device not in DEVICES:
            raise LoadError("MNN has no device {!r}".format(options.device), "It has {}.".format(", ".join(DEVICES)))
        precision = options.options.get("precision", "high")
        for key, value in options.options.items():
            if key != "precision" or value not in PRECISIONS:
                raise LoadError("MNN has no option {}={}".format(key, value), "precision: " + ", ".join(PRECISIONS))
        _check_whole(path)
        return MnnSession(mnn, path, options, precision)


class MnnSession(Session):
    """One interpreter with one session.

    Args:
        mnn: The module.
        path: The model.
        options: As given to ``Runtime.load``.
        precision: Precision of the arithmetic.
    """

    def __init__(self, mnn: Any, path: str, options: LoadOptions, precision: str) -> None:
        self._mnn = mnn
        wrong = LoadError(
            "{} is not a complete MNN model".format(os.path.basename(path)), "Download or convert it again."
        )
        try:
            self._interpreter = mnn.Interpreter(path)
            config = {"backend": DEVICES[options.device], "numThread": options.threads or 4, "precision": precision}
            self._session = self._interpreter.createSession(config)
            self._given = self._interpreter.getSessionInputAll(self._session)
            self._made = self._interpreter.getSessionOutputAll(self._session)
        except Exception:
            raise wrong from None
        if not self._given or not self._made:
            raise wrong
        self.inputs = tuple(_spec(mnn, name, tensor) for name, tensor in self._given.items())
        shapes = resolve_shapes(self.inputs, options.shapes, options.batch)
        for name, shape in shapes.items():
            if tuple(self._given[name].getShape()) != shape:
                self._interpreter.resizeTensor(self._given[name], shape)
        self._interpreter.resizeSession(self._session)
        self.outputs = tuple(_spec(mnn, name, tensor) for name, tensor in self._made.items())
        self.facts = {
            "threads": str(options.threads or 4),
            "precision": precision,
            "backend": DEVICES[options.device],
            "timed": "runSession(); inputs are copied once, before the windows",
        }

    def run(self, feeds: Dict[str, Any]) -> Dict[str, Any]:
        self._set(feeds)
        self._interpreter.runSession(self._session)
        outputs = {}
        for spec in self.outputs:
            tensor = self._made[spec.name]
            host = self._tensor(np.zeros(tensor.getShape(), spec.dtype))
            tensor.copyToHostTensor(host)
            outputs[spec.name] = np.array(host.getNumpyData()).reshape(tensor.getShape())
        return outputs

    def bind(self, feeds: Dict[str, Any]) -> Callable[[], Any]:
        self._set(feeds)
        run, session = self._interpreter.runSession, self._session
        return lambda: run(session)

    def close(self) -> None:
        self._given = self._made = {}
        self._session = self._interpreter = None

    def _set(self, feeds: Dict[str, Any]) -> None:
        for spec in self.inputs:
            self._given[spec.name].copyFrom(self._tensor(np.ascontiguousarray(feeds[spec.name])))

    def _tensor(self, array: Any) -> Any:
        kind = _types(self._mnn)[array.dtype.name]
        return self._mnn.Tensor(array.shape, kind, array, self._mnn.Tensor_DimensionType_Caffe)


def _types(mnn: Any) -> Dict[str, Any]:
    return {
        "float32": mnn.Halide_Type_Float,
        "int32": mnn.Halide_Type_Int,
        "int64": mnn.Halide_Type_Int64,
        "uint8": mnn.Halide_Type_Uint8,
    }


def _spec(mnn: Any, name: str, tensor: Any) -> TensorSpec:
    dtype: Optional[str] = None
    for numpy_name, kind in _types(mnn).items():
        if tensor.getDataType() == kind:
            dtype = numpy_name
    if dtype is None:
        raise LoadError("the tensor {} has a type that cannot be fed".format(name))
    shape = tuple(int(size) if size > 0 else None for size in tensor.getShape())
    return TensorSpec(str(name), shape, dtype, None)


def _check_whole(path: str) -> None:
    """Refuse a file whose first table is not that of a flatbuffer: MNN may read beyond the end of such a file.

    Raises:
        LoadError: the file is not a flatbuffer.
    """
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        root = int.from_bytes(file.read(4), "little")
        if 4 <= root <= size - 4:
            file.seek(root)
            table = root - int.from_bytes(file.read(4), "little", signed=True)
            if 0 <= table <= size - 4:
                return
    raise LoadError("{} is not a complete MNN model".format(os.path.basename(path)), "Download or convert it again.")


def _library() -> Any:
    try:
        import MNN
    except Exception as error:
        raise LoadError("MNN cannot be imported: {}".format(error), REMEDY) from None
    return MNN


@hookimpl
def register_runtimes(register: Callable[..., None]) -> None:
    register("mnn", Mnn)
