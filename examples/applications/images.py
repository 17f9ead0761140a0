"""What the applications share: frames, resizing, overlapping boxes, drawing, and finding models.

Images are arrays of height × width × 3 (blue, green, red; uint8), as OpenCV returns them. Pillow resizes and draws, so
that the results are the same with and without OpenCV.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from collections.abc import Iterator

    import edgeprof

HERE = Path(__file__).resolve().parent
#: The folders that are searched for models if ``MODELS`` is not set.
MODEL_FOLDERS = (HERE / "models", HERE.parents[2] / "shared" / "data")
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


class Resized(NamedTuple):
    """A frame and the same frame resized for a network.

    Attributes:
        image: The frame.
        small: The resized frame.
        scale: Pixels of ``image`` per pixel of ``small``, horizontally and vertically.
    """

    image: np.ndarray
    small: np.ndarray
    scale: tuple[float, float]


class Found(NamedTuple):
    """The objects that were found in a frame.

    Attributes:
        image: The frame.
        boxes: n × 4: left, top, right, bottom (pixels of ``image``).
        scores: n, from 0 to 1.
        labels: n names.
    """

    image: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    labels: list[str]


def find_model(pattern: str) -> Path:
    """Return the path of a model: in the folders ``VARIANTS`` and ``MODELS``, or else in one of ``MODEL_FOLDERS``.

    Args:
        pattern: The name of the file, or a pattern as "FastestDet.int8*.onnx".

    Raises:
        FileNotFoundError: the file is in none of them.
    """
    given = [Path(os.environ[name]) for name in ("VARIANTS", "MODELS") if os.environ.get(name)]
    for folder in given if os.environ.get("MODELS") else [*given, *MODEL_FOLDERS]:
        for path in sorted(folder.rglob(pattern)):
            return path
    raise FileNotFoundError(
        f"{pattern} is not there; README.md says what makes it or where it comes from, and MODELS=FOLDER or"
        " VARIANTS=FOLDER where it lies"
    )


def stretch(image: np.ndarray, width: int, height: int) -> Resized:
    """Resize an image to exactly this size; its proportions may change."""
    small = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    return Resized(image, small, (image.shape[1] / width, image.shape[0] / height))


def fit(image: np.ndarray, width: int, height: int, padding: int) -> Resized:
    """Resize an image to fit into this size with its proportions, and pad it on the right and at the bottom."""
    scale = max(image.shape[1] / width, image.shape[0] / height)
    size = (round(image.shape[1] / scale), round(image.shape[0] / scale))
    small = np.full((height, width, 3), padding, np.uint8)
    small[: size[1], : size[0]] = Image.fromarray(image).resize(size, Image.Resampling.BILINEAR)
    return Resized(image, small, (scale, scale))


def keep_best(boxes: np.ndarray, scores: np.ndarray, groups: np.ndarray, most_overlap: float) -> np.ndarray:
    """Return the indices of boxes that no better box of their group overlaps, best first (non-maximum suppression).

    Args:
        boxes: n × 4: left, top, right, bottom.
        scores: n scores.
        groups: n groups; boxes of different groups do not suppress each other.
        most_overlap: If the intersection over union of two boxes is larger, the one with the lower score is dropped.
    """
    kept = []
    areas = np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1)
    order = np.argsort(-scores, kind="stable")
    while len(order):
        best, others = order[0], order[1:]
        kept.append(best)
        sides = np.minimum(boxes[best, 2:], boxes[others, 2:]) - np.maximum(boxes[best, :2], boxes[others, :2])
        shared = np.prod(np.maximum(sides, 0), axis=1)
        overlap = shared / np.maximum(areas[best] + areas[others] - shared, 1e-9)
        order = others[(overlap <= most_overlap) | (groups[others] != groups[best])]
    return np.array(kept, dtype=np.intp)


def draw(found: Found) -> Found:
    """Draw boxes, labels and scores into a copy of the frame."""
    picture = Image.fromarray(found.image)
    pen = ImageDraw.Draw(picture)
    for box, score, label in zip(found.boxes, found.scores, found.labels, strict=True):
        left, top, right, bottom = (float(edge) for edge in box)
        pen.rectangle((left, top, max(left, right), max(top, bottom)), outline=(0, 220, 255), width=2)
        pen.text((left + 4, top + 2), f"{label} {score:.2f}", fill=(0, 220, 255))
    return found._replace(image=np.asarray(picture))


def read_frames(source: str) -> Iterator[np.ndarray]:
    """Yield the frames of an image, a folder of images, or anything that OpenCV opens: a video, a camera, a stream."""
    path = Path(source)
    if path.is_dir() or path.suffix.lower() in SUFFIXES:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        for file in files:
            if file.suffix.lower() in SUFFIXES:
                yield read_image(file)
        return
    if "://" not in source and not source.isdigit() and not path.exists():
        raise FileNotFoundError(f"there is nothing at {source}")
    try:
        import cv2  # noqa: PLC0415 - only videos, cameras and streams need it
    except ImportError:
        raise SystemExit(
            f"{source} needs OpenCV: pip install 'edgeprof[opencv]'; a folder of images does not"
        ) from None
    capture = cv2.VideoCapture(int(source) if source.isdigit() else source)
    if not capture.isOpened():
        raise ValueError(f"OpenCV cannot open {source}")
    while True:
        read, image = capture.read()
        if not read:
            return
        yield image


def read_image(path: Path) -> np.ndarray:
    return np.ascontiguousarray(np.asarray(Image.open(path).convert("RGB"))[:, :, ::-1])


def main(pipelines: dict[str, edgeprof.Pipeline], description: str, settings: dict[str, str | None]) -> None:
    """Run the command line of an application, which applies one of its pipelines to frames.

    Args:
        pipelines: Name on the command line → pipeline; the first one is the default.
        description: The description of the application.
        settings: Environment variable that is also a flag → the pipeline that the flag chooses, or None.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("frames", help="an image, a folder of images, a video, /dev/video0, rtsp://…")
    parser.add_argument("--pipeline", choices=list(pipelines), default=next(iter(pipelines)))
    parser.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="save what is drawn here")
    for name in settings:
        parser.add_argument(f"--{name.lower()}", metavar="PATH", default=os.environ.get(name))
    given = parser.parse_args()
    chosen = given.pipeline
    for name, pipeline in settings.items():
        if value := getattr(given, name.lower()):
            os.environ[name] = value
            chosen = pipeline or chosen
    try:
        run(pipelines[chosen], given.frames, given.output)
    except (OSError, ValueError) as error:
        raise SystemExit(f"{parser.prog}: {error}") from None


def run(pipeline: edgeprof.Pipeline, frames: str, output: Path | None) -> None:
    """Print what the pipeline finds in each frame, and save the frames that it drew."""
    for number, frame in enumerate(read_frames(frames)):
        found = pipeline(frame)
        objects = (f"{label} {score:.2f}" for label, score in zip(found.labels, found.scores, strict=True))
        print(number, *objects, sep="  ")
        if output:
            save(found.image, output / f"{number:04d}.png")


def save(image: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image[:, :, ::-1]).save(path)


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-values))
