"""Studies of pipelines: the models of stages are varied, and budgets apply to whole frames of known joules."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprof.artifact import recognise
from edgeprof.benchmark.request import BenchRequest
from edgeprof.cli.sweep import command as verb
from edgeprof.errors import InputError
from edgeprof.plugins import PluginHost
from edgeprof.reporters import html_page
from edgeprof.reporters.stages_text import amount_text, stage_lines
from edgeprof.results import document
from edgeprof.roots import Roots
from edgeprof.study import conductor
from edgeprof.study.recipe import load
from edgeprof.verdicts.savings import savings
from edgeprof.worker.pipeline import join_models, split_models
from tests.profiler.benchmark import virtual_device
from tests.profiler.benchmark.virtual_device import VirtualDevice
from tests.profiler.watching import Watcher

if TYPE_CHECKING:
    from collections.abc import Iterator

onnx = pytest.importorskip("onnx")

APP = Path(__file__).parent / "detector_app.py"
#: Joules of the baseline's frame: 4 ms at 5 W, and 20 ms at 8 W.
FRAME_J, DETECT_J = 0.004 * 5 + 0.020 * 8, 0.020 * 8
STUDY = f"""
model = "{APP}:pipeline"
dataset = "frames.npz"
[stages.detect]
model = "detector.onnx"
[protocol]
windows = 3
window = 8
warmup = 0.5
idle = 1
"""


def write_model(path: Path, weights: np.ndarray) -> None:
    """A model of one matrix product, 64 × 10."""
    helper = onnx.helper
    kind = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["frame", "weights"], ["scores"])],
        "detector",
        [helper.make_tensor_value_info("frame", kind, ["batch", 64])],
        [helper.make_tensor_value_info("scores", kind, ["batch", 10])],
        [onnx.numpy_helper.from_array(weights.astype(np.float32), "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector, a worse one of the same size, and frames with labels."""
    folder = tmp_path_factory.mktemp("study")
    draw = np.random.default_rng(1)
    weights = draw.standard_normal((64, 10))
    write_model(folder / "detector.onnx", weights)
    write_model(folder / "worse.onnx", draw.standard_normal((64, 10)))
    frames = draw.standard_normal((200, 64)).astype(np.float32)
    np.savez(folder / "frames.npz", x=frames, y=(frames @ weights).argmax(axis=1))
    return folder


