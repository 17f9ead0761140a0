"""Reproduce, explain and repair the three failures of the Raspberry Pi study.

    python examples/seed-study/failures.py [build/seed-study]

In that study, static int8 lowered the accuracy of a ResNet from 88 % to 2 %, dynamic int8 changed nothing, and 65 % of
zeros made it slower. Here, one ``edgeprof compress`` of the ResNet that resnet.py trains reproduces each failure,
``edgeprof diagnose`` gives the reason, and one bench compares all of them with the correct variants. Each command is
printed before it runs.

Needs: pip install 'edgeprof[onnx,onnx-compress,torch-compress]' scikit-learn. Takes some minutes on two cores.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
MODULE = f"{HERE / 'resnet.py'}:trained"


def run(*words: object) -> None:
    line = [str(word) for word in words]
    print(f"\n$ edgeprof {shlex.join(line)}", flush=True)
    done = subprocess.run([sys.executable, "-m", "edgeprof", *line], check=False)
    if done.returncode not in {0, 3}:
        sys.exit(done.returncode)


def main(folder: Path) -> None:
    if not (folder / "resnet.pth").exists():
        status = subprocess.run([sys.executable, HERE / "resnet.py", folder], check=False).returncode
        if status:
            sys.exit(status)
    train, test = folder / "train.npz", folder / "test.npz"
    # The mistake of the first failure: calibration data divided by 255, although the network takes pixels of 0 to 16.
    wrong = folder / "wrong.npz"
    with np.load(train) as data:
        np.savez_compressed(wrong, x=data["x"] / np.float32(255), y=data["y"])

    run("compress", MODULE, "--with", "export-onnx", "-o", folder, "-q")
    baseline = folder / "resnet-trained.export-onnx.onnx"

    failed = folder / "failed"
    print("\n== static int8 that answers at random: calibrated on other numbers than it meets")
    run("compress", baseline, "--with", "int8-static", "--dataset", wrong, "-o", failed, "-q")
    static = failed / f"{baseline.stem}.int8-static.onnx"
    run("diagnose", static, "--baseline", baseline, "--dataset", test, "-q")

    print("\n== dynamic int8 that changes nothing: only the dense layer became int8")
    run("compress", baseline, "--with", "int8-dynamic", "-o", failed, "-q")
    dynamic = failed / f"{baseline.stem}.int8-dynamic.onnx"
    run("diagnose", dynamic, "--baseline", baseline, "--dataset", test, "-q")

    print("\n== 65 % of zeros that make nothing faster: they lie anywhere")
    run("compress", baseline, "--with", "prune:amount=0.65", "-o", failed, "-q")
    pruned = failed / f"{baseline.stem}.prune_amount=0.65_.onnx"
    run("diagnose", pruned, "--baseline", baseline, "--dataset", test, "-q")

    print("\n== mended: calibrated on its own data; channels taken out and trained again; both")
    narrow = "prune-structured:amount=0.5,epochs=3+export-onnx"
    mended = folder / "mended"
    both = ["--with", narrow, "--with", f"{narrow}+int8-static"]
    run("compress", MODULE, "--with", "export-onnx+int8-static", *both, "--dataset", train, "-o", mended)
    made = sorted(mended.glob("*.onnx"), key=lambda path: path.stat().st_mtime)
    names = ["baseline", "static, wrong", "dynamic", "65 % zeros", "static", "half the channels", "both"]
    named = [word for name in names for word in ("--name", name)]
    run("bench", baseline, static, dynamic, pruned, *made, *named, "--quick", "--dataset", test, "--threads", 1)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "build/seed-study"))
