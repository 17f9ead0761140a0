"""The load pattern of a proof: when the load was switched, and how much work was done."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from typing_extensions import Self

    from edgeprof.energy.recording import Recording

    Say = Callable[[str], None]

#: The last part of a hold, as a share of it, in which readings count as settled.
SETTLED = 0.3
#: How long each state of the load is held: in time constants of the slowest filter, and at least in seconds.
_HOLD_TAUS, _LEAST_HOLD_S = 6.0, 2.0
#: The lengths of the pulses (s) whose work is compared with that of long ones; the pauses between them are as long.
PULSES_S = (0.02, 0.06, 0.2, 0.6)
#: The levels between no load and full load.
_SHARES = (0.4, 0.8, 0.6, 0.2)


class Load(Protocol):
    """A load that can be set and that counts its work, such as ``calibration.burner.Burner``."""

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
    """The durations and counts of a load pattern.

    Attributes:
        hold_s: How long each state is held, in seconds.
        idle_s: The length of one of the three idles, in seconds.
        steps: How many times the load is switched on and off.
        shares: The levels between no load and full load, as shares of the time.
        trains: The number of pulse trains for each pulse length.
        train_s: The length of a train, in seconds.
        pairs: How many pairs of blocks measure the cost of sampling.
        block_s: The length of one block, in seconds.
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
        """The length of the whole pattern, in seconds."""
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
        off_s: When it was switched off for the last time.
        end_s: Until when it was idle afterwards.
        loops: The work that was done, in loops.
        on_s: The length of one pulse, in seconds; for a step, the whole step.
    """

    start_s: float
    off_s: float
    end_s: float
    loops: float
    on_s: float


@dataclass
class Played:
    """The load that was played.

    Attributes:
        idles: Start and end (s) of the idles.
        steps: The long pulses.
        trains: The trains of short pulses.
        levels: Start and end (s) of the settled part of each level.
        blocks: Work per second with and without sampling, in pairs.
        others: The share of all cores that other programs used during the idles; None if unknown.
        busiest: The names of these programs, the busiest first.
    """

    idles: list[tuple[float, float]] = field(default_factory=list)
    steps: list[Pulse] = field(default_factory=list)
    trains: list[Pulse] = field(default_factory=list)
    levels: list[tuple[float, float]] = field(default_factory=list)
    blocks: list[tuple[float, float]] = field(default_factory=list)
    others: float | None = None
    busiest: tuple[str, ...] = ()

    def offs(self) -> list[tuple[float, float]]:
        """The settled part of the idle after each step."""
        return [_settled_part(step.off_s, step.end_s) for step in self.steps]

    def ons(self) -> list[tuple[float, float]]:
        """The settled part of each step."""
        return [_settled_part(step.start_s, step.off_s) for step in self.steps]

    def holds(self) -> list[tuple[float, float]]:
        """All stretches with a constant and settled load, in order of time."""
        return sorted([*self.offs(), *self.ons(), *self.levels])


def play(plan: Plan, recording: Recording, load: Load, played: Played, say: Say) -> None:
    """Play steps, levels and trains of pulses while the recording runs, and note them in ``played``."""
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
    """Play a train of pulses, or a single pulse as long as the train."""
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
