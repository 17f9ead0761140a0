"""One device, or a few side by side: what uses the energy, how hot the device is, and what throttles it."""

from __future__ import annotations

from edgeprof_boards.dashboard import Dashboard, Panel, Row
from edgeprof_boards.queries import increase, of, rate
from edgeprof_boards.shapes import bars, stat, states, table
from edgeprof_boards.style import DASHED, GREEN, HEAT_LEVELS, RED, YELLOW
from edgeprof_dashboards.preview.panels import Override, Query

_SHARE = ((None, GREEN), (0.8, YELLOW), (0.95, RED))
_ALARM = ((None, GREEN), (1.0, RED))

OVERVIEW = Row(
    "Now",
    (
        stat(
            "Power",
            "Power of the device: what its energy counter grew by, so that no burst between two scrapes is missed. "
            "What it covers (module, package, board) is in the panel Device; the name says how it was measured.",
            f"sum by (instance, provenance) ({rate('edgeprof_device_energy_joules_total')})",
            "{{instance}} ({{provenance}})",
            unit="watt",
        ),
        stat(
            "Energy today",
            "Energy of the device since midnight. Prometheus estimates the ends of the range from the scrapes next "
            "to them; for the exact joules of a run use edgeprof run or bench.",
            f"sum by (instance, provenance) ({increase('edgeprof_device_energy_joules_total')}) / 3600",
            "{{instance}} ({{provenance}})",
            unit="watth",
            time_from="now/d",
            instant=True,
        ),
        stat(
            "Hottest sensor",
            "The highest temperature of the device at this moment.",
            f"max by (instance) ({of('edgeprof_temperature_celsius')})",
            "{{instance}}",
            unit="celsius",
            decimals=1,
            thresholds=HEAT_LEVELS,
        ),
        Panel(
            "Memory",
            "Share of the memory that is in use, by pool. The GPU of a Jetson shares the pool ram.",
            (
                Query(
                    f"{of('edgeprof_memory_used_bytes')} / {of('edgeprof_memory_total_bytes')}", "{{instance}} {{pool}}"
                ),
            ),
            kind="gauge",
            unit="percentunit",
            width=4,
            height=4,
            bounds=(0.0, 1.0),
            thresholds=_SHARE,
        ),
        stat(
            "Throttling events",
            "Times that heat, current or voltage throttled the device in the time shown.",
            f"sum by (instance) ({increase('edgeprof_throttle_events_total')})",
            "{{instance}}",
            decimals=0,
            thresholds=_ALARM,
            instant=True,
        ),
        stat(
            "Newest sample",
            "Seconds since the slowest sensor was last read. Below a second or two at 10 Hz; a growing number means "
            "that a sensor is lost although the daemon still answers.",
            f"max by (instance) (time() - {of('edgeprof_sampler_last_sample_timestamp_seconds')})",
            "{{instance}}",
            unit="s",
            thresholds=((None, GREEN), (15.0, YELLOW), (60.0, RED)),
            instant=True,
        ),
    ),
)

POWER = Row(
    "Power and energy",
    (
        Panel(
            "Power of the whole device",
            "Growth of the device's own counter, kept apart from the rails so that no sum counts a joule twice; and "
            "the last reading, which may fall between two bursts.",
            (
                Query(
                    f"sum by (instance, provenance) ({rate('edgeprof_device_energy_joules_total')})",
                    "{{instance}} mean since the last scrapes ({{provenance}})",
                ),
                Query(
                    f"sum by (instance, provenance) ({of('edgeprof_device_power_watts')})",
                    "{{instance}} last reading ({{provenance}})",
                ),
            ),
            unit="watt",
            width=24,
        ),
        Panel(
            "Power of each rail",
            "Rails that may be added, piled up. Each is the growth of the rail's energy counter, which integrates "
            "every sample between two scrapes. What is inside a rail shown here is in the panel Parts of rails.",
            (
                Query(
                    f"sum by (instance, rail, provenance) ({rate('edgeprof_rail_energy_joules_total')})",
                    "{{instance}} {{rail}} ({{provenance}})",
                ),
            ),
            unit="watt",
            width=16,
            height=10,
            stack=True,
        ),
        bars(
            "Energy of each rail",
            "Energy in the time shown.",
            f"sort_desc(sum by (instance, rail, provenance) ({increase('edgeprof_rail_energy_joules_total')}))",
            "{{instance}} {{rail}} ({{provenance}})",
            unit="joule",
            height=10,
        ),
    ),
)

