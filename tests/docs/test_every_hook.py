"""The examples of docs/plugins.md, each loaded by itself as a plugin and used."""

from __future__ import annotations

import inspect
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgeprof import hookspecs
from edgeprof.artifact import recognise
from edgeprof.diagnosis.graph import inspect_with
from edgeprof.launch.choose import own_formats
from edgeprof.plugins import KINDS, PluginHost, PluginInfo
from edgeprof.roots import Roots
from edgeprof.testing import check_sensor
from edgeprof.worker.runtime import LoadOptions
from tests.docs.tool import docs
from tests.profiler.results import samples

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def host() -> PluginHost:
    """A host whose plugins are the examples, one for each hook, each run from the text that the tutorial shows."""
    host = PluginHost(entry_points=[])
    for kind in KINDS.values():
        module = ModuleType(kind)
        exec(compile(docs.region("tests/docs/every_hook.py", kind), kind, "exec"), module.__dict__)
        host.register(module, PluginInfo(kind, "example", "1.0"))
    host.commands()
    assert [info.reason for info in host.failures] == []
    return host


def test_there_is_an_example_for_every_hook(host: PluginHost) -> None:
    hooks = [name for name, function in vars(hookspecs).items() if hasattr(function, "edgeprof_spec")]
    assert sorted(hooks) == sorted(KINDS)
    assert {info.name: [kind for kind, names in info.registers.items() if names] for info in host.plugins} == {
        kind: [kind] for kind in KINDS.values()
    }


def test_the_example_hooks_have_the_arguments_of_the_specifications() -> None:
    from tests.docs import every_hook

    for hook in KINDS:
        wanted = list(inspect.signature(getattr(hookspecs, hook)).parameters)
        assert list(inspect.signature(getattr(every_hook, hook)).parameters) == wanted


def test_the_example_sensor_reads_watts(host: PluginHost, tmp_path: Path) -> None:
    path = tmp_path / "class/power_supply/BAT0/power_now"
    path.parent.mkdir(parents=True)
    path.write_text("7350000\n", encoding="utf-8")
    (sensor,) = host.get("sensors", "battery")(Roots(sysfs=tmp_path))
    check_sensor(sensor)
    assert sensor.read_once() == {"BAT0/power": pytest.approx(7.35)}


def test_the_example_runtime_and_compressor_work_on_one_file(host: PluginHost, tmp_path: Path) -> None:
    model, smaller = tmp_path / "a.scale", tmp_path / "b.scale"
    model.write_text("scale 2.26\n", encoding="utf-8")
    told = host.get("compressors", "round")().apply(model, smaller, {"digits": 1}, None)
    assert told == {"was": 2.26}
    session = host.get("runtimes", "scale")().load(str(smaller), LoadOptions("cpu", None, 1, {}, {}))
    assert session.run({"x": np.float32([[10]])})["y"] == pytest.approx(23)


def test_the_example_runtime_tells_what_a_model_computes(host: PluginHost, tmp_path: Path) -> None:
    """Sizes that the file leaves open come as shapes (--input), or as arrays (--input-data, --dataset)."""
    (tmp_path / "a.scale").write_text("scale 2.26\n", encoding="utf-8")
    artifact = recognise(str(tmp_path / "a.scale"), own_formats(host))
    for inputs in ({"x": (1, 12)}, {"x": np.zeros((1, 12), "f")}, {"": np.zeros((1, 12), "f")}):
        _, graph = inspect_with(artifact, host, inputs)
        assert graph is not None
        assert graph.macs == 12
    _, graph = inspect_with(artifact, host)
    assert graph is not None
    assert [layer.name for layer in graph.unsized] == ["scale"]
    assert "--input" in graph.note


def test_the_example_dataset_and_metric_judge_each_other(host: PluginHost, tmp_path: Path) -> None:
    from edgeprof.evaluation.load import load_dataset, load_metric

    (tmp_path / "five.lines").write_text("0\n1\n2\n3\n4\n", encoding="utf-8")
    dataset = load_dataset(str(tmp_path / "five.lines"), host)
    outputs = {"y": np.concatenate([batch[""] for batch in dataset.batches(2)])}
    score = load_metric("closeness", host).score(outputs, dataset.labels)
    assert (score.value, score.samples) == (1.0, 5)


def test_the_example_reporter_and_exporter_take_results(host: PluginHost, tmp_path: Path) -> None:
    result = samples.one()
    assert host.get("reporters", ".yaml")(result).startswith(f"id: {result.id}\n")
    host.get("exporters", "folder")([result], tmp_path)
    assert (tmp_path / f"{result.id}.txt").read_text("utf-8") == f"{len(result.variants)} variants\n"


def test_the_example_search_asks_for_both_ends_and_goes_on(host: PluginHost, tmp_path: Path) -> None:
    from edgeprof.study.recipe import Search
    from edgeprof.study.search import chains, search

    space = Search("prune:amount={a}", {"a": ["0.1", "0.5", "0.9"]}, 2)
    asked: list[str] = []
    for _ in range(2):
        search(space, tmp_path / "search.db", 0, asked.append, host)
    assert asked == list(chains(tmp_path / "search.db", host)) == ["prune:amount=0.1", "prune:amount=0.9"]


def test_the_example_command_is_a_verb(host: PluginHost) -> None:
    from click.testing import CliRunner

    assert CliRunner().invoke(host.of("commands")["greet"], ["Ada"]).output == "hello, Ada\n"
