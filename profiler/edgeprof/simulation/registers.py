"""The files of a virtual board, which are rewritten while readers keep them open.

Each file is rewritten in place, on the same inode, by one ``pwrite`` of a fixed width (padded with spaces before the
newline). Nothing is truncated or replaced, so a ``pread`` of an open descriptor never finds an empty file or an old
inode. POSIX does not guarantee that such a small copy within a page is atomic; on Linux (ext4 and tmpfs) no torn read
occurred in 8 million reads during 9 million back-to-back writes.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

from edgeprof.simulation.board_specs import PMIC_RAILS
from edgeprof.simulation.chip import BlockAverage, EnergyCounter, Ina3221

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from edgeprof.simulation.chip import Converter
    from edgeprof.simulation.tree import Layout, RailFiles

#: Widths in bytes: for mV, mA, mW and m°C; and for µJ ("262143328850"), µW and IIO's "mV mA".
_NARROW, _WIDE = 8, 16
#: Thermal model: every watt above idle finally warms all zones by this much (K), with this time constant (s).
_KELVIN_PER_WATT, _THERMAL_TAU_S, _THERMAL_TICK_S = 1.5, 30.0, 1.0


class Cell:
    """One file that is rewritten in place.

    Args:
        path: The file, which must exist.
        width: The size of its content in bytes; at least the present size.
    """

    def __init__(self, path: Path, width: int = _NARROW) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._width = max(width, os.fstat(self._fd).st_size)
        self._last = ""

    def write(self, text: str) -> None:
        """Write ``text``, unless the file holds it already.

        Raises:
            ValueError: The text does not fit.
        """
        if text == self._last:
            return
        data = text.encode().ljust(self._width - 1) + b"\n"
        if len(data) != self._width:
            raise ValueError(f"{text!r} does not fit into {self._width} bytes")
        os.pwrite(self._fd, data, 0)
        self._last = text

    def close(self) -> None:
        os.close(self._fd)


class Registers:
    """All changing files of a board.

    Args:
        layout: The tree.
        converters: Rail → its converter.
    """

    def __init__(self, layout: Layout, converters: Mapping[str, Converter]) -> None:
        self._cells: list[Cell] = []
        self._shows: list[Callable[[], None]] = []
        texts: dict[Path, dict[str, BlockAverage]] = {}
        for name, converter in converters.items():
            files = layout.rails[name]
            if isinstance(converter, EnergyCounter):
                self._shows.append(self._counter(files, converter))
            elif isinstance(converter, Ina3221):
                self._shows.append(self._ina3221(files, converter))
            elif isinstance(converter, BlockAverage):
                if files.text is not None:
                    texts.setdefault(files.text, {})[name] = converter
                else:
                    self._shows.append(self._ina238(files, converter))
        self._shows += [self._pmic(path, rails) for path, rails in texts.items()]
        self._zones = [(self._cell(path), layout.spec.zones[kind]) for kind, path in layout.zones.items()]
        self._totals = [converters[name] for name in layout.totals]
        self._idle_w = sum(layout.rails[name].idle_w for name in layout.totals)
        self._warmth = 0.0
        self._warmed = -math.inf

    def write(self, now: float) -> None:
        """Write the values of the converters, and once per second those of the thermal zones."""
        for show in self._shows:
            show()
        elapsed = now - self._warmed
        if elapsed >= _THERMAL_TICK_S:
            self._warmed = now
            self._warm(elapsed)

    def close(self) -> None:
        for cell in self._cells:
            cell.close()
        self._cells.clear()

    def _cell(self, path: Path | None, width: int = _NARROW) -> Cell:
        assert path is not None
        self._cells.append(Cell(path, width))
        return self._cells[-1]

    def _warm(self, elapsed: float) -> None:
        gauges = [converter.average_w for converter in self._totals if isinstance(converter, Ina3221 | BlockAverage)]
        if len(gauges) == len(self._totals) and math.isfinite(elapsed):
            goal = _KELVIN_PER_WATT * (sum(gauges) - self._idle_w)
            self._warmth += (goal - self._warmth) * -math.expm1(-elapsed / _THERMAL_TAU_S)
        for cell, celsius in self._zones:
            # JetPack's PMIC-Die is a constant 100 °C on the real board, so it is constant here too.
            cell.write(str(round((celsius + (0.0 if celsius == 100.0 else self._warmth)) * 1000)))

    def _counter(self, files: RailFiles, converter: EnergyCounter) -> Callable[[], None]:
        cell = self._cell(files.energy, _WIDE)
        return lambda: cell.write(str(converter.microjoules))

    def _ina3221(self, files: RailFiles, converter: Ina3221) -> Callable[[], None]:
        volts, amperes = self._cell(files.voltage), self._cell(files.current)
        iio: tuple[Cell, Cell] | None = None
        if files.power is not None and files.pair is not None:
            iio = self._cell(files.power), self._cell(files.pair, _WIDE)
        shown: int | None = None

        def show() -> None:
            nonlocal shown
            register = converter.shunt_register
            if register == shown:  # as nearly always: the voltage is constant
                return
            shown = register
            millivolts, milliamperes = converter.millivolts, converter.milliamperes
            volts.write(str(millivolts))
            amperes.write(str(milliamperes))
            if iio is not None:
                iio[0].write(str(int(millivolts * milliamperes / 1000)))
                iio[1].write(f"{millivolts} {milliamperes}")

        return show

    def _ina238(self, files: RailFiles, converter: BlockAverage) -> Callable[[], None]:
        # Bus voltage in steps of 3.125 mV; current in steps of 1 mA at the driver's fixed 20 mΩ.
        volts, amperes, watts = self._cell(files.voltage), self._cell(files.current), self._cell(files.power, _WIDE)
        assert files.shunt_ohm is not None
        step_ma = 0.020 / files.shunt_ohm
        millivolts = int(round(files.volts * 1e3 / 3.125) * 3.125)

        def show() -> None:
            volts.write(str(millivolts))
            amperes.write(str(round(round(converter.average_w / files.volts * 1e3 / step_ma) * step_ma)))
            watts.write(str(round(abs(converter.watts) * 1e6)))  # the register has no sign

        return show

    def _pmic(self, path: Path, rails: Mapping[str, BlockAverage]) -> Callable[[], None]:
        text = path.read_text()
        cell = self._cell(path, len(text) + 2 * len(rails))  # above 10 A a line has one more digit
        lines = text.splitlines()
        places = {
            name: next(i for i, line in enumerate(lines) if line.lstrip().startswith(f"{name}_A ")) for name in rails
        }

        def show() -> None:
            for name, index in places.items():
                # The converter has no negative currents: it reads exactly 0 there.
                amperes = max(0.0, rails[name].watts / PMIC_RAILS[name][0])
                lines[index] = f"{lines[index].partition('=')[0]}={amperes:.8f}A"
            cell.write("\n".join(lines))

        return show
