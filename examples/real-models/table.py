"""Bench published models on published data, and compare their accuracy with the published figures.

    python examples/real-models/table.py [--data ../shared/data] [--window 1] > docs/real-models.md

Every row is one ``edgeprof bench`` of the installed edgeprof; the command is printed below the table. Without the data
the script does nothing but report that.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
IC01 = ("mlperf-tiny/ic01/data", "raw=uint8 shape=32x32x3")
KWS01 = ("mlperf-tiny/kws01/data", "raw=int8 shape=49x10x1")
MNIST = "mnist/t10k-images-idx3-ubyte.gz"
IMAGENET_MEAN = "scale=0.00392156862745098 mean=0.485,0.456,0.406 std=0.229,0.224,0.225 layout=NCHW dtype=float32"


@dataclass(frozen=True)
class Row:
    """A model, the data and the declared preprocessing of its evaluation, and the published accuracy."""

    model: str
    data: str
    preprocess: str
    published: str
    more: str = ""


ROWS = (
    Row("onnx-mnist/mnist.onnx", MNIST, "shape=1x28x28 dtype=float32", "98.9 % (model zoo, 10 000)"),
    Row(
        "seed-dnn-compression/mnist/quantized_model.tflite",
        MNIST,
        "scale=0.00392156862745098 dtype=float32 limit=1000",
        "98.80 % (README, first 1000)",
    ),
    Row(
        "seed-dnn-compression/cifar10/quantized_model.tflite",
        IC01[0],
        f"{IC01[1]} scale=0.00392156862745098 dtype=float32",
        "79.10 % (README, another 1000)",
    ),
    Row("mlperf-tiny/ic01/pretrainedResnet.tflite", IC01[0], f"{IC01[1]} dtype=float32", "≥ 85 % (MLPerf Tiny target)"),
    Row(
        "mlperf-tiny/ic01/pretrainedResnet_quant.tflite",
        IC01[0],
        f"{IC01[1]} quantise=input",
        "≥ 85 % (MLPerf Tiny target)",
    ),
    Row(
        "mlperf-tiny/kws01/kws_ref_model_float32.tflite",
        KWS01[0],
        # the samples are quantised with the int8 model's scale: value = (q − 83) · 0.58470291
        f"{KWS01[1]} scale=0.58470291 mean=48.53034153 dtype=float32",
        "≥ 90 % (MLPerf Tiny target)",
    ),
    Row("mlperf-tiny/kws01/kws_ref_model.tflite", KWS01[0], KWS01[1], "≥ 90 % (MLPerf Tiny target)"),
    Row(
        "onnx-int8-mobilenetv2-cifar10/mobilenetv2_pruned_finetuned_int8.onnx",
        IC01[0],
        f"{IC01[1]} resize=224x224 {IMAGENET_MEAN}",
        "87.74 % (README, all of CIFAR-10)",
    ),
    Row(
        "coral/mobilenet_v1_0.25_128_quant.tflite",
        "imagenet-samples/labels.csv",
        "crop_fraction=0.875 resize=128x128 dtype=uint8 label_offset=1",
        "–",
    ),
    Row(
        "coral/mobilenet_v1_0.5_160_quant.tflite",
        "imagenet-samples/labels.csv",
        "crop_fraction=0.875 resize=160x160 dtype=uint8 label_offset=1",
        "–",
    ),
    Row(
        f"{HERE / 'resnet20.py'}:pretrained",
        IC01[0],
        f"{IC01[1]} {IMAGENET_MEAN}",
        "91.73 % (README, all of CIFAR-10)",
        "--runtime pytorch --input x=1x3x32x32",
    ),
)


def words(row: Row, data: Path, window: float) -> list[str]:
    model = row.model if ":" in row.model else str(data / row.model)
    settings = [word for setting in row.preprocess.split() for word in ("--preprocess", setting)]
    timing = ["--windows", "3", "--window", f"{window:g}", "--idle", "1", "--warmup", "0.3"]
    return ["bench", model, *timing, "--dataset", str(data / row.data), *settings, *row.more.split()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=HERE.parents[2] / "shared/data", help="where the models are")
    parser.add_argument("--window", type=float, default=1.0, help="seconds of each of three windows")
    given = parser.parse_args()
    if not given.data.is_dir():
        sys.exit(f"there are no models in {given.data}: name their folder with --data")
    commands = []
    print("| model | size | latency p50 | measured here | published |\n|---|---|---|---|---|")
    for row in ROWS:
        line = words(row, given.data, given.window)
        commands.append(
            shlex.join(["edgeprof", *line]).replace(str(given.data), "$DATA").replace(str(HERE), "examples/real-models")
        )
        done = subprocess.run(
            [sys.executable, "-m", "edgeprof", *line, "--json", "-q"],
            env={**os.environ, "RESNET20_WEIGHTS": str(given.data / "cifar10-resnet-pytorch/resnet20-12fca82f.th")},
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        print(cells(row, done), flush=True)
    print("\n" + "\n".join(f"    {command}" for command in commands))


def cells(row: Row, done: subprocess.CompletedProcess[str]) -> str:
    name = Path(row.model).name if "seed" not in row.model else "/".join(Path(row.model).parts[-2:])
    if done.returncode != 0:
        return f"| {name} | – | – | exit {done.returncode} | {row.published} |"
    variant = json.loads(done.stdout)["variants"][0]
    score, size = variant["accuracy"], variant["model"]["size_bytes"]
    low, high = score["ci95"]
    right = round(score["value"] * score["samples"])
    kib = "–" if size is None else f"{size / 1024:.0f} KiB"
    return (
        f"| {name} | {kib} | {variant['latency_s']['median'] * 1e3:.3f} ms "
        f"| {score['value']:.2%} ({right}/{score['samples']}; {low:.1%} to {high:.1%}) | {row.published} |"
    )


if __name__ == "__main__":
    main()
