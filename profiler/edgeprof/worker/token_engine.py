"""The session of language runtimes that append tokens to a cache, and the engine that each library implements for it.

A session offers a ``request`` and, as workloads of their own, its two phases: ``prefill`` reads a prompt of fixed
length into an empty cache (or behind ``--depth`` tokens), ``decode`` appends tokens one at a time behind such a prompt
and takes them back before the next call. The tokens are fixed beforehand, as in llama-bench: nothing is tokenized or
sampled, no end of text ends a request early, and no prompt comes from a cache of prompts.

Python 3.6 grammar, the standard library and numpy.
"""

from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np

from edgeprof.worker.language import Lengths, TokenClock, fixed_tokens
from edgeprof.worker.runtime import LoadError, Session
from edgeprof.worker.workload import Workload

if TYPE_CHECKING:
    from array import array


class TokenEngine:
    """A model and its cache. ``decode`` appends tokens to its sequences.

    Attributes:
        vocabulary: How many tokens the model knows.
        context: How many tokens its cache holds, over all sequences; 0 if the cache grows as needed.
        trained_context: The context length that it was trained for, in tokens; 0 if unknown.
        cache_type: The type of the numbers in the cache; None if unknown.
        sequences: How many requests it processes at once.
    """

    vocabulary = 0
    context = 0
    trained_context = 0
    cache_type: Optional[str] = None
    sequences = 1

    def prepare(self, rows: Sequence[Sequence[int]], position: int) -> List[Any]:
        """Make batches that append one row of tokens to each sequence, beginning at ``position`` of the cache.

        The logits of the last token of each row are kept.
        """
        raise NotImplementedError

    def decode(self, batch: Any) -> None:
        """Append the tokens of one batch, and wait until it is done."""
        raise NotImplementedError

    def clear(self) -> None:
        """Forget all tokens."""
        raise NotImplementedError

    def rewind(self, position: int) -> bool:
        """Forget the tokens from a position on; False if the model cannot, such as a recurrent one without a cache."""
        raise NotImplementedError

    def logits(self, index: int) -> Any:
        """The logits kept for one token of the last batch (-1: the last of them), of shape ``(vocabulary,)``."""
        raise NotImplementedError

    def text_tokens(self, text: str) -> "Optional[Tuple[Sequence[int], Optional[int]]]":  # noqa: ARG002 - for those that can
        """As ``Session.text_tokens``."""
        return None

    def log_likelihoods(self, tokens: Sequence[int], first: int) -> Sequence[float]:
        """As ``Session.log_likelihoods``."""
        raise NotImplementedError

    def library_facts(self) -> Dict[str, Any]:
        """The entries of ``Session.language`` that the library knows: ``kv_cache_bytes``, ``parameters`` and so on."""
        return {}

    def close(self) -> None:
        """Release memory and devices; safe to call twice."""
        raise NotImplementedError


