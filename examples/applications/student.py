"""Train a small detector on the boxes of a larger one, on unlabelled frames: ``python student.py build/ FRAMES...``.

The teacher is YOLOX-nano. Every second frame trains the student; ``variants.py`` judges it on the others. Writes
``student.onnx``, which detect.py runs as the pipeline ``student``. The student learns only what the frames show, so
this suits a camera that always sees the same kind of scene; give it hours of your camera's frames, not a few photos.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import detect
import numpy as np
import torch
from images import stretch
from torch import nn
from torch.nn import functional
from variants import read_sources, split_frames
from yolov8 import export_onnx

import edgeprof

if TYPE_CHECKING:
    from images import Found

SIZE, STRIDE = 256, 16
GRID = SIZE // STRIDE
#: Boxes of the teacher with at least this score are learned.
LEAST_SCORE = 0.3
STEPS, BATCH, RATE = 300, 8, 3e-3
#: A box of which a crop leaves less than this share is not learned.
LEAST_LEFT = 0.4


class Lesson(NamedTuple):
    """A frame and what the teacher found in it.

    Attributes:
        image: 3 × SIZE × SIZE (blue, green, red, from 0 to 1).
        boxes: n × 4: left, top, right, bottom, as fractions of the frame.
        classes: n class numbers.
        scores: n scores of the teacher.
    """

    image: torch.Tensor
    boxes: np.ndarray
    classes: np.ndarray
    scores: np.ndarray


def separable_layers(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """Return a depthwise and a pointwise convolution, with batch normalisation and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False),
        nn.BatchNorm2d(inputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class Student(nn.Module):
    """A detector with one grid of cells, whose output has FastestDet's format."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(inplace=True),
            separable_layers(16, 32, 2),
            separable_layers(32, 64, 2),
            separable_layers(64, 128, 2),
            separable_layers(128, 128, 1),
            separable_layers(128, 128, 1),
            nn.Conv2d(128, 5 + classes, 1),
        )

    def raw(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits of objectness and classes, and the unbounded numbers of the box, of each cell."""
        return self.features(images)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        raw = self.raw(images)
        return torch.cat([raw[:, :1].sigmoid(), raw[:, 1:5], raw[:, 5:].softmax(1)], 1)


def learn_from(teacher: detect.Detector, frame: np.ndarray, labels: list[str]) -> Lesson:
    found: Found = edgeprof.pipeline(teacher.stages()[:-1])(frame)
    height, width = frame.shape[:2]
    small = np.ascontiguousarray(stretch(frame, SIZE, SIZE).small.transpose(2, 0, 1))
    boxes = np.clip(found.boxes / (width, height, width, height), 0, 1)
    classes = np.array([labels.index(label) for label in found.labels], np.int64)
    return Lesson(torch.from_numpy(small).float() / 255, boxes.reshape(-1, 4), classes, found.scores)


def cell_targets(boxes: np.ndarray, classes: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what the cell at the centre of each box has to say: 5 × GRID × GRID, and the class of each cell or −1.

    The numbers of a cell are the teacher's score, the offset of the centre from the cell's upper left corner (cells),
    and the size of the box (fractions of the frame). Of several boxes in a cell the best one remains.
    """
    numbers, names = np.zeros((5, GRID, GRID), np.float32), np.full((GRID, GRID), -1, np.int64)
    for number in np.argsort(scores):
        left, top, right, bottom = boxes[number]
        x, y = (left + right) / 2 * GRID, (top + bottom) / 2 * GRID
        column, row = min(int(x), GRID - 1), min(int(y), GRID - 1)
        numbers[:, row, column] = (scores[number], x - column, y - row, right - left, bottom - top)
        names[row, column] = classes[number]
    return numbers, names


def crop_lesson(lesson: Lesson, random: np.random.Generator) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """Return a random part of a lesson's frame, perhaps mirrored, and its targets."""
    side = random.uniform(0.6, 1.0)
    left, top = random.uniform(0, 1 - side, 2)
    boxes = (lesson.boxes - (left, top, left, top)) / side
    inside = np.clip(boxes, 0, 1)
    areas = [np.prod(edges[:, 2:] - edges[:, :2], axis=1) for edges in (boxes, inside)]
    kept = areas[1] > LEAST_LEFT * areas[0]
    inside = inside[kept]
    is_mirrored = random.random() < 0.5
    if is_mirrored:
        inside = np.stack([1 - inside[:, 2], inside[:, 1], 1 - inside[:, 0], inside[:, 3]], 1)
    scale = -side if is_mirrored else side
    matrix = [[scale, 0, 2 * left + side - 1], [0, side, 2 * top + side - 1]]
    grid = functional.affine_grid(torch.tensor([matrix]).float(), [1, 3, SIZE, SIZE], align_corners=False)
    image = functional.grid_sample(lesson.image[None], grid, align_corners=False)[0] * random.uniform(0.7, 1.2)
    return image.clamp(0, 1), *cell_targets(inside, lesson.classes[kept], lesson.scores[kept])


def batch_loss(raw: torch.Tensor, numbers: torch.Tensor, names: torch.Tensor) -> torch.Tensor:
    """Return the loss of a batch: objectness in all cells, boxes and classes in the cells that have one."""
    objectness = functional.binary_cross_entropy_with_logits(raw[:, 0], numbers[:, 0], reduction="sum")
    filled = names >= 0
    count = max(int(filled.sum()), 1)
    cells, wanted = raw.permute(0, 2, 3, 1)[filled], numbers.permute(0, 2, 3, 1)[filled]
    offsets = functional.smooth_l1_loss(cells[:, 1:3].tanh(), wanted[:, 1:3], beta=0.1, reduction="sum")
    sizes = functional.smooth_l1_loss(cells[:, 3:5].sigmoid(), wanted[:, 3:5], beta=0.02, reduction="sum")
    classes = functional.cross_entropy(cells[:, 5:], names[filled], reduction="sum")
    return (objectness + 2 * offsets + 10 * sizes + classes) / count


def train_student(lessons: list[Lesson], classes: int, steps: int = STEPS) -> Student:
    """Return a student that learned the lessons; the same lessons give the same student on the same machine."""
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    student = Student(classes)
    optimiser = torch.optim.AdamW(student.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, steps)
    for step in range(steps):
        images, numbers, names = zip(
            *(crop_lesson(lessons[number], random) for number in random.integers(len(lessons), size=BATCH)), strict=True
        )
        raw = student.raw(torch.stack(images))
        error = batch_loss(raw, torch.from_numpy(np.stack(numbers)), torch.from_numpy(np.stack(names)))
        optimiser.zero_grad()
        error.backward()
        optimiser.step()
        schedule.step()
        if step % 25 == 0 or step == steps - 1:
            print(f"step {step} of {steps}, loss {error.item():.2f}", flush=True)
    return student.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="for student.onnx")
    parser.add_argument("frames", nargs="+", help="images, folders of images, videos")
    parser.add_argument("--steps", type=int, default=STEPS)
    given = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "0")) or os.cpu_count() or 1)
    try:
        frames, _ = split_frames(read_sources(given.frames))
        labels = detect.read_labels()
        teacher = detect.load_detector(*detect.DETECTORS["yolox_nano"], LEAST_SCORE)
    except (OSError, ValueError) as error:
        raise SystemExit(f"{parser.prog}: {error}") from None
    lessons = [learn_from(teacher, frame.image, labels) for frame in frames]
    print(f"{len(lessons)} frames, {sum(len(lesson.classes) for lesson in lessons)} boxes of the teacher")
    student = train_student([lesson for lesson in lessons if len(lesson.classes)], len(labels), given.steps)
    student.example_inputs = (torch.zeros(1, 3, SIZE, SIZE),)
    export_onnx(student, given.folder / "student.onnx")


if __name__ == "__main__":
    main()
