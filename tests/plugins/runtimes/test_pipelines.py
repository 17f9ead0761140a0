"""Pipelines of named callables through edgeprof's contract: what is repeated, what is refused, and in which words."""

from __future__ import annotations

import itertools
import sys
import textwrap
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from edgeprof.worker.pipeline import PipelineError, check_stages, pipeline
from edgeprof.worker.runtime import LoadError, LoadOptions
from edgeprof_plugins.runtimes import frames, pipelines
from edgeprof_plugins.runtimes.frames import read_clip
from edgeprof_plugins.runtimes.python import Python


def options(**given: str) -> LoadOptions:
    return LoadOptions(device="cpu", threads=None, batch=1, shapes={}, options=given)


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(pipelines, "ALONE_S", 0.001)


@pytest.fixture
def app(tmp_path):
    path = tmp_path / "pipeline_app.py"
    path.write_text(
        textwrap.dedent("""
            import itertools
            import numpy as np
            import edgeprof

            seen = []
            numbers = itertools.count()

            def look(image):
                seen.append(int(image[0, 0]))
                return image

            def draw(image):
                image[0, 0] = 9
                return image

            def frames():
                return (np.full((2, 2), number) for number in range(5))

            def breaks(image):
                raise ValueError("no boxes")

            looking = edgeprof.pipeline([look, ("bright", lambda image: image + 1)], source=frames)
            drawing = edgeprof.pipeline([look, draw], source=frames)
            counting = edgeprof.pipeline([look, ("count", lambda image: next(numbers))], source=frames)
            empty = edgeprof.pipeline([look], source=[])
            wrong = edgeprof.pipeline([("look", 3)], source=frames)
            lost = edgeprof.pipeline([look])
            broken = edgeprof.pipeline([breaks], source=frames)

            @edgeprof.pipeline(source=frames)
            def failing():
                raise FileNotFoundError("detector.onnx")
        """)
    )
    return path


def newest_module():
    """The application's module, which has another name when it is loaded again."""
    return sys.modules.get("edgeprof_model_pipeline_app") or sys.modules["pipeline_app"]


def load(app, attribute, **given):
    session = Python().load(f"{app}:{attribute}", options(**given))
    session.run({})
    return session


def test_a_pipeline_has_a_workload_for_its_frame_and_for_each_stage(app):
    session = load(app, "looking", repeat="2")
    workloads = session.workloads()
    assert [(w.name, w.unit, w.calls_in_loop) for w in workloads] == [
        ("frame", "frame", 5),
        ("look", "call", 5),
        ("bright", "call", 5),
    ]
    assert session.pipeline()["frames"] == 5


def test_a_stage_is_repeated_on_the_input_that_it_has_in_place(app):
    session = load(app, "looking", repeat="2")
    session.workloads()
    seen = newest_module().seen
    seen.clear()
    call = session.bind_workload("look", {})
    for _ in range(6):
        call()
    assert seen == [number for number in (0, 1, 2, 3, 4, 0) for _ in range(3)]


def test_the_times_of_each_stage_come_frame_by_frame(app):
    session = load(app, "looking")
    session.workloads()
    call = session.bind_workload("frame", {})
    for _ in range(4):
        call()
    assert len(session.take_stage_times()) == 8
    assert len(session.take_stage_times()) == 0


def test_a_stage_that_writes_into_its_frame_gets_a_fresh_one_each_time(app):
    session = load(app, "drawing")
    session.workloads()
    seen = newest_module().seen
    seen.clear()
    call = session.bind_workload("frame", {})
    for _ in range(10):
        call()
    assert seen == [0, 1, 2, 3, 4] * 2


def test_a_stage_that_counts_its_calls_cannot_be_repeated_and_says_why(app):
    session = load(app, "counting")
    assert [workload.name for workload in session.workloads()] == ["frame", "look"]
    trouble = session.pipeline()["stages"][1]["trouble"]
    assert trouble == "the stage count returns something else when it is called again with the same input"


@pytest.mark.parametrize(
    ("attribute", "given", "says"),
    [
        ("lost", {}, "needs frames to be measured with"),
        ("empty", {}, "gave no frame"),
        ("wrong", {}, "the stage 'look' is no callable"),
        ("failing", {}, "failed: FileNotFoundError: detector.onnx"),
        ("looking", {"frame": "1"}, "a pipeline has no option frame"),
        ("looking", {"repeat": "many"}, "repeat=many is no number from 1 to 100"),
        ("looking", {"frames": "/nowhere/clip.mp4"}, "there are no frames at /nowhere/clip.mp4"),
        ("frames", {"frames": "clip.mp4"}, "--frames is meant for a pipeline"),
    ],
)
def test_what_cannot_be_measured_is_one_sentence(app, attribute, given, says):
    with pytest.raises(LoadError) as refused:
        Python().load(f"{app}:{attribute}", options(**given))
    assert says in refused.value.message


@pytest.mark.parametrize(
    ("stages", "says"),
    [
        ([], "a pipeline is a list of named callables"),
        (len, "a pipeline is a list of named callables"),
        ([("frame", len)], "cannot be named 'frame'"),
        ([("a", len), ("a", len)], "two stages are named 'a'"),
        ([("\n", len)], "is no name of a stage"),
        ([("x" * 101, len)], "is no name of a stage"),
        ([(f"s{number}", len) for number in range(33)], "at most 32 stages"),
    ],
)
def test_stages_that_are_none_are_refused(stages, says):
    with pytest.raises(PipelineError, match=says):
        check_stages(stages)


def test_a_pipeline_is_called_with_a_frame():
    double = pipeline([("double", lambda value: 2 * value), ("text", str)])
    assert double(4) == "8"
    made = []

    @pipeline
    def later():
        made.append(1)
        return [("one", lambda value: value + 1)]

    assert made == []
    assert later(1) == 2
    assert later(2) == 3
    assert made == [1]


