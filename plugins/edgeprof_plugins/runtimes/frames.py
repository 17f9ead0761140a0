"""The frames with which a pipeline is measured, recorded once so that every window replays the same frames.

A source is a folder of images, a video file, a camera (``/dev/video0``), a stream (``rtsp://…``), an array of frames in
an ``.npy`` file, or a callable of the application. Images and video files are decoded again for each frame, by a stage
``decode`` that edgeprof adds at the beginning; frames of a camera or a stream are kept as they arrive. Python 3.6
grammar.
"""

import importlib
import io
import itertools
import os
import re
import threading
import time
from typing import Any, Callable, List, NamedTuple, Optional

import numpy as np

from edgeprof.worker.arrays import map_array
from edgeprof.worker.runtime import LoadError, install_command

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm")
#: The stage that decodes images and videos.
DECODE = "decode"
#: How long a camera or a stream may take for one frame, in seconds.
STALL_S = 10.0
#: The most memory that recorded frames may take, in bytes.
MOST_BYTES = 512 << 20


class Clip(NamedTuple):
    """Recorded frames.

    Attributes:
        name: The name of the source in the result.
        frames: The values that the first stage receives, in order.
        note: A remark about the frames for the result; None for no remark.
        make_decoder: Creates a decoder that receives ``frames`` in order, repeatedly, and returns images; each decoder
            has its own position. None where the first stage of the pipeline receives the frames directly.
        rate_hz: Frames per second of the video, or as sent by the camera; None where frames have no times.
    """

    name: str
    frames: List[Any]
    note: Optional[str] = None
    make_decoder: Optional[Callable[[], Callable[[Any], Any]]] = None
    rate_hz: Optional[float] = None


def read_clip(source: str, most: int) -> Clip:
    """Read the first frames of a source.

    Args:
        source: A path, a camera, or a URL.
        most: The largest number of frames.

    Raises:
        LoadError: the source does not exist, cannot be decoded, or gives no frames.
    """
    if re.match(r"[a-z]+://", source) or source.startswith("/dev/") or source.isdigit():
        return _live(source, most)
    path = os.path.expanduser(source)
    if os.path.isdir(path):
        return _folder(path, most)
    if not os.path.isfile(path):
        raise LoadError(
            "there are no frames at {}".format(source), "Give a video, a folder of images, /dev/video0 or rtsp://…."
        )
    if path.lower().endswith(".npy"):
        return _array(path, most)
    if path.lower().endswith(IMAGES):
        return _images([path], path)
    return _video(path, most)


def take_frames(name: str, source: Any, most: int) -> Clip:
    """Take the first frames from an iterable of the application, or from a callable that returns one.

    Raises:
        LoadError: the source gives no frames, or fails.
    """
    try:
        iterator = iter(source() if callable(source) else source)
        frames = _within_memory(itertools.islice(iterator, most))
    except Exception as error:  # the application's own code
        raise LoadError("the source of {} failed: {}: {}".format(name, type(error).__name__, error)) from None
    if not frames:
        raise LoadError("the source of {} gave no frame".format(name), "It has to be an iterable of frames.")
    return Clip("its own source", frames)


def _array(path: str, most: int) -> Clip:
    try:
        array = map_array(path)
    except (OSError, ValueError) as error:
        raise LoadError("{} cannot be read: {}".format(path, error), "Save frames with numpy.save.") from None
    if array.ndim < 2 or not len(array):
        raise LoadError(
            "{} has the shape {}, which is no list of frames".format(path, array.shape), "Stack frames on axis 0."
        )
    return Clip(os.path.basename(path), _within_memory(np.array(frame) for frame in array[:most]))


def _folder(path: str, most: int) -> Clip:
    names = sorted(name for name in os.listdir(path) if name.lower().endswith(IMAGES))
    if not names:
        raise LoadError("{} holds no images".format(path), "Images end in {}.".format(", ".join(IMAGES)))
    return _images([os.path.join(path, name) for name in names[:most]], path)


def _images(paths: List[str], source: str) -> Clip:
    """A clip with the bytes of image files, which a stage decodes."""
    decode = _image_decoder()
    contents = []
    for path in paths:
        with open(path, "rb") as file:
            contents.append(file.read())
        try:
            image = decode(contents[-1])
        except Exception:  # each decoder raises its own types of errors
            image = None
        if image is None:
            raise LoadError("{} cannot be decoded".format(path), "Remove it, or save it as JPEG or PNG.")
    return Clip(os.path.basename(os.path.abspath(source)), contents, make_decoder=lambda: decode)


def _image_decoder() -> Callable[[Any], Any]:
    """Return a decoder from the bytes of an image file to an array of height × width × 3 (blue, green, red)."""
    try:
        cv2: Any = importlib.import_module("cv2")  # OpenCV has no type hints
    except ImportError:
        return _pillow_decoder()

    def decode(content: Any) -> Any:
        return cv2.imdecode(np.frombuffer(content, dtype=np.uint8), cv2.IMREAD_COLOR)

    return decode


def _pillow_decoder() -> Callable[[Any], Any]:
    try:
        from PIL import Image
    except ImportError:
        raise LoadError(
            "neither OpenCV nor Pillow is installed to decode images",
            install_command("images", "opencv-python-headless"),
        ) from None

    def decode(content: Any) -> Any:
        return np.ascontiguousarray(np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))[:, :, ::-1])

    return decode


