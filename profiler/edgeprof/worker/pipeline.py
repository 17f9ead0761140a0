"""``edgeprof.pipeline``: an application as ordered named callables, each given what the one before it returned.

    @edgeprof.pipeline
    def pipeline():
        detector = Detector("detector.onnx")
        return [("resize", resize), ("detect", detector), ("draw", draw)]

``edgeprof bench app.py:pipeline --frames clip.mp4`` measures joules and seconds of a frame and of each stage. The
application itself calls the pipeline with a frame. Python 3.6 grammar and the standard library, because an application
may run under the Python of its board.
"""

import functools
import inspect
import re
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple, Union

#: The longest name of a stage (characters); it becomes a label of a metric.
MOST_NAME = 100
#: The most stages of one pipeline.
MOST_STAGES = 32
#: Names that a stage cannot have: the pipeline's own workloads, and the rest of a frame beside its stages.
RESERVED = ("frame", "frame back to back", "rest")

StageCall = Callable[[Any], Any]
#: A stage as the application gives it: a callable, or a name and a callable.
GivenStage = Union[StageCall, Tuple[str, StageCall]]
#: Where frames come from: an iterable, or a callable that returns one.
Source = Union[Iterable[Any], Callable[[], Iterable[Any]]]


class PipelineError(ValueError):
    """Raised for a pipeline that cannot be run as it was written; its text is one sentence."""


class Stage(NamedTuple):
    """One step of a pipeline.

    Attributes:
        name: The name in tables and metrics.
        call: Takes what the stage before it returned (the first stage takes the frame) and returns its result.
    """

    name: str
    call: StageCall


class Pipeline:
    """An application as ordered named callables; ``pipeline`` makes one.

    Args:
        given: The stages, or a callable that makes them when they are first needed: it may load models.
        source: Where frames come from when ``--frames`` names nothing else.
    """

    def __init__(
        self, given: Union[Sequence[GivenStage], Callable[[], Sequence[GivenStage]]], source: Optional[Source] = None
    ) -> None:
        self.source = source
        self._given = given
        self._stages: Optional[List[Stage]] = None
        if callable(given):
            functools.update_wrapper(self, given)

    @property
    def stages(self) -> Sequence[Stage]:
        """The stages in order, made on first use.

        Raises:
            PipelineError: what was given is no list of named callables.
        """
        if self._stages is None:
            self._stages = check_stages(self._given() if callable(self._given) else self._given)
        return self._stages

    def with_models(self, models: Dict[str, str]) -> "Pipeline":
        """The same pipeline with other models: its function receives each path in the parameter of the stage's name.

        Args:
            models: Stage → path of its model.

        Raises:
            PipelineError: the stages are not made by a function, or it has no such parameter.
        """
        if not callable(self._given):
            raise PipelineError("its stages are a list; make them in a function that receives the models as parameters")
        for stage in models:
            taken = model_parameters(self._given)
            if taken is not None and stage not in taken:
                raise PipelineError(no_model_sentence(stage, taken))
        return Pipeline(functools.partial(_make_with, self._given, dict(models)), self.source)

    def __call__(self, frame: Any) -> Any:
        """Pass a frame through all stages, and return what the last one returns."""
        value = frame
        for stage in self.stages:
            value = stage.call(value)
        return value


def _make_with(make: Callable[..., Sequence[GivenStage]], models: Dict[str, str]) -> List[Stage]:
    """The stages that a function makes of these models; each model belongs to the stage of its parameter's name."""
    stages = check_stages(make(**models))
    names = [stage.name for stage in stages]
    for name in models:
        if name not in names:
            raise PipelineError("no stage is named {!r}; the stages are {}".format(name, ", ".join(names)))
    return stages


def model_parameters(make: Callable[..., Any]) -> Optional[List[str]]:
    """The parameters of the function that makes a pipeline's stages; None where it takes any, or they are not known."""
    try:
        parameters = inspect.signature(make).parameters.values()
    except (TypeError, ValueError):  # built in C without a signature
        return None
    if any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return [
        parameter.name
        for parameter in parameters
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]


def no_model_sentence(stage: str, taken: Sequence[str]) -> str:
    """Say that a pipeline's function takes no model for a stage."""
    known = ", ".join(taken) or "none"
    return "its function takes no model for a stage {!r} (parameters: {})".format(stage, known)


#: The comma before ``stage=PATH``; other commas belong to a path.
_BEFORE_STAGE = re.compile(r",(?=[^\W\d]\w*=)")


def split_models(text: str) -> Tuple[str, Dict[str, str]]:
    """Split ``app.py:pipeline,detect=int8.onnx`` into the pipeline and the models of its stages.

    Returns:
        The text before the first stage, and stage → path; empty where no model is named.
    """
    target, *given = _BEFORE_STAGE.split(text)
    return target, dict(stage.split("=", 1) for stage in given)


def join_models(target: str, models: Dict[str, str]) -> str:
    """The reverse of ``split_models``."""
    return ",".join([target, *("{}={}".format(stage, path) for stage, path in models.items())])


def pipeline(
    stages: Union[Sequence[GivenStage], Callable[[], Sequence[GivenStage]], None] = None,
    *,
    source: Optional[Source] = None,
) -> Any:
    """Make a pipeline of ordered named callables.

    Use it on a list, or as a decorator of a function that returns one and that may load models::

        app = edgeprof.pipeline([("decode", decode), ("detect", detect)])

        @edgeprof.pipeline(source=frames)
        def app():
            return [("decode", decode), ("detect", detect)]

    Each stage gets what the one before it returned, the first one a frame. To be measured by repetition, a stage must
    return the same for the same input.

    Args:
        stages: Named callables as pairs, callables that have a ``__name__``, or a function that returns such a list.
        source: Where frames come from when ``edgeprof bench --frames`` names nothing else: an iterable, or a callable
            that returns one.

    Returns:
        A ``Pipeline``; without ``stages``, a decorator that returns one.
    """
    if stages is None:
        return functools.partial(Pipeline, source=source)
    return Pipeline(stages, source)


def check_stages(given: Any) -> List[Stage]:
    """Check the stages that were given, and return each with its name.

    Raises:
        PipelineError: one has no name or no callable, two have the same name, or there are none or too many.
    """
    if not isinstance(given, (list, tuple)) or not given:
        raise PipelineError(
            "a pipeline is a list of named callables, as [('detect', detect)], and not {!r}".format(given)[:200]
        )
    if len(given) > MOST_STAGES:
        raise PipelineError("a pipeline has at most {} stages, and this one has {}".format(MOST_STAGES, len(given)))
    stages = [_name_stage(item) for item in given]
    names = [stage.name for stage in stages]
    for name in names:
        if names.count(name) > 1:
            raise PipelineError("two stages are named {!r}; each needs a name of its own".format(name))
    return stages


def _name_stage(item: Any) -> Stage:
    is_pair = isinstance(item, (list, tuple)) and len(item) == 2
    name, call = item if is_pair else (getattr(item, "__name__", None), item)
    if not callable(call):
        raise PipelineError("the stage {!r} is no callable".format(name if is_pair else item)[:200])
    if not isinstance(name, str) or not name.strip() or not name.isprintable() or len(name) > MOST_NAME:
        raise PipelineError(
            "{!r} is no name of a stage; it is 1 to {} printable characters, as in ('detect', detect)".format(
                name, MOST_NAME
            )[:300]
        )
    if name in RESERVED:
        raise PipelineError("a stage cannot be named {!r}, which edgeprof uses itself".format(name))
    return Stage(name, call)
