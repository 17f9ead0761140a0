"""llama.cpp behind one small interface, by whichever Python package brings it.

``llama-cpp-python`` is what users compile for their CUDA or CPU; its low-level names are llama.h's own. ``cyllama`` is
a wheel of the same library for x86-64, which needs no compiler; it hands out no logits.
"""

import ctypes
import os
from collections import deque
from typing import Any, List, NamedTuple, Optional, Sequence

import numpy as np

from edgeprof.worker.runtime import LoadError

#: ggml's numbers of the types that a KV cache can have.
_CACHE_TYPES = {0: "f32", 1: "f16", 2: "q4_0", 3: "q4_1", 6: "q5_0", 7: "q5_1", 8: "q8_0", 30: "bf16"}

#: What llama.cpp has logged lately: its reasons reach nobody else.
_log: "deque[str]" = deque(maxlen=400)
#: The callback that C code calls: it must outlive every model.
_callback: Any = None


class Settings(NamedTuple):
    """How a model is loaded.

    Attributes:
        context: Tokens that the KV cache holds; llama.cpp rounds them up to a multiple of 256.
        threads: For reading prompts and for generating.
        gpu: The number of the GPU that holds all layers; None: all stay on the CPU.
    """

    context: int
    threads: int
    gpu: Optional[int]


class Engine:
    """A model and its context. One token sequence; ``decode`` appends to it.

    Attributes:
        vocabulary: Tokens that the model knows.
        context: Tokens that its KV cache holds.
        trained_context: Tokens that it was trained for.
        cache_type: Of the numbers in the KV cache.
    """

    vocabulary = 0
    context = 0
    trained_context = 0
    cache_type = "f16"

    def prepare(self, tokens: Sequence[int], position: int) -> List[Any]:
        """Batches that append these tokens at a position, each as large as llama.cpp takes them at once."""
        raise NotImplementedError

    def decode(self, batch: Any) -> None:
        """Append the tokens of one batch, and wait until it is done."""
        raise NotImplementedError

    def clear(self) -> None:
        """Forget all tokens."""
        raise NotImplementedError

    def rewind(self, position: int) -> bool:
        """Forget the tokens from a position on; False where the model cannot (a recurrent one keeps no cache)."""
        raise NotImplementedError

    def next_token(self) -> "tuple[int, Any]":
        """The likeliest token after the last one, and all logits (None where the package hands out none)."""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


class LlamaCppPython(Engine):
    """llama.h as llama-cpp-python's ``llama_cpp`` module has it."""

    def __init__(self, path: str, settings: Settings) -> None:
        import llama_cpp

        self._library = library = llama_cpp
        self._model: Any = None
        self._context: Any = None
        _listen(library)
        library.llama_backend_init()
        _require_gpu(settings, bool(library.llama_supports_gpu_offload()))
        _log.clear()
        params = library.llama_model_default_params()
        params.n_gpu_layers = 0 if settings.gpu is None else 9999
        params.main_gpu = settings.gpu or 0
        self._model = library.llama_model_load_from_file(os.fsencode(path), params)
        if not self._model:
            raise LoadError("{} cannot be loaded: {}".format(path, _reason()))
        self._open(path, settings)

    def _open(self, path: str, settings: Settings) -> None:
        library = self._library
        params = library.llama_context_default_params()
        params.n_ctx = settings.context
        params.n_threads = params.n_threads_batch = settings.threads
        # A build with CUDA would compute large batches on the GPU although every layer is on the CPU.
        params.offload_kqv = params.op_offload = settings.gpu is not None
        self._context = library.llama_init_from_model(self._model, params)
        if not self._context:
            self.close()
            raise _no_context(path, settings, _reason())
        self._memory = library.llama_get_memory(self._context)
        if not self._memory:
            self.close()
            raise LoadError("{} is an encoder, which generates no tokens".format(path))
        self._batch = int(library.llama_n_batch(self._context))
        self.context = int(library.llama_n_ctx(self._context))
        self.trained_context = int(library.llama_model_n_ctx_train(self._model))
        self.vocabulary = int(library.llama_vocab_n_tokens(library.llama_model_get_vocab(self._model)))
        self.cache_type = _CACHE_TYPES.get(int(params.type_k), str(params.type_k))

    def prepare(self, tokens: Sequence[int], position: int) -> List[Any]:  # noqa: ARG002 - llama.cpp appends
        batches = []
        for start in range(0, len(tokens), self._batch):
            part = tokens[start : start + self._batch]
            content = (self._library.llama_token * len(part))(*part)
            batch = self._library.llama_batch_get_one(content, len(part))
            batch.content = content  # the batch holds only its address
            batches.append(batch)
        return batches

    def decode(self, batch: Any) -> None:
        code = self._library.llama_decode(self._context, batch)
        if code:
            raise RuntimeError("llama_decode returned {}: {}".format(code, _reason()))
        self._library.llama_synchronize(self._context)

    def clear(self) -> None:
        self._library.llama_memory_clear(self._memory, False)

    def rewind(self, position: int) -> bool:
        return bool(self._library.llama_memory_seq_rm(self._memory, 0, position, -1))

    def next_token(self) -> "tuple[int, Any]":
        pointer = self._library.llama_get_logits_ith(self._context, -1)
        logits = np.array(np.ctypeslib.as_array(pointer, shape=(self.vocabulary,)))
        return int(logits.argmax()), logits

    def close(self) -> None:
        context, self._context = self._context, None
        model, self._model = self._model, None
        if context:
            self._library.llama_free(context)
        if model:
            self._library.llama_model_free(model)


