"""Static trees of named boards: their /sys, and small parts of /proc, /etc and /var.

``build`` writes the tree once; a live board then writes new values into the files that its ``Layout`` (``tree.py``)
names. The tree consists of plain files and relative links, so it can be copied, compared and damaged on purpose. The
real directory structure is kept where a reader may depend on it: an hwmon directory is below its I2C device and is
linked from /sys/class/hwmon.

In addition to the directories of sysfs, the tree holds ``proc/`` (cpuinfo, meminfo, stat …) and ``root/`` (etc, var,
and for a Raspberry Pi ``root/vcgencmd/get_throttled`` and, for a Pi 5, ``pmic_read_adc``: the output of that command of
``vcgencmd``, which cannot be run in a captured or simulated tree, so that the reader reads the file instead).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgeprof.errors import unknown
from edgeprof.simulation.board_specs import BOARDS, PMIC_RAILS, RAPL_WATTS, ChipSpec, RailSpec
from edgeprof.simulation.tree import Layout, RailFiles, add_hwmon, link, set_energy, set_power, write

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

#: 2^32 counts of 61 µJ, the range of most client processors.
RAPL_RANGE_UJ = 262_143_328_850


@dataclass(frozen=True)
class Oddities:
    """The possible oddities of a board; see ``build``."""

    no_label: Collection[str] = ()
    disabled: Collection[str] = ()
    nc_label: bool = False
    no_shunt: Collection[str] = ()
    shunts_uohm: Mapping[str, int] = field(default_factory=dict)
    no_input: Collection[str] = ()
    unreadable: Collection[str] = ()
    denied: Collection[str] = ()
    second_chip: bool = False
    rapl: tuple[str, ...] = ("package", "core", "uncore", "dram")
    packages: int = 1
    mmio: bool = False
    live_proc: bool = False


def build(board: str, directory: Path, **oddities: object) -> Layout:
    """Write the tree of a board.

    Args:
        board: One of ``BOARDS``.
        directory: Created if absent; existing files of the tree are overwritten.
        oddities: The board's oddities:
            ``no_label``: rails whose label file is missing; ``disabled``: rails switched off (``inN_enable`` 0, and no
            input files, because a plain file cannot return ENODATA); ``nc_label``: unconnected channels have the label
            "NC", as in L4T r35; ``no_shunt``: rails without ``shuntN_resistor``; ``shunts_uohm``: rail → the content
            of that file; ``no_input``: rails whose voltage and current files are missing; ``unreadable``: rails whose
            current or energy file exists but fails when read (EISDIR in place of EIO); ``denied``: rails or RAPL zones
            whose files have mode 0; ``second_chip``: another INA3221 at 0x4F with the rails AUX_A and AUX_B; ``rapl``:
            the zones of x86-rapl, out of psys, package, core, uncore, dram; ``packages``: the number of packages;
            ``mmio``: also the second view of package 0 by intel-rapl-mmio; ``live_proc``: ``proc/stat`` and
            ``proc/meminfo`` are links to those of this machine, so that CPU load and memory are those of the workload.

    Returns:
        The layout. The marker that makes readings ``simulated`` is not written, because the tree of a test represents a
        real board.

    Raises:
        InputError: There is no such board.
    """
    if board not in BOARDS:
        raise unknown("board", board, BOARDS)
    layout = Layout(board, directory, BOARDS[board])
    odd = Oddities(**oddities)  # type: ignore[arg-type]  # a wrong name is a TypeError that names it
    for old in (directory / "class/hwmon").glob("hwmon*"):
        old.unlink()  # left by an earlier build; chips are numbered in the order in which they are added
    for place in ("class/hwmon", "class/thermal", "devices/system/cpu", "root", "proc"):
        (directory / place).mkdir(parents=True, exist_ok=True)
    _lay_identity(layout, odd)
    chips = list(layout.spec.chips)
    if odd.second_chip:
        extra = RailSpec("AUX_A", 5.0, 0.010, 0.1, 0.5), RailSpec("AUX_B", 3.3, 0.010, 0.1, 0.5), None
        chips.append(ChipSpec("ina3221", 9, 0x4F, extra))
    for chip in chips:
        _CHIPS[chip.part](layout, chip, odd)
    if board == "x86-rapl":
        _lay_rapl(layout, odd)
    if board == "raspberry-pi-5":
        _lay_pmic(layout)
    if board.startswith("raspberry-pi"):
        add_hwmon(layout, "rpi_volt", {"in0_lcrit_alarm": 0}, device="platform/rpi-hwmon")
        write(layout.root / "vcgencmd/get_throttled", "throttled=0x0")
    _lay_surroundings(layout)
    layout.totals = layout.totals or layout.spec.total
    return layout


def _i2c_device(layout: Layout, chip: ChipSpec) -> str:
    name = f"{chip.bus}-{chip.address:04x}"
    parent = "platform/bus@0/c240000.i2c" if layout.spec.kernel >= "5.1" else "c240000.i2c"
    device = f"{parent}/i2c-{chip.bus}/{name}"
    path = layout.directory / "devices" / device
    path.mkdir(parents=True, exist_ok=True)
    link(layout.directory / "bus/i2c/drivers" / chip.part / name, path)
    link(layout.directory / "bus/i2c/devices" / name, path)
    return device


def _spoil_channel(path: Path, rail: str, odd: Oddities) -> None:
    if rail in odd.unreadable:
        path.unlink()
        path.mkdir()
    if rail in odd.denied:
        path.chmod(0)


def _ina3221_hwmon(layout: Layout, chip: ChipSpec, odd: Oddities) -> None:
    on = sum(rail is not None and rail.label not in odd.disabled for rail in chip.rails)
    # A channel that is switched off is not converted, which shortens the driver's interval.
    includes_samples = chip.update_interval_ms > round(chip.cycle_s * 1e3)
    interval = round(2e3 * on * chip.conversion_s * (chip.samples if includes_samples else 1))
    files: dict[str, object] = {"samples": chip.samples, "update_interval": interval}
    for number, rail in enumerate(chip.rails, 1):
        enabled = rail is not None and rail.label not in odd.disabled
        files[f"in{number}_enable"] = int(enabled)
        if rail is None:
            files |= {f"in{number}_label": "NC"} if odd.nc_label else {}
            files[f"shunt{number}_resistor"] = 10000
            continue
        if rail.label not in odd.no_label:
            files[f"in{number}_label"] = rail.label
        if rail.label not in odd.no_shunt:
            files[f"shunt{number}_resistor"] = odd.shunts_uohm.get(rail.label, round(rail.shunt_ohm * 1e6))
        files[f"in{number + 3}_input"] = 0
    files |= {"in7_label": "sum of shunt voltages", "in7_input": 0, "curr4_input": 0}
    place = add_hwmon(layout, "ina3221", files, _i2c_device(layout, chip))
    for number, rail in enumerate(chip.rails, 1):
        if rail is None or rail.label in odd.disabled or rail.label in odd.no_input:
            continue
        voltage, current = place / f"in{number}_input", place / f"curr{number}_input"
        _add_rail(layout, chip, rail, place, number, voltage=voltage, current=current)
        _spoil_channel(current, rail.label, odd)


def _ina3221_iio(layout: Layout, chip: ChipSpec, odd: Oddities) -> None:
    device = layout.directory / "devices" / _i2c_device(layout, chip)
    number = len(layout.rails) // 3
    place = device / f"iio:device{number}"
    write(place / "name", "ina3221x")
    write(place / "running_mode", "1")
    for channel, rail in enumerate(chip.rails):
        if rail is None:
            continue
        if rail.label not in odd.no_label:
            write(place / f"rail_name_{channel}", "NC" if rail.label in odd.disabled else rail.label)
        write(place / f"crit_current_limit_{channel}", "32760 ma")
        write(place / f"in_power{channel}_trigger_input", "0")
        write(place / f"in_current{channel}_trigger_input", "0")
        if rail.label in odd.disabled or rail.label in odd.no_input:
            continue
        voltage, current = place / f"in_voltage{channel}_input", place / f"in_current{channel}_input"
        power, pair = place / f"in_power{channel}_input", place / f"ui_input_{channel}"
        _add_rail(layout, chip, rail, place, channel, voltage=voltage, current=current, power=power, pair=pair)
        for path in (voltage, current, power, pair):
            _spoil_channel(path, rail.label, odd)


def _lay_ina238(layout: Layout, chip: ChipSpec, odd: Oddities) -> None:
    (rail,) = chip.rails
    assert rail is not None
    label = {} if rail.label in odd.no_label else {"label": rail.label}
    files = {**label, "in0_input": 0, "temp1_input": 41000, "shunt_resistor": round(rail.shunt_ohm * 1e6)}
    place = add_hwmon(layout, "ina238", files, _i2c_device(layout, chip))
    voltage, current, power = place / "in1_input", place / "curr1_input", place / "power1_input"
    _add_rail(layout, chip, rail, place, 1, voltage=voltage, current=current, power=power)
    _spoil_channel(power, rail.label, odd)


_CHIPS = {"ina3221": _ina3221_hwmon, "ina3221x": _ina3221_iio, "ina238": _lay_ina238}


def _add_rail(
    layout: Layout,
    chip: ChipSpec,
    rail: RailSpec,
    place: Path,
    channel: int,
    *,
    voltage: Path,
    current: Path,
    power: Path | None = None,
    pair: Path | None = None,
) -> None:
    layout.rails[rail.label] = RailFiles(
        rail.label,
        chip.part,
        place,
        channel,
        volts=rail.volts,
        shunt_ohm=rail.shunt_ohm,
        samples=chip.samples,
        cycle_s=chip.cycle_s,
        idle_w=rail.idle_w,
        busy_w=rail.busy_w,
        inside=rail.inside,
        voltage=voltage,
        current=current,
        power=power,
        pair=pair,
    )
    set_power(layout, rail.label, rail.idle_w)


def _lay_rapl(layout: Layout, odd: Oddities) -> None:
    zones: list[tuple[str, str, str, str | None]] = []  # path, zone name, key of RAPL_WATTS, inside
    for package in range(odd.packages):
        head, name = f"intel-rapl:{package}", f"package-{package}"
        zones.append((head, name, "package", "psys" if "psys" in odd.rapl else None))
        parts = [part for part in ("core", "uncore", "dram") if part in odd.rapl]
        zones += [(f"{head}/{head}:{i}", part, part, None if part == "dram" else name) for i, part in enumerate(parts)]
    if "psys" in odd.rapl:
        zones.append((f"intel-rapl:{odd.packages}", "psys", "psys", None))
    if odd.mmio:
        zones.append(("intel-rapl-mmio:0", "package-0", "package", None))
    for path, name, key, inside in zones:
        control = "intel-rapl-mmio" if "mmio" in path else "intel-rapl"
        place = layout.directory / "devices/virtual/powercap" / control / path
        socket = path.split(":")[1].split("/")[0]
        rail = name if name == "psys" or name.startswith("package") else f"{name}-{socket}"
        rail = f"{rail} (mmio)" if "mmio" in path else rail
        write(place / "name", name)
        write(place / "enabled", "1")
        write(place / "max_energy_range_uj", str(RAPL_RANGE_UJ))
        write(place / "energy_uj", "0")
        link(layout.directory / "class/powercap" / place.name, place)
        layout.rails[rail] = RailFiles(
            rail,
            "rapl",
            place,
            idle_w=RAPL_WATTS[key][0],
            busy_w=RAPL_WATTS[key][1],
            inside=inside,
            energy=place / "energy_uj",
            wrap_j=RAPL_RANGE_UJ * 1e-6,
            cycle_s=1e-3,
        )
        set_energy(layout, rail, 1000.0)
        for spoilt in {name, rail}:
            _spoil_channel(place / "energy_uj", spoilt, odd)
    drams = [f"dram-{i}" for i in range(odd.packages)] if "dram" in odd.rapl else []
    layout.totals = ("psys",) if "psys" in odd.rapl else (*(f"package-{i}" for i in range(odd.packages)), *drams)


def _lay_pmic(layout: Layout) -> None:
    text = layout.root / "vcgencmd/pmic_read_adc"
    lines = [f"{f'{rail}_A':>13} current({i})={idle:.8f}A" for i, (rail, (_, idle, _)) in enumerate(PMIC_RAILS.items())]
    lines += [f"{f'{rail}_V':>13} volt({i})={volts:.8f}V" for i, (rail, (volts, _, _)) in enumerate(PMIC_RAILS.items())]
    lines += [f"{'EXT5V_V':>13} volt(24)=5.11232000V", f"{'BATT_V':>13} volt(25)=0.00000000V"]
    write(text, "\n".join(lines))
    for rail, (volts, idle, busy) in PMIC_RAILS.items():
        powers = volts * idle, volts * busy
        layout.rails[rail] = RailFiles(rail, "pmic", text.parent, 0, volts, None, 1, 0.047, *powers, None, text=text)
    layout.totals = tuple(PMIC_RAILS)


def _lay_identity(layout: Layout, odd: Oddities) -> None:
    spec, top, proc, root = layout.spec, layout.directory, layout.procfs, layout.root
    if spec.model:
        tree = top / "firmware/devicetree/base"
        tree.mkdir(parents=True, exist_ok=True)
        (tree / "model").write_bytes(spec.model.encode() + b"\0")
        (tree / "compatible").write_bytes(b"".join(name.encode() + b"\0" for name in spec.compatible))
    else:
        write(top / "class/dmi/id/product_name", "NUC12WSKi5")
        write(top / "class/dmi/id/sys_vendor", "Intel(R) Client Systems")
    field_name = "model name" if not spec.model else "Model"
    cores = "\n\n".join(f"processor\t: {n}\nmodel name\t: {spec.cpu}" for n in range(spec.cores))
    write(proc / "cpuinfo", f"{cores}\n\n{field_name}\t\t: {spec.model or spec.cpu}")
    write(proc / "version", f"Linux version {spec.kernel}")
    write(proc / "sys/kernel/osrelease", spec.kernel)
    write(proc / "loadavg", "0.08 0.05 0.01 1/250 4711")
    if odd.live_proc:
        for name in ("stat", "meminfo"):
            (proc / name).unlink(missing_ok=True)
            (proc / name).symlink_to(f"/proc/{name}")  # the real load and memory of the workload
    else:
        kib = spec.memory_bytes // 1024
        write(
            proc / "meminfo", f"MemTotal: {kib:>15} kB\nMemFree: {kib // 2:>16} kB\nMemAvailable: {kib * 3 // 4:>11} kB"
        )
        jiffies = "\n".join(f"cpu{n} 1000 0 500 8500 0 0 0 0 0 0" for n in range(spec.cores))
        write(
            proc / "stat", f"cpu  {1000 * spec.cores} 0 {500 * spec.cores} {8500 * spec.cores} 0 0 0 0 0 0\n{jiffies}"
        )
    os_name = "Ubuntu 22.04.5 LTS" if spec.l4t else "Debian GNU/Linux 12 (bookworm)"
    write(root / "etc/os-release", f'PRETTY_NAME="{os_name}"')
    if spec.l4t:
        major, rest = spec.l4t.split(".", 1)
        write(root / "etc/nv_tegra_release", f"# R{major} (release), REVISION: {rest}, GCID: 1, BOARD: generic")
    if spec.power_modes:
        active = min(1, len(spec.power_modes) - 1)
        write(root / "var/lib/nvpmodel/status", f"pmode:{active:04d}")
        models = (f"< POWER_MODEL ID={n} NAME={name} >" for n, name in enumerate(spec.power_modes))
        write(root / "etc/nvpmodel.conf", "\n".join(models))


def _lay_surroundings(layout: Layout) -> None:
    spec, top = layout.spec, layout.directory
    for number, (kind, celsius) in enumerate(spec.zones.items()):
        place = top / f"devices/virtual/thermal/thermal_zone{number}"
        write(place / "type", kind)
        write(place / "temp", str(round(celsius * 1000)))
        link(top / f"class/thermal/thermal_zone{number}", place)
        layout.zones[kind] = place / "temp"
    for core in range(spec.cores):
        place = top / f"devices/system/cpu/cpu{core}"
        khz = {"scaling_cur_freq": 1_510_400, "scaling_min_freq": 729_600, "scaling_max_freq": 1_510_400}
        for name, value in khz.items():
            write(place / "cpufreq" / name, str(value))
        write(place / "cpufreq/scaling_governor", "powersave" if not spec.model else "schedutil")
        layout.cpu_frequency.append(place / "cpufreq/scaling_cur_freq")
        if not spec.model:
            write(place / "thermal_throttle/core_throttle_count", "0")
            write(place / "thermal_throttle/package_throttle_count", "0")
    write(top / "devices/system/cpu/online", f"0-{spec.cores - 1}")
    if spec.gpu is not None:
        _lay_gpu(layout, spec.gpu)
    if spec.over_current:
        counters = {f"oc{n}_event_cnt": 0 for n in (1, 2, 3)} | {f"oc{n}_throt_en": 1 for n in (1, 2, 3)}
        add_hwmon(layout, "soctherm_oc", counters, device="platform/soctherm-oc-event")
    if spec.fan:
        add_hwmon(layout, "pwmfan", {"pwm1": 89}, device="platform/pwm-fan")


def _lay_gpu(layout: Layout, device: str) -> None:
    place = layout.directory / "devices" / device
    name = device.rsplit("/", 1)[-1]
    write(place / "of_node/name", "gpu")
    if layout.spec.gpu_load:
        layout.gpu_load = place / "load"
        write(layout.gpu_load, "0")
    devfreq = place / "devfreq" / name
    hertz = {"cur_freq": 306_000_000, "min_freq": 306_000_000, "max_freq": 624_750_000}
    for key, value in {**hertz, "governor": "nvhost_podgov"}.items():
        write(devfreq / key, str(value))
    link(devfreq / "device", place)
    link(layout.directory / "class/devfreq" / name, devfreq)
    layout.gpu_frequency = devfreq / "cur_freq"
