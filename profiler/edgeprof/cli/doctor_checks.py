"""The checks of ``edgeprof doctor``. No check raises, and no check prevents another one."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from edgeprof.errors import EdgeprofError
from edgeprof.installation import mended_here

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from edgeprof.plugins import PluginHost
    from edgeprof.roots import Roots
    from edgeprof.sensing.discover import Discovery
    from edgeprof.sensing.sensor import Channel

#: Clock sources that cost a bus access, some microseconds, at each time-stamp.
_SLOW_CLOCKS = {"hpet", "acpi_pm", "pit", "jiffies"}
#: Governors that keep the frequency where it is while a model runs.
_STEADY_GOVERNORS = {"performance", "userspace"}
_LOW_MEMORY = 256 << 20

_ASK = """
import json, platform
try:
    from importlib.util import find_spec
    import importlib
    found = {}
    for name in %r:
        if find_spec(name) is not None:
            version = ""
            for where in ("importlib.metadata", "importlib_metadata"):
                try:
                    version = importlib.import_module(where).version(name.replace("_", "-"))
                    break
                except Exception:
                    pass
            found[name] = version
finally:
    print(json.dumps([platform.python_version(), found]))
"""


class Check(NamedTuple):
    """One line of the report.

    Attributes:
        name: What was checked.
        status: ``ok``; ``warn``: it works, but figures are less accurate; ``absent``: it is not here, and edgeprof
            works without it; ``fail``: it should work, but does not.
        detail: What was found, or the reason why not.
        remedy: The command or step that repairs it.
    """

    name: str
    status: str
    detail: str
    remedy: str | None = None


class OwnModel(NamedTuple):
    """The user's own model, for the runtimes that take its format.

    Attributes:
        spec: Its file, as ``edgeprof bench`` takes it.
        shapes: Shapes of inputs that it leaves open.
        dtypes: Element types of inputs.
    """

    spec: str
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]


def examine(host: PluginHost, roots: Roots, only: Sequence[str] = (), model: OwnModel | None = None) -> list[Check]:
    """Run every check, in the order in which a person wants to read them.

    Args:
        host: The host of the plugins.
        roots: Where sensors are looked for.
        only: Sources of sensors to ask, as in ``--sensor meter:ADDRESS``; empty: all.
        model: A model to run on every runtime that takes its format.
    """
    from edgeprof.sensing.discover import discover

    checks = [_python(), *_plugins(host)]
    try:
        checks += sensor_checks(discover(host, roots, only))
    except EdgeprofError as error:
        checks.append(Check("sensors", "fail", error.message, error.remedy))
    checks += _runtimes(host)
    checks += _own_model(host, model) if model else []
    checks += _interpreters(_candidates(), runtime_libraries(host))
    checks += [_data_directory(), _clock(roots), _governor(roots), *_memory(roots), _load(roots)]
    return [check._replace(remedy=mended_here(check.remedy)) if check.remedy else check for check in checks]


def _python() -> Check:
    return Check("python", "ok", f"{platform.python_version()} ({sys.executable})")


def _plugins(host: PluginHost) -> Iterator[Check]:
    loaded = [info for info in host.plugins if info.status == "loaded"]
    skipped = sum(info.status == "skipped" for info in host.plugins)
    note = f", {skipped} skipped by EDGEPROF_PLUGINS" if skipped else ""
    yield Check("plugins", "ok" if loaded else "warn", f"{len(loaded)} loaded{note}")
    for info in host.failures:
        remedy = f"pip install --upgrade {info.distribution}; if it still fails, report it to its authors"
        if info.distribution == "?":
            remedy = "Correct the value of EDGEPROF_PLUGINS: edgeprof plugins list"
        yield Check(f"plugin {info.name}", "fail", info.reason or "it failed", remedy)


def sensor_checks(discovery: Discovery) -> Iterator[Check]:
    """Check what the sensors and their total cover, and say why a channel cannot be read."""
    headline = discovery.topology.headline
    usable = {channel.key for channel in discovery.topology.channels if channel.available}
    if headline.channels:
        names = " + ".join(channel.name for channel in headline.channels)
        worst = ", ".join(sorted({channel.provenance for channel in headline.channels}))
        outside = f"; not {headline.excludes}" if headline.excludes else ""
        yield Check("joules", "ok", f"{names} covers the {headline.covers} ({worst}){outside}")
        yield from _blurred(headline.channels)
    else:
        remedy = (
            headline.remedy
            or "Estimate: edgeprof bench --estimate-power WATTS; or try a virtual board: edgeprof simulate"
        )
        yield Check("joules", "absent", headline.reason or "nothing here measures power", remedy)
    for sensor in discovery.sensors:
        names = ", ".join(dict.fromkeys(channel.name for channel in sensor.channels if channel.key in usable))
        yield Check(f"sensor {sensor.name}", "ok", names)
    for failure in discovery.failures:
        yield Check(f"sensor {failure.source}", "fail", failure.reason, failure.remedy)
    grouped: dict[tuple[str, str, str | None], list[str]] = {}
    for channel in discovery.unavailable:
        key = (channel.sensor, channel.reason or "it cannot be read", channel.remedy)
        grouped.setdefault(key, []).append(channel.name)
    for (source, reason, mend), channels in grouped.items():
        # If something can be done about it, it is a failure; a rail that the board does not wire is merely absent.
        names = ", ".join(dict.fromkeys(channels))
        yield Check(f"sensor {source}", "fail" if mend else "absent", f"{names}: {reason}", mend)


def _blurred(channels: Iterable[Channel]) -> Iterator[Check]:
    for channel in channels:
        tau = channel.filter.tau_s
        if channel.filter.kind == "exponential" and tau and tau > 0.01:
            detail = (
                f"{channel.name} is a running average (time constant {tau:.2g} s): bursts under {5 * tau:.2g} s are "
            )
            detail += "blurred; edgeprof corrects for it"
            yield Check("filter", "warn", detail)
            return


def _runtimes(host: PluginHost) -> Iterator[Check]:
    from edgeprof.launch.proof import Proof, prove

    for name, factory in host.of("runtimes").items():
        try:
            runtime = factory()
            status = runtime.availability()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin may raise anything; the next check goes on
            yield Check(f"runtime {name}", "fail", f"{type(error).__name__}: {error}")
            continue
        if status.reason is not None:
            yield Check(f"runtime {name}", "absent", status.reason, status.remedy)
            continue
        try:
            proof = prove(runtime)
        except Exception as error:  # noqa: BLE001 - likewise
            proof = Proof(False, f"{type(error).__name__}: {error}")
        detail = f"{status.version or 'here'}: {proof.detail}"
        remedy = None if proof.works else proof.remedy or "Reinstall it, and read the error of its import."
        yield Check(f"runtime {name}", "ok" if proof.works else "fail", detail, remedy)


def _own_model(host: PluginHost, model: OwnModel) -> Iterator[Check]:
    """Run the model on every runtime that is here and takes its format."""
    from edgeprof.artifact import recognise
    from edgeprof.launch.proof import run
    from edgeprof.worker.runtime import LoadOptions

    name = f"model {Path(model.spec).name}"
    runtimes = []
    for factory in host.of("runtimes").values():
        with contextlib.suppress(Exception, SystemExit):  # a plugin that fails has a line of its own
            runtimes.append(factory())
    own_formats = {key: value for runtime in runtimes for key, value in runtime.own_formats.items()}
    try:
        artifact = recognise(model.spec, own_formats)
    except EdgeprofError as error:
        yield Check(name, "fail", error.message, error.remedy)
        return
    takers = [(runtime, runtime.availability()) for runtime in runtimes if artifact.format in runtime.formats]
    here = [runtime for runtime, status in takers if status.reason is None]
    for runtime in here:
        options = LoadOptions(runtime.default_device, None, 1, dict(model.shapes), {}, dict(model.dtypes))
        proof = run(runtime, artifact.target, options)
        yield Check(name, "ok" if proof.works else "fail", f"{runtime.name}: {proof.detail}", proof.remedy)
    if not here:
        remedy = next((status.remedy for _, status in takers if status.remedy), "edgeprof plugins list")
        yield Check(name, "fail", f"no runtime that is installed here takes the format {artifact.format}", remedy)


def _candidates() -> list[Path]:
    """The system's Python interpreters except this one, each once."""
    interpreters: dict[Path, Path] = {}
    for directory in ("/usr/bin", "/usr/local/bin"):
        for path in sorted(Path(directory).glob("python3*")):
            if path.name.removeprefix("python3").replace(".", "").isdigit() or path.name == "python3":
                interpreters.setdefault(path.resolve(), path)
    if sys.prefix == sys.base_prefix:  # not in a virtual environment: the runtimes' own lines describe this one
        interpreters.pop(Path(sys.executable).resolve(), None)
    return list(interpreters.values())