def _opencv(what: str) -> Any:
    try:
        return importlib.import_module("cv2")
    except ImportError:
        raise LoadError(
            "{} needs OpenCV, which is not installed".format(what), "pip install opencv-python-headless"
        ) from None


class VideoDecoder:
    """Decodes the first frames of a video in order, and starts again after the last.

    Args:
        path: The file.
        count: The number of frames before it starts again.
    """

    def __init__(self, path: str, count: int) -> None:
        self._cv2 = _opencv("a video file")
        self.path, self._count = path, count
        self._capture = self._cv2.VideoCapture(path)
        self._next = 0

    def __call__(self, _: Any = None) -> Any:
        if self._next == self._count:
            self._rewind()
        read, image = self._capture.read()
        if not read:
            raise RuntimeError("{} ends after {} of {} frames".format(self.path, self._next, self._count))
        self._next += 1
        return image

    def _rewind(self) -> None:
        self._next = 0
        if not self._capture.set(self._cv2.CAP_PROP_POS_FRAMES, 0):
            self._capture.release()
            self._capture = self._cv2.VideoCapture(self.path)


def _video(path: str, most: int) -> Clip:
    cv2 = _opencv("a video file")
    capture = cv2.VideoCapture(path)
    try:
        count = 0
        while count < most and capture.grab():
            count += 1
        stated = float(capture.get(cv2.CAP_PROP_FPS))
    finally:
        capture.release()
    if not count:
        raise LoadError("{} cannot be decoded".format(path), "Give a video that OpenCV reads: ffmpeg -i IN OUT.mp4.")
    rate_hz = stated if 0 < stated < 1000 else None  # 0, 1000 or 90000 where the container states none
    return Clip(os.path.basename(path), list(range(count)), None, lambda: VideoDecoder(path, count), rate_hz)


class _Recorder:
    """Records what a camera or a stream sends, in a thread: one that stalls blocks inside its driver, even when opened.

    Args:
        source: The camera or the stream.
        most: The largest number of frames.
    """

    def __init__(self, source: str, most: int) -> None:
        self._cv2 = _opencv("a camera or a stream")
        self._source, self._most = source, most
        self.frames: List[Any] = []
        self.times: List[float] = []
        self.stamps: List[float] = []
        self.is_open = False
        self.has_stalled = False
        self.finished = threading.Event()
        self.is_abandoned = False
        threading.Thread(target=self._record, name="edgeprof-camera", daemon=True).start()

    def _record(self) -> None:
        try:
            capture = self._cv2.VideoCapture(int(self._source) if self._source.isdigit() else self._source)
            self.is_open = capture.isOpened()
            size = 0
            while self.is_open and len(self.frames) < self._most and not self.is_abandoned:
                began = time.monotonic()
                read, image = capture.read()
                now = time.monotonic()
                if not read:
                    # OpenCV waits itself, for about as long; the end of a stream is known at once.
                    self.has_stalled = now - began > STALL_S / 2
                    break
                self.frames.append(image)
                self.times.append(now)
                self.stamps.append(capture.get(self._cv2.CAP_PROP_POS_MSEC) / 1e3)
                size += image.nbytes
                if size > MOST_BYTES:
                    break
            capture.release()
        finally:
            self.finished.set()

    def wait(self) -> None:
        """Wait until all frames are recorded, the source has ended, or no frame has come for STALL_S."""
        while not self.finished.wait(STALL_S):
            before = len(self.frames)
            if not self.finished.wait(STALL_S) and len(self.frames) == before:
                self.is_abandoned = self.has_stalled = True
                return


def _live(source: str, most: int) -> Clip:
    """Record the frames that a camera or a stream sends now."""
    recorder = _Recorder(source, most)
    recorder.wait()
    frames = recorder.frames
    if recorder.has_stalled:
        raise LoadError(
            "{} stalled after {} frames: none came for {:g} s".format(source, len(frames), STALL_S),
            "Look at its cable and its other readers.",
        )
    if not recorder.is_open:
        raise LoadError("{} cannot be opened".format(source), "Look whether another program holds it, or its address.")
    if not frames:
        raise LoadError("{} gave no frame".format(source), "Look at it with another program first.")
    note = None if len(frames) == most else "{} ended after {} frames".format(source, len(frames))
    return Clip(source, frames, note, rate_hz=_rate_of(recorder.stamps) or _rate_of(recorder.times))


def _rate_of(times: List[float]) -> Optional[float]:
    """Frames per second from the median interval, because a camera may leave out frames; None unless times increase.

    The times at which a camera or a server stamped the frames are better than those at which they arrived, since queues
    in the driver and on the way let frames arrive in bursts.
    """
    distances = np.diff(times)
    return 1.0 / float(np.median(distances)) if len(distances) and distances.min() > 0 else None


def _within_memory(frames: Any) -> List[Any]:
    """The frames up to the memory limit."""
    fitting: List[Any] = []
    size = 0
    for frame in frames:
        size += getattr(frame, "nbytes", len(frame) if isinstance(frame, (bytes, bytearray)) else 0)
        if fitting and size > MOST_BYTES:
            break
        fitting.append(frame)
    return fitting
