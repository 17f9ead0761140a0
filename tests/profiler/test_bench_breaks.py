"""Boards and meters that break, change and come back under a running ``edgeprof bench``.

Nothing crashes, nothing is invented, and every gap is counted where its joules are shown.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading

import pytest

from edgeprof.simulation.layouts import build

QUICK = ["--windows", "3", "--window", "1", "--idle", "0.5", "--warmup", "0.2", "-q", "--json"]


@pytest.fixture
def bench(tmp_path):
    """Starts a bench of a callable that sleeps; what it returns waits for the result."""
    (tmp_path / "nap.py").write_text("import time\n\n\ndef nap():\n    time.sleep(0.01)\n")
    environment = {**os.environ, "EDGEPROF_DATA_DIR": str(tmp_path / "data"), "EDGEPROF_CONFIG": str(tmp_path / "c")}

    def start(*arguments: str):
        child = subprocess.Popen(
            [sys.executable, "-m", "edgeprof", "bench", f"{tmp_path}/nap.py:nap", *QUICK, *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

        def finish():
            out, err = child.communicate(timeout=100)
            assert "Traceback" not in err
            assert child.returncode == 0, err
            return json.loads(out)

        finish.child = child
        return finish

    return start


@pytest.mark.parametrize("seed", [1, 2])
def test_a_board_that_breaks_at_random_degrades_the_joules_and_invents_none(tmp_path, bench, seed: int) -> None:
    """Every current of the tree is 1 A at 5 V, or broken: no joule can come from anything else than 5 W."""
    layout = build("jetson-orin-nano", tmp_path / "tree")
    (tmp_path / "tree" / "edgeprof-simulation.json").write_text("{}")
    currents = [rail.current for rail in layout.rails.values()]
    for rail in layout.rails.values():
        rail.current.write_text("1000\n")
        rail.voltage.write_text("5000\n")
    chance, done = random.Random(seed), threading.Event()
    finish = bench("--sysfs-root", str(tmp_path / "tree"))

    def vandal() -> None:
        done.wait(4.0)  # it has been found by then, or it breaks while it is looked for: both must do
        while not done.wait(0.02):
            path = chance.choice(currents)
            if path.is_dir():
                path.rmdir()
            what = chance.choice(["good", "good", "empty", "text", "gone", "directory", "huge"])
            if what in {"gone", "directory"}:
                path.unlink(missing_ok=True)
                if what == "directory":
                    path.mkdir()
            else:
                path.write_text({"good": "1000\n", "empty": "", "text": "none\n", "huge": "9" * 30 + "\n"}[what])

    thread = threading.Thread(target=vandal)
    thread.start()
    try:
        result = finish()
    finally:
        done.set()
        thread.join()
    (variant,) = result["variants"]
    assert variant["status"] in {"ok", "degraded"}
    for window in variant["windows"]:
        if window["mean_power_w"] is not None:
            assert window["mean_power_w"] == pytest.approx(5.0, rel=1e-3)
    for strip in result["traces"]:
        assert {round(watts, 3) for watts in strip["power_w"] if watts is not None} <= {5.0}
    missed = [use for use in result["sensors"] if use["quantity"] == "power" and use["missed"] > 0]
    assert missed
    codes = {reason["code"] for reason in variant["reasons"]}
    if variant["status"] == "ok":
        assert all((use["max_gap_s"] or 0) < 0.2 for use in missed if use["channel"] == "VDD_IN")
    else:
        assert codes & {"gaps", "few_samples", "no_samples", "uncertain"}


def test_a_meter_that_stops_talking_degrades_the_result_with_the_time_that_was_lost(tmp_path, bench) -> None:
    """It talks for 3 s of the windows, is silent for the rest, and its last watts are not held."""
    program = (
        "import time\nbegin = None\n"
        "import os\n"
        "while True:\n"
        f"    started = os.path.exists({str(tmp_path / 'quiet')!r})\n"
        "    if not started: print('W=5.0', flush=True)\n"
        "    time.sleep(0.02)\n"
    )
    (tmp_path / "talk.py").write_text(program)
    (tmp_path / "nap.py").write_text(
        "import pathlib, time\n\nCALLS = 0\n\n\ndef nap():\n    global CALLS\n    CALLS += 1\n"
        f"    if CALLS == 150:\n        pathlib.Path({str(tmp_path / 'quiet')!r}).touch()\n"
        "    time.sleep(0.01)\n"
    )
    finish = bench("--sensor", f"meter:command:{sys.executable} {tmp_path}/talk.py")
    result = finish()
    (variant,) = result["variants"]
    assert variant["status"] == "degraded"
    assert variant["energy_j_per_inference"]["rail"] == "meter"
    said = " ".join(reason["message"] for reason in [*variant["reasons"], *result["reasons"]])
    assert "said nothing for" in said
    assert any(reason["code"] in {"gaps", "no_samples"} for reason in variant["reasons"])
    powers = [window["mean_power_w"] for window in variant["windows"]]
    assert powers[-1] is None
    assert all(watts == pytest.approx(5.0) for watts in powers if watts is not None)
