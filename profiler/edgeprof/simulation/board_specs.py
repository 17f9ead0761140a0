"""The parts of the virtual boards: chips, rails, shunts and nodes, as in the real boards' device trees.

The data come from the device trees and driver sources, and not from the topology that edgeprof itself uses
(``sensing/board/boards.toml``), so that a tree built from them can contradict that topology in a test.

Sources: Linux's arch/arm64/boot/dts/nvidia/{tegra210-p3450, tegra186-p3310, tegra186-p3509+p3636, tegra194-p2888,
tegra194-p3668, tegra234-p3701, tegra234-p3767}, energymon's JetsonPowerRails.md, NVIDIA's nvpower.sh, jetson_stats (GPU
nodes, thermal zones). Watts are typical of idle and of full load, and a simulation moves between them; nothing is
calibrated to them.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class RailSpec:
    """One channel of a chip.

    Attributes:
        label: Its label in the device tree.
        volts: Voltage at the shunt, V.
        shunt_ohm: Its shunt, Ω.
        idle_w: Typical power at idle, W.
        busy_w: Typical power under full load, W.
        inside: The rail that already contains it.
    """

    label: str
    volts: float
    shunt_ohm: float
    idle_w: float
    busy_w: float
    inside: str | None = None


@dataclass(frozen=True)
class ChipSpec:
    """One monitor chip; None among its rails stands for a channel that the board does not connect.

    Attributes:
        part: ``ina3221`` (hwmon driver), ``ina3221x`` (JetPack 4's IIO driver) or ``ina238``.
        bus: I2C bus number.
        address: I2C address.
        rails: Channels in order.
        samples: Averages per reading.
        conversion_s: Conversion time of one bus or shunt voltage, s.
        update_interval_ms: The content of the driver's file of that name; kernels before 5.14 include the samples.
    """

    part: str
    bus: int
    address: int
    rails: tuple[RailSpec | None, ...]
    samples: int = 1
    conversion_s: float = 1.1e-3
    update_interval_ms: int = 7

    @property
    def cycle_s(self) -> float:
        """Seconds until every connected channel was converted once, that is, its bus and its shunt voltage."""
        return 2 * self.conversion_s * sum(rail is not None for rail in self.rails)


@dataclass(frozen=True)
class BoardSpec:
    """One board: identity, chips and the nodes around them.

    Attributes:
        model: /proc/device-tree/model; empty without a device tree.
        compatible: /proc/device-tree/compatible, most specific first.
        chips: Its monitor chips.
        total: The rails that add up to the board's total; empty if no sensor measures a total.
        cores: CPU cores.
        cpu: Their name.
        memory_bytes: RAM.
        kernel: uname -r.
        zones: Thermal zones: type → °C.
        gpu: The path of the GPU's device under /sys/devices; None without a GPU.
        gpu_load: Whether that device has a ``load`` file (Thor has none).
        l4t: Release in /etc/nv_tegra_release, such as ``36.4.4``; None except on a Jetson.
        power_modes: nvpmodel's modes; the second one is active if there are several.
        over_current: Whether the soctherm_oc counters exist.
        fan: Whether a pwmfan exists.
    """

    model: str
    compatible: tuple[str, ...]
    chips: tuple[ChipSpec, ...] = ()
    total: tuple[str, ...] = ()
    cores: int = 4
    cpu: str = "ARMv8 Processor"
    memory_bytes: int = 4 * 2**30
    kernel: str = "5.15.148-tegra"
    zones: dict[str, float] = field(default_factory=dict)
    gpu: str | None = None
    gpu_load: bool = True
    l4t: str | None = None
    power_modes: tuple[str, ...] = ()
    over_current: bool = False
    fan: bool = False


def _jetpack4_chip(bus: int, address: int, *rails: RailSpec | None) -> ChipSpec:
    # 0x7727, the IIO driver's default: 64 averages of 1.1 ms.
    return ChipSpec("ina3221x", bus, address, rails, samples=64, conversion_s=1.1e-3)


def _nvpower_chip(bus: int, address: int, *rails: RailSpec | None, kernel_includes_samples: bool = False) -> ChipSpec:
    # nvpower.sh writes samples 512 and update_interval 430; the driver picks the nearest conversion time that fits.
    connected = sum(rail is not None for rail in rails)
    conversion = 140e-6 if connected == 3 else 332e-6
    cycle_ms = 2 * connected * conversion * 1e3
    shown = round(cycle_ms * 512) if kernel_includes_samples else round(cycle_ms)
    return ChipSpec("ina3221", bus, address, rails, 512, conversion, shown)


_THERMAL_ORIN = {"cpu-thermal": 48.5, "gpu-thermal": 47.0, "soc0-thermal": 47.6, "tj-thermal": 48.5}
_ORIN_NODE = "platform/bus@0/17000000.gpu"
_ORIN_MODULE = (
    RailSpec("VDD_IN", 5.0, 0.005, 4.6, 14.0),
    RailSpec("VDD_CPU_GPU_CV", 5.0, 0.005, 0.7, 7.5, inside="VDD_IN"),
    RailSpec("VDD_SOC", 5.0, 0.005, 1.4, 2.6, inside="VDD_IN"),
)

BOARDS: dict[str, BoardSpec] = {
    "jetson-nano": BoardSpec(
        "NVIDIA Jetson Nano Developer Kit",
        ("nvidia,p3449-0000-b00+p3448-0000-b00", "nvidia,jetson-nano", "nvidia,tegra210"),
        (
            _jetpack4_chip(
                6,
                0x40,
                RailSpec("POM_5V_IN", 5.0, 0.005, 1.6, 10.0),
                RailSpec("POM_5V_GPU", 5.0, 0.005, 0.08, 4.0, inside="POM_5V_IN"),
                RailSpec("POM_5V_CPU", 5.0, 0.005, 0.4, 3.5, inside="POM_5V_IN"),
            ),
        ),
        ("POM_5V_IN",),
        cpu="ARMv8 Processor rev 1 (v8l)",
        kernel="4.9.337-tegra",
        zones={"CPU-therm": 38.5, "GPU-therm": 36.0, "PMIC-Die": 100.0, "PLL-therm": 37.0},
        gpu="57000000.gpu",
        l4t="32.7.4",
        power_modes=("MAXN", "5W"),
        fan=True,
    ),
    "jetson-nano-2gb": BoardSpec(
        "NVIDIA Jetson Nano 2GB Developer Kit",
        ("nvidia,p3542-0000+p3448-0003", "nvidia,jetson-nano-2gb", "nvidia,tegra210"),
        cpu="ARMv8 Processor rev 1 (v8l)",
        memory_bytes=2 * 2**30,
        kernel="4.9.337-tegra",
        zones={"CPU-therm": 38.5, "GPU-therm": 36.0, "PMIC-Die": 100.0},
        gpu="57000000.gpu",
        l4t="32.7.4",
        power_modes=("MAXN", "5W"),
    ),
    "jetson-tx2": BoardSpec(
        "quill",
        ("nvidia,p2597-0000+p3310-1000", "nvidia,tegra186"),
        (
            _jetpack4_chip(
                0,
                0x40,
                RailSpec("VDD_SYS_GPU", 19.0, 0.010, 0.15, 5.0, inside="VDD_IN"),
                RailSpec("VDD_SYS_SOC", 19.0, 0.010, 0.6, 1.6, inside="VDD_IN"),
                RailSpec("VDD_4V0_WIFI", 4.8, 0.010, 0.02, 0.1, inside="VDD_IN"),
            ),
            _jetpack4_chip(
                0,
                0x41,
                RailSpec("VDD_IN", 19.0, 0.005, 2.6, 14.0),
                RailSpec("VDD_SYS_CPU", 19.0, 0.010, 0.3, 3.5, inside="VDD_IN"),
                RailSpec("VDD_SYS_DDR", 4.8, 0.010, 0.5, 2.0, inside="VDD_IN"),
            ),
            _jetpack4_chip(
                0,
                0x42,
                RailSpec("VDD_MUX", 19.0, 0.020, 3.1, 16.0),
                RailSpec("VDD_5V0_IO_SYS", 5.0, 0.005, 0.9, 1.6),
                RailSpec("VDD_3V3_SYS", 3.3, 0.010, 0.2, 0.5),
            ),
        ),
        ("VDD_IN",),
        cores=6,
        memory_bytes=8 * 2**30,
        kernel="4.9.337-tegra",
        zones={"BCPU-therm": 36.5, "MCPU-therm": 36.5, "GPU-therm": 34.5, "PMIC-Die": 100.0},
        gpu="17000000.gp10b",
        l4t="32.7.4",
        power_modes=("MAXN", "MAXQ"),
        fan=True,
    ),
    "jetson-tx2-nx": BoardSpec(
        "NVIDIA Jetson TX2 NX Developer Kit",
        ("nvidia,p3509-0000+p3636-0001", "nvidia,tegra186"),
        (
            _jetpack4_chip(
                7,
                0x40,
                RailSpec("VDD_IN", 5.0, 0.005, 2.2, 15.0),
                RailSpec("VDD_CPU_GPU", 5.0, 0.005, 0.3, 9.0, inside="VDD_IN"),
                RailSpec("VDD_SOC", 5.0, 0.005, 0.6, 1.6, inside="VDD_IN"),
            ),
        ),
        ("VDD_IN",),
        cores=6,
        kernel="4.9.337-tegra",
        zones={"BCPU-therm": 36.5, "GPU-therm": 34.5, "PMIC-Die": 100.0},
        gpu="17000000.gp10b",
        l4t="32.7.4",
        power_modes=("MAXN", "MAXQ"),
    ),
    "jetson-xavier-nx": BoardSpec(
        "NVIDIA Jetson Xavier NX Developer Kit",
        ("nvidia,p3509-0000+p3668-0000", "nvidia,tegra194"),
        (
            _nvpower_chip(
                7,
                0x40,
                RailSpec("VDD_IN", 5.0, 0.005, 3.6, 15.0),
                RailSpec("VDD_CPU_GPU_CV", 5.0, 0.005, 0.4, 9.5, inside="VDD_IN"),
                RailSpec("VDD_SOC", 5.0, 0.005, 1.0, 2.4, inside="VDD_IN"),
                kernel_includes_samples=True,
            ),
        ),
        ("VDD_IN",),
        cores=6,
        memory_bytes=8 * 2**30,
        kernel="5.10.216-tegra",
        zones={"CPU-therm": 41.0, "GPU-therm": 40.0, "AUX-therm": 40.5, "AO-therm": 40.5, "PMIC-Die": 50.0},
        gpu="platform/17000000.gv11b",
        l4t="35.6.0",
        power_modes=("MODE_15W_2CORE", "MODE_15W_6CORE"),
        fan=True,
    ),
    "jetson-agx-xavier": BoardSpec(
        "NVIDIA Jetson AGX Xavier Developer Kit",
        ("nvidia,p2972-0000", "nvidia,tegra194"),
        (
            _nvpower_chip(
                1,
                0x40,
                RailSpec("GPU", 19.0, 0.005, 0.3, 12.0),
                RailSpec("CPU", 19.0, 0.005, 0.5, 9.0),
                RailSpec("SOC", 19.0, 0.005, 1.2, 3.2),
                kernel_includes_samples=True,
            ),
            _nvpower_chip(
                1,
                0x41,
                RailSpec("CV", 19.0, 0.005, 0.0, 1.0),
                RailSpec("VDDRQ", 19.0, 0.005, 0.3, 1.8),
                RailSpec("SYS5V", 5.0, 0.005, 2.0, 4.2),
                kernel_includes_samples=True,
            ),
        ),
        ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"),
        cores=8,
        memory_bytes=32 * 2**30,
        kernel="5.10.216-tegra",
        zones={"CPU-therm": 37.0, "GPU-therm": 36.0, "AO-therm": 36.5, "PMIC-Die": 50.0, "Tboard_tegra": 33.0},
        gpu="platform/17000000.gv11b",
        l4t="35.6.0",
        power_modes=("MAXN", "MODE_30W_ALL"),
        fan=True,
    ),
    "jetson-orin-nano": BoardSpec(
        "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
        ("nvidia,p3768-0000+p3767-0005-super", "nvidia,p3767-0005", "nvidia,tegra234"),
        (_nvpower_chip(1, 0x40, *_ORIN_MODULE),),
        ("VDD_IN",),
        cores=6,
        memory_bytes=8 * 2**30,
        kernel="5.15.148-tegra",
        zones=_THERMAL_ORIN,
        gpu=_ORIN_NODE,
        l4t="36.4.4",
        power_modes=("15W", "25W", "MAXN_SUPER"),
        over_current=True,
        fan=True,
    ),
    "jetson-orin-nx": BoardSpec(
        "NVIDIA Jetson Orin NX Engineering Reference Developer Kit",
        ("nvidia,p3768-0000+p3767-0000", "nvidia,p3767-0000", "nvidia,tegra234"),
        (_nvpower_chip(1, 0x40, *_ORIN_MODULE),),
        ("VDD_IN",),
        cores=8,
        memory_bytes=16 * 2**30,
        kernel="5.15.148-tegra",
        zones=_THERMAL_ORIN,
        gpu=_ORIN_NODE,
        l4t="36.4.4",
        power_modes=("MAXN", "15W", "25W"),
        over_current=True,
        fan=True,
    ),
    "jetson-agx-orin": BoardSpec(
        "NVIDIA Jetson AGX Orin Developer Kit",
        ("nvidia,p3737-0000+p3701-0005", "nvidia,p3701-0005", "nvidia,tegra234"),
        (
            _nvpower_chip(
                1,
                0x40,
                RailSpec("VDD_GPU_SOC", 19.0, 0.002, 3.4, 26.0),
                RailSpec("VDD_CPU_CV", 19.0, 0.002, 0.8, 13.0),
                RailSpec("VIN_SYS_5V0", 5.0, 0.002, 4.0, 7.5),
            ),
            _nvpower_chip(1, 0x41, None, RailSpec("VDDQ_VDD2_1V8AO", 5.0, 0.002, 0.7, 2.2, inside="VIN_SYS_5V0"), None),
        ),
        ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),
        cores=12,
        memory_bytes=64 * 2**30,
        kernel="5.15.148-tegra",
        zones=_THERMAL_ORIN,
        gpu=_ORIN_NODE,
        l4t="36.4.4",
        power_modes=("MAXN", "MODE_30W"),
        over_current=True,
        fan=True,
    ),
    "jetson-thor": BoardSpec(
        "NVIDIA Jetson AGX Thor Developer Kit",
        ("nvidia,p4071-0000+p3834-0008", "nvidia,p3834-0008", "nvidia,tegra264"),
        (
            ChipSpec(
                "ina3221",
                2,
                0x40,
                (
                    RailSpec("VDD_GPU", 19.6, 0.002, 1.2, 60.0, inside="VIN"),
                    RailSpec("VDD_CPU_SOC_MSS", 19.6, 0.002, 7.8, 30.0, inside="VIN"),
                    RailSpec("VIN_SYS_5V0", 5.0, 0.002, 6.0, 9.0, inside="VIN"),
                ),
            ),
            ChipSpec("ina238", 2, 0x44, (RailSpec("VIN", 19.6, 0.002, 24.0, 118.0),)),
        ),
        ("VIN",),
        cores=14,
        cpu="ARMv9 Processor",
        memory_bytes=128 * 2**30,
        kernel="6.8.12-tegra",
        zones={"cpu-thermal": 44.0, "gpu-thermal": 42.0, "soc012-thermal": 44.0, "tj-thermal": 45.0},
        gpu="platform/bus@0/d0b0000000.pcie/gpu-gpc-0",
        gpu_load=False,
        l4t="38.2.0",
        power_modes=("MAXN", "120W"),
        fan=True,
    ),
    "raspberry-pi-4": BoardSpec(
        "Raspberry Pi 4 Model B Rev 1.4",
        ("raspberrypi,4-model-b", "brcm,bcm2711"),
        cpu="Cortex-A72",
        kernel="6.6.51+rpt-rpi-v8",
        zones={"cpu-thermal": 46.7},
    ),
    "raspberry-pi-5": BoardSpec(
        "Raspberry Pi 5 Model B Rev 1.0",
        ("raspberrypi,5-model-b", "brcm,bcm2712"),
        cpu="Cortex-A76",
        memory_bytes=8 * 2**30,
        kernel="6.6.51+rpt-rpi-2712",
        zones={"cpu-thermal": 47.9},
        fan=True,
    ),
    "x86-rapl": BoardSpec(
        "",
        (),
        cores=8,
        cpu="12th Gen Intel(R) Core(TM) i5-1240P",
        memory_bytes=16 * 2**30,
        kernel="6.1.0-28-amd64",
        zones={"x86_pkg_temp": 52.0, "acpitz": 27.8},
    ),
    "generic-unknown": BoardSpec(
        "Radxa ROCK 5B",
        ("radxa,rock-5b", "rockchip,rk3588"),
        cores=8,
        cpu="Cortex-A76",
        memory_bytes=8 * 2**30,
        kernel="6.1.43-rockchip",
        zones={"soc-thermal": 41.0},
    ),
    # A board with an unknown name and labels, but with a known monitor chip.
    "unknown-carrier": BoardSpec(
        "Acme Edge Box 3000",
        ("acme,edge-box-3000",),
        (
            ChipSpec(
                "ina3221",
                4,
                0x40,
                (
                    RailSpec("MAIN_12V", 12.0, 0.005, 6.0, 20.0),
                    RailSpec("CORE_5V", 5.0, 0.005, 2.0, 9.0),
                    RailSpec("RADIO_3V3", 3.3, 0.010, 0.2, 1.0),
                ),
            ),
        ),
        cores=4,
        kernel="6.1.43",
        zones={"soc-thermal": 41.0},
    ),
}

#: The Pi 5's PMIC (Renesas DA9091) as ``vcgencmd pmic_read_adc`` names it: rail → volts, amperes at idle, at full load.
PMIC_RAILS: dict[str, tuple[float, float, float]] = {
    "3V7_WL_SW": (3.735, 0.06, 0.10),
    "3V3_SYS": (3.315, 0.07, 0.12),
    "1V8_SYS": (1.802, 0.17, 0.26),
    "DDR_VDD2": (1.108, 0.03, 0.55),
    "DDR_VDDQ": (0.607, 0.0, 0.08),
    "1V1_SYS": (1.106, 0.18, 0.28),
    "0V8_SW": (0.803, 0.33, 0.62),
    "VDD_CORE": (0.790, 0.95, 7.2),
    "3V3_DAC": (3.311, 0.0, 0.0),
    "3V3_ADC": (3.312, 0.0, 0.0),
    "0V8_AON": (0.799, 0.003, 0.004),
    "HDMI": (5.112, 0.012, 0.012),
}

#: RAPL domains: name → watts at idle, at full load.
RAPL_WATTS: dict[str, tuple[float, float]] = {
    "psys": (9.0, 58.0),
    "package": (4.0, 40.0),
    "core": (1.5, 33.0),
    "uncore": (0.1, 2.0),
    "dram": (0.8, 4.0),
}
