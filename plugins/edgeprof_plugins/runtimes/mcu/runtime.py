"""Models on a microcontroller, by MLPerf Tiny's serial protocol: ``mcu:/dev/ttyACM0`` or ``mcu:/dev/ttyUSB0@9600``.

The device runs a window by itself (``infer N 0``) and reports its beginning and end; no window contains a transfer of
data. Its latency is the mean by its own clock, which is checked against this machine's clock. Inputs are the raw bytes
that the firmware takes; outputs are the scores of ``m-results``, which have three decimals. Joules are measured by a
meter at the device's supply. The figures are not MLPerf results, which only MLCommons' own runner produces.
Python 3.6 grammar.
"""

import math
import re
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from edgeprof import hookimpl
from edgeprof.worker.runtime import (
    ANY_DTYPE,
    ANY_SHAPE,
    Availability,
    LoadError,
    LoadOptions,
    Runtime,
    Session,
    TensorSpec,
)
from edgeprof.worker.span import WINDOW, Span
from edgeprof.worker.workload import Burst

from .port import BAUD, Port
from .protocol import CHUNK_BYTES, Device, Inference

INPUT, OUTPUT = "input", "results"
Input = NamedTuple("Input", [("shape", Tuple[int, ...]), ("dtype", str)])
#: The inputs of the models of MLPerf Tiny, in the form of the bytes of its data sets.
INPUTS = {
    "ic01": Input((1, 3072), "uint8"),
    "vww01": Input((1, 27648), "uint8"),
    "kws01": Input((1, 490), "int8"),
    "ad01": Input((1, 640), "float32"),
}
#: Longest time of the first inference, and tolerance for any other (s).
_FIRST_S, _SLACK_S = 60.0, 10.0
#: Factor by which a burst is longer than requested, since the device's clock may be slow.
_MARGIN = 1.01
#: Largest factor by which a burst may have more inferences than the longest one before: a clock with whole milliseconds
#: does not resolve a few inferences, and a million of them may take hours.
_GROWTH = 16
#: Share of a window that a burst must last for its latency to be precise enough.
_ENOUGH = 0.1
#: Most inferences of one command, since a device reads their number into 31 bits.
_MOST_INFERENCES = 2**31 - 1
_OPTIONS = ("chunk", "arena", "flash", "ram")
_SIZES = {"arena": "arena_bytes", "flash": "flash_bytes", "ram": "ram_bytes"}


class Microcontrollers(Runtime):
    name = "mcu"
    formats = ("mcu",)
    default_device = "mcu"
    runs_here = False
    concurrent = False

    def availability(self) -> Availability:
        return Availability("MLPerf Tiny protocol", None, None)

    def devices(self) -> List[str]:
        return ["mcu"]

    def load(self, path: str, options: LoadOptions) -> Session:
        _refuse_flags(options)
        place, at, baud = path.partition("@")
        if at and not baud.isdigit():
            raise LoadError("{!r} in {} is not a baud rate".format(baud, path), "Write it as mcu:/dev/ttyACM0@115200.")
        port = Port(place, int(baud) if at else BAUD)
        try:
            device = Device(port, _whole_number(options.options, "chunk", CHUNK_BYTES))
            return MicrocontrollerSession(device, port, options)
        except BaseException:
            port.close()
            raise


