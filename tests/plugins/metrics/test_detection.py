"""mAP is what pycocotools says, for every form of outputs; its resamples are what copies of images would say."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprof.errors import InputError, UnavailableError
from edgeprof.evaluation.labels import Boxes, detection, pairs
from edgeprof.evaluation.load import load_metric
from edgeprof.installation import install_command
from edgeprof.plugins import PluginHost
from edgeprof_plugins.metrics import boxes
from edgeprof_plugins.metrics import detection as module
from edgeprof_plugins.metrics.boxes import Found, decoded
from edgeprof_plugins.metrics.detection import MeanAveragePrecision

pytest.importorskip("pycocotools")
SIZE = (60, 100)


def scene(seed, images=6, classes=3):
    """Boxes, and detections that are near some of them, doubled, missing, of the wrong class or out of nowhere."""
    draw = np.random.default_rng(seed)
    truths, found = [], []
    for _ in range(images):
        count = int(draw.integers(0, 5))
        corner = draw.uniform(0, [60, 30], (count, 2))
        real = np.concatenate([corner, corner + draw.uniform(8, 30, (count, 2))], axis=1)
        kinds = draw.integers(0, classes, count)
        truths.append(Boxes(real, kinds, draw.random(count) < 0.2, SIZE))
        guesses, of = [], []
        for box, kind in zip(real, kinds, strict=True):
            for _ in range(int(draw.integers(0, 3))):
                guesses.append(box + draw.normal(0, 2, 4))
                of.append(kind if draw.random() < 0.8 else (kind + 1) % classes)
        stray = draw.uniform(0, [40, 20], (2, 2))
        guesses += list(np.concatenate([stray, stray + 10], axis=1))
        of += [0, 1]
        # Equal scores between images, never within one.
        scores = draw.choice([0.1, 0.5, 0.5, 0.7, 0.9], len(of)) + 0.001 * np.arange(len(of))
        found.append(Found(np.array(guesses), scores, np.array(of)))
    return truths, found


class Decoded(MeanAveragePrecision):
    """Outputs that are detections already, by their image's number."""

    def __init__(self, found):
        super().__init__()
        self.found = found

    def decode(self, outputs):
        return [self.found[int(image)] for image in outputs["image"]]


def score(truths, found):
    labels, metric = detection(truths), Decoded(found)
    return metric.score(metric.reduce({"image": np.arange(len(found))}, labels), labels)


