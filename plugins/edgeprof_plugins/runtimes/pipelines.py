"""A pipeline (``edgeprof.pipeline``) as a model: the workload ``frame``, and one for each stage.

In the windows of a stage each frame runs as always, and that stage some times more; what such a frame costs beyond a
frame without repetition is the stage's. All windows replay the same recorded frames, in whole loops. Repetition needs
stages that return the same for the same input, which is looked at before anything is measured. Python 3.6 grammar.
"""

import copy
import time
from array import array
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from edgeprof.worker.pipeline import Pipeline, PipelineError, Stage
from edgeprof.worker.runtime import FRAME_INPUT, LoadError, LoadOptions, Session
from edgeprof.worker.workload import Workload

from .frames import DECODE, Clip, VideoDecoder, read_clip, take_frames

#: The options of a pipeline; ``--frames SOURCE`` is the option ``frames``.
OPTIONS = ("frames", "frames_count", "repeat")
#: How many frames are recorded, and the seconds that one loop over them may take: then it has fewer.
FRAMES, LOOP_S = 50, 4.0
#: So many frames at least make a loop.
FEWEST_FRAMES = 4
#: On so many frames each stage is tried for giving the same twice.
CHECKED_FRAMES = 3
#: A repeated stage adds about so many times the frame's own time, by as many calls as that takes, within limits.
EXTRA_SHARE, FEWEST_REPEATS, MOST_REPEATS = 1.5, 2, 100
#: For so long each stage runs alone, on the inputs that it had in place (s).
ALONE_S = 0.2
#: Times of stages that are kept until they are taken (1.6 MB).
MOST_TIMES = 200 * 1000


class Survey(NamedTuple):
    """What was seen of a stage before it is measured.

    Attributes:
        stage: The stage.
        seconds: What one call took in place (median).
        alone_s: What one call took when it ran over and over on the same recorded inputs (median); None: not known.
        trouble: Why it cannot be repeated, as a sentence; None: it can.
        repeats: How often it is called again in each frame of its windows.
    """

    stage: Stage
    seconds: float
    alone_s: Optional[float]
    trouble: Optional[str]
    repeats: int


