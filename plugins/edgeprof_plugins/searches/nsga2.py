"""The search over the parameters of a recipe with Optuna's NSGA-II sampler.

Optuna proposes variants, the study makes and measures them, and an SQLite database stores the trials. The objectives
are to maximise accuracy and to minimise joules (or seconds) and compressed size; exceeded budgets are constraints.
"""

from __future__ import annotations

import contextlib
import warnings
from typing import TYPE_CHECKING, Any

from edgeprof import hookimpl
from edgeprof.errors import UnavailableError
from edgeprof.study.search import Searcher
from edgeprof.worker.runtime import install_command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from edgeprof.hookspecs import Register
    from edgeprof.study.recipe import Search
    from edgeprof.study.search import Judgement


#: Databases whose version Optuna has checked. The check takes a second, and a search on a fleet opens each many times.
_COMPATIBLE: set[str] = set()


class Nsga2(Searcher):
    """Optuna's NSGA-II sampler."""

    name = "nsga2"

    def require(self) -> None:
        _load_optuna()

    def search(self, space: Search, database: Path, seed: int, judge: Callable[[str], Judgement | None]) -> None:
        optuna = _load_optuna()
        with warnings.catch_warnings(), _opened(optuna, database) as store:
            warnings.simplefilter("ignore")  # ignore the warning that constraints are experimental
            # The seed includes the number of finished trials, so that a resumed study does not repeat its draws.
            study = optuna.create_study(
                study_name="edgeprof",
                storage=store,
                directions=["maximize", "minimize", "minimize"],
                load_if_exists=True,
            )
            done = len(_finished_trials(optuna, study))
            for cut_off in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):  # left by a run that was killed
                study.tell(cut_off.number, state=optuna.trial.TrialState.FAIL)
                study.enqueue_trial(cut_off.params)
            study.sampler = optuna.samplers.NSGAIISampler(
                population_size=min(20, max(4, space.trials // 4)),
                seed=seed + done,
                constraints_func=_trial_constraints,
            )
            for _ in range(done, space.trials):
                trial = study.ask()
                chain = space.chain(
                    {name: _suggest_value(trial, name, choice) for name, choice in space.choices.items()}
                )
                judgement = judge(chain)
                trial.set_user_attr("chain", chain)  # only judged trials count as finished
                if judgement is None:
                    study.tell(trial, state=optuna.trial.TrialState.FAIL)
                else:
                    trial.set_user_attr("broken", judgement[3])
                    study.tell(trial, list(judgement[:3]))

    def chains(self, database: Path) -> Iterator[str]:
        optuna = _load_optuna()
        with _opened(optuna, database) as store:
            study = optuna.load_study(study_name="edgeprof", storage=store)
            judged = [trial.user_attrs["chain"] for trial in _finished_trials(optuna, study)]
        yield from dict.fromkeys(judged)


@contextlib.contextmanager
def _opened(optuna: Any, database: Path) -> Iterator[Any]:
    """The storage of trials, which is always closed at the end."""
    url = f"sqlite:///{database}"
    store = optuna.storages.RDBStorage(url, skip_compatibility_check=url in _COMPATIBLE)
    _COMPATIBLE.add(url)
    try:
        yield store
    finally:
        store.engine.dispose()


def _finished_trials(optuna: Any, study: Any) -> list[Any]:
    states = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.FAIL)
    return [trial for trial in study.get_trials(states=states) if "chain" in trial.user_attrs]


def _trial_constraints(trial: Any) -> tuple[float]:
    return (float(trial.user_attrs.get("broken", 1)),)


def _suggest_value(trial: Any, name: str, choice: Any) -> str:
    if isinstance(choice, list):
        return str(trial.suggest_categorical(name, choice))
    low, high, logarithmic = choice
    whole = isinstance(low, int) and isinstance(high, int)
    draw = trial.suggest_int if whole else trial.suggest_float
    from edgeprof.study.recipe import written  # imported here, because only a search needs it

    return written(draw(name, low, high, log=logarithmic))


def _load_optuna() -> Any:
    """Import and return Optuna.

    Raises:
        UnavailableError: Optuna is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise UnavailableError(
            "[search] needs Optuna, which is not installed", remedy=install_command("search", "optuna")
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


@hookimpl
def register_searches(register: Register) -> None:
    register(Nsga2.name, Nsga2)
