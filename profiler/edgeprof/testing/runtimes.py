"""The conformance test of runtimes: it checks the contract of edgeprof.worker.runtime on a model."""

from __future__ import annotations

import gc
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

from edgeprof.testing.require import require, require_error
from edgeprof.worker.inputs import check_feeds, describe_input, is_batch, own_feeds
from edgeprof.worker.runtime import ANY_DTYPE, ANY_SHAPE, LoadError, LoadOptions, Runtime, Session, TensorSpec
from edgeprof.worker.workload import Workload, check_workloads

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

#: Growth of memory that is allowed, since allocators keep some; a leak of a small tensor per inference exceeds it.
SLACK_BYTES = 16 << 20
#: Inferences and load-close cycles over which memory must not grow, and time after which fewer are enough (s).
RUNS, CYCLES, BUDGET_S = 10_000, 6, 3.0
#: Largest difference of a token's log-likelihood from a reference in float (nats). A wrong kernel differs by far more.
LIKELIHOOD_SLACK = 0.002


def check_runtime(
    runtime: Runtime,
    model: str | Path,
    *,
    feeds: Mapping[str, Any] | None = None,
    expected: Mapping[str, Any] | None = None,
    likelihoods: tuple[Sequence[int], Sequence[float]] | None = None,
    options: LoadOptions | None = None,
    rtol: float = 1e-3,
    atol: float = 1e-4,
) -> None:
    """Check a runtime against its contract with one model.

    The runtime must load the model, declare inputs and outputs, and give the right outputs (twice, and through
    ``bind``). Its workloads can be called repeatedly and in turns, and arrays that it has returned do not change. It
    refuses unknown devices and options, and missing, empty, truncated and damaged files, with a LoadError of one
    sentence; it refuses or converts a wrong dtype. It runs a batch if the first dimension is open, releases memory when
    it is closed, and does not grow while it runs. A language model reports the time of each token of a request. The
    test takes a few seconds. The damaged files are loaded in this process, so a library that crashes on them ends the
    test.

    Args:
        runtime: The object that the plugin's factory returns.
        model: A model file, or ``FILE.py:attribute`` or ``module:attribute``.
        feeds: Input name → array; None: the model's own examples or random data.
        expected: Output name → array, the right answer for ``feeds``, from the library that trained the model.
        likelihoods: For a language model: the tokens of a text, and the log-likelihoods of the last of them (nats) by
            another implementation, as ``Session.log_likelihoods`` returns them. Each must agree within 0.002.
        options: Options for loading; None: the runtime's default device and number of threads.
        rtol: Relative tolerance of ``expected``.
        atol: Absolute tolerance of ``expected``.

    Raises:
        AssertionError: the runtime does not conform; the message says why in one sentence.
    """
    target = str(model)
    options = options or LoadOptions(device=runtime.default_device, threads=None, batch=1, shapes={}, options={})
    _check_metadata(runtime)
    session = runtime.load(target, options)
    try:
        _check_specs(session)
        data = check_feeds(session.inputs, dict(feeds) if feeds is not None else own_feeds(session, options, seed=0))
        reference = _check_outputs(session, data, expected, rtol, atol)
        _check_copies(session, data)
        _check_bound(session, data, reference, rtol, atol)
        _check_workloads(session, data, reference, rtol, atol)
        _check_dtype(session, data, reference, rtol, atol)
        if session.language() is not None:
            _check_requests(session, data)
        if likelihoods is not None:
            _check_likelihoods(session, *likelihoods)
            _require_same("run() after a text", session.run(data), reference, rtol, atol)
        _check_growth("the runtime", session, data)
    finally:
        session.close()
        session.close()  # must be safe twice
    _check_batch(runtime, target, options, session.inputs, given=feeds is not None)
    _check_refusals(runtime, target, options)
    _check_memory_back(runtime, target, options)


def _check_metadata(runtime: Runtime) -> None:
    require(runtime.name and runtime.name.split() == [runtime.name], "the runtime's name is empty or has spaces")
    require(runtime.formats, f"{runtime.name} declares no formats")
    started = time.perf_counter()
    available = runtime.availability()
    took = time.perf_counter() - started
    require(took < 5, f"availability() takes {took:.1f} s: it must find the library without importing it")
    require(available.reason is None, f"{runtime.name} is not available here: {available.reason} ({available.remedy})")
    require(available.version, f"{runtime.name} is available but reports no version")
    devices = runtime.devices()
    require(devices, f"{runtime.name} lists no devices")
    require("cpu" not in devices or devices[0] == "cpu", "devices() does not list cpu first")


