"""Make stdin, stdout and stderr usable if they are closed or full, or if their encoding lacks characters.

Every byte for stdout or stderr passes through ``Output``, which completes a short write, remembers a write that
failed, and removes control characters that a terminal would obey, whoever printed them.
"""

from __future__ import annotations

import io
import os
import sys

# Every start imports this module: ``typing``, ``re`` and ``contextlib`` would take longer than the rest of ``--help``.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from typing_extensions import Buffer

#: Group 1 holds the sequences that edgeprof itself writes to terminals: colours, and the start of a progress line. Any
#: other escape came from a name or an error's text. It is shown as a question mark, as are all other control characters
#: and those that change the direction of a text.
_CONTROL = (
    rb"(\x1b\[\d{1,2}(?:;\d{1,2})?m|\r\x1b\[K|\r\n)"
    rb"|[\x00-\x08\x0b-\x1f\x7f]|\xc2[\x80-\x9f]|\xe2\x80[\x8e\x8f\xa8-\xae]|\xe2\x81[\xa6-\xa9]"
)
_EIGHT_BIT = rb"[\x80-\x9f]"


class Output(io.BufferedIOBase):
    """The bytes of stdout or stderr, written at once and whole.

    Args:
        descriptor: 1 or 2, which libraries write to as well (``relay``).
        must_arrive: Whether a failed write raises; for stderr it does not, since a message is not worth a measurement.
        eight_bit: Whether bytes from 0x80 to 0x9f are control characters, as in encodings other than UTF-8.
    """

    def __init__(self, descriptor: int, *, must_arrive: bool, eight_bit: bool) -> None:
        self.descriptor = descriptor
        self._must_arrive = must_arrive
        self._terminal = os.isatty(descriptor)
        self._eight_bit = eight_bit
        #: Why bytes were lost; nothing more is written then.
        self.error: OSError | None = None

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.descriptor

    def isatty(self) -> bool:
        return self._terminal

    def write(self, data: Buffer, /) -> int:
        """Write all bytes, without the control characters if this is a terminal.

        Raises:
            OSError: the bytes could not all be written; only the first failure raises.
        """
        content = bytes(data)
        rest = memoryview(self._inert(content) if self._terminal else content)
        try:
            while rest and self.error is None:
                rest = rest[os.write(self.descriptor, rest) :]
        except OSError as error:
            self.error = error
            if self._must_arrive:
                raise
        return len(content)

    def _inert(self, content: bytes) -> bytes:
        import re  # it keeps the compiled patterns

        content = re.sub(_CONTROL, lambda match: match.group(1) or b"?", content)
        return re.sub(_EIGHT_BIT, b"?", content) if self._eight_bit else content


def mend() -> None:
    """Make the three streams usable, whatever the caller did to them.

    A closed stream is opened as /dev/null. Otherwise the next file that is opened, such as the store, would get its
    number, and a stray line of output would be written to it. A character that a stream's encoding lacks is replaced.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            # open() returns the lowest free number, which is this one; child processes inherit it.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False, encoding="utf-8"))  # noqa: SIM115 - it lives as long as the process
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream: Any = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            guarded = _guard_stream(stream, number)
            setattr(sys, name, guarded)
            setattr(sys, f"__{name}__", guarded)  # shutil asks it for the terminal's width


def _guard_stream(stream: io.TextIOWrapper, number: int) -> io.TextIOWrapper:
    stream.flush()
    utf8 = str(stream.encoding).lower().replace("-", "") == "utf8"
    if utf8:
        errors = "surrogateescape"  # a file name is written as the bytes that it consists of
    else:
        from edgeprof.reporters.plain import ERRORS as errors  # noqa: N811 - a name of ours for codecs

    output: Any = Output(number, must_arrive=number == 1, eight_bit=not utf8)
    return io.TextIOWrapper(
        output,
        encoding=stream.encoding,
        errors=errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def descriptors() -> tuple[int, int]:
    """The descriptors of stdout and stderr for a program that gets them as they are; ``relay`` moves them away."""
    stdout, stderr = (getattr(stream, "buffer", None) for stream in (sys.stdout, sys.stderr))
    return (
        stdout.descriptor if isinstance(stdout, Output) else 1,
        stderr.descriptor if isinstance(stderr, Output) else 2,
    )


def finish(code: int) -> int:
    """Return the exit code of a finished command: ``code``, or 2 if its output could not all be written.

    Without this flush Python would flush stdout after the last chance to report an error, and exit with 120.
    """
    try:  # noqa: SIM105 - without contextlib, see the head of the file
        sys.stdout.flush()
    except OSError:
        pass  # the stream remembers it
    error = getattr(sys.stdout.buffer, "error", None)
    if code == 0 and error is not None and not isinstance(error, BrokenPipeError):  # a reader may have seen enough
        sys.stderr.write(f"edgeprof: cannot write to stdout: {error.strerror}\n")
        code = 2
    sys.stderr.flush()
    return code


def silence() -> None:
    """Discard everything that is still written to stdout, whose reader is gone or whose disk is full."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), descriptors()[0])
