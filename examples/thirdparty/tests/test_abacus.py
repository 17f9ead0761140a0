from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeprof.artifact import recognise
from edgeprof.errors import InputError
from edgeprof.roots import Roots
from edgeprof.testing import check_runtime, check_sensor
from edgeprof.worker.runtime import LoadError, LoadOptions
from edgeprof_abacus.meter import find
from edgeprof_abacus.runtime import Abacus, parse

XOR = Path(__file__).parent.parent / "xor.abacus"
OPTIONS = LoadOptions(device="cpu", threads=None, batch=1, shapes={}, options={})


# region: conformance
def test_the_runtime_conforms():
    x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    y = np.array([[0], [1], [1], [0]], np.float32)
    check_runtime(Abacus(), XOR, feeds={"x": x}, expected={"y": y})


# endregion


def test_edgeprof_recognises_the_format_through_the_runtime():
    assert recognise(str(XOR), Abacus.own_formats).format == "abacus"
    with pytest.raises(InputError):
        recognise(str(XOR))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("abacus 2\n", "does not begin"),
        ("abacus 1\n", "no layers"),
        ("abacus 1\nlayer relu\n", "line 2"),
        ("abacus 1\ninputs 2\nlayer relu\n1 2\n", "line 4: 2 numbers where 3 are needed"),
        ("abacus 1\ninputs 1\nlayer relu\none two\n", "no row of numbers"),
    ],
)
def test_a_file_that_is_wrong_is_told_where(text, complaint):
    with pytest.raises(ValueError, match=complaint):
        parse(text)


def test_a_damaged_model_is_one_sentence(tmp_path):
    damaged = tmp_path / "damaged.abacus"
    damaged.write_bytes(XOR.read_bytes()[:-12])
    with pytest.raises(LoadError, match="is not an abacus model"):
        Abacus().load(str(damaged), OPTIONS)


@pytest.fixture
def roots(tmp_path) -> Roots:
    directory = tmp_path / "class/abacus/meter0"
    directory.mkdir(parents=True)
    (directory / "label").write_text("supply\n")
    (directory / "energy_uj").write_text("1500000\n")
    return Roots(sysfs=tmp_path)


def test_the_meter_conforms(roots):
    (meter,) = find(roots)
    check_sensor(meter)


def test_the_meter_counts_joules(roots):
    (meter,) = find(roots)
    assert meter.read_once() == {"supply/energy": pytest.approx(1.5)}


def test_a_machine_without_a_meter_has_none(tmp_path):
    assert find(Roots(sysfs=tmp_path)) == []
