"""The checks that ``edgeprof plugins check`` runs on an installed plugin, by means of edgeprof.testing."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeprof import testing
from edgeprof.artifact import recognise
from edgeprof.compression.compressor import Compressor
from edgeprof.errors import EdgeprofError
from edgeprof.evaluation.metric import Metric
from edgeprof.installation import mended_here
from edgeprof.launch.proof import prove
from edgeprof.roots import Roots
from edgeprof.worker.runtime import LoadOptions, Runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from edgeprof.plugins import PluginHost, PluginInfo

#: Longest time for import and registration together (s). A slower plugin imports something heavy at the top.
SLOW_S = 0.5


class Row(NamedTuple):
    """One check.

    Attributes:
        name: What was checked, as ``sensor lamp/bulb``.
        status: ``ok``, ``warn``, ``fail`` or ``absent`` (this machine has nothing to check it with).
        detail: Why, in one sentence.
    """

    name: str
    status: str
    detail: str = ""


class Given(NamedTuple):
    """Material that a plugin is checked with.

    Attributes:
        models: Model files for its runtimes.
        shapes: Shapes of inputs that the models leave open.
        dtypes: Element types of inputs.
        addresses: Sensor → the addresses of its devices.
    """

    models: Sequence[str] = ()
    shapes: Mapping[str, tuple[int, ...]] = {}
    dtypes: Mapping[str, str] = {}
    addresses: Mapping[str, list[str]] = {}


def check_plugin(host: PluginHost, info: PluginInfo, given: Given | None = None) -> list[Row]:
    """Run every check that this machine allows; none raises.

    Args:
        host: The host that loaded it.
        info: The plugin.
        given: Material that it is checked with; None: nothing.
    """
    given = given or Given()
    if info.status != "loaded":
        return [Row("loads", "fail", info.reason or info.status)]
    rows = [Row("loads", "ok", f"{info.seconds * 1e3:.0f} ms")]
    if info.seconds > SLOW_S:
        detail = f"it takes {info.seconds:.1f} s; import heavy modules where they are used, not at the top"
        rows[0] = Row("loads", "warn", detail)
    if not any(info.registers.values()):
        rows.append(Row("registers something", "fail", "no hook registered anything"))
    checks: dict[str, Callable[[str, Any], Iterator[Row]]] = {
        "sensors": lambda name, factory: _check_sensors(name, factory, given.addresses.get(name, [])),
        "runtimes": lambda name, factory: _check_runtime_plugin(name, factory, given),
        "compressors": _check_compressor_plugin,
        "reporters": _check_reporter,
        "metrics": lambda name, factory: _check_instance(f"metric {name}", name, factory, Metric),
    }
    for kind, names in info.registers.items():
        for name in names:
            check = checks.get(kind)
            if check is None:
                rows.append(Row(f"{kind.removesuffix('s')} {name}", "ok", "registered; used when it is asked for"))
            else:
                rows += check(name, host.of(kind)[name])
    return rows


def _check_sensors(name: str, factory: Callable[..., Any], addresses: list[str]) -> Iterator[Row]:
    sensors: list[Any] = []
    takes_addresses = len(inspect.signature(factory).parameters) > 1
    if addresses and not takes_addresses:
        yield Row(f"sensors {name}", "fail", "it takes no address")
        return
    arguments = (Roots.resolve(), addresses) if addresses else (Roots.resolve(),)
    yield _run_check(f"sensors {name}", lambda: sensors.extend(factory(*arguments)))
    if not sensors:
        hint = f"give an address: --sensor {name}:ADDRESS" if takes_addresses else "its own tests must bring a tree"
        yield Row(f"sensors {name}", "absent", f"this machine has none of these sensors; {hint}")
    for sensor in sensors:
        what = f"sensor {name}/{getattr(sensor, 'name', '?')}"
        yield _run_check(what, functools.partial(testing.check_sensor, sensor))


def _check_runtime_plugin(name: str, factory: Callable[[], Any], given: Given) -> Iterator[Row]:
    runtimes: list[Runtime] = []
    yield from _check_instance(f"runtime {name}", name, factory, Runtime, runtimes)
    for runtime in runtimes:
        status = runtime.availability()
        if status.reason is not None:
            yield Row(f"runtime {name} is available", "absent", f"{status.reason}: {mended_here(status.remedy or '')}")
            continue
        proof = prove(runtime)
        detail = proof.detail if proof.remedy is None else f"{proof.detail}. {mended_here(proof.remedy)}"
        yield Row(f"runtime {name} works", "ok" if proof.works else "fail", detail)
        if not given.models:
            yield Row(f"runtime {name} runs a model", "absent", "no model was given: --model FILE")
        for model in given.models:
            what = f"runtime {name} runs {model}"
            try:
                artifact = recognise(model, runtime.own_formats)
            except EdgeprofError as error:
                yield Row(what, "fail", error.message)
                continue
            if artifact.format not in runtime.formats:
                yield Row(what, "fail", f"it is {artifact.format}, and the runtime takes {', '.join(runtime.formats)}")
            else:
                options = LoadOptions(runtime.default_device, None, 1, dict(given.shapes), {}, dict(given.dtypes))
                yield _run_check(
                    what, functools.partial(testing.check_runtime, runtime, artifact.target, options=options)
                )


def _check_compressor_plugin(name: str, factory: Callable[[], Any]) -> Iterator[Row]:
    yield from _check_instance(f"compressor {name}", name, factory, Compressor)


def _check_reporter(suffix: str, function: Callable[[Any], Any]) -> Iterator[Row]:
    def check() -> None:
        assert suffix.startswith("."), f"it is registered as {suffix!r}, but a file suffix begins with a dot"
        text = function(testing.example_result())
        assert isinstance(text, str), f"it returned {type(text).__name__}, not the text of a file"
        assert text, "it returned an empty text for a result of two variants"

    yield _run_check(f"reporter {suffix}", check)


def _check_instance(
    what: str, name: str, factory: Callable[[], Any], kind: type, instances: list[Any] | None = None
) -> Iterator[Row]:
    """Check that the factory returns an object of the contract's class with the registered name."""

    def check() -> None:
        thing = factory()
        assert isinstance(thing, kind), f"its factory returned {thing!r}, which is not of the class {kind.__name__}"
        assert thing.name == name, f"it is registered as {name!r} but calls itself {thing.name!r}"  # type: ignore[attr-defined]
        if instances is not None:
            instances.append(thing)

    yield _run_check(what, check)


def _run_check(what: str, check: Callable[[], Any]) -> Row:
    try:
        check()
    except AssertionError as error:
        return Row(what, "fail", " ".join(str(error).split()))
    except Exception as error:  # noqa: BLE001 - a plugin may raise anything; that is the finding
        remedy = getattr(error, "remedy", None)
        detail = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return Row(what, "fail", f"{detail}. {mended_here(remedy)}" if remedy else detail)
    return Row(what, "ok")
