"""A small result for the tests of reporters and exporters; its numbers are made up."""

from __future__ import annotations

from edgeprof.reasons import Code
from edgeprof.results import schema


def example_result() -> schema.Result:
    """A result of two variants: the joules of the first are measured, and those of the second are unknown."""
    return schema.Result(
        id="20260101T120000Z-example",
        created="2026-01-01T12:00:00Z",
        edgeprof="0",
        host=schema.Host(
            board="an example", hostname="example", arch="aarch64", cpu="Cortex-A76", cores=4, memory_bytes=None,
            kernel="", os="", power_mode=None, governor=None, fingerprint="",
        ),
        sensors=[],
        protocol=schema.Protocol(
            scenario="single-stream", batch=1, threads=None, windows=2, window_s=1.0, warmup_s=0.0, idle_s=0.0,
            interleave="blocks", sample_rate_hz=10.0,
        ),
        variants=[_variant("known", _energy()), _variant("unknown", None)],
    )  # fmt: skip


def _energy() -> schema.Energy:
    gross = schema.EnergyFigure(value=0.012, expanded_uncertainty=0.001, ci95=(0.011, 0.013), windows=[0.0118, 0.0122])
    net = schema.EnergyFigure(value=0.007, expanded_uncertainty=0.001, ci95=(0.006, 0.008), windows=[0.0069, 0.0071])
    return schema.Energy(provenance="measured", rail="VDD_IN", covers="board", gross=gross, net=net)


def _variant(name: str, energy: schema.Energy | None) -> schema.Variant:
    reasons = [] if energy else [schema.Reason(code=Code.NO_SENSOR, message="this example has no sensor for it")]
    return schema.Variant(
        name=name,
        recipe=[],
        status="ok",
        reasons=reasons,
        model=schema.Model(path=f"{name}.onnx", format="onnx", sha256=None, size_bytes=None),
        runtime=None,
        inferences=100,
        energy_j_per_inference=energy,
    )