def _check_specs(session: Session) -> None:
    for kind, specs in (("input", session.inputs), ("output", session.outputs)):
        names = [spec.name for spec in specs]
        require(len(set(names)) == len(names), f"two {kind}s have the same name: {names}")
        for spec in specs:
            require(isinstance(spec.shape, tuple), f"the shape of the {kind} {spec.name!r} is no tuple")
            require(
                all(d is None or isinstance(d, (int, str)) for d in spec.shape),
                f"the {kind} {describe_input(spec)} has a dimension that is no int, str or None",
            )
            require(
                spec.dtype in (ANY_DTYPE, "bfloat16") or np.dtype(spec.dtype).name == spec.dtype,
                f"the dtype {spec.dtype!r} of the {kind} {spec.name!r} is no name of numpy's",
            )
    facts: dict[Any, Any] = dict(session.facts)
    for key, value in facts.items():
        require(isinstance(key, str), f"the fact {key!r} is not named by a text")
        require(isinstance(value, str), f"the fact {key} is {value!r}, not a text")


def _check_outputs(
    session: Session, data: dict[str, Any], expected: Mapping[str, Any] | None, rtol: float, atol: float
) -> dict[str, Any]:
    outputs = session.run(data)
    require(isinstance(outputs, dict), f"run() returns {type(outputs).__name__}, not a dict of arrays")
    for name, array in outputs.items():
        require(isinstance(array, np.ndarray), f"the output {name!r} is {type(array).__name__}, not a numpy array")
    if session.outputs:
        declared = {spec.name: spec for spec in session.outputs}
        require(
            set(declared) == set(outputs), f"outputs are declared as {sorted(declared)} but come as {sorted(outputs)}"
        )
        for name, array in outputs.items():
            _require_fits(declared[name], array)
    if expected is not None:
        _require_same("run()", outputs, expected, rtol, atol)
    return outputs


def _require_fits(spec: TensorSpec, array: Any) -> None:
    if spec.dtype not in (ANY_DTYPE, "object", "bfloat16"):
        require(
            array.dtype.name == spec.dtype, f"the output {spec.name!r} is {array.dtype.name}, declared {spec.dtype}"
        )
    if tuple(spec.shape) == ANY_SHAPE or spec.dtype == "object":
        return
    fits = len(spec.shape) == array.ndim and all(
        not isinstance(dim, int) or dim in (-1, size) for dim, size in zip(spec.shape, array.shape, strict=False)
    )
    require(fits, f"the output {describe_input(spec)} comes with the shape {list(array.shape)}")


def _require_same(what: str, got: Mapping[str, Any], wanted: Mapping[str, Any], rtol: float, atol: float) -> None:
    for name, array in wanted.items():
        require(name in got, f"{what} gives no output {name!r}, only {sorted(got)}")
        result, right = np.asarray(got[name]), np.asarray(array)
        require(result.shape == right.shape, f"{what}: the shape of {name!r} is {result.shape}, not {right.shape}")
        if right.dtype.kind not in "fc":
            wrong = int(np.count_nonzero(result != right))
            require(not wrong, f"{what}: {wrong} of {right.size} values of {name!r} differ from the reference")
            continue
        same = np.allclose(result, right, rtol=rtol, atol=atol, equal_nan=True)
        worst = 0.0 if same else float(np.nanmax(np.abs(result.astype(float) - right)))
        require(same, f"{what}: {name!r} differs from the reference by up to {worst:.3g}")


def _check_copies(session: Session, data: dict[str, Any]) -> None:
    first = session.run(data)
    first_copies = {name: array.copy() for name, array in first.items()}
    other = {name: _changed_array(array) for name, array in data.items()}
    try:
        session.run(other)
    except Exception:  # noqa: BLE001 - a model may refuse these values; arrays that were returned must still be unchanged
        session.run(data)
    for name, array in first.items():
        same = np.array_equal(array, first_copies[name], equal_nan=array.dtype.kind in "fc")
        require(same, f"the output {name!r} of an earlier run() changes with a later one: it must be a copy")


