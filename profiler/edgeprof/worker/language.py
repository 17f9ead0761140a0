"""What all runtimes of language models share: the lengths of requests, and the times at which tokens arrive.

A request reads ``prompt`` tokens and generates ``generate`` tokens. The first of them comes out of reading the prompt,
so a request decodes ``generate`` − 1 times (vLLM, AIPerf and TokenPowerBench count alike); that many output tokens are
one call of the workload ``decode``, and ``prefill`` + ``decode`` are the parts of one ``request``.

Python 3.6 grammar, the standard library and numpy.
"""

import time
from array import array
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from edgeprof.worker.runtime import LoadError, LoadOptions
from edgeprof.worker.workload import Workload

#: The defaults of llama-bench: a prompt of 512 tokens and 128 generated ones.
PROMPT, GENERATE = 512, 128
#: The options that set the lengths of requests; ``--prompt N`` sets the option ``prompt`` and so on. ``chunk`` is how
#: many tokens of a text are read at once when its perplexity is measured.
LENGTHS = ("prompt", "generate", "depth", "context", "chunk")
#: The largest value of each: ten times the longest context of any model.
MOST_TOKENS = 100 * 1000 * 1000


class Lengths(NamedTuple):
    """The lengths of requests, in tokens.

    Attributes:
        prompt: Tokens that a request reads.
        generate: Tokens that it generates, the first of them from reading the prompt.
        depth: Tokens that are in the cache before the request begins.
        context: Tokens that the cache must hold for each request; None for as many as are needed.
        chunk: Tokens of a text that are read at once for its perplexity; 0 if no perplexity is measured.
        batch: How many requests are read and answered at once.
    """

    prompt: int = PROMPT
    generate: int = GENERATE
    depth: int = 0
    context: Optional[int] = None
    chunk: int = 0
    batch: int = 1

    @property
    def length(self) -> int:
        """Tokens of a whole request, including those in the cache before it."""
        return self.depth + self.prompt + self.generate

    @property
    def needed(self) -> int:
        """Tokens that the cache must hold for each request."""
        return max(self.length, self.chunk)

    @property
    def decodes(self) -> int:
        """Output tokens that are decoded one by one; the first one comes out of reading the prompt."""
        return self.generate - 1

    def workloads(self) -> List[Workload]:
        """The workloads of a language model: a request, which is the main one, and its two phases."""
        phases = [Workload("prefill", "prompt token", self.prompt * self.batch)]
        if self.decodes:
            phases.append(Workload("decode", "output token", self.decodes * self.batch))
        return [Workload("request", "request", self.batch), *phases]

    def language_facts(self) -> Dict[str, Any]:
        """The part of ``Session.language`` that is known before a model is loaded."""
        return {
            "prompt_tokens": self.prompt,
            "generated_tokens": self.generate,
            "depth": self.depth,
            "batch": self.batch,
            "context": self.context,
            "kv_type": None,
        }


def read_lengths(options: LoadOptions, others: Sequence[str] = (), *, batches: bool = False) -> Lengths:
    """Read the lengths of requests from the options, with defaults for those that are missing.

    Args:
        options: How the model is to be loaded.
        others: The names of further options that the runtime has.
        batches: Whether the runtime can answer several requests at once.

    Raises:
        LoadError: a length is no number or too small, an option is unknown, or a batch holds more than one request
            where the runtime has none.
    """
    unknown = sorted(set(options.options) - set(LENGTHS) - set(others))
    if unknown:
        raise LoadError(
            "there is no option {} for a language model".format(unknown[0]),
            "Its options are {}.".format(", ".join(sorted(LENGTHS + tuple(others)))),
        )
    if options.batch != 1 and not batches:
        raise LoadError(
            "a language model is asked one request at a time here, and --batch {} asks for more".format(options.batch),
            "Leave --batch out.",
        )
    least = {"prompt": 1, "generate": 1, "depth": 0, "context": 1, "chunk": 0}
    given = {"batch": options.batch}
    for name in LENGTHS:
        if name in options.options:
            given[name] = _read_count(name, options.options[name], least[name])
    lengths = Lengths(**given)
    if lengths.context is not None and lengths.context < lengths.length:
        raise LoadError(
            "a prompt of {} tokens and {} generated ones at a depth of {} need a context of {} tokens, and "
            "--context is {}".format(lengths.prompt, lengths.generate, lengths.depth, lengths.length, lengths.context),
            "Give --context {} or shorter requests.".format(lengths.length),
        )
    return lengths


def _read_count(name: str, text: str, least: int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if not least <= number <= MOST_TOKENS:
        raise LoadError("--{} {} is no number of tokens from {} on".format(name, text, least), "As: --prompt 512.")
    return number


def fixed_tokens(lengths: Lengths, vocabulary: int) -> List[List[int]]:
    """Random tokens that are the same in every run: one row of ``lengths.length`` for each request of a batch."""
    drawn = np.random.RandomState(0).randint(0, max(1, vocabulary), (lengths.batch, lengths.length))
    return [[int(token) for token in row] for row in drawn]


def log_probabilities(logits: Any, tokens: Sequence[int]) -> List[float]:
    """The natural logarithm of the probability of each token under its row of logits.

    Args:
        logits: Shape ``(len(tokens), vocabulary)``, of any float type.
        tokens: The token that follows each row's position.
    """
    rows = np.asarray(logits, np.float64)
    # The highest logit is subtracted first, so that no exponential overflows (the log-sum-exp identity).
    highest = rows.max(axis=1, keepdims=True)
    total = highest[:, 0] + np.log(np.exp(rows - highest).sum(axis=1))
    chosen = rows[np.arange(len(tokens)), np.asarray(tokens, np.int64)]
    return [float(value) for value in chosen - total]


class TokenClock:
    """Records when the tokens of requests arrive, for TTFT, TPOT and ITL.

    It costs one reading of the clock and one store for each token. Requests beyond ``LIMIT`` tokens are dropped.
    """

    #: How many tokens are kept until ``take`` is called (1.6 MB).
    LIMIT = 200 * 1000

    def __init__(self) -> None:
        self._seconds = array("d")
        self._counts = array("q")
        self._start_s = 0.0
        self._before = 0

    def start(self) -> None:
        """Note that a request is sent now."""
        self._before = len(self._seconds)
        self._start_s = time.monotonic()

    def token(self) -> None:
        """Note that a token arrived now."""
        self._seconds.append(time.monotonic() - self._start_s)

    def token_at(self, time_s: float) -> None:
        """Note a token that arrived at a time of CLOCK_MONOTONIC, such as one of several in a message."""
        self._seconds.append(time_s - self._start_s)

    def end(self) -> None:
        """Note that the request is complete."""
        if len(self._seconds) > self.LIMIT:
            del self._seconds[self._before :]
        else:
            self._counts.append(len(self._seconds) - self._before)

    def take(self) -> "Tuple[array[int], array[float]]":
        """Return and forget what was recorded.

        Returns:
            How many tokens each request had, and the seconds from the start of its request to each token.
        """
        taken = self._counts, self._seconds
        self._counts, self._seconds = array("q"), array("d")
        return taken
