"""llama.cpp behind one small interface, by either of two Python packages.

Users compile ``llama-cpp-python`` for their CUDA or CPU; its low-level names are those of llama.h. ``cyllama`` is a
wheel of the same library for x86-64, which needs no compiler; its binding lacks an attribute for logits.
"""

import ctypes
import os
import re
from collections import deque
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from edgeprof.worker.language import log_probabilities
from edgeprof.worker.runtime import LoadError
from edgeprof.worker.token_engine import TokenEngine

#: ggml's number of a type of the KV cache → its name.
CACHE_TYPES = {0: "f32", 1: "f16", 2: "q4_0", 3: "q4_1", 6: "q5_0", 7: "q5_1", 8: "q8_0", 30: "bf16"}
#: Tokens of a text that are scored at once; the logits of each take 600 kB for a vocabulary of 152,000.
_SCORED_AT_ONCE = 64

#: The last lines of llama.cpp's log, the only place where it reports reasons.
_log: "deque[str]" = deque(maxlen=4000)
#: The callback that C code calls; it must outlive every model.
_callback: Any = None


class Settings(NamedTuple):
    """Settings with which a model is loaded.

    Attributes:
        context: Tokens in the KV cache for each sequence; llama.cpp rounds them up to a multiple of 256.
        threads: Threads for generating.
        prompt_threads: Threads for reading prompts.
        gpu: Number of the GPU for all layers; None: all layers stay on the CPU.
        sequences: Number of simultaneous requests.
        cache_type: ggml's number of the type of the KV cache; None: llama.cpp's default.
        is_mapped: Whether the file is mapped; otherwise its weights are read into memory.
    """

    context: int
    threads: int
    prompt_threads: int
    gpu: Optional[int]
    sequences: int = 1
    cache_type: Optional[int] = None
    is_mapped: bool = True

    @property
    def cells(self) -> int:
        """Tokens in the KV cache for all sequences together."""
        return self.sequences * -(-self.context // 256) * 256 if self.sequences > 1 else self.context


#: A token, its position, its sequence, and whether its logits are wanted.
Entry = Tuple[int, int, int, bool]


class LlamaEngine(TokenEngine):
    """The part that both packages share.

    Attributes:
        at_once: Most tokens of one batch.
    """

    at_once = 512

    def prepare(self, rows: Sequence[Sequence[int]], position: int) -> List[Any]:
        last = len(rows[0]) - 1
        entries = [
            (token, position + i, sequence, i == last)
            for sequence, row in enumerate(rows)
            for i, token in enumerate(row)
        ]
        return [self.pack(entries[start : start + self.at_once]) for start in range(0, len(entries), self.at_once)]

    def pack(self, entries: Sequence[Entry]) -> Any:
        """Make one batch for ``decode``."""
        raise NotImplementedError

    def rewind(self, position: int) -> bool:
        return all(self.remove(sequence, position) for sequence in range(self.sequences))

    def remove(self, sequence: int, position: int) -> bool:
        """Remove the tokens of one sequence from ``position`` on; return whether that was possible."""
        raise NotImplementedError

    def log_likelihoods(self, tokens: Sequence[int], first: int) -> List[float]:
        self.clear()
        likelihoods: List[float] = []
        for start in range(0, len(tokens) - 1, _SCORED_AT_ONCE):
            part = tokens[start : min(start + _SCORED_AT_ONCE, len(tokens) - 1)]
            wanted = [i for i in range(len(part)) if start + i >= first - 1]
            self.decode(self.pack([(token, start + i, 0, i in wanted) for i, token in enumerate(part)]))
            if wanted:
                rows = np.array([self.logits(i) for i in wanted], np.float32)
                likelihoods += log_probabilities(rows, [tokens[start + i + 1] for i in wanted])
        return likelihoods

    def text_tokens(self, text: str) -> "Tuple[Sequence[int], Optional[int]]":
        return self.tokenize(text), self.begin()

    def tokenize(self, text: str) -> List[int]:
        """Split a text into tokens, with those that the model requires before and after every text."""
        raise NotImplementedError

    def begin(self) -> Optional[int]:
        """The token that the model requires before every text; None: none."""
        raise NotImplementedError


class LlamaCppPython(LlamaEngine):
    """llama.cpp by the module ``llama_cpp`` of llama-cpp-python."""

    def __init__(self, path: str, settings: Settings) -> None:
        import llama_cpp

        self._library = library = llama_cpp
        self._model: Any = None
        self._context: Any = None
        _redirect_log(library)
        library.llama_backend_init()
        _require_gpu(settings, bool(library.llama_supports_gpu_offload()))
        _log.clear()
        params = library.llama_model_default_params()
        params.n_gpu_layers = 0 if settings.gpu is None else 9999
        params.main_gpu = settings.gpu or 0
        params.use_mmap = settings.is_mapped
        self._model = library.llama_model_load_from_file(os.fsencode(path), params)
        if not self._model:
            raise LoadError("{} cannot be loaded: {}".format(path, _failure_reason()))
        self._open(path, settings)

    def _open(self, path: str, settings: Settings) -> None:
        library = self._library
        params = library.llama_context_default_params()
        params.n_ctx = settings.cells
        params.n_threads, params.n_threads_batch = settings.threads, settings.prompt_threads
        params.n_seq_max = settings.sequences
        if settings.cache_type is not None:
            params.type_k = params.type_v = settings.cache_type
        # A build with CUDA would compute large batches on the GPU although every layer is on the CPU.
        params.offload_kqv = params.op_offload = settings.gpu is not None
        self._context = library.llama_init_from_model(self._model, params)
        if not self._context:
            self.close()
            raise _no_context(path, settings, _failure_reason())
        self._memory = library.llama_get_memory(self._context)
        if not self._memory:
            self.close()
            raise LoadError("{} is an encoder, which generates no tokens".format(path))
        self.at_once, self.sequences = int(library.llama_n_batch(self._context)), settings.sequences
        self.context = int(library.llama_n_ctx(self._context))
        self.trained_context = int(library.llama_model_n_ctx_train(self._model))
        self._vocabulary = library.llama_model_get_vocab(self._model)
        self.vocabulary = int(library.llama_vocab_n_tokens(self._vocabulary))
        self.cache_type = CACHE_TYPES.get(int(params.type_k), str(params.type_k))

    def pack(self, entries: Sequence[Entry]) -> Any:
        count = len(entries)
        library = self._library
        batch = library.llama_batch()
        sequence_of = [(library.llama_seq_id * 1)(sequence) for _, _, sequence, _ in entries]
        pointer = ctypes.POINTER(library.llama_seq_id)
        parts: Dict[str, Any] = {
            "token": (library.llama_token * count)(*(token for token, _, _, _ in entries)),
            "pos": (library.llama_pos * count)(*(position for _, position, _, _ in entries)),
            "n_seq_id": (ctypes.c_int32 * count)(*([1] * count)),
            "seq_id": (pointer * count)(*(ctypes.cast(sequence, pointer) for sequence in sequence_of)),
            "logits": (ctypes.c_int8 * count)(*(int(wanted) for _, _, _, wanted in entries)),
        }
        batch.n_tokens = count
        for name, values in parts.items():
            setattr(batch, name, values)
        batch.content = parts, sequence_of  # keeps the arrays alive, of which the batch has only the addresses
        return batch

    def logits(self, index: int) -> Any:
        pointer = self._library.llama_get_logits_ith(self._context, index)
        return np.array(np.ctypeslib.as_array(pointer, shape=(self.vocabulary,)))

    def tokenize(self, text: str) -> List[int]:
        data = text.encode()
        tokens = (self._library.llama_token * (len(data) + 8))()
        count = self._library.llama_tokenize(self._vocabulary, data, len(data), tokens, len(tokens), True, False)
        if count < 0:
            raise LoadError("the model's tokenizer makes more tokens of the text than it has bytes")
        return list(tokens[:count])

    def begin(self) -> Optional[int]:
        if not self._library.llama_vocab_get_add_bos(self._vocabulary):
            return None
        return int(self._library.llama_vocab_bos(self._vocabulary))

    def library_facts(self) -> Dict[str, Any]:
        return _logged_buffers()

    def decode(self, batch: Any) -> None:
        code = self._library.llama_decode(self._context, batch)
        if code:
            raise RuntimeError("llama_decode returned {}: {}".format(code, _failure_reason()))
        self._library.llama_synchronize(self._context)

    def clear(self) -> None:
        self._library.llama_memory_clear(self._memory, False)

    def remove(self, sequence: int, position: int) -> bool:
        return bool(self._library.llama_memory_seq_rm(self._memory, sequence, position, -1))

    def close(self) -> None:
        context, self._context = self._context, None
        model, self._model = self._model, None
        if context:
            self._library.llama_free(context)
        if model:
            self._library.llama_model_free(model)


class Cyllama(LlamaEngine):
    """llama.cpp by the module ``cyllama.llama.llama_cpp``."""

    def __init__(self, path: str, settings: Settings) -> None:
        from cyllama.llama import llama_cpp

        self._library = library = llama_cpp
        self._model: Any = None
        self._context: Any = None
        library.disable_logging()  # with a Python callback the interpreter would crash at exit
        library.llama_backend_init()
        _require_gpu(settings, bool(library.llama_supports_gpu_offload()))
        params = library.LlamaModelParams()
        params.n_gpu_layers = 0 if settings.gpu is None else 9999
        params.use_mmap = settings.is_mapped
        try:
            self._model = _countable_model_class(library.LlamaModel)(path, params)
        except (ValueError, RuntimeError, OSError) as error:
            raise LoadError("{} cannot be loaded: {}".format(path, _error_sentence(error))) from None
        self._open(path, settings)

    def _open(self, path: str, settings: Settings) -> None:
        params = self._library.LlamaContextParams()
        params.n_ctx = settings.cells
        params.n_threads, params.n_threads_batch = settings.threads, settings.prompt_threads
        params.n_seq_max = settings.sequences
        if settings.cache_type is not None:
            params.type_k = params.type_v = settings.cache_type
        params.offload_kqv = params.op_offload = settings.gpu is not None
        try:
            self._context = self._library.LlamaContext(self._model, params)
        except (ValueError, RuntimeError, MemoryError) as error:
            self.close()
            raise _no_context(path, settings, _error_sentence(error)) from None
        self.at_once, self.sequences = int(self._context.n_batch), settings.sequences
        self.context = int(self._context.n_ctx)
        self.trained_context = int(self._model.n_ctx_train)
        self._vocabulary = self._model.get_vocab()
        self.vocabulary = int(self._vocabulary.n_vocab)
        self.cache_type = CACHE_TYPES.get(int(params.type_k), str(params.type_k))

    def pack(self, entries: Sequence[Entry]) -> Any:
        batch = self._library.LlamaBatch(n_tokens=len(entries), embd=0, n_seq_max=1)
        for token, position, sequence, wanted in entries:
            batch.add(token, position, [sequence], wanted)
        return batch

    def logits(self, index: int) -> Any:
        return np.array(self._context.get_logits_ith(index), np.float32)

    def tokenize(self, text: str) -> List[int]:
        return [int(token) for token in self._vocabulary.tokenize(text, True, False)]

    def begin(self) -> Optional[int]:
        return int(self._vocabulary.token_bos()) if self._vocabulary.get_add_bos() else None

    def decode(self, batch: Any) -> None:
        self._context.decode(batch)
        self._context.synchronize()

    def clear(self) -> None:
        self._context.kv_cache_clear(False)  # the data of the cache are not cleared, as in llama-bench

    def remove(self, sequence: int, position: int) -> bool:
        return bool(self._context.memory_seq_rm(sequence, position, -1))

    def close(self) -> None:
        context, self._context = self._context, None
        model, self._model = self._model, None
        if context is not None:
            context.close()
        if model is not None:
            model.close()


def _countable_model_class(model_class: Any) -> Any:
    """The class of cyllama's models, with the attribute ``n_vocab`` that its own ``get_logits_ith`` needs."""

    class Model(model_class):  # type: ignore[misc] # its base is known at run time only
        @property
        def n_vocab(self) -> int:
            return int(self.get_vocab().n_vocab)

    return Model


def _logged_buffers() -> Dict[str, int]:
    """The sizes of the buffers of the last context on all devices (bytes), from the log, since no call returns them."""
    sizes: Dict[str, int] = {}
    for name, size in re.findall(r"(KV|compute) buffer size\s*=\s*([\d.]+) MiB", "".join(_log)):
        key = {"KV": "kv_cache_bytes", "compute": "compute_buffer_bytes"}[name]
        sizes[key] = sizes.get(key, 0) + round(float(size) * 2**20)
    return sizes


def _require_gpu(settings: Settings, supported: bool) -> None:
    if settings.gpu is not None and not supported:
        raise LoadError(
            "this llama.cpp is built only for the CPU",
            "Build it for your GPU: CMAKE_ARGS=-DGGML_CUDA=on pip install llama-cpp-python.",
        )


def _no_context(path: str, settings: Settings, reason: str) -> LoadError:
    if settings.cache_type is not None:
        kind = CACHE_TYPES[settings.cache_type]
        return LoadError(
            "no cache of {1} tokens of type {2} can be made for {0}: {3}".format(path, settings.context, kind, reason),
            "Leave --kv out: a quantised cache needs flash attention, and heads as wide as its type's blocks.",
        )
    return LoadError(
        "no context of {1} tokens can be made for {0}: {2}".format(path, settings.context, reason),
        "Give shorter requests (--prompt, --depth, --generate) or a smaller --context.",
    )


def _redirect_log(library: Any) -> None:
    """Redirect llama.cpp's log into ``_log``: it contains the reasons of failures among hundreds of other lines."""
    global _callback  # noqa: PLW0603 - the library has one callback
    if _callback is None:
        _callback = library.llama_log_callback(_keep_log_line)
    library.llama_log_set(_callback, ctypes.c_void_p(0))


def _keep_log_line(_level: int, text: Optional[bytes], _data: Any) -> None:
    _log.append((text or b"").decode("utf-8", "replace"))


def _failure_reason() -> str:
    """The reason of a failure, from the log."""
    for line in reversed(_log):
        if "error loading model: " in line:
            return line.partition("error loading model: ")[2].strip()
    telling = [line.strip() for line in _log if line.startswith("gguf_init_from")]
    telling += [line.strip() for line in _log if "error" in line.lower() or "failed" in line.lower()]
    return telling[0] if telling else "llama.cpp does not say why"


def _error_sentence(error: BaseException) -> str:
    """The message of an exception, without its advice on the package's own interface."""
    sentence = re.split(r" Run with verbose|\. Common causes:", " ".join(str(error).split()))[0]
    return sentence or type(error).__name__
