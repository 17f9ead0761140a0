"""The applications find what is in known frames, and are measured stage by stage on real weights."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from tests.examples.conftest import APPLICATIONS as FOLDER

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

for library in ("PIL", "onnxruntime", "ai_edge_litert"):
    pytest.importorskip(library)

MODELS = tomllib.loads((FOLDER / "models.toml").read_text("utf-8"))
#: Of each application, a pipeline and the stages that it has.
STAGES = {
    "detect.py:fastestdet": ["decode", "resize", "detect", "boxes", "draw"],
    "mobilenet_ssd.py:pipeline": ["decode", "resize", "detect", "boxes", "draw"],
    "faces.py:pipeline": ["decode", "resize", "detect", "boxes", "align", "embed", "match", "draw"],
}


@pytest.fixture(scope="module")
def footage(applications, tmp_path_factory):
    """A folder with two frames of our own, and a photo of a person that is known."""
    folder = tmp_path_factory.mktemp("applications")
    applications.images.save(applications.footage.draw_street(1.0), folder / "frames/street.png")
    applications.images.save(applications.footage.draw_portrait(0.5), folder / "frames/portrait.png")
    applications.images.save(applications.footage.draw_portrait(0.0), folder / "known/somebody.png")
    return folder


@pytest.mark.parametrize("pipeline", STAGES)
def test_an_application_is_measured_by_stage_and_each_stage_can_be_repeated(footage, shared_data, pipeline):
    windows = ["--windows", "1", "--window", "0.05", "--warmup", "0.05", "--idle", "0", "--threads", "1"]
    command = [sys.executable, "-m", "edgeprof", "bench", pipeline, "--frames", str(footage / "frames"), *windows]
    places = {"EDGEPROF_DATA_DIR": footage, "MODELS": shared_data, "KNOWN": footage / "known"}
    subprocess.run(
        [*command, "--option", "repeat=1", "--estimate-power", "4", "--quiet", "-o", str(footage / "result.json")],
        cwd=FOLDER,
        env={**os.environ, **{name: str(place) for name, place in places.items()}},
        check=True,
        capture_output=True,
    )
    (variant,) = json.loads((footage / "result.json").read_text("utf-8"))["variants"]
    assert [stage["name"] for stage in variant["stages"]] == STAGES[pipeline]
    for stage in variant["stages"]:
        assert stage["method"] == "repeat", stage["reason"]
        assert stage["seconds"]["mean"] > 0
        assert stage["energy_j_per_call"]["provenance"] == "estimated"
    assert variant["pipeline"]["frames"] == 2


@pytest.mark.parametrize("name", MODELS)
def test_a_model_at_hand_is_the_one_that_the_table_names(shared_data, name):
    for path in shared_data.rglob(MODELS[name]["file"]):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == MODELS[name]["sha256"]
    assert MODELS[name]["licence"]


@pytest.mark.parametrize(
    ("pipeline", "photo", "label", "score"),
    [
        ("fastestdet", "1.jpg", "bus", 0.96),
        ("fastestdet", "4.jpg", "dog", 0.63),
        ("yolox_nano", "1.jpg", "bus", 0.96),
        ("yolox_nano", "4.jpg", "cat", 0.83),
    ],
)
def test_a_detector_finds_what_is_known_to_be_in_a_photo(applications, shared_data, pipeline, photo, label, score):
    frame = applications.images.read_image(shared_data / "detection" / photo)
    found = getattr(applications.detect, pipeline)(frame)
    assert found.scores[found.labels.index(label)] == pytest.approx(score, abs=0.02)
    assert found.image.shape == frame.shape
    assert (found.image != frame).any()


@pytest.mark.parametrize("pipeline", ["fastestdet", "yolox_nano"])
def test_a_detector_finds_the_drawn_stop_sign_where_it_was_drawn(applications, pipeline):
    found = getattr(applications.detect, pipeline)(applications.footage.draw_street(1.0))
    assert found.boxes[found.labels.index("stop sign")] == pytest.approx([425, 75, 575, 225], abs=15)


@pytest.mark.parametrize(("photo", "label", "score"), [("1.jpg", "bus", 0.81), ("4.jpg", "cat", 0.66)])
def test_mobilenet_ssd_finds_what_is_known_to_be_in_a_photo(applications, shared_data, photo, label, score):
    found = applications.mobilenet_ssd.pipeline(applications.images.read_image(shared_data / "detection" / photo))
    assert found.scores[found.labels.index(label)] == pytest.approx(score, abs=0.03)


@pytest.fixture(scope="module")
def recognise(applications, shared_data, tmp_path_factory):
    """The pipeline of faces that knows two people by one photo each."""
    folder = tmp_path_factory.mktemp("known")
    for name in ("obama", "biden"):
        (folder / f"{name}.jpg").symlink_to(shared_data / "faces" / f"examples_{name}.jpg")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KNOWN", str(folder))
        assert applications.faces.pipeline.stages  # made while KNOWN says so
    return applications.faces.pipeline


@pytest.mark.parametrize(
    ("photo", "people"),
    [
        ("examples_obama2", ["obama"]),
        ("examples_knn_examples_train_biden_biden2", ["biden"]),
        ("examples_two_people", ["obama", "biden"]),
    ],
)
def test_known_people_are_matched_in_photos_that_were_not_seen_before(
    recognise, applications, shared_data, photo, people
):
    found = recognise(applications.images.read_image(shared_data / "faces" / f"{photo}.jpg"))
    assert sorted(found.labels) == sorted(people)
    assert min(found.scores) > 0.6


def test_a_stranger_is_unknown_and_a_street_shows_nobody(recognise, applications):
    assert recognise(applications.footage.draw_portrait(0.5)).labels == ["unknown"]
    assert recognise(applications.footage.draw_street(0.0)).labels == []


def test_faces_are_found_in_a_clip(recognise, applications, shared_data):
    pytest.importorskip("cv2", reason="OpenCV is not installed, which decodes the clip")
    frames = applications.images.read_frames(str(shared_data / "faces/examples_short_hamilton_clip.mp4"))
    found = [recognise(frame).labels for frame in itertools.islice(frames, 100, 180, 20)]
    assert found == [["unknown"]] * 4


def test_a_face_is_aligned_by_the_similarity_that_leads_to_its_points(applications):
    """A face that was turned by a quarter, doubled and moved."""
    faces = applications.faces
    quarter_turn = np.array([[0, -1], [1, 0]])
    a, b, right, c, d, down = faces.similarity(2 * faces.TEMPLATE @ quarter_turn.T + (30, 5))
    assert [[a, b, right], [c, d, down]] == [pytest.approx([0, -2, 30], abs=1e-9), pytest.approx([2, 0, 5], abs=1e-9)]


def test_a_photo_of_somebody_known_has_to_show_one_face(applications, tmp_path):
    applications.images.save(applications.footage.draw_street(0.0), tmp_path / "ada.png")
    with pytest.raises(ValueError, match=r"ada\.png has to show one face, and 0 were found"):
        applications.faces.read_known(
            str(tmp_path), lambda _: SimpleNamespace(boxes=np.zeros((0, 4)), embeddings=np.zeros((0, 192)))
        )


def test_each_layout_of_a_detectors_output_gives_the_box_that_it_means(applications):
    """A box of 40 × 20 pixels around (48, 80) of an input of 64 × 128, of class 2 of 3."""
    detect, (height, width) = applications.detect, (128, 64)
    fastestdet = np.full((1, 8, 4, 2), -9.0, np.float32)
    fastestdet[0, [0, 5, 6, 7]] = 0
    x, y = np.arctanh(48 / 32 - 1), np.arctanh(80 / 32 - 2)
    across, down = np.log(40 / 24), np.log(20 / 108)  # the logits of 40/64 and 20/128
    fastestdet[0, :, 2, 1] = [1.0, x, y, across, down, 0.0, 0.0, 1.0]
    yolox = np.zeros((1, 168, 8), np.float32)
    yolox[0, 10 * 8 + 6] = [0, 0, np.log(40 / 8), np.log(20 / 8), 1.0, 0.0, 0.0, 1.0]
    yolov8 = np.zeros((1, 7, 168), np.float32)
    yolov8[0, :, 5] = [48, 80, 40, 20, 0.0, 0.0, 1.0]
    for raw in (fastestdet, yolox, yolov8):
        boxes, scores, classes = detect.recognise(raw.shape, 3).read(raw, height, width)
        best = scores.argmax()
        assert (scores[best], classes[best]) == (pytest.approx(1.0), 2)
        assert boxes[best] == pytest.approx([28, 70, 68, 90], abs=0.01)


def test_a_detector_whose_output_is_unknown_is_refused(applications):
    with pytest.raises(ValueError, match="no known detector of 80 classes; see LABELS"):
        applications.detect.recognise([1, 1000], 80)


@pytest.mark.parametrize(
    ("settings", "frames", "says"),
    [
        ({"pipeline": "own"}, "street.png", "MODEL has to name the file of your detector"),
        ({"model": "street.png"}, "street.png", r"no runtime for street\.png"),
        ({"model": "mine.pt"}, "street.png", r"Python objects .* 'yolo export model=mine\.pt format=onnx"),
        ({"model": "broken.onnx"}, "street.png", r"broken\.onnx cannot be loaded"),
        ({"runtime": "cuda"}, "street.png", "no runtime cuda: choose from onnxruntime, openvino"),
        ({}, "nowhere", "there is nothing at nowhere"),
        ({}, "broken.png", "cannot identify image file"),
    ],
)
def test_what_cannot_be_run_is_one_sentence(applications, tmp_path, monkeypatch, settings, frames, says):
    monkeypatch.chdir(tmp_path)
    for name in ("MODEL", "LABELS", "RUNTIME"):
        monkeypatch.setenv(name, "")
    applications.images.save(applications.footage.draw_street(0.0), tmp_path / "street.png")
    for name in ("broken.png", "broken.onnx"):
        (tmp_path / name).write_bytes(b"nothing")
    detect = applications.detect
    # Made anew: a pipeline makes its stages once.
    fastestdet, own = (detect.edgeprof.pipeline(pipeline._given) for pipeline in (detect.fastestdet, detect.own))
    flags = [word for name, value in settings.items() for word in (f"--{name}", value)]
    monkeypatch.setattr(sys, "argv", ["detect.py", frames, *flags])
    settings_of_detect = {"MODEL": "own", "LABELS": None, "RUNTIME": None}
    with pytest.raises(SystemExit, match=says) as refused:
        applications.images.main({"fastestdet": fastestdet, "own": own}, "", settings_of_detect)
    assert str(refused.value).startswith("detect.py: ")


def test_of_overlapping_boxes_of_one_class_the_best_remains(applications):
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10], [0, 0, 10, 10]], float)
    kept = applications.images.keep_best(boxes, np.array([0.6, 0.9, 0.5, 0.4]), np.array([0, 0, 0, 1]), 0.5)
    assert kept.tolist() == [1, 2, 3]
