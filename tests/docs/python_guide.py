"""The code of docs/python.md, as a user writes it: checked by mypy --strict, and run by test_python_guide.py."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

if sys.version_info >= (3, 11):
    from typing import assert_type
else:
    from typing_extensions import assert_type

import edgeprof

if TYPE_CHECKING:
    from collections.abc import Sequence


def model(frame: object) -> object:
    time.sleep(0.005)
    return frame


frames: Sequence[object] = range(60)


def block() -> None:
    # region: record
    import edgeprof

    with edgeprof.record() as recording:
        recording.idle(2.0)
        with recording.span("detect", count=len(frames), unit="frame"):
            for frame in frames:
                model(frame)

    print(recording.quote("detect"))
    # endregion
    quote = recording.quote("detect")
    assert_type(quote.value, float | None)
    assert_type(quote.uncertainty, float | None)
    assert_type(quote.budget, dict[str, float])


def parts() -> None:
    # region: quote
    with edgeprof.record() as recording:
        for _ in range(3):
            with recording.span("detect", count=len(frames), unit="frame"):
                for frame in frames:
                    model(frame)

    quote = recording.quote("detect")
    print(quote.value, "J/frame ±", quote.uncertainty)
    print(quote.provenance, quote.rail, quote.budget)
    for reason in quote.reasons:
        print(reason.code, reason.message, reason.remedy)
    everything = quote.to_dict()
    # endregion
    assert_type(everything, dict[str, Any])


def nested() -> None:
    # region: nested
    with edgeprof.record() as recording, recording.span("pipeline", count=len(frames), unit="frame"):
        with recording.span("load"):
            images = list(frames)
        with recording.span("detect", unit="frame") as span:
            for image in images:
                model(image)
            span.count = len(images)
    # endregion
    assert [key for (key,) in recording.recorded_keys()] == ["load", "detect", "pipeline"]


def measured_block() -> None:
    # region: measure
    with edgeprof.measure("detect", count=len(frames), unit="frame", idle_s=2.0) as measured:
        for frame in frames:
            model(frame)

    print(measured.quote())
    # endregion


# region: decorate
@edgeprof.measure(unit="frame")
def detect(frame: object) -> object:
    return model(frame)


# endregion


def measured_function() -> None:
    # region: decorated
    with edgeprof.record():
        for frame in frames:
            detect(frame)

    print(detect.quote())
    # endregion
    if TYPE_CHECKING:
        assert_type(detect(1), object)


def classify() -> None:
    model(None)


def benchmark() -> None:
    # region: bench
    result = edgeprof.bench({"classify": classify}, preset="quick")
    print(result)
    for row in result.to_rows():
        print(row["variant"], row["energy_gross_j"], row["latency_p50_s"])
    # endregion
    assert_type(result, edgeprof.Result)
    assert_type(result.to_rows(), list[dict[str, Any]])


def stored() -> None:
    # region: stored
    last = edgeprof.load("last")
    for pair in edgeprof.compare(last, last).pairs:
        print(pair.variant.name, pair.comparison.verdict)
    # endregion
    assert_type(last, edgeprof.Result)


def looked_at() -> None:
    # region: sensors
    for reading in edgeprof.sensors():
        if reading.in_headline:
            print(reading.channel.name, reading.power_w, "W")
    # endregion
