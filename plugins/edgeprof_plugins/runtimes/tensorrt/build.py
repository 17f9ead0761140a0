"""From an ONNX file to a TensorRT engine: flags, profile, calibration, timing cache, and where engines are kept.

Python 3.6 grammar, numpy. Sources: the docstrings of the bindings 8.6.1, 10.3, 10.16 and 11.4. TensorRT 11 has neither
precision flags nor calibrators any more: it builds what the file's own types say.
"""

import hashlib
import json
import os
import re
import stat
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from edgeprof.worker.arrays import read_arrays
from edgeprof.worker.inputs import resolve_shapes
from edgeprof.worker.replace import replace_file
from edgeprof.worker.runtime import Dim, LoadError, LoadOptions, TensorSpec

from ..nvidia.cuda import Cuda
from ..nvidia.driver import Gpu
from .tensors import DTYPES, kind_of

#: precision → the builder's flags.
PRECISIONS: Dict[str, Tuple[str, ...]] = {
    "fp32": (),
    "fp16": ("FP16",),
    "bf16": ("BF16",),
    "int8": ("INT8",),
    "best": ("INT8", "FP16"),
}
#: Options that only matter when an engine is built.
BUILD_OPTIONS = (
    "precision",
    "sparsity",
    "tf32",
    "dla_core",
    "workspace_mib",
    "max_batch",
    "calibration",
    "calibration_cache",
    "timing_cache",
    "cache",
    "save",
)
_FLAGS = ("sparsity", "tf32", "cache")
_NUMBERS = ("dla_core", "workspace_mib", "max_batch")

BuildOptions = NamedTuple(
    "BuildOptions",
    [
        ("precision", Optional[str]),  # a key of PRECISIONS; None: TensorRT's own default, float32 (and TF32)
        ("sparsity", bool),
        ("tf32", bool),
        ("dla_core", Optional[int]),
        ("workspace_mib", Optional[int]),
        ("max_batch", Optional[int]),
        ("calibration", Optional[str]),  # an .npz: input name → samples along the first axis
        ("calibration_cache", Optional[str]),
        ("timing_cache", Optional[str]),
        ("cache", bool),
        ("save", Optional[str]),
    ],
)


def parse(options: Dict[str, str]) -> BuildOptions:
    """The build's options.

    Raises:
        LoadError: a value that cannot be.
    """
    given = {key: value for key, value in options.items() if key in BUILD_OPTIONS}
    for key, value in given.items():
        if key in _FLAGS and value not in ("0", "1"):
            raise LoadError("{}={} is neither 0 nor 1".format(key, value))
        if key in _NUMBERS and not value.isdigit():
            raise LoadError("{}={} is no whole number".format(key, value))
    precision = given.get("precision")
    if precision is not None and precision not in PRECISIONS:
        raise LoadError(
            "TensorRT has no precision {!r}".format(precision), "It is one of {}.".format(", ".join(PRECISIONS))
        )

    def number(key: str) -> Optional[int]:
        return int(given[key]) if key in given else None

    return BuildOptions(
        precision,
        given.get("sparsity") == "1",
        given.get("tf32", "1") == "1",
        number("dla_core"),
        number("workspace_mib"),
        number("max_batch"),
        given.get("calibration"),
        given.get("calibration_cache"),
        given.get("timing_cache"),
        given.get("cache", "1") == "1",
        given.get("save"),
    )


def cache_path(path: str, version: str, gpu: Gpu, build: BuildOptions, options: LoadOptions) -> str:
    """Where the engine of this model, TensorRT, GPU and these flags is kept."""
    digest = hashlib.sha256()
    for file in [path] + _external_files(path):  # noqa: RUF005 - reads the same under 3.6
        _update_digest(digest, file)
    for data in (build.calibration, build.calibration_cache):
        if data and os.path.isfile(data):
            _update_digest(digest, data)
    flags = build._asdict()
    for place in ("cache", "save", "timing_cache", "calibration", "calibration_cache"):
        flags.pop(place)
    shapes = {name: list(shape) for name, shape in options.shapes.items()}
    what = [version, gpu.name, gpu.compute, dict(flags), shapes, options.batch]
    digest.update(json.dumps(what, sort_keys=True).encode("utf-8"))
    folder = os.environ.get("EDGEPROF_CACHE_DIR") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache"), "edgeprof"
    )
    return os.path.join(folder, "tensorrt", digest.hexdigest()[:32] + ".engine")


