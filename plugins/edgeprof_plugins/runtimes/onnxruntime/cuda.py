"""ONNX Runtime on an NVIDIA GPU, with inputs and outputs bound to device memory, in a CUDA stream created by edgeprof.

An inference can therefore copy from and to pinned memory, be queued behind another, and be timed by CUDA events.

Python 3.6 grammar, numpy. Sources: onnxruntime.ai, CUDA and TensorRT execution providers (user_compute_stream,
enable_cuda_graph, trt_cuda_graph_enable) and "I/O binding"; onnxruntime_run_options_config_keys.h.
"""

import re
from typing import Any, Callable, Dict, List, Optional, Tuple

import numpy as np

from ..nvidia.cuda import Cuda, choose
from ..nvidia.driver import Driver, version_text
from ..nvidia.stream import Steps, Stream, Usage

#: Providers that compute in a CUDA stream and accept one.
PROVIDERS = ("CUDAExecutionProvider", "TensorrtExecutionProvider")
#: ONNX Runtime's name of the device whose memory is bound.
MEMORY = "cuda"
#: The first release that accepts a stream from Python, and the first in which captured graphs are surely asynchronous.
TAKES_STREAM, QUEUES_GRAPHS = (1, 18), (1, 28)
#: Options of providers that capture the computation as a CUDA graph.
GRAPH_OPTIONS = ("enable_cuda_graph", "trt_cuda_graph_enable")
#: Number of runs until a graph has been captured and replayed once.
CAPTURE_RUNS = 3


class Gpu:
    """One GPU, for one session.

    Args:
        ort: The module ``onnxruntime``.
        number: Number of the GPU.
        driver: The driver, as ``ask_driver`` returned it.
        graph: Whether the provider captures a CUDA graph.

    Raises:
        LoadError: there is no CUDA runtime library, or the driver is too old for it.
        CudaError: CUDA does not start.
    """

    def __init__(self, ort: Any, number: int, driver: Driver, graph: bool) -> None:
        self._ort, self._number, self._graph = ort, number, graph
        self._cuda: Cuda = choose(None, number, "auto", driver)
        self._usage = Usage(self._cuda)
        self._line = Stream(self._cuda)
        self._freeing: List[Callable[[], None]] = []
        self._session: Any = None
        #: Why there are no device times; None where there are.
        self.reason: Optional[str] = None
        if version_of(ort) < TAKES_STREAM:
            self.reason = "ONNX Runtime {} accepts no CUDA stream, {}.{} does".format(ort.__version__, *TAKES_STREAM)

    def settings(self) -> Dict[str, str]:
        """Return the options that make the provider compute in this stream."""
        return {} if self.reason else {"user_compute_stream": str(self._line.handle())}

    def attach(self, session: Any, provider: str) -> None:
        """Check that the session really computes in this stream; otherwise the measured times would be meaningless."""
        self._session = session
        taken = session.get_provider_options().get(provider, {}).get("user_compute_stream")
        if self.reason is None and taken != str(self._line.handle()):
            self.reason = "{} did not accept the CUDA stream".format(provider)

    def facts(self) -> Dict[str, str]:
        facts = {
            "cuda": "{} (CUDA {})".format(self._cuda.name, version_text(self._cuda.runtime_version())),
            "cuda_graph": "yes, of the compute part" if self._graph else "no",
        }
        if self.reason:
            facts["device_times"] = "none: " + self.reason
        else:
            facts["transfers"] = "inputs and outputs are copied from and to pinned memory in every inference"
        return facts

    @property
    def queues(self) -> bool:
        """Whether a run may return before it is complete."""
        return not self._graph or version_of(self._ort) >= QUEUES_GRAPHS

    def run_options(self) -> Any:
        """Return options for runs with the caller's arrays, because a captured graph uses its own memory."""
        if not self._graph:
            return None
        options = self._ort.RunOptions()
        options.add_run_config_entry("gpu_graph_id", "-1")
        return options

    def steps(self, feeds: Dict[str, Any], outputs: Dict[str, Any]) -> Optional[Callable[[], Steps]]:
        """Bind memory for these feeds and for outputs of these shapes; None if that is not possible (``reason``)."""
        if self.reason is not None:
            return None
        strange = [
            name for name, array in list(feeds.items()) + list(outputs.items()) if array.dtype.kind not in "biuf"
        ]
        if strange:
            self.reason = "{!r} does not contain numbers, and cannot be copied".format(strange[0])
            return None
        binding = self._session.io_binding()
        self._freeing.append(binding.clear_binding_outputs)
        self._freeing.append(binding.clear_binding_inputs)
        ins, outs = [], []
        for name, array in feeds.items():
            whole = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            host, address = self._memory(whole.nbytes)
            host[:] = whole
            binding.bind_input(name, MEMORY, self._number, array.dtype.type, list(array.shape), address)
            ins.append(self._cuda.copy_in(address, host, self._line.stream))
        for name, array in outputs.items():
            host, address = self._memory(array.nbytes)
            binding.bind_output(name, MEMORY, self._number, array.dtype.type, list(array.shape), address)
            outs.append(self._cuda.copy_out(host, address, self._line.stream))
        options = self._ort.RunOptions()
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        run = self._session.run_with_iobinding

        def enqueue() -> None:
            run(binding, options)

        steps: Steps = (ins, enqueue, outs)
        for _ in range(CAPTURE_RUNS if self._graph else 1):
            self._line.waiting(lambda: steps)()
        self._usage.most()
        return lambda: steps

    def waiting(self, steps: Callable[[], Steps]) -> Callable[[], None]:
        return self._line.waiting(steps)

    def queued(self, steps: Callable[[], Steps]) -> Callable[[], None]:
        return self._line.queued(steps)

    def timed(self, steps: Callable[[], Steps]) -> Callable[[], Dict[str, float]]:
        call = self._line.timed(steps)
        if self.queues:
            return call

        def without() -> Dict[str, float]:
            parts = call()
            del parts["enqueue"]  # it includes the wait for the computation
            return parts

        return without

    def wait(self) -> None:
        self._line.wait()

    def most(self) -> Optional[int]:
        return self._usage.most() or None

    def release(self) -> None:
        """Release the bound memory; the session, and then this object, must be closed afterwards."""
        self._line.wait()
        for free in self._freeing:
            free()
        self._freeing, self._session = [], None

    def close(self) -> None:
        self._line.close()

    def _memory(self, size: int) -> Tuple[Any, int]:
        """Allocate pinned host memory and the same size on the device; return the host bytes and the device address."""
        host, address = self._cuda.host(max(size, 1)), self._cuda.malloc(max(size, 1))
        self._freeing.append(lambda: self._cuda.host_free(host))
        self._freeing.append(lambda: self._cuda.free(address))
        return host[:size], address


def captures(options: Dict[str, str]) -> bool:
    """Return whether these provider options request a CUDA graph."""
    return any(options.get(key, "0") in ("1", "True", "true") for key in GRAPH_OPTIONS)


def version_of(ort: Any) -> Tuple[int, ...]:
    """Return the version of ONNX Runtime as numbers: "1.18.0" is (1, 18)."""
    return tuple(int(number) for number in re.findall(r"\d+", str(ort.__version__))[:2])
