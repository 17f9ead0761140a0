"""The stand-ins against the real bindings: what the runtime uses is there, under that name, with those arguments.

The bindings come from the package index without their libraries, and are imported over empty libraries that only have
the right names and symbols: enough for pybind's signatures, and for nothing else. Fetch them with
``tests/plugins/runtimes/nvidia/bindings.sh DIR``, and name the folder in EDGEPROF_TENSORRT_BINDINGS.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

#: Generation of the stand-in → folder of the bindings. Those of 8.6 still have all that 8.2 has.
BINDINGS = {"8.2": "8.6.1", "8.6": "8.6.1", "10": "10.3.0", "11": "11.4.0.106"}
LATER = ("10.16.1.11",)
#: The base of what TensorRT calls back; bindings do not list their methods.
CALLED_BACK = {"IOutputAllocator"}

_DESCRIBE = r"""
import json, os, sys
import tensorrt_bindings as trt
found = {}
for name in dir(trt):
    kind = getattr(trt, name)
    if not isinstance(kind, type):
        continue
    names = {}
    for base in reversed(kind.__mro__):
        for key, value in vars(base).items():
            if not key.startswith("_"):
                names[key] = getattr(value, "__doc__", None) or ""
    found[name] = names
for name in ("ILogger", "Logger"):
    found[name] = dict(found[name], Severity="")
found["enums"] = {n: list(getattr(trt, n).__members__) for n in dir(trt) if hasattr(getattr(trt, n), "__members__")}
found["functions"] = [n for n in dir(trt) if callable(getattr(trt, n))]
sys.stdout.write(json.dumps(found)); sys.stdout.flush()
os._exit(0)  # their destructors call what the empty libraries have not
"""


@pytest.fixture(scope="module")
def bindings() -> Path:
    folder = os.environ.get("EDGEPROF_TENSORRT_BINDINGS")
    if not folder:
        pytest.skip("EDGEPROF_TENSORRT_BINDINGS names no folder of TensorRT's bindings (tests/.../bindings.sh DIR)")
    return Path(folder)


def describe(folder: Path) -> dict:
    """Class → attribute → docstring, of real bindings over empty libraries."""
    module = next(folder.glob("tensorrt_bindings/tensorrt*.so"), None)
    if module is None:
        pytest.skip(f"{folder} holds no bindings for this Python")
    libraries = folder / "libraries"
    libraries.mkdir(exist_ok=True)
    dynamic = subprocess.run(["readelf", "-Wd", str(module)], capture_output=True, text=True, check=True).stdout
    symbols = subprocess.run(["nm", "-D", "--undefined-only", str(module)], capture_output=True, text=True, check=True)
    wanted = re.findall(
        r"U (\w*(?:_INTERNAL|PluginRegistry|NvOnnx|initLibNv|nvuffparser|nvcaffeparser)\w*)", symbols.stdout
    )
    source = libraries / "empty.c"
    source.write_text("".join(f"void {symbol}(void){{}}\n" for symbol in sorted(set(wanted))))
    for name in re.findall(r"\[(libnv[\w.]+)\]", dynamic):
        command = ["cc", "-shared", "-fPIC", "-w", f"-Wl,-soname,{name}", "-o", str(libraries / name), str(source)]
        subprocess.run(command, check=True)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _DESCRIBE],
        env={**os.environ, "LD_LIBRARY_PATH": str(libraries), "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict = json.loads(done.stdout)
    return found


def parameters(doc: str, name: str) -> list[list[str]]:
    """The names of the arguments of each of pybind's overloads, without self; [] for a property."""
    found = []
    for line in re.findall(rf"^\s*(?:\d+\. )?{name}\((.*)\) -> ", doc, re.MULTILINE):
        if line.startswith("*args"):
            continue
        found.append(re.findall(r"(?:^|, )(\w+):", line)[1:])
    return found


@pytest.mark.parametrize("generation", list(BINDINGS))
def test_the_stand_in_offers_nothing_that_the_bindings_do_not(bindings, standin_classes, cuda_libraries, generation):
    for tool in ("cc", "nm", "readelf"):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool}")
    real = describe(bindings / BINDINGS[generation])
    offered = standin_classes(generation, cuda_libraries)
    for enum, members in offered.pop("enums").items():
        assert set(members) - {"NONE"} <= set(real["enums"][enum]), enum
    compared = 0
    for kind, names in offered.items():
        assert kind in real, f"{kind} is no class of the bindings {BINDINGS[generation]}"
        for name, arguments in names.items():
            if kind in CALLED_BACK:
                continue
            assert name in real[kind] or name == "version", f"{kind}.{name} of {BINDINGS[generation]}"
            overloads = parameters(real[kind].get(name, ""), name)
            if arguments is None or not overloads:
                continue
            compared += 1
            fits = [o for o in overloads if o[: len(arguments)] == arguments or arguments[: len(o)] == o]
            assert fits, f"{kind}.{name}({', '.join(arguments)}) is {overloads} in {BINDINGS[generation]}"
    assert compared > 20


@pytest.mark.parametrize("generation", ["10", *LATER])
def test_what_was_taken_away_is_not_there(bindings, generation):
    """Numbered bindings ended with 10: the runtime must not meet both languages there."""
    real = describe(bindings / BINDINGS.get(generation, generation))
    assert "num_bindings" not in real["ICudaEngine"]
    assert "execute_async_v2" not in real["IExecutionContext"]
    assert "execute_async_v3" in real["IExecutionContext"]


def test_attributes_that_the_stand_in_sets_on_instances_exist(bindings):
    """Properties, which the classes of the stand-in set in their constructors."""
    wanted = {
        "8.6.1": {
            "ICudaEngine": "num_bindings num_optimization_profiles max_batch_size has_implicit_batch_dimension"
            " num_io_tensors num_layers",
            "IBuilderConfig": "max_workspace_size int8_calibrator default_device_type DLA_core",
        },
        "10.3.0": {
            "ICudaEngine": "num_io_tensors num_optimization_profiles num_layers",
            "IBuilderConfig": "int8_calibrator default_device_type DLA_core",
            "Runtime": "engine_host_code_allowed DLA_core num_DLA_cores",
        },
        "11.4.0.106": {
            "ICudaEngine": "num_io_tensors num_optimization_profiles num_layers",
            "IBuilderConfig": "default_device_type DLA_core",
        },
    }
    for version, classes in wanted.items():
        real = describe(bindings / version)
        assert "init_libnvinfer_plugins" in real["functions"]
        for kind, names in {
            **classes,
            "IExecutionContext": "profiler",
            "Builder": "num_DLA_cores",
            "OnnxParser": "num_errors",
            "INetworkDefinition": "num_inputs get_input",
            "ITensor": "name shape dtype is_shape_tensor",
        }.items():
            for name in names.split():
                assert name in real[kind], f"{kind}.{name} of {version}"
