"""ONNX Runtime on an NVIDIA GPU: inputs and outputs bound to device memory, in a CUDA stream of ours.

So an inference copies from and to pinned memory, can be queued behind another, and is timed by CUDA events.

Python 3.6 grammar, numpy. Sources: onnxruntime.ai, CUDA and TensorRT execution providers (user_compute_stream,
enable_cuda_graph, trt_cuda_graph_enable) and "I/O binding"; onnxruntime_run_options_config_keys.h.
"""

import re
from typing import Any, Callable, Dict, List, Optional, Tuple

import numpy as np

from ..nvidia.cuda import Cuda, choose
from ..nvidia.driver import Driver, version_text
from ..nvidia.stream import Steps, Stream, Usage

#: Providers that compute in a CUDA stream, and take one.
PROVIDERS = ("CUDAExecutionProvider", "TensorrtExecutionProvider")
#: What ONNX Runtime calls the device whose memory is bound.
MEMORY = "cuda"
#: The first that takes a stream from Python; the first of which a captured graph is left asynchronous for sure.
TAKES_STREAM, QUEUES_GRAPHS = (1, 18), (1, 28)
#: Options of providers that capture the computation as a CUDA graph.
GRAPH_OPTIONS = ("enable_cuda_graph", "trt_cuda_graph_enable")
#: Runs until a graph is captured and replayed once.
CAPTURE_RUNS = 3


class Gpu:
    """One GPU, for one session.

    Args:
        ort: The module ``onnxruntime``.
        number: Of the GPU.
        driver: What ``ask_driver`` found.
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
        #: Why there are no times of the device; None: there are.
        self.reason: Optional[str] = None
        if version_of(ort) < TAKES_STREAM:
            self.reason = "ONNX Runtime {} takes no CUDA stream, {}.{} does".format(ort.__version__, *TAKES_STREAM)

    def settings(self) -> Dict[str, str]:
        """The provider's option that makes it compute in this stream."""
        return {} if self.reason else {"user_compute_stream": str(self._line.handle())}

    def attach(self, session: Any, provider: str) -> None:
        """Look whether the session really computes in this stream: times of another one would mean nothing."""
        self._session = session
        taken = session.get_provider_options().get(provider, {}).get("user_compute_stream")
        if self.reason is None and taken != str(self._line.handle()):
            self.reason = "{} did not take the CUDA stream".format(provider)

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
        """Whether a run comes back before it is done."""
        return not self._graph or version_of(self._ort) >= QUEUES_GRAPHS

    def run_options(self) -> Any:
        """For runs with arrays of the caller's: a captured graph reads and writes its own."""
        if not self._graph:
            return None
        options = self._ort.RunOptions()
        options.add_run_config_entry("gpu_graph_id", "-1")
        return options

    def steps(self, feeds: Dict[str, Any], outputs: Dict[str, Any]) -> Optional[Callable[[], Steps]]:
        """Bind memory for these feeds and for outputs of these shapes; None where that cannot be done (``reason``)."""
        if self.reason is not None:
            return None
        strange = [
            name for name, array in list(feeds.items()) + list(outputs.items()) if array.dtype.kind not in "biuf"
        ]
        if strange:
            self.reason = "{!r} has no numbers that can be copied".format(strange[0])
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
            del parts["enqueue"]  # it waited for the computation too
            return parts

        return without

    def wait(self) -> None:
        self._line.wait()

    def most(self) -> Optional[int]:
        return self._usage.most() or None

    def release(self) -> None:
        """Give the bound memory back; the session and then ``close`` come after it."""
        self._line.wait()
        for free in self._freeing:
            free()
        self._freeing, self._session = [], None

    def close(self) -> None:
        self._line.close()

    def _memory(self, size: int) -> Tuple[Any, int]:
        """Pinned memory of the host as bytes, and the address of as much on the device."""
        host, address = self._cuda.host(max(size, 1)), self._cuda.malloc(max(size, 1))
        self._freeing.append(lambda: self._cuda.host_free(host))
        self._freeing.append(lambda: self._cuda.free(address))
        return host[:size], address


def captures(options: Dict[str, str]) -> bool:
    """Whether these options of a provider ask for a CUDA graph."""
    return any(options.get(key, "0") in ("1", "True", "true") for key in GRAPH_OPTIONS)


def version_of(ort: Any) -> Tuple[int, ...]:
    """(1, 18) of "1.18.0"."""
    return tuple(int(number) for number in re.findall(r"\d+", str(ort.__version__))[:2])
