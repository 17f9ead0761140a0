"""The conformance test accepts a runtime that conforms, and names the fault of each that does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeprof.testing import check_runtime
from edgeprof.worker.language import Lengths, TokenClock
from edgeprof.worker.runtime import Availability, LoadError, Runtime, Session, TensorSpec
from edgeprof.worker.workload import INFERENCE, Workload

MAGIC = b"TOY1" + bytes(60)


class GoodSession(Session):
    inputs = (TensorSpec("x", ("batch", 3), "float32", None),)
    outputs = (TensorSpec("y", ("batch", 3), "float32", None),)
    facts = {"kind": "toy"}  # noqa: RUF012 - the contract's own form

    def run(self, feeds):
        if feeds["x"].dtype != np.float32:
            raise TypeError("float32 only")
        return {"y": feeds["x"] * 2}


class Good(Runtime):
    name = "toy"
    formats = ("toy",)
    session = GoodSession

    def availability(self):
        return Availability("1.0", None, None)

    def devices(self):
        return ["cpu"]

    def load(self, path, options):
        if options.device != "cpu":
            raise LoadError(f"no device {options.device}")
        if options.options:
            raise LoadError("no options")
        if not Path(path).is_file():
            raise LoadError(f"{path} does not exist")
        if Path(path).read_bytes() != MAGIC:
            raise LoadError(f"{path} is no toy")
        return self.session()


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.toy"
    path.write_bytes(MAGIC)
    return path


X = np.arange(3, dtype="float32").reshape(1, 3)


def test_workloads_that_bring_themselves_back_pass(model):
    workloads = [INFERENCE, Workload("decode", "token", 4)]
    check_runtime(with_session(workloads=lambda s: workloads), model)


def test_a_runtime_that_conforms_passes(model):
    check_runtime(Good(), model, feeds={"x": X}, expected={"y": 2 * X})
    check_runtime(Good(), model)


def with_session(**changes):
    """Return a runtime that conforms except for its session."""
    return type("Changed", (Good,), {"session": type("ChangedSession", (GoodSession,), changes)})()


def with_runtime(**changes):
    return type("Changed", (Good,), changes)()


def reuse(self, feeds):
    """Return the same array every time."""
    if not hasattr(self, "kept"):
        self.kept = np.zeros_like(feeds["x"], dtype="float32")
    if self.kept.shape != feeds["x"].shape:
        self.kept = np.zeros(feeds["x"].shape, "float32")
    np.multiply(feeds["x"], 2, out=self.kept)
    return {"y": self.kept}


def grow(self, feeds):
    """Leak half a megabyte in each run."""
    hoard.append(np.ones(1 << 16))
    return {"y": feeds["x"] * np.float32(2)}


hoard = []


def take_turns(self, name, feeds):
    """The decode needs a fresh inference before each of its calls, and does not make one itself."""
    prompts = self.__dict__.setdefault("prompts", [])

    def infer():
        prompts.append(1)

    def decode():
        if not prompts:
            raise RuntimeError("no prompt was read")
        prompts.clear()

    return infer if name == "inference" else decode


def load_anything(self, path, options):
    Good.load(self, path, options._replace(options={}))
    return GoodSession()


def load_any_file(self, path, options):
    if options.device != "cpu" or options.options or not Path(path).is_file():
        raise LoadError("no")
    return GoodSession()


def load_badly(self, path, options):
    if Path(path).is_file():
        return Good.load(self, path, options)
    raise FileNotFoundError(path)


def two_lines(self, path, options):
    if options.options:
        raise LoadError("first\nsecond")
    return Good.load(self, path, options)


BROKEN = {
    "wrong outputs": (
        lambda: with_session(run=lambda s, f: {"y": f["x"] * np.float32(2.1)}),
        "differs from the reference",
    ),
    "wrong shape": (lambda: with_session(run=lambda s, f: {"y": f["x"][0]}), "comes with the shape"),
    "wrong dtype": (
        lambda: with_session(run=lambda s, f: {"y": f["x"] * np.float64(2)}),
        "is float64, declared float32",
    ),
    "wrong name": (lambda: with_session(run=lambda s, f: {"z": f["x"]}), r"declared as \['y'\] but come as \['z'\]"),
    "no dict": (lambda: with_session(run=lambda s, f: f["x"]), "not a dict of arrays"),
    "outputs that change": (lambda: with_session(run=reuse), "must be a copy"),
    "a leak": (lambda: with_session(run=grow), "grew by .* MiB"),
    "bind without a call": (lambda: with_session(bind=lambda s, f: None), "nothing that can be called"),
    "no workload": (lambda: with_session(workloads=lambda s: []), "offers no workload"),
    "workloads of one name": (
        lambda: with_session(workloads=lambda s: [INFERENCE, INFERENCE]),
        "two workloads with the name 'inference'",
    ),
    "a workload of no units": (
        lambda: with_session(workloads=lambda s: [Workload("decode", "token", 0)]),
        "'decode' makes 0 units in a call",
    ),
    "a workload without a call": (
        lambda: with_session(bind_workload=lambda s, n, f: None),
        r"bind_workload\('inference'\) returns nothing",
    ),
    "a workload that works once": (
        lambda: with_session(bind_workload=lambda s, n, f: iter([1]).__next__),
        "'inference' cannot be called again and again",
    ),
    "a workload that is spoilt by another": (
        lambda: with_session(workloads=lambda s: [INFERENCE, Workload("decode", "token", 1)], bind_workload=take_turns),
        "'decode' cannot be called again and again: no prompt was read",
    ),
    "facts that are numbers": (lambda: with_session(facts={"threads": 4}), "threads is 4, not a text"),
    "inputs of one name": (lambda: with_session(inputs=GoodSession.inputs * 2), "two inputs have the same name"),
    "a dtype of its own": (
        lambda: with_session(inputs=(TensorSpec("x", ("batch", 3), "float", None),)),
        "'float' of the input 'x' is no name of numpy's",
    ),
    "a batch that it ignores": (
        lambda: with_session(run=lambda s, f: {"y": (f["x"] * np.float32(2))[:1]}),
        "a batch of 3 gives an output 'y' of 1",
    ),
    "any option": (lambda: with_runtime(load=load_anything), "an option that does not exist is accepted"),
    "any content": (lambda: with_runtime(load=load_any_file), "an empty file is accepted"),
    "another error": (lambda: with_runtime(load=load_badly), "does not exist raises FileNotFoundError"),
    "a long message": (lambda: with_runtime(load=two_lines), "must be one sentence"),
    "no version": (lambda: with_runtime(availability=lambda s: Availability(None, None, None)), "reports no version"),
    "not here": (
        lambda: with_runtime(availability=lambda s: Availability(None, "no library", "pip install toy")),
        r"not available here: no library \(pip install toy\)",
    ),
    "cpu last": (lambda: with_runtime(devices=lambda s: ["npu", "cpu"]), "does not list cpu first"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_does_not_conform_is_named(model, name):
    make, says = BROKEN[name]
    try:
        with pytest.raises(AssertionError, match=says):
            check_runtime(make(), model, feeds={"x": X}, expected={"y": 2 * X})
    finally:
        hoard.clear()


class Talker(GoodSession):
    """A language model that finds each token half as likely as the one before it."""

    inputs = ()
    outputs = (TensorSpec("next_token", (1,), "int64", None),)
    lengths = Lengths(5, 3)

    def __init__(self):
        self.clock = TokenClock()

    def run(self, feeds):
        return {"next_token": np.array([7])}

    def workloads(self):
        return self.lengths.workloads()

    def bind_workload(self, name, feeds):
        return self.request if name == "request" else self.phase

    def phase(self):
        pass

    def request(self):
        self.clock.start()
        for _ in range(3):
            self.clock.token()
        self.clock.end()

    def take_token_times(self):
        return self.clock.take()

    def language(self):
        return {**self.lengths.language_facts(), "method": "phase-windows"}

    def log_likelihoods(self, tokens, first):
        return [np.log(0.5) * n for n in range(first, len(tokens))]


TEXT, REFERENCE = [4, 5, 6, 7], [-1.3863, -2.0794]


def test_a_language_model_that_conforms_passes(model):
    check_runtime(with_runtime(session=Talker), model, likelihoods=(TEXT, REFERENCE))


def forgetful(session, tokens, first):
    session.calls = getattr(session, "calls", 0) + 1
    return [np.log(0.5) * n - 0.1 * (session.calls - 1) for n in range(first, len(tokens))]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"language": lambda s: {"prompt_tokens": 5}}, "language() lacks context, depth"),
        ({"request": Talker.phase}, "a request for 3 tokens reports the times of 0"),
        ({"phase": Talker.request}, "'prefill' reports times of tokens"),
        ({"take_token_times": lambda s: ([3], [0.3, 0.2, 0.4])}, "do not arrive in their order"),
        ({"log_likelihoods": lambda s, tokens, first: [-0.7]}, "returns 1 numbers, not 2"),
        ({"log_likelihoods": lambda s, tokens, first: [-1.3863, -2.0894]}, "differs from the reference by 0.01"),
        ({"log_likelihoods": forgetful}, "differs from the reference by 0.1"),
    ],
)
def test_each_fault_of_a_language_model_is_named(model, changes, says):
    runtime = with_runtime(session=type("Changed", (Talker,), changes))
    with pytest.raises(AssertionError) as caught:
        check_runtime(runtime, model, likelihoods=(TEXT, REFERENCE))
    assert says in str(caught.value)
