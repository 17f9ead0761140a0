"""A package that edgeprof never heard of brings a runtime, a compressor, a sensor and a metric: no file of it changes.

Each is used where a built-in one is: in ``bench``, ``diagnose``, ``doctor``, the table and a machine's total.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.examples.counting import counting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PACKAGE_WATTS, NPU_WATTS = 5.0, 2.0

PLUGIN = '''
import numpy as np

from edgeprof import hookimpl
from edgeprof.compression.compressor import Compressor
from edgeprof.evaluation.metric import Metric, Score
from edgeprof.sensing.sensor import Channel, Sensor
from outsider_runtime import Gains


class Mute(Compressor):
    """Sets the smaller half of the gains to zero."""

    name = "mute"
    version = "1"
    takes = ("gains",)
    changes = ("sparsity",)

    def apply(self, source, target, parameters, data, *, seed=0):
        gains = np.array([float(word) for word in source.read_text().split()[1:]])
        gains[np.argsort(np.abs(gains))[: len(gains) // 2]] = 0
        target.write_text("gains " + " ".join(map(str, gains)))
        return {"muted": len(gains) // 2}


class Closeness(Metric):
    name = "closeness"
    title = "closeness to truth"

    def score(self, outputs, labels):
        (values,) = outputs.values()
        return Score(value=float(1 - np.abs(values.argmax(1) - labels).mean() / 4), ci95=None, samples=len(labels))


class Npu(Sensor):
    name = "npu"
    channels = (Channel("npu", "NPU", "power", scope="accelerator", additive=True, resolution=0.01),)

    def __init__(self, path):
        self.path = path

    def read(self, values, times):
        values[0] = float(self.path.read_text())


@hookimpl
def register_compressors(register):
    register("mute", Mute)


@hookimpl
def register_metrics(register):
    register("closeness", Closeness)


@hookimpl
def register_sensors(register):
    register("npu", lambda roots: [Npu(path) for path in (roots.sysfs / "class/npu").glob("*/power_w")])


@hookimpl
def register_runtimes(register):
    register("gains", Gains)
'''

RUNTIME = '''
from edgeprof.worker.graph import Graph, Layer
from edgeprof.worker.runtime import Availability, Runtime, Session, TensorSpec


def gains_of(path):
    import numpy as np

    with open(path) as file:
        return np.array([float(word) for word in file.read().split()[1:]], "float32")


class Gains(Runtime):
    """y = x times a gain for each of its numbers."""

    name = "gains"
    formats = ("gains",)
    own_formats = {"gains": (0, b"gains ")}
    libraries = ("json",)

    def availability(self):
        return Availability("1.0", None, None)

    def devices(self):
        return ["cpu"]

    def load(self, path, options):
        return Amplifier(gains_of(path))

    def inspect(self, path):
        gains = gains_of(path)
        layer = Layer("amplify", "Gain", 10**6, "float32", "float32", len(gains), lambda: gains.reshape(-1, 1))
        return Graph([layer], nodes=1, tensors=["amplified"])

    def taps(self, path, names, feeds):
        gains = gains_of(path)
        for feed in feeds:
            yield {name: next(iter(feed.values())) * gains for name in names if name == "amplified"}


class Amplifier(Session):
    def __init__(self, gains):
        self.gains = gains
        self.inputs = (TensorSpec("x", ("batch", len(gains)), "float32", None),)
        self.outputs = (TensorSpec("y", ("batch", len(gains)), "float32", None),)

    def run(self, feeds):
        return {"y": feeds["x"] * self.gains}
'''


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of installed packages with this one in it."""
    site = tmp_path_factory.mktemp("site")
    (site / "outsider.py").write_text(textwrap.dedent(PLUGIN), encoding="utf-8")
    (site / "outsider_runtime.py").write_text(textwrap.dedent(RUNTIME), encoding="utf-8")
    info = site / "outsider-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outsider\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[edgeprof]\noutsider = outsider\n", encoding="utf-8")
    (site / "model.gains").write_text("gains 4.0 -0.1 3.0 0.2", encoding="utf-8")
    draw = np.random.default_rng(0)
    np.savez(site / "data.npz", x=draw.standard_normal((60, 4)).astype("float32"), y=np.arange(60) % 4)
    return site


