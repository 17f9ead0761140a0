"""The true joules of a virtual board: they are written while it runs, and read to check a measurement."""

from __future__ import annotations

import bisect
import json
from typing import TYPE_CHECKING, Any, TextIO

from edgeprof.errors import InputError, unknown
from edgeprof.simulation.waveform import restore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

SCHEMA = "edgeprof.truth/1"
#: Files in the tree: the log (a JSON line that describes the simulation, then one for each time), and the sums.
LOG, SUMMARY = "truth.jsonl", "truth.json"


class TruthLog:
    """Writes ``truth.jsonl``: cumulative true joules of each rail over the monotonic time.

    Args:
        directory: The tree.
        header: The description of the simulation: board, source, rails, totals, start …
        rails: The names of the rails, in the order of the numbers in each line.
        totals: The rails that add up to the board's total.
    """

    def __init__(self, directory: Path, header: dict[str, Any], rails: Sequence[str], totals: Sequence[str]) -> None:
        self._directory, self._header = directory, {"schema": SCHEMA, **header}
        self._rails, self._totals = list(rails), [rails.index(name) for name in totals]
        (directory / SUMMARY).unlink(missing_ok=True)  # of an earlier simulation
        self._file: TextIO = (directory / LOG).open("w")
        self._file.write(json.dumps({**self._header, "rails": self._rails, "totals": list(totals)}) + "\n")
        self._file.flush()

    def write(self, time: float, joules: Sequence[float]) -> None:
        total = sum(joules[index] for index in self._totals)
        values = ", ".join(f"{value:.9g}" for value in joules)
        self._file.write(f'{{"t": {time:.6f}, "total": {total:.9g}, "rails": [{values}]}}\n')

    def flush(self) -> None:
        self._file.flush()

    def close(self, start: float, end: float, joules: Sequence[float]) -> None:
        """Close the log, and write ``truth.json`` with the sums from ``start`` to ``end``."""
        self._file.close()
        total = sum(joules[index] for index in self._totals) if self._totals else None
        seconds = end - start
        summary = {
            **{key: value for key, value in self._header.items() if key != "waveforms"},
            "end": end,
            "seconds": seconds,
            "joules": dict(zip(self._rails, joules, strict=True)),
            "total_joules": total,
            "mean_watts": total / seconds if total is not None and seconds > 0 else None,
        }
        (self._directory / SUMMARY).write_text(json.dumps(summary, indent=1) + "\n")


class Truth:
    """The true joules of a virtual board, read from its tree.

    If the board follows a load, its power is constant between two lines, so linear interpolation is exact; if it
    follows a waveform, the integral is computed from the waveform.

    Args:
        directory: The tree that was given to ``edgeprof simulate --dir``.

    Raises:
        InputError: The tree has no readable truth.
    """

    def __init__(self, directory: Path) -> None:
        path = directory / LOG
        try:
            lines = path.read_text().splitlines()
            self.header: dict[str, Any] = json.loads(lines[0])
            if self.header["schema"] != SCHEMA:
                raise InputError(f"{path} has the unknown schema {self.header['schema']!r}")
            # The last line may be incomplete while the board runs.
            records = [json.loads(line) for line in lines[1:] if line.endswith("}")]
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise InputError(
                f"{path} holds no truth of a virtual board: {error}", remedy="It is written by edgeprof simulate."
            ) from None
        self.rails: list[str] = self.header["rails"]
        self.totals: list[str] = self.header["totals"]
        self._times = [record["t"] for record in records]
        self._joules = [record["rails"] for record in records]
        self._exact: dict[str, Callable[[float], float]] = {}
        for name, (base, gain, description) in (self.header.get("waveforms") or {}).items():
            self._exact[name] = self._closed_form(base, gain, description)

    def _closed_form(self, base: float, gain: float, description: dict[str, Any]) -> Callable[[float], float]:
        start, waveform = self.header["start"], restore(description)
        return lambda time: base * (time - start) + gain * waveform.energy(time - start)

    def energy(self, start: float, end: float, rail: str | None = None) -> float:
        """Return the true joules from ``start`` to ``end`` (monotonic s) of a rail, or of the board's total.

        Raises:
            InputError: There is no such rail, or the record does not cover these times.
        """
        if rail is not None and rail not in self.rails:
            raise unknown("rail", rail, self.rails)
        names = self.totals if rail is None else [rail]
        if not names:
            raise InputError("this board has no total", remedy=f"Name a rail: {', '.join(self.rails)}.")
        return sum(self._cumulative(name, end) - self._cumulative(name, start) for name in names)

    def _cumulative(self, rail: str, time: float) -> float:
        if not self.header["start"] <= time:
            raise InputError(f"the truth begins at {self.header['start']:.3f} s, after {time:.3f} s")
        if rail in self._exact:
            return self._exact[rail](time)
        if not self._times or time > self._times[-1]:
            raise InputError(f"the truth is not known until {time:.3f} s", remedy="Let the board play on, or stop it.")
        index = max(1, bisect.bisect_left(self._times, time))
        column = self.rails.index(rail)
        (t0, t1), (e0, e1) = (
            self._times[index - 1 : index + 1],
            (row[column] for row in self._joules[index - 1 : index + 1]),
        )
        return float(e0 + (e1 - e0) * (time - t0) / (t1 - t0))
