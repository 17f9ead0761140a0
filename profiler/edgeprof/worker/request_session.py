"""The session of language runtimes that can only answer whole requests, without a cache to which tokens are appended.

``request`` is a whole request; ``prefill`` is a request for a single token, which comes out of reading the prompt. The
decode cannot be measured apart. Prompts are fixed beforehand; answers are greedy, and an end of text does not end them
before all tokens were generated.

Python 3.6 grammar, the standard library and numpy.
"""

from typing import TYPE_CHECKING, Any, Callable, Dict, Optional, Sequence, Tuple

import numpy as np

from edgeprof.worker.language import Lengths, TokenClock
from edgeprof.worker.runtime import LoadError, LoadOptions, Session
from edgeprof.worker.workload import Workload

if TYPE_CHECKING:
    from array import array


def require_no_depth(options: LoadOptions, lengths: Lengths, library: str) -> None:
    """Refuse options that need a cache to which tokens are appended.

    Raises:
        LoadError: ``--depth`` or ``--context`` was given, and the library has neither.
    """
    if lengths.depth or "context" in options.options:
        raise LoadError(
            "{} takes no --depth and no --context: each request begins with an empty cache of its own".format(library),
            "Leave them out.",
        )


class RequestSession(Session):
    """A model that answers whole requests; a subclass implements ``generate`` with its library."""

    def __init__(self, lengths: Lengths, facts: Dict[str, str]) -> None:
        self._lengths = lengths
        self._clock = TokenClock()
        self.facts = dict(facts, tokens="the prompt fixed beforehand, the answer greedy; no end of text ends a request")

    def generate(self, count: int, came: Optional[Callable[[], None]]) -> int:
        """Read the prompt and generate ``count`` tokens for each request of the batch.

        Args:
            count: How many tokens.
            came: Called for each token of the first request when it arrives; None if the times are not needed.

        Returns:
            How many tokens were generated for each request.
        """
        raise NotImplementedError

    def library_facts(self) -> Dict[str, Any]:
        """The entries of ``Session.language`` that the library knows."""
        return {}

    def workloads(self) -> Sequence[Workload]:
        return [workload for workload in self._lengths.workloads() if workload.name != "decode"]

    def run(self, feeds: Dict[str, Any]) -> Dict[str, Any]:  # noqa: ARG002 - the prompts are fixed
        self._request()
        return {"generated_tokens": np.array([self._lengths.generate])}

    def bind(self, feeds: Dict[str, Any]) -> Callable[[], Any]:  # noqa: ARG002 - as above
        return self._request

    def bind_workload(self, name: str, feeds: Dict[str, Any]) -> Callable[[], Any]:  # noqa: ARG002 - as above
        return {"request": self._request, "prefill": self._prefill}[name]

    def language(self) -> Optional[Dict[str, Any]]:
        return dict(self._lengths.language_facts(), method="requests", **self.library_facts())

    def take_token_times(self) -> "Tuple[array[int], array[float]]":
        return self._clock.take()

    def _prefill(self) -> None:
        self._require_count(self.generate(1, None), 1)

    def _request(self) -> None:
        self._clock.start()
        count = self.generate(self._lengths.generate, self._clock.token)
        self._clock.end()
        self._require_count(count, self._lengths.generate)

    def _require_count(self, count: int, asked: int) -> None:
        if count != asked:
            raise LoadError("a request ended after {} of {} tokens".format(count, asked), "Give a smaller --generate.")