class PipelineSession(Session):
    judged_inputs = (FRAME_INPUT,)

    def __init__(self, target: str, pipeline: Pipeline, options: LoadOptions) -> None:
        self._target = target
        unknown = sorted(set(options.options) - set(OPTIONS))
        if unknown:
            raise LoadError("a pipeline has no option {}".format(unknown[0]), "It has: {}.".format(", ".join(OPTIONS)))
        self._repeats = _count(options, "repeat", 1, MOST_REPEATS)
        most = _count(options, "frames_count", 1, 100000)
        self._is_count_fixed = most is not None
        try:
            self._stages = list(pipeline.stages)
        except PipelineError as error:
            raise LoadError("{}: {}".format(target, error)) from None
        except Exception as error:  # its own code
            raise LoadError("{} failed: {}: {}".format(target, type(error).__name__, error)) from None
        self._clip = self._read_clip(pipeline, options.options.get("frames"), most or FRAMES)
        if self._clip.make_decoder is not None and DECODE not in [stage.name for stage in self._stages]:
            self._stages.insert(0, Stage(DECODE, self._clip.make_decoder()))
            self._has_decoder = True
        elif self._clip.make_decoder is not None and not isinstance(self._clip.frames[0], bytes):
            raise LoadError(
                "edgeprof decodes a video itself, in a stage named {!r}, and {} has one of that name".format(
                    DECODE, target
                ),
                "Rename it, or give a folder of images.",
            )
        else:
            self._has_decoder = False
        self._surveys: List[Survey] = []
        self._times = array("d")
        self._is_copied = False
        self._notes: List[str] = [self._clip.note] if self._clip.note else []
        self.facts = {"stages": " → ".join(stage.name for stage in self._stages), "frames": self._clip.name}

    def _read_clip(self, pipeline: Pipeline, source: Optional[str], most: int) -> Clip:
        if source:
            return read_clip(source, most)
        if pipeline.source is None:
            raise LoadError(
                "{} needs frames to be measured with".format(self._target),
                "Add --frames clip.mp4, or give edgeprof.pipeline a source.",
            )
        return take_frames(self._target, pipeline.source, most)

    def run(self, feeds: Dict[str, Any]) -> Dict[str, Any]:
        """Pass the first recorded frame through all stages, or a frame of a dataset, whose results are judged."""
        if feeds:
            (frame,) = feeds[FRAME_INPUT.name]
            calls = self._stage_calls()[1 if self._has_decoder else 0 :]
            return _end_results(_pass(frame, calls))
        value = _pass(copy.deepcopy(self._clip.frames[0]), self._stage_calls())
        return {} if value is None else {"output": _as_array(value)}

    def reset(self) -> Optional[str]:
        troubles = [survey.trouble for survey in self._surveys if survey.trouble]
        return troubles[0] if troubles else None

    def workloads(self) -> Sequence[Workload]:
        self._surveys = self._survey()
        loop = len(self._clip.frames)
        repeated = [survey for survey in self._surveys if survey.trouble is None]
        return [
            Workload("frame", "frame", 1, loop),
            *(Workload(survey.stage.name, "call", 1, loop) for survey in repeated),
        ]

    def bind_workload(self, name: str, feeds: Dict[str, Any]) -> Callable[[], Any]:  # noqa: ARG002 - see run
        if name == "frame":
            return self._bind_timed_frame()
        index = [stage.name for stage in self._stages].index(name)
        return self._bind_repeated(index, self._surveys[index].repeats)

    def pipeline(self) -> Optional[Dict[str, Any]]:
        return {
            "source": self._clip.name,
            "frames": len(self._clip.frames),
            "rate_hz": self._clip.rate_hz,
            "notes": self._notes,
            "stages": [
                {
                    "name": survey.stage.name,
                    "repeats": survey.repeats,
                    "alone_s": survey.alone_s,
                    "trouble": survey.trouble,
                }
                for survey in self._surveys
            ],
        }

    def take_stage_times(self) -> "array[float]":
        taken, self._times = self._times, array("d")
        return taken

    # --- what windows repeat ------------------------------------------------------------------------------------------

    def _stage_calls(self) -> List[Callable[[Any], Any]]:
        """The calls of the stages, with a decoder of their own."""
        calls = [stage.call for stage in self._stages]
        if self._has_decoder:
            assert self._clip.make_decoder is not None
            calls[0] = self._clip.make_decoder()
        return calls

    def _frames(self) -> Callable[[], Any]:
        """What gives the recorded frames in order, over and over."""
        frames, is_copied = self._clip.frames, self._is_copied
        position = 0

        def following() -> Any:
            nonlocal position
            frame = frames[position]
            position = position + 1 if position + 1 < len(frames) else 0
            return copy.deepcopy(frame) if is_copied else frame

        return following

    def _bind_timed_frame(self) -> Callable[[], Any]:
        """A frame through all stages, with a reading of the clock after each."""
        following, calls, clock = self._frames(), self._stage_calls(), time.perf_counter

        def frame() -> Any:
            value = following()
            times = self._times
            before = clock()
            for call in calls:
                value = call(value)
                now = clock()
                times.append(now - before)
                before = now
            if len(times) > MOST_TIMES:
                del times[MOST_TIMES // len(calls) * len(calls) :]
            return value

        return frame

    def _bind_repeated(self, index: int, repeats: int) -> Callable[[], Any]:
        """As a frame, with one stage called ``repeats`` times more on the input that it has there."""
        following, calls = self._frames(), self._stage_calls()
        again = [calls[index]] * repeats
        if self._has_decoder and index == 0:
            assert self._clip.make_decoder is not None
            again = [self._clip.make_decoder() for _ in range(repeats)]
        before, repeated, after = calls[:index], calls[index], calls[index + 1 :]

        def frame() -> Any:
            value = following()
            for call in before:
                value = call(value)
            given = value
            value = repeated(given)
            for call in again:
                call(given)
            for call in after:
                value = call(value)
            return value

        return frame

    # --- the look before ----------------------------------------------------------------------------------------------

    def _survey(self) -> List[Survey]:
        """Run the clip once, and see of each stage what it takes, alone too, and whether it can be repeated."""
        times, inputs = self._run_once()
        surveys = []
        for index, stage in enumerate(self._stages):
            seconds = float(np.median(times[:, index]))
            is_decoder = self._has_decoder and index == 0
            trouble = None if is_decoder else _why_not_repeatable(stage, inputs[index])
            alone_s = None if is_decoder or trouble else _time_alone(stage.call, inputs[index])
            surveys.append(Survey(stage, seconds, alone_s, trouble, 0))
        frame_s = sum(survey.seconds for survey in surveys)
        return [survey._replace(repeats=self._repeats or _repeats_for(survey.seconds, frame_s)) for survey in surveys]

    def _run_once(self) -> Tuple[Any, List[List[Any]]]:
        """The seconds of each stage in each frame, and the inputs of each stage for some frames.

        It cuts the clip to what one loop may take, and sees whether frames must be handed out as copies, because a
        stage writes into them.
        """
        rows: List[List[float]] = []
        inputs: List[List[Any]] = [[] for _ in self._stages]
        calls, clock = self._stage_calls(), time.perf_counter
        began = clock()
        for frame in self._clip.frames:
            is_checked = len(rows) < CHECKED_FRAMES
            value = original = copy.deepcopy(frame)
            row = []
            for index, call in enumerate(calls):
                if is_checked:
                    inputs[index].append(_copied(value))
                before = clock()
                value = call(value)
                row.append(clock() - before)
            rows.append(row)
            if is_checked and not are_alike(original, frame):
                self._is_copied = True
            spent = clock() - began
            if len(rows) >= FEWEST_FRAMES and spent > LOOP_S and not self._is_count_fixed:
                break
        if len(rows) < len(self._clip.frames):
            self._notes.append("a loop is the first {} frames of {}".format(len(rows), self._clip.name))
            self._clip = self._clip_of(len(rows))
        return np.array(rows), inputs

    def _clip_of(self, count: int) -> Clip:
        """The first frames of the clip."""
        make_decoder = self._clip.make_decoder
        if self._has_decoder and not isinstance(self._clip.frames[0], bytes):
            decoder = self._stages[0].call
            assert isinstance(decoder, VideoDecoder)
            path = decoder.path

            def make_shorter() -> VideoDecoder:
                return VideoDecoder(path, count)

            make_decoder = make_shorter
        return self._clip._replace(frames=self._clip.frames[:count], make_decoder=make_decoder)


def _repeats_for(seconds: float, frame_s: float) -> int:
    wanted = EXTRA_SHARE * frame_s / max(seconds, 1e-7)
    return int(min(MOST_REPEATS, max(FEWEST_REPEATS, round(wanted))))


def _time_alone(call: Callable[[Any], Any], inputs: Sequence[Any]) -> Optional[float]:
    """The median seconds of a call that is repeated on the inputs that it had in place."""
    clock = time.perf_counter
    times: List[float] = []
    end = clock() + ALONE_S
    while clock() < end or len(times) < len(inputs):
        for value in inputs:
            before = clock()
            call(value)
            times.append(clock() - before)
    return float(np.median(times))


def _why_not_repeatable(stage: Stage, inputs: Sequence[Any]) -> Optional[str]:
    """What a second call with the same input shows: another output, or a failure; None: it is the same."""
    for value in inputs:
        try:
            first = _copied(stage.call(_copied(value)))
            second = stage.call(_copied(value))
        except Exception as error:  # its own code
            return "the stage {} cannot be called again with the same input: {}: {}".format(
                stage.name, type(error).__name__, str(error).split("\n")[0][:200]
            )
        if not are_alike(first, second):
            return "the stage {} returns something else when it is called again with the same input".format(stage.name)
    return None


def _copied(value: Any) -> Any:
    """A copy that nothing writes into; the value itself where it cannot be copied."""
    try:
        return copy.deepcopy(value)
    except Exception:  # a handle of some library
        return value


def are_alike(left: Any, right: Any) -> bool:
    """Whether two outputs are the same, floating-point numbers within what the order of a sum changes.

    What cannot be compared (an object without values of its own) is taken to be the same.
    """
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        left, right = list(left.items()), list(right.items())
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(are_alike(a, b) for a, b in zip(left, right))
    if hasattr(left, "detach"):  # a tensor of PyTorch's
        return _are_close(left.detach().cpu().numpy(), right.detach().cpu().numpy())
    if isinstance(left, (float, complex, np.ndarray, np.generic)):
        return _are_close(np.asarray(left), np.asarray(right))
    if hasattr(left, "__dict__"):
        return are_alike(dict(vars(left)), dict(vars(right)))
    return not isinstance(left, (str, bytes, bytearray, int)) or bool(left == right)


def _are_close(left: Any, right: Any) -> bool:
    """Whether two arrays are the same, within what the order of a sum changes."""
    if left.shape != right.shape or left.dtype != right.dtype:
        return False
    if left.dtype.kind not in "fc":
        return bool((left == right).all())
    finite = np.abs(left[np.isfinite(left)])
    scale = float(finite.max()) if finite.size else 0.0
    return bool(np.allclose(left, right, rtol=1e-3, atol=1e-4 * scale, equal_nan=True))


def _count(options: LoadOptions, name: str, least: int, most: int) -> Optional[int]:
    if name not in options.options:
        return None
    text = options.options[name]
    if not text.isdigit() or not least <= int(text) <= most:
        raise LoadError("{}={} is no number from {} to {}".format(name, text, least, most))
    return int(text)


def _pass(value: Any, calls: Sequence[Callable[[Any], Any]]) -> Any:
    for call in calls:
        value = call(value)
    return value


def _end_results(value: Any) -> Dict[str, Any]:
    """The numbers of a frame's result by name, each as a batch of one: the fields of an object, or ``output``."""
    if hasattr(value, "_asdict"):
        value = value._asdict()
    elif hasattr(value, "__dict__") and not hasattr(value, "__array__"):
        value = vars(value)
    named = value if isinstance(value, dict) else {"output": value}
    arrays = {str(name): _as_array(field)[np.newaxis] for name, field in named.items()}
    numbers = {name: array for name, array in arrays.items() if array.dtype.kind in "biuf"}
    if not numbers:
        raise LoadError(
            "the last stage returns {}, which has no numbers to judge".format(type(value).__name__),
            "Return an array, or an object whose fields are arrays, such as boxes, scores and classes.",
        )
    return numbers


def _as_array(value: Any) -> Any:
    """The output as numbers where it is some; else as one object, which is not looked into."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    try:
        numbers = np.asarray(value)
    except Exception:  # ragged
        numbers = None
    if numbers is None or numbers.dtype.kind not in "biufc":
        holder = np.empty((), dtype=object)
        holder[()] = value
        return holder
    return numbers
