"""A plugin that fails is named with the reason, leaves nothing registered, and does not affect other plugins."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from edgeprof.errors import InputError
from edgeprof.plugins import PluginHost, PluginInfo, points_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

GOOD = """
    from edgeprof import hookimpl

    @hookimpl
    def register_sensors(register):
        register("lamp", lambda roots: [])
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function (name, source) that installs a distribution with one module and its entry point."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def add(name: str, source: str, *, distribution: str | None = None, point: str | None = None) -> None:
        distribution = distribution or f"{name}-dist"
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(source), encoding="utf-8")
        info = tmp_path / f"{distribution.replace('-', '_')}-1.0.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n", encoding="utf-8")
        (info / "entry_points.txt").write_text(point or f"[edgeprof]\n{name} = {name}\n", encoding="utf-8")
        monkeypatch.delitem(__import__("sys").modules, name, raising=False)

    return add


def host_of(*names: str) -> PluginHost:
    return PluginHost(only=names)


def info_of(host: PluginHost, name: str) -> PluginInfo:
    (info,) = [info for info in host.plugins if info.name == name]
    return info


def test_a_plugin_registers_what_its_marked_hooks_bring(install) -> None:
    install("plug_good", GOOD)
    host = host_of("plug_good")
    info = info_of(host, "plug_good")
    assert (info.status, info.distribution, info.version) == ("loaded", "plug_good-dist", "1.0")
    assert info.registers["sensors"] == ["lamp"]
    assert list(host.of("sensors")) == ["lamp"]
    assert host.owner("sensors", "lamp") is info


def test_a_hook_under_another_function_name_counts(install) -> None:
    install(
        "plug_specname",
        """
        from edgeprof import hookimpl

        @hookimpl(specname="register_metrics")
        def bring(register):
            register("f1", object)
        """,
    )
    assert list(host_of("plug_specname").of("metrics")) == ["f1"]


MARKED = "from edgeprof import hookimpl\n@hookimpl\n"
FAILURES = {
    "raises at import": ("raise RuntimeError('no luck')", "RuntimeError: no luck"),
    "exits at import": ("import sys; sys.exit(3)", "it called sys.exit(3)"),
    "raises something that is no Exception": ("class Odd(BaseException): pass\nraise Odd('odd')", "Odd: odd"),
    "has a syntax error": ("def (:", "SyntaxError"),
    "needs a library that is not here": ("import no_such_library", "ModuleNotFoundError"),
    "misspells a marked hook": (
        MARKED + "def register_sensor(register): pass",
        "register_sensor is no hook; did you mean register_sensors?",
    ),
    "misspells a hook and forgets the mark": (
        "def register_sensor(register): pass",
        "register_sensor is no hook; did you mean register_sensors, marked with @hookimpl?",
    ),
    "invents a hook": (
        MARKED + "def on_start(): pass",
        "on_start is no hook; the hooks are register_sensors, ",
    ),
    "forgets the mark": ("def register_runtimes(register): pass", "register_runtimes is not marked with @hookimpl"),
    "asks for an argument that no hook has": (
        MARKED + "def register_sensors(register, verbose): pass",
        "verbose",
    ),
    "forgets the argument": (
        MARKED + "def register_sensors(): pass",
        "register_sensors takes no argument; it needs register",
    ),
    "wraps a hook": (
        "from edgeprof import hookimpl\n@hookimpl(wrapper=True)\ndef register_sensors(register):\n    return (yield)",
        "register_sensors is a hook wrapper",
    ),
    "registers what cannot be called": (
        MARKED + "def register_sensors(register):\n    register('lamp', print)\n    register('torch', 3)",
        "got 3, which cannot be called",
    ),
    "registers a name with a space": (
        MARKED + "def register_sensors(register): register('a b', print)",
        "a name is a text without spaces",
    ),
    "registers one name twice": (
        MARKED + "def register_sensors(register):\n    register('lamp', print)\n    register('lamp', print)",
        "the sensor 'lamp' is already registered by plug_bad",
    ),
    "exits in a hook": (
        MARKED + "def register_sensors(register): raise SystemExit",
        "it called sys.exit(None)",
    ),
}