def read_ours(path: str) -> Optional[bytes]:
    """A file of a cache, if it is ours and nobody else can write it: a plan is code of the machine. None where not.

    What is read is what was looked at, whoever exchanges files meanwhile; a link or a pipe is not opened.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with os.fdopen(file, "rb") as opened:
        status, folder = os.fstat(file), os.stat(os.path.dirname(os.path.abspath(path)))
        owners = (os.getuid(), 0)
        others = (status.st_mode | folder.st_mode) & 0o022
        if not stat.S_ISREG(status.st_mode) or status.st_uid not in owners or folder.st_uid not in owners or others:
            return None
        return opened.read()


def write(path: str, content: bytes) -> None:
    """The whole file or none.

    Raises:
        LoadError: it cannot be written.
    """
    folder = os.path.dirname(os.path.abspath(path))
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        replace_file(path, content, mode=0o600)
    except OSError as error:
        raise LoadError(
            "{} cannot be written: {}".format(path, error.strerror), "Free some space, or set EDGEPROF_CACHE_DIR."
        ) from None


def build_engine(trt: Any, logger: Any, cuda: Cuda, path: str, *, build: BuildOptions, options: LoadOptions) -> bytes:
    """The plan of an ONNX file.

    Raises:
        LoadError: the file, an operator, a flag or the calibration data cannot be used; the sentence says which.
        MemoryError: the GPU's memory does not suffice.
    """
    for needed in ("Builder", "OnnxParser"):
        if not hasattr(trt, needed):
            raise LoadError(
                "this TensorRT ({} {}) only runs engines: it has no {}".format(trt.__name__, trt.__version__, needed),
                "Build the engine with the full TensorRT, and bench the engine.",
            )
    logger.clear()
    builder = trt.Builder(logger)
    explicit = getattr(trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH", None)
    network = builder.create_network(0 if explicit is None else 1 << int(explicit))
    _parse_network(trt, logger, network, path)
    config = builder.create_builder_config()
    _set_flags(trt, builder, config, build)
    if build.workspace_mib is not None:
        if hasattr(config, "set_memory_pool_limit"):
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, build.workspace_mib << 20)
        else:  # before 8.4
            config.max_workspace_size = build.workspace_mib << 20
    profile, shapes = _add_profile(builder, network, build, options)
    if profile is not None:
        config.add_optimization_profile(profile)
    keep = _add_calibrator(trt, cuda, network, config, build=build, path=path, shapes=shapes, profile=profile)
    cached = _timing_cache(config, build)
    plan = builder.build_serialized_network(network, config)
    if keep is not None:
        keep.close()
    if plan is None:
        raise _build_error(logger, path)
    if cached:
        assert build.timing_cache is not None
        write(build.timing_cache, bytes(config.get_timing_cache().serialize()))
    return bytes(plan)


def _build_error(logger: Any, path: str) -> Exception:
    message = logger.last() or "it does not say why"
    if re.search(r"out of memory|insufficient memory|OutOfMemory", message, re.IGNORECASE):
        return MemoryError("out of memory while TensorRT built {}: {}".format(os.path.basename(path), message))
    return LoadError(
        "TensorRT cannot build {}: {}".format(os.path.basename(path), message),
        "Raise workspace_mib, or leave precision, sparsity and dla_core out one after the other.",
    )


def _parse_network(trt: Any, logger: Any, network: Any, path: str) -> None:
    parser = trt.OnnxParser(network, logger)
    if parser.parse_from_file(path):
        return
    messages = [_parser_error(parser.get_error(i)) for i in range(parser.num_errors)]
    text = messages[0] if messages else logger.last() or "it does not say why"
    raise LoadError(
        "TensorRT {} does not take {}: {}".format(trt.__version__, os.path.basename(path), text),
        "It may need a newer TensorRT, a plugin (--option plugins=LIBRARY.so), or another opset_version.",
    )


def _parser_error(error: Any) -> str:
    text = str(error.desc()).strip().splitlines()[0][:300] if str(error.desc()).strip() else str(error.code())
    operator = getattr(error, "node_operator", None)
    name = operator() if operator is not None else ""
    return "node {}{}: {}".format(error.node(), " ({})".format(name) if name else "", text)


def _set_flags(trt: Any, builder: Any, config: Any, build: BuildOptions) -> None:
    for name in PRECISIONS[build.precision or "fp32"]:
        if not hasattr(trt.BuilderFlag, name):
            typed = not hasattr(trt.BuilderFlag, "FP16")
            raise LoadError(
                "TensorRT {} has no builder flag for {}{}".format(
                    trt.__version__, build.precision, ": it keeps the types of the ONNX file" if typed else ""
                ),
                "Convert the ONNX file itself to that precision, and leave precision out."
                if typed
                else "Use a newer TensorRT, or another precision.",
            )
        config.set_flag(getattr(trt.BuilderFlag, name))
    if build.sparsity:
        config.set_flag(trt.BuilderFlag.SPARSE_WEIGHTS)
    if not build.tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
    if build.dla_core is not None:
        cores = int(builder.num_DLA_cores)
        if build.dla_core >= cores:
            raise LoadError(
                "dla_core={} does not exist: this device has {} DLA core(s)".format(build.dla_core, cores),
                "Leave dla_core out: it is for Jetson Xavier and Orin." if not cores else "They count from 0.",
            )
        if hasattr(trt.BuilderFlag, "FP16") and build.precision not in ("fp16", "int8", "best"):
            raise LoadError("a DLA core computes in fp16 or int8 only", "Add precision=fp16.")
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = build.dla_core
        config.set_flag(trt.BuilderFlag.GPU_FALLBACK)


def _add_profile(builder: Any, network: Any, build: BuildOptions, options: LoadOptions) -> Tuple[Any, Dict[str, Any]]:
    """A profile where something is dynamic: the shapes that are asked for, and every batch up to theirs."""
    tensors = [network.get_input(i) for i in range(network.num_inputs)]
    specs = []
    for tensor in tensors:
        dims: Tuple[Dim, ...] = tuple(int(d) if d >= 0 else None for d in tensor.shape)
        specs.append(TensorSpec(str(tensor.name), dims, DTYPES.get(kind_of(tensor.dtype), "float32"), None))
    shapes = resolve_shapes(specs, options.shapes, options.batch)
    if all(isinstance(dim, int) for spec in specs for dim in spec.shape):
        return None, shapes
    profile = builder.create_optimization_profile()
    for tensor, spec in zip(tensors, specs):
        if tensor.is_shape_tensor:
            raise LoadError(
                "the input {!r} of the model is a shape, of which no profile can be made here".format(spec.name),
                "Build the engine with trtexec, and bench the engine.",
            )
        best = shapes[spec.name]
        least, most = list(best), list(best)
        if spec.shape and spec.shape[0] is None:
            least[0] = 1
            most[0] = max(build.max_batch or 1, best[0])
        profile.set_shape(spec.name, tuple(least), tuple(best), tuple(most))
    return profile, shapes


def _timing_cache(config: Any, build: BuildOptions) -> bool:
    """Use the file of kernel timings; False where none is wanted."""
    if build.timing_cache is None:
        return False
    cache = config.create_timing_cache(read_ours(build.timing_cache) or b"")
    if cache is None or not config.set_timing_cache(cache, False):
        raise LoadError(
            "the timing cache {} is not of this GPU and TensorRT".format(build.timing_cache),
            "Name a file of its own for each device; a new one is made where there is none.",
        )
    return True


def _add_calibrator(
    trt: Any,
    cuda: Cuda,
    network: Any,
    config: Any,
    *,
    build: BuildOptions,
    path: str,
    shapes: Dict[str, Any],
    profile: Any,
) -> Any:
    """Give the builder a calibrator where INT8 is wanted and the file has no scales of its own."""
    if "INT8" not in PRECISIONS[build.precision or "fp32"] or _has_quantised_nodes(path):
        return None
    cached = build.calibration_cache and os.path.isfile(build.calibration_cache)
    if not (build.calibration or cached):
        raise LoadError(
            "precision={} needs calibration data: {} has no quantisation of its own".format(
                build.precision, os.path.basename(path)
            ),
            "--with tensorrt:precision={0} --dataset SPEC, or --option calibration=FILE.npz.".format(build.precision),
        )
    names = [str(network.get_input(i).name) for i in range(network.num_inputs)]
    batches = read_batches(build.calibration, names, shapes) if build.calibration else []
    calibrator = _make_calibrator(trt, cuda, names, batches, build.calibration_cache)
    config.int8_calibrator = calibrator
    if profile is not None:
        config.set_calibration_profile(profile)
    return calibrator


def _has_quantised_nodes(path: str) -> bool:
    """Whether the ONNX file has QuantizeLinear nodes: its scales are then its own."""
    with open(path, "rb") as file:
        tail = b""
        while True:
            block = file.read(1 << 20)
            if not block:
                return False
            if b"QuantizeLinear" in tail + block:
                return True
            tail = block[-16:]


def read_batches(path: str, names: Sequence[str], shapes: Dict[str, Any]) -> List[Dict[str, Any]]:
    """The calibration samples of an .npz, in batches of the network's own shapes.

    Raises:
        LoadError: it cannot be read, lacks an input, has another shape, or has fewer samples than one batch.
    """
    try:
        arrays = read_arrays(path)
    except (OSError, ValueError) as error:
        raise LoadError("the calibration data {} cannot be read: {}".format(path, error)) from None
    if len(names) == 1 and len(arrays) == 1:
        arrays = {names[0]: next(iter(arrays.values()))}
    for name in names:
        wanted = tuple(shapes[name])
        if name not in arrays or tuple(arrays[name].shape[1:]) != wanted[1:]:
            raise LoadError(
                "the calibration data {} has {} for the input {!r}, which takes {}".format(
                    path, list(arrays[name].shape) if name in arrays else "nothing", name, list(wanted)
                ),
                "Save samples along the first axis: numpy.savez(FILE, **{input name: array}).",
            )
    size = int(shapes[names[0]][0])
    count = min(len(arrays[name]) for name in names) // size
    if not count:
        raise LoadError("the calibration data {} has fewer samples than a batch of {}".format(path, size))
    return [
        {name: np.ascontiguousarray(arrays[name][i * size : (i + 1) * size], dtype=np.float32) for name in names}
        for i in range(count)
    ]


def _make_calibrator(  # noqa: C901 - a class within: TensorRT's base is known only here
    trt: Any, cuda: Cuda, names: Sequence[str], batches: List[Dict[str, Any]], cache: Optional[str]
) -> Any:
    class Calibrator(trt.IInt8EntropyCalibrator2):  # type: ignore[misc] # known only when TensorRT is here
        def __init__(self) -> None:
            trt.IInt8EntropyCalibrator2.__init__(self)
            self._next = 0
            self._stream = cuda.stream()
            self._hosts = {name: cuda.host(batches[0][name].nbytes) for name in names} if batches else {}
            self._addresses = {name: cuda.malloc(host.nbytes) for name, host in self._hosts.items()}

        def get_batch_size(self) -> int:
            return len(batches[0][names[0]]) if batches else 1

        def get_batch(self, wanted: Sequence[str]) -> Optional[List[int]]:
            if self._next >= len(batches):
                return None
            batch = batches[self._next]
            self._next += 1
            for name, host in self._hosts.items():
                host[:] = batch[name].view(np.uint8).ravel()
                cuda.copy_in(self._addresses[name], host, self._stream)()
            cuda.wait(self._stream)
            return [self._addresses[name] for name in wanted]

        def read_calibration_cache(self) -> Optional[bytes]:
            if cache is None or not os.path.isfile(cache):
                return None
            with open(cache, "rb") as file:
                return file.read()

        def write_calibration_cache(self, content: Any) -> None:
            if cache is not None:
                write(cache, bytes(content))

        def close(self) -> None:
            for address in self._addresses.values():
                cuda.free(address)
            for host in self._hosts.values():
                cuda.host_free(host)
            cuda.close_stream(self._stream)

    return Calibrator()


def _external_files(path: str) -> List[str]:
    """The files in which an ONNX model keeps its weights: entries (key "location", value) of its tensors."""
    folder = os.path.dirname(os.path.abspath(path))
    if len(os.listdir(folder)) == 1:
        return []
    files = set()
    with open(path, "rb") as file:
        content = file.read()
    for match in re.finditer(b"\x0a\x08location\x12(.)", content, re.DOTALL):
        name = content[match.end() : match.end() + match.group(1)[0]].decode("utf-8", "replace")
        if os.path.isfile(os.path.join(folder, name)):
            files.add(os.path.join(folder, name))
    return sorted(files)


def _update_digest(digest: Any, path: str) -> None:
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
