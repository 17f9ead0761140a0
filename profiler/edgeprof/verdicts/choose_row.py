"""Judge one row of a choice: a host in one power mode with one model, checked against each requirement.

The functions are pure. Each requirement gets one of four verdicts: *yes* and *no* were measured, *unsure* means that an
interval contains the limit, and *unknown* means that nothing was measured; the remedy then is the command that measures
it. A row is no better than its worst requirement, so an unknown never becomes a yes.
"""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edgeprof import units
from edgeprof.reasons import Code
from edgeprof.results.schema import model_name, variant_label, workload_view
from edgeprof.verdicts.cost import is_usable
from edgeprof.verdicts.product_power import Draw, draw
from edgeprof.worker.scenario import OPEN
from edgeprof.worker.workload import INFERENCE

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeprof.results.schema import Result, Variant
    from edgeprof.verdicts.requirements import Device, Requirements

Answer = Literal["yes", "no", "unsure", "unknown"]
#: How joules were obtained, as far as it decides which rows may be compared.
Origin = Literal["measured", "estimated", "simulated", "none"]

#: Coverages of a headline that include everything that a battery feeds.
WHOLE = ("board", "wall")
#: Largest relative difference of two rates that count as the same.
_SAME_RATE = 0.01
#: Windows of the suggested commands, and requests for which p99 is bounded even if some are slow (662 if none is).
_WINDOWS, _CALLS_FOR_P99 = 5, 1000


@dataclass(frozen=True)
class Check:
    """The verdict on one requirement of one row.

    Attributes:
        requirement: ``rate``, ``latency``, ``accuracy``, ``memory``, ``sustained``, ``battery``, ``power``, ``price``.
        answer: The verdict.
        sentence: The figures that it rests on.
        remedy: If it is unknown, the command that measures it, or what to add to the requirements.
        acceptable: The limit that would give a yes, in the requirement's unit; None if it is not known.
    """

    requirement: str
    answer: Answer
    sentence: str
    remedy: str | None = None
    acceptable: float | None = None


@dataclass(frozen=True)
class Entry:
    """A variant, together with its result.

    Attributes:
        result: The result.
        variant: One of its variants.
        is_of_fleet: Whether a fleet measured it, so that the fleet's commands measure what is missing.
    """

    result: Result
    variant: Variant
    is_of_fleet: bool = False

    @property
    def rate_hz(self) -> float | None:
        """The rate of an open scenario, in units of work per second; None for any other scenario."""
        protocol = self.result.protocol
        if protocol.scenario not in OPEN or protocol.rate_hz is None:
            return None
        workloads = self.variant.workloads
        return protocol.rate_hz * (workloads[0].units_per_call if workloads else protocol.batch)

    def runs_at(self, rate_hz: float) -> bool:
        return self.rate_hz is not None and abs(self.rate_hz / rate_hz - 1) <= _SAME_RATE

    @property
    def origin(self) -> Origin:
        energy = self.variant.energy_j_per_inference
        if energy is None:
            return "none"
        return "measured" if energy.provenance == "counter" else energy.provenance


@dataclass(frozen=True)
class Row:
    """One way to build the product, and what is known about it.

    Attributes:
        board, hostname, power_mode, model, variant, runtime: The parts that identify it.
        origin: How its joules were obtained.
        covers: What the joules cover; None if there are none.
        device: The owner's entry for the device.
        checks: The verdict on each requirement.
        draw: The product's mean power; None if it is not known.
        results: Ids of the results that it rests on, newest first.
        notes: Further sentences for the reader.
    """

    board: str
    hostname: str
    power_mode: str | None
    model: str
    variant: str
    runtime: str
    origin: Origin
    covers: str | None
    device: Device | None
    checks: tuple[Check, ...]
    draw: Draw | None
    results: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def answer(self) -> Answer:
        """The worst of its requirements: a no before an unknown, an unknown before an unsure."""
        answers = {check.answer for check in self.checks}
        return next((answer for answer in ("no", "unknown", "unsure") if answer in answers), "yes")

    @property
    def is_whole(self) -> bool:
        """Whether its watts include all that a battery feeds, by the rail itself or by what the owner added."""
        return self.covers in WHOLE or (self.device is not None and self.device.outside_w is not None)

    @property
    def group(self) -> tuple[Origin, str]:
        """Rows of one group may be ordered by watts."""
        added = self.device is not None and self.device.outside_w is not None
        return self.origin, "owner's sum" if added and self.covers else self.covers or "unknown"

    def hours_ci95(self, asked: Requirements) -> tuple[float, float] | None:
        if self.draw is None or asked.usable_wh is None:
            return None
        return self.draw.hours_ci95(asked.usable_wh)


