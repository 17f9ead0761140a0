"""The models in production, as applications report them to the running daemon (``edgeprof.track``)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeprof.daemon_client import ask, usual_path
from edgeprof.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: How long to wait for the daemon's answer, and before it is looked for again (s).
_TIMEOUT_S, _PAUSE_S = 0.2, 5.0


class ModelInProduction(NamedTuple):
    """What one model does now.

    Attributes:
        name: Model, variant and runtime, as far as the application names them.
        rate_hz: Inferences per second since the last look; None at the first one.
        joules: Joules of an inference since the first look; None where none is known.
    """

    name: str
    rate_hz: float | None
    joules: float | None


class Production:
    """Looks again and again at the models that a daemon on this machine counts."""

    def __init__(self) -> None:
        self._not_before = 0.0
        self._first: dict[str, Mapping[str, Any]] = {}
        self._last: dict[str, tuple[float, int]] = {}

    def models(self) -> list[ModelInProduction]:
        """The models that ran since the first look; empty if there is no daemon or it may not be asked."""
        now = time.monotonic()
        if now < self._not_before:
            return []
        counted: Sequence[Mapping[str, Any]] = ()
        try:
            counted = ask(usual_path(), "status", _TIMEOUT_S).get("models", ())
        except UnavailableError:
            self._not_before = now + _PAUSE_S
        return [model for count in counted if (model := self._model(count, now)).rate_hz is not None]

    def _model(self, count: Mapping[str, Any], now: float) -> ModelInProduction:
        name = " ".join(filter(None, (count["model"], count["variant"], count["runtime"])))
        first = self._first.setdefault(name, count)
        if count["with_energy"] < first["with_energy"]:  # the daemon was started again
            first = self._first[name] = count
        before = self._last.get(name)
        self._last[name] = now, count["inferences"]
        rate = None
        if before is not None and now > before[0]:
            rate = (count["inferences"] - before[1]) / (now - before[0])
        known, joules = (count[key] - first[key] for key in ("with_energy", "energy_j"))
        return ModelInProduction(name, rate, joules / known if known > 0 else None)