@pytest.mark.parametrize("case", FAILURES)
def test_a_plugin_that(case: str, install) -> None:
    """… is named with the reason, leaves nothing registered, and its neighbours work."""
    source, reason = FAILURES[case]
    install("plug_bad", source)
    install("plug_good", GOOD)
    host = host_of("plug_bad", "plug_good")
    bad = info_of(host, "plug_bad")
    assert bad.status == "failed"
    assert bad.reason is not None
    assert reason in bad.reason
    assert "\n" not in bad.reason
    assert not any(bad.registers.values())
    assert host.failures == [bad]
    assert info_of(host, "plug_good").status == "loaded"
    assert list(host.of("sensors")) == ["lamp"]
    host.manager.check_pending()


def test_ctrl_c_while_a_plugin_loads_is_not_swallowed(install) -> None:
    install("plug_interrupt", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        host_of("plug_interrupt")


def test_a_helper_that_only_sounds_like_a_hook_is_left_alone(install) -> None:
    install("plug_helper", GOOD + "\n    def register_all_the_things(): pass\n")
    assert info_of(host_of("plug_helper"), "plug_helper").status == "loaded"


def test_two_plugins_of_one_name_leave_the_first_working(install, tmp_path: Path) -> None:
    install("plug_first", GOOD, point="[edgeprof]\nplug_twin = plug_first\n")
    install("plug_second", GOOD.replace("lamp", "torch"), point="[edgeprof]\nplug_twin = plug_second\n")
    host = host_of("plug_twin")
    first, second = (info for info in host.plugins if info.status != "skipped")
    assert {first.status, second.status} == {"loaded", "failed"}
    loaded, failed = (first, second) if first.status == "loaded" else (second, first)
    assert failed.reason == f"a plugin of this name is already loaded from the distribution {loaded.distribution}"
    assert list(host.of("sensors")) == loaded.registers["sensors"]


def test_the_second_of_two_plugins_that_bring_one_name_fails_and_says_who_has_it(install) -> None:
    install("plug_a", GOOD)
    install("plug_b", GOOD)
    host = host_of("plug_a", "plug_b")
    assert info_of(host, "plug_b").reason == "the sensor 'lamp' is already registered by plug_a"
    assert host.owner("sensors", "lamp").name == "plug_a"


def test_one_module_under_two_names_is_loaded_once(install) -> None:
    install("plug_same", GOOD, point="[edgeprof]\nplug_x = plug_same\nplug_y = plug_same\n")
    host = host_of("plug_x", "plug_y")
    assert info_of(host, "plug_x").status == "loaded"
    assert info_of(host, "plug_y").reason == "it is the same module as the plugin plug_x"


@pytest.mark.parametrize("content", [b"[edgeprof]\nno equals sign here\n", b"\xff\xfe\x00", b"[edgeprof]\nx = !!\n"])
def test_a_distribution_with_broken_entry_points_costs_nobody_else_anything(content: bytes, install, tmp_path) -> None:
    install("plug_good", GOOD)
    install("plug_broken", "")
    (tmp_path / "plug_broken_dist-1.0.dist-info" / "entry_points.txt").write_bytes(content)
    host = PluginHost()
    assert info_of(host, "plug_good").status == "loaded"
    assert "lamp" in host.of("sensors")
    assert {point.name for point in points_of("plug_good", "exporter")} == {"exporter", "plug_good"}


def test_edgeprof_plugins_restricts_loading_and_names_what_does_not_exist(install) -> None:
    install("plug_good", GOOD)
    install("plug_other", GOOD.replace("lamp", "torch"))
    host = PluginHost.from_environment({"EDGEPROF_PLUGINS": "plug_good, plug_othre"})
    assert info_of(host, "plug_other").status == "skipped"
    assert info_of(host, "plug_othre").reason == (
        "EDGEPROF_PLUGINS names it, but no installed plugin is called so; did you mean plug_other?"
    )
    assert list(host.of("sensors")) == ["lamp"]


def test_an_empty_edgeprof_plugins_loads_nothing() -> None:
    host = PluginHost.from_environment({"EDGEPROF_PLUGINS": ""})
    assert {info.status for info in host.plugins} == {"skipped"}
    assert not host.of("runtimes")


def test_an_unknown_name_gets_the_nearest_one_and_the_plugins_that_failed(install) -> None:
    install("plug_good", GOOD)
    install("plug_bad", "1/0")
    host = host_of("plug_good", "plug_bad")
    with pytest.raises(InputError) as caught:
        host.get("sensors", "lampe")
    assert caught.value.message == "no sensor is named 'lampe'"
    assert caught.value.remedy is not None
    assert "Did you mean lamp?" in caught.value.remedy
    assert "plug_bad" in caught.value.remedy


def test_what_a_plugin_prints_does_not_reach_stdout(install, capsys: pytest.CaptureFixture[str]) -> None:
    """stdout is reserved for the output of --json."""
    install("plug_chatty", "print('hello')\n" + textwrap.dedent(GOOD))
    host_of("plug_chatty")
    out, err = capsys.readouterr()
    assert (out, err) == ("", "hello\n")


COMMANDS = """
    import click
    from edgeprof import hookimpl

    @hookimpl
    def register_commands(cli):
        @cli.command()
        def greet():
            "Say hello."
            click.echo("hello")
"""


def test_a_plugin_adds_a_verb(install, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from edgeprof.cli import main

    install("plug_verb", COMMANDS)
    monkeypatch.setenv("EDGEPROF_PLUGINS", "plug_verb")
    monkeypatch.setattr(main.cli, "plugin_hint", None)
    monkeypatch.setattr(main.cli, "commands", {})
    assert main.run(["greet"]) == 0
    assert capsys.readouterr().out == "hello\n"


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        ("raise OSError('gone')", "OSError: gone"),
        ("cli.command('bench')(lambda: None)", "the command 'bench' is edgeprof's own"),
    ],
)
def test_a_plugin_that_fails_while_it_adds_verbs_adds_none(extra: str, reason: str, install) -> None:
    install("plug_verb", COMMANDS + f"        {extra}\n")
    install("plug_worse", COMMANDS.replace("greet", "wave"))
    host = host_of("plug_verb", "plug_worse")
    assert list(host.commands(reserved={"bench"})) == ["wave"]
    assert info_of(host, "plug_verb").reason == reason
    assert list(host.commands(reserved={"bench"})) == ["wave"], "asking twice changes nothing"


def test_every_plugin_of_this_repository_loads() -> None:
    """No built-in plugin is broken, whatever else is installed."""
    host = PluginHost()
    own = [info for info in host.plugins if info.distribution == "edgeprof"]
    assert own
    assert json.dumps([info.reason for info in own if info.status != "loaded"]) == "[]"
    assert {point.name for point in importlib.metadata.entry_points(group="edgeprof")} >= {info.name for info in own}


def test_looking_for_sensors_imports_nothing_of_benches_studies_and_verdicts():
    """Each would slow every command's start by some tens of milliseconds on a desktop, and by a second on a Nano."""
    code = (
        "import sys\n"
        "from edgeprof.plugins import PluginHost\n"
        "from edgeprof.sensing import discover\n"
        "PluginHost()\n"
        "rooms = ('edgeprof.study.recipe', 'edgeprof.benchmark', 'edgeprof.verdicts', 'edgeprof.launch')\n"
        "print([name for name in sys.modules if name.startswith(rooms)])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=100)
    assert done.stdout.strip() == "[]"