@pytest.fixture
def sysfs(tmp_path: Path) -> Iterator[Path]:
    """A PC's /sys: a processor package that counts five joules a second, and an NPU of two watts."""
    package, npu = tmp_path / "class/powercap/intel-rapl:0", tmp_path / "class/npu/npu0"
    for folder in (package, npu):
        folder.mkdir(parents=True)
    (package / "name").write_text("package-0\n", encoding="utf-8")
    (package / "max_energy_range_uj").write_text("262143328850\n", encoding="utf-8")
    (npu / "power_w").write_text(f"{NPU_WATTS}\n", encoding="utf-8")
    with counting(package / "energy_uj", PACKAGE_WATTS, every_s=0.002):
        yield tmp_path


@pytest.fixture
def edgeprof(site: Path, tmp_path: Path) -> Callable[..., str]:
    def call(*words: str, **environment: str) -> str:
        environ = {
            **os.environ,
            **environment,
            "PYTHONPATH": os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])]),
            "EDGEPROF_DATA_DIR": str(tmp_path / "data"),
        }
        command = [sys.executable, "-m", "edgeprof", *words]
        done = subprocess.run(command, cwd=site, env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return call


BENCH = (
    "bench", "model.gains", "--with", "mute", "--dataset", "data.npz", "--metric", "closeness", "-q", "--windows", "3",
    "--window", "0.6", "--idle", "0.2", "--warmup", "0.1", "--scenario", "periodic", "--rate", "50",
)  # fmt: skip


def test_bench_measures_them_with_the_sensor_in_the_total_and_the_metric_in_the_table(
    edgeprof: Callable[..., str], sysfs: Path
) -> None:
    table = edgeprof(*BENCH, "--sysfs-root", str(sysfs), "-o", str(sysfs / "result.json"))
    assert "closeness to truth" in table
    assert "package-0 + NPU" in table
    result = json.loads((sysfs / "result.json").read_text("utf-8"))
    baseline, muted = result["variants"]
    energy = baseline["energy_j_per_inference"]
    assert {part.strip() for part in energy["rail"].split("+")} == {"package-0", "NPU"}
    watts = energy["gross"]["value"] * baseline["throughput_per_s"]
    assert watts == pytest.approx(PACKAGE_WATTS + NPU_WATTS, rel=0.05)
    assert (muted["name"], muted["runtime"]["name"]) == ("mute", "gains")
    assert muted["recipe"][0]["facts"]["changes"] == ["sparsity"]
    assert muted["accuracy"]["title"] == "closeness to truth"
    assert result["recommendation"]["variant"] in {"baseline", "mute"}


def test_diagnose_reasons_about_them(edgeprof: Callable[..., str]) -> None:
    text = edgeprof("diagnose", "model.gains", "--with", "mute", "--dataset", "data.npz", "--json", "-q")
    diagnosis = json.loads(text)
    findings = {finding["check"]: finding for finding in diagnosis["findings"]}
    assert findings["sparsity"]["number"] == pytest.approx(0.5)
    assert "amplified" in diagnosis["facts"]["sqnr_db"]
    assert diagnosis["facts"]["macs"] == 10**6


def test_doctor_shows_them(edgeprof: Callable[..., str], sysfs: Path) -> None:
    beside = "outsider,rapl,onnxruntime"  # doctor runs a model on every runtime
    text = edgeprof("doctor", "--sysfs-root", str(sysfs), "--json", EDGEPROF_PLUGINS=beside)
    checks = {check["name"]: check for check in json.loads(text)["checks"]}
    assert checks["runtime gains"]["status"] == "ok"
    assert checks["sensor npu"]["detail"] == "NPU"
    assert "NPU" in checks["joules"]["detail"]
    assert any("json" in check["detail"] for name, check in checks.items() if name.startswith("/usr/"))
