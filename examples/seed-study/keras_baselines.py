"""Keras baselines for MNIST, CIFAR-10 and GTSRB, and their quantised, pruned and clustered TFLite files.

    pip install 'edgeprof[keras-compress,litert,images]'
    python examples/seed-study/keras_baselines.py build/keras --mnist MNIST --cifar10 CIFAR --gtsrb GTSRB

Each argument is a folder in the layout that the authors of the data publish (docs/data.md); nothing is downloaded. A
folder without a training set is split in two, and for a dataset that is not given, 43 or 10 patterns with noise are
drawn, which exercise the same network but whose accuracy means nothing: the table marks both. Every step is one
``edgeprof`` command, printed before it runs. ``--board jetson-nano`` benches on a virtual board, whose rails follow the
processor time that is used here.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from edgeprof.errors import InputError
from edgeprof.evaluation.load import load_dataset
from edgeprof.plugins import PluginHost

#: Dataset → the shape of its images, the number of its classes.
DATASETS = {"mnist": ((28, 28, 1), 10), "cifar10": ((32, 32, 3), 10), "gtsrb": ((30, 30, 3), 43)}
#: The rows of a table: its name, and the chain that makes the file from baseline_model.h5 (None: that file).
ROWS = {
    "baseline (.h5)": None,
    "baseline (.tflite)": "export-tflite",
    "quantised": "int8-dynamic",
    "quantised, calibrated": "int8-static",
    "pruned": "prune:amount=0.5+export-tflite",
    "clustered": "cluster:n=16+export-tflite",
    "all three": "prune:amount=0.5+cluster:n=16+int8-static",
}
SEED = 7


def edgeprof(*words: object, board: str | None = None) -> None:
    line = [str(word) for word in words]
    if board is not None:
        line = ["simulate", board, "--follow", "command", "--", sys.executable, "-m", "edgeprof", *line]
    print("$ edgeprof", shlex.join(line).replace(f"{sys.executable} -m edgeprof", "edgeprof"), flush=True)
    code = subprocess.run([sys.executable, "-m", "edgeprof", *line], check=False).returncode
    if code not in {0, 3}:  # 3: a variant failed, and the table shows it
        sys.exit(code)


def read(spec: str, shape: tuple[int, ...], split: str | None) -> tuple[Any, Any]:
    """Return the images as float32 from 0 to 1, and the labels."""
    options = {"scale": "1/255", "dtype": "float32", "resize": f"{shape[0]}x{shape[1]}"}
    if shape[2] == 1:
        del options["resize"]
    data = load_dataset(spec, PluginHost.from_environment(), options | ({"split": split} if split else {}))
    x = np.concatenate([batch[""] for batch in data.batches(256)])
    return x.reshape(-1, *shape), np.asarray(data.labels)


def read_splits(spec: str, shape: tuple[int, ...]) -> dict[str, tuple[Any, Any]] | None:
    """Return the samples of the published training and test sets; None if the folder has not both."""
    try:
        train_set = read(spec, shape, "train")
    except InputError:
        return None
    try:
        return {"train": train_set, "test": read(spec, shape, "test")}
    except InputError:  # MNIST's test set has another name
        return {"train": train_set, "test": read(spec, shape, "t10k")}


def draw(shape: tuple[int, ...], classes: int) -> tuple[Any, Any]:
    """Return a pattern for each class with noise, in place of images that are not here."""
    chance = np.random.default_rng(SEED)
    patterns = chance.random((classes, *shape), dtype=np.float32)
    y = chance.integers(0, classes, 2000)
    return (0.2 * patterns[y] + 0.8 * chance.random((len(y), *shape), dtype=np.float32)), y


def samples(name: str, spec: str | None) -> tuple[dict[str, tuple[Any, Any]], str]:
    """Return the samples of each split, and a remark for the table."""
    shape, classes = DATASETS[name]
    if spec is None:
        whole, remark = draw(shape, classes), "drawn patterns in place of images: the accuracy means nothing"
    else:
        splits = read_splits(spec, shape)
        if splits is not None:
            return splits, "the published sets"
        whole, remark = (
            read(spec, shape, None),
            f"{Path(spec).name} has no training set: four fifths of it train, one fifth is judged",
        )
    order = np.random.default_rng(SEED).permutation(len(whole[1]))
    train, test = order[: len(order) * 4 // 5], order[len(order) * 4 // 5 :]
    return {"train": (whole[0][train], whole[1][train]), "test": (whole[0][test], whole[1][test])}, remark


def train(name: str, folder: Path, x: Any, y: Any, epochs: int) -> None:
    """Train four convolutions and two dense layers, as in the users' study, and write baseline_model.h5."""
    import tensorflow as tf  # noqa: PLC0415 - slow to import

    shape, classes = DATASETS[name]
    tf.keras.utils.set_random_seed(SEED)
    layers = tf.keras.layers
    model = tf.keras.Sequential(
        [
            tf.keras.Input(shape),
            layers.Conv2D(16, 3, activation="relu"),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPool2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.Conv2D(128, 3, activation="relu"),
            layers.MaxPool2D(),
            layers.Flatten(),
            layers.Dense(512, activation="relu"),
            layers.Dropout(0.5),
            layers.Dense(classes, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x, y, batch_size=64, epochs=epochs, verbose=2)
    model.save(folder / "baseline_model.h5")


def rows(name: str, result: Path, remark: str) -> list[str]:
    """Return the table's rows for one dataset."""
    lines = []
    variants = json.loads(result.read_text())["variants"]
    for label, variant in zip(ROWS, variants, strict=True):
        if variant["status"] == "failed":
            lines.append(f"| {name} | {label} | failed: {variant['reasons'][0]['message']} | | | |")
            continue
        gross = variant["energy_j_per_inference"]["gross"]
        provenance = variant["energy_j_per_inference"]["provenance"]
        joules = f"{1e3 * gross['value']:.3g} ± {1e3 * gross['expanded_uncertainty']:.2g}" if gross["value"] else "–"
        accuracy = variant["accuracy"]
        cells = [
            f"{100 * accuracy['value']:.1f} % ({100 * accuracy['ci95'][0]:.1f}–{100 * accuracy['ci95'][1]:.1f})",
            f"{1e3 * variant['latency_s']['p50']:.3f}",
            f"{variant['model']['size_bytes'] / 1e6:.2f} ({variant['model']['size_compressed_bytes'] / 1e6:.2f})",
            f"{joules} {provenance}",
        ]
        lines.append(f"| {name} | {label} | " + " | ".join(cells) + " |")
    return [*lines, f"| | *{remark}* | | | | |"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    for name in DATASETS:
        parser.add_argument(f"--{name}", metavar="FOLDER")
    parser.add_argument("--datasets", default=",".join(DATASETS), help="which of them")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--samples", type=int, default=50_000, help="training samples at most")
    parser.add_argument("--judged", type=int, default=2000, help="samples that are judged at most")
    parser.add_argument("--board", help="a virtual board, as jetson-nano")
    given = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    table = ["| data | variant | top-1 (95 %) | p50, ms | MB (zipped) | mJ / inference |", "|---" * 6 + "|"]
    most = {"train": given.samples, "test": given.judged}
    for name in given.datasets.split(","):
        folder = given.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        splits, remark = samples(name, getattr(given, name))
        for split, (x, y) in splits.items():
            np.savez(folder / f"{split}.npz", x=x[: most[split]], y=y[: most[split]])
        baseline = folder / "baseline_model.h5"
        if not baseline.exists():
            train(name, folder, *(values[: most["train"]] for values in splits["train"]), given.epochs)
        chains = [chain for chain in ROWS.values() if chain is not None]
        asked = [word for chain in chains for word in ("--with", chain)]
        variants = folder / "variants"
        edgeprof("compress", baseline, *asked, "--dataset", folder / "train.npz", "-o", variants)
        manifest = json.loads((variants / "baseline_model.compress.json").read_text())
        paths = {entry["chain"]: variants / entry["model"]["path"] for entry in manifest["variants"] if entry["model"]}
        models = [baseline, *(paths[chain] for chain in chains)]
        names = [word for label in ROWS for word in ("--name", label)]
        flags = ["--dataset", folder / "test.npz", "--threads", 1, "--quick", "-o", folder / "result.json"]
        edgeprof("bench", *models, *names, *flags, board=given.board)
        table += rows(name, folder / "result.json", remark)
    (given.folder / "table.md").write_text("\n".join(table) + "\n")
    print("\n".join(table))


if __name__ == "__main__":
    main()
