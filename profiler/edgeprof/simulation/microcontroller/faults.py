"""The faults of a virtual microcontroller, and when they happen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgeprof.errors import InputError, unknown

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Name → what happens.
FAULTS = {
    "drift": "its clock runs 5 % fast",
    "garbage": "noise stands before each of its lines",
    "hang-up": "its port goes away",
    "login": "it is no such device: it asks for a login",
    "lost-byte": "it loses a byte of a command",
    "nan": "its results are no numbers",
    "out-of-step": "it says m-ready once too often, so that every answer seems to belong to the next command",
    "reset": "it restarts while it runs inferences",
    "short-results": "its results lack a class",
    "silent": "it stops answering",
    "slow": "each of its lines comes 50 ms late",
    "unprefixed": "it reports an error as a line that has no prefix",
    "wrap": "its counter of microseconds wraps while it runs inferences",
    "wrong-prompt": "its answers end with ok and not with m-ready",
}
#: Faults that happen once; any other continues from its command on.
_ONCE = {"hang-up", "lost-byte", "out-of-step", "reset"}
#: Faults whose number counts only commands that run inferences; for any other it counts all commands.
_OF_INFERENCES = {"nan", "reset", "short-results", "unprefixed"}


@dataclass
class Faults:
    """The requested faults, and the number of commands so far.

    Attributes:
        first: Fault → the number of the command, from 1, at which it first happens.
    """

    first: dict[str, int] = field(default_factory=dict)
    commands: int = 0
    inferences: int = 0

    @classmethod
    def parse(cls, texts: Sequence[str]) -> Faults:
        """Parse texts such as ``NAME`` or ``NAME@N``, for a fault from the N-th command on, or only in it.

        Raises:
            InputError: There is no such fault, or N is not a number above 0.
        """
        first = {}
        for text in texts:
            name, at, number = text.partition("@")
            if name not in FAULTS:
                raise unknown("fault", name, FAULTS)
            if at and not (number.isdecimal() and int(number) > 0):
                raise InputError(f"--fault {text} does not say in which command", remedy=f"As --fault {name}@3.")
            first[name] = int(number) if at else 1
        return cls(first)

    def count(self, *, is_inference: bool) -> None:
        """Count one more command."""
        self.commands += 1
        self.inferences += is_inference

    def happens(self, name: str) -> bool:
        """Return whether a fault happens in the command that was counted last."""
        first = self.first.get(name)
        if first is None:
            return False
        now = self.inferences if name in _OF_INFERENCES else self.commands
        return now == first if name in _ONCE else now >= first
