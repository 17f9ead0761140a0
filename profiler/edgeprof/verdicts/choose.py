"""Which model on which hardware: every device × variant × power mode held against a product's requirements. Pure.

A row is one way to build the product: one host in one power mode, with one model file, runtime and batch. All results
of that row are evidence; for each requirement the newest result that speaks of it decides (``choose_row``). A row is
judged by itself: another row never changes its verdict. Rows are ordered by watts only among those whose joules cover
the same and came about in the same way (``Group``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from edgeprof import units
from edgeprof.results.schema import model_name
from edgeprof.verdicts.choose_row import Answer, Entry, Judge, Origin, Row, title
from edgeprof.worker.scenario import OPEN

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from edgeprof.results.schema import Result, Variant
    from edgeprof.verdicts.requirements import Requirements

#: Best to worst, as rows are listed.
ANSWERS: tuple[Answer, ...] = ("yes", "unsure", "unknown", "no")
ORIGINS: tuple[Origin, ...] = ("measured", "none", "estimated", "simulated")
#: Scenarios in which one request follows another, as the product's do; several at once cost other joules.
_ONE_BY_ONE = ("single-stream", *OPEN)
#: A requirement that would have to give way by more than this factor is no change that brings a row near.
_FAR = 1000.0


@dataclass(frozen=True)
class Group:
    """Rows that may be ordered by watts, best first.

    Attributes:
        origin: How their joules came about.
        covers: What they cover; ``owner's sum`` where the owner added what the rails leave out.
        rows: In the order of their verdicts, then of their watts.
    """

    origin: Origin
    covers: str
    rows: tuple[Row, ...]

    @property
    def ties(self) -> list[Row]:
        """The rows that fit as the first does, and whose watts cannot be told from the first's."""
        first = self.rows[0].draw
        if first is None or first.ci95 is None:
            return []
        others = [row for row in self.rows[1:] if row.answer == self.rows[0].answer and row.draw and row.draw.ci95]
        return [row for row in others if row.draw and row.draw.ci95 and row.draw.ci95[0] <= first.ci95[1]]


@dataclass(frozen=True)
class Choice:
    """What ``choose`` found.

    Attributes:
        asked: The requirements.
        groups: Measured joules first.
        change: The cheapest measured change that would make the nearest row fit, in a sentence; None where some row
            fits already, or nothing measured says so.
        passed_over: Sentences on results that could not be rows.
    """

    asked: Requirements
    groups: tuple[Group, ...]
    change: str | None = None
    passed_over: tuple[str, ...] = ()

    @property
    def rows(self) -> list[Row]:
        return [row for group in self.groups for row in group.rows]

    @property
    def fitting(self) -> list[Row]:
        return [row for row in self.rows if row.answer == "yes"]

    @property
    def exit_code(self) -> int:
        """0: a row fits; 3: all that is known is that nothing was measured; 1: none fits."""
        if self.fitting:
            return 0
        rows = self.rows
        return 3 if rows and all(row.answer == "unknown" for row in rows) else 1


def choose(results: Sequence[Result], asked: Requirements, *, of_fleet: Collection[str] = ()) -> Choice:
    """Hold every row of these results against the requirements.

    Args:
        results: What was measured.
        asked: What the product asks.
        of_fleet: The ids of the results that a fleet measured.

    Raises:
        InputError: two devices of the requirements fit one board.
    """
    rows: list[Row] = []
    other_scenarios = 0
    evidence: dict[tuple[object, ...], list[Entry]] = {}
    for result in results:
        if result.protocol.scenario not in _ONE_BY_ONE:
            other_scenarios += len(result.variants)
            continue
        for variant in result.variants:
            evidence.setdefault(_row_identity(result, variant), []).append(
                Entry(result, variant, result.id in of_fleet)
            )
    for entries in evidence.values():
        rows += _rows_of_identity(sorted(entries, key=lambda entry: _created_moment(entry.result), reverse=True), asked)
    passed_over = []
    if other_scenarios:
        what = "variant was" if other_scenarios == 1 else "variants were"
        passed_over.append(
            f"{other_scenarios} {what} measured with several requests at once (multi-stream or offline), which is not"
            " how the product works."
        )
    used = [row.device for row in rows]
    passed_over += [f"[devices.{d.key}] fits no device of these results." for d in asked.devices if d not in used]
    return Choice(asked, tuple(_group_rows(rows)), _cheapest_change(rows, asked), tuple(passed_over))


# --- rows -------------------------------------------------------------------------------------------------------------


def _row_identity(result: Result, variant: Variant) -> tuple[object, ...]:
    """Everything that must agree for two results to speak of the same row."""
    host, runtime = result.host, variant.runtime
    how = (
        (runtime.name, runtime.version, runtime.device, runtime.threads, tuple(sorted(runtime.options.items())))
        if runtime
        else ()
    )
    where = (host.board, host.hostname, host.fingerprint, host.power_mode, host.governor)
    return (*where, model_name(variant.model), variant.model.sha256, variant.name, how, result.protocol.batch)


