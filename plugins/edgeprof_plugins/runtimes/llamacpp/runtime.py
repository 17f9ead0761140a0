"""GGUF language models by llama.cpp.

A model is asked for a ``request``, and apart from it for its two phases: ``prefill`` reads a prompt of fixed length
into an empty cache (or one of ``--depth`` tokens), ``decode`` appends tokens one at a time behind such a prompt and
takes them back before the next call (some 12 µs for all of them). The tokens are fixed beforehand, as llama-bench's
are: nothing is tokenized or sampled, no end of text ends a request early, and no prompt comes from a cache of prompts.
"""

import glob
import os
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np

from edgeprof import hookimpl
from edgeprof.worker.language import Lengths, TokenClock, read_lengths
from edgeprof.worker.runtime import (
    Availability,
    LoadError,
    LoadOptions,
    Runtime,
    Session,
    install_command,
    library_version,
)
from edgeprof.worker.workload import Workload

from .engines import Cyllama, Engine, LlamaCppPython, Settings

if TYPE_CHECKING:
    from array import array

#: Module → (its distribution, its engine), the preferred one first.
_ENGINES: "Tuple[Tuple[str, str, Any], ...]" = (
    ("llama_cpp", "llama-cpp-python", LlamaCppPython),
    ("cyllama", "cyllama", Cyllama),
)


class LlamaCpp(Runtime):
    name = "llamacpp"
    formats = ("gguf",)
    libraries = tuple(module for module, _, _ in _ENGINES)
    is_for_language = True
    concurrent = False

    def availability(self) -> Availability:
        for module, distribution, _ in _ENGINES:
            version = library_version(module, distribution)
            if version is not None:
                return Availability(version, None, None)
        return Availability(
            None,
            "llama-cpp-python is not installed",
            install_command("llamacpp", "llama-cpp-python") + " (it is compiled: CMAKE_ARGS=-DGGML_CUDA=on for a GPU)",
        )

    def devices(self) -> List[str]:
        distribution, _ = _engine(None)
        if distribution.startswith("cyllama"):
            from cyllama.llama.llama_cpp import llama_supports_gpu_offload
        else:
            from llama_cpp import llama_supports_gpu_offload
        return ["cpu", "cuda"] if llama_supports_gpu_offload() else ["cpu"]

    def load(self, path: str, options: LoadOptions) -> Session:
        lengths = read_lengths(options, others=("library",))
        if not os.path.isfile(path) or not os.path.getsize(path):
            raise LoadError("{} is missing or empty".format(path))
        distribution, engine = _engine(options.options.get("library"))
        threads = options.threads or _physical_cores()
        settings = Settings(lengths.context or lengths.needed, threads, _gpu(options.device))
        facts = {
            "library": distribution,
            "threads": str(threads),
            "layers on": "CPU" if settings.gpu is None else "GPU",
        }
        return LlamaCppSession(path, engine(path, settings), lengths, facts)


