"""benchmarks/gpu.py on a machine without a GPU: its arithmetic on a driver that keeps its own time, its record on
stand-ins, its refusal.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

from edgeprof.results import schema
from edgeprof.worker.runtime import LoadError
from edgeprof_plugins.sensors import nvml

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
STANDIN = Path(__file__).parents[1] / "plugins/runtimes/nvidia/standins/cuda.c"
REFRESH_S = 0.1


@pytest.fixture(scope="module")
def gpu() -> Any:
    before = list(sys.path)
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield importlib.import_module("gpu")
    finally:
        sys.path[:] = before
        for name in ("gpu", "gpu_models", "paired"):
            sys.modules.pop(name, None)


class Driver:
    """A GPU that draws 100 W and, in pulses of 0.7 of every 1.1 s, 300 W; its counter and its power (a reading of the
    moment) are looked at ten times a second. ``gain`` is an error of the power.
    """

    def __init__(self, gain: float = 1.0) -> None:
        self.now, self.gain = 0.0, gain

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def joules(self, until: float) -> float:
        whole, rest = divmod(until, 1.1)
        return 100 * until + 200 * (0.7 * whole + min(rest, 0.7))

    def __getattr__(self, name: str) -> Any:
        looked = math.floor(self.now / REFRESH_S + 1e-9) * REFRESH_S
        noise = 1e-3 * round(looked / REFRESH_S)  # no two readings are the same, as of a real sensor
        watts = self.gain * (300.0 if looked % 1.1 < 0.7 else 100.0) + noise
        answers = {
            "nvmlDeviceGetName": lambda _: "NVIDIA Test",
            "nvmlDeviceGetEnforcedPowerLimit": lambda _: 700_000,
            "nvmlDeviceGetTotalEnergyConsumption": lambda _: round(self.joules(looked) * 1e3),
            "nvmlDeviceGetFieldValues": lambda _, __: [
                SimpleNamespace(nvmlReturn=0, value=SimpleNamespace(uiVal=round(watts * 1e3)))
            ],
        }
        if name not in answers:
            raise AttributeError(name)
        return answers[name]


def polled(gpu: Any, driver: Driver, rate: float, seconds: float) -> Any:
    sensor = nvml.gpu(driver, object(), "gpu0")
    found = gpu.poll(sensor, rate, seconds, driver.clock, driver.sleep)
    for name in found.times:  # the sensor stamps with the machine's clock; the driver's own is meant
        found.times[name][:] = np.arange(len(found.times[name])) / rate
    return found


def test_the_refresh_is_found_by_polling(gpu):
    found = polled(gpu, Driver(), 1000.0, 3.0)
    for name in ("energy", "power"):
        interval = gpu.refresh_interval(found.times[name], found.values[name])
        assert interval["median_s"] == pytest.approx(REFRESH_S, abs=2e-3)
        assert interval["changes"] >= 28


def test_a_value_that_hardly_changes_has_no_refresh(gpu):
    found = gpu.refresh_interval(np.arange(100) / 100, np.r_[np.zeros(50), np.ones(50)])
    assert found == {"median_s": None, "p95_s": None, "changes": 1}


@pytest.mark.parametrize("gain", [1.0, 1.05])
@pytest.mark.parametrize("rate", [20.0, 500.0])
def test_integrated_power_stands_to_the_counter_as_the_sensors_gain(gpu, rate, gain):
    found = polled(gpu, Driver(gain), rate, 22.0)
    both = gpu.power_over_counter(found, 0.0, 21.9)
    assert both["counter_j"] == pytest.approx(Driver().joules(21.9), rel=0.01)
    assert both["ratio"] == pytest.approx(gain, rel=0.015)


def test_without_a_counter_there_is_no_ratio(gpu):
    found = polled(gpu, Driver(), 20.0, 2.0)
    del found.channels["energy"]
    both = gpu.power_over_counter(found, 0.0, 1.9)
    assert both["power_j"] > 0
    assert (both["counter_j"], both["ratio"]) == (None, None)


def test_one_parts_trouble_is_told_and_not_the_others(gpu):
    def lacking() -> dict[str, Any]:
        raise gpu.LackingError("torch is not installed")

    def broken() -> dict[str, Any]:
        raise KeyError("latency_s")

    assert gpu.attempt(lacking) == {"skipped": "torch is not installed"}
    assert gpu.attempt(broken) == {"skipped": "KeyError: 'latency_s'"}


def test_without_a_gpu_one_sentence_and_exit_2(gpu, monkeypatch, capsys, tmp_path):
    def none() -> Any:
        raise LoadError("there is no NVIDIA driver: libcuda.so.1 cannot be loaded", "Install NVIDIA's driver.")

    monkeypatch.setattr(gpu, "ask_driver", none)
    assert gpu.main(["--output", str(tmp_path / "records")]) == 2
    said = capsys.readouterr()
    assert said.err == "gpu.py: there is no NVIDIA driver: libcuda.so.1 cannot be loaded. Install NVIDIA's driver.\n"
    assert not (tmp_path / "records").exists()


def test_the_record_is_written_with_the_command_that_made_it(tmp_path):
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler to build the stand-in for CUDA with")
    library = tmp_path / "libcudart.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-w", "-o", library, STANDIN], check=True)
    shutil.copy(library, tmp_path / "libcuda.so.1")
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "gpu.py", "--smoke", "--only", "cuda", "--output", tmp_path / "records"],
        env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "records" / "stand-in-gpu.json").read_text())
    assert record["command"].startswith("python benchmarks/gpu.py --smoke --only cuda")
    ours = record["parts"]["cuda"]["ctypes"]
    assert ours["data_came_back"]
    assert ours["h2d_bytes_per_s"] > 0
    assert record["parts"]["refresh"] == {"skipped": "not asked for"}
    assert (tmp_path / "records" / "stand-in-gpu.md").read_text() == done.stdout[:-1]


def test_a_results_figures_are_found_in_it(gpu):
    figure = schema.EnergyFigure(value=0.5, expanded_uncertainty=None, ci95=None)
    energy = schema.Energy(provenance="counter", rail="GPU", covers="gpu", gross=figure, net=figure)
    variant = {
        "runtime": {"name": "pytorch"},
        "latency_s": {"p50": 2e-3},
        "gpu": msgspec.to_builtins(schema.Gpu(compute_s=1e-3)),
        "energy_j_per_inference": msgspec.to_builtins(energy),
        "reasons": [msgspec.to_builtins(schema.Reason(code="launch_bound", message="launch-bound: …"))],
    }
    found = gpu.summary(variant)
    assert (found["energy_j"], found["energy_provenance"]) == (0.5, "counter")
    assert found["gpu"]["compute_s"] == 1e-3
    assert found["remarks"] == ["launch-bound: …"]
    assert gpu.summary({**variant, "energy_j_per_inference": None})["energy_j"] is None


def test_a_whole_record_is_a_page(gpu):
    """Every column of a run with all parts, of which one bench was left out."""
    bench = {
        "latency_p50_s": 2e-3,
        "energy_j": 0.5,
        "energy_provenance": "counter",
        "gpu": {"wall_s": 2e-3, "compute_s": 1e-3, "h2d_s": 1e-4, "d2h_s": None, "enqueue_s": 1e-4, "queue": "empty"},
    }
    parts = {
        "cuda": {
            "ctypes": {"data_came_back": True, "h2d_bytes_per_s": 5e10, "d2h_bytes_per_s": 4e10, "graph_ran": True}
        },
        "refresh": {"energy": {"median_s": 0.1, "p95_s": 0.11, "changes": 40}},
        "counter": {"20 Hz": {"power_j": 100.0, "counter_j": 101.0, "ratio": 100 / 101}},
        "overhead": {
            "p50_ratio": {"null control": [1.0], "100 Hz": [1.01]},
            "memory": {"process_bytes_by_nvml": None, "peak_bytes_by_pytorch": 1e6},
        },
        "benches": {"PyTorch": bench, "TensorRT": {"skipped": "TensorRT is not installed"}},
    }
    about = {"cpus": 1, "arch": "x86_64", "kernel": "6", "python": "3.11", "load_before": 0.0}
    text = gpu.report(
        {"gpu": "GPU", "command": "python benchmarks/gpu.py", "machine": about, "with": "", "parts": parts}
    )
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    assert [
        "PyTorch",
        "2.000 ms",
        "2.000 ms",
        "1.000 ms",
        "0.100 ms",
        "–",
        "0.100 ms",
        "empty",
        "500 mJ (counter)",
    ] in rows
    assert next(row for row in rows if row[0] == "TensorRT")[:2] == ["TensorRT", "not run: TensorRT is not installed"]
    assert ["20 Hz", "100.0 J", "101.0 J", "0.9901"] in rows
    assert "Memory of the process: – by NVML, 1000000 bytes by PyTorch." in text