def test_frames_come_from_an_array_and_from_a_folder(tmp_path):
    image = pytest.importorskip("PIL.Image")
    np.save(tmp_path / "clip.npy", np.arange(24, dtype=np.uint8).reshape(3, 2, 2, 2))
    assert [frame.shape for frame in read_clip(str(tmp_path / "clip.npy"), 2).frames] == [(2, 2, 2)] * 2
    for number in range(3):
        pixels = np.zeros((4, 4, 3), np.uint8)
        pixels[..., 0] = 10 * number  # red
        image.fromarray(pixels).save(tmp_path / f"{number}.png")
    clip = read_clip(str(tmp_path), 10)
    decoded = [clip.make_decoder()(content) for content in clip.frames]
    assert [int(frame[0, 0, 2]) for frame in decoded] == [0, 10, 20]


def test_what_is_no_source_of_frames_is_refused(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    (tmp_path / "empty").mkdir()
    for source, says in (
        (tmp_path / "empty", "holds no images"),
        (tmp_path / "none.mp4", "there are no frames"),
        (tmp_path / "broken.jpg", "cannot be decoded"),
    ):
        with pytest.raises(LoadError, match=says):
            read_clip(str(source), 5)


def test_a_video_gives_its_frames_at_the_rate_that_it_states(tmp_path):
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed, which writes and decodes a video")
    path = str(tmp_path / "clip.avi")
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (64, 48))
    for level in range(6):
        writer.write(np.full((48, 64, 3), 40 * level, np.uint8))
    writer.release()
    clip = read_clip(path, 4)
    assert len(clip.frames) == 4
    assert clip.rate_hz == pytest.approx(10.0)


def test_frames_without_times_have_no_rate(tmp_path):
    np.save(tmp_path / "frames.npy", np.zeros((3, 2, 2)))
    assert read_clip(str(tmp_path / "frames.npy"), 3).rate_hz is None


class Camera:
    """OpenCV's ``VideoCapture`` of a camera that behaves as ``behaviour`` says."""

    behaviour = ""
    stamp_ms = staticmethod(lambda number: 0.0)
    released = threading.Event()

    def __init__(self, source):
        self.source = source
        self._sent = 0
        if self.behaviour == "stalls when opened":
            self.released.wait()

    def isOpened(self):  # noqa: N802 - OpenCV's name
        return self.behaviour != "is missing"

    def read(self):
        if self.behaviour == "stalls" and self._sent == 2:
            self.released.wait()
        self._sent += 1
        is_sent = self._sent <= {"sends": 9, "sends nothing": 0}.get(self.behaviour, 2)
        return is_sent, np.zeros((4, 4, 3), np.uint8) if is_sent else None

    def get(self, prop):
        return self.stamp_ms(self._sent) if prop == "stamp" else 0.0

    def release(self):
        pass


@pytest.fixture
def camera(monkeypatch):
    """``camera(behaviour, seconds)``: a camera, and a clock that each look at advances by so many seconds."""

    def plug_in(behaviour, seconds=1.0):
        monkeypatch.setitem(sys.modules, "cv2", SimpleNamespace(VideoCapture=Camera, CAP_PROP_POS_MSEC="stamp"))
        monkeypatch.setattr(Camera, "behaviour", behaviour)
        monkeypatch.setattr(Camera, "released", threading.Event())
        looks = itertools.count(0.0, seconds)
        monkeypatch.setattr(frames, "time", SimpleNamespace(monotonic=lambda: next(looks)))

    yield plug_in
    Camera.released.set()
    for thread in threading.enumerate():
        if thread.name == "edgeprof-camera":
            thread.join()


def test_a_camera_is_recorded_with_the_rate_that_it_gives(camera):
    camera("sends", 0.05)
    clip = read_clip("/dev/video0", 4)
    assert (len(clip.frames), clip.note) == (4, None)
    assert clip.rate_hz == pytest.approx(10.0)  # two looks at the clock for each frame


def test_frames_that_arrive_in_a_burst_have_the_rate_of_their_time_stamps(camera, monkeypatch):
    camera("sends", 0.001)
    monkeypatch.setattr(Camera, "stamp_ms", staticmethod(lambda number: 40.0 * number))
    assert read_clip("rtsp://camera/stream", 6).rate_hz == pytest.approx(25.0)


def test_a_camera_that_is_unplugged_gives_what_came_before(camera):
    camera("is unplugged")
    clip = read_clip("/dev/video0", 9)
    assert (len(clip.frames), clip.note) == (2, "/dev/video0 ended after 2 frames")


@pytest.mark.parametrize(
    ("behaviour", "says"), [("is missing", "cannot be opened"), ("sends nothing", "0 gave no frame")]
)
def test_a_camera_without_frames_is_one_sentence(camera, behaviour, says):
    camera(behaviour)
    with pytest.raises(LoadError, match=says):
        read_clip("0", 3)


@pytest.mark.parametrize("behaviour", ["stalls when opened", "stalls"])
def test_a_camera_that_blocks_in_its_driver_has_stalled(camera, monkeypatch, behaviour):
    camera(behaviour)
    monkeypatch.setattr(frames, "STALL_S", 0.05)
    with pytest.raises(LoadError, match=r"/dev/video0 stalled after [012] frames: none came for 0\.05 s"):
        read_clip("/dev/video0", 9)


def test_a_camera_for_which_opencv_waited_in_vain_has_stalled(camera):
    camera("sends nothing", seconds=frames.STALL_S)
    with pytest.raises(LoadError, match="stalled after 0 frames"):
        read_clip("/dev/video0", 9)