class LlamaCppSession(Session):
    """A model with a context of fixed length, and the batches of its requests."""

    def __init__(self, path: str, engine: Engine, lengths: Lengths, facts: Dict[str, str]) -> None:
        self._engine, self._lengths = engine, lengths
        self._clock = TokenClock()
        self._filled = 0  # tokens in the cache
        prompt_end = lengths.depth + lengths.prompt
        tokens = _fixed_tokens(lengths.needed, engine.vocabulary)
        self._before = engine.prepare(tokens[: lengths.depth], 0)
        self._prompt = engine.prepare(tokens[lengths.depth : prompt_end], lengths.depth)
        self._steps = [engine.prepare([tokens[at]], at)[0] for at in range(prompt_end, prompt_end + lengths.decodes)]
        self._can_rewind = self._try_rewinding(tokens)
        if lengths.depth and not self._can_rewind:
            engine.close()
            raise LoadError(
                "{} keeps a state instead of a cache, which cannot be taken back to a depth".format(path),
                "Leave --depth out.",
            )
        self.facts = dict(facts, **self._facts())

    def _facts(self) -> Dict[str, str]:
        engine = self._engine
        context = "{} tokens".format(engine.context)
        if self._lengths.needed > engine.trained_context > 0:
            context += ", beyond the {} that the model was trained for".format(engine.trained_context)
        facts = {"context": context, "tokens": "fixed beforehand: not sampled, and none ends a request early"}
        if not self._can_rewind:
            facts["decode"] = "not measured apart: the model keeps a state that cannot be taken back"
        return facts

    def _try_rewinding(self, tokens: Sequence[int]) -> bool:
        engine = self._engine
        for batch in engine.prepare(tokens[:2], 0):
            engine.decode(batch)
        able = engine.rewind(1)
        engine.clear()
        return able

    def workloads(self) -> Sequence[Workload]:
        return [workload for workload in self._lengths.workloads() if self._can_rewind or workload.name != "decode"]

    def run(self, feeds: Dict[str, Any]) -> Dict[str, Any]:  # noqa: ARG002 - its tokens are fixed
        self._request()
        token, logits = self._engine.next_token()
        outputs = {"next_token": np.array([token], np.int64)}
        return outputs if logits is None else dict(outputs, logits=logits)

    def bind(self, feeds: Dict[str, Any]) -> Callable[[], Any]:  # noqa: ARG002 - its tokens are fixed
        return self._request

    def bind_workload(self, name: str, feeds: Dict[str, Any]) -> Callable[[], Any]:  # noqa: ARG002 - its tokens are fixed
        if name == "decode":
            self._prefill()  # a decode brings itself back to the end of the prompt, which must be there
        calls = {"request": self._request, "prefill": self._prefill, "decode": self._decode}
        return calls[name]

    def language(self) -> Optional[Dict[str, Any]]:
        lengths = self._lengths
        return {
            "prompt_tokens": lengths.prompt,
            "generated_tokens": lengths.generate,
            "depth": lengths.depth,
            "context": self._engine.context,
            "kv_type": self._engine.cache_type,
            "method": "phase-windows" if self._can_rewind else "requests",
        }

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
        self._filled = self._lengths.needed - 1

    def _request(self) -> None:
        decode, token = self._engine.decode, self._clock.token
        self._clock.start()
        self._prefill()
        token()
        for batch in self._steps:
            decode(batch)
            token()
        self._clock.end()
        self._filled = self._lengths.needed - 1

    def close(self) -> None:
        self._before, self._prompt, self._steps = [], [], []
        self._engine.close()


def _engine(asked: Optional[str]) -> Tuple[str, Any]:
    """The package that is asked for, or the first that is installed: what it is called and its engine.

    Raises:
        LoadError: there is no such package, or it is not installed.
    """
    if asked is not None and asked not in [module for module, _, _ in _ENGINES]:
        raise LoadError("there is no library {} for GGUF models".format(asked), "As: --option library=cyllama.")
    for module, distribution, engine in _ENGINES:
        version = library_version(module, distribution)
        if version is not None and asked in (None, module):
            return "{} {}".format(distribution, version), engine
    raise LoadError("{} is not installed".format(asked or "llama-cpp-python"))


def _gpu(device: str) -> Optional[int]:
    """The number of the GPU that a device names; None for the CPU.

    Raises:
        LoadError: there is no such device.
    """
    name, _, number = device.partition(":")
    if device == "cpu":
        return None
    if name in ("cuda", "gpu") and (number or "0").isdigit():
        return int(number or 0)
    raise LoadError("llama.cpp has no device {}".format(device), "Its devices are cpu, cuda and cuda:N.")


def _physical_cores() -> int:
    """The cores that this process may use, hyper-threads counted once: ggml's threads spin at barriers."""
    allowed = os.sched_getaffinity(0)
    siblings = set()
    for path in glob.glob("/sys/devices/system/cpu/cpu[0-9]*/topology/thread_siblings_list"):
        if int(path.split("/")[5][3:]) in allowed:
            with open(path) as file:
                siblings.add(file.read().strip())
    return len(siblings) or len(allowed)


def _fixed_tokens(count: int, vocabulary: int) -> List[int]:
    """Tokens without meaning, the same each time."""
    return [int(token) for token in np.random.RandomState(0).randint(0, max(1, vocabulary), count)]


@hookimpl
def register_runtimes(register: Callable[..., None]) -> None:
    register("llamacpp", LlamaCpp)