class Cyllama(Engine):
    """The same by cyllama's ``cyllama.llama.llama_cpp``."""

    def __init__(self, path: str, settings: Settings) -> None:
        from cyllama.llama import llama_cpp

        self._library = library = llama_cpp
        self._model: Any = None
        self._context: Any = None
        library.disable_logging()  # a callback of Python's makes its interpreter crash at exit
        library.llama_backend_init()
        _require_gpu(settings, bool(library.llama_supports_gpu_offload()))
        params = library.LlamaModelParams()
        params.n_gpu_layers = 0 if settings.gpu is None else 9999
        try:
            self._model = library.LlamaModel(path, params)
        except (ValueError, RuntimeError, OSError) as error:
            raise LoadError("{} cannot be loaded: {}".format(path, _sentence(error))) from None
        self._open(path, settings)

    def _open(self, path: str, settings: Settings) -> None:
        params = self._library.LlamaContextParams()
        params.n_ctx = settings.context
        params.n_threads = params.n_threads_batch = settings.threads
        params.offload_kqv = params.op_offload = settings.gpu is not None
        try:
            self._context = self._library.LlamaContext(self._model, params)
        except (ValueError, RuntimeError, MemoryError) as error:
            self.close()
            raise _no_context(path, settings, _sentence(error)) from None
        self._batch = int(self._context.n_batch)
        self.context = int(self._context.n_ctx)
        self.trained_context = int(self._model.n_ctx_train)
        self.vocabulary = int(self._model.get_vocab().n_vocab)
        self.cache_type = _CACHE_TYPES.get(int(params.type_k), str(params.type_k))
        self._sampler = self._library.LlamaSampler(self._library.LlamaSamplerChainParams())
        self._sampler.add_greedy()

    def prepare(self, tokens: Sequence[int], position: int) -> List[Any]:
        batches = []
        for start in range(0, len(tokens), self._batch):
            part = tokens[start : start + self._batch]
            batch = self._library.LlamaBatch(n_tokens=len(part), embd=0, n_seq_max=1)
            for i, token in enumerate(part):
                batch.add(token, position + start + i, [0], i == len(part) - 1)
            batches.append(batch)
        return batches

    def decode(self, batch: Any) -> None:
        self._context.decode(batch)
        self._context.synchronize()

    def clear(self) -> None:
        self._context.kv_cache_clear(False)  # the numbers stay where they are, as in llama-bench

    def rewind(self, position: int) -> bool:
        return bool(self._context.memory_seq_rm(0, position, -1))

    def next_token(self) -> "tuple[int, Any]":
        return int(self._sampler.sample(self._context, -1)), None

    def close(self) -> None:
        context, self._context = self._context, None
        model, self._model = self._model, None
        self._sampler = None
        if context is not None:
            context.close()
        if model is not None:
            model.close()


def _require_gpu(settings: Settings, supported: bool) -> None:
    if settings.gpu is not None and not supported:
        raise LoadError(
            "this llama.cpp is built for the CPU alone",
            "Build it for your GPU: CMAKE_ARGS=-DGGML_CUDA=on pip install llama-cpp-python.",
        )


def _no_context(path: str, settings: Settings, reason: str) -> LoadError:
    return LoadError(
        "{} gets no context of {} tokens: {}".format(path, settings.context, reason),
        "Give shorter requests (--prompt, --depth, --generate) or a smaller --context.",
    )


def _listen(library: Any) -> None:
    """Keep llama.cpp's log to ourselves: it holds the reasons of its failures, and hundreds of lines besides."""
    global _callback  # noqa: PLW0603 - the library has one callback
    if _callback is None:
        _callback = library.llama_log_callback(_note)
    library.llama_log_set(_callback, ctypes.c_void_p(0))


def _note(_level: int, text: Optional[bytes], _data: Any) -> None:
    _log.append((text or b"").decode("utf-8", "replace"))


def _reason() -> str:
    """The last line of the log that tells what went wrong."""
    for line in reversed(_log):
        if "error loading model: " in line:
            return line.partition("error loading model: ")[2].strip()
    telling = [line.strip() for line in _log if line.startswith("gguf_init_from")]
    telling += [line.strip() for line in _log if "error" in line.lower() or "failed" in line.lower()]
    return telling[0] if telling else "llama.cpp does not say why"


def _sentence(error: BaseException) -> str:
    """What an exception says, without what can be done in the package's own interface."""
    return " ".join(str(error).split()).partition(" Run with verbose")[0] or type(error).__name__