def library(truths, found):
    """COCO's own evaluation, its own way."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    annotations, answers = [], []
    for image, (truth, guess) in enumerate(zip(truths, found, strict=True)):
        for (x, y, right, low), kind, crowd in zip(*truth[:3], strict=True):
            box = [x, y, right - x, low - y]
            annotations.append({"id": len(annotations) + 1, "image_id": image, "category_id": int(kind), "bbox": box})
            annotations[-1] |= {"area": box[2] * box[3], "iscrowd": int(crowd)}
        for (x, y, right, low), value, kind in zip(*guess, strict=True):
            box = [x, y, right - x, low - y]
            answers.append({"image_id": image, "category_id": int(kind), "bbox": box, "score": value})
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {"info": {}, "images": [{"id": i} for i in range(len(truths))], "annotations": annotations}
        coco.dataset["categories"] = [{"id": kind} for kind in range(3)]
        coco.createIndex()
        run = COCOeval(coco, coco.loadRes(answers), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return run.stats[0]


def ours(truths, found, counts):
    labels, metric = detection(truths), Decoded(found)
    kept = metric.reduce({"image": np.arange(len(found))}, labels)["detections"]
    curves = [module._Curves.of(r, metric.overlaps) for r in module._match_detections(kept, labels, metric.overlaps)]
    values = [value for curve in curves if (value := curve.precision(counts)) is not None]
    return np.mean(values) if values else -1


def anything(truths):
    return any(len(t.classes) and not t.crowd.all() for t in truths)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_map_is_cocos(seed):
    truths, found = scene(seed)
    if anything(truths):
        assert ours(truths, found, np.ones(6, int)) == pytest.approx(library(truths, found), abs=1e-12)


@given(seed=st.integers(0, 10_000), counts=st.lists(st.integers(0, 3), min_size=6, max_size=6))
@settings(max_examples=15, deadline=None)
def test_a_resample_is_what_copies_of_images_give(seed, counts):
    truths, found = scene(seed)
    copies = np.repeat(np.arange(6), counts)
    if not anything(truths) or not len(copies):
        return
    expected = library([truths[i] for i in copies], [found[i] for i in copies])
    assert ours(truths, found, np.array(counts)) == pytest.approx(expected, abs=1e-12)


def test_the_interval_holds_the_value_and_variants_are_paired():
    truths, found = scene(5, images=12)
    good = score(truths, [Found(t.boxes, np.full(len(t.classes), 0.9), t.classes) for t in truths])
    fair = score(truths, found)
    assert good.value == 1.0
    assert fair.ci95[0] < fair.value < fair.ci95[1] < 1.0
    assert fair.samples == 12
    assert not (good.replicates <= fair.replicates).any()  # the same resamples; NaN where one has no box


def test_classes_in_few_images_stay_in_the_mean_of_every_resample():
    """If classes without a match could drop out of a resample, the others would have a higher mean."""
    everywhere = np.array([[10.0, 10.0, 30.0, 30.0]])
    rare = np.array([[50.0, 10.0, 70.0, 30.0]])
    truths, found = [], []
    for image in range(30):
        with_rare = image < 6
        boxes = np.concatenate([everywhere, rare]) if with_rare else everywhere
        kinds = np.array([0, 1 + image] if with_rare else [0])
        truths.append(Boxes(boxes, kinds, np.zeros(len(boxes), bool), SIZE))
        there = everywhere if image % 3 else everywhere[:0]
        found.append(Found(there, np.full(len(there), 0.9), np.zeros(len(there), int)))
    whole = score(truths, found)
    assert whole.value == pytest.approx(np.mean([0.663, 0, 0, 0, 0, 0, 0]), abs=0.002)
    assert whole.ci95[0] < whole.value < whole.ci95[1] < 1 / 7
    assert np.mean(whole.replicates) == pytest.approx(whole.value, abs=0.3 * np.std(whole.replicates))


def test_nothing_found_is_zero():
    truths, _ = scene(1)
    assert score(truths, [Found(np.zeros((0, 4)), np.zeros(0), np.zeros(0))] * 6).value == 0.0


# --- raw outputs ------------------------------------------------------------------------------------------------------

TRUTH = np.array([[10.0, 6.0, 40.0, 36.0], [50.0, 12.0, 90.0, 54.0]])
KINDS = np.array([1, 0])
LABELS = detection([Boxes(TRUTH, KINDS, np.zeros(2, bool), SIZE)] * 2)
FRACTION = TRUTH / [100, 60, 100, 60]


def postprocessed(order=(0, 1, 2, 3)):
    tlbr = np.zeros((2, 5, 4))
    tlbr[:, :2] = FRACTION[:, [1, 0, 3, 2]]
    tlbr[:, 2:] = [0, 0, 1, 1]  # beyond the count: what lies there means nothing
    classes, scores = np.zeros((2, 5)), np.full((2, 5), 0.6)
    classes[:, :2], scores[:, :2] = KINDS, [0.9, 0.8]
    arrays = [("boxes", tlbr), ("a", classes), ("b", scores), ("count", np.array([2.0, 2.0]))]
    return dict(arrays[i] for i in order)


def yolo(scale=1.0):
    rows = np.zeros((2, 2 + 4, 40))
    for column, (box, kind) in enumerate(zip(TRUTH * scale, KINDS, strict=True)):
        for shift in (0, 5):  # a double beside it, a little worse
            left, top, right, low = box + (0.5 * scale if shift else 0)
            rows[:, :4, column + shift] = np.array([(left + right) / 2, (top + low) / 2, right - left, low - top])
            rows[:, 4 + kind, column + shift] = 0.9 - 0.1 * (shift > 0)
    return {"output0": rows}


def ssd(names=("scores", "boxes")):
    corners, scores = np.zeros((2, 30, 4)), np.zeros((2, 30, 3))
    scores[..., 0] = 1.0
    corners[:, [3, 9]], corners[:, [4, 10]] = FRACTION, FRACTION + 0.005
    for row, kind in ((3, 1), (9, 0), (4, 1), (10, 0)):
        scores[:, row, 1 + kind] = 0.9 - 0.1 * (row in {4, 10})
    return {names[0]: scores, names[1]: corners}


def end_to_end():
    rows = np.zeros((2, 300, 6))
    rows[:, :2] = np.column_stack([TRUTH, [0.9, 0.8], KINDS])
    return {"output0": rows}


@pytest.mark.parametrize(
    "outputs",
    [postprocessed(), postprocessed((2, 0, 3, 1)), yolo(), ssd(), dict(reversed(ssd().items())), end_to_end()],
    ids=["postprocess", "postprocess, reordered", "yolo", "ssd", "ssd, reordered", "end to end"],
)
def test_each_form_of_outputs_finds_both_and_no_double(outputs):
    for found in decoded(outputs):
        assert len(found.scores) == 2
        assert found.classes.tolist() == KINDS.tolist()
    metric = MeanAveragePrecision()
    assert metric.score(metric.reduce(outputs, LABELS), LABELS).value == pytest.approx(1.0)


def test_yolo_in_fractions_of_its_input():
    outputs = yolo()
    outputs["output0"][:, :4] /= np.array([100, 60, 100, 60])[:, None]
    metric = MeanAveragePrecision()
    assert metric.score(metric.reduce(outputs, LABELS), LABELS).value == pytest.approx(1.0)


@pytest.mark.parametrize(
    "shapes",
    [[(1, 5)], [(1, 300, 85)], [(1, 10, 4), (1, 11, 2)], [(1, 10, 4), (1, 10, 4)], [(1, 10, 4), (1, 10, 1)], []],
)
def test_other_outputs_are_refused_with_their_shapes(shapes):
    with pytest.raises(InputError, match="no known form of detection") as error:
        decoded({f"o{n}": np.zeros(shape) for n, shape in enumerate(shapes)})
    assert all(str(shape) in error.value.message for shape in shapes)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_suppression_is_greedy(seed):
    """Against the textbook's loop."""
    draw = np.random.default_rng(seed)
    corner = draw.uniform(0, 40, (25, 2))
    candidates = np.concatenate([corner, corner + draw.uniform(5, 30, (25, 2))], axis=1)
    scores = draw.random((25, 2)) * (draw.random((25, 2)) < 0.7)
    found = boxes._suppress_overlaps(candidates, scores, 0.45)
    expected = []
    for kind in (0, 1):
        left = [i for i in np.argsort(-scores[:, kind]) if scores[i, kind] > 0.001]
        while left:
            best = left.pop(0)
            expected.append((kind, float(scores[best, kind])))
            left = [i for i in left if overlap(candidates[best], candidates[i]) <= 0.45]
    assert sorted(zip(found.classes.tolist(), found.scores.tolist(), strict=True)) == sorted(expected)


