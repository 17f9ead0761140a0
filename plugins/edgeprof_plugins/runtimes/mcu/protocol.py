"""The host's end of MLPerf Tiny's serial protocol (mlcommons/tiny, benchmark/runner; eembc/energyrunner, README).

One command at a time, ended by ``%``; its answer is lines up to ``m-ready``. What was in the line before the first
command is thrown away, every command must be answered by the lines that it asks for, and a device that answers out of
step is brought back in step once: a host that trusts the order of answers takes each for that of the command before.
Python 3.6 grammar.
"""

import re
import time
from typing import Callable, List, NamedTuple, Optional, Sequence, Tuple, TypeVar

from edgeprof.worker.runtime import LoadError

from .port import Line, Port, PortError

T = TypeVar("T")
READY = "m-ready"
#: Silence (s) that ends what was said before the first command, and what a device has to answer in (s).
QUIET_S, ANSWER_S = 0.3, 2.0
#: Bytes of input in one command: with "db " and "%" it has 56 characters, and 64 is all that a device must take.
CHUNK_BYTES, _MOST_CHUNK_BYTES = 26, 30
#: An answer has no more lines.
_MOST_LINES = 4096
#: The device's counter of microseconds has 32 bits.
_COUNTER = 1 << 32
#: What MLCommons' firmware says, without a prefix, of an input of another size than its model's.
_OTHER_SIZE = re.compile(r"(?:elemented, expected|exceeds maximum of) (\d+)")
_BOOT = re.compile(r"m-(timestamp-mode-|init-done)")

Inference = NamedTuple(
    "Inference",
    [
        ("results", List[float]),
        ("count", int),
        ("start_s", float),  # when the report of its beginning was here, CLOCK_MONOTONIC
        ("end_s", float),
        ("device_s", Optional[float]),  # by the device's own clock
        ("edge_s", float),  # how late these reports may have come
    ],
)


class ProtocolError(LoadError):
    """The device answered something that was not asked for, or nothing."""


class ResetError(LoadError):
    """The device started anew in the middle of a command."""


class RefusedError(LoadError):
    """The device says that it cannot do what it was asked for; a byte that was lost on the line may be why."""


class SizeError(LoadError):
    """The model on the device takes inputs of another size."""


