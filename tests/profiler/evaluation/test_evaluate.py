"""Models and datasets that fit each other are evaluated; for others the error names both shapes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from edgeprof.errors import InputError, VariantError
from edgeprof.evaluation.evaluate import evaluate
from edgeprof.evaluation.metric import Metric, Score, bootstrapped
from edgeprof.evaluation.samples import Samples
from edgeprof.worker.runtime import TensorSpec
from edgeprof_plugins.datasets.npz import NamedArrays
from edgeprof_plugins.metrics.topk import TopK

CLASSES = 4


def dataset(count=10, options=None, dtype=np.float32):
    """Return one-hot samples of shape (4,), for which the identity is a perfect model."""
    labels = np.arange(count) % CLASSES
    x = np.eye(CLASSES, dtype=dtype)[labels]
    return Samples("toy", labels, x.__getitem__, options or {})


def spec(shape, dtype="float32", quantization=None, name="x"):
    return TensorSpec(name, tuple(shape), dtype, quantization)


class Model:
    """The identity; it keeps its inputs."""

    def __init__(self):
        self.fed = []

    def __call__(self, feeds):
        self.fed.append(feeds)
        return {"out": next(iter(feeds.values())).astype(np.float32)}


def test_a_perfect_model_is_right_about_every_sample():
    score = evaluate(Model(), [spec([None, CLASSES])], dataset(), TopK(1), batch=4)
    assert (score.value, score.samples) == (1.0, 10)
    assert score.correct.all()
    assert score.ci95[0] == pytest.approx(0.722, abs=1e-3)


@pytest.mark.parametrize(("first", "batch", "sizes"), [(1, 8, [1] * 10), (4, 1, [4, 4, 4]), ("N", 6, [6, 6])])
def test_the_models_own_batch_is_obeyed_and_the_last_one_filled_up(first, batch, sizes):
    model = Model()
    score = evaluate(model, [spec([first, CLASSES])], dataset(), TopK(1), batch)
    assert [len(feeds["x"]) for feeds in model.fed] == sizes
    assert score.samples == 10
    assert score.value == 1.0


def test_quantise_input_uses_the_models_own_scale_and_zero_point():
    model = Model()
    data = dataset(options={"quantise": "input"})
    evaluate(model, [spec([1, CLASSES], "int8", (0.5, -3))], data, TopK(1))
    assert model.fed[1]["x"].dtype == np.int8
    assert model.fed[1]["x"].tolist() == [[-3, -1, -3, -3]]


def test_the_same_file_serves_the_float_model_and_its_quantised_variant():
    model = Model()
    evaluate(model, [spec([1, CLASSES])], dataset(options={"quantise": "input"}, dtype=np.uint8), TopK(1))
    assert model.fed[0]["x"].dtype == np.float32


def test_several_inputs_are_fed_by_name():
    model = Model()
    data = dataset()
    arrays = {"a": np.eye(CLASSES, dtype=np.float32)[data.labels], "b": np.zeros((10, 2), np.float32)}
    named = NamedArrays("two.npz", arrays, data)
    score = evaluate(model, [spec([1, CLASSES], name="a"), spec([1, 2], name="b")], named, TopK(1))
    assert score.value == 1.0
    assert set(model.fed[0]) == {"a", "b"}


def test_an_optional_input_takes_the_tensors_of_a_dataset_and_needs_none():
    inputs = [spec(["batch", CLASSES]), spec(["..."], "optional of float32", name="mask")]
    arrays = {"x": np.eye(CLASSES, dtype=np.float32)[dataset().labels]}
    assert evaluate(Model(), inputs, NamedArrays("one.npz", arrays, dataset()), TopK(1)).value == 1.0
    assert evaluate(Model(), [spec(["..."], "optional of float32")], dataset(), TopK(1)).value == 1.0


@pytest.mark.parametrize(
    ("inputs", "options", "words"),
    [
        ([spec(["..."], "sequence of float32")], {}, ["sequence of float32", "arrays"]),
        ([spec([1, 5])], {}, ["5", "4", "x"]),
        ([spec([1, 2, 2])], {}, ["2 × 2", "4"]),
        ([spec([1, CLASSES], "uint8")], {}, ["uint8", "float32"]),
        ([spec([1, CLASSES], "int8")], {"quantise": "input"}, ["without a scale"]),
        ([spec([1, CLASSES]), spec([1, 3], name="state")], {}, ["2 inputs", "state"]),
        ([spec([1, CLASSES]), spec([2, 3], name="state")], {}, ["first dimensions"]),
    ],
)
def test_what_does_not_fit_is_said_with_both_sides(inputs, options, words):
    with pytest.raises(InputError) as caught:
        evaluate(Model(), inputs, dataset(options=options), TopK(1))
    for word in words:
        assert word in caught.value.message
    assert caught.value.remedy


def test_a_quantised_input_that_is_not_declared_points_to_the_declaration():
    with pytest.raises(InputError) as caught:
        evaluate(Model(), [spec([1, CLASSES], "int8", (0.1, 0))], dataset(), TopK(1))
    assert "quantise=input" in caught.value.remedy


def test_nan_outputs_are_an_error_of_the_variant():
    def broken(feeds):
        return {"out": np.full((len(feeds["x"]), CLASSES), np.nan, np.float32)}

    with pytest.raises(VariantError, match="NaN") as caught:
        evaluate(broken, [spec([None, CLASSES])], dataset(), TopK(1))
    assert caught.value.code == "nan_output"


def test_nan_in_a_map_of_scores_is_found():
    """Models of scikit-learn return a sequence of maps from class to score."""

    def broken(feeds):
        return {"out": np.array([{0: np.nan, 1: np.nan}] * len(feeds["x"]), object)}

    with pytest.raises(VariantError, match="NaN"):
        evaluate(broken, [spec([None, CLASSES])], dataset(), TopK(1))


def test_an_output_without_a_batch_cannot_be_judged():
    with pytest.raises(InputError, match=r"output total has the shape \(\)"):
        evaluate(lambda _: {"total": np.float32(1)}, [spec([None, CLASSES])], dataset(), TopK(1), 5)


def test_a_metric_sees_all_samples_in_the_datasets_order():
    class Order(Metric):
        name = "order"

        def score(self, outputs, labels):
            assert outputs["out"].shape == (10, CLASSES)
            return Score(float((outputs["out"].argmax(axis=1) == labels).all()), None, len(labels))

    assert evaluate(Model(), [spec([None, CLASSES])], dataset(), Order(), 3).value == 1.0


def test_the_bootstrap_is_that_of_the_mean():
    values = np.random.default_rng(0).normal(5, 2, 400)
    found = bootstrapped(lambda counts: float((counts * values).sum() / counts.sum()), 400)
    assert found.value == pytest.approx(values.mean())
    expected = stats.bootstrap(
        (values,), np.mean, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert found.ci95 == pytest.approx((expected.low, expected.high), abs=0.05)
    assert bootstrapped(lambda counts: 1.0, 9).ci95 is None  # too few to know
    undefined = bootstrapped(lambda counts: float("nan") if counts[0] == 0 else 1.0, 20)
    assert undefined.ci95 == (1.0, 1.0)
    assert np.isnan(undefined.replicates).any()


def test_integers_are_judged_as_the_numbers_that_they_stand_for():
    seen = {}

    class Watch(Metric):
        name = "watch"

        def reduce(self, outputs, labels):
            seen.setdefault("labels", []).append(labels.tolist())
            return {"first": outputs["scores"][:, 0]}

        def score(self, outputs, labels):
            seen.update(outputs)
            return Score(0.0, None, len(labels))

    def infer(feeds):
        return {"scores": np.full((4, CLASSES), 7, np.int8), "as they are": np.zeros((4, 2), np.int8)}

    data = dataset()
    outputs = [TensorSpec("scores", (4, CLASSES), "int8", (0.5, -3))]
    evaluate(infer, [spec([4, CLASSES])], data, Watch(), outputs=outputs)
    assert seen["first"].tolist() == [5.0] * len(data)
    assert [len(part) for part in seen["labels"]] == [4, 4, 2]


def test_a_statistic_that_takes_counts_for_indices_is_refused():
    """The F1 of ``predictions[counts]`` is that of one sample, and was once reported as 100 %."""
    right = np.array([True, False] * 100)
    with pytest.raises(InputError, match="takes the counts that it gets for indices"):
        bootstrapped(lambda indices: float(right[indices].mean()), 200)
    assert bootstrapped(lambda counts: float((counts * right).sum() / counts.sum()), 200).value == 0.5