def overlap(a, b):
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(0, wide) * max(0, high)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


# --- what it does not judge -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [np.arange(3), pairs([True], [0])])
def test_labels_of_another_kind_are_refused_before_anything_runs(labels):
    with pytest.raises(InputError, match="map judges by boxes of objects, but the labels of this dataset are") as error:
        MeanAveragePrecision().check(labels)
    assert "--metric " in error.value.remedy


def test_without_the_library_the_command_is_told(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pycocotools", None)
    with pytest.raises(UnavailableError) as error:
        MeanAveragePrecision().check(LABELS)
    assert error.value.remedy == install_command(["edgeprof[detection]"])


def test_a_class_of_your_own_decodes_other_outputs(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from edgeprof_plugins.metrics.detection import MeanAveragePrecision\n"
        "class Mine(MeanAveragePrecision):\n"
        "    name = 'mine'\n"
        "    def decode(self, outputs):\n"
        "        return [(b, s, k) for b, s, k in zip(outputs['b'], outputs['s'], outputs['k'])]\n"
    )
    metric = load_metric(f"{tmp_path / 'mine.py'}:Mine", PluginHost.from_environment())
    outputs = {"b": np.stack([TRUTH] * 2), "s": np.full((2, 2), 0.5), "k": np.stack([KINDS] * 2)}
    assert metric.score(metric.reduce(outputs, LABELS), LABELS).value == pytest.approx(1.0)
    assert metric.name == "mine"