class Device:
    """A device that speaks the protocol.

    Args:
        port: Its line; the device closes it.

    Attributes:
        resynchronised: How often it had to be brought back in step.
    """

    def __init__(self, port: Port, chunk_bytes: int = CHUNK_BYTES) -> None:
        if not 1 <= chunk_bytes <= _MOST_CHUNK_BYTES:
            raise LoadError(
                "chunk={} bytes of input in a command is not between 1 and {}".format(chunk_bytes, _MOST_CHUNK_BYTES),
                "A device must take commands of 64 characters; 26 bytes make 56.",
            )
        self._port, self._chunk_bytes = port, chunk_bytes
        self.resynchronised = 0
        self.name = self.synchronise()

    def synchronise(self) -> str:
        """Throw away what was said, end what was begun, and ask for its name until its answer alone comes.

        Returns:
            The name.

        Raises:
            ProtocolError: no device of this protocol answers here.
        """
        heard = ""
        for number in range(3):
            if number == 2 and not heard:
                break  # a board that starts anew when its port is opened has started by now
            if not self._port.drain(QUIET_S):
                break  # it talks without end
            self._port.write(b"%")  # what somebody has typed before us is a command of its own
            self._port.drain(QUIET_S)
            self._port.write(b"name%")
            lines, is_whole = self._listen(ANSWER_S)
            heard = next((line.text for line in lines if line.text), self._port.unfinished or heard)
            names = [line.text for line in lines if line.text.startswith("m-name-")]
            if is_whole and len(names) == 1 and self._port.drain(QUIET_S):
                return _bracketed(names[0])
        raise ProtocolError(
            "{} at {} baud is no device of MLPerf Tiny's protocol: {}".format(
                self._port.path,
                self._port.baud,
                "it says {!r}".format(heard[:60]) if heard else "it answers nothing to name%",
            ),
            "Is it the right port, does the firmware run, is the speed right (mcu:/dev/ttyACM0@9600)? One that still"
            " works at a window that was broken off answers when that has ended.",
        )

    def _listen(self, limit_s: float) -> Tuple[List[Line], bool]:
        """The lines of an answer, and whether it came to its end."""
        deadline = time.monotonic() + limit_s
        lines: List[Line] = []
        while len(lines) < _MOST_LINES:
            line = self._port.read_line(deadline)
            if line is None:
                return lines, False
            if line.text == READY:
                return lines, True
            lines.append(line)
        return lines, False

    def ask(self, command: str, limit_s: float = ANSWER_S) -> List[Line]:
        """The lines that answer a command, without the ``m-ready`` at their end.

        Raises:
            ProtocolError: no whole answer came, or a line of it belongs to no device of this protocol.
            ResetError: the device started anew.
            RefusedError: it answered with an error.
        """
        self._port.write(command.encode("ascii") + b"%")
        lines, is_whole = self._listen(limit_s)
        shown = command if len(command) < 24 else command[:20] + " ..."
        for line in lines:
            if _BOOT.match(line.text):
                raise ResetError(
                    "the device at {} restarted during {!r}".format(self._port.path, shown),
                    "Look at its supply and its watchdog.",
                )
            if line.text.startswith("e-"):
                raise RefusedError("the device at {} refuses {!r}: {}".format(self._port.path, shown, line.text[2:]))
            size = _OTHER_SIZE.search(line.text)
            if size:
                raise SizeError(
                    "the model on the device at {} takes {} bytes: {}".format(
                        self._port.path, size.group(1), line.text
                    ),
                    "Give it inputs of that size: --input input=1x{}:uint8, or a dataset of such.".format(
                        size.group(1)
                    ),
                )
            if line.text and not line.text.startswith("m-"):
                raise ProtocolError(
                    "the device at {} answers {!r} with {!r}".format(self._port.path, shown, line.text[:80]),
                    "Its firmware reports an error that the protocol does not have.",
                )
        if not is_whole:
            raise ProtocolError(
                "the device at {} gave no whole answer to {!r} in {:g} s".format(self._port.path, shown, limit_s),
                "Is its firmware still running? Reset it.",
            )
        return [line for line in lines if line.text]

    def in_step(self, step: Callable[[], T]) -> T:
        """Do a step; where the device answers out of step, bring it back and do it once more.

        Raises:
            LoadError: see ``ask``; of the second try.
        """
        try:
            return step()
        except (ProtocolError, RefusedError):
            self.synchronise()
            self.resynchronised += 1
            return step()

    # --- what can be asked --------------------------------------------------------------------------------------------

    def profile(self) -> List[str]:
        """What the firmware says of itself, line by line."""

        def step() -> List[str]:
            lines = [line.text for line in self.ask("profile")]
            self._expect(lines, "m-profile-", "profile")
            return lines

        return self.in_step(step)

    def load(self, data: bytes) -> None:
        """Give it an input.

        Raises:
            LoadError: it does not take so many bytes, or see ``ask``.
        """

        def step() -> None:
            command = "db load {}".format(len(data))
            self._expect([line.text for line in self.ask(command)], "m-[Expecting {} ".format(len(data)), command)
            for start in range(0, len(data), self._chunk_bytes):
                chunk = data[start : start + self._chunk_bytes]
                command = "db " + chunk.hex()
                done = [line.text for line in self.ask(command)]
                if done != (["m-load-done"] if start + len(chunk) == len(data) else []):
                    raise self._unexpected(command[:20], done, "byte {} of {}".format(start + len(chunk), len(data)))

        self.in_step(step)

    def infer(self, count: int, warmups: int, limit_s: float) -> Inference:
        """Run so many inferences of the input that is loaded, after some that are not timed.

        Args:
            count: At least 1.
            warmups: Always sent: left out, a device takes 10.
            limit_s: How long all of it may take.

        Raises:
            LoadError: see ``ask``.
        """

        def step() -> Inference:
            command = "infer {} {}".format(count, warmups)
            return self._read_inference(self.ask(command, limit_s), count, warmups, command)

        return self.in_step(step)

    def _read_inference(self, lines: Sequence[Line], count: int, warmups: int, command: str) -> Inference:
        by_text = {line.text: line for line in lines}
        started, done = by_text.get("m-infer-start-{}".format(count)), by_text.get("m-infer-done")
        results = [line.text for line in lines if line.text.startswith("m-results-")]
        laps = [line for line in lines if line.text.startswith("m-lap-us-")]
        is_framed = started and done and "m-warmup-start-{}".format(warmups) in by_text
        if not is_framed or len(results) != 1 or len(laps) not in (0, 2):
            raise self._unexpected(command, [line.text for line in lines], "laps, results or their frame")
        device_s = None
        assert started is not None
        assert done is not None
        first, last = started, done
        if laps:  # firmware in energy mode has none: it gives a pulse on a pin instead
            first, last = laps
            device_s = (self._number(last, command) - self._number(first, command)) % _COUNTER * 1e-6
        delay_s = self._port.report_delay_s(max(len(first.text), len(last.text)) + 2)
        values = self._values(results[0], command)
        return Inference(values, count, first.time_s, last.time_s, device_s, delay_s)

    def _values(self, line: str, command: str) -> List[float]:
        try:
            return [float(word) for word in _bracketed(line).split(",")]
        except ValueError:
            raise self._unexpected(command, [line], "numbers") from None

    def _number(self, line: Line, command: str) -> int:
        digits = line.text[len("m-lap-us-") :]
        if not digits.isdigit() or int(digits) >= _COUNTER:
            raise self._unexpected(command, [line.text], "microseconds")
        return int(digits)

    def _expect(self, lines: Sequence[str], beginning: str, command: str) -> None:
        if not any(line.startswith(beginning) for line in lines):
            raise self._unexpected(command, lines, beginning)

    def _unexpected(self, command: str, lines: Sequence[str], lacking: str) -> ProtocolError:
        printed = ", ".join(lines)[:80] or READY
        return ProtocolError(
            "the device at {} answers out of step: {!r} brought {!r}, without {}".format(
                self._port.path, command, printed, lacking
            ),
            "Reset it; does anything else write to its line?",
        )

    def close(self) -> None:
        """Give the port back; safe to call twice."""
        self._port.close()


def _bracketed(line: str) -> str:
    """What stands between the brackets of a line, or after its last dash."""
    inside = re.search(r"\[(.*)\]", line)
    return inside.group(1) if inside else line.rpartition("-")[2]


__all__ = ["CHUNK_BYTES", "Device", "Inference", "Port", "PortError", "ProtocolError", "RefusedError", "ResetError"]
