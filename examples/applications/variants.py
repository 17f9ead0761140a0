"""Make int8 and pruned variants of the applications' models, and judge them: ``python variants.py build/ FRAMES...``.

    python variants.py build/ street/ photos/ --people people/

Every second frame calibrates the variants, and the others judge them. A detector is judged by how far its boxes agree
with the baseline's (AP@.5), because the frames have no labels; this is agreement and not accuracy. An embedding is
judged by pairs of faces: PEOPLE has a folder for each person, with photos that show one face. Missing models are
skipped. Writes ``variants.json`` and ``variants.md``. A student that ``student.py`` made in the same folder is judged
too.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import agreement
import detect
import faces
import numpy as np
from images import SUFFIXES, find_model, read_frames, read_image

import edgeprof

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from images import Found

    from edgeprof.evaluation.metric import Score

    #: Finds objects in a frame.
    Finder = Callable[[np.ndarray], Found]

#: Baseline → the compressors of its variants.
METHODS = {
    "FastestDet.onnx": ["int8-static", "prune-structured:amount=0.1"],
    "yolox_nano.onnx": ["int8-static", "prune-structured:amount=0.1"],
    "MobileFaceNet.tflite": ["int8-static", "prune:amount=0.3"],
}
#: Pipeline of detect.py → its variants.
DETECTORS = {
    "fastestdet": ["fastestdet_int8", "fastestdet_pruned"],
    "yolox_nano": ["yolox_nano_int8", "yolox_nano_pruned", "student"],
}
#: The most frames of each source.
MOST_FRAMES = 300


class Frame(NamedTuple):
    """An image and the source that it was read from."""

    image: np.ndarray
    source: str


def read_sources(sources: Iterable[str]) -> list[Frame]:
    """Return the frames of all sources.

    Raises:
        ValueError: there are fewer than four.
    """
    frames = [
        Frame(image, source) for source in sources for image in itertools.islice(read_frames(source), MOST_FRAMES)
    ]
    if len(frames) < 4:
        raise ValueError(
            f"the sources have {len(frames)} frames, too few to calibrate and to judge; give at least four"
        )
    return frames


def split_frames(frames: Sequence[Frame]) -> tuple[Sequence[Frame], Sequence[Frame]]:
    """Return the frames that calibrate and train, and those that judge: every second one."""
    return frames[::2], frames[1::2]


def make_variants(model: Path, samples: np.ndarray, folder: Path) -> None:
    """Make the variants of a model with ``edgeprof compress``; one that fails is reported by the command and left out.

    Args:
        model: The model's file.
        samples: Its inputs, one after the other.
        folder: For the variants and their calibration data.
    """
    data = folder / f"{model.stem}-inputs.npz"
    np.savez(data, x=samples)
    methods = [word for method in METHODS[model.name] for word in ("--with", method)]
    command = ["edgeprof", "compress", str(model), *methods, "--dataset", str(data), "-o", str(folder)]
    print("$", shlex.join(command), flush=True)
    subprocess.run([sys.executable, "-m", *command], check=False)


def locate_model(path: str) -> Path | None:
    """Return the path of a model, or None if it is missing."""
    try:
        return find_model(path)
    except FileNotFoundError as error:
        print(error)
        return None


def make_finder(stages: list[tuple[str, Callable]]) -> Finder:
    """Return a detector without its last stage, ``draw``."""
    return edgeprof.pipeline(stages[:-1])


def detector_rows(
    name: str, file: Path, sources: Sequence[str], baseline: Sequence[Found], variant: Sequence[Found]
) -> Iterator[dict[str, Any]]:
    """Describe a variant of a detector by its agreement with the baseline, in all frames and in those of each source.

    Args:
        name: The pipeline's name.
        file: Its model.
        sources: The source of each frame.
        baseline: What the baseline found in each frame.
        variant: What the variant found.
    """
    distinct = list(dict.fromkeys(sources))
    for source in [None, *distinct] if len(distinct) > 1 else [None]:
        chosen = [number for number, its in enumerate(sources) if source in {None, its}]
        reference = [baseline[number] for number in chosen]
        boxes = sum(int((seen.scores >= agreement.REFERENCE_SCORE).sum()) for seen in reference)
        if source and not boxes:
            continue  # there is nothing to agree with
        score = agreement.box_agreement(reference, [variant[number] for number in chosen])
        where = f" from {source}" if source else ""
        row = _row(name, file, score, f"{len(reference)} frames{where}, {boxes} boxes of the baseline")
        yield {**row, "metric": "AP@.5", "reference": "baseline", "source": source}


def _row(name: str, file: Path, score: Score, samples: str) -> dict[str, Any]:
    row = {"pipeline": name, "file": file.name, "bytes": file.stat().st_size}
    return {**row, "value": score.value, "ci95": score.ci95, "samples": samples}


def judge_detectors(folder: Path, frames: list[Frame]) -> list[dict[str, Any]]:
    calibrating, judging = split_frames(frames)
    rows = []
    for name, variants in DETECTORS.items():
        file, size = detect.DETECTORS[name]
        if (model := locate_model(file)) is None:
            continue
        detector = detect.load_detector(file, size, agreement.VARIANT_SCORE)
        make_variants(
            model, np.concatenate([detector.tensor(detector.resize(frame.image)) for frame in calibrating]), folder
        )
        find = make_finder(detector.stages())
        baseline = [find(frame.image) for frame in judging]
        for variant in (name, *variants):
            file, size = detect.DETECTORS[variant]
            if (path := locate_model(file)) is not None:
                find = make_finder(detect.load_detector(file, size, agreement.VARIANT_SCORE).stages())
                found = [find(frame.image) for frame in judging]
                sources = [frame.source for frame in judging]
                rows += detector_rows(f"detect.py:{variant}", path, sources, baseline, found)
    return rows


def judge_embeddings(folder: Path, frames: list[Frame], people: Path) -> list[dict[str, Any]]:
    if (model := locate_model("MobileFaceNet.tflite")) is None:
        return []
    baseline = faces.Embedder(model)
    align = edgeprof.pipeline(faces.detection(baseline.size))
    calibrating = [face for frame in split_frames(frames)[0] for face in align(frame.image).aligned]
    names, known = read_people(people, align)
    if not calibrating:
        print("the frames show no faces, so the photos of the people calibrate too, on whose pairs they are judged")
        calibrating = known
    make_variants(model, np.concatenate([baseline.tensor(face) for face in calibrating]), folder)
    rows = []
    reference = [baseline(face) for face in known]
    for variant, file in (("pipeline", model.name), ("int8", "*Net.int8*.tflite"), ("pruned", "*Net.prune*.tflite")):
        if (path := locate_model(file)) is not None:
            embed = faces.Embedder(path)
            embeddings = [embed(face) for face in known]
            score = agreement.verify(names, embeddings)
            samples = f"{score.samples} pairs of {len(known)} faces of {len(set(names))} people"
            row = _row(f"faces.py:{variant}", path, score, samples)
            cosine = agreement.likeness(reference, embeddings)
            rows.append({**row, "metric": "verification", "reference": "labels", "cosine_to_baseline": cosine})
    return rows


def read_people(folder: Path, align: Callable[[np.ndarray], faces.Faces]) -> tuple[list[str], list[np.ndarray]]:
    """Return the names and the aligned faces of all photos in the folders of a folder.

    Raises:
        ValueError: a photo does not show one face.
    """
    names, aligned = [], []
    for path in sorted(path for path in folder.glob("*/*") if path.suffix.lower() in SUFFIXES):
        seen = align(read_image(path)).aligned
        if len(seen) != 1:
            raise ValueError(f"{path} has to show one face, and {len(seen)} were found")
        names.append(path.parent.name)
        aligned.append(seen[0])
    return names, aligned


def format_table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a table for people."""
    lines = ["| variant | file, kB | judged by | result | on |", "|---|---|---|---|---|"]
    for row in rows:
        is_agreement = row["reference"] == "baseline"
        what = "agreement with the baseline's boxes, AP@.5" if is_agreement else "verification of pairs"
        low, high = row["ci95"] or (None, None)
        result = f"{row['value']:.3f}" + ("" if low is None else f" ({low:.3f} to {high:.3f})")
        if "cosine_to_baseline" in row:
            result += f"; cosine to the baseline's embeddings {row['cosine_to_baseline']:.3f}"
        size = f"{row['bytes'] / 1e3:.0f}"
        lines.append(f"| {row['pipeline']} | {size} | {what} | {result} | {row['samples']} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="for the variants, variants.json and variants.md")
    parser.add_argument("frames", nargs="+", help="images, folders of images, videos")
    parser.add_argument("--people", type=Path, help="a folder for each person, with photos of one face")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    os.environ["VARIANTS"] = str(given.folder)
    try:
        frames = read_sources(given.frames)
        rows = judge_detectors(given.folder, frames)
        if given.people:
            rows += judge_embeddings(given.folder, frames, given.people)
    except (OSError, ValueError) as error:
        raise SystemExit(f"{parser.prog}: {error}") from None
    (given.folder / "variants.json").write_text(json.dumps(rows, indent=2), "utf-8")
    (given.folder / "variants.md").write_text(format_table(rows), "utf-8")
    print(format_table(rows))


if __name__ == "__main__":
    main()