def title(row: Row) -> str:
    """Name a row in a sentence, as ``Raspberry Pi 5, resnet8 int8``."""
    mode = f" in {row.power_mode}" if row.power_mode else ""
    return f"{row.board}{mode}, {variant_label(row.model, row.variant)}"


@dataclass
class Judge:
    """Judges one row.

    Args:
        entries: All evidence of the row, newest first.
        asked: The requirements.
        origin: How the row's joules were obtained.
        covers: What they cover.
    """

    entries: list[Entry]
    asked: Requirements
    origin: Origin
    covers: str | None
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.newest = self.entries[0]
        self.usable = [seen for entry in self.entries if is_usable(entry.variant) and (seen := self._seen(entry))]
        host = self.newest.result.host
        self.device = self.asked.device(host.board, host.hostname)
        self.power, self.power_entry, self.why_no_power = self._product_power()

    def _seen(self, entry: Entry) -> Entry | None:
        """The entry with the figures of the workload that is asked for; None if it was not measured."""
        name = self.asked.workload
        view = workload_view(entry.variant, name)
        if view is None and not entry.variant.workloads and name == INFERENCE.name:
            view = entry.variant  # a result of edgeprof 0.1 has no workloads; its figures are per inference
        return None if view is None else Entry(entry.result, view)

    def row(self) -> Row:
        result, variant = self.newest.result, self.newest.variant
        runtime = variant.runtime
        checks = self._all_checks()
        if self.power_entry is not None:
            self._note_conditions(self.power_entry)
        return Row(
            board=result.host.board,
            hostname=result.host.hostname,
            power_mode=result.host.power_mode or result.host.governor,
            model=model_name(variant.model),
            variant=variant.name,
            runtime=f"{runtime.name} {runtime.device}" if runtime else "",
            origin=self.origin,
            covers=self.covers,
            device=self.device,
            checks=tuple(self._cap_answer(check) for check in checks),
            draw=self.power,
            results=tuple(dict.fromkeys(entry.result.id for entry in self.entries)),
            notes=tuple(self.notes),
        )

    def _all_checks(self) -> list[Check]:
        asked = self.asked
        if not self.usable:
            return [Check("measured", "unknown", self._why_unusable(), self.command())]
        checks = [self._check_rate()]
        if asked.latency_p99_s is not None:
            checks.append(self._check_latency(asked.latency_p99_s))
        if asked.metric is not None:
            checks.append(self._check_accuracy())
        if asked.memory_bytes is not None:
            checks.append(self._check_memory(asked.memory_bytes))
        if asked.sustained_s is not None:
            checks.append(self._check_sustained(asked.sustained_s))
        if asked.hours is not None:
            checks.append(self._check_battery(asked.hours))
        if asked.max_w is not None:
            checks.append(self._max_power(asked.max_w))
        if asked.max_price is not None:
            checks.append(self._check_price(asked.max_price))
        return checks

    def _cap_answer(self, check: Check) -> Check:
        """Turn a yes into an unknown if it rests on a virtual board, or on estimated joules."""
        rests_on_joules = check.requirement in {"battery", "power"}
        if check.answer not in {"yes", "unsure"} or check.requirement == "price":
            return check
        if self.origin == "simulated" or (self.origin == "estimated" and rests_on_joules):
            word = "simulated" if self.origin == "simulated" else "estimated"
            remedy = self._power_command() if rests_on_joules else self.command()
            return Check(
                check.requirement,
                "unknown",
                f"{check.sentence}, {word} and not measured",
                remedy,
                check.acceptable,
            )
        return check

    def _why_unusable(self) -> str:
        workload = self.asked.workload
        if any(is_usable(entry.variant) for entry in self.entries):
            return f"the workload {workload} was not measured"
        why = next((reason.message for reason in self.newest.variant.reasons), "it has no figures")
        return f"it could not be measured: {why}"

    def _note_conditions(self, entry: Entry) -> None:
        if self.asked.duty < 1 and self.asked.sleep_w is None:
            self.notes.append("idle power is assumed for the time asleep")
        if entry.variant.throttled:
            self.notes.append("the device throttled while its joules were measured")

    # --- each requirement ---

    def _check_rate(self) -> Check:
        rate = self.asked.rate_hz
        dropped = [e for e in self.usable if e.runs_at(rate) and e.variant.workloads and e.variant.workloads[0].dropped]
        if dropped:
            count = dropped[0].variant.workloads[0].dropped
            return Check("rate", "no", f"{count} calls were dropped at {rate:g} a second")
        highest = next((max_rate for entry in self.usable if (max_rate := _max_rate(entry)) is not None), None)
        if highest is None:
            return Check("rate", "unknown", "the highest rate was not measured", self.command())
        sentence = f"at most {units.significant(highest)} a second"
        if rate <= highest:
            return Check("rate", "yes", sentence)
        return Check("rate", "no", f"{sentence}, asked {rate:g}", acceptable=highest)

    def _check_latency(self, limit: float) -> Check:
        rate, wanted = self.asked.rate_hz, f"asked {units.quantity(limit, 's')}"
        for entry in self.usable:
            latency = entry.variant.latency_s
            if entry.runs_at(rate) and latency is not None and latency.p99 is not None:
                sentence = f"p99 {units.quantity(latency.p99, 's')} at {rate:g} a second"
                if latency.p99 <= limit:
                    return Check("latency", "yes", sentence)
                return Check("latency", "no", f"{sentence}, {wanted}", acceptable=latency.p99)
        for entry in self.usable:
            latency = entry.variant.latency_s
            if entry.result.protocol.scenario == "single-stream" and latency is not None:
                bound = latency.p99 or latency.median
                if bound is not None and bound > limit:
                    return Check("latency", "no", f"{units.quantity(bound, 's')} already without a wait, {wanted}")
        sentence = f"p99 was not measured at {rate:g} a second"
        if any(entry.runs_at(rate) for entry in self.usable):
            sentence = f"the benchmark at {rate:g} a second had too few requests to bound p99"
        window_s = max(2, math.ceil(_CALLS_FOR_P99 / _WINDOWS / self._calls_hz()))
        return Check("latency", "unknown", sentence, self._at_the_rate(window_s))

    def _at_the_rate(self, window_s: float) -> str:
        """The command that measures at the product's rate in windows of ``window_s`` seconds."""
        rate = ("--scenario", "periodic", "--rate", f"{self._calls_hz():g}")
        return self.command(*rate, "--windows", str(_WINDOWS), "--window", f"{window_s:g}")

    def _calls_hz(self) -> float:
        workloads = self.usable[0].variant.workloads
        return self.asked.rate_hz / (workloads[0].units_per_call if workloads else self.usable[0].result.protocol.batch)

    def _check_accuracy(self) -> Check:
        asked = self.asked
        score = next(
            (s for e in self.usable if (s := e.variant.accuracy) is not None and s.metric == asked.metric), None
        )
        if score is None:
            extra = ("--dataset", "DATA", "--metric", asked.metric or "")
            return Check("accuracy", "unknown", f"{asked.metric} was not measured", self.command(*extra))
        low, high = score.ci95 or (-math.inf, math.inf)
        text = f"{asked.metric} {units.significant(score.value)}"
        text += f" ({units.significant(low)} to {units.significant(high)})" if score.ci95 else " without an interval"
        if (asked.accuracy_min is not None and high < asked.accuracy_min) or (
            asked.accuracy_max is not None and low > asked.accuracy_max
        ):
            answer: Answer = "no"
        elif (asked.accuracy_min is None or low >= asked.accuracy_min) and (
            asked.accuracy_max is None or high <= asked.accuracy_max
        ):
            return Check("accuracy", "yes", text)
        else:
            answer = "unsure"
        limits = [
            f"{word} {limit:g}"
            for word, limit in (("at least", asked.accuracy_min), ("at most", asked.accuracy_max))
            if limit is not None
        ]
        acceptable = low if asked.accuracy_min is not None else high
        return Check(
            "accuracy",
            answer,
            f"{text}, asked {' and '.join(limits)}",
            acceptable=acceptable if math.isfinite(acceptable) else None,
        )

    def _check_memory(self, limit: float) -> Check:
        used = next((m for e in self.usable if (m := e.variant.memory_bytes) and m.peak_rss is not None), None)
        if used is None or used.peak_rss is None:
            return Check("memory", "unknown", "the peak memory was not measured", self.command())
        most = used.peak_rss + (used.gpu_peak or 0)
        text = f"{units.size(used.peak_rss)}" + (
            f" and {units.size(used.gpu_peak)} of the GPU" if used.gpu_peak else ""
        )
        if most <= limit:
            return Check("memory", "yes", text)
        text += f", asked {units.size(round(limit))}"
        if used.peak_rss <= limit:
            return Check("memory", "unsure", f"{text}; the GPU's may be the same memory", acceptable=most)
        return Check("memory", "no", text, acceptable=most)

    def _check_sustained(self, seconds: float) -> Check:
        rate, longest = self.asked.rate_hz, 0.0
        for entry in self.usable:
            variant, lasted = entry.variant, _windows_seconds(entry.variant)
            holds = entry.runs_at(rate) or _slowest_rate(variant) >= rate
            if entry.runs_at(rate) and variant.throttled:
                return Check("sustained", "no", f"it throttled at {rate:g} a second")
            if holds and variant.throttled is False and (variant.steady is None or variant.steady.reached):
                longest = max(longest, lasted)
        wanted = units.duration(seconds)
        if longest >= seconds:
            return Check("sustained", "yes", f"the rate held {units.duration(longest)} without throttling")
        seen = f"only {units.duration(longest)}" if longest else "not"
        command = self._at_the_rate(math.ceil(1.25 * seconds / _WINDOWS))
        return Check(
            "sustained", "unknown", f"the rate was {seen} seen to hold without throttling, asked {wanted}", command
        )

    def _check_battery(self, hours: float) -> Check:
        usable_wh = self.asked.usable_wh or 0.0
        if self.power is None:
            return Check("battery", "unknown", self.why_no_power, self._power_command())
        interval = self.power.hours_ci95(usable_wh)
        text = f"{units.significant(self.power.hours(usable_wh))} h"
        if interval is not None:
            text += f" ({units.significant(interval[0])} to {units.significant(interval[1])})"
        acceptable = hours * self.power.ci95[1] if self.power.ci95 else None
        return self._by_interval(
            "battery",
            text,
            f"asked {hours:g} h",
            None if interval is None else (interval[0] >= hours, interval[1] < hours),
            acceptable,
        )

    def _max_power(self, limit: float) -> Check:
        if self.power is None:
            return Check("power", "unknown", self.why_no_power, self._power_command())
        interval = self.power.ci95
        text = f"{units.significant(self.power.watts)} W"
        if interval is not None:
            text += f" ({units.significant(interval[0])} to {units.significant(interval[1])})"
        holds = None if interval is None else (interval[1] <= limit, interval[0] > limit)
        return self._by_interval("power", text, f"asked {limit:g} W", holds, interval[1] if interval else None)

    def _by_interval(
        self, name: str, text: str, wanted: str, holds: tuple[bool, bool] | None, acceptable: float | None
    ) -> Check:
        """Judge an interval; ``holds`` says whether all of it meets the limit, and whether none of it does."""
        if holds is None:
            why = self.power.why_no_interval if self.power else ""
            return Check(name, "unknown", f"{text}, {wanted}, but {why}", self._power_command())
        if holds[1]:
            return Check(name, "no", f"{text}, {wanted}", acceptable=acceptable)
        if not self._is_whole():
            return Check(
                name,
                "unknown",
                f"{text} for the {self.covers or 'part'} alone: what it leaves out is not known",
                f"Add outside_w to [devices.NAME] for {self.newest.result.host.board} (carrier, camera, modem).",
                acceptable,
            )
        one_window = self.power_entry is not None and any(
            reason.code == Code.ONE_WINDOW for reason in self.power_entry.variant.reasons
        )
        if holds[0] and not one_window:
            return Check(name, "yes", text)
        text += ", from a single window" if one_window else ""
        return Check(name, "unsure", f"{text}, {wanted}", acceptable=acceptable)

    def _is_whole(self) -> bool:
        return self.covers in WHOLE or (self.device is not None and self.device.outside_w is not None)

    def _check_price(self, limit: float) -> Check:
        price = self.device.price if self.device else None
        if price is None:
            remedy = f"Add price to [devices.NAME] for {self.newest.result.host.board}."
            return Check("price", "unknown", "the price is not given", remedy)
        if price <= limit:
            return Check("price", "yes", f"{price:g}")
        return Check("price", "no", f"{price:g}, asked at most {limit:g}", acceptable=price)

    # --- power ---

    def _product_power(self) -> tuple[Draw | None, Entry | None, str]:
        """The product's power, from the entry whose rate is nearest to the product's, or why it is not known."""
        outside = self.device.outside_w or 0.0 if self.device else 0.0
        why = "no energy was measured"
        order: Callable[[Entry], int] = lambda e: (  # noqa: E731 - a key with its name
            0 if e.runs_at(self.asked.rate_hz) else 1 if e.result.protocol.scenario == "single-stream" else 2
        )
        for entry in sorted((e for e in self.usable if e.origin != "none"), key=order):
            drawn = draw(entry.variant, self.asked, outside)
            if isinstance(drawn, Draw):
                return drawn, entry, ""
            why = drawn
        return None, None, why

    def _power_command(self) -> str:
        if self.origin in {"estimated", "none"}:  # another benchmark would not measure joules either
            return "edgeprof doctor (it says which sensor or meter would measure joules here)"
        return self.command("--windows", str(_WINDOWS), "--idle", "10")

    def command(self, *more: str) -> str:
        """The ``edgeprof bench`` command for this row, with further words at its end."""
        result, variant = self.newest.result, self.newest.variant
        if self.newest.is_of_fleet:  # the path is the device's, where the file is kept for one job alone
            words = ["edgeprof", "fleet", "bench", Path(variant.model.path).name, "--on", result.host.hostname]
        else:
            words = ["edgeprof", "bench", variant.model.path]
        if variant.runtime is not None:
            words += ["--runtime", variant.runtime.name, "--device", variant.runtime.device]
            if variant.runtime.threads is not None:
                words += ["--threads", str(variant.runtime.threads)]
        if result.protocol.batch != 1:
            words += ["--batch", str(result.protocol.batch)]
        return shlex.join([*words, *more])


def _max_rate(entry: Entry) -> float | None:
    """The highest rate, in units of work per second without pauses; None if it was not measured."""
    energy = entry.variant.energy_j_per_inference
    if energy is not None and energy.marginal is not None:
        return energy.marginal.max_rate_hz
    return entry.variant.throughput_per_s if entry.result.protocol.scenario == "single-stream" else None


def _windows_seconds(variant: Variant) -> float:
    """The total length of all windows (s)."""
    return math.fsum(window.end_s - window.start_s for window in variant.windows)


def _slowest_rate(variant: Variant) -> float:
    """The rate of the slowest window, in units of work per second."""
    rates = [w.inferences / (w.end_s - w.start_s) for w in variant.windows if w.end_s > w.start_s]
    return min(rates, default=0.0)
