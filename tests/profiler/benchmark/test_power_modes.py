"""--power-modes and --fast-sensor: what they change, what a mode is, and that everything is restored afterwards."""

from __future__ import annotations

import json

import pytest

from edgeprof.benchmark.power_modes import choose, modes
from edgeprof.errors import InputError, UnavailableError
from edgeprof.roots import Roots
from edgeprof.simulation.layouts import build
from edgeprof.simulation.live import LiveBoard
from edgeprof.simulation.waveform import parse
from tests.profiler.cli.in_process import Done, verb

pytestmark = pytest.mark.usefixtures("forked_workers")
QUICK = ["--windows", "2", "--window", "0.3", "--idle", "0.2", "--warmup", "0.1", "-q"]
#: A stand-in for nvpmodel with what edgeprof uses: -m N, a mode that needs a reboot; a change undoes jetson_clocks.
NVPMODEL = """#!/bin/sh
root=$(dirname "$0")/../..
echo "$2" >> "$root/called"
if [ "$2" = 2 ]; then echo "NVPM WARN: Reboot required for changing to this power mode: 2"; exit 0; fi
printf 'pmode:%04d\\n' "$2" > "$root/var/lib/nvpmodel/status"
for f in "$root"/../devices/system/cpu/cpu*/cpufreq/scaling_min_freq; do echo 115200 > "$f"; done
"""
CONF = "< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=1 NAME=7W >\n< POWER_MODEL ID=2 NAME=MAXN >\n"


@pytest.fixture
def jetson(tmp_path):
    with LiveBoard("jetson-orin-nano", tmp_path / "tree", {"VDD_IN": parse("constant:9W")}) as board:
        root = board.directory / "root"
        for folder in ("etc", "usr/sbin", "var/lib/nvpmodel"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        (root / "etc/nvpmodel.conf").write_text(CONF)
        (root / "var/lib/nvpmodel/status").write_text("pmode:0000\n")
        (root / "usr/sbin/nvpmodel").write_text(NVPMODEL)
        (root / "usr/sbin/nvpmodel").chmod(0o755)
        (tmp_path / "nap.py").write_text("import time\n\n\ndef nap():\n    time.sleep(0.005)\n")
        yield board


@pytest.fixture
def bench(tmp_path, monkeypatch, capfd):
    """``edgeprof bench`` of a model on a virtual board, in this process."""
    monkeypatch.setenv("EDGEPROF_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("EDGEPROF_CONFIG", str(tmp_path / "c"))
    call = verb(capfd, "bench")

    def run(board, *arguments: str, code: int = 0) -> Done:
        return call(*arguments, "--sysfs-root", board.directory, *QUICK, code=code)

    return run


def limits(board) -> dict[str, str]:
    found = board.directory.glob("devices/system/cpu/cpu*/cpufreq/scaling_*")
    return {str(path): path.read_text() for path in found if "cur" not in path.name}


def test_each_power_mode_gives_a_result_and_the_old_one_comes_back(tmp_path, jetson, bench) -> None:
    before = limits(jetson)
    done = bench(jetson, f"{tmp_path}/nap.py:nap", "--power-modes", "all", "--json")
    swept = {one["mode"]: one for one in json.loads(done.stdout)["modes"]}
    assert list(swept) == ["15W", "7W", "MAXN"]
    assert [swept[name]["result"]["host"]["power_mode"] for name in ("15W", "7W")] == ["15W", "7W"]
    assert swept["MAXN"]["result"] is None
    assert "reboot" in swept["MAXN"]["reason"]
    assert swept["15W"]["result"]["host"]["fingerprint"] != swept["7W"]["result"]["host"]["fingerprint"]
    assert (jetson.directory / "root/var/lib/nvpmodel/status").read_text() == "pmode:0000\n"
    assert {path: text.strip() for path, text in limits(jetson).items()} == {p: t.strip() for p, t in before.items()}
    assert list((tmp_path / "data/restore").iterdir()) == []


def test_the_table_has_a_row_for_each_mode_and_variant_and_a_failing_model_changes_nothing(
    tmp_path, jetson, bench
) -> None:
    (tmp_path / "crash.py").write_text("import os\n\n\ndef crash():\n    os.abort()\n")
    done = bench(jetson, f"{tmp_path}/nap.py:nap", f"{tmp_path}/crash.py:crash", "--power-modes", "7W,0", code=3)
    rows = [line.split() for line in done.stdout.splitlines()]
    assert [row[0] for row in rows] == ["mode", "7W", "7W", "15W", "15W"]
    assert "failed" in rows[2]
    assert (jetson.directory / "root/var/lib/nvpmodel/status").read_text() == "pmode:0000\n"


def test_governors_are_the_modes_where_there_is_no_nvpmodel(tmp_path) -> None:
    build("raspberry-pi-5", tmp_path)
    roots = Roots.resolve(tmp_path)
    for path in tmp_path.glob("devices/system/cpu/cpu*/cpufreq"):
        (path / "scaling_available_governors").write_text("ondemand userspace performance\n")
    assert [mode.name for mode in modes(roots)] == ["ondemand", "performance"]
    assert [mode.name for mode in choose(roots, ["performance"])] == ["performance"]
    with pytest.raises(InputError, match="powersave"):
        choose(roots, ["powersave"])


def test_a_device_without_modes_says_so(tmp_path) -> None:
    (tmp_path / "class").mkdir()
    with pytest.raises(UnavailableError, match="no power modes"):
        choose(Roots.resolve(tmp_path))


def test_a_fast_sensor_lasts_for_one_run(tmp_path, jetson, bench) -> None:
    samples = jetson.layout.rails["VDD_IN"].directory / "samples"
    before = samples.read_text()
    out = tmp_path / "result.json"
    bench(jetson, f"{tmp_path}/nap.py:nap", "--fast-sensor", "-o", str(out))
    result = json.loads(out.read_text())
    use = next(s for s in result["sensors"] if s["channel"] == "VDD_IN" and s["quantity"] == "power")
    assert use["filter"]["tau_s"] < 0.03
    assert [r["message"] for r in result["reasons"] if r["code"] == "fast_sensor"]
    assert result["variants"][0]["power_w"]["mean"] == pytest.approx(9.0, abs=0.1)
    assert samples.read_text().strip() == before.strip()
    again = json.loads(bench(jetson, f"{tmp_path}/nap.py:nap", "--json").stdout)
    use = next(s for s in again["sensors"] if s["channel"] == "VDD_IN" and s["quantity"] == "power")
    assert use["filter"]["tau_s"] == pytest.approx(0.43, abs=0.01)


def test_a_fast_sensor_where_there_is_none_changes_nothing_and_says_so(tmp_path, bench) -> None:
    (tmp_path / "nap.py").write_text("def nap():\n    pass\n")
    with LiveBoard("x86-rapl", tmp_path / "tree", parse("constant:20W")) as board:
        done = bench(board, f"{tmp_path}/nap.py:nap", "--fast-sensor", code=2)
    assert "no INA3221 here" in done.stderr
