"""Every hook that edgeprof calls. A hook only registers cheap factories: it accesses no hardware and imports nothing
heavy.

docs/plugins.md shows each with an example; a test holds its signatures and these together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import pluggy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    import click

    from edgeprof.evaluation.dataset import Dataset
    from edgeprof.results.schema import Result
    from edgeprof.roots import Roots
    from edgeprof.sensing.sensor import Sensor

    SensorFactory = Callable[[Roots], Iterable[Sensor]]
    #: ``--sensor NAME:ADDRESS`` (repeatable) calls a factory of two parameters with the addresses.
    AddressedSensorFactory = Callable[[Roots, Sequence[str]], Iterable[Sensor]]
    DatasetFactory = Callable[[str, Mapping[str, str]], Dataset]
    ReporterFunction = Callable[[Result], str]
    ExporterFunction = Callable[[Iterable[Result], Path], None]

hookspec = pluggy.HookspecMarker("edgeprof")


class Register(Protocol):
    """The function that a hook receives; call it once for each thing that the plugin adds."""

    def __call__(self, name: str, factory: Any, /) -> None: ...


@hookspec
def register_sensors(register: Register) -> None:
    """``register(name, factory)``: ``factory(roots)`` returns the sensors of this source that exist under ``roots``.

    A source that has to be told where its device is takes a second parameter, ``factory(roots, addresses=())``: what
    stands after the colon of each ``--sensor NAME:ADDRESS`` ("" for a plain ``--sensor NAME``).
    """


@hookspec
def register_runtimes(register: Register) -> None:
    """``register(name, factory)``: ``factory()`` returns a Runtime; its heavy library is imported only in ``load``."""


@hookspec
def register_compressors(register: Register) -> None:
    """``register(name, factory)``: ``factory()`` returns a Compressor."""


@hookspec
def register_metrics(register: Register) -> None:
    """``register(name, factory)``: ``factory()`` returns a Metric."""


@hookspec
def register_datasets(register: Register) -> None:
    """``register(name, factory)``: ``factory(spec, options)`` returns a Dataset."""


@hookspec
def register_reporters(register: Register) -> None:
    """``register(suffix, function)``: ``function(result)`` returns the text of a file with that suffix, as ``.csv``."""


@hookspec
def register_exporters(register: Register) -> None:
    """``register(name, function)``: ``function(results, target)`` sends results elsewhere; ``target`` is a text."""


@hookspec
def register_searches(register: Register) -> None:
    """``register(name, factory)``: ``factory()`` returns a Searcher, which proposes a study's variants."""


@hookspec
def register_commands(cli: click.Group) -> None:
    """``cli.add_command(...)``: further verbs of the command line."""
