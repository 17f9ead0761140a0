"""The guest's side of camera.sh: measures pipelines with the frames of a camera, and breaks it on purpose.

Started as ``init`` with the folder of OpenCV. The camera is the driver vivid's, whose controls imitate a camera that
sends nothing.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import struct
import subprocess
import sys
import time
import traceback
from pathlib import Path

CAMERA = "/dev/video0"
SET_CONTROL, QUERY_CONTROL = 0xC008561C, 0xC0445624  # VIDIOC_S_CTRL, VIDIOC_QUERYCTRL
NEXT_CONTROL = 0x80000000  # V4L2_CTRL_FLAG_NEXT_CTRL
POWER_OFF = 0x4321FEDC
SHOWN = ("clip_shortened", "rate_beyond_source", "late", "dropped")
PIPELINE = """
import edgeprof, numpy as np
pipeline = edgeprof.pipeline([("shrink", lambda frame: frame[::4, ::4].astype(np.float32)), ("mean", np.mean)])
"""


def set_control(name: str, value: int) -> None:
    """Set a control of the camera's driver by its name."""
    with Path(CAMERA).open("rb+", buffering=0) as camera:
        number = 0
        while True:
            answer = bytearray(struct.pack("I", number | NEXT_CONTROL) + bytes(64))
            fcntl.ioctl(camera, QUERY_CONTROL, answer)  # OSError where there are no more
            number, _, label = struct.unpack_from("II32s", answer)
            if label.split(b"\0")[0].decode() == name:
                fcntl.ioctl(camera, SET_CONTROL, struct.pack("Ii", number, value))
                return


def edgeprof(*argv: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "edgeprof", *argv]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def bench(*flags: str, frames: str = CAMERA) -> subprocess.Popen[str]:
    windows = ["--windows", "1", "--window", "2", "--warmup", "0.5", "--idle", "0", "--timeout", "900"]
    given = ["--frames", frames, "--estimate-power", "4", "-o", "result.json", *windows, *flags]
    return edgeprof("bench", "app.py:pipeline", *given)


def finish(process: subprocess.Popen[str]) -> str:
    """What it printed, and its exit status."""
    output, _ = process.communicate(timeout=1800)
    lines = [line for line in output.splitlines() if line.strip()]
    return "\n".join(
        [*lines[:4], *(["    …"] if len(lines) > 16 else []), *lines[4:][-12:], f"    exit {process.returncode}"]
    )


def in_result() -> str:
    result = json.loads(Path("result.json").read_text())
    (variant,) = result["variants"]
    shown = [reason["message"] for reason in variant["reasons"] if reason["code"] in SHOWN]
    return "\n".join([json.dumps({name: variant["pipeline"][name] for name in ("source", "frames")}), *shown])


def frames() -> str:
    """Frames come, and of two rates that are asked for the camera gives the lower one only."""
    return finish(bench("--scenario", "periodic", "--rate", "1,100")) + "\n" + in_result()


def missing() -> str:
    return finish(bench(frames="/dev/video9"))


def stall() -> str:
    """The camera sends nothing from the beginning."""
    set_control("Percentage of Dropped Buffers", 100)
    try:
        return finish(bench())
    finally:
        set_control("Percentage of Dropped Buffers", 0)


def stall_later() -> str:
    """The camera sends nothing any more after its first frames."""
    process = bench("--option", "frames_count=400")
    wait_for_camera(process)
    set_control("Percentage of Dropped Buffers", 100)
    try:
        return finish(process)
    finally:
        set_control("Percentage of Dropped Buffers", 0)


def wait_for_camera(process: subprocess.Popen[str]) -> None:
    """Wait until a process has had the camera open for three seconds."""
    while process.poll() is None:
        for folder in Path("/proc").glob("[0-9]*"):
            if int(folder.name) == os.getpid():
                continue
            try:
                opened = {str(file.readlink()) for file in (folder / "fd").iterdir()}
            except OSError:
                continue
            if CAMERA in opened:
                time.sleep(3)
                return
        time.sleep(0.2)
    raise AssertionError(finish(process))


def compile_modules() -> None:
    """Measure the pipeline on the host, so that the modules that this needs are compiled."""
    Path("app.py").write_text(PIPELINE)
    subprocess.run(
        [sys.executable, "-c", "import numpy; numpy.save('frames', numpy.ones((4, 64, 64, 3), 'u1'))"], check=True
    )
    report = finish(bench("--scenario", "periodic", "--rate", "10", frames="frames.npy"))
    if "exit 2" in report:
        raise SystemExit(report)


CHECKS = (missing, stall, stall_later, frames)


def main(opencv: str, *chosen: str) -> None:
    prefix = str(Path(opencv).parent / "pycache")
    places = {"HOME": "/run", "TMPDIR": "/run", "PYTHONPATH": opencv, "PYTHONPYCACHEPREFIX": prefix}
    os.environ.update(places, PATH="/usr/bin:/bin:/usr/sbin", LC_ALL="C.UTF-8")
    os.chdir("/run")
    Path("app.py").write_text(PIPELINE)
    for check in [check for check in CHECKS if check.__name__ in chosen] or CHECKS:
        began = time.monotonic()
        try:
            report = check()
        except Exception:  # noqa: BLE001 - the other checks follow
            report = traceback.format_exc()
        print(f"== {check.__name__} ({time.monotonic() - began:.0f} s)\n{report}", flush=True)


if __name__ == "__main__":
    if "--compile" in sys.argv:
        sys.exit(compile_modules())
    try:
        main(*sys.argv[1:])
    except BaseException:  # noqa: BLE001 - an init that dies is a kernel panic
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        ctypes.CDLL(None).reboot(POWER_OFF)
