"""A variant's GPU figures come only from readings within its windows, and are unknown without readings."""

from __future__ import annotations

from array import array
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgeprof.benchmark import assemble
from edgeprof.benchmark.records import WorkloadRecord
from edgeprof.results import schema
from edgeprof.sensing.sensor import Channel
from edgeprof.worker.scenario import Window
from edgeprof.worker.span import WINDOW, Span
from edgeprof.worker.workload import INFERENCE

SPANS = [Span(WINDOW, 1.0, 2.0), Span(WINDOW, 3.0, 4.0)]
CLOCK = Channel("nvml", "gpu0", "frequency", scope="gpu")
REASONS = Channel("nvml", "gpu0-throttle-reasons", "count", scope="gpu")
COUNTER = Channel("nvml", "gpu0", "energy", kind="counter", scope="gpu")


def sampled(**readings: Any) -> Any:
    """Return sampled channels, given (times, values) for each."""
    channels = {"clock": CLOCK, "reasons": REASONS, "energy": COUNTER}
    found = {channels[name].key: given for name, given in readings.items()}

    def of(quantity: str) -> list[Channel]:
        return [c for c in channels.values() if c.quantity == quantity and c.key in found]

    def series(key: Any) -> Any:
        times, values = found[key]
        return SimpleNamespace(times=np.array(times, float), values=np.array(values, float))

    return SimpleNamespace(of=of, trace=SimpleNamespace(readings=series))


def record(device: str = "cuda", *, queued: bool = False) -> Any:
    windows = [Window(span, 1, array("d"), 1.0, 1.0, queued=queued) for span in SPANS]
    main = WorkloadRecord(INFERENCE, windows=windows, device_times=[{}, {}])
    return SimpleNamespace(options=SimpleNamespace(device=device), main=main, loaded=None, gpu_process_bytes=1 << 20)


def variant(rails: dict[str, float] | None = None, provenance: Any = "measured") -> schema.Variant:
    figure = schema.EnergyFigure(value=0.5, expanded_uncertainty=None, ci95=None)
    energy = schema.Energy(
        provenance=provenance, rail="VDD_IN", covers="board", gross=figure, net=figure, rails=rails or {}
    )
    model = schema.Model(path="m", format="tensorrt", sha256=None, size_bytes=1)
    return schema.Variant(
        name="v", recipe=[], status="ok", reasons=[], model=model, runtime=None, energy_j_per_inference=energy
    )


def test_clock_and_reasons_are_those_of_the_windows():
    clock = ([0.5, 1.5, 1.6, 2.5, 3.5, 3.6], [9e9, 1e9, 1.2e9, 9e9, np.nan, 1.4e9])
    reasons = ([0.5, 1.5, 3.5], [0x80, 0x4, 0x40])
    gpu = assemble._gpu_figures(variant(), record(), sampled(clock=clock, reasons=reasons))
    assert gpu is not None
    assert gpu.clock_hz == schema.Clock(min=1e9, median=1.2e9, max=1.4e9)
    assert gpu.throttle_reasons == ["the power limit", "heat, by the hardware"]
    assert gpu.memory_bytes == 1 << 20
    assert gpu.compute_s is None


def test_the_gpus_own_joules_stand_beside_the_headlines_and_estimates_give_none():
    some = sampled(energy=([1.0], [1.0]))
    gpu = assemble._gpu_figures(variant({"gpu0": 0.125, "VDD_IN": 0.5}), record(), some)
    assert gpu is not None
    assert gpu.energy_j_per_inference == pytest.approx(0.125)
    gpu = assemble._gpu_figures(variant({"gpu0": 0.125}, "estimated"), record(), some)
    assert gpu is not None
    assert gpu.energy_j_per_inference is None


def test_the_queue_is_what_the_windows_had_and_a_cpu_has_no_gpu():
    empty, full = (assemble._gpu_figures(variant(), record(queued=queued), sampled()) for queued in (False, True))
    assert empty is not None
    assert full is not None
    assert (empty.queue, full.queue) == ("empty", "full")
    assert empty.clock_hz is None
    assert empty.energy_j_per_inference is None
    for device in ("cpu", "openvino", "xnnpack", "edgetpu:0"):  # a GPU beside them is not theirs
        assert assemble._gpu_figures(variant(), record(device), sampled(clock=([1.5], [1e9]))) is None
    for device in ("cuda:1", "tensorrt", "openvino:GPU", "CUDAExecutionProvider", "mps"):
        assert assemble._gpu_figures(variant(), record(device), sampled()) is not None
