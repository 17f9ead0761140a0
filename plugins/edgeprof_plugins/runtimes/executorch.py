"""ExecuTorch: .pte programs, by its Python bindings, which need PyTorch although the programs themselves do not.

Devices: ``cpu``. The backend that computes (XNNPACK, Core ML, QNN …) was chosen when the program was exported.
Options: ``method`` (forward).
"""

import contextlib
import os
import re
import time
import warnings
from typing import Any, Callable, Dict, List, Optional

import numpy as np

from edgeprof import hookimpl
from edgeprof.worker.runtime import (
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

from . import smallest

REMEDY = install_command("executorch", "executorch")
#: torch's ScalarType → numpy's name.
_NAMES = "uint8 int8 int16 int32 int64 float16 float32 float64 - - - bool - - - bfloat16"
DTYPES = {number: name for number, name in enumerate(_NAMES.split()) if name != "-"}
#: Libraries of operators that write only into their outputs, unless their name ends with an underscore.
_FUNCTIONAL = (b"aten", b"dim_order_ops", b"executorch_prim", b"quantized_decomposed")


class ExecuTorch(Runtime):
    name = "executorch"
    formats = ("executorch",)
    libraries = ("executorch",)
    smallest_model = smallest.EXECUTORCH
    crash_remedy = "The program may have been made for another release of ExecuTorch than the installed one."

    def availability(self) -> Availability:
        version = library_version("executorch")
        return Availability(version, None if version else "ExecuTorch is not installed", None if version else REMEDY)

    def devices(self) -> List[str]:
        return ["cpu"]

    def import_library(self) -> None:
        _library()

    def load(self, path: str, options: LoadOptions) -> Session:
        library = _library()
        if not os.path.isfile(path):
            raise LoadError("{} does not exist".format(path))
        if options.device != "cpu":
            raise LoadError(
                "ExecuTorch has no device {!r}: a program's backend is chosen when it is exported".format(
                    options.device
                ),
                "Leave --device out.",
            )
        for key, value in options.options.items():
            if key != "method":
                raise LoadError("ExecuTorch has no option {}={}".format(key, value), "It takes method.")
        _check_whole(path)
        try:
            module = library._load_for_executorch(path, enable_etdump=False)  # noqa: SLF001 - its Python interface
            module.method_names()
        except Exception as error:
            raise _load_error(path, error) from None
        return ExecuTorchSession(library, module, path, options)


class ExecuTorchSession(Session):
    """One program's method.

    Args:
        library: The module of ExecuTorch's bindings.
        module: The loaded program.
        path: Path of the program, for the profiler.
        options: As given to ``Runtime.load``.
    """

    def __init__(self, library: Any, module: Any, path: str, options: LoadOptions) -> None:
        import torch

        self._library, self._module, self._path, self._torch = library, module, path, torch
        self._may_keep_state = _may_keep_state(path)
        self._method = options.options.get("method", "forward")
        names = list(module.method_names())
        if self._method not in names:
            raise LoadError("{} has no method {}".format(os.path.basename(path), self._method), "It has: " + str(names))
        about = module.method_meta(self._method)
        if options.threads:
            library._unsafe_reset_threadpool(options.threads)  # noqa: SLF001 - nothing else sets its threads
        self.inputs = tuple(
            _spec("input_{}".format(number), about.input_tensor_meta(number)) for number in range(about.num_inputs())
        )
        self.outputs = tuple(
            _spec("output_{}".format(number), about.output_tensor_meta(number)) for number in range(about.num_outputs())
        )
        if options.batch != 1 and any(spec.shape[:1] != (options.batch,) for spec in self.inputs):
            raise LoadError("the batch of an ExecuTorch program is fixed", "Leave --batch out, or export it again.")
        self.facts = {"timed": "forward() of tensors that are made once, before the windows", "method": self._method}
        with contextlib.suppress(Exception):
            self.facts["threads"] = str(library._threadpool_get_thread_count())  # noqa: SLF001 - see above

    def run(self, feeds: Dict[str, Any]) -> Dict[str, Any]:
        values = self._module.run_method(self._method, self._tensors(feeds))
        return {
            spec.name: np.array(value.float().numpy() if spec.dtype == "bfloat16" else value.numpy())
            for spec, value in zip(self.outputs, values)
        }

    def reset(self) -> Optional[str]:
        if self._may_keep_state:  # nothing but loading the program again restores its buffers
            self._module = self._library._load_for_executorch(self._path, enable_etdump=False)  # noqa: SLF001 - see load
        return None

    def bind(self, feeds: Dict[str, Any]) -> Callable[[], Any]:
        run, method, tensors = self._module.run_method, self._method, self._tensors(feeds)
        return lambda: run(method, tensors)

    def profile_operators(self, feeds: Dict[str, Any], calls: int) -> Optional[OperatorProfile]:
        """Profile by ETDump, which must be enabled when a program is loaded; only some backends report operators.

        Raises:
            LoadError: this build of ExecuTorch writes no ETDump.
        """
        import tempfile

        tensors = self._tensors(feeds)
        module = self._library._load_for_executorch(self._path, enable_etdump=True)  # noqa: SLF001 - see load
        start = time.monotonic()
        for _ in range(calls):
            module.run_method(self._method, tensors)
        seconds = (time.monotonic() - start) / calls
        with tempfile.TemporaryDirectory(prefix="edgeprof-profile-") as folder:
            file = os.path.join(folder, "program.etdp")
            try:
                module.write_etdump_result_to_file(file)
                from executorch.devtools import Inspector

                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    inspector = Inspector(etdump_path=file)
            except Exception as error:
                raise LoadError("ExecuTorch's profile cannot be read: {}".format(_first_line(error))) from None
        operators = []
        for block in inspector.event_blocks:
            for event in block.events:
                if event.perf_data is not None and not re.match(
                    r"(Method::|Program::|OPERATOR_CALL|DELEGATE)", event.name
                ):
                    took_s = float(np.sum(event.perf_data.raw)) * 1e-3 / calls
                    operators.append(OperatorTime(event.name, str(event.name).partition(" ")[0], took_s))
        return OperatorProfile(operators, seconds)

    def close(self) -> None:
        self._module = None

    def _tensors(self, feeds: Dict[str, Any]) -> List[Any]:
        tensors = [self._torch.from_numpy(np.array(feeds[spec.name])) for spec in self.inputs]
        return [t.to(self._torch.bfloat16) if s.dtype == "bfloat16" else t for s, t in zip(self.inputs, tensors)]


def _spec(name: str, about: Any) -> TensorSpec:
    dtype = DTYPES.get(int(about.dtype()))
    if dtype is None:
        raise LoadError("{} has a dtype that cannot be fed ({})".format(name, about.dtype()))
    return TensorSpec(name, tuple(int(size) for size in about.sizes()), dtype, None)


def _check_whole(path: str) -> None:
    """Refuse a file that is shorter than its extended header says.

    The header (executorch/schema/extended_header.h) has a mark, its own length, the size of the program, the offset of
    the segments and, in newer files, the size of the segments.

    Raises:
        LoadError: the file is cut off, or is not an ExecuTorch program.
    """
    size, head, name = os.path.getsize(path), _head(path), os.path.basename(path)
    if head[4:6] != b"ET":
        raise LoadError("{} is not an ExecuTorch program".format(name), "Export it again.")
    if head[8:12] == b"eh00":
        length, program = (int.from_bytes(head[at : at + count], "little") for at, count in ((12, 4), (16, 8)))
        base, segments = (int.from_bytes(head[at : at + 8], "little") for at in (24, 32))
        if size < max(program, base + segments if base and length >= 32 else 0):
            raise LoadError("{} is cut off".format(name), "Copy or export it again.")


def _head(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(40)


def _may_keep_state(path: str) -> bool:
    """Whether a program may change its own buffers, judged by the names of its operators and backends.

    ``aten::copy_`` writes a buffer back; operators of other libraries (``llama::update_cache``) and backends other than
    XNNPACK may hold buffers that cannot be seen here. The names are NUL-terminated strings in the program, which comes
    before the segments with the weights.
    """
    head = _head(path)
    size = int.from_bytes(head[16:24], "little") if head[8:12] == b"eh00" else -1
    with open(path, "rb") as file:
        program = file.read(size)
    operators = re.findall(rb"(\w+)::(\w+)\0", program)
    backends = set(re.findall(rb"(\w+Backend)\0", program))
    return bool(backends - {b"XnnpackBackend"}) or any(
        library not in _FUNCTIONAL or name.endswith(b"_") for library, name in operators
    )


def _library() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from executorch.extension.pybindings import portable_lib
    except Exception as error:
        remedy = "pip install torch" if "torch" in str(error) else REMEDY
        raise LoadError("ExecuTorch cannot be imported: {}".format(_first_line(error)), remedy) from None
    return portable_lib


def _load_error(path: str, error: Exception) -> LoadError:
    name, text = os.path.basename(path), _first_line(error)
    code = re.search(r"0x([0-9a-fA-F]+)", text)
    if (code and int(code.group(1), 16) == 0x23) or "ize is too small" in text:
        return LoadError("{} is cut off or damaged: {}".format(name, text), "Copy or export it again.")
    return LoadError(
        "ExecuTorch does not load {}: {}".format(name, text),
        "It may be of another release, or need a backend or operators that this build lacks: export it again.",
    )


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__


@hookimpl
def register_runtimes(register: Callable[..., None]) -> None:
    register("executorch", ExecuTorch)
