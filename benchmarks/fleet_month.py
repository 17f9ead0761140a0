"""A month of a fleet's results: what reading, reporting and choosing among them cost.

Twelve devices measure a model and three variants once a day for thirty days: 360 results with 1,440 variants, stored as
``edgeprof fleet bench`` stores them. ``edgeprof fleet report`` and ``edgeprof choose --fleet`` run on that store as a
user starts them; the CPU time contains the start of Python. Target: one second each.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from msgspec.structs import replace
from paired import about, machine, parser, table, write

from edgeprof.results import document
from edgeprof.results.store import Store
from edgeprof.verdicts.recommend import judge

sys.path.insert(0, str(Path(__file__).parents[1]))

TARGET_S = 1.0
REQUIREMENTS = '[product]\nrate = 15\nduty = 0.25\nbattery_wh = 50\nhours = 24\nlatency_p99 = "100ms"\n'
COMMANDS = (
    ("fleet", "report"),
    ("fleet", "report", "-o", "month.html"),
    ("fleet", "report", "-o", "month.csv"),
    ("choose", "requirements.toml", "--fleet"),
)


def fill(folder: Path, devices: int, days: int) -> int:
    """Store a result for each device and day, and return the mean length of their JSON in bytes."""
    from tests.profiler.results import samples

    store, lengths = Store(folder / "fleet"), []
    first_day = dt.datetime(2026, 11, 1, 3, 0, tzinfo=dt.timezone.utc)
    for day in range(days):
        for number in range(devices):
            result = samples.study()
            share = 1 + number / devices + day / 1000
            windows = {
                variant.name: [replace(w, energy_j=w.energy_j * share) for w in variant.windows]
                for variant in result.variants
            }
            result.variants = [replace(variant, windows=windows[variant.name]) for variant in result.variants]
            result.host = replace(result.host, hostname=f"board-{number}", fingerprint=f"sha256:{_digest(number)}")
            moment = first_day + dt.timedelta(days=day, minutes=number)
            result.id = f"{moment:%Y%m%dT%H%M%S}-{number:03d}"
            result.created = f"{moment:%Y-%m-%dT%H:%M:%SZ}"
            judge(result)
            store.save_job(result, _digest(day, number), f"board-{number}")
            lengths.append(len(document.to_json(result)))
    return sum(lengths) // len(lengths)


def _digest(*parts: int) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def cpu_seconds(words: tuple[str, ...], folder: Path) -> float:
    """Run a command of edgeprof in ``folder``, and return the CPU time of its process, in seconds."""
    environment = {**os.environ, "EDGEPROF_DATA_DIR": str(folder)}
    before = os.times()
    done = subprocess.run(
        [sys.executable, "-m", "edgeprof", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    after = os.times()
    assert done.returncode in {0, 1, 3}, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return after.children_user - before.children_user + after.children_system - before.children_system


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=5)
    arguments = options.parse_args()
    devices, days, rounds = (3, 2, 1) if arguments.smoke else (12, 30, arguments.rounds)
    facts = machine()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        length = fill(folder, devices, days)
        (folder / "requirements.toml").write_text(REQUIREMENTS)
        empty_s = min(cpu_seconds(("--version",), folder) for _ in range(rounds))
        spent_s = {" ".join(words): min(cpu_seconds(words, folder) for _ in range(rounds)) for words in COMMANDS}
    print(about(facts))
    rows = [[f"edgeprof {name}", f"{seconds:.2f} s"] for name, seconds in {"--version": empty_s, **spent_s}.items()]
    print(table([f"{devices * days} results of {length / 1000:.0f} kB", "CPU time"], rows))
    write(arguments.json, {**facts, "cpu_s": spent_s})
    slowest = max(spent_s.values())
    print(f"target ≤ {TARGET_S:g} s: {'met' if slowest <= TARGET_S else 'missed'}")
    return 0 if arguments.smoke or slowest <= TARGET_S else 1


if __name__ == "__main__":
    sys.exit(main())
