"""OpenCV's dnn module for .onnx models and frozen TensorFlow graphs (.pb), on the CPU, with OpenCL or with CUDA.

Devices: ``cpu``, ``opencl``, ``cuda`` (needs a build of OpenCV with CUDA).
Options: ``engine`` (auto, new or classic; OpenCV 5 has both, OpenCV 4 only the classic one), ``winograd`` (0 or 1).
``--threads`` applies to the whole process, because OpenCV has one thread pool.
"""

import os
import re
import time
from typing import Any, Callable, Dict, List, Optional

import numpy as np

from edgeprof import hookimpl
from edgeprof.worker.inputs import refuse_unknown
from edgeprof.worker.runtime import (
    ANY_SHAPE,
    Availability,
    LoadError,
    LoadOptions,
    OperatorProfile,
    OperatorTime,
    Runtime,
    Session,
    TensorSpec,
    install_command,
    library_version,
)

from .. import smallest
from . import graph_inputs

REMEDY = install_command("opencv", "opencv-python-headless")
DISTRIBUTIONS = (
    *("opencv-python-headless", "opencv-python", "opencv-contrib-python", "opencv-contrib-python-headless"),
    "opencv",
)
OPTIONS = ("engine", "winograd")
ENGINES = {"auto": "ENGINE_AUTO", "new": "ENGINE_NEW", "classic": "ENGINE_CLASSIC"}
#: Device → backend and target.
DEVICES = {
    "cpu": ("DNN_BACKEND_OPENCV", "DNN_TARGET_CPU"),
    "opencl": ("DNN_BACKEND_OPENCV", "DNN_TARGET_OPENCL"),
    "cuda": ("DNN_BACKEND_CUDA", "DNN_TARGET_CUDA"),
}


class OpenCv(Runtime):
    name = "opencv"
    formats = ("graphdef", "onnx")
    libraries = ("cv2",)
    smallest_model = smallest.ONNX
    smallest_format = "onnx"
    costly_options = (("engine", "classic", "the classic engine, the only one of OpenCV 4,"),)

    def availability(self) -> Availability:
        version = library_version("cv2", *DISTRIBUTIONS)
        return Availability(version, None if version else "OpenCV is not installed", None if version else REMEDY)

    def devices(self) -> List[str]:
        cv2 = _import_opencv()
        return [name for name in DEVICES if name == "cpu" or _device_is_usable(cv2, name)]

    def load(self, path: str, options: LoadOptions) -> Session:
        cv2 = _import_opencv()
        if not os.path.isfile(path):
            raise LoadError("{} does not exist".format(path))
        engine = _checked_engine(cv2, options)
        if options.device not in DEVICES:
            raise LoadError("OpenCV has no device {!r}".format(options.device), "It has {}.".format(", ".join(DEVICES)))
        if options.device != "cpu" and not _device_is_usable(cv2, options.device):
            raise LoadError(
                "this build of OpenCV cannot use --device {}".format(options.device),
                "The wheels of PyPI are built without CUDA: build OpenCV with it, or leave --device out.",
            )
        cv2.setNumThreads(options.threads or -1)
        is_onnx = not path.endswith(".pb")
        specs = graph_inputs.read(path) if is_onnx else graph_inputs.Signature([], [])
        read = cv2.dnn.readNetFromONNX if is_onnx else cv2.dnn.readNetFromTensorflow
        try:
            net = read(path) if engine is None else read(path, engine=getattr(cv2.dnn, ENGINES[engine]))
        except Exception as error:
            raise _load_error(path, error, engine) from None
        if net.empty():
            raise LoadError("OpenCV reads no network from {}".format(os.path.basename(path)))
        backend, target = (getattr(cv2.dnn, name) for name in DEVICES[options.device])
        if options.device != "cpu":
            net.setPreferableBackend(backend)
            net.setPreferableTarget(target)
        if "winograd" in options.options:
            net.enableWinograd(options.options["winograd"] == "1")
        return OpenCvSession(cv2, net, specs, options, engine)