def _created_moment(result: Result) -> tuple[float, str]:
    """When a result was made, for sorting; one whose time cannot be read is the oldest."""
    try:
        moment = datetime.fromisoformat(result.created.replace("Z", "+00:00")).astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return -math.inf, result.id
    return moment.timestamp(), result.id


def _rows_of_identity(entries: list[Entry], asked: Requirements) -> Iterator[Row]:
    """The rows of one identity, newest evidence first: one for each way in which its joules came about."""
    kinds = {(entry.origin, _covered_part(entry)) for entry in entries}
    with_joules = sorted((kind for kind in kinds if kind[0] != "none"), key=str)
    for origin, covers in with_joules or [("none", None)]:
        evidence = [
            entry
            for entry in entries
            if entry.origin == "none" or (entry.origin, _covered_part(entry)) == (origin, covers)
        ]
        yield Judge(evidence, asked, origin, covers).row()


def _covered_part(entry: Entry) -> str | None:
    energy = entry.variant.energy_j_per_inference
    return energy.covers if energy else None


# --- all rows together ------------------------------------------------------------------------------------------------


def _group_rows(rows: Iterable[Row]) -> Iterator[Group]:
    by_kind: dict[tuple[Origin, str], list[Row]] = {}
    for row in rows:
        by_kind.setdefault(row.group, []).append(row)
    for origin, covers in sorted(by_kind, key=lambda kind: (ORIGINS.index(kind[0]), kind[1])):
        yield Group(origin, covers, tuple(sorted(by_kind[origin, covers], key=_row_rank)))


def _row_rank(row: Row) -> tuple[object, ...]:
    watts = math.inf if row.draw is None else row.draw.watts
    return ANSWERS.index(row.answer), watts, row.board, row.hostname, row.power_mode or "", row.model, row.variant


def _cheapest_change(rows: Sequence[Row], asked: Requirements) -> str | None:
    """The cheapest measured change for the nearest row that does not fit.

    Another variant or power mode of a device costs nothing, so it comes first: a row of the same device that fits. Else
    it is one requirement, eased as far as the row's own measurement needs; a battery before all others, then the least.
    """
    misses = [row for row in rows if row.answer in {"no", "unsure"} and row.origin == "measured"]
    fitting = [row for row in rows if row.answer == "yes"]
    for row in sorted(misses, key=_row_rank):
        twin = next(
            (f for f in fitting if (f.board, f.hostname, f.model) == (row.board, row.hostname, row.model)), None
        )
        if twin is not None:
            return f"{title(row)} would fit as {twin.variant} in {twin.power_mode or 'its mode'}, which was measured."
    if fitting:
        return None
    eased = [(cost, title(row), sentence) for row in misses for cost, sentence in _easings_of(row, asked)]
    if not eased:
        return None
    _, name, sentence = min(eased)
    return f"{name} comes nearest: it would fit with {sentence}."


def _easings_of(row: Row, asked: Requirements) -> Iterator[tuple[float, str]]:
    """What would make a row fit that misses one requirement: how large a change it is, and in words."""
    missed = [check for check in row.checks if check.answer != "yes"]
    if len(missed) != 1 or missed[0].acceptable is None or missed[0].answer == "unknown":
        return
    check, value = missed[0], missed[0].acceptable
    if check.requirement == "battery" and asked.usable_wh and asked.battery_wh:
        factor = value / asked.usable_wh
        if factor > _FAR:
            return
        needed = math.ceil(10 * factor * asked.battery_wh) / 10
        yield factor, f"a battery of {needed:g} Wh, {units.significant(needed / asked.battery_wh)} × the one given"
        return
    limit, sentence = _eased_limit(check.requirement, value, asked)
    if limit and abs(value / limit) <= _FAR:
        yield 1 + abs(value / limit - 1), sentence


def _eased_limit(requirement: str, value: float, asked: Requirements) -> tuple[float | None, str]:
    """A requirement's limit, and what a yes needs in its place."""
    easings: dict[str, tuple[float | None, str]] = {
        "latency": (asked.latency_p99_s, f"an accepted p99 of {units.quantity(value, 's')}"),
        "memory": (asked.memory_bytes, f"{units.size(math.ceil(value))} of memory"),
        "rate": (asked.rate_hz, f"{units.significant(value)} a second instead of {asked.rate_hz:g}"),
        "power": (asked.max_w, f"{math.ceil(100 * value) / 100:g} W allowed"),
        "price": (asked.max_price, f"a price of {value:g} accepted"),
        "accuracy": (asked.accuracy_min or asked.accuracy_max, f"an accepted {asked.metric} of {value:.3g}"),
    }
    return easings.get(requirement, (None, ""))
