"""One frame of ``edgeprof top``: the present power of the machine, as lines of text."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeprof.reporters.terminal import pad, width
from edgeprof.units import plus_minus, quantity, significant, size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeprof.energy.online.production import ModelInProduction
    from edgeprof.energy.online.rails import Marked, RailReading
    from edgeprof.reporters.terminal import Style
    from edgeprof.sensing.sensor import Channel

SCHEMA = "edgeprof.top/1"
_BAR = 20
_HISTORY = 8
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_LEVELS = "▁▂▃▄▅▆▇█"
#: Most characters of a name; the middle of a longer one is left out.
_LONGEST_NAME = 24


class OwnCost(NamedTuple):
    """The cost of edgeprof itself: share of one core, and resident memory (bytes)."""

    cpu_ratio: float
    rss_bytes: int | None


class Moment(NamedTuple):
    """Everything that one frame shows.

    Attributes:
        board: Name of the board.
        power_mode: The device's name of its power mode; None if it has none.
        covers: What the total covers.
        total: The headline; None if nothing measures one, with ``reason``.
        rails: The readings of all rails.
        others: Channels other than power, with their newest readings.
        throttling: The causes that throttle the device now, in words.
        marked: The energy since the last mark.
        models: The models in production that a daemon on this machine counts.
        own_cost: The cost of edgeprof itself.
        reason: Why there is no total.
    """

    board: str
    power_mode: str | None
    covers: str | None
    total: RailReading | None
    rails: Sequence[RailReading]
    others: Sequence[tuple[Channel, float]]
    throttling: Sequence[str]
    marked: Marked
    models: Sequence[ModelInProduction]
    own_cost: OwnCost
    reason: str | None


class History:
    """The last values of each rail's power, for its sparkline."""

    def __init__(self) -> None:
        self._watts: dict[tuple[str, str], deque[float]] = {}

    def add(self, rails: Sequence[RailReading]) -> None:
        for rail in rails:
            if rail.watts is not None:
                key = rail.channel.sensor, rail.channel.name
                self._watts.setdefault(key, deque(maxlen=_HISTORY)).append(rail.watts)

    def sparkline(self, channel: Channel) -> str:
        watts = self._watts.get((channel.sensor, channel.name), ())
        if not watts:
            return ""
        low, high = min(watts), max(watts)
        span = high - low if high - low > 0.02 * max(abs(high), 1e-9) else float("inf")
        return "".join(_LEVELS[min(7, int(8 * (w - low) / span)) if span < float("inf") else 1] for w in watts)


def draw(moment: Moment, history: History, style: Style, *, keys: bool) -> list[str]:
    """Format the lines of a frame, none of which is wider than ``style.width``.

    Args:
        moment: What the frame shows.
        history: The rails' power in the frames before.
        style: What the terminal can show.
        keys: Whether keys are read; the last line then lists them.
    """
    mode = f"   {moment.power_mode}" if moment.power_mode else ""
    head = style.text(f" {moment.board}{mode}")
    if moment.total is not None:
        watts = quantity(moment.total.watts, "W") if moment.total.watts is not None else "no reading"
        origin = moment.total.channel.provenance
        right = f"{watts}   {quantity(moment.total.joules, 'J')} since start"
        right += f" ({origin})" if origin in {"estimated", "simulated"} else ""
    else:
        right = f"no total: {moment.reason}"
    gap = style.width - width(head) - width(right) - 1
    lines = [style.paint(head, "bold") + " " * max(3, gap) + style.text(right)]
    lines += _rail_lines(moment, history, style)
    facts = _fact_lines(moment)
    lines += [""] + [style.text(" " + line) for line in _fill_lines(facts, style.width - 2)] if facts else []
    lines += _model_lines(moment.models, style)
    lines.append(style.text(f" {_cost_line(moment.own_cost)}"))
    lines += [
        "",
        style.text(f" {_mark_line(moment.marked, moment.total)}" + ("    space: mark · q: quit" if keys else "")),
    ]
    return [_cut_to_width(line, style) for line in lines]


def document(moment: Moment, time_s: float) -> dict[str, Any]:
    """Describe a frame as ``edgeprof.top/1``, in SI units; None where a value is not known."""
    total, marked = moment.total, moment.marked
    return {
        "schema": SCHEMA,
        "time": time_s,
        "board": moment.board,
        "power_mode": moment.power_mode,
        "total": None if total is None else {"power_w": total.watts, "energy_j": total.joules, "gap_s": total.gap_s},
        "covers": moment.covers,
        "reason": moment.reason,
        "rails": [
            {
                "sensor": rail.channel.sensor,
                "channel": rail.channel.name,
                "parent": rail.channel.parent,
                "provenance": rail.channel.provenance,
                "power_w": rail.watts,
                "energy_j": rail.joules,
                "gap_s": rail.gap_s,
            }
            for rail in moment.rails
        ],
        "readings": [
            {"sensor": c.sensor, "channel": c.name, "quantity": c.quantity, "unit": c.unit, "value": value}
            for c, value in moment.others
        ],
        "throttling": list(moment.throttling),
        "marked": {
            "seconds": marked.seconds,
            "energy_j": marked.joules,
            "expanded_uncertainty_j": marked.expanded_uncertainty,
        },
        "models": [
            {"name": model.name, "rate_hz": model.rate_hz, "energy_j_per_inference": model.joules}
            for model in moment.models
        ],
        "self": {"cpu_ratio": moment.own_cost.cpu_ratio, "rss_bytes": moment.own_cost.rss_bytes},
    }


