"""Models on a microcontroller, by MLPerf Tiny's serial protocol: ``mcu:/dev/ttyACM0`` or ``mcu:/dev/ttyUSB0@9600``.

The device runs a window by itself (``infer N 0``) and reports when it began and ended; what passes over the line is in
none. Its latency is the mean that its own clock tells, which is held against this machine's. Inputs are the raw bytes
that its firmware takes; outputs are the scores of ``m-results``, which have three decimals. Joules are those of a meter
at its supply. Nothing of it is an MLPerf result: those are made by MLCommons' own runner.
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
#: What the models of MLPerf Tiny take, as the bytes of its data sets.
INPUTS = {
    "ic01": Input((1, 3072), "uint8"),
    "vww01": Input((1, 27648), "uint8"),
    "kws01": Input((1, 490), "int8"),
    "ad01": Input((1, 640), "float32"),
}
#: How long the first inference may take, and any other beyond what it should (s).
_FIRST_S, _SLACK_S = 60.0, 10.0
#: A burst is so much longer than asked for, so that the device's clock may be slow.
_MARGIN = 1.01
#: A burst has at most so many times the inferences of the longest before it: a clock of whole milliseconds shows
#: nothing of a few, and a million of them may take hours.
_GROWTH = 16
#: What one inference takes is known well enough from a burst of this part of the window.
_ENOUGH = 0.1
#: Most inferences of one command: a device reads their number into 31 bits.
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
            raise LoadError("{!r} in {} is no baud rate".format(baud, path), "As mcu:/dev/ttyACM0@115200.")
        port = Port(place, int(baud) if at else BAUD)
        try:
            device = Device(port, _whole_number(options.options, "chunk", CHUNK_BYTES))
            return MicrocontrollerSession(device, port, options)
        except BaseException:
            port.close()
            raise


class MicrocontrollerSession(Session):
    """A device, and the input that it holds."""

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
        self._classes: Optional[int] = None
        self._latency_s: Optional[float] = None  # of one inference, from the longest burst so far
        self._longest_s = 0.0
        self._most = 1  # inferences of one burst so far
        self.version = _stated(profile, r"m-profile-\[(.*)\]") or "unknown"
        self._facts = {"device": device.name, "port": port.path, "baud": str(port.baud), "model": model or "unknown"}

    @property
    def facts(self) -> Dict[str, str]:  # type: ignore[override]  # they change while it runs
        return dict(
            self._facts,
            resynchronised=str(self._device.resynchronised),
            damaged_bytes=str(self._port.damaged),
        )

    def run(self, feeds: Dict[str, Any]) -> Dict[str, Any]:
        self._give(feeds)
        done = self._infer(1)
        return {OUTPUT: np.array([done.results], np.float32)}

    def bind_burst(self, name: str, feeds: Dict[str, Any]) -> Optional[Callable[[float], Burst]]:  # noqa: ARG002 - it has one

        def burst(seconds: float) -> Burst:
            self._give(feeds)
            while self._count_for(seconds) > _GROWTH * self._most or self._longest_s < _ENOUGH * seconds:
                self._infer(min(self._count_for(seconds), _GROWTH * self._most))
            before = self._device.resynchronised
            done = self._infer(self._count_for(seconds))
            span = Span(WINDOW, done.start_s, done.end_s, done.count)
            # Where the two clocks disagree by more, one of the reports was later than that: this machine was busy.
            unlike_s = 0.0 if done.device_s is None else abs(done.device_s - span.seconds)
            is_second_try = self._device.resynchronised > before
            return Burst(span, done.device_s, max(done.edge_s, unlike_s), is_second_try)

        return burst

    def microcontroller(self) -> Optional[Dict[str, Any]]:
        return dict(self._sizes, name=self._device.name, model=self._model, port=self._port.path)

    def close(self) -> None:
        self._device.close()

    def _count_for(self, seconds: float) -> int:
        """How many inferences take so long, as far as the longest burst tells."""
        assert self._latency_s is not None  # it has run once
        return max(1, min(_MOST_INFERENCES, math.ceil(_MARGIN * seconds / self._latency_s)))

    def _give(self, feeds: Dict[str, Any]) -> None:
        """Send the input, where the device does not hold it already."""
        data = np.ascontiguousarray(feeds[INPUT]).tobytes()
        if data != self._loaded:
            self._loaded = None  # whatever happens now, it does not hold the one before
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
            spent_s = here_s  # a clock that stands still must not make a burst of hours
        if spent_s >= self._longest_s:
            self._longest_s = spent_s
            self._latency_s = max(spent_s / count, 1e-7)
        self._most = max(self._most, count)
        return done


def _refuse_flags(options: LoadOptions) -> None:
    """
    Raises:
        LoadError: something was asked for that a device with a finished firmware cannot do.
    """
    if options.device != "mcu":
        raise LoadError("--device {} says nothing to a microcontroller".format(options.device), "Leave it out.")
    if options.threads:
        raise LoadError("--threads says nothing to a microcontroller", "Leave it out.")
    if options.batch != 1:
        raise LoadError("--batch says nothing to a microcontroller", "Its firmware takes one input at a time.")
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
        raise LoadError("--option {}={} is no whole number".format(name, text), "As --option {}=26.".format(name))
    return int(text)


def _stated(profile: Sequence[str], pattern: str) -> Optional[str]:
    """The first group of the first line that has the pattern."""
    matches = (re.match(pattern, line) for line in profile)
    return next((match.group(1) for match in matches if match), None)


def _size(options: Dict[str, str], profile: Sequence[str], option: str) -> Optional[int]:
    """Bytes, as the user says, else as the firmware does (``m-mem-arena-55984``, as examples/mcu has it)."""
    if option in options:
        return _whole_number(options, option, 0)
    text = _stated(profile, r"m-mem-{}-(\d{{1,12}})$".format(option))
    return None if text is None else int(text)


def _input_spec(model: Optional[str], profile: Sequence[str], options: LoadOptions) -> TensorSpec:
    """The model's input: as ``--input`` says, else as the firmware does (``m-input-[1x490:int8]``), else as the model
    of MLPerf Tiny has it that the firmware names; of any size where nobody says.
    """
    given = options.shapes.get(INPUT)
    if given is not None and given[:1] != (1,):
        raise LoadError(
            "--input input={} does not begin with 1, the number of samples".format("x".join(map(str, given))),
            "As --input input=1x{}.".format("x".join(map(str, given))),
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
