"""Datasets and metrics from the command line: recognised by content, declared in a file, or named."""

from __future__ import annotations

import numpy as np
import pytest

from edgeprof.errors import InputError
from edgeprof.evaluation.load import load_dataset, load_metric
from edgeprof.evaluation.metric import Score
from edgeprof.plugins import PluginHost, PluginInfo
from edgeprof_plugins.datasets import cifar, idx, images, mlperf_tiny, npz
from edgeprof_plugins.metrics import topk


@pytest.fixture(scope="module")
def host():
    made = PluginHost(entry_points=[])
    for plugin in (cifar, idx, images, mlperf_tiny, npz, topk):
        made.register(plugin, PluginInfo(plugin.__name__, "test", "0"))
    assert [p.reason for p in made.plugins if p.status != "loaded"] == []
    return made


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, x=np.arange(24, dtype=np.uint8).reshape(6, 4), y=np.arange(6))
    return path


def first(dataset):
    return next(iter(dataset.batches(2)))[""]


def test_a_file_is_recognised_by_its_content(host, data):
    dataset = load_dataset(str(data), host)
    assert len(dataset) == 6
    assert np.array_equal(first(dataset), [[0, 1, 2, 3], [4, 5, 6, 7]])


def test_a_format_may_be_named_in_front(host, data):
    assert len(load_dataset(f"npz:{data}", host)) == 6


def test_a_dataset_file_declares_path_format_and_preprocessing(host, data, tmp_path):
    file = tmp_path / "set.toml"
    file.write_text(
        'path = "data.npz"\nformat = "npz"\nlimit = 3\n[preprocess]\nscale = "1/2"\nmean = [1, 1, 1, 1]\nshape=[4]\n'
    )
    dataset = load_dataset(str(file), host)
    assert len(dataset) == 3
    assert dataset.name == "data.npz (first 3)"
    assert np.allclose(first(dataset)[1], [1, 1.5, 2, 2.5])
    flags = load_dataset(str(data), host, {"scale": "0.5", "mean": "1,1,1,1", "shape": "4", "limit": "3"})
    assert flags.preprocessing == dataset.preprocessing


def test_flags_win_over_the_file(host, data, tmp_path):
    file = tmp_path / "set.toml"
    file.write_text('path = "data.npz"\nlimit = 3\n')
    assert len(load_dataset(str(file), host, {"limit": "2"})) == 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("path = ", "not TOML"),
        ('format = "npz"', "names no data"),
        ('path = "gone.npz"', "does not exist"),
        ('path = "data.npz"\nmean = [true]', "mean must be"),
        ('path = "data.npz"\nformat = "nzp"', "no dataset is named 'nzp'"),
        ('path = "data.npz"\nlimit = 0', "limit=0"),
        ('path = "data.npz"\nscal = 1', "'scal'"),
    ],
)
def test_a_broken_dataset_file_is_one_sentence(host, data, tmp_path, content, words):
    file = tmp_path / "set.toml"
    file.write_text(content)
    with pytest.raises(InputError) as caught:
        load_dataset(str(file), host)
    assert words in caught.value.message


def test_what_is_no_dataset_is_refused_with_the_formats_there_are(host, tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("hello")
    with pytest.raises(InputError) as caught:
        load_dataset(str(file), host)
    assert "npz" in caught.value.remedy
    with pytest.raises(InputError, match="does not exist"):
        load_dataset(str(tmp_path / "gone"), host)


def test_label_offset_shifts_class_numbers(host, data):
    assert load_dataset(str(data), host, {"label_offset": "1"}).labels.tolist() == [1, 2, 3, 4, 5, 6]


# --- metrics ----------------------------------------------------------------------------------------------------------


def test_metrics_by_name(host):
    assert load_metric("top5", host).name == "top5"
    with pytest.raises(InputError) as caught:
        load_metric("top-1", host)
    assert "Did you mean top1" in caught.value.remedy


OUTPUTS = {"out": np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]])}
LABELS = np.array([1, 0, 0])


def test_a_function_of_ones_own_may_judge_each_sample(host, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def agree(outputs, labels):\n    return outputs['out'].argmax(axis=1) == labels\n")
    metric = load_metric(f"{file}:agree", host)
    score = metric.score(OUTPUTS, LABELS)
    assert metric.name == "mine.py:agree"
    assert score.value == pytest.approx(2 / 3)
    assert score.ci95 is not None
    assert score.correct.tolist() == [True, True, False]


def test_a_function_of_ones_own_may_return_a_number_or_a_score(host, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from edgeprof.evaluation.metric import Score\n"
        "def number(outputs, labels):\n    return 0.25\n"
        "def whole(outputs, labels):\n    return Score(0.5, (0.4, 0.6), 3)\n"
    )
    assert load_metric(f"{file}:number", host).score(OUTPUTS, LABELS) == Score(0.25, None, 3)
    assert load_metric(f"{file}:whole", host).score(OUTPUTS, LABELS).ci95 == (0.4, 0.6)


@pytest.mark.parametrize(
    ("code", "function", "words"),
    [
        ("def f(o, l): return 'good'", "f", "returned str"),
        ("def f(o, l): return float('nan')", "f", "returned float"),
        ("def f(o, l): return o['nothing']", "f", "KeyError"),
        ("def f(o, l): return 1", "g", "no function g"),
        ("import", "f", "cannot be imported"),
    ],
)
def test_a_broken_function_is_one_sentence(host, tmp_path, code, function, words):
    file = tmp_path / "mine.py"
    file.write_text(code)
    with pytest.raises(InputError, match=words):
        load_metric(f"{file}:{function}", host).score(OUTPUTS, LABELS)


def test_a_missing_metric_file_is_said(host, tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        load_metric(f"{tmp_path}/gone.py:f", host)


def test_the_output_to_judge_is_named_behind_the_metric(host):
    assert load_metric("top1", host).output is None
    assert load_metric("top1:output=label", host).output == "label"
    with pytest.raises(InputError, match="names no output"):
        load_metric("top1:output=", host)
