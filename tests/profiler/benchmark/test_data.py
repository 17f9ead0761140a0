"""A bench on labelled data: what is refused before anything runs, and what is reported about accuracy."""

from __future__ import annotations

import numpy as np
import pytest

from edgeprof.benchmark.conductor import bench
from edgeprof.benchmark.request import BenchRequest, ModelRequest
from edgeprof.errors import InputError
from edgeprof.evaluation.load import load_metric
from edgeprof.evaluation.samples import Samples
from edgeprof.plugins import PluginHost
from edgeprof.roots import Roots
from edgeprof_plugins.metrics.perplexity import Perplexity
from edgeprof_plugins.metrics.topk import TopK
from tests.profiler.watching import Watcher

pytestmark = pytest.mark.usefixtures("settled")
APPLICATION = """
import numpy as np

def good(x):
    return {"scores": x}

def worse(x):
    return {"scores": 0.5 * x}

calls = []
def counted(x):
    calls.append(1)
    with open(__file__ + ".calls", "w") as file:
        file.write(str(len(calls)))
    return {"scores": x, "other": x}
"""


@pytest.fixture(scope="module")
def host():
    return PluginHost()


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """A machine on which nothing measures power."""
    monkeypatch.setenv("EDGEPROF_DATA_DIR", str(tmp_path / "data"))
    (tmp_path / "app.py").write_text(APPLICATION)
    (tmp_path / "sys").mkdir()
    return Roots.resolve(tmp_path / "sys")


def classes(count=12, **options):
    labels = np.arange(count) % 3
    return Samples("toy", labels, np.eye(3, dtype=np.float32)[labels].__getitem__, options)


def run(host, roots, data, metric, *models):
    folder = roots.sysfs.parent
    requests = [
        ModelRequest(f"{folder / 'app.py'}:{name}", f"{number} {name}", recipe)
        for number, (name, recipe) in enumerate(models)
    ]
    (sample,) = next(iter(data.batches(1)))[""]
    shapes = {"shapes": {"x": (1, *sample.shape)}, "dtypes": {"x": "float32"}}
    settings = shapes | {"isolated": False, "windows": 2, "window_s": 0.05, "idle_s": 0.0, "warmup_s": 0.02}
    return bench(
        BenchRequest(models=requests, preset="quick", dataset=data, metric=metric, **settings), host, roots, Watcher()
    )


def step(name, data, **facts):
    return [
        {"compressor": name, "facts": {"preprocessing": data.preprocessing, "fingerprint": data.fingerprint(), **facts}}
    ]


def test_another_preprocessing_is_refused_before_anything_runs(host, bare):
    made = step("int8-static", classes(scale="1/255"), calibration="toy", samples=5)
    with pytest.raises(InputError, match="1 good: int8-static was calibrated on toy with the preprocessing"):
        run(host, bare, classes(), TopK(1), ("good", []), ("good", made))


def test_a_metric_that_does_not_fit_is_refused_before_anything_runs(host, bare):
    with pytest.raises(InputError, match="map judges by boxes"):
        run(host, bare, classes(), load_metric("map", PluginHost.from_environment()), ("good", []))


@pytest.mark.parametrize(
    ("labels", "metric", "words"),
    [
        (np.arange(12) % 3, "top1", "needs one output, but the model has 2"),
        (np.arange(12), "top1:output=scores", "labels go from 0 to 11"),
        (np.arange(12) % 3, "top1:output=score", "score"),
    ],
)
def test_what_the_metric_cannot_judge_is_refused_before_a_window_runs(host, bare, labels, metric, words):
    data = Samples("toy", labels, np.eye(3, dtype=np.float32)[labels % 3].__getitem__, {})
    result = run(host, bare, data, load_metric(metric, host), ("counted", []))
    (variant,) = result.variants
    assert variant.status == "failed"
    assert words in " ".join(reason.message for reason in variant.reasons)
    calls = int((bare.sysfs.parent / "app.py.calls").read_text())
    assert calls < 10  # loaded and called once, but neither warmed up nor measured


def test_one_of_several_outputs_is_judged_by_its_name_or_number(host, bare):
    for output in ("other", "1"):
        result = run(host, bare, classes(), load_metric(f"top1:output={output}", host), ("counted", []))
        assert result.variants[0].accuracy.value == 1.0


def test_a_variant_judged_on_its_own_data_says_so(host, bare):
    data = classes()
    variants = [step("int8-static", data, calibration="toy", samples=5), step("qat", data, trained_on="toy")]
    result = run(host, bare, data, TopK(1), ("good", []), *(("good", made) for made in variants))
    codes = [
        [reason.code for reason in variant.reasons if reason.code.startswith("judged")] for variant in result.variants
    ]
    assert codes == [[], ["judged_on_calibration_data"], ["judged_on_training_data"]]
    assert result.variants[2].status == "degraded"
    assert [variant.accuracy.value for variant in result.variants] == [1.0, 1.0, 1.0]


def test_perplexity_rises_through_a_whole_bench(host, bare):
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 5, (12, 4))
    logits = 3 * np.eye(5, dtype=np.float32)[labels] + draw.normal(0, 1, (12, 4, 5)).astype(np.float32)
    data = Samples("text", labels, logits.__getitem__, {})
    result = run(host, bare, data, Perplexity(), ("good", []), ("worse", []))
    good, worse = (variant.accuracy for variant in result.variants)
    assert 1 < good.value < worse.value < 5
    assert not worse.higher_is_better
    assert worse.drop == pytest.approx(worse.value - good.value)
    assert worse.p_value < 0.05
    assert worse.ci95[0] < worse.value < worse.ci95[1]
    assert result.comparisons[0].accuracy_difference.value > 0
