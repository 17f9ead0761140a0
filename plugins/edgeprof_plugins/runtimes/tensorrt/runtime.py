"""TensorRT: engines (.engine, .plan, .trt), and ONNX files of which it builds one (``--runtime tensorrt``).

Devices: ``cuda``, ``cuda:1``. Options of every engine: ``profile=N``; ``cuda_graph=1``; ``wait`` (auto, spin, yield,
block: how the CPU waits for the GPU); ``cuda`` (ctypes, cuda-python, pycuda: the way to CUDA); ``plugins=LIBRARY.so``;
``layers=FILE.json`` (time per layer, measured before the windows); ``host_code=1`` (an engine built with
VERSION_COMPATIBLE brings a library that runs on the CPU: only for engines that you trust); ``dla_core=N``.
Of a build, besides: ``precision`` (fp32, fp16, bf16, int8, best), ``sparsity=1``, ``tf32=0``, ``workspace_mib=N``,
``max_batch=N``, ``calibration=FILE.npz``, ``calibration_cache=FILE``, ``timing_cache=FILE``, ``cache=0``,
``save=FILE.engine``.

The files beside this one hold CUDA (nvidia_cuda.py), the running engine (tensorrt_session.py) and the build
(tensorrt_build.py). TensorRT's own Runtime is made only where the driver has answered in another process: without a
GPU it is made all the same, and crashes later.
"""

import json
import os
import re
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional

import numpy as np

from edgeprof import hookimpl
from edgeprof.worker.inputs import own_feeds
from edgeprof.worker.runtime import (
    Availability,
    LoadError,
    LoadOptions,
    Runtime,
    Session,
    library_version,
)
from edgeprof.worker.tensorrt_plan import Plan, describe_plan, read_plan

from ..nvidia.cuda import BACKENDS, WAITS, Cuda, CudaError, choose
from ..nvidia.driver import Driver, Gpu, ask_driver, version_text
from ..nvidia.stream import Usage
from .build import BUILD_OPTIONS, PRECISIONS, build_engine, cache_path, parse, read_ours, write
from .session import TensorRTSession

#: The whole of it, or the runtimes that only run engines; with the names under which each may be installed.
MODULES = (
    ("tensorrt", ("tensorrt", "tensorrt-cu13", "tensorrt-cu12", "tensorrt-cu11", "nvidia-tensorrt")),
    ("tensorrt_lean", ("tensorrt-lean", "tensorrt-lean-cu13", "tensorrt-lean-cu12")),
    ("tensorrt_dispatch", ("tensorrt-dispatch", "tensorrt-dispatch-cu13", "tensorrt-dispatch-cu12")),
)
RUN_OPTIONS = ("profile", "cuda_graph", "wait", "cuda", "plugins", "layers", "host_code", "dla_core")
#: Inferences of which ``layers`` tells the mean.
LAYER_RUNS = 20
REMEDY = "On a Jetson it is in the system's Python: --worker-python /usr/bin/python3. Elsewhere: pip install tensorrt"


