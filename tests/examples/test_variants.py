"""Variants of the applications: other runtimes and files, agreement with a baseline, random weights, the student."""

from __future__ import annotations

import importlib
import json
import sys

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprof.results.schema import Budget, Energy, EnergyFigure, Latency, Power, Window, Workload
from edgeprof.testing.results import example_result

IMAGE = np.zeros((360, 640, 3), np.uint8)


@pytest.fixture(scope="module")
def find(applications):
    """``find([(left, top, right, bottom, score, label), …])``: what a detector finds in a frame."""

    def make(rows):
        boxes = np.array([row[:4] for row in rows], float).reshape(-1, 4)
        return applications.images.Found(IMAGE, boxes, np.array([row[4] for row in rows]), [row[5] for row in rows])

    return make


# --- networks ---------------------------------------------------------------------------------------------------------


class NoNetwork:
    """A network of the shape that it is given, for files of libraries that are not installed."""

    shape, output = (1, 64, 128, 3), np.zeros((1, 7, 168), np.float32)

    def __init__(self, path, shape=None):
        self.shape = shape or self.shape
        self.fed = []

    def __call__(self, tensor):
        self.fed.append(tensor)
        return [self.output]


def test_a_detector_of_channels_last_gets_them_last_and_gives_boxes_as_fractions(applications, monkeypatch):
    """TFLite files of YOLOv8: a box of 64 × 16 around (32, 32) of an input of 64 × 128."""
    output = np.zeros((1, 7, 168), np.float32)
    output[0, :, 5] = [0.25, 0.5, 0.5, 0.25, 0.0, 0.9, 0.0]
    monkeypatch.setattr(NoNetwork, "output", output)
    monkeypatch.setattr(applications.detect, "Network", NoNetwork)
    detector = applications.detect.Detector("mine.tflite", ["cat", "dog", "bus"])
    frame = np.full((64, 128, 3), (0, 0, 255), np.uint8)  # red
    resized = detector.resize(frame)
    assert detector.tensor(resized).shape == (1, 64, 128, 3)
    assert detector.tensor(resized)[0, 0, 0].tolist() == [1.0, 0.0, 0.0]
    found = detector.boxes(detector.detect(resized))
    assert found.labels == ["dog"]
    assert found.boxes[0] == pytest.approx([0, 24, 64, 40])


def test_an_engine_is_loaded_by_tensorrt(applications, shared_data):
    path = shared_data / "formats/lfs-pointer/model.engine"
    with pytest.raises(ValueError, match=r"model\.engine cannot be loaded: model\.engine is neither a TensorRT plan"):
        applications.networks.Network(path)


def test_a_quantised_input_takes_real_numbers_and_its_outputs_are_real_numbers(applications, shared_data):
    """The outputs of MobileNet are probabilities, stored as bytes: multiples of 1/256."""
    network = applications.networks.Network(shared_data / "coral/mobilenet_v1_0.25_128_quant.tflite")
    values = np.random.default_rng(0).uniform(-1, 1, network.shape).astype(np.float32)
    (probabilities,) = network(values)
    assert 0.1 < probabilities.max() <= 1
    assert (probabilities * 256 == np.rint(probabilities * 256)).all()
    (same,) = network(np.clip(np.rint(values / 0.0078125) + 128, 0, 255).astype(np.uint8))
    assert (same == probabilities).all()


def test_yolox_computes_the_same_without_its_slices(applications, shared_data, tmp_path):
    """Pixels from 0 to 255; FastestDet has no such slices, and is refused."""
    onnx = pytest.importorskip("onnx")
    focus = importlib.import_module("focus")
    model = onnx.load(shared_data / "detection/yolox_nano.onnx")
    focus.replace_slices(model)
    assert "Slice" not in {node.op_type for node in model.graph.node}
    onnx.save(model, tmp_path / "yolox_nano.onnx")
    image = np.random.default_rng(0).uniform(0, 255, (1, 3, 416, 416)).astype(np.float32)
    networks = [
        applications.networks.Network(folder / "yolox_nano.onnx") for folder in (shared_data / "detection", tmp_path)
    ]
    first, second = (network(image)[0] for network in networks)
    assert second == pytest.approx(first, abs=1e-4)
    with pytest.raises(ValueError, match="does not begin with four slices"):
        focus.replace_slices(onnx.load(shared_data / "detection/FastestDet.onnx"))


# --- agreement --------------------------------------------------------------------------------------------------------


