"""The contract of a search over a recipe's parameters, and the search that a study uses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from edgeprof.errors import UnavailableError
from edgeprof.plugins import PluginHost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from edgeprof.study.recipe import Search

#: Accuracy, cost, bytes, and how many budgets are broken.
Judgement = tuple[float, float, float, int]


class Searcher(ABC):
    """A way to propose variants: accuracy up, joules (or seconds) down, packed size down, budgets kept.

    Attributes:
        name: As registered.
    """

    name: str

    @abstractmethod
    def require(self) -> None:
        """See, before anything is made, that it can be used.

        Raises:
            UnavailableError: a library is not installed; the remedy is the command.
        """

    @abstractmethod
    def search(self, space: Search, database: Path, seed: int, judge: Callable[[str], Judgement | None]) -> None:
        """Ask for variants and judge them until ``space.trials`` are done, those of earlier runs counted.

        Args:
            space: What may vary.
            database: Where trials are kept; made where it is not there.
            seed: Of every random draw.
            judge: Makes and measures one chain, None where that failed; a chain that was judged before costs nothing.
        """

    @abstractmethod
    def chains(self, database: Path) -> Iterator[str]:
        """The chains of all trials that were judged, in order; ``database`` exists."""


def find_searcher(host: PluginHost | None = None) -> Searcher:
    """The first registered search that can be used.

    Raises:
        UnavailableError: there is none, or the library of the first is not installed.
    """
    factories = (host or PluginHost.from_environment()).of("searches")
    failure = UnavailableError("[search] needs a plugin that searches, and none is registered")
    for searcher in [factory() for factory in factories.values()][::-1]:
        try:
            searcher.require()
        except UnavailableError as error:  # noqa: PERF203 - a handful of plugins
            failure = error
        else:
            chosen: Searcher = searcher
            return chosen
    raise failure


def search(
    space: Search,
    database: Path,
    seed: int,
    judge: Callable[[str], Judgement | None],
    host: PluginHost | None = None,
) -> None:
    """``Searcher.search`` of the search that can be used here."""
    find_searcher(host).search(space, database, seed, judge)


class _NotJudgedError(Exception):
    """Ends a search at a chain that was not judged yet."""

    def __init__(self, chain: str) -> None:
        super().__init__(chain)
        self.chain = chain


def next_chain(
    space: Search,
    database: Path,
    seed: int,
    judgements: Mapping[str, Judgement | None],
    host: PluginHost | None = None,
) -> str | None:
    """The chain that a search wants judged next, for whoever judges elsewhere; None where it is at its end.

    The search is broken off there, as where its process is killed, and takes the same chain up again once it is judged.

    Args:
        space: What may vary.
        database: Where trials are kept.
        seed: Of every random draw.
        judgements: What came of each chain so far.
        host: The plugins.
    """

    def judge(chain: str) -> Judgement | None:
        if chain not in judgements:
            raise _NotJudgedError(chain)
        return judgements[chain]

    try:
        search(space, database, seed, judge, host)
    except _NotJudgedError as stop:
        return stop.chain
    return None


def chains(database: Path, host: PluginHost | None = None) -> Iterator[str]:
    """The chains that earlier runs judged, in order; none where there is no database."""
    if database.exists():
        yield from find_searcher(host).chains(database)