PARTS = Row(
    "Rails in detail",
    (
        Panel(
            "Last reading of each rail",
            "What the sensors said at the scrape: for a look at a rail now. For energy use the counters above.",
            (Query(of("edgeprof_rail_power_watts"), "{{instance}} {{rail}} ({{provenance}})"),),
            unit="watt",
        ),
        Panel(
            "Parts of rails",
            "Rails inside a rail that is shown above, which contains them already: never to be added to it. Empty on "
            "boards that measure none.",
            (
                Query(
                    f"sum by (instance, parent, rail, provenance) ({rate('edgeprof_subrail_energy_joules_total')})",
                    "{{instance}} {{rail}} in {{parent}} ({{provenance}})",
                ),
            ),
            unit="watt",
            width=8,
            fill=0,
        ),
        Panel(
            "Voltage of each rail",
            "A supply that sags under load shows here before it throttles.",
            (Query(of("edgeprof_rail_voltage_volts"), "{{instance}} {{rail}}"),),
            unit="volt",
            width=8,
            fill=0,
            from_zero=False,
        ),
        Panel(
            "Current of each rail",
            "What the sensors said at the scrape.",
            (Query(of("edgeprof_rail_current_amperes"), "{{instance}} {{rail}}"),),
            unit="amp",
            width=8,
            fill=0,
        ),
    ),
    collapsed=True,
)

HEAT = Row(
    "Heat, clocks and throttling",
    (
        Panel(
            "Temperatures",
            "Every temperature sensor. The dashed lines are where the panel Hottest sensor changes its colour.",
            (Query(of("edgeprof_temperature_celsius"), "{{instance}} {{sensor}}"),),
            unit="celsius",
            width=10,
            fill=0,
            thresholds=HEAT_LEVELS,
            limits=True,
        ),
        Panel(
            "Clocks",
            "Clocks of CPU groups, GPU and memory. Falling clocks at full load are what throttling looks like.",
            (Query(of("edgeprof_frequency_hertz"), "{{instance}} {{clock}}"),),
            unit="hertz",
            width=8,
            fill=0,
            line="stepAfter",
        ),
        Panel(
            "Fans",
            "How hard each fan is driven. A fan at its limit leaves only the clocks to give way.",
            (Query(of("edgeprof_fan_speed_ratio"), "{{instance}} {{fan}}"),),
            unit="percentunit",
            width=6,
            bounds=(0.0, 1.0),
        ),
        Panel(
            "What held it back",
            "Events of throttling, under-voltage and over-current within each interval, by cause.",
            (
                Query(
                    f"sum by (instance, cause) (increase({of('edgeprof_throttle_events_total')}[$__rate_interval]))",
                    "{{instance}} {{cause}}",
                ),
            ),
            unit="short",
            stack=True,
            line="stepAfter",
        ),
        states(
            "Throttled now",
            "Causes that hold the device back while they last. Empty on boards that only count events.",
            of("edgeprof_throttled"),
            "{{instance}} {{cause}}",
            mappings={"0": ("no", GREEN), "1": ("throttled", RED)},
            width=12,
        ),
    ),
    collapsed=True,
)