def test_a_variant_that_finds_the_same_agrees_wholly_and_one_that_finds_nothing_not_at_all(applications, find):
    baseline = [find([(10, 10, 50, 50, 0.9, "cat"), (60, 60, 90, 90, 0.3, "dog")]), find([(5, 5, 30, 30, 0.8, "dog")])]
    agree = applications.agreement.box_agreement
    assert agree(baseline, baseline).value == 1.0
    assert agree(baseline, [find([]), find([])]).value == 0.0
    moved = [find([(40, 10, 80, 50, 0.9, "cat")]), find([(5, 5, 30, 30, 0.8, "dog")])]
    assert agree(baseline, moved).value == 0.5
    renamed = [find([(10, 10, 50, 50, 0.9, "dog")]), find([(5, 5, 30, 30, 0.8, "cat")])]
    assert agree(baseline, renamed).value == 0.0


@settings(max_examples=20, deadline=None)
@given(kept=st.lists(st.booleans(), min_size=6, max_size=6))
def test_boxes_that_a_variant_misses_cost_agreement(applications, find, kept):
    boxes = [(100 * number, 0, 100 * number + 50, 50, 0.9 - 0.05 * number, "cat") for number in range(6)]
    remaining = [box for box, is_kept in zip(boxes, kept, strict=True) if is_kept]
    value = applications.agreement.box_agreement([find(boxes)], [find(remaining)]).value
    assert value == pytest.approx(sum(kept) / 6, abs=0.01)


def test_real_faces_are_verified_and_random_embeddings_are_not(applications, shared_data):
    faces, photos = applications.faces, shared_data / "faces"
    embedder = faces.Embedder(photos / "MobileFaceNet.tflite")
    align = faces.edgeprof.pipeline(faces.detection(embedder.size))
    people = {"obama": ["obama", "obama2"], "biden": ["biden", "knn_examples_train_biden_biden2"]}
    names, aligned = [], []
    for name, files in people.items():
        for file in files:
            (face,) = align(applications.images.read_image(photos / f"examples_{file}.jpg")).aligned
            names.append(name)
            aligned.append(face)
    embeddings = [embedder(face) for face in aligned]
    score = applications.agreement.verify(names, embeddings)
    assert (score.value, score.samples) == (1.0, 6)
    assert applications.agreement.likeness(embeddings, embeddings) == pytest.approx(1.0)
    shuffled = [embeddings[number] for number in (0, 2, 1, 3)]  # half of the faces under the other's name
    assert applications.agreement.verify(names, shuffled).value < 0.8


def test_a_variant_is_made_and_judged(applications, shared_data, tmp_path, monkeypatch):
    """The pruned FastestDet; the frames are drawn."""
    monkeypatch.setattr(applications.variants, "METHODS", {"FastestDet.onnx": ["prune:amount=0.2"]})
    monkeypatch.setattr(applications.variants, "DETECTORS", {"fastestdet": ["fastestdet_pruned", "student"]})
    street, portrait = str(tmp_path / "street"), str(tmp_path / "portrait")
    applications.footage.write_footage(applications.footage.draw_street, tmp_path / "street", 4)
    applications.footage.write_footage(applications.footage.draw_portrait, tmp_path / "portrait", 4)
    monkeypatch.setenv("VARIANTS", "")
    monkeypatch.setattr(sys, "argv", ["variants.py", str(tmp_path / "build"), street, portrait])
    applications.variants.main()
    rows = json.loads((tmp_path / "build/variants.json").read_text())
    assert [(row["pipeline"].removeprefix("detect.py:"), row["source"]) for row in rows] == [
        (name, source) for name in ("fastestdet", "fastestdet_pruned") for source in (None, street, portrait)
    ]
    assert all(row["reference"] == "baseline" for row in rows)
    assert all(row["value"] == 1.0 for row in rows[:3])
    assert all(0.0 <= row["value"] <= 1.0 for row in rows[3:])
    assert [row["samples"].split(" frames")[0] for row in rows] == ["4", "2", "2"] * 2
    assert "agreement with the baseline's boxes" in (tmp_path / "build/variants.md").read_text()
    assert applications.table.read_agreement(tmp_path / "build") == {
        row["pipeline"]: f"agrees {row['value']:.2f}" for row in rows if row["source"] is None
    }


# --- the table --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("late", "dropped", "says"), [(0, 0, "yes; p90 20 ms"), (2, 1, "no: 2 late, 1 dropped of 120; p90 20 ms")]
)
def test_real_time_is_what_was_neither_late_nor_dropped(applications, late, dropped, says):
    latency = Latency(mean=0.018, std=None, min=None, max=None, samples=120, outliers=0, p90=0.02)
    workload = Workload("frame at 15/s", "frame", 1, count=120, late=late, dropped=dropped, latency_s=latency)
    assert applications.table.real_time(workload) == says


