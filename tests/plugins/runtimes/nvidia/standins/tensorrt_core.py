"""A stand-in for the module ``tensorrt`` of several generations, over the stand-in for CUDA.

Names, arguments and results are those of the real bindings (test_tensorrt_bindings.py compares them); behaviour is what
their docstrings and the vendor's documentation say: None from a plan of another version or GPU with the reason in the
log, False from a call that is refused, work put into the stream and done in its turn. An engine computes 2 x + 1 of its
first input for each of its outputs. Python 3.6 grammar: it runs where the worker runs.
"""

import ctypes
import enum
import json
import os
import struct

import numpy as np

VERSIONS = {"8.2": "8.2.1.8", "8.6": "8.6.1", "10": "10.3.0", "11": "11.4.0.106"}
_CUDART = ctypes.CDLL("libcudart.so")
_HOST_FN = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_CUDART.cudaLaunchHostFunc.argtypes = [ctypes.c_void_p, _HOST_FN, ctypes.c_void_p]
NUMPY = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "INT32": "int32",
    "BOOL": "bool",
    "UINT8": "uint8",
    "INT64": "int64",
    "BF16": "uint16",
    "FP8": "uint8",
}


class _Printed(enum.IntEnum):
    def __str__(self):
        return "{}.{}".format(type(self).__name__, self.name)


DataType = _Printed("DataType", list(NUMPY))
TensorIOMode = _Printed("TensorIOMode", ["NONE", "INPUT", "OUTPUT"])
TensorLocation = _Printed("TensorLocation", ["DEVICE", "HOST"])
DeviceType = _Printed("DeviceType", ["GPU", "DLA"])
MemoryPoolType = _Printed("MemoryPoolType", ["WORKSPACE", "DLA_MANAGED_SRAM"])
Severity = _Printed("Severity", [("INTERNAL_ERROR", 0), ("ERROR", 1), ("WARNING", 2), ("INFO", 3), ("VERBOSE", 4)])


class ILogger:
    Severity = Severity
    INTERNAL_ERROR, ERROR, WARNING = Severity.INTERNAL_ERROR, Severity.ERROR, Severity.WARNING

    def log(self, severity, msg):
        raise NotImplementedError


class IProfiler:
    def report_layer_time(self, layer_name, ms):
        raise NotImplementedError


class IOutputAllocator:
    pass


class IInt8EntropyCalibrator2:
    def get_batch_size(self):
        raise NotImplementedError