def runtime_libraries(host: PluginHost) -> list[str]:
    """The modules that the runtimes need, each once."""
    libraries: list[str] = []
    for factory in host.of("runtimes").values():
        with contextlib.suppress(Exception, SystemExit):  # a plugin that fails has a line of its own
            libraries += factory().libraries
    return list(dict.fromkeys(libraries))


def _interpreters(candidates: list[Path], libraries: list[str]) -> list[Check]:
    """Check which runtimes each interpreter has: JetPack installs TensorRT only in the system's Python."""
    with ThreadPoolExecutor(4) as pool:
        return [
            check
            for check in pool.map(functools.partial(_interpreter, libraries=libraries), candidates)
            if check is not None
        ]


def _interpreter(python: Path, libraries: list[str]) -> Check | None:
    import json

    try:
        code = _ASK % ((*libraries, "numpy"),)
        done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, timeout=20, check=True)
        version, versions = json.loads(done.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        return Check(f"{python}", "warn", f"it does not answer: {type(error).__name__}")
    installed = [f"{name} {versions[name]}".strip() for name in libraries if name in versions]
    if not installed:
        return Check(f"{python}", "absent", f"{version}: no runtime in it")
    text = f"{version}: {', '.join(installed)}"
    if "numpy" not in versions:
        return Check(f"{python}", "warn", f"{text}, but no numpy", f"{python} -m pip install numpy")
    return Check(f"{python}", "ok", text, f"to use it: edgeprof bench --worker-python {python}")


def _data_directory() -> Check:
    from edgeprof.results.store import data_dir

    directory = data_dir()
    nearest = next(path for path in (directory, *directory.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        remedy = "Name one that is yours: export EDGEPROF_DATA_DIR=…"
        return Check("data directory", "fail", f"{directory} cannot be written: {error.strerror}", remedy)
    free = shutil.disk_usage(nearest).free
    if free < 64 << 20:
        return Check("data directory", "warn", f"{directory}: {free >> 20} MiB free", "Free some space.")
    return Check("data directory", "ok", f"{directory}")


def _clock(roots: Roots) -> Check:
    name = _read(roots.sysfs / "devices/system/clocksource/clocksource0/current_clocksource")
    if name is None:
        return Check("clock source", "absent", "the kernel does not name it")
    if name in _SLOW_CLOCKS:
        remedy = "See dmesg for why the kernel gave up the processor's own counter."
        return Check("clock source", "warn", f"{name}: each time-stamp costs microseconds", remedy)
    return Check("clock source", "ok", name)


def _governor(roots: Roots) -> Check:
    policies = (roots.sysfs / "devices/system/cpu/cpufreq").glob("policy*/scaling_governor")
    governors = sorted({text for text in map(_read, policies) if text})
    if not governors:
        return Check("governor", "absent", "the kernel does not scale this processor's frequency")
    if set(governors) <= _STEADY_GOVERNORS:
        return Check("governor", "ok", ", ".join(governors))
    remedy = "For comparisons: sudo cpupower frequency-set -g performance   (on a Jetson: sudo jetson_clocks)"
    return Check("governor", "warn", f"{', '.join(governors)}: the clock follows the load", remedy)


def _memory(roots: Roots) -> Iterator[Check]:
    lines = (_read(roots.procfs / "meminfo") or "").splitlines()
    fields = {line.split(":")[0]: line.split()[1] for line in lines if len(line.split()) > 1}
    if "MemAvailable" not in fields:
        yield Check("memory", "absent", f"{roots.procfs / 'meminfo'} does not say how much is available")
        return
    available, total = (int(fields.get(key, "0")) << 10 for key in ("MemAvailable", "MemTotal"))
    text = f"{available >> 20} MiB of {total >> 20} MiB available"
    if available < _LOW_MEMORY:
        yield Check(
            "memory", "warn", text, "Close programs; a variant that runs out of memory fails, the others do not."
        )
    else:
        yield Check("memory", "ok", text)


def _load(roots: Roots) -> Check:
    words = (_read(roots.procfs / "loadavg") or "").split()
    if not words:
        return Check("competing load", "absent", f"{roots.procfs / 'loadavg'} cannot be read")
    load, cores = float(words[0]), os.cpu_count() or 1
    if load > 0.25 * cores:
        detail = f"{load:.2f} on {cores} cores: your joules include the work of other programs"
        return Check("competing load", "warn", detail, "Stop other work; net joules subtract only steady idle power.")
    return Check("competing load", "ok", f"{load:.2f} on {cores} cores")


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