def _rail_lines(moment: Moment, history: History, style: Style) -> list[str]:
    rails = _nested_rails(moment.rails)
    most = max((rail.watts or 0.0 for rail in moment.rails), default=0.0)
    names = [style.text("  " * depth + _shorten_name(rail.channel.name)) for rail, depth in rails]
    name_width = max(map(width, names), default=0)
    lines = []
    for (rail, _), name in zip(rails, names, strict=True):
        watts = "–" if rail.watts is None else quantity(rail.watts, "W")
        place = f"inside {rail.channel.parent}" if rail.channel.parent else rail.channel.scope
        bar = _power_bar((rail.watts or 0.0) / most if most > 0 else 0.0)
        cells = [
            pad(name, name_width),
            pad(bar, _BAR + 1),
            f"{watts:>9}",
            pad(history.sparkline(rail.channel), _HISTORY),
        ]
        lines.append(" " + style.text("  ".join([*cells, place])).rstrip())
    return lines


def _nested_rails(rails: Sequence[RailReading]) -> list[tuple[RailReading, int]]:
    """Order the rails so that each follows the rail that contains it; return each with its depth."""
    names = {rail.channel.name for rail in rails}
    inside: dict[str | None, list[RailReading]] = {}
    for rail in rails:
        parent = rail.channel.parent
        inside.setdefault(parent if parent in names and parent != rail.channel.name else None, []).append(rail)
    ordered: list[tuple[RailReading, int]] = []
    shown: set[tuple[str, str, str]] = set()

    def add(rail: RailReading, depth: int) -> None:
        if rail.channel.key in shown:  # two rails may each claim to be inside the other
            return
        shown.add(rail.channel.key)
        ordered.append((rail, depth))
        for part in inside.get(rail.channel.name, []):
            add(part, depth + 1)

    for rail in inside.get(None, []):
        add(rail, 0)
    for rail in rails:
        add(rail, 0)
    return ordered


def _power_bar(share: float) -> str:
    eighths = round(max(0.0, min(1.0, share)) * _BAR * 8)
    return "█" * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths % 8 else "")


def _fact_lines(moment: Moment) -> list[str]:
    facts = []
    for channel, value in moment.others:
        if channel.quantity == "utilization":
            facts.append(f"{channel.name} {significant(100 * value, 2)} %")
        elif channel.quantity == "frequency":
            facts.append(f"{channel.name} {quantity(value, 'Hz')}")
        elif channel.quantity == "temperature":
            facts.append(f"{channel.name} {value:.0f} °C")
        elif channel.quantity == "memory":
            facts.append(f"{channel.name} {size(int(value))}")
    return [*facts, "; ".join(moment.throttling) or "not throttled"]


def _fill_lines(facts: Sequence[str], columns: int) -> list[str]:
    """Join the facts with dots, and wrap lines only between two facts."""
    lines = [""]
    for fact in facts:
        joined = f"{lines[-1]} · {fact}" if lines[-1] else fact
        if width(joined) > columns and lines[-1]:
            lines.append(fact)
        else:
            lines[-1] = joined
    return lines


def _model_lines(models: Sequence[ModelInProduction], style: Style) -> list[str]:
    """A line for each model in production: its rate, and the joules of an inference."""
    names = [style.text(_shorten_name(model.name)) for model in models]
    name_width = max(map(width, names), default=0)
    lines = []
    for model, name in zip(models, names, strict=True):
        joules = "" if model.joules is None else f"   {quantity(model.joules, 'J')} each"
        lines.append(f" {pad(name, name_width)}  {significant(model.rate_hz or 0.0, 3):>5}/s{style.text(joules)}")
    return lines


def _cost_line(cost: OwnCost) -> str:
    return f"edgeprof itself {significant(100 * cost.cpu_ratio, 2)} % of a core, {size(cost.rss_bytes)}"


def _mark_line(marked: Marked, total: RailReading | None) -> str:
    if marked.joules is None:
        return "since mark: nothing measures a total" if total is None else "since mark: no reading yet"
    if marked.expanded_uncertainty is None:
        joules = quantity(marked.joules, "J")
        return f"since mark  {joules} in {marked.seconds:.1f} s (the sensor states no limit of error)"
    return f"since mark  {plus_minus(marked.joules, marked.expanded_uncertainty, 'J')} in {marked.seconds:.1f} s"


def _shorten_name(name: str) -> str:
    if len(name) <= _LONGEST_NAME:
        return name
    half = (_LONGEST_NAME - 1) // 2
    return f"{name[:half]}…{name[-half:]}"


def _cut_to_width(line: str, style: Style) -> str:
    """Cut a line to the terminal's width: a longer line would push the frame down."""
    if width(line) <= style.width or "\x1b" in line:
        return line
    return line[: style.width - 1] + style.text("…")
