"""Every reason that a result may contain, declared once, with its severity.

Scripts read the code of a reason (``reasons[].code`` in the result file), so its values never change. A plugin may use
other codes, which count as ``Severity.DEGRADES``.
"""

from __future__ import annotations

from enum import Enum, IntEnum


class Severity(IntEnum):
    """The effect of a reason on its variant."""

    #: It says what a figure is or lacks; the other figures stay valid.
    REMARK = 0
    #: The figures exist but must be read with care.
    DEGRADES = 1
    #: No figure may be quoted, even if there are windows.
    FAILS = 2


class Code(str, Enum):
    """The code of a reason; it is a string, and equal to its text."""

    severity: Severity

    def __new__(cls, value: str, severity: Severity = Severity.DEGRADES) -> Code:  # noqa: PYI034 - Self came with Python 3.11
        member = str.__new__(cls, value)
        member._value_ = value
        member.severity = severity
        return member

    # An Enum hashes by its name and, in some versions, prints it; a code must behave like its text.
    __hash__ = str.__hash__

    def __str__(self) -> str:
        return str.__str__(self)

    def __format__(self, format_spec: str) -> str:
        return str.__format__(self, format_spec)

    # Remarks on what the figures are.
    ESTIMATED = "estimated", Severity.REMARK
    ESTIMATED_PART = "estimated_part", Severity.REMARK
    NET_UNCERTAIN = "net_uncertain", Severity.REMARK
    NO_IDLE = "no_idle", Severity.REMARK
    ONE_WINDOW = "one_window", Severity.REMARK
    GAIN_UNKNOWN = "gain_unknown", Severity.REMARK
    CORRELATED_WINDOWS = "correlated_windows", Severity.REMARK
    BEYOND_CALIBRATION = "beyond_calibration", Severity.REMARK
    FILTER_CONTRADICTED = "filter_contradicted", Severity.REMARK
    JUDGED_ON_CALIBRATION_DATA = "judged_on_calibration_data", Severity.REMARK
    JUDGED_ON_TRAINING_DATA = "judged_on_training_data"
    LATE = "late", Severity.REMARK
    DROPPED = "dropped", Severity.REMARK
    CUT_SHORT = "cut_short", Severity.REMARK
    STOPPED = "stopped", Severity.REMARK
    IN_PROCESS = "in_process", Severity.REMARK
    NO_PROFILE = "no_profile", Severity.REMARK
    CLIP_SHORTENED = "clip_shortened", Severity.REMARK
    NOT_REPEATABLE = "not_repeatable", Severity.REMARK
    NOT_SEPARABLE = "not_separable", Severity.REMARK
    STAGE_DIFFERS = "stage_differs", Severity.REMARK
    RATE_BEYOND_SOURCE = "rate_beyond_source", Severity.REMARK
    NO_PHASES = "no_phases", Severity.REMARK
    STAGES_CROSS = "stages_cross", Severity.REMARK
    STAGES_UNFINISHED = "stages_unfinished", Severity.REMARK
    STAGES_RENAMED = "stages_renamed", Severity.REMARK
    STAGES_LOST = "stages_lost", Severity.REMARK

    RANDOM_WEIGHTS = "random_weights", Severity.REMARK
    PHASES_DO_NOT_ADD_UP = "phases_do_not_add_up"
    SERVED_ELSEWHERE = "served_elsewhere"
    DEVICE_CLOCK = "device_clock"
    MEAN_LATENCY_ONLY = "mean_latency_only", Severity.REMARK
    RESYNCHRONISED = "resynchronised", Severity.REMARK

    # Disturbances of the run.
    THROTTLED = "throttled"
    UNDERVOLTAGE = "undervoltage"
    CLOCK_DRIFT = "clock_drift"
    UNSTEADY_CLOCKS = "unsteady_clocks"
    COMPETING_LOAD = "competing_load"
    SHARED_DEVICE = "shared_device"
    IDLE_DRIFT = "idle_drift"
    NOT_STEADY = "not_steady"
    SATURATED = "saturated"
    LAUNCH_BOUND = "launch_bound"
    TRANSFER_BOUND = "transfer_bound"
    STATE_KEPT = "state_kept"
    INTERRUPTED = "interrupted"
    FAST_SENSOR = "fast_sensor"

    # Missing figures.
    NO_SENSOR = "no_sensor"
    SENSOR_FAILED = "sensor_failed"
    GAPS = "gaps"
    COUNTER_RESET = "counter_reset"
    COUNTER_JUMPED = "counter_jumped"
    UNCERTAIN = "uncertain"
    NO_CPU_TIME = "no_cpu_time"
    NO_INFERENCES = "no_inferences"
    NO_ACCURACY = "no_accuracy"

    # Causes of a failed variant; the worker's last words have the details.
    NAN_OUTPUT = "nan_output", Severity.FAILS
    BAD_OUTPUT = "bad_output", Severity.FAILS
    CRASHED = "crashed", Severity.FAILS
    TIMEOUT = "timeout", Severity.FAILS
    OUT_OF_MEMORY = "out_of_memory", Severity.FAILS
    LOAD_FAILED = "load_failed", Severity.FAILS
    DIVERGED = "diverged", Severity.FAILS
    CHANGED_NOTHING = "changed_nothing", Severity.FAILS

    # Other statements on a variant or a study.
    DIAGNOSIS = "diagnosis"
    RECOMMENDATION = "recommendation", Severity.REMARK
    REQUIREMENT = "requirement", Severity.REMARK
    BUDGET = "budget", Severity.REMARK
    NOT_MEASURED = "not_measured", Severity.REMARK
    NOT_CHECKED = "not_checked", Severity.REMARK


def severity_of(code: str) -> Severity:
    """The severity of a reason; an unknown code degrades."""
    try:
        return Code(code).severity
    except ValueError:
        return Severity.DEGRADES
