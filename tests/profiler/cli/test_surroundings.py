"""The command as shells and service managers may run it: closed or full streams, other encodings, signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgeprof.results.document import from_json
from tests.processes import ended
from tests.profiler.watching import status_apart_from_load

QUICK = "--windows 2 --window 0.1 --idle 0 --warmup 0.05 --timeout 20"
APPLICATION = "import time\ndef steady(): time.sleep(0.002)\ndef nan(): return float('nan')\n"
APPLICATION += "def masked(): return float('-inf')\n"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with an application, on a device without any sensor."""
    (tmp_path / "app.py").write_text(APPLICATION)
    (tmp_path / "sys").mkdir()
    return tmp_path


def environment(place: Path, **extra: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("EDGEPROF", "LC_", "LANG", "PYTHONIOENCODING"))}
    return {
        **kept,
        "EDGEPROF_SYSFS_ROOT": str(place / "sys"),
        "EDGEPROF_DATA_DIR": str(place / "data"),
        "EDGEPROF_PLUGINS": "python,system",
        "PYTHONWARNINGS": "error",
        **extra,
    }


def shell(place: Path, script: str, **extra: str) -> subprocess.CompletedProcess[bytes]:
    """Run a shell script in which ``edgeprof`` is the command."""
    script = f'edgeprof() {{ "{sys.executable}" -m edgeprof "$@"; }}\n{script}'
    return subprocess.run(
        ["bash", "-c", script],
        cwd=place,
        env=environment(place, **extra),
        capture_output=True,
        timeout=100,
        check=False,
    )


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&-", "<&- >&- 2>&-"])
def test_a_bench_with_closed_streams_writes_its_file_and_nothing_into_it(place, closed):
    done = shell(place, f"edgeprof bench app.py:steady {QUICK} -o out.json {closed}")
    assert done.returncode == 0, done.stderr
    assert status_apart_from_load(from_json((place / "out.json").read_bytes()).variants[0]) == "ok"
    assert b"Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_progress_that_cannot_be_written_costs_nothing(place):
    done = shell(place, f"edgeprof bench app.py:steady {QUICK} 2>/dev/full")
    assert done.returncode == 0
    assert b"saved as run" in done.stdout


def test_a_reader_that_leaves_early_is_no_failure(place):
    done = shell(place, "edgeprof plugins list > >(exec <&-; sleep 0.5); echo $?")
    assert done.stdout == b"0\n"
    assert done.stderr == b""


@pytest.mark.parametrize("encoding", ["latin-1", "cp437"])
def test_every_word_reaches_a_stream_that_lacks_its_characters(place, encoding):
    done = shell(
        place, f"edgeprof bench app.py:steady {QUICK}; edgeprof sensors; edgeprof doctor", PYTHONIOENCODING=encoding
    )
    assert b"Traceback" not in done.stderr
    assert b"\\x" not in done.stderr
    assert b"estimated" in done.stdout
    assert b"-> edgeprof bench" in done.stdout


def test_a_file_name_that_is_no_text_is_measured_shown_and_kept(place):
    (place / "app.py").rename(place / os.fsdecode(b"caf\xe9.py"))
    done = shell(place, f"edgeprof bench $(printf 'caf\\xe9.py'):steady {QUICK} --json -o out.json 2>/dev/null")
    assert done.returncode == 0
    for text in (done.stdout, (place / "out.json").read_bytes()):
        assert from_json(text).variants[0].model.path == "caf\ufffd.py:steady"
    assert b"caf" in shell(place, "edgeprof history").stdout


def test_json_is_utf_8_in_every_locale(place):
    (place / "modèle.py").write_text(APPLICATION)
    done = shell(place, f"edgeprof bench modèle.py:steady {QUICK} --json 2>/dev/null", PYTHONIOENCODING="ascii")
    assert json.loads(done.stdout)["variants"][0]["model"]["path"] == "modèle.py:steady"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_from_outside_keeps_what_was_measured(place, number):
    words = ["bench", "app.py:steady", "--windows", "400", "--window", "0.1", "--idle", "0", "--warmup", "0.05"]
    with ended(
        subprocess.Popen(
            [sys.executable, "-m", "edgeprof", *words, "-o", "out.json"],
            cwd=place,
            env=environment(place),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("window 3/"):
                process.send_signal(number)
                break
        process.communicate(timeout=60)
    assert process.returncode == 130
    result = from_json((place / "out.json").read_bytes())
    assert result.interrupted
    assert len(result.variants[0].windows) >= 2


def test_a_sigterm_to_run_reaches_its_command(place):
    code = "import signal, sys; print('up', flush=True); signal.pause()"
    with ended(
        subprocess.Popen(
            [sys.executable, "-m", "edgeprof", "run", "--idle", "0", "--", sys.executable, "-c", code],
            cwd=place,
            env=environment(place),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.terminate()
        _, told = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "exit 143" in told


def test_nan_outputs_are_failed_as_in_compress_and_exit_3(place):
    done = shell(place, f"edgeprof bench app.py:nan app.py:masked app.py:steady {QUICK} --json 2>/dev/null")
    assert done.returncode == 3
    nan, masked, _ = json.loads(done.stdout)["variants"]
    assert (nan["status"], masked["status"]) == ("failed", "degraded")
    assert status_apart_from_load(from_json(done.stdout).variants[2]) == "ok"
    assert "infinite_output" in [r["code"] for r in masked["reasons"]]
    assert nan["windows"]
    (reason,) = [r for r in nan["reasons"] if r["code"] == "nan_output"]
    assert "--input-data" in reason["remedy"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_bench_whose_progress_cannot_be_written_ends_as_one_whose_can(place, unbuffered):
    done = shell(place, f"edgeprof bench app.py:steady {QUICK} 2>/dev/full", PYTHONUNBUFFERED=unbuffered)
    assert done.returncode == 0
    assert shell(place, "edgeprof bench no.onnx 2>/dev/full", PYTHONUNBUFFERED=unbuffered).returncode == 2
    assert b"saved as run" in done.stdout


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_fits_only_in_part_is_an_error(place, unbuffered):
    script = "ulimit -f 1; edgeprof simulate --help >/dev/null; trap '' XFSZ; edgeprof bench --help > cut; echo $?"
    done = shell(place, script, PYTHONUNBUFFERED=unbuffered)
    assert done.stdout == b"2\n"
    assert (place / "cut").stat().st_size == 1024


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1])
def test_run_outlives_a_signal_with_its_command_and_keeps_the_figures(place, number):
    code = f"import signal, sys; signal.signal({int(number)}, lambda *a: sys.exit(5)); "
    code += "print('up', flush=True); signal.pause()"
    words = ["run", "--idle", "0", "-o", "out.json", "--", sys.executable, "-c", code]
    with ended(
        subprocess.Popen(
            [sys.executable, "-m", "edgeprof", *words],
            cwd=place,
            env=environment(place),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(number)
        process.communicate(timeout=60)
    assert process.returncode == 5
    assert json.loads((place / "out.json").read_text())["exit_code"] == 5
