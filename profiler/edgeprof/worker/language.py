"""What every runtime of language models shares: how long requests are, and when their tokens came.

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

#: As llama-bench has them: a prompt of 512 tokens and 128 generated ones.
PROMPT, GENERATE = 512, 128
#: The options that say how long requests are; ``--prompt N`` is the option ``prompt`` and so on. ``chunk`` is how many
#: tokens of a text are read at once where its perplexity is asked for.
LENGTHS = ("prompt", "generate", "depth", "context", "chunk")
#: The most that is accepted of each: ten times the longest context of a model.
MOST_TOKENS = 100 * 1000 * 1000


class Lengths(NamedTuple):
    """How long requests are, in tokens.

    Attributes:
        prompt: Tokens that a request reads.
        generate: Tokens that it generates, the first of them from reading the prompt.
        depth: Tokens that are in the cache before it begins.
        context: Tokens that the cache is to hold for each request; None: as many as are needed.
        chunk: Tokens of a text that are read at once for its perplexity; 0: none is asked for.
        batch: Requests that are read and answered at once.
    """

    prompt: int = PROMPT
    generate: int = GENERATE
    depth: int = 0
    context: Optional[int] = None
    chunk: int = 0
    batch: int = 1

    @property
    def length(self) -> int:
        """Tokens of a whole request, with those before it."""
        return self.depth + self.prompt + self.generate

    @property
    def needed(self) -> int:
        """Tokens that the cache must hold for each request."""
        return max(self.length, self.chunk)

    @property
    def decodes(self) -> int:
        """Output tokens that are decoded after the prompt was read."""
        return self.generate - 1

    def workloads(self) -> List[Workload]:
        """A request, the main one, and its two phases."""
        phases = [Workload("prefill", "prompt token", self.prompt * self.batch)]
        if self.decodes:
            phases.append(Workload("decode", "output token", self.decodes * self.batch))
        return [Workload("request", "request", self.batch), *phases]

    def asked(self) -> Dict[str, Any]:
        """What of ``Session.language`` is known before a model is loaded."""
        return {
            "prompt_tokens": self.prompt,
            "generated_tokens": self.generate,
            "depth": self.depth,
            "batch": self.batch,
            "context": self.context,
            "kv_type": None,
        }


def read_lengths(options: LoadOptions, others: Sequence[str] = (), *, batches: bool = False) -> Lengths:
    """The lengths that were asked for, with defaults for the rest.

    Args:
        options: How the model is to be loaded.
        others: The names of the options that the runtime has besides.
        batches: Whether the runtime answers several requests at once.

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
    """Tokens without meaning, the same each time: one row for each request of a batch, ``lengths.length`` long."""
    drawn = np.random.RandomState(0).randint(0, max(1, vocabulary), (lengths.batch, lengths.length))
    return [[int(token) for token in row] for row in drawn]


def log_probabilities(logits: Any, tokens: Sequence[int]) -> List[float]:
    """The natural logarithm of the probability of each token under its row of logits.

    Args:
        logits: Shape ``(len(tokens), vocabulary)``, of any float type.
        tokens: The token that follows each row's position.
    """
    rows = np.asarray(logits, np.float64)
    highest = rows.max(axis=1, keepdims=True)
    total = highest[:, 0] + np.log(np.exp(rows - highest).sum(axis=1))
    chosen = rows[np.arange(len(tokens)), np.asarray(tokens, np.int64)]
    return [float(value) for value in chosen - total]


class TokenClock:
    """The times at which the tokens of requests came, for TTFT, TPOT and ITL.

    It costs a reading of the clock and a store for each token. What is beyond ``LIMIT`` is not kept.
    """

    #: Tokens that are kept until they are taken (1.6 MB).
    LIMIT = 200 * 1000

    def __init__(self) -> None:
        self._seconds = array("d")
        self._counts = array("q")
        self._start_s = 0.0
        self._before = 0

    def start(self) -> None:
        """A request is sent."""
        self._before = len(self._seconds)
        self._start_s = time.monotonic()

    def token(self) -> None:
        """A token came."""
        self._seconds.append(time.monotonic() - self._start_s)

    def token_at(self, time_s: float) -> None:
        """A token came at a time of CLOCK_MONOTONIC, or several tokens in one message."""
        self._seconds.append(time_s - self._start_s)

    def end(self) -> None:
        """The request is complete."""
        if len(self._seconds) > self.LIMIT:
            del self._seconds[self._before :]
        else:
            self._counts.append(len(self._seconds) - self._before)

    def take(self) -> "Tuple[array[int], array[float]]":
        """What came since it was last taken: the tokens of each request, and the seconds from its beginning to each."""
        taken = self._counts, self._seconds
        self._counts, self._seconds = array("q"), array("d")
        return taken