def make_plan(version, compute, network):
    """A plan with the header of a real one: length, version, GPU."""
    body = b"\x12\x80\x01\x00\x10\x80\x01\x00\x07\x80\x01\x00" + struct.pack("<I", compute // 10)
    body += b"\x07\x80\x01\x00" + struct.pack("<I", compute % 10) + b"\x07\x80\x01\x00"
    body += json.dumps(network).encode()
    numbers = ([int(n) for n in version.split(".")] + [0, 0])[:4]
    return struct.pack("<4sIIIQ4B", b"ftrt", 0, 1, 0, 28 + len(body), *numbers) + body


class IHostMemory:
    def __init__(self, content):
        self._content = content
        self.nbytes = len(content)

    def __bytes__(self):
        return self._content


class Runtime:
    version = ""  # of the generation; set by offer()

    def __init__(self, logger):
        self._logger = logger
        self.DLA_core = -1
        self.num_DLA_cores = 0
        self.engine_host_code_allowed = False

    def deserialize_cuda_engine(self, serialized_engine):
        content = bytes(serialized_engine)
        if len(content) < 32 or content[:4] != b"ftrt":
            return self._refuse("Magic tag does not match")
        built = ".".join(str(n) for n in content[24:28])
        here = (self.version.split(".") + ["0", "0"])[:4]
        if built.split(".")[:3] != here[:3]:
            if self.version.startswith("8.2"):
                return self._refuse(
                    "Serialization assertion stdVersionRead == serializationVersion failed.Version tag does not match."
                    " Note: Current Version: 205, Serialized Engine Version: 213"
                )
            return self._refuse(
                "The engine plan file is not compatible with this version of TensorRT, expecting library version {}"
                " got {}, please rebuild.".format(".".join(here), built)
            )
        major, minor = struct.unpack("<I", content[40:44])[0], struct.unpack("<I", content[48:52])[0]
        here_compute = int(os.environ.get("STANDIN_COMPUTE", "87"))
        if major * 10 + minor != here_compute:
            return self._refuse(
                "The engine plan file is generated on an incompatible device, expecting compute {}.{} got compute"
                " {}.{}, please rebuild.".format(here_compute // 10, here_compute % 10, major, minor)
            )
        try:
            network = json.loads(content[56:].decode())
        except ValueError:
            return self._refuse("Assertion failed: the archive is damaged")
        if network.get("plugin"):
            return self._refuse("getPluginCreator could not find plugin: {} version: 1".format(network["plugin"]))
        return ICudaEngine(self._logger, network)

    def _refuse(self, message):
        self._logger.log(
            Severity.ERROR, "IRuntime::deserializeCudaEngine: Error Code 1: Internal Error (" + message + ")"
        )


class ICudaEngine:
    def __init__(self, logger, network):
        self._logger, self._network = logger, network
        self._tensors = network["tensors"]
        self._profiles = network.get("profiles") or [{}]
        self.num_io_tensors = len(self._tensors)
        self.num_bindings = len(self._tensors) * len(self._profiles)
        self.num_optimization_profiles = len(self._profiles)
        self.max_batch_size = network.get("max_batch", 1)
        self.has_implicit_batch_dimension = "max_batch" in network
        self.num_layers = 3

    def create_execution_context(self):
        need = self._network.get("activation_bytes", 0)
        if need > int(os.environ.get("STANDIN_MEMORY", str(1 << 30))):
            self._logger.log(Severity.ERROR, "Requested amount of GPU memory ({} bytes): out of memory".format(need))
            return None
        return IExecutionContext(self)

    def _by(self, name):
        found = [t for t in self._tensors if t["name"] == name]
        assert len(found) == 1, name
        return found[0]

    def get_tensor_name(self, index):
        return self._tensors[index]["name"]

    def get_tensor_mode(self, name):
        return TensorIOMode.INPUT if self._by(name)["input"] else TensorIOMode.OUTPUT

    def get_tensor_shape(self, name):
        return tuple(self._by(name)["shape"])

    def get_tensor_dtype(self, name):
        return DataType[self._by(name)["dtype"]]

    def get_tensor_location(self, name):
        return TensorLocation.HOST if self._by(name).get("host") else TensorLocation.DEVICE

    def get_tensor_vectorized_dim(self, name):
        return self._by(name).get("vectorized", -1)

    def get_tensor_profile_shape(self, name, profile_index):
        return [tuple(dims) for dims in self._profiles[profile_index][name]]

    def _at(self, index):
        assert 0 <= index < self.num_bindings, index
        return self._tensors[index % len(self._tensors)]

    def get_binding_name(self, index):
        profile = index // len(self._tensors)
        return self._at(index)["name"] + (" [profile {}]".format(profile) if profile else "")

    def binding_is_input(self, index):
        return self._at(index)["input"]

    def get_binding_shape(self, index):
        return tuple(self._at(index)["shape"])

    def get_binding_dtype(self, index):
        return DataType[self._at(index)["dtype"]]

    def get_binding_vectorized_dim(self, index):
        return self._at(index).get("vectorized", -1)

    def is_shape_binding(self, binding):
        return bool(self._at(binding).get("host"))

    def get_profile_shape(self, profile_index, binding):
        return [tuple(dims) for dims in self._profiles[profile_index][self._at(binding)["name"]]]


class IExecutionContext:
    def __init__(self, engine):
        self._engine = engine
        self._profile = 0
        self._shapes, self._addresses, self._allocators, self._kept = {}, {}, {}, []
        self.profiler = None

    def set_optimization_profile_async(self, profile_index, stream_handle):
        self._profile = profile_index
        return True

    def set_input_shape(self, name, shape):
        return self._set(name, shape)

    def _set(self, name, shape):
        least, _, most = self._engine._profiles[self._profile][name]
        if len(shape) != len(least) or not all(a <= n <= b for a, n, b in zip(least, shape, most)):
            self._engine._logger.log(Severity.ERROR, "Static dimension mismatch while setting input shape.")
            return False
        self._shapes[name] = tuple(shape)
        return True

    def set_binding_shape(self, binding, shape):
        assert binding // len(self._engine._tensors) == self._profile, "a binding of another profile"
        return self._set(self._engine._at(binding)["name"], shape)

    def set_shape_input(self, binding, shape):
        return all(isinstance(n, int) for n in shape)

    def get_tensor_shape(self, name):
        return self._shape(name)

    def _shape(self, name):
        tensor = self._engine._by(name)
        shape = tuple(tensor["shape"])
        if tensor.get("dds"):
            return tuple(-1 for _ in shape)
        first = self._engine._tensors[0]
        given = self._shapes.get(first["name"], tuple(first["shape"]))
        if tensor["input"]:
            return self._shapes.get(name, shape)
        return tuple(given[i] if size < 0 and i < len(given) else size for i, size in enumerate(shape))

    def get_binding_shape(self, binding):
        return self._shape(self._engine._at(binding)["name"])

    def get_max_output_size(self, name):
        first = self._engine._tensors[0]
        return int(np.prod(self._shapes.get(first["name"], first["shape"]))) * 4

    def set_tensor_address(self, name, memory):
        self._addresses[name] = memory
        return True

    def set_output_allocator(self, name, output_allocator):
        self._allocators[name] = output_allocator
        return True

    def execute_async_v3(self, stream_handle):
        return self._enqueue(stream_handle, dict(self._addresses), None)

    def execute_async_v2(self, bindings, stream_handle):
        return self._bound(bindings, stream_handle, None)

    def execute_async(self, batch_size=1, bindings=None, stream_handle=0):
        if batch_size > self._engine.max_batch_size:
            return False
        return self._bound(bindings, stream_handle, batch_size)

    def _bound(self, bindings, stream, batch):
        tensors = self._engine._tensors
        first = self._profile * len(tensors)
        assert len(bindings) == self._engine.num_bindings
        return self._enqueue(stream, {t["name"]: bindings[first + i] for i, t in enumerate(tensors)}, batch)

    def _enqueue(self, stream, addresses, batch):
        if self._engine._network.get("fails"):
            self._engine._logger.log(Severity.ERROR, "Cuda failure: an illegal memory access was encountered")
            return False
        allocators = self._allocators

        def work(_):
            self._compute(addresses, batch, allocators)

        function = _HOST_FN(work)
        self._kept = (self._kept + [function])[-8:]
        return _CUDART.cudaLaunchHostFunc(stream, function, None) == 0

    def _compute(self, addresses, batch, allocators):
        first = self._engine._tensors[0]
        shape = self._shape(first["name"]) if batch is None else (batch,) + tuple(first["shape"])
        x = _view(addresses[first["name"]], shape, first["dtype"]).astype(np.float32)
        if first["dtype"] == "BF16":
            x = (x.astype(np.uint32) << 16).view(np.float32)
        for tensor in self._engine._tensors:
            if tensor["input"]:
                continue
            y = 2 * x + 1
            if tensor.get("dds"):  # what is above 2: as many as there are
                y = y[y > 2].ravel()
                allocator = allocators[tensor["name"]]
                addresses[tensor["name"]] = allocator.reallocate_output(tensor["name"], None, y.nbytes, 256)
                allocator.notify_shape(tensor["name"], y.shape)
            if tensor["dtype"] == "BF16":
                y = (np.ascontiguousarray(y, np.float32).view(np.uint32) >> 16).astype(np.uint16)
            out = _view(addresses[tensor["name"]], y.shape, tensor["dtype"])
            out[...] = y
        if self.profiler is not None:
            for layer, ms in (("multiply", 0.3), ("add", 0.1)):
                self.profiler.report_layer_time(layer, ms)


def _view(address, shape, dtype):
    kind = np.dtype(NUMPY[dtype])
    size = int(np.prod(shape)) * kind.itemsize
    return np.frombuffer((ctypes.c_char * size).from_address(address), dtype=kind).reshape(shape)


class _Tensor:
    def __init__(self, name, shape):
        self.name, self.shape, self.dtype, self.is_shape_tensor = name, shape, DataType.FLOAT, False


class INetworkDefinition:
    """float32 x [-1, 4] to y [-1, 4]: the model that the tests export."""

    def __init__(self):
        self._x = _Tensor("x", (-1, 4))
        self.num_inputs = 1

    def get_input(self, index):
        return [self._x][index]


class ParserError:
    def desc(self):
        return "No importer registered for op: FancyOp"

    def node(self):
        return 3

    def code(self):
        return "UNSUPPORTED_NODE"

    def node_operator(self):
        return "FancyOp"


class OnnxParser:
    def __init__(self, network, logger):
        self.num_errors = 0

    def parse_from_file(self, model):
        with open(model, "rb") as file:
            self.num_errors = int(b"FancyOp" in file.read())
        return not self.num_errors

    def get_error(self, index):
        return ParserError()


class IOptimizationProfile:
    def __init__(self):
        self._shapes = {}

    def set_shape(self, input, min, opt, max):
        self._shapes[input] = [min, opt, max]


class ITimingCache:
    def __init__(self, content):
        self._content = content

    def serialize(self):
        return IHostMemory(self._content)


class IBuilderConfig:
    def __init__(self):
        self._flags, self._profiles, self._cache, self._pools = [], [], None, {}
        self.max_workspace_size, self.int8_calibrator = 0, None
        self.default_device_type, self.DLA_core = DeviceType.GPU, -1

    def set_flag(self, flag):
        self._flags.append(flag.name)

    def clear_flag(self, flag):
        self._flags.append("no " + flag.name)

    def set_memory_pool_limit(self, pool, pool_size):
        self._pools[pool.name] = pool_size

    def add_optimization_profile(self, profile):
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def set_calibration_profile(self, profile):
        return True

    def create_timing_cache(self, serialized_timing_cache):
        return ITimingCache(bytes(serialized_timing_cache) or self._own())

    @staticmethod
    def _own():
        return b"timings of compute " + os.environ.get("STANDIN_COMPUTE", "87").encode()

    def set_timing_cache(self, cache, ignore_mismatch):
        self._cache = cache
        return ignore_mismatch or bytes(cache.serialize()) == self._own()

    def get_timing_cache(self):
        return self._cache


class Builder:
    version = ""

    def __init__(self, logger):
        self._logger = logger
        self.num_DLA_cores = int(os.environ.get("STANDIN_DLA", "0"))

    def create_network(self, flags=0):
        assert self.version.startswith(("10", "11")) or flags == 1, "ONNX wants an explicit batch"
        return INetworkDefinition()

    def create_builder_config(self):
        return IBuilderConfig()

    def create_optimization_profile(self):
        return IOptimizationProfile()

    def build_serialized_network(self, network, config):
        if os.environ.get("STANDIN_BUILD") == "memory":
            self._logger.log(Severity.ERROR, "Tactic Device request: 512MB Available: 2MB. out of memory")
            return None
        if os.environ.get("STANDIN_BUILD") == "fails":
            self._logger.log(Severity.ERROR, "Could not find any implementation for node FancyOp.")
            return None
        if "INT8" in config._flags and config.int8_calibrator is not None:
            _calibrate(config.int8_calibrator)
        profiles = [{k: [list(d) for d in v] for k, v in p._shapes.items()} for p in config._profiles]
        tensors = [
            {"name": "x", "input": True, "shape": [-1, 4], "dtype": "FLOAT"},
            {"name": "y", "input": False, "shape": [-1, 4], "dtype": "FLOAT"},
        ]
        compute = int(os.environ.get("STANDIN_COMPUTE", "87"))
        workspace = config._pools.get("WORKSPACE") or getattr(config, "max_workspace_size", None)
        told = {"flags": config._flags, "workspace": workspace, "dla": config.DLA_core}
        return IHostMemory(make_plan(self.version, compute, dict(told, tensors=tensors, profiles=profiles)))


def _calibrate(calibrator):
    if calibrator.read_calibration_cache():
        return
    size, seen = calibrator.get_batch_size(), 0
    while True:
        pointers = calibrator.get_batch(["x"])
        if pointers is None:
            break
        seen += float(_view(pointers[0], (size, 4), "FLOAT").sum())
    calibrator.write_calibration_cache(memoryview("sum {:g}".format(seen).encode()))


#: What a generation does not have yet, or no longer.
_NAMED = {
    ICudaEngine: "get_tensor_name get_tensor_mode get_tensor_shape get_tensor_dtype get_tensor_location"
    " get_tensor_vectorized_dim get_tensor_profile_shape num_io_tensors",
    IExecutionContext: "set_input_shape get_tensor_shape get_max_output_size set_tensor_address set_output_allocator"
    " execute_async_v3",
}
_NUMBERED = {
    ICudaEngine: "get_binding_name binding_is_input get_binding_shape get_binding_dtype get_binding_vectorized_dim"
    " is_shape_binding get_profile_shape num_bindings max_batch_size",
    IExecutionContext: "set_binding_shape set_shape_input get_binding_shape execute_async_v2 execute_async",
}
_FLAGS = {
    "8.2": ["FP16", "INT8", "SPARSE_WEIGHTS", "TF32", "GPU_FALLBACK"],
    "8.6": ["FP16", "INT8", "SPARSE_WEIGHTS", "TF32", "GPU_FALLBACK", "FP8"],
    "10": ["FP16", "INT8", "BF16", "SPARSE_WEIGHTS", "TF32", "GPU_FALLBACK", "FP8"],
    "11": ["SPARSE_WEIGHTS", "TF32", "GPU_FALLBACK"],
}
CLASSES = (
    ILogger,
    IProfiler,
    IOutputAllocator,
    IInt8EntropyCalibrator2,
    Runtime,
    ICudaEngine,
    IExecutionContext,
    INetworkDefinition,
    OnnxParser,
    ParserError,
    IOptimizationProfile,
    ITimingCache,
    IBuilderConfig,
    Builder,
)


class _Absent:
    """An attribute that this generation's bindings do not have."""

    def __init__(self, name):
        self._name = name

    def __get__(self, instance, owner=None):
        raise AttributeError(self._name)

    def __set__(self, instance, value):
        pass  # the constructors above set everything


def offer(module, generation):
    """Fill a module with what this generation of the bindings has."""
    Runtime.version = Builder.version = VERSIONS[generation]
    absent = dict(_NAMED) if generation == "8.2" else {} if generation == "8.6" else dict(_NUMBERED)
    for owner, names in absent.items():
        for name in names.split():
            _hide(owner, name)
    if generation == "8.2":
        _hide(IBuilderConfig, "set_memory_pool_limit")
        for name in ("node_operator",):
            _hide(ParserError, name)
        _hide(Runtime, "engine_host_code_allowed")
    if generation == "8.6":
        _hide(ParserError, "node_operator")
    if generation in ("10", "11"):
        _hide(IBuilderConfig, "max_workspace_size")
    if generation == "11":
        _hide(ICudaEngine, "has_implicit_batch_dimension")
        _hide(IBuilderConfig, "int8_calibrator")
        _hide(IBuilderConfig, "set_calibration_profile")
    offered = {kind.__name__: kind for kind in CLASSES}
    if generation == "11":
        del offered["IInt8EntropyCalibrator2"]
    if generation != "8.2":
        offered.update(TensorIOMode=TensorIOMode, TensorLocation=TensorLocation, MemoryPoolType=MemoryPoolType)
    else:
        del offered["IOutputAllocator"]
    creation = ["STRONGLY_TYPED"] if generation == "11" else ["EXPLICIT_BATCH"]
    offered.update(
        BuilderFlag=_Printed("BuilderFlag", _FLAGS[generation]),
        NetworkDefinitionCreationFlag=_Printed("NetworkDefinitionCreationFlag", [(creation[0], 0)]),
        DataType=DataType,
        DeviceType=DeviceType,
        init_libnvinfer_plugins=lambda logger, namespace: True,
        __version__=VERSIONS[generation],
    )
    module.update(offered)


def _hide(owner, name):
    setattr(owner, name, _Absent(name))
