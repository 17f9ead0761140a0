"""The parts of a result that describe its circumstances: reasons, host, sensors, protocol, model, proof."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from edgeprof.provenance import Provenance

Status = Literal["ok", "degraded", "invalid", "failed"]
Verdict = Literal["better", "worse", "tied", "not_comparable"]
Interval = tuple[float, float]


class Struct(msgspec.Struct, kw_only=True):
    """The base of all structures; every field is written, so that an unknown value is null and never absent."""


class Reason(Struct):
    """Why something is missing, degraded or worth knowing.

    Attributes:
        code: The name for programs: ``throttled``, ``idle_drift``, ``gaps``, ``not_steady``, ``saturated``,
            ``no_sensor`` …
        message: One sentence with the numbers.
        remedy: What the user can do about it, if anything.
    """

    code: str
    message: str
    remedy: str | None = None


class Host(Struct):
    board: str
    hostname: str
    arch: str
    cpu: str
    cores: int
    memory_bytes: int | None
    kernel: str
    os: str
    power_mode: str | None
    governor: str | None
    fingerprint: str
    #: Everything else that must agree for two results to be comparable, and other notable facts: name → value.
    context: dict[str, str] = {}


class SensorUse(Struct):
    """One channel as it was sampled during the run."""

    sensor: str
    channel: str
    quantity: str
    unit: str
    scope: str
    role: str | None
    parent: str | None
    provenance: Provenance
    resolution: float | None
    update_interval_s: float | None
    rate_hz: float | None
    samples: int
    missed: int
    max_gap_s: float | None
    filter: dict[str, Any] | None = None
    calibration: dict[str, Any] | None = None
    reason: str | None = None
    #: The finding of the newest ``doctor --prove`` on the channel: ``date`` (ISO 8601) and ``verdict`` (``passed``,
    #: ``failed``, ``cannot_tell``); None if the board was not proved
    proved: dict[str, str] | None = None


class SelfCost(Struct):
    """The cost of measuring: the sampler's own CPU share and memory."""

    cpu_ratio: float | None = None
    rss_bytes: int | None = None
    added_latency_s: float | None = None


class Protocol(Struct):
    scenario: str
    batch: int
    threads: int | None
    windows: int
    window_s: float
    warmup_s: float
    idle_s: float
    interleave: str
    sample_rate_hz: float
    preset: str = "default"
    rate_hz: float | None = None
    streams: int | None = None
    seed: int = 0
    #: "random", or the file that the inputs came from
    inputs: str = "random"
    #: How many frames could wait in the scenario ``periodic``.
    queue: int = 0


class Model(Struct):
    """A model file.

    Attributes:
        path: The path that the user gave, or an application's ``module:attribute``.
        format: The format recognised from the content: ``onnx``, ``tflite`` …; ``unknown`` if the file is not a model.
        sha256: The hash of the file's bytes, hexadecimal.
        size_bytes: The size of the file on disk.
        size_compressed_bytes: The size after deflate compression, as in a download or an update.
        name: The model's name without its variant: the same for a model and everything that was made from it.
    """

    path: str
    format: str
    sha256: str | None
    size_bytes: int | None
    size_compressed_bytes: int | None = None
    name: str | None = None


class RuntimeUse(Struct):
    name: str
    version: str | None
    device: str
    threads: int | None
    options: dict[str, str] = {}
    facts: dict[str, str] = {}
    load_s: float | None = None


class ProofCheck(Struct):
    """One figure of ``doctor --prove`` and its verdict (``calibration.proof.Check``)."""

    name: str
    subject: str
    #: ``passed``, ``failed`` or ``cannot_tell``
    verdict: str
    detail: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    unit: str = ""
    stated: float | None = None
    needs_s: float | None = None
    remedy: str | None = None


class Proof(Struct):
    """The newest finding of ``doctor --prove`` on the board when the result was made (``edgeprof.prove/1``)."""

    board: str
    rail: str | None
    date: str
    verdict: str
    seconds: float | None = None
    believable: float | None = None
    gain_limit: float | None = None
    checks: list[ProofCheck] = []


def model_name(model: Model) -> str:
    """Return the model's name for lists, labels and pairs: its own name, or by default the stem of its path.

    >>> model_name(Model(path="zoo/resnet8.tflite", format="tflite", sha256=None, size_bytes=None))
    'resnet8'
    """
    if model.name:
        return model.name
    base = model.path.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]
    stem, dot, _ = base.rpartition(".")
    return stem if dot and stem else base or model.path


def variant_label(model: str, variant: str) -> str:
    """Name a variant together with its model, unless its name contains that of the model.

    >>> variant_label("resnet8", "int8-static"), variant_label("detect", "detect.py:yolov8n")
    ('resnet8 int8-static', 'detect.py:yolov8n')
    """
    return variant if model in variant else f"{model} {variant}"