class EngineSession(Session):
    """The session of a language model: an engine and the prepared batches of its requests."""

    def __init__(self, path: str, engine: TokenEngine, lengths: Lengths, facts: Dict[str, str]) -> None:
        self._engine, self._lengths = engine, lengths
        self._clock = TokenClock()
        self._filled = 0  # tokens in the cache
        prompt_end = lengths.depth + lengths.prompt
        rows = fixed_tokens(lengths, engine.vocabulary)
        before, prompt = [row[: lengths.depth] for row in rows], [row[lengths.depth : prompt_end] for row in rows]
        self._before = engine.prepare(before, 0) if lengths.depth else []
        self._prompt = engine.prepare(prompt, lengths.depth)
        self._steps: List[Any] = []
        for at in range(prompt_end, prompt_end + lengths.decodes):
            self._steps += engine.prepare([[row[at]] for row in rows], at)
        if lengths.context is None and lengths.length > engine.trained_context > 0:
            engine.close()
            raise LoadError(
                "a request of {} tokens is beyond the context of {}, which is {}".format(
                    lengths.length, path, engine.trained_context
                ),
                "Give shorter requests, or --context {} to go beyond what the model was trained for.".format(
                    lengths.length
                ),
            )
        self._can_rewind = self._try_rewinding(rows)
        if lengths.depth and not self._can_rewind:
            engine.close()
            raise LoadError(
                "{} keeps a state instead of a cache, which cannot be taken back to a depth".format(path),
                "Leave --depth out.",
            )
        self.facts = dict(facts, **self._facts())

    def _facts(self) -> Dict[str, str]:
        engine = self._engine
        context = "{} tokens".format(engine.context) if engine.context else "as long as is needed"
        if self._lengths.length > engine.trained_context > 0:
            context += ", beyond the {} that the model was trained for".format(engine.trained_context)
        facts = {"context": context, "tokens": "fixed beforehand: not sampled, and none ends a request early"}
        if not self._can_rewind:
            facts["decode"] = "not measured apart: the model keeps a state that cannot be taken back"
        return facts

    def _try_rewinding(self, rows: Sequence[Sequence[int]]) -> bool:
        engine = self._engine
        for batch in engine.prepare([row[:2] for row in rows], 0):
            engine.decode(batch)
        able = engine.rewind(1)
        engine.clear()
        return able

    def workloads(self) -> Sequence[Workload]:
        return [workload for workload in self._lengths.workloads() if self._can_rewind or workload.name != "decode"]

    def run(self, feeds: Dict[str, Any]) -> Dict[str, Any]:  # noqa: ARG002 - its tokens are fixed
        self._request()
        logits = self._engine.logits(-1)
        return {"next_token": np.array([logits.argmax()], np.int64), "logits": logits}

    def bind(self, feeds: Dict[str, Any]) -> Callable[[], Any]:  # noqa: ARG002 - its tokens are fixed
        return self._request

    def bind_workload(self, name: str, feeds: Dict[str, Any]) -> Callable[[], Any]:  # noqa: ARG002 - its tokens are fixed
        if name == "decode":
            self._prefill()  # a decode brings itself back to the end of the prompt, which must be there
        calls = {"request": self._request, "prefill": self._prefill, "decode": self._decode}
        return calls[name]

    def language(self) -> Optional[Dict[str, Any]]:
        return dict(
            self._lengths.language_facts(),
            context=self._engine.context or None,
            kv_type=self._engine.cache_type,
            method="phase-windows" if self._can_rewind else "requests",
            **self._engine.library_facts(),
        )

    def text_tokens(self, text: str) -> "Optional[Tuple[Sequence[int], Optional[int]]]":
        return self._engine.text_tokens(text)

    def log_likelihoods(self, tokens: Sequence[int], first: int) -> Sequence[float]:
        self._filled = 0
        return self._engine.log_likelihoods(tokens, first)

    def take_token_times(self) -> "Tuple[array[int], array[float]]":
        return self._clock.take()

    def _begin(self) -> None:
        """Bring the cache to the depth at which a request begins."""
        depth = self._lengths.depth
        if depth and self._filled >= depth:
            self._engine.rewind(depth)
            return
        self._engine.clear()
        for batch in self._before:
            self._engine.decode(batch)

    def _prefill(self) -> None:
        decode = self._engine.decode
        self._begin()
        for batch in self._prompt:
            decode(batch)
        self._filled = self._lengths.depth + self._lengths.prompt

    def _decode(self) -> None:
        decode = self._engine.decode
        self._engine.rewind(self._lengths.depth + self._lengths.prompt)
        for batch in self._steps:
            decode(batch)
        self._filled = self._lengths.length - 1

    def _request(self) -> None:
        decode, token = self._engine.decode, self._clock.token
        self._clock.start()
        self._prefill()
        token()
        for batch in self._steps:
            decode(batch)
            token()
        self._clock.end()
        self._filled = self._lengths.length - 1

    def close(self) -> None:
        self._before, self._prompt, self._steps = [], [], []
        self._engine.close()