class OpenCvSession(Session):
    """A session with one network.

    Args:
        cv2: The module cv2.
        net: The loaded network.
        specs: The inputs and outputs that the file describes; empty for a TensorFlow graph.
        options: As given to ``Runtime.load``.
        engine: The requested engine; None for an OpenCV with only one engine.
    """

    def __init__(
        self, cv2: Any, net: Any, specs: graph_inputs.Signature, options: LoadOptions, engine: Optional[str]
    ) -> None:
        self._cv2, self._net = cv2, net
        self.inputs = tuple(specs.inputs) or (TensorSpec("input", ANY_SHAPE, "float32", None),)
        refuse_unknown(self.inputs, dict(options.shapes), "--input")
        names = [str(name) for name in net.getUnconnectedOutLayersNames()]
        known = {spec.name: spec for spec in specs.outputs}
        self._names = names
        output_names = [name if name in known else "output_{}".format(number) for number, name in enumerate(names)]
        if len(specs.outputs) == len(names) == 1:
            output_names = [specs.outputs[0].name]
        # The shapes and types of OpenCV's outputs are not always those in the file.
        self.outputs = tuple(TensorSpec(name, ANY_SHAPE, "any", None) for name in output_names)
        self.version = str(cv2.__version__)
        self.facts = {
            "engine": engine or "classic",
            "threads": str(cv2.getNumThreads()),
            "target": options.device,
            "timed": "forward(); inputs are set once, before the windows",
        }

    def run(self, feeds: Dict[str, Any]) -> Dict[str, Any]:
        self._set(feeds)
        try:
            values = self._net.forward(self._names)
        except self._cv2.error as error:
            raise LoadError("OpenCV cannot run the model on these inputs: {}".format(_error_reason(error))) from None
        return {spec.name: np.array(value) for spec, value in zip(self.outputs, values)}

    def bind(self, feeds: Dict[str, Any]) -> Callable[[], Any]:
        self._set(feeds)
        forward, names = self._net.forward, self._names
        return lambda: forward(names)

    def profile_operators(self, feeds: Dict[str, Any], calls: int) -> Optional[OperatorProfile]:
        """Profile with the times of layers that OpenCV measures in every inference.

        Raises:
            LoadError: this engine reports no times.
        """
        call = self.bind(feeds)
        for _ in range(3):
            call()
        frequency = self._cv2.getTickFrequency()
        sums: Optional[Any] = None
        wall_s = 0.0
        for _ in range(calls):
            start = time.monotonic()
            call()
            wall_s += time.monotonic() - start
            ticks = np.asarray(self._net.getPerfProfile()[1], float).ravel()
            sums = ticks if sums is None or len(sums) != len(ticks) else sums + ticks
        names = list(self._net.getLayerNames())
        if sums is None or not sums.any() or len(sums) > len(names) + 1:
            raise LoadError("OpenCV gives no times of layers with this engine")
        names = ["input"] * (len(sums) - len(names)) + names
        took = [float(value) / frequency / calls for value in sums]
        return OperatorProfile(
            [OperatorTime(str(name), _layer_type(self._net, str(name)), seconds) for name, seconds in zip(names, took)],
            wall_s / calls,
        )

    def close(self) -> None:
        self._net = None

    def _set(self, feeds: Dict[str, Any]) -> None:
        for spec in self.inputs:
            value = np.ascontiguousarray(feeds[spec.name])
            if len(self.inputs) == 1:
                self._net.setInput(value)
            else:
                self._net.setInput(value, spec.name)


def _layer_type(net: Any, name: str) -> str:
    """The type of a layer; for the new engine, it is the part of the layer's name before the last "!"."""
    try:
        return str(net.getLayer(net.getLayerId(name)).type)
    except Exception:
        return name.rpartition("!")[0] or name


def _checked_engine(cv2: Any, options: LoadOptions) -> Optional[str]:
    """The engine; None where this OpenCV has only one."""
    for key, value in options.options.items():
        if (
            key not in OPTIONS
            or (key == "engine" and value not in ENGINES)
            or (key == "winograd" and value not in "01")
        ):
            raise LoadError(
                "OpenCV has no option {}={}".format(key, value),
                "It takes {}; engine is one of {}.".format(", ".join(OPTIONS), ", ".join(ENGINES)),
            )
    engine = options.options.get("engine")
    if hasattr(cv2.dnn, "ENGINE_NEW"):
        return engine or "auto"
    if engine in (None, "auto", "classic"):
        return None
    raise LoadError("OpenCV {} has no new engine".format(cv2.__version__), "pip install 'opencv-python-headless>=5'")


def _device_is_usable(cv2: Any, device: str) -> bool:
    """Whether a device can be used; without this check, OpenCV would silently use the CPU."""
    backend, target = (getattr(cv2.dnn, name, None) for name in DEVICES[device])
    if backend is None or target is None:
        return False
    if device == "opencl" and not cv2.ocl.haveOpenCL():
        return False
    return any(int(available) == int(target) for available in cv2.dnn.getAvailableTargets(backend))


def _load_error(path: str, error: Exception, engine: Optional[str]) -> LoadError:
    text, name = _error_reason(error), os.path.basename(path)
    if "arse" in text and "ODEL" in text.upper():
        return LoadError("{} is no whole model: {}".format(name, text), "Download or export it again.")
    other = {"auto": "classic", "new": "classic", "classic": "new"}.get(engine or "")
    return LoadError(
        "OpenCV does not load {}: {}".format(name, text),
        "Try the other engine (--option engine={}), or another runtime.".format(other) if other else None,
    )


def _error_reason(error: Exception) -> str:
    """The message of an error without a prefix like ``OpenCV(5.0.0) /io/….cpp:12: error: (-2:Unspecified error)``."""
    text = " ".join(str(error).split())
    text = re.sub(r"^OpenCV\(\S+\) \S+ error: \(-?\d+:[^)]*\) ", "", text)
    return re.sub(r" in function '.*$", "", text)[:300]


def _import_opencv() -> Any:
    try:
        import cv2
    except Exception as error:
        raise LoadError("OpenCV cannot be imported: {}".format(error), REMEDY) from None
    if not hasattr(cv2, "dnn"):
        raise LoadError("this OpenCV was built without its dnn module", REMEDY)
    return cv2


@hookimpl
def register_runtimes(register: Callable[..., None]) -> None:
    register("opencv", OpenCv)