@pytest.fixture(scope="module")
def sweep(folder: Path) -> Iterator[functools.partial[int]]:
    """Run a study in virtual time; returns the exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEPROF_DATA_DIR", str(folder / "data"))
        roots = virtual_device.use(VirtualDevice(2.0), patch, folder)
        patch.setenv("EDGEPROF_SYSFS_ROOT", str(roots.sysfs))
        patch.setattr(conductor, "BenchRequest", functools.partial(BenchRequest, isolated=False))
        yield verb.main


def run(sweep, study: Path, *flags: str) -> int:
    with pytest.raises(SystemExit) as ended:
        sweep([str(study), "-q", *flags])
    return ended.value.code


@pytest.fixture(scope="module")
def study(folder: Path, sweep) -> Path:
    path = folder / "study.toml"
    path.write_text(
        STUDY
        + '[recipes]\nexplicit = ["detect=fp16", "detect=worse.onnx"]\n'
        + '[budgets]\nmax_accuracy_drop = "5%"\nmax_latency_p99 = "20 ms"\nmin_fps = 50\nmax_energy = "150 mJ"\n'
    )
    assert run(sweep, path) == 0
    return path


@pytest.fixture(scope="module")
def outcome(study: Path) -> dict:
    return json.loads((study.with_suffix(".study") / "study.json").read_text())


def test_the_variant_that_keeps_the_budgets_of_the_frame_is_recommended(outcome):
    assert outcome["recommendation"]["variant"] == "detect=fp16"
    broken = {(check["variant"], check["quantity"]) for check in outcome["checks"] if not check["passed"]}
    slow = {"p99 latency", "frame rate", "energy"}
    assert broken == {
        *(("baseline", quantity) for quantity in slow),
        *(("detect=worse.onnx", quantity) for quantity in {*slow, "accuracy drop"}),
    }


def test_each_variant_has_the_joules_of_its_own_models(outcome):
    result = document.from_json(json.dumps(outcome["result"]))
    assert [variant.name for variant in result.variants] == ["baseline", "detect=fp16", "detect=worse.onnx"]
    for variant, detect_j in zip(result.variants, (DETECT_J, DETECT_J / 2, DETECT_J), strict=True):
        assert variant.energy_j_per_inference.gross.value == pytest.approx(FRAME_J - DETECT_J + detect_j, rel=0.02)
        assert variant.stages[1].energy_j_per_call.gross.value == pytest.approx(detect_j, rel=0.02)
    baseline, half, worse = (variant.accuracy.value for variant in result.variants)
    assert baseline == 1.0
    assert half > 0.97
    assert worse < 0.5


def test_the_report_says_what_a_frame_saves_with_each_variant(study):
    result = document.load(study.with_suffix(".study") / "result.json")
    page = html_page.render([result])
    assert "what a frame saves with each variant" in page
    saved, nothing = savings([result])
    assert saved.frame.value == pytest.approx(DETECT_J / 2, rel=0.02)
    assert saved.frame.low < saved.frame.value < saved.frame.high
    assert saved.stages["detect"].value == pytest.approx(DETECT_J / 2, rel=0.02)
    assert not saved.stages["resize"].is_certain
    assert not nothing.frame.is_certain
    assert f"detect=fp16: {amount_text(saved.frame)}, 44 %" in page
    (line,) = [line for line in stage_lines(result) if line.startswith("detect=worse.onnx saves")]
    assert line.endswith("it may be nothing.")


def test_a_study_that_is_run_again_measures_nothing_until_something_changes(study, sweep, folder, capfd):
    def notes() -> list[str]:
        capfd.readouterr()
        with pytest.raises(SystemExit):
            sweep([str(study)])
        return [
            line for line in capfd.readouterr().err.splitlines() if line.endswith((": measuring", ": already measured"))
        ]

    assert notes() == ["detect=fp16: already measured", "detect=worse.onnx: already measured"]
    draw = np.random.default_rng(7)
    write_model(folder / "worse.onnx", draw.standard_normal((64, 10)))
    assert notes()[-1] == "detect=worse.onnx: measuring"


def test_a_plan_shows_the_variants_and_runs_nothing(folder, sweep, capsys):
    path = folder / "plan.toml"
    path.write_text(STUDY + '[[recipes.grid]]\nwith = "detect={how}"\nhow = ["fp16", "worse.onnx"]\n')
    assert run(sweep, path, "--plan") == 0
    assert capsys.readouterr().out.splitlines() == ["detect=fp16", "detect=worse.onnx"]
    assert not path.with_suffix(".study").exists()


def test_a_search_varies_the_model_of_a_stage_and_goes_on_where_it_ended(folder, sweep):
    pytest.importorskip("optuna")
    path = folder / "search.toml"
    search = '[search]\nwith = "detect=prune:amount={amount}+fp16"\namount = { from = 0.1, to = 0.9 }\ntrials = 2\n'
    path.write_text(STUDY + '[[recipes.grid]]\nwith = "detect={how}"\nhow = ["fp16"]\n' + search)
    assert run(sweep, path) == 0
    result = document.load(path.with_suffix(".study") / "result.json")
    baseline, grid, *tried = result.variants
    assert grid.name == "detect=fp16"
    assert len({variant.name for variant in tried}) == 2
    for variant in tried:
        assert re.fullmatch(r"detect=prune\(amount=0\.\d+\)\+fp16", variant.name)
        assert variant.accuracy.value < baseline.accuracy.value
        assert variant.energy_j_per_inference.gross.value == pytest.approx(FRAME_J - DETECT_J / 2, rel=0.02)
        assert variant.model.size_compressed_bytes < baseline.model.size_compressed_bytes
    assert run(sweep, path) == 0
    assert document.load(path.with_suffix(".study") / "result.json").variants == result.variants


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (STUDY + '[recipes]\nexplicit = ["detct=fp16"]', "no stage with a model is named 'detct'"),
        (STUDY + '[recipes]\nexplicit = ["fp16"]', "does not name the stage that it changes"),
        (STUDY + '[recipes]\nexplicit = ["detect=fp16 detect=fp16"]', "names the stage detect twice"),
        (STUDY + '[recipes]\nexplicit = ["detect=smaller.onnx"]', "there is no model smaller.onnx"),
        (STUDY + '[recipes]\nexplicit = ["detect=fp61"]', "no compressor is named 'fp61'"),
        (STUDY + '[stages.resize]\n[recipes]\nexplicit = ["detect=fp16"]', "the stage resize has no model"),
        (
            STUDY + '[stages.resize]\nmodel = "detector.onnx"\n[recipes]\nexplicit = ["resize=fp16"]',
            r"takes no model for a stage 'resize' \(parameters: detect\)",
        ),
        (STUDY + 'scenario = "periodic"\nrate = 15\n[recipes]\nexplicit = ["detect=fp16"]\n[budgets]\nmin_fps = 30',
         "no variant can process 30 frames a second"),
        (STUDY + '[recipes]\nexplicit = ["detect=fp16"]\n[budgets]\nmax_energy = "0 J"', "no model can keep max_"),
        ('train = "x.npz"\n' + STUDY + '[recipes]\nexplicit = ["detect=fp16"]', "train belongs to the stage"),
        (STUDY.replace("detector.onnx", "lost.onnx") + '[recipes]\nexplicit = ["detect=fp16"]', "does not exist"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence_before_anything_runs(folder, text, says):
    path = folder / "wrong.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=says):
        conductor.prepare(
            load(path), folder / "wrong", PluginHost.from_environment(), Roots.resolve(), progress=Watcher()
        )
    assert not (folder / "wrong").exists()


names = st.sampled_from(["detect", "embed", "größe", "a_1"])
paths = st.text("ab ,./-1", min_size=1, max_size=8)


@given(st.dictionaries(names, paths, min_size=1, max_size=4))
def test_the_models_of_a_pipeline_are_found_again_in_its_name(models):
    assert split_models(join_models("some,dir/app.py:pipeline", models)) == ("some,dir/app.py:pipeline", models)


def test_a_pipeline_with_other_models_is_another_model(folder):
    first, second = (recognise(f"{APP}:pipeline,detect={folder / name}") for name in ("detector.onnx", "worse.onnx"))
    assert first.sha256 != second.sha256
    assert {APP, folder / "detector.onnx"} < set(first.files)  # and the module beside it that it imports
    assert first.size_bytes == sum(file.stat().st_size for file in first.files)
    assert first.name == "detector_app.py:pipeline,detect=detector.onnx"