LOAD = Row(
    "Load and memory",
    (
        Panel(
            "Load of CPU and GPU",
            "Shares of the time in which they were busy.",
            (
                Query(of("edgeprof_cpu_utilization_ratio"), "{{instance}} CPU"),
                Query(of("edgeprof_gpu_utilization_ratio"), "{{instance}} {{gpu}}"),
            ),
            unit="percentunit",
            bounds=(0.0, 1.0),
        ),
        Panel(
            "Memory in use",
            "Memory in use by pool, and what there is.",
            (
                Query(of("edgeprof_memory_used_bytes"), "{{instance}} {{pool}} in use"),
                Query(of("edgeprof_memory_total_bytes"), "{{instance}} {{pool}} in all"),
            ),
            unit="bytes",
            overrides=(Override("/in all$/", {"custom.fillOpacity": 0, "custom.lineStyle": DASHED}, True),),
        ),
    ),
    collapsed=True,
)

HEALTH = Row(
    "Can these numbers be trusted",
    (
        table(
            "Device",
            "What the device is, what its device counter covers, its power mode, and the edgeprof that serves it.",
            {
                "Instance": "instance",
                "Model": "model",
                "Board": "board",
                "Counter covers": "covers",
                "Rail": "rail",
                "Power mode": "mode",
                "Governor": "governor",
                "edgeprof": "version",
            },
            # The metrics' names are dropped: with them, the three would be separate lines instead of one.
            queries=(
                Query(f"group by (instance, model, board, covers, rail) ({of('edgeprof_device_info')})", instant=True),
                Query(f"group by (instance, mode, governor) ({of('edgeprof_power_mode_info')})", instant=True),
                Query(f"group by (instance, version) ({of('edgeprof_build_info')})", instant=True),
            ),
            height=5,
        ),
        Panel(
            "Samples per second",
            "How often each sensor is read. A sensor that refreshes more slowly than the daemon samples is read at "
            "its own pace.",
            (
                Query(
                    f"sum by (instance, sensor) ({rate('edgeprof_sampler_samples_total')})", "{{instance}} {{sensor}}"
                ),
            ),
            unit="cps",
            width=8,
        ),
        Panel(
            "Readings missed",
            "Readings that were due and are missing: late, failed or impossible.",
            (Query(f"sum by (instance, sensor) ({rate('edgeprof_sampler_missed_total')})", "{{instance}} {{sensor}}"),),
            unit="cps",
            width=8,
        ),
        Panel(
            "Time that is in no counter",
            "Share of the time in which nothing was read for too long to be bridged. Its energy is left out of the "
            "counters, not guessed.",
            (
                Query(
                    f"max by (instance, sensor) ({rate('edgeprof_sampler_gap_seconds_total')})",
                    "{{instance}} {{sensor}}",
                ),
            ),
            unit="percentunit",
            width=8,
            bounds=(0.0, None),
        ),
        states(
            "Sensors",
            "Whether each sensor is being read.",
            of("edgeprof_sampler_up"),
            "{{instance}} {{sensor}}",
            mappings={"0": ("lost", RED), "1": ("read", GREEN)},
        ),
        Panel(
            "Time of a scrape by collector",
            "How long each collector took.",
            (Query(of("edgeprof_scrape_collector_duration_seconds"), "{{instance}} {{collector}}"),),
            unit="s",
            width=8,
        ),
        Panel(
            "What the daemon itself takes",
            "CPU of the daemon as a share of one core (left axis) and its memory (right axis).",
            (
                Query(f"sum by (instance) ({rate('process_cpu_seconds_total')})", "{{instance}} CPU"),
                Query(of("process_resident_memory_bytes"), "{{instance}} memory"),
            ),
            unit="percentunit",
            width=8,
            overrides=(Override("/memory$/", {"unit": "bytes", "custom.axisPlacement": "right"}, True),),
        ),
    ),
    collapsed=True,
)

DASHBOARD = Dashboard(
    uid="edgeprof-device",
    title="edgeprof / Device",
    description="Power per rail, joules, temperatures, clocks, memory and throttling of a device, and whether the "
    "numbers can be trusted.",
    rows=(OVERVIEW, POWER, PARTS, HEAT, LOAD, HEALTH),
)