@pytest.mark.parametrize(("dropped", "says"), [(0, "10 (9.1 to 11)"), (1, "–")])
def test_hours_are_the_batterys_energy_over_that_of_the_frames(applications, dropped, says):
    """1.0 ± 0.1 J a frame at 2 frames a second are 2 W: 10 h of 20 Wh. Dropped frames: not the joules of that rate."""
    figure = EnergyFigure(
        value=1.0,
        expanded_uncertainty=0.1,
        ci95=(0.9, 1.1),
        windows=[1.0],
        coverage_factor=2.0,
        budget=Budget(repeatability=0.05, idle=0.0),
    )
    energy = Energy(provenance="simulated", rail="VDD_IN", covers="board", gross=figure, net=figure)
    window = Window(start_s=0.0, end_s=10.0, inferences=20, order=0)
    workload = Workload(
        "frame at 2/s", "frame", 1, count=20, energy_j_per_unit=energy, dropped=dropped, windows=[window], rate_hz=2.0
    )
    variant = msgspec.structs.replace(example_result().variants[0], workloads=[workload])
    variant.power_w = Power(mean=2.0, max=None, idle=1.5)
    assert applications.table.battery_hours(variant, workload, 2) == says


# --- networks of our own ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "make", "millions"),
    [
        ("yolov8", lambda module: module.YoloV8(0.25, 1 / 3), 3.2),
        ("yolov8", lambda module: module.YoloV8(0.5, 1 / 3), 11.2),
        ("inception_resnet", lambda module: module.InceptionResNetV1(), 23.5),
    ],
)
def test_a_network_has_the_published_number_of_parameters(trainers, module, make, millions):
    network = make(getattr(trainers, module))
    assert sum(weights.numel() for weights in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)


def test_yolov8_gives_boxes_of_its_format_and_random_weights_find_nothing(applications, trainers):
    import torch

    with torch.no_grad():
        output = trainers.yolov8.yolov8n()(torch.rand(1, 3, 64, 96)).numpy()
    boxes, scores, _ = applications.detect.recognise(output.shape, 80).read(output, 64, 96)
    assert len(boxes) == 8 * 12 + 4 * 6 + 2 * 3
    assert (boxes[:, :2] < boxes[:, 2:]).all()
    assert 0 < scores.min() <= scores.max() < applications.detect.LEAST_SCORE


@settings(max_examples=30, deadline=None)
@given(
    cells=st.sets(st.tuples(st.integers(0, 15), st.integers(0, 15)), min_size=1, max_size=5),
    place=st.tuples(st.floats(0.05, 0.95), st.floats(0.05, 0.95)),
    size=st.tuples(st.floats(0.01, 0.5), st.floats(0.01, 0.5)),
)
def test_a_student_that_learned_its_targets_gives_the_teachers_boxes(applications, trainers, cells, place, size):
    student = trainers.student
    centres = (np.array(sorted(cells)) + place) / student.GRID
    boxes = np.concatenate([centres - np.divide(size, 2), centres + np.divide(size, 2)], 1)
    numbers, names = student.cell_targets(boxes, np.arange(len(boxes)), np.full(len(boxes), 0.9))
    raw = np.zeros((1, 5 + len(boxes), student.GRID, student.GRID))
    raw[0, 0], raw[0, 1:3] = numbers[0], np.arctanh(numbers[1:3])
    raw[0, 3:5] = np.log(np.clip(numbers[3:5], 1e-9, None) / (1 - numbers[3:5]))
    raw[0, 5:] = names == np.arange(len(boxes))[:, np.newaxis, np.newaxis]
    read, scores, classes = applications.detect.read_fastestdet(raw, 100, 100)
    found = scores > 0.5
    order = np.argsort(classes[found])
    assert read[found][order] == pytest.approx(100 * boxes, abs=1e-3)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_box_stays_on_its_object_when_a_frame_is_cropped_and_mirrored(trainers, seed):
    import torch

    student = trainers.student
    image = torch.zeros(3, student.SIZE, student.SIZE)
    image[:, 100:160, 60:140] = 1.0
    box = np.array([[60, 100, 140, 160]]) / student.SIZE
    lesson = student.Lesson(image, box, np.array([7]), np.array([0.9]))
    cropped, numbers, names = student.crop_lesson(lesson, np.random.default_rng(seed))
    rows, columns = np.nonzero(names >= 0)
    if not len(rows):
        return  # cropped away
    (row,), (column,) = rows, columns
    assert names[row, column] == 7
    x, y = (column + numbers[1, row, column]) * 16, (row + numbers[2, row, column]) * 16
    half_width, half_height = 128 * numbers[3, row, column], 128 * numbers[4, row, column]
    lit_rows, lit_columns = np.nonzero(cropped[0].numpy() > 0.3)
    seen = [lit_columns.min(), lit_rows.min(), lit_columns.max() + 1, lit_rows.max() + 1]
    assert [x - half_width, y - half_height, x + half_width, y + half_height] == pytest.approx(seen, abs=2)
