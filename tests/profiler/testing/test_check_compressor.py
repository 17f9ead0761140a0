"""The conformance test accepts a compressor that conforms, and names the fault of each that does not."""

from __future__ import annotations

import itertools

import pytest

from edgeprof.artifact import recognise
from edgeprof.compression.compressor import Compressor, Parameter
from edgeprof.errors import InputError
from edgeprof.testing import check_compressor

NETWORK = "7767517\n3 3\nInput data 0 1 data\n"  # ncnn's text format: easy to make smaller by hand
count = itertools.count()


class Good(Compressor):
    name, version = "shorten", "1"
    takes = ("ncnn",)
    parameters = (Parameter("amount", "float", 0.5, minimum=0.0, maximum=1.0, help="How much, a ratio."),)

    def apply(self, source, target, parameters, data, *, seed=0):
        if recognise(str(source)).format != "ncnn" or b"\0" in source.read_bytes():
            raise InputError(f"{source} is no network")
        target.write_text(NETWORK + f"# {parameters['amount']} {seed}\n")
        target.with_suffix(".bin").write_bytes(b"")
        return {"lines": 1}


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "m.param"
    path.write_text(NETWORK)
    path.with_suffix(".bin").write_bytes(b"")
    return path


def test_a_compressor_that_conforms_passes(model):
    check_compressor(Good(), model)
    check_compressor(Good(), model, parameters={"amount": 0.25})


def but(**changes):
    return type("Changed", (Good,), changes)()


def applying(function):
    def apply(self, source, target, parameters, data, *, seed=0):
        made = Good.apply(self, source, target, parameters, data, seed=seed)
        return function(source, target, made)

    return but(apply=apply)


def parameter(**changes):
    given = {"name": "amount", "type": "float", "default": 0.5, "minimum": 0.0, "maximum": 1.0, "help": "A ratio."}
    return but(parameters=(Parameter(**{**given, **changes}),))


def differ(_source, target, made):
    target.write_text(NETWORK + f"# {next(count)}\n")
    return made


def spoil(source, _target, made):
    source.write_text(NETWORK + "# spoilt\n")
    return made


def leave_behind(self, source, target, parameters, data, *, seed=0):
    target.write_text(NETWORK)
    return Good.apply(self, source, target, parameters, data, seed=seed)


BROKEN = {
    "other format": (lambda: but(gives="onnx"), "promises onnx and wrote ncnn"),
    "wrong model": (lambda: but(takes=("onnx",)), "it takes onnx"),
    "chance": (lambda: applying(differ), "not deterministic"),
    "source changed": (lambda: applying(spoil), "source was changed"),
    "nothing written": (lambda: applying(lambda s, t, m: t.unlink()), "wrote nothing"),
    "no provenance": (lambda: applying(lambda s, t, m: None), "not a dict of provenance"),
    "no JSON": (lambda: applying(lambda s, t, m: {"path": t}), "is not JSON"),
    "rest of a failure": (lambda: but(apply=leave_behind), "leaves a file behind"),
    "default out of range": (lambda: parameter(default=2.0), "above its maximum"),
    "default of another type": (lambda: parameter(default="much"), "is no float"),
    "no help": (lambda: parameter(help=""), "has no help"),
    "a name with a space": (lambda: parameter(name="the amount"), "cannot be written"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_does_not_conform_is_named(model, name):
    make, says = BROKEN[name]
    with pytest.raises(AssertionError, match=says):
        check_compressor(make(), model)