def _changed_array(array: Any) -> Any:
    return array if array.dtype.kind in "OSU" else np.zeros_like(array)


def _check_bound(
    session: Session, data: dict[str, Any], reference: Mapping[str, Any], rtol: float, atol: float
) -> None:
    call = session.bind(data)
    require(callable(call), "bind() returns nothing that can be called")
    for _ in range(3):
        call()
    session.synchronize()
    if _is_repeatable(session, data, reference):
        _require_same("run() after bind()", session.run(data), reference, rtol, atol)


def _check_workloads(
    session: Session, data: dict[str, Any], reference: Mapping[str, Any], rtol: float, atol: float
) -> None:
    """Check that each workload is named, counted and callable, also directly after another workload."""
    workloads = [Workload(*workload) for workload in session.workloads()]
    wrong = check_workloads(workloads)
    require(wrong is None, str(wrong))
    calls = {workload.name: session.bind_workload(workload.name, data) for workload in workloads}
    for name, call in calls.items():
        require(callable(call), f"bind_workload({name!r}) returns nothing that can be called")
    for name in [*calls, *reversed(calls), *calls]:
        _call_workload(name, calls[name])
    session.synchronize()
    if len(workloads) > 1:
        for name, call in calls.items():
            _check_call_growth(f"the workload {name!r}", call)
    if _is_repeatable(session, data, reference):
        _require_same("run() after the workloads", session.run(data), reference, rtol, atol)


def _call_workload(name: str, call: Callable[[], Any]) -> None:
    try:
        call()
    except Exception as error:  # noqa: BLE001 - whatever it raises, the sentence says which workload it was
        require(False, f"the workload {name!r} cannot be called again and again: {error}")


def _is_repeatable(session: Session, data: dict[str, Any], reference: Mapping[str, Any]) -> bool:
    """Whether the model gives equal outputs for equal inputs; one with random numbers or a state need not."""
    again = session.run(data)
    return all(name in again and np.array_equal(again[name], array) for name, array in reference.items())


def _check_dtype(
    session: Session, data: dict[str, Any], reference: Mapping[str, Any], rtol: float, atol: float
) -> None:
    for spec in session.inputs:
        if spec.dtype in (ANY_DTYPE, "object") or spec.name not in data:
            continue
        kind = "float64" if spec.dtype != "float64" else "float32"
        wrong = {**data, spec.name: data[spec.name].astype(kind)}
        _require_refused(session, f"{kind} for the input {describe_input(spec)}", wrong)
        try:
            outputs = session.run(wrong)
        except Exception:  # noqa: BLE001 - refusing is right, by whatever error the library has
            outputs = {}
        if outputs:
            _require_same(f"run() takes {kind} for {spec.name!r}, but", outputs, reference, rtol, atol)


def _require_refused(session: Session, what: str, feeds: dict[str, Any]) -> None:
    require_error(LoadError, what, lambda: check_feeds(session.inputs, feeds))


def _check_requests(session: Session, data: dict[str, Any]) -> None:
    """Check that a request of a language model reports the time of each of its tokens, and its phases report none."""
    language = session.language() or {}
    missing = {"prompt_tokens", "generated_tokens", "depth", "context", "kv_type", "method"} - set(language)
    require(not missing, f"language() lacks {', '.join(sorted(missing))}")
    for workload in session.workloads():
        call = session.bind_workload(workload.name, data)
        session.take_token_times()
        call()
        counts, seconds = session.take_token_times()
        if workload.name != "request":
            require(not counts, f"the workload {workload.name!r} reports times of tokens, which belong to requests")
            continue
        require(
            set(counts) == {language["generated_tokens"]} and len(seconds) == sum(counts),
            f"a request for {language['generated_tokens']} tokens reports the times of {len(seconds)}",
        )
        require(min(np.diff(seconds, prepend=0.0)) >= 0, "the tokens of a request do not arrive in their order")


