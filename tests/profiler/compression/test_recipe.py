"""The data that a variant was made with are compared with the data that it is judged on."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edgeprof.artifact import recognise
from edgeprof.compression.calibration_data import Calibration
from edgeprof.compression.recipe import check_preprocessing, judged_before, recipe_beside
from edgeprof.errors import InputError
from edgeprof.evaluation.samples import Samples


def data(seed=0, count=40, **options):
    images = np.random.default_rng(seed).integers(0, 255, (count, 6), np.uint8)
    return Samples("digits.npz", np.arange(count) % 4, images.__getitem__, {"dtype": "float32", **options})


def recipe(calibrated_on):
    facts = Calibration(calibrated_on, {"x": ((None, 6), "float32")}, 8).facts()
    return [{"compressor": "prune", "facts": {}}, {"compressor": "int8-static", "facts": facts}]


def test_the_same_preprocessing_passes_however_it_is_cut():
    check_preprocessing("it", recipe(data(limit="10")), data(skip="10"))
    check_preprocessing("it", recipe(data()), None)
    check_preprocessing("it", [], data())
    check_preprocessing("it", [{"compressor": "x", "facts": None}, {"facts": {"preprocessing": None}}], data())


def test_another_preprocessing_is_an_error_that_says_both_and_how_to_mean_it():
    made, here = recipe(data(scale="1/255")), data(scale="1/128")
    with pytest.raises(InputError, match=r"it: int8-static was calibrated on digits\.npz") as error:
        check_preprocessing("it", made, here)
    assert "scale=0.00392157" in error.value.message
    assert "scale=0.0078125" in error.value.message
    accepts = error.value.remedy.rpartition("accepts=")[2]
    check_preprocessing("it", made, data(scale="1/128", accepts=accepts))
    with pytest.raises(InputError):
        check_preprocessing("it", recipe(data(scale="1/64")), data(scale="1/128", accepts=accepts))


def test_training_is_told_from_calibration():
    facts = {"trained_on": "train.npz", "preprocessing": "sha256:0123456789abcdef"}
    with pytest.raises(
        InputError, match=r"qat was trained on train\.npz with the preprocessing sha256:0123456789abcdef,"
    ):
        check_preprocessing("it", [{"compressor": "qat", "facts": facts}], data())


@pytest.mark.parametrize("text", ["sha256:", "sha256:12", "0123456789abcdef", "sha256:0123456g"])
def test_accepts_takes_hashes_only(text):
    with pytest.raises(InputError, match="no hash of preprocessing"):
        data(accepts=text)


def test_the_data_of_the_calibration_are_known_again():
    (found,) = judged_before(recipe(data()), data(label_offset="1"))
    assert found.code == "judged_on_calibration_data"
    assert "8 of the 40 samples" in found.message
    assert judged_before(recipe(data()), data(seed=1)) == []
    assert judged_before(recipe(data(limit="20")), data(skip="20")) == []  # cut in two
    assert judged_before(recipe(data()), None) == []
    assert judged_before([{"compressor": "old", "facts": {"calibration": "x"}}], data()) == []


def test_the_data_of_the_training_are_worse():
    facts = {"trained_on": "train.npz", "fingerprint": data().fingerprint()}
    (found,) = judged_before([{"compressor": "qat", "facts": facts}], data())
    assert found.code == "judged_on_training_data"


def test_a_dataset_that_cannot_be_read_is_told_later():
    def read(number):
        raise InputError("cannot read it")

    broken = Samples("broken", np.zeros(4, int), read, {})
    assert judged_before([{"compressor": "qat", "facts": {"fingerprint": "sha256:1"}}], broken) == []


def test_a_recipe_is_found_beside_the_file_by_its_content(tmp_path):
    model = tmp_path / "model.tflite"
    model.write_bytes(b"\x1c\0\0\0TFL3" + bytes(32))
    made = recognise(str(model))
    steps = [{"compressor": "int8-static", "facts": {}}]
    entries = [{"model": None, "recipe": []}, {"model": {"sha256": made.sha256}, "recipe": steps}]
    (tmp_path / "a.compress.json").write_text("{")  # an incomplete file is not a recipe
    (tmp_path / "b.compress.json").write_text(json.dumps({"variants": entries}))
    assert recipe_beside(made) == steps
    model.write_bytes(b"\x1c\0\0\0TFL3" + bytes(33))
    assert recipe_beside(recognise(str(model))) == []


@pytest.mark.parametrize(
    ("shapes", "odd"),
    [
        ([(None, 6)], None),
        ([(1, 6), (None, 3)], None),
        ([(8, 6), (8, 3)], None),
        ([(None, 6), (2, None, 128)], r"b \(2 × \? × 128\)"),
        ([(None, 6), ()], r"b \(a scalar\)"),
        ([(1, 6), (8, 3)], r"b \(8 × 3\)"),
        ([(4, 6), (2, 3)], r"a \(4 × 6\)"),
    ],
)
def test_an_input_without_samples_along_its_first_axis_is_told(shapes, odd):
    """An example is the state of a recurrent model, which is not divided into samples."""
    inputs = {name: (shape, "float32") for name, shape in zip("ab", shapes, strict=False)}
    if odd is None:
        Calibration(data(), inputs)
    else:
        with pytest.raises(InputError, match=f"cannot be calibrated sample by sample: its input {odd}"):
            Calibration(data(), inputs)