class TensorRT(Runtime):
    name = "tensorrt"
    formats = ("tensorrt", "onnx")
    libraries = ("tensorrt",)
    default_device = "cuda"

    def availability(self) -> Availability:
        for module, distributions in MODULES:
            version = library_version(module, *distributions)
            if version is not None:
                if _driver_is_here():
                    return Availability(version, None, None)
                return Availability(
                    version, "there is no NVIDIA driver (libcuda.so.1)", "TensorRT needs an NVIDIA GPU with its driver."
                )
        return Availability(None, "TensorRT is not installed", REMEDY)

    def devices(self) -> List[str]:
        count = len(ask_driver().gpus)
        return ["cuda"] + ["cuda:{}".format(i) for i in range(1, count)]

    def load(self, path: str, options: LoadOptions) -> Session:
        chosen = _parse_options(options.options)
        number = _device_number(options.device)
        name = os.path.basename(path)
        if not os.path.isfile(path):
            raise LoadError("{} does not exist".format(path))
        plan = read_plan(path)
        size = os.path.getsize(path)
        if plan is not None and plan.size is not None and plan.size > size - plan.offset:
            raise LoadError(
                "{} is cut off: a plan of {} bytes, of which the file has {}".format(
                    name, plan.size, size - plan.offset
                ),
                "Copy or build it again.",
            )
        if plan is None and not _maybe_onnx(path):
            raise LoadError("{} is neither a TensorRT plan nor an ONNX file".format(name), "Build it again.")
        context = "{} was {}; ".format(name, describe_plan(plan)) if plan is not None and plan.version else ""
        trt = _load_tensorrt(context)
        try:
            driver = ask_driver()
        except LoadError as error:
            raise LoadError(context + error.message, error.remedy) from None
        if number >= len(driver.gpus):
            raise LoadError("there is no cuda:{}: this machine has {} GPU(s)".format(number, len(driver.gpus)))
        logger = _make_logger(trt)
        _load_plugins(trt, logger, chosen.plugins)
        try:
            cuda = choose(chosen.cuda, number, chosen.wait, driver)
        except CudaError as error:
            raise LoadError("CUDA does not start: {}".format(error), "nvidia-smi says more.") from None
        maker = _Maker(trt, logger, cuda, driver=driver, gpu=driver.gpus[number], chosen=chosen)
        if plan is not None:
            return maker.session(path, plan, options)
        return maker.build(path, options)


_Options = NamedTuple(
    "_Options",
    [
        ("profile", int),
        ("graph", bool),
        ("wait", str),
        ("cuda", Optional[str]),
        ("plugins", Optional[str]),
        ("layers", Optional[str]),
        ("host_code", bool),
        ("dla_core", Optional[int]),
    ],
)


class _Keep:
    """What must live as long as an engine."""

    def __init__(self, logger: Any, runtime: Any) -> None:
        self.logger, self.runtime = logger, runtime