def _check_likelihoods(session: Session, tokens: Sequence[int], reference: Sequence[float]) -> None:
    """Check a text twice, since the first time must leave nothing behind."""
    for _ in range(2):
        values = session.log_likelihoods(tokens, len(tokens) - len(reference))
        require(len(values) == len(reference), f"log_likelihoods() returns {len(values)} numbers, not {len(reference)}")
        worst = float(np.abs(np.subtract(values, reference)).max())
        require(
            worst < LIKELIHOOD_SLACK,
            f"the log-likelihood of a token differs from the reference by {worst:.3g}, more than {LIKELIHOOD_SLACK}",
        )


def _check_growth(what: str, session: Session, data: dict[str, Any]) -> None:
    for call in (session.bind(data), lambda: session.run(data)):
        _check_call_growth(what, call)


def _check_call_growth(what: str, call: Callable[[], Any]) -> None:
    _repeat_call(call, RUNS // 20)
    before = _resident_bytes()
    done = _repeat_call(call, RUNS)
    grown = _resident_bytes() - before
    require(grown < SLACK_BYTES, f"{what} grew by {grown >> 20} MiB in {done} calls")


def _repeat_call(call: Callable[[], Any], times: int) -> int:
    end = time.monotonic() + BUDGET_S / 4
    for done in range(1, times + 1):
        call()
        if time.monotonic() > end:
            return done
    return times


def _check_batch(
    runtime: Runtime, target: str, options: LoadOptions, inputs: Sequence[TensorSpec], *, given: bool
) -> None:
    """Check that a model with an open dimension of samples runs three samples at once."""
    batched = [s for s in inputs if tuple(s.shape) != ANY_SHAPE and any(is_batch(d, i) for i, d in enumerate(s.shape))]
    others = any(tuple(s.shape) == ANY_SHAPE for s in inputs)
    if not batched or others or (given and len(batched) != len(inputs)):
        return
    three = options._replace(batch=3)
    session = runtime.load(target, three)
    try:
        try:
            data = own_feeds(session, three, seed=1)
        except LoadError:
            return  # further dimensions are open, which only --input can give
        outputs = session.run(check_feeds(session.inputs, data))
        session.bind(data)()
        for spec in session.outputs:
            if spec.shape and is_batch(spec.shape[0], 0):
                size = outputs[spec.name].shape[0]
                require(size == 3, f"a batch of 3 gives an output {spec.name!r} of {size}")
    finally:
        session.close()


def _check_refusals(runtime: Runtime, target: str, options: LoadOptions) -> None:
    def load(path: str, opts: LoadOptions) -> None:
        runtime.load(path, opts).close()

    nonsense = options._replace(options={**options.options, "no-such-option": "1"})
    require_error(LoadError, "an option that does not exist", lambda: load(target, nonsense))
    nowhere = options._replace(device="no-such-device")
    require_error(LoadError, "a device that does not exist", lambda: load(target, nowhere))
    path = Path(target)
    if not path.is_file():
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        require_error(LoadError, "a file that does not exist", lambda: load(str(copy), options))
        shutil.copyfile(path, copy)
        content = path.read_bytes()
        for what, damaged in (
            ("an empty file", b""),
            ("a truncated file", content[: len(content) // 2]),
            ("a file of other bytes", b"\x00\xff" * 512),
        ):
            copy.write_bytes(damaged)
            require_error(LoadError, what, lambda: load(str(copy), options))


def _check_memory_back(runtime: Runtime, target: str, options: LoadOptions) -> None:
    def cycle() -> None:
        session = runtime.load(target, options)
        session.run(check_feeds(session.inputs, data))
        session.close()

    first = runtime.load(target, options)
    try:
        data = own_feeds(first, options, seed=0)
    except LoadError:
        return  # without --input there is nothing to feed it
    finally:
        first.close()
    for _ in range(2):
        cycle()
    gc.collect()
    before = _resident_bytes()
    for _ in range(CYCLES):
        cycle()
    gc.collect()
    grown = _resident_bytes() - before
    size = Path(target).stat().st_size if Path(target).is_file() else 0
    # Half of the growth that there would be if every cycle kept its weights.
    allowed = max(SLACK_BYTES, CYCLES * size // 2)
    require(
        grown < allowed, f"{CYCLES} times load and close leave {grown >> 20} MiB: close() does not give memory back"
    )


def _resident_bytes() -> int:
    return int(psutil.Process().memory_info().rss)
