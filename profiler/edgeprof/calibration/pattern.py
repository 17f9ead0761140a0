"""The load of a proof: what was switched when, and how much work was done in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from typing_extensions import Self

    from edgeprof.energy.recording import Recording

    Say = Callable[[str], None]

#: A hold's readings count as settled in its last part of this size.
SETTLED = 0.3
#: How long each state of the load is held: in time constants of the slowest filter, and at least s.
_HOLD_TAUS, _LEAST_HOLD_S = 6.0, 2.0
#: The pulses (s) whose work is held against that of long ones; they are as far apart as they are long.
PULSES_S = (0.02, 0.06, 0.2, 0.6)
#: Between no load and all of it.
_SHARES = (0.4, 0.8, 0.6, 0.2)


class Load(Protocol):
    """A load that can be set, and counts its work; ``calibration.burner.Burner`` is one."""

    def __enter__(self) -> Self:
        """Be ready, without load."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all of it."""

    def set(self, share: float) -> None:
        """From now on keep each core busy for this share of the time, 0 to 1."""

    def loops(self) -> float:
        """How much work was done so far."""


@dataclass(frozen=True)
class Plan:
    """How long what is done.

    Attributes:
        hold_s: How long each state is held, s.
        idle_s: Length of one of the three idles, s.
        steps: How many times the load is switched on and off.
        shares: The levels between none and all.
        trains: How many trains of pulses there are of each length.
        train_s: Their length, s.
        pairs: How many pairs of blocks show what sampling costs.
        block_s: Length of one block, s.
    """

    hold_s: float
    idle_s: float = 3.0
    steps: int = 5
    shares: Sequence[float] = _SHARES
    trains: int = 2
    train_s: float = 3.6
    pairs: int = 8
    block_s: float = 0.8

    @property
    def seconds(self) -> float:
        """How long all of it takes, s."""
        trains = len(PULSES_S) * self.trains * (self.train_s + self.hold_s)
        held = (2 * self.steps + 2 * len(self.shares)) * self.hold_s
        return 3 * self.idle_s + held + trains + 2 * self.pairs * self.block_s


def plan(slowest_s: float, *, quick: bool = False) -> Plan:
    """The plan for a board whose slowest filter has this time constant (s)."""
    hold_s = max(_LEAST_HOLD_S, _HOLD_TAUS * slowest_s)
    return Plan(hold_s, idle_s=1.5, steps=3, trains=1, pairs=4, block_s=0.5) if quick else Plan(hold_s)


@dataclass(frozen=True)
class Pulse:
    """A stretch of work between two stretches without any.

    Attributes:
        start_s: When the load was switched on.
        off_s: When it was switched off for good.
        end_s: Until when it then was idle.
        loops: The work that was done.
        on_s: How long each part of the work took: the whole for a step, one pulse for a train.
    """

    start_s: float
    off_s: float
    end_s: float
    loops: float
    on_s: float


@dataclass
class Played:
    """What was done.

    Attributes:
        idles: Start and end (s) of the idles.
        steps: Long pulses.
        trains: Trains of short ones.
        levels: Start and end (s) of what each level's hold showed when it had settled.
        blocks: Work per second with sampling and without, in pairs.
        others: CPU seconds that others' work took in each second of the idles; None where nobody can tell.
        busiest: Their names, the busiest first.
    """

    idles: list[tuple[float, float]] = field(default_factory=list)
    steps: list[Pulse] = field(default_factory=list)
    trains: list[Pulse] = field(default_factory=list)
    levels: list[tuple[float, float]] = field(default_factory=list)
    blocks: list[tuple[float, float]] = field(default_factory=list)
    others: float | None = None
    busiest: tuple[str, ...] = ()

    def offs(self) -> list[tuple[float, float]]:
        """What followed each step when it had settled."""
        return [_settled_part(step.off_s, step.end_s) for step in self.steps]

    def ons(self) -> list[tuple[float, float]]:
        """The settled part of each step."""
        return [_settled_part(step.start_s, step.off_s) for step in self.steps]

    def holds(self) -> list[tuple[float, float]]:
        """Every stretch in which the load was one and the same and had settled, in order of time."""
        return sorted([*self.offs(), *self.ons(), *self.levels])


def play(plan: Plan, recording: Recording, load: Load, played: Played, say: Say) -> None:
    """Play steps, levels and trains of pulses while the recording runs; ``played`` is filled in."""
    for number in range(plan.steps):
        say(f"step {number + 1} of {plan.steps}: {2 * plan.hold_s:.1f} s")
        played.steps.append(_play_pulse(recording, load, plan.hold_s, plan.hold_s, plan.hold_s))
    say(f"levels: {2 * len(plan.shares) * plan.hold_s:.0f} s")
    for share in plan.shares:
        load.set(share)
        recording.hold(plan.hold_s)
        held = recording.hold(plan.hold_s)
        played.levels.append((held.start_s, held.end_s))
    load.set(0.0)
    recording.hold(plan.hold_s)
    for _ in range(plan.trains):
        for on_s in PULSES_S:
            say(f"pulses of {1e3 * on_s:.0f} ms: {plan.train_s + plan.hold_s:.1f} s")
            played.trains.append(_play_pulse(recording, load, on_s, plan.train_s, plan.hold_s))


def _play_pulse(recording: Recording, load: Load, on_s: float, length_s: float, rest_s: float) -> Pulse:
    """A train of pulses, or one that is as long as the train."""
    before = load.loops()
    start_s = recording.now()
    while True:
        load.set(1.0)
        recording.hold(on_s)
        load.set(0.0)
        off_s = recording.now()
        if off_s - start_s + 2 * on_s > length_s:
            break
        recording.hold(on_s)
    end_s = recording.hold(rest_s).end_s
    return Pulse(start_s, off_s, end_s, load.loops() - before, on_s)


def _settled_part(start_s: float, end_s: float) -> tuple[float, float]:
    return end_s - SETTLED * (end_s - start_s), end_s
