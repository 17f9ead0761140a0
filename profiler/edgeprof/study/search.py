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

#: Accuracy, cost, compressed size (bytes), and number of broken budgets.
Judgement = tuple[float, float, float, int]


class Searcher(ABC):
    """Proposes variants with high accuracy, low cost and small compressed size that meet the budgets.

    Attributes:
        name: The registered name.
    """

    name: str

    @abstractmethod
    def require(self) -> None:
        """Check, before anything is made, that the search can be used.

        Raises:
            UnavailableError: a library is not installed; the remedy is the command.
        """

    @abstractmethod
    def search(self, space: Search, database: Path, seed: int, judge: Callable[[str], Judgement | None]) -> None:
        """Propose variants and judge them until ``space.trials`` trials are done, including those of earlier runs.

        Args:
            space: The parameters that vary.
            database: File of the trials, which is created if it does not exist.
            seed: Seed of every random draw.
            judge: Makes and measures one chain; None if that failed. Judging a chain again costs nothing.
        """

    @abstractmethod
    def chains(self, database: Path) -> Iterator[str]:
        """The chains of all judged trials, in order; ``database`` must exist."""


def find_searcher(host: PluginHost | None = None) -> Searcher:
    """Find the search that was registered last and can be used: a plugin's goes before edgeprof's own.

    Raises:
        UnavailableError: no search is registered, or the library of none of them is installed.
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
    """Call ``Searcher.search`` of the search that can be used here."""
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
    """The chains that earlier runs judged, in order; empty if there is no database."""
    if database.exists():
        yield from find_searcher(host).chains(database)