class MicrocontrollerSession(Session):
    """A device, and the input that was sent to it."""

    def __init__(self, device: Device, port: Port, options: LoadOptions) -> None:
        self._device, self._port = device, port
        profile = device.profile()
        model = _stated(profile, r"m-model-\[(.*)\]")
        self._model = model
        self._sizes: Dict[str, Optional[int]] = {
            field: _size(options.options, profile, option) for option, field in _SIZES.items()
        }
        self.inputs = (_input_spec(model, profile, options),)
        self.outputs = (TensorSpec(OUTPUT, (1, "classes"), "float32", None),)
        self._loaded: Optional[bytes] = None
        self._keeps_state: Optional[bool] = None  # unknown until the first run
        self._classes: Optional[int] = None
        self._latency_s: Optional[float] = None  # time of one inference, from the longest burst so far
        self._longest_s = 0.0
        self._most = 1  # most inferences of one burst so far
        self.version = _stated(profile, r"m-profile-\[(.*)\]") or "unknown"
        self._facts = {"device": device.name, "port": port.path, "baud": str(port.baud), "model": model or "unknown"}

    @property
    def facts(self) -> Dict[str, str]:  # type: ignore[override]  # the facts change during a run
        return dict(
            self._facts,
            resynchronised=str(self._device.resynchronised),
            damaged_bytes=str(self._port.damaged),
        )

    def run(self, feeds: Dict[str, Any]) -> Dict[str, Any]:
        self._give(feeds)
        done = self._infer(1)
        if self._keeps_state is None:  # a model that keeps state gives the same input another answer
            self._keeps_state = self._infer(1).results != done.results
        return {OUTPUT: np.array([done.results], np.float32)}

    def reset(self) -> Optional[str]:
        if self._keeps_state:
            return "the device gives one input two answers: its model keeps state, which EEMBC's protocol cannot reset"
        return None

    def bind_burst(self, name: str, feeds: Dict[str, Any]) -> Optional[Callable[[float], Burst]]:  # noqa: ARG002 - it has one

        def burst(seconds: float) -> Burst:
            self._give(feeds)
            while self._count_for(seconds) > _GROWTH * self._most or self._longest_s < _ENOUGH * seconds:
                self._infer(min(self._count_for(seconds), _GROWTH * self._most))
            before = self._device.resynchronised
            done = self._infer(self._count_for(seconds))
            span = Span(WINDOW, done.start_s, done.end_s, done.count)
            # If the two clocks disagree by more, a report was delayed further, because this machine was busy.
            unlike_s = 0.0 if done.device_s is None else abs(done.device_s - span.seconds)
            is_second_try = self._device.resynchronised > before
            return Burst(span, done.device_s, max(done.edge_s, unlike_s), is_second_try)

        return burst

    def microcontroller(self) -> Optional[Dict[str, Any]]:
        return dict(self._sizes, name=self._device.name, model=self._model, port=self._port.path)

    def close(self) -> None:
        self._device.close()

    def _count_for(self, seconds: float) -> int:
        """The number of inferences that take ``seconds``, estimated from the longest burst."""
        assert self._latency_s is not None  # it has run once
        return max(1, min(_MOST_INFERENCES, math.ceil(_MARGIN * seconds / self._latency_s)))

    def _give(self, feeds: Dict[str, Any]) -> None:
        """Send the input, unless the device has it already."""
        data = np.ascontiguousarray(feeds[INPUT]).tobytes()
        if data != self._loaded:
            self._loaded = None  # even if loading fails, the device no longer has the earlier input
            self._device.load(data)
            self._loaded = data

    def _infer(self, count: int) -> Inference:
        expected_s = 1.5 * count * self._latency_s + _SLACK_S if self._latency_s else _FIRST_S
        done = self._device.infer(count, 0, expected_s)
        if self._classes is None:
            self._classes = len(done.results)
        if len(done.results) != self._classes:
            raise LoadError(
                "the device at {} gives {} results, and gave {} before".format(
                    self._port.path, len(done.results), self._classes
                ),
                "Its line loses bytes: a lower speed, or a shorter cable.",
            )
        here_s = done.end_s - done.start_s
        spent_s = here_s if done.device_s is None else done.device_s
        if abs(spent_s - here_s) > 2 * done.edge_s + 0.5 * here_s:
            spent_s = here_s  # a clock that stands still must not lead to a burst of hours
        if spent_s >= self._longest_s:
            self._longest_s = spent_s
            self._latency_s = max(spent_s / count, 1e-7)
        self._most = max(self._most, count)
        return done


def _refuse_flags(options: LoadOptions) -> None:
    """Refuse flags that have no meaning for a device with a finished firmware.

    Raises:
        LoadError: such a flag was given.
    """
    if options.device != "mcu":
        raise LoadError("--device {} has no meaning for a microcontroller".format(options.device), "Leave it out.")
    if options.threads:
        raise LoadError("--threads has no meaning for a microcontroller", "Leave it out.")
    if options.batch != 1:
        raise LoadError("--batch has no meaning for a microcontroller", "Its firmware takes one input at a time.")
    unknown = sorted(set(options.options) - set(_OPTIONS))
    if unknown:
        raise LoadError(
            "the runtime mcu has no option {}".format(", ".join(unknown)), "It has: {}.".format(", ".join(_OPTIONS))
        )


def _whole_number(options: Dict[str, str], name: str, default: int) -> int:
    text = options.get(name)
    if text is None:
        return default
    if not text.isdigit():
        raise LoadError("--option {}={} is not a whole number".format(name, text), "Write --option {}=26.".format(name))
    return int(text)


def _stated(profile: Sequence[str], pattern: str) -> Optional[str]:
    """The first group of the first line that matches the pattern; None if none does."""
    matches = (re.match(pattern, line) for line in profile)
    return next((match.group(1) for match in matches if match), None)


def _size(options: Dict[str, str], profile: Sequence[str], option: str) -> Optional[int]:
    """A size (bytes) from the user's option, else from the firmware (``m-mem-arena-55984``, as in examples/mcu)."""
    if option in options:
        return _whole_number(options, option, 0)
    text = _stated(profile, r"m-mem-{}-(\d{{1,12}})$".format(option))
    return None if text is None else int(text)


def _input_spec(model: Optional[str], profile: Sequence[str], options: LoadOptions) -> TensorSpec:
    """The spec of the model's input.

    It comes from ``--input``, else from the firmware (``m-input-[1x490:int8]``), else from the model of MLPerf Tiny
    that the firmware names; otherwise the input may have any size.
    """
    given = options.shapes.get(INPUT)
    if given is not None and given[:1] != (1,):
        raise LoadError(
            "--input input={} does not begin with 1, the number of samples".format("x".join(map(str, given))),
            "Write --input input=1x{}.".format("x".join(map(str, given))),
        )
    if given is not None:
        return TensorSpec(INPUT, tuple(given), options.dtypes.get(INPUT, "uint8"), None)
    text = _stated(profile, r"m-input-\[(\d+(?:x\d+)*:(?:uint8|int8|float32))\]")
    if text is not None:
        dims, _, dtype = text.partition(":")
        return TensorSpec(INPUT, tuple(int(dim) for dim in dims.split("x")), dtype, None)
    known = INPUTS.get(model or "")
    return TensorSpec(INPUT, ANY_SHAPE, ANY_DTYPE, None) if known is None else TensorSpec(INPUT, *known, None)


@hookimpl
def register_runtimes(register: Callable[..., None]) -> None:
    register("mcu", Microcontrollers)
