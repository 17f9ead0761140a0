"""The commands for plugins: the list, the check, and a scaffold that really works."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from edgeprof import hookimpl
from edgeprof.cli.main import run
from edgeprof.cli.scaffold import DEPENDENCIES
from edgeprof.cli.verbs import RESERVED
from edgeprof.plugins import KINDS, PluginHost, PluginInfo
from edgeprof.sensing.sensor import Channel, Sensor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgeprof.roots import Roots

KIND_OF = {kind: f"{kind}s" for kind in DEPENDENCIES}


def test_list_json_is_what_the_contract_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plugins", "list", "--json"]) == 0
    (plugins,) = json.loads(capsys.readouterr().out).values()
    assert {"onnxruntime", "rapl"} <= {plugin["name"] for plugin in plugins}
    for plugin in plugins:
        assert set(plugin) == {"name", "distribution", "version", "registers", "status", "reason"}
        assert set(plugin["registers"]) == set(KINDS.values())
        assert plugin["status"] in {"loaded", "failed", "skipped"}
        assert (plugin["reason"] is None) == (plugin["status"] == "loaded")


@pytest.mark.parametrize("argv", [["plugins"], ["plugins", "list"]])
def test_list_names_what_each_plugin_brings(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(argv) == 0
    assert "runtimes: onnxruntime" in capsys.readouterr().out


def test_skipped_plugins_say_why(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPROF_PLUGINS", "rapl")
    assert run(["plugins", "list"]) == 0
    assert "not named in EDGEPROF_PLUGINS" in capsys.readouterr().out


def test_checking_a_plugin_that_is_not_there_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plugins", "check", "onnxruntine"]) == 2
    assert "Did you mean onnxruntime?" in capsys.readouterr().err


def test_a_runtime_of_ours_conforms_on_a_real_model(capsys: pytest.CaptureFixture[str]) -> None:
    model = Path(__file__).parents[3] / "examples/demo/digits.onnx"
    assert run(["plugins", "check", "onnxruntime", "--model", str(model), "--json"]) == 0
    checks = json.loads(capsys.readouterr().out)["checks"]
    assert [check["status"] for check in checks if str(model) in check["name"]] == ["ok"]


def test_a_model_that_the_runtime_does_not_take_is_a_failed_check(capsys: pytest.CaptureFixture[str]) -> None:
    model = Path(__file__).parents[3] / "examples/demo/digits.onnx"
    assert run(["plugins", "check", "python", "--model", str(model)]) == 1
    assert "it is onnx" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["Lamp", "la mp", "1lamp", "lamp_", "../lamp", ""])
def test_a_name_that_cannot_be_one_is_refused(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plugins", "new", name, str(tmp_path / "new")]) == 2
    assert "cannot be the name of a plugin" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_kind_is_not_taken_for_a_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plugins", "new", "runtime", str(tmp_path / "my-rt")]) == 2
    assert f"edgeprof plugins new my-rt {tmp_path}/my-rt --kind runtime" in capsys.readouterr().err
    assert not (tmp_path / "my-rt").exists()


def test_a_folder_in_use_is_not_written_into(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    assert run(["plugins", "new", "lamp", str(tmp_path)]) == 2
    assert "not an empty folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Run a module of Python, or ``code``, in the folder of a kind's scaffold, where one of each kind is installed."""
    place = tmp_path_factory.mktemp("scaffolds")
    sources = [str(place / kind) for kind in KIND_OF]
    for kind, source in zip(KIND_OF, sources, strict=True):
        assert run(["plugins", "new", f"night-{kind}", source, "--kind", kind]) == 0
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*install, "--target", str(place / "site"), *sources], check=True, capture_output=True)
    names = ",".join(f"night-{kind}" for kind in KIND_OF)
    environ = {**os.environ, "PYTHONPATH": str(place / "site"), "EDGEPROF_PLUGINS": names}

    def call(kind: str, *argv: str) -> str:
        words = ["-c", *argv[1:]] if argv[0] == "code" else ["-m", *argv]
        done = subprocess.run(
            [sys.executable, *words], cwd=place / kind, env=environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return call


def test_a_scaffold_of_each_kind_installs_and_registers(python: Callable[..., str]) -> None:
    plugins = json.loads(python("sensor", "edgeprof", "plugins", "list", "--json"))["plugins"]
    found = {plugin["name"]: plugin for plugin in plugins}
    for kind, registered in KIND_OF.items():
        plugin = found[f"night-{kind}"]
        assert plugin["status"] == "loaded", plugin["reason"]
        assert plugin["distribution"] == f"edgeprof-night-{kind}"
        dot = "." if kind == "reporter" else ""
        assert plugin["registers"][registered] == [f"{dot}night-{kind}"]


def test_scaffolds_of_all_kinds_pass_their_own_tests(python: Callable[..., str]) -> None:
    """They run in one process, because each file of tests has a different name."""
    tests = [f"../{kind}/tests" for kind in KIND_OF]
    assert "passed" in python("sensor", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", *tests)


def test_a_scaffold_of_each_kind_conforms(python: Callable[..., str]) -> None:
    names = [f"night-{kind}" for kind in KIND_OF]
    calls = "; ".join(f"assert run(['plugins', 'check', {name!r}]) == 0, {name!r}" for name in names)
    said = python("sensor", "code", f"from edgeprof.cli.main import run; {calls}")
    assert "ok     reporter .night-reporter" in said


def test_scaffolds_are_clean_code(tmp_path: Path) -> None:
    """An author's first commit passes the same linters as ours."""
    for kind in KIND_OF:
        assert run(["plugins", "new", f"my-{kind}", str(tmp_path / kind), "--kind", kind]) == 0
    config = Path(__file__).parents[3] / "pyproject.toml"
    ignore = "I001,ANN,D,S101,INP001,PLC0415,UP,FA,PTH,RUF012,TRY003,ARG,E501"
    ruff = [sys.executable, "-m", "ruff"]
    done = subprocess.run(
        [*ruff, "check", "--no-cache", "--config", str(config), "--extend-ignore", ignore, str(tmp_path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_every_plugin_of_ours_conforms_as_far_as_this_machine_can_tell() -> None:
    from edgeprof.cli.conformance import check_plugin
    from edgeprof.plugins import PluginHost

    host = PluginHost()
    host.commands(reserved=RESERVED)
    own = [info for info in host.plugins if info.distribution == "edgeprof"]
    assert own
    failed = [(info.name, row) for info in own for row in check_plugin(host, info) if row.status == "fail"]
    assert failed == []


class Lamp(Sensor):
    """One lamp at an address."""

    name = "addressed"

    def __init__(self, address: str) -> None:
        self._channels = (Channel("addressed", address, "power", provenance="simulated"),)

    @property
    def channels(self) -> tuple[Channel, ...]:
        return self._channels

    def read(self, values, times) -> None:
        values[0] = 7.0


def find_lamps(roots: Roots, addresses: Sequence[str] = ()) -> list[Sensor]:
    return [Lamp(address) for address in addresses]


@pytest.fixture
def lamps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plugin whose sensor needs the addresses of its devices."""
    module = ModuleType("lamps")
    module.register_sensors = hookimpl(lambda register: register("addressed", find_lamps))  # type: ignore[attr-defined]
    module.register_sensors.__name__ = "register_sensors"
    host = PluginHost(entry_points=[])
    host.register(module, PluginInfo("lamps", "lamps-dist", "1.0"))
    monkeypatch.setattr(PluginHost, "from_environment", lambda **_: host)


@pytest.mark.usefixtures("lamps")
def test_a_sensor_is_checked_where_its_address_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plugins", "check", "lamps"]) == 0
    assert "give an address: --sensor addressed:ADDRESS" in capsys.readouterr().out
    assert run(["plugins", "check", "lamps", "--sensor", "addressed:hall"]) == 0
    assert "ok     sensor addressed/addressed" in capsys.readouterr().out
    for wrong in ("addressed", "other:hall", "addressed:"):
        assert run(["plugins", "check", "lamps", "--sensor", wrong]) == 2
        assert "It has: addressed." in capsys.readouterr().err


def test_an_open_shape_is_given_for_the_check_of_a_runtime(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "twice.py"
    model.write_text("def twice(image):\n    return 2 * image\n")
    argv = ["plugins", "check", "python", "--model", f"{model}:twice"]
    assert run(argv) == 1
    assert "--input image=" in capsys.readouterr().out
    run([*argv, "--input", "image=1x3:float32"])
    assert "--input image=" not in capsys.readouterr().out
    assert run(["plugins", "check", "python", "--input", "image=1x3"]) == 2
    assert "--input goes with --model" in capsys.readouterr().err