class _Maker:
    """Engines on one GPU."""

    def __init__(self, trt: Any, logger: Any, cuda: Cuda, *, driver: Driver, gpu: Gpu, chosen: _Options) -> None:
        self._trt, self._logger, self._cuda, self._driver = trt, logger, cuda, driver
        self._gpu, self._chosen = gpu, chosen
        self._usage = Usage(cuda)

    def session(self, path: str, plan: Plan, options: LoadOptions) -> TensorRTSession:
        """Load a plan.

        Raises:
            LoadError: it was built by another TensorRT, for another GPU, or is damaged.
        """
        stray = [key for key in options.options if key in BUILD_OPTIONS and key not in RUN_OPTIONS]
        if stray:
            raise LoadError(
                "{} is an engine already built, of which {} cannot be changed".format(
                    os.path.basename(path), " and ".join(stray)
                ),
                "Give the ONNX file that it was built from: edgeprof bench MODEL.onnx --runtime tensorrt.",
            )
        with open(path, "rb") as file:
            file.seek(plan.offset)
            content = file.read()
        return self._open(os.path.basename(path), content, plan, options, {"origin": describe_plan(plan)})

    def build(self, path: str, options: LoadOptions) -> TensorRTSession:
        """Take the engine of an ONNX file from the cache, or build it and keep it there."""
        build = parse(options.options)
        place = cache_path(path, str(self._trt.__version__), self._gpu, build, options)
        facts = {"precision": build.precision or "TensorRT's default (fp32, TF32 where there is)", "cached": "no"}
        cached = read_ours(place) if build.cache else None
        if cached is not None:
            content = cached
            try:
                plan = read_plan(place)
                facts["cached"] = place
                session = self._open(os.path.basename(path), content, plan, options, facts)
                if build.save:
                    write(build.save, content)
            except (LoadError, OSError):
                facts["cached"] = "no"  # damaged, or out of date in a way that its name does not tell: build it anew
            else:
                return session
        start = time.monotonic()
        content = build_engine(self._trt, self._logger, self._cuda, path, build=build, options=options)
        facts["build_s"] = "{:.1f}".format(time.monotonic() - start)
        for wanted, target in ((build.cache, place), (build.save, build.save)):
            if wanted and target:
                write(target, content)
        return self._open(os.path.basename(path), content, None, options, facts)

    def _open(
        self, name: str, content: bytes, plan: Optional[Plan], options: LoadOptions, facts: Dict[str, str]
    ) -> TensorRTSession:
        trt, chosen, logger = self._trt, self._chosen, self._logger
        logger.clear()
        runtime = trt.Runtime(logger)
        if chosen.host_code:
            runtime.engine_host_code_allowed = True
        if chosen.dla_core is not None:
            if chosen.dla_core >= int(runtime.num_DLA_cores):
                raise LoadError(
                    "dla_core={} does not exist: this device has {} DLA core(s)".format(
                        chosen.dla_core, int(runtime.num_DLA_cores)
                    )
                )
            runtime.DLA_core = chosen.dla_core
        engine = runtime.deserialize_cuda_engine(content)
        if engine is None:
            raise self._refused(name, plan)
        keep = _Keep(logger, runtime)

        def session() -> TensorRTSession:
            return TensorRTSession(
                trt,
                self._cuda,
                engine,
                profile=chosen.profile,
                graph=chosen.graph,
                given=options.shapes,
                usage=self._usage,
                keep=keep,
            )

        if chosen.layers:
            self._layers(session(), options, chosen.layers)
        opened = session()
        opened.facts.update(facts)
        opened.facts.update(
            {
                "tensorrt": str(trt.__version__),
                "gpu": "{} (compute capability {})".format(self._gpu.name, self._gpu.compute),
                "driver": "CUDA up to {}".format(version_text(self._driver.version)),
                "wait": chosen.wait,
                "layers": str(engine.num_layers),
            }
        )
        return opened

    def _refused(self, name: str, plan: Optional[Plan]) -> Exception:
        """Why TensorRT gives no engine: with both versions, or both GPUs, where these differ."""
        log = self._logger.text()
        here = str(self._trt.__version__)
        built = plan.version if plan is not None else None
        versions = re.search(r"expecting library version (\S+) got\s+([\d.]*\d)", log)
        if versions:
            built = built or versions.group(2)
        if built is not None and built.split(".")[:3] != here.split(".")[:3]:
            return LoadError(
                "{} was built by TensorRT {}, and this is TensorRT {}: a plan runs only on its own".format(
                    name, built, here
                ),
                "Build it here: edgeprof bench MODEL.onnx --runtime tensorrt.",
            )
        compute = plan.compute if plan is not None else None
        device = re.search(r"expecting compute (\S+) got compute ([\d.]*\d)", log)
        if device and not compute:
            compute = device.group(2)
        if compute is not None and compute != self._gpu.compute:
            return LoadError(
                "{} was built for a GPU of compute capability {}, and this one ({}) has {}".format(
                    name, compute, self._gpu.name, self._gpu.compute
                ),
                "Build it here: edgeprof bench MODEL.onnx --runtime tensorrt.",
            )
        plugin = re.search(r"could not find plugin:? (\S+)", log, re.IGNORECASE)
        if plugin:
            return LoadError(
                "{} needs the TensorRT plugin {}, which is not loaded".format(name, plugin.group(1)),
                "Name the library that has it: --option plugins=LIBRARY.so.",
            )
        if re.search(r"out of memory|OutOfMemory", log, re.IGNORECASE):
            return MemoryError("out of memory while TensorRT loaded {}: {}".format(name, self._logger.last()))
        if versions or "ersion tag does not match" in log:
            return LoadError(
                "{} was built by another TensorRT than {}: {}".format(name, here, self._logger.last()),
                "Build it here: edgeprof bench MODEL.onnx --runtime tensorrt.",
            )
        return LoadError(
            "TensorRT {} does not load {}: {}".format(
                here, name, self._logger.last() or "it is damaged, or was built with something that is not here"
            ),
            "Copy or build it again.",
        )

    def _layers(self, session: TensorRTSession, options: LoadOptions, path: str) -> None:
        """Mean seconds of each layer, to a file."""
        profiler = _make_profiler(self._trt)
        try:
            session.layer_times(own_feeds(session, options, 0), profiler, LAYER_RUNS)
        finally:
            session.close()
        total = sum(sum(times) for times in profiler.times.values())
        layers = [
            {
                "name": name,
                "mean_s": sum(times) / len(times) * 1e-3,
                "median_s": float(np.median(times)) * 1e-3,
                "share": sum(times) / total if total else None,
                "runs": len(times),
            }
            for name, times in profiler.times.items()
        ]
        write(path, json.dumps({"layers": layers, "runs": LAYER_RUNS}, indent=2).encode("utf-8"))


def _parse_options(given: Dict[str, str]) -> _Options:
    for key, value in given.items():
        if key not in RUN_OPTIONS + BUILD_OPTIONS:
            raise LoadError(
                "TensorRT has no option {}={}".format(key, value),
                "It takes {}; precision is one of {}.".format(
                    ", ".join(RUN_OPTIONS + BUILD_OPTIONS), ", ".join(PRECISIONS)
                ),
            )
        if key in ("cuda_graph", "host_code") and value not in ("0", "1"):
            raise LoadError("{}={} is neither 0 nor 1".format(key, value))
        if key in ("profile", "dla_core") and not value.isdigit():
            raise LoadError("{}={} is no whole number".format(key, value))
        for name, known in (("wait", tuple(WAITS)), ("cuda", BACKENDS)):
            if key == name and value not in known:
                raise LoadError("{}={} is none of {}".format(key, value, ", ".join(known)))
    parse(given)  # the values of the build's, before anything is started
    return _Options(
        int(given.get("profile", "0")),
        given.get("cuda_graph") == "1",
        given.get("wait", "auto"),
        given.get("cuda"),
        given.get("plugins"),
        given.get("layers"),
        given.get("host_code") == "1",
        int(given["dla_core"]) if "dla_core" in given else None,
    )


def _device_number(device: str) -> int:
    match = re.match(r"(cuda|gpu)(:(\d+))?$", device)
    if match is None:
        raise LoadError("TensorRT has no device {!r}".format(device), "It has cuda, cuda:1 …; leave --device out.")
    return int(match.group(3) or 0)


def _maybe_onnx(path: str) -> bool:
    """An ONNX file begins with its IR version: field 1, a small number (the parser judges the rest)."""
    with open(path, "rb") as file:
        return file.read(1) == b"\x08"


def _load_tensorrt(context: str) -> Any:
    import importlib

    for name, distributions in MODULES:
        if library_version(name, *distributions) is None:
            continue
        try:
            module = importlib.import_module(name)
        except Exception as error:
            raise LoadError(
                "{}{} is installed and cannot be imported: {}".format(context, name, str(error).splitlines()[0]),
                "Its libraries (libnvinfer) are missing or of another version: reinstall it as a whole.",
            ) from None
        return module
    raise LoadError(context + "TensorRT is not installed", REMEDY)


def _driver_is_here() -> bool:
    """Whether libcuda can be found at all; whether it works is asked when something is loaded."""
    import ctypes

    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def _make_logger(trt: Any) -> Any:
    """TensorRT's logger that keeps what is said at warning and above."""

    class Logger(trt.ILogger):  # type: ignore[misc] # known only when TensorRT is here
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self._errors: List[str] = []

        def log(self, severity: Any, message: str) -> None:
            # Lower is graver: INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE.
            if int(severity) <= int(trt.ILogger.ERROR) and len(self._errors) < 100:
                self._errors.append(str(message))

        def clear(self) -> None:
            del self._errors[:]

        def text(self) -> str:
            return "\n".join(self._errors)

        def last(self) -> str:
            """The first error since ``clear``: the others follow from it."""
            return self._errors[0].strip().splitlines()[0][:300] if self._errors and self._errors[0].strip() else ""

    return Logger()


def _make_profiler(trt: Any) -> Any:
    class Profiler(trt.IProfiler):  # type: ignore[misc] # known only when TensorRT is here
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.times: Dict[str, List[float]] = {}

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.times.setdefault(layer_name, []).append(ms)

    return Profiler()


def _load_plugins(trt: Any, logger: Any, library: Optional[str]) -> None:
    """TensorRT's own plugins, and those of a library."""
    import ctypes

    if library is not None:
        try:
            ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
        except OSError as error:
            raise LoadError("the plugins of {} cannot be loaded: {}".format(library, error)) from None
    if hasattr(trt, "init_libnvinfer_plugins"):
        trt.init_libnvinfer_plugins(logger, "")


@hookimpl
def register_runtimes(register: Callable[..., None]) -> None:
    register("tensorrt", TensorRT)
